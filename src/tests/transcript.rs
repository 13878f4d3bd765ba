//! Dialogues as data files: what a client sends, or an administrator types, and what must come back. The files are in
//! `testdata/pop3`, `smtp`, `lmtp` and `winpop`. The library's tests run the first three against bare sessions, the
//! system tests run all of them against the program.
//!
//! The first characters of a line give its kind:
//!
//! ```text
//! # a remark
//! key: value            the setup: settings of service, mailbox and store, before the first step
//! message               the setup: a message in the mailbox, whose lines follow ("message x150": that many of them)
//! | Subject: a line     a line of its text, dots not doubled; "|" alone is an empty line
//! C: STAT               the client sends this with CRLF; C: lines in a row may go out in one piece
//! C\: AB                the client sends this and no line end
//! S: +OK 1 {octets 1}   the server sends this line
//! S*                    the server sends any lines, up to the next S: line
//! ! words               anything besides the dialogue
//! ```
//!
//! Except in comments and `!` lines, `\xNN` is an octet, `\r` and `\n` are CR and LF, `\\` is a backslash, and `\{300
//! a}` is the letter a 300 times. A space at the end of a line is written `\x20` to make it visible. In `S:` lines, a
//! `*` at the end matches any rest, and `{name}` matches a value: the one that [`Values`] has under the name or, if it
//! has none, any characters up to a space, which then become the value. `{octets 1+3}` is the sum of `{octets 1}` and
//! `{octets 3}`.
//!
//! `!` lines for all servers: `closed`: the server has hung up; `hang up`: the client does. The others, and the setup
//! keys, are defined by the players: `pop3_transcripts.rs`, `smtp_transcripts.rs`, `system/winpop.rs`.
//!
//! This file uses nothing from the program, so that tests outside the library can include it.

use std::collections::BTreeMap;
use std::path::Path;

/// A dialogue and what it needs.
#[derive(Debug)]
pub struct Transcript {
    pub name: String,
    pub setup: Setup,
    pub steps: Vec<Step>,
}

/// Everything before the first step.
#[derive(Debug, Default)]
pub struct Setup {
    pub settings: BTreeMap<String, String>,
    /// The messages' contents, oldest first: lines end with CRLF, dots are not doubled.
    pub messages: Vec<Vec<u8>>,
}

/// A step and the number of its line in the file.
#[derive(Debug)]
pub struct Step {
    pub line_number: usize,
    pub action: Action,
}

#[derive(Debug, PartialEq)]
pub enum Action {
    /// Octets to send, line end included.
    Client(Vec<u8>),
    /// A pattern for one line.
    Server(String),
    /// Any number of lines.
    ServerAny,
    /// The words after the exclamation mark.
    Other(String),
}

/// The values of placeholders, by name.
pub type Values = BTreeMap<String, String>;

impl Transcript {
    /// Every `.txt` file in a folder of the repository, by name; at least one.
    pub fn all_in(folder: &str) -> Vec<Transcript> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
        paths.sort();
        assert!(!paths.is_empty(), "no transcripts in {}", folder.display());
        paths.iter().map(|path| Transcript::read(path)).collect()
    }

    fn read(path: &Path) -> Transcript {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Transcript::parse(name, &text)
    }

    /// # Panics
    /// On a line of no known kind, naming file and line, because a transcript is part of the tests.
    fn parse(name: String, text: &str) -> Transcript {
        let mut transcript = Transcript { name, setup: Setup::default(), steps: Vec::new() };
        let mut copies = 1;
        for (line_number, line) in (1..).zip(text.lines()) {
            let place = format!("{}:{line_number}", transcript.name);
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(action) = action(line) {
                transcript.steps.push(Step { line_number, action });
                continue;
            }
            assert!(transcript.steps.is_empty(), "{place}: the setup comes before the first step");
            if let Some(rest) = line.strip_prefix("message") {
                copies = match rest.strip_prefix(" x") {
                    Some(count) => count.parse().unwrap_or_else(|e| panic!("{place}: {e}")),
                    None => 1,
                };
                transcript.setup.messages.extend(std::iter::repeat_n(Vec::new(), copies));
            } else if let Some(content) = line.strip_prefix('|') {
                let mut octets = unescape(content.strip_prefix(' ').unwrap_or(content));
                octets.extend_from_slice(b"\r\n");
                for message in transcript.setup.messages.iter_mut().rev().take(copies) {
                    message.extend_from_slice(&octets);
                }
            } else if let Some((key, value)) = line.split_once(": ") {
                transcript.setup.settings.insert(key.to_owned(), unescape_text(value));
            } else {
                panic!("{place}: this is no line of a transcript: {line}");
            }
        }
        transcript
    }
}

impl Setup {
    pub fn get(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str)
    }
}

fn action(line: &str) -> Option<Action> {
    if let Some(text) = line.strip_prefix("C:") {
        let mut octets = unescape(text.strip_prefix(' ').unwrap_or(text));
        octets.extend_from_slice(b"\r\n");
        Some(Action::Client(octets))
    } else if let Some(text) = line.strip_prefix("C\\:") {
        Some(Action::Client(unescape(text.strip_prefix(' ').unwrap_or(text))))
    } else if line == "S*" {
        Some(Action::ServerAny)
    } else if let Some(text) = line.strip_prefix("S:") {
        Some(Action::Server(unescape_text(text.strip_prefix(' ').unwrap_or(text))))
    } else {
        line.strip_prefix("! ").map(|words| Action::Other(words.to_owned()))
    }
}

