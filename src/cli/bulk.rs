//! `winpop add /file LIST`: reads the list and sends it in requests of at most a thousand entries.
//!
//! ```text
//! # a comment; empty lines are ignored
//! example.com
//! ann@example.com,her password
//! "bob@example.com","with a , and a "" in it"
//! eve@example.com              a password is generated and written to the /passwords file
//! ```
//! Generated passwords are durable in their file before the mailboxes are added; those of mailboxes that were certainly
//! not added are removed again. Earlier contents of the file stay.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::passwords;
use crate::admin::reply::{AddOutcome, Added, Code, Refusal, Reply};
use crate::admin::{ENTRIES_MAX, Entry, Request};
use crate::control::Answer;

/// Longest list, in octets.
const LIST_OCTETS_MAX: u64 = 256 << 20;
/// Characters of a generated password: 100 bits.
const PASSWORD_CHARACTERS: usize = 20;
/// The mode bits that give users other than the owner access.
const OF_OTHERS: u32 = 0o077;

/// An entry of the list, with its password if that was generated.
struct Line {
    entry: Entry,
    made: Option<String>,
}

/// Adds everything in the list. `send` carries out one request.
pub fn add(list: &Path, passwords: Option<&Path>, send: impl Fn(Request) -> Answer) -> Answer {
    let text = read(list)?;
    let mut passwords = passwords.map(Passwords::open).transpose()?;
    let mut entries = Vec::new();
    let mut batch: Vec<Line> = Vec::new();
    let mut lines = (1..).zip(text.split(|octet| *octet == b'\n')).peekable();
    let mut trouble: Option<Refusal> = None;
    while let Some((number, line)) = lines.next() {
        match entry(number, line, passwords.is_some())? {
            None => {}
            Some(Err(refused)) => entries.push(refused),
            Some(Ok(line)) => batch.push(line),
        }
        if batch.len() == ENTRIES_MAX || lines.peek().is_none() && !batch.is_empty() {
            let batch = std::mem::take(&mut batch);
            match &trouble {
                None => match carry_out(&batch, passwords.as_mut(), &send) {
                    Ok(outcomes) => entries.extend(outcomes),
                    // Nothing has been added yet, so this is an ordinary refusal.
                    Err(refusal) if !entries.iter().any(|entry| entry.outcome == AddOutcome::Added) => {
                        return Err(refusal);
                    }
                    Err(refusal) => {
                        entries.extend(not_done(&batch, &refusal));
                        trouble = Some(refusal);
                    }
                },
                Some(refusal) => entries.extend(not_done(&batch, refusal)),
            }
        }
    }
    entries.sort_by_key(|entry| entry.line);
    Ok(Reply::AddedMany { entries })
}

fn carry_out(
    batch: &[Line],
    passwords: Option<&mut Passwords>,
    send: impl Fn(Request) -> Answer,
) -> Result<Vec<Added>, Refusal> {
    let made: Vec<(&str, &str)> =
        batch.iter().filter_map(|line| Some((&*line.entry.name, line.made.as_deref()?))).collect();
    let mut passwords = passwords.filter(|_| !made.is_empty());
    let before = match &mut passwords {
        Some(passwords) => passwords.append(&made)?,
        None => 0,
    };
    let reply = match send(Request::AddMany(batch.iter().map(|line| line.entry.clone()).collect())) {
        // After a fault the mailboxes may have been added.
        Err(refusal) if refusal.code == Code::Fault => return Err(refusal),
        Err(refusal) => {
            if let Some(passwords) = passwords {
                passwords.truncate(before)?;
            }
            return Err(refusal);
        }
        Ok(reply) => reply,
    };
    let Reply::AddedMany { entries } = reply else { panic!("a list is answered line by line") };
    if let Some(passwords) = passwords {
        let is_added = |line: &Line| {
            let outcome = entries.iter().find(|entry| entry.line == line.entry.line);
            outcome.is_some_and(|entry| entry.outcome == AddOutcome::Added)
        };
        let kept: Vec<(&str, &str)> = batch
            .iter()
            .filter(|line| is_added(line))
            .filter_map(|line| Some((&*line.entry.name, line.made.as_deref()?)))
            .collect();
        if kept.len() < made.len() {
            passwords.truncate(before)?;
            passwords.append(&kept)?;
        }
    }
    Ok(entries)
}

fn not_done(batch: &[Line], refusal: &Refusal) -> Vec<Added> {
    let line = |line: &Line| Added {
        line: line.entry.line,
        name: line.entry.name.clone(),
        outcome: AddOutcome::NotDone,
        why: Some(refusal.message.clone()),
    };
    batch.iter().map(line).collect()
}

