//! `export`: mailboxes as another server reads them, with their unique ids. A mailbox appears whole or not at all, and nothing
//! that is there is replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::carry_out::carry_out;
use super::commands::Export;
use crate::address::Address;
use crate::admin::commands::List;
use crate::admin::reply::{Code, ExportSummary, Refusal, Reply};
use crate::admin::{ExportedMessage, Op, Request, Target, next_exported};
use crate::control::{Answer, Enclosed};
use crate::mailroot::MailRoot;
use crate::random;

/// Ends the name of a mailbox that is not whole yet.
const UNFINISHED: &str = ".unfinished";

#[derive(Clone, Copy)]
enum Format {
    /// With `dovecot-uidlist`.
    Maildir,
    /// With `list`, as `import list` reads it.
    Eml,
}

/// Writes each mailbox into a directory of its own: DIR/DOMAIN/USER.
pub fn export(typed: &Export, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    let format = match typed.format.to_ascii_lowercase().as_str() {
        "maildir" => Format::Maildir,
        "eml" => Format::Eml,
        other => {
            return Err(Refusal::new(Code::Usage, format!("there is no format \"{other}\""))
                .with_hint("The formats are maildir and eml"));
        }
    };
    let mailroot = mailroot()?;
    let mut summary = ExportSummary::default();
    for address in mailboxes(typed.name.as_deref(), &mailroot)? {
        let domain = Path::new(&typed.directory).join(address.domain.as_str());
        let one = one_mailbox(&address, &domain, format, &mailroot)?;
        summary.mailboxes += 1;
        summary.messages += one.messages;
        summary.octets += one.octets;
        summary.damaged += one.damaged;
    }
    Ok(Reply::Exported(summary))
}

fn mailboxes(name: Option<&str>, mailroot: &MailRoot) -> Result<Vec<Address>, Refusal> {
    let list = match name.map(str::parse).transpose()? {
        Some(Target::Mailbox(address)) => return Ok(vec![address]),
        Some(Target::Domain(domain)) => List { domain: Some(domain.to_string()), all: false },
        None => List { domain: None, all: true },
    };
    let listed = carry_out(&Request::Command(Op::List(list)), Enclosed::Nothing, mailroot)?;
    let (Reply::Mailboxes { mailboxes, .. } | Reply::AllMailboxes { mailboxes }) = listed else {
        panic!("list is answered by mailboxes")
    };
    mailboxes.iter().map(|line| Ok(line.mailbox.parse()?)).collect()
}

fn one_mailbox(
    address: &Address,
    domain: &Path,
    format: Format,
    mailroot: &MailRoot,
) -> Result<ExportSummary, Refusal> {
    let failed =
        |error: io::Error| Refusal::fault(format!("{} cannot be written: {error}", domain.display()));
    // A mailbox name may have a slash in it.
    let name = address.local.as_str().replace('/', "_");
    let whole = domain.join(&name);
    if whole.exists() {
        return Err(Refusal::new(Code::Exists, format!("{} is there already", whole.display()))
            .with_hint("Name another directory, or remove it"));
    }
    let draft = domain.join(format!("{name}{UNFINISHED}"));
    if draft.exists() {
        fs::remove_dir_all(&draft).map_err(failed)?;
    }
    make_directory(&draft).map_err(failed)?;
    let mut file = nameless(&draft).map_err(failed)?;
    let request = Request::Export { mailbox: address.to_string() };
    let Reply::Exported(summary) = carry_out(&request, Enclosed::File(&file), mailroot)? else {
        panic!("an export is answered by its summary")
    };
    file.rewind().map_err(failed)?;
    let mut messages = BufReader::new(file);
    let mut list = String::new();
    let mut number = 0u64;
    while let Some(message) = next_exported(&mut messages).map_err(failed)? {
        number += 1;
        list += &put(&draft, format, number, &message).map_err(failed)?;
    }
    let index = match format {
        Format::Maildir => {
            for part in ["cur", "new", "tmp"] {
                make_directory(&draft.join(part)).map_err(failed)?;
            }
            let guid = random::octets::<16>().map(u128::from_le_bytes).map_err(failed)?;
            let uidvalidity = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let uidvalidity = uidvalidity.map_or(1, |since| since.as_secs() & 0xffff_ffff);
            list = format!("3 V{uidvalidity} N{} G{guid:032x}\n{list}", number + 1);
            "dovecot-uidlist"
        }
        Format::Eml => "list",
    };
    write_file(&draft.join(index), list.as_bytes(), None).map_err(failed)?;
    fs::rename(&draft, &whole).map_err(failed)?;
    Ok(summary)
}

/// Writes a message, and returns its line in the index.
fn put(draft: &Path, format: Format, number: u64, message: &ExportedMessage) -> io::Result<String> {
    let ExportedMessage { unique_id, received_unix_seconds, content } = message;
    // One that the clock does not know is written as the time now.
    let received = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(*received_unix_seconds));
    let time = received.unwrap_or_else(SystemTime::now);
    match format {
        Format::Maildir => {
            let base = format!("{received_unix_seconds}.M{number}P0.pop3svc");
            make_directory(&draft.join("cur"))?;
            let lines = with_bare_line_feeds(content);
            write_file(&draft.join("cur").join(format!("{base}:2,")), &lines, Some(time))?;
            Ok(format!("{number} P{unique_id} :{base}\n"))
        }
        Format::Eml => {
            let name = format!("{number:08}.eml");
            write_file(&draft.join(&name), content, Some(time))?;
            Ok(format!("{name}\t{unique_id}\n"))
        }
    }
}

/// Lines as a Maildir has them.
fn with_bare_line_feeds(content: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(content.len());
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(line) => {
                lines.extend_from_slice(line);
                lines.push(b'\n');
            }
            None => lines.extend_from_slice(line),
        }
    }
    lines
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write_file(path: &Path, content: &[u8], time: Option<SystemTime>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    if let Some(time) = time {
        file.set_modified(time)?;
    }
    Ok(())
}

/// A file whose name is taken away as soon as it is open.
fn nameless(directory: &Path) -> io::Result<File> {
    let path: PathBuf = directory.join(".messages");
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}