fn unescape_text(text: &str) -> String {
    String::from_utf8(unescape(text)).expect("UTF-8 in settings and patterns")
}

fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        octets.extend_from_slice(plain.as_bytes());
        rest = if let Some(escape) = escape.strip_prefix('x') {
            octets.push(u8::from_str_radix(&escape[..2], 16).expect("two hexadecimal digits after \\x"));
            &escape[2..]
        } else if let Some(after) = escape.strip_prefix('r') {
            octets.push(b'\r');
            after
        } else if let Some(after) = escape.strip_prefix('n') {
            octets.push(b'\n');
            after
        } else if let Some(escape) = escape.strip_prefix('{') {
            let (repeat, after) = escape.split_once('}').expect("a closing brace after \\{");
            let (count, unit) = repeat.split_once(' ').expect("a count and a text within \\{}");
            let count = count.parse().expect("a count after \\{");
            octets.extend_from_slice(unit.repeat(count).as_bytes());
            after
        } else {
            octets.push(b'\\');
            escape.strip_prefix('\\').expect("x, r, n, { or a backslash after a backslash")
        };
    }
    octets.extend_from_slice(rest.as_bytes());
    octets
}

/// The octets of a message as a `! delivered` line shows them.
pub fn escaped(octets: &[u8]) -> String {
    let escape = |&octet: &u8| match octet {
        b'\r' => "\\r".to_owned(),
        b'\n' => "\\n".to_owned(),
        b'\\' => "\\\\".to_owned(),
        b' '..=b'~' => char::from(octet).to_string(),
        _ => format!("\\x{octet:02x}"),
    };
    octets.iter().map(escape).collect()
}

/// True if a line from the server matches the pattern. Placeholders without a value get one.
pub fn matches(pattern: &str, line: &[u8], values: &mut Values) -> bool {
    let Ok(line) = std::str::from_utf8(line) else { return false };
    let (pattern, open) = match pattern.strip_suffix('*') {
        Some(front) => (front, true),
        None => (pattern, false),
    };
    let mut rest = line;
    let mut pattern = pattern;
    while let Some((plain, after)) = pattern.split_once('{') {
        let (name, after) = after.split_once('}').expect("a closing brace in the pattern");
        let Some(tail) = rest.strip_prefix(plain) else { return false };
        // A value ends where the pattern continues, or at a space.
        let stop = after.chars().next().unwrap_or(' ');
        let end = tail.find([' ', stop]).unwrap_or(tail.len());
        let (found, tail) = tail.split_at(end);
        match value_of(name, values) {
            Some(value) if value != found => return false,
            None if found.is_empty() => return false,
            None => drop(values.insert(name.to_owned(), found.to_owned())),
            Some(_) => {}
        }
        rest = tail;
        pattern = after;
    }
    if open { rest.starts_with(pattern) } else { rest == pattern }
}

/// The value of `name`; of `octets 1+2`, the sum of `octets 1` and `octets 2`, if both are known.
fn value_of(name: &str, values: &Values) -> Option<String> {
    match name.split_once(' ') {
        Some((kind, numbers)) if numbers.contains('+') => {
            let value = |number| values.get(&format!("{kind} {number}"))?.parse::<u64>().ok();
            let sum: Option<u64> = numbers.split('+').map(value).sum();
            Some(sum?.to_string())
        }
        _ => values.get(name).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_setup_and_steps() {
        let text = "# about\nplaintext: no\nmessage x2\n| A: \\x41\n|\nmessage\n| .\n\nC: a\\{3 b}\\\\\nC\\: x\nS: +OK*\nS*\n! closed\n";
        let transcript = Transcript::parse("t".to_owned(), text);
        assert_eq!(transcript.setup.get("plaintext"), Some("no"));
        let contents: Vec<&[u8]> = vec![b"A: A\r\n\r\n", b"A: A\r\n\r\n", b".\r\n"];
        assert_eq!(transcript.setup.messages, contents);
        let actions: Vec<_> = transcript.steps.into_iter().map(|step| step.action).collect();
        let expected = [
            Action::Client(b"abbb\\\r\n".to_vec()),
            Action::Client(b"x".to_vec()),
            Action::Server("+OK*".to_owned()),
            Action::ServerAny,
            Action::Other("closed".to_owned()),
        ];
        assert_eq!(actions, expected);
    }

    #[test]
    fn a_pattern_compares_knows_and_learns() {
        let mut values =
            Values::from([("octets 1", "10"), ("octets 2", "5")].map(|(k, v)| (k.into(), v.into())));
        for (pattern, line, matched) in [
            ("+OK", "+OK", true),
            ("+OK", "+OK more", false),
            ("+OK*", "+OK more", true),
            ("+OK {octets 1}*", "+OK 10 octets", true),
            ("+OK {octets 1}*", "+OK 100 octets", false),
            ("2 {octets 1+2}", "2 15", true),
            ("2 {octets 1+2}", "2 16", false),
            ("<{stamp}@{host}>", "<a.b@c.d>", true),
            ("{stamp}", "a.b", true),
            ("{stamp}", "a.c", false),
            ("x {new}", "x ", false),
        ] {
            assert_eq!(matches(pattern, line.as_bytes(), &mut values), matched, "{pattern} and {line}");
        }
        assert_eq!(values["host"], "c.d");
    }
}