fn read(list: &Path) -> Result<Vec<u8>, Refusal> {
    let failed = |error: io::Error| {
        let code = if error.kind() == io::ErrorKind::NotFound { Code::NotFound } else { Code::Fault };
        Refusal::new(code, format!("the list {} cannot be read: {error}", list.display()))
    };
    let mut text = Vec::new();
    let file = File::open(list).map_err(failed)?;
    file.take(LIST_OCTETS_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > LIST_OCTETS_MAX {
        return Err(Refusal::new(Code::Malformed, format!("the list {} is too large", list.display()))
            .with_hint("Split it: a list may be at most 256 MiB"));
    }
    let begin = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    text.drain(..begin);
    Ok(text)
}

/// The entry on a line: `None` for an empty line or comment, an error for a bad line.
fn entry(number: u64, line: &[u8], makes: bool) -> Result<Option<Result<Line, Added>>, Refusal> {
    let refused = |name: String, why: &str| {
        let why = Some(why.to_owned());
        Ok(Some(Err(Added { line: number, name, outcome: AddOutcome::Refused, why })))
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Ok(text) = std::str::from_utf8(line) else {
        return refused(String::from_utf8_lossy(line).into_owned(), "the line is not UTF-8");
    };
    if text.trim().is_empty() || text.trim_start().starts_with('#') {
        return Ok(None);
    }
    let fields = match fields(text) {
        Ok(fields) => fields,
        // The line is not shown: it may contain a password.
        Err(why) => return refused(String::new(), why),
    };
    let (name, password) = match &fields[..] {
        [name] => (name.trim().to_owned(), None),
        [name, password] => (name.trim().to_owned(), Some(password.clone()).filter(|p| !p.is_empty())),
        [name, ..] => {
            let why = "more than two fields; put a password with commas in double quotes";
            return refused(name.trim().to_owned(), why);
        }
        [] => return Ok(None),
    };
    if name.is_empty() {
        return refused(name, "the name is empty");
    }
    let made = match &password {
        None if makes && name.contains('@') => {
            Some(passwords::made::<PASSWORD_CHARACTERS>().map_err(Refusal::fault)?)
        }
        None if name.contains('@') => {
            return refused(
                name,
                "the password is missing; to generate passwords, name a file with /passwords",
            );
        }
        _ => None,
    };
    let password = password.or_else(|| made.clone()).map(Into::into);
    Ok(Some(Ok(Line { entry: Entry { line: number, name, password }, made })))
}

/// The fields of a line (RFC 4180 section 2), except that no field spans lines.
fn fields(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) =
                rest.split_once(',').map_or((rest, None), |(field, after)| (field, Some(after)));
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut characters = quoted.char_indices().peekable();
        let end = loop {
            match characters.next() {
                Some((_, '"')) if characters.next_if(|(_, c)| *c == '"').is_some() => field.push('"'),
                Some((at, '"')) => break at + 1,
                Some((_, c)) => field.push(c),
                None => return Err("a double quote is not closed"),
            }
        };
        fields.push(field);
        match quoted[end..].strip_prefix(',') {
            Some(after) => rest = after,
            None if quoted[end..].trim().is_empty() => return Ok(fields),
            None => return Err("there is text after a closing double quote"),
        }
    }
}

/// The file of generated passwords, one `USER@DOMAIN,PASSWORD` per line.
struct Passwords {
    file: File,
    path: PathBuf,
}

impl Passwords {
    fn open(path: &Path) -> Result<Self, Refusal> {
        let failed = |error: io::Error| {
            Refusal::fault(format!("the file for passwords {} cannot be written: {error}", path.display()))
        };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.mode() & OF_OTHERS != 0 {
            return Err(Refusal::new(
                Code::NotPermitted,
                format!("{} can be read by users other than its owner", path.display()),
            )
            .with_hint("Choose a new file, or restrict this one: chmod 600"));
        }
        file.try_lock().map_err(|_| {
            Refusal::new(Code::Busy, format!("another command is writing to {}", path.display()))
        })?;
        crate::replace::sync_directory_of(path).map_err(failed)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Appends lines durably. Returns the length before.
    fn append(&mut self, made: &[(&str, &str)]) -> Result<u64, Refusal> {
        let lines: String = made.iter().map(|(name, password)| format!("{name},{password}\n")).collect();
        let mut write = || {
            let before = self.file.seek(SeekFrom::End(0))?;
            self.file.write_all(lines.as_bytes())?;
            self.file.sync_all().map(|()| before)
        };
        write().map_err(|error| self.failed(&error))
    }

    fn truncate(&mut self, octets: u64) -> Result<(), Refusal> {
        self.file.set_len(octets).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Refusal {
        let path = self.path.display();
        Refusal::fault(format!("the file for passwords {path} cannot be written: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::tests::scratch;

    #[test]
    fn a_line_has_one_or_two_fields_quoted_if_necessary() {
        let ok = |line: &str, expected: &[&str]| assert_eq!(fields(line).unwrap(), expected, "{line}");
        ok("a@b", &["a@b"]);
        ok("a@b,", &["a@b", ""]);
        ok("a@b,pass word", &["a@b", "pass word"]);
        ok(r#""a@b","x,y""#, &["a@b", "x,y"]);
        ok(r#"a@b,"x,""y""""#, &["a@b", "x,\"y\""]);
        ok(r#"a@b,pa"ss"#, &["a@b", "pa\"ss"]);
        assert!(fields(r#"a@b,"open"#).is_err());
        assert!(fields(r#"a@b,"x"y"#).is_err());
    }

    /// A service that adds only names with an x, and fails from the third request on.
    fn answer_of_service(requests: &std::cell::RefCell<Vec<usize>>, request: Request) -> Answer {
        let Request::AddMany(entries) = request else { panic!() };
        requests.borrow_mut().push(entries.len());
        if requests.borrow().len() > 2 {
            return Err(Refusal::fault("the disk is gone"));
        }
        let outcome = |entry: &Entry| match entry.name.contains('x') {
            true => AddOutcome::Exists,
            false => AddOutcome::Added,
        };
        let added =
            |entry: Entry| Added { line: entry.line, outcome: outcome(&entry), name: entry.name, why: None };
        Ok(Reply::AddedMany { entries: entries.into_iter().map(added).collect() })
    }

    #[test]
    fn a_list_is_sent_in_thousands_and_a_fault_loses_no_line() {
        let scratch = scratch::directory();
        let dir = scratch.path();
        let (list, made) = (dir.join("list"), dir.join("made"));
        let names = (1..=2500).map(|n| if n == 2 { "x@b\n".to_owned() } else { format!("u{n}@b\n") });
        fs::write(&list, names.collect::<String>()).unwrap();
        let requests = std::cell::RefCell::new(vec![]);
        let answer = add(&list, Some(&made), |request| answer_of_service(&requests, request));
        let Ok(Reply::AddedMany { entries }) = answer else { panic!() };
        assert_eq!(*requests.borrow(), [1000, 1000, 500]);
        assert!(entries.iter().map(|entry| entry.line).eq(1..=2500));
        assert_eq!(entries[1].outcome, AddOutcome::Exists);
        assert!(
            entries[2000..].iter().all(|entry| entry.outcome == AddOutcome::NotDone && entry.why.is_some())
        );
        // The passwords of mailboxes that were added, or may have been, stay.
        let passwords = fs::read_to_string(&made).unwrap();
        assert_eq!(passwords.lines().count(), 2499);
        assert!(!passwords.contains("x@b,") && passwords.starts_with("u1@b,"));
        assert_eq!(fs::metadata(&made).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_refused_list_leaves_no_passwords() {
        let scratch = scratch::directory();
        let (list, made) = (scratch.path().join("list"), scratch.path().join("made"));
        fs::write(&list, "bob@b\n").unwrap();
        let left_after = |code: Code| {
            fs::write(&made, "ann@b,secret\n").unwrap();
            fs::set_permissions(&made, fs::Permissions::from_mode(0o600)).unwrap();
            add(&list, Some(&made), |_| Err(Refusal::new(code, "no"))).unwrap_err();
            fs::read_to_string(&made).unwrap().lines().count()
        };
        assert_eq!([Code::NoStore, Code::Busy].map(left_after), [1, 1]);
        // It may have been added all the same.
        assert_eq!(left_after(Code::Fault), 2);
    }

    #[test]
    fn empty_lines_and_comments_are_skipped_and_bad_lines_reported() {
        for nothing in ["", "  ", "# ann@example.com", "\r"] {
            assert!(entry(1, nothing.as_bytes(), false).unwrap().is_none(), "{nothing:?}");
        }
        for bad in [&b"ann@example.com"[..], b"a@b,c,d", b",secret", b"\xff@b,c", b"a@b,\"c"] {
            assert!(
                entry(7, bad, false).unwrap().unwrap().is_err_and(|refused| refused.line == 7),
                "{bad:?}"
            );
        }
        let made = entry(1, b"ann@example.com\r", true).unwrap().unwrap().ok().unwrap();
        assert_eq!(made.made.unwrap().len(), PASSWORD_CHARACTERS);
        let domain = entry(1, b"example.com", true).unwrap().unwrap().ok().unwrap();
        assert!(domain.made.is_none() && domain.entry.password.is_none());
    }
}
