//! `export`: writes mailboxes with their unique ids, or accounts, in formats that other servers read. A mailbox appears
//! complete and durable or not at all; existing files are not replaced. This process creates the files, so they belong
//! to the administrator.

mod mailbox;

use std::path::{Path, PathBuf};

use super::carry_out::{Telling, carry_out, carry_out_telling};
use super::commands::Export;
use super::import::file_name;
use super::progress::Line;
use crate::address::Address;
use crate::admin::reply::{Code, ExportSummary, Refusal, Reply, SkippedFile};
use crate::admin::{Request, Target, Working, next_exported};
use crate::control::{Answer, Enclosed};
use crate::mailroot::MailRoot;
use crate::replace::Replacement;
use mailbox::{Draft, Format};

/// Carries the export out.
pub fn export(typed: &Export, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    let target = Path::new(&typed.target);
    match typed.format.to_ascii_lowercase().as_str() {
        "maildir" => mailboxes(target, Format::Maildir, typed.name.as_deref(), &mailroot()?),
        "eml" => mailboxes(target, Format::Eml, typed.name.as_deref(), &mailroot()?),
        "mbox" => mailboxes(target, Format::Mbox, typed.name.as_deref(), &mailroot()?),
        "accounts" => accounts(target, typed.name.as_deref(), &mailroot()?),
        other => Err(Refusal::usage(format!("there is no format \"{other}\""))
            .with_hint("The formats are maildir, mbox, eml and accounts")),
    }
}

/// Writes each mailbox as DIR/DOMAIN/USER.
fn mailboxes(directory: &Path, format: Format, name: Option<&str>, mailroot: &MailRoot) -> Answer {
    let chosen = choose(name, mailroot)?;
    let mut shown = Shown::begin(chosen.iter().map(|(_, octets)| octets).sum());
    let mut summary = ExportSummary::default();
    for (address, octets) in &chosen {
        let whole = directory.join(address.domain.as_str()).join(file_name(address.local.as_str()));
        match one(address, &whole, format, mailroot, &mut shown) {
            Ok(one) => {
                summary.mailboxes += 1;
                summary.messages += one.messages;
                summary.octets += one.octets;
                summary.damaged += one.damaged;
            }
            Err(refusal) if chosen.len() > 1 && [Code::Exists, Code::NotFound].contains(&refusal.code) => {
                summary.skipped.push(SkippedFile::new(&whole, refusal.message));
            }
            // The mailboxes already written stay.
            Err(refusal) => return Err(refusal),
        }
        shown.mailbox_is_done(*octets);
    }
    Ok(Reply::Exported(summary))
}

/// The mailboxes and their octets.
fn choose(name: Option<&str>, mailroot: &MailRoot) -> Result<Vec<(Address, u64)>, Refusal> {
    let (domain, only) = match name.map(str::parse).transpose()? {
        Some(Target::Mailbox(address)) => (Some(address.domain.to_string()), Some(address)),
        Some(Target::Domain(domain)) => (Some(domain.to_string()), None),
        None => (None, None),
    };
    let listed = carry_out(Request::Mailboxes { domain }, Enclosed::Nothing, mailroot)?;
    let Reply::AllMailboxes { mailboxes, .. } = listed else { panic!("it is answered by mailboxes") };
    let mut chosen = Vec::new();
    for line in mailboxes {
        let address: Address = line.mailbox.parse()?;
        if only.as_ref().is_none_or(|only| *only == address) {
            chosen.push((address, line.octets));
        }
    }
    match only {
        Some(only) if chosen.is_empty() => {
            Err(Refusal::new(Code::NotFound, format!("there is no mailbox {only}")))
        }
        _ => Ok(chosen),
    }
}

fn one(
    address: &Address,
    whole: &Path,
    format: Format,
    mailroot: &MailRoot,
    shown: &mut Shown,
) -> Result<ExportSummary, Refusal> {
    let failed = |error: std::io::Error| not_written(whole, &error);
    if whole.exists() {
        return Err(there_already(whole));
    }
    let mut draft = Draft::begin(whole, format).map_err(failed)?;
    let file = draft.room_for_messages().map_err(failed)?;
    let request = Request::Export { mailbox: address.to_string() };
    let reply = carry_out_telling(
        request,
        Enclosed::File(&file),
        mailroot,
        Telling::To(&mut |working| shown.reading(working.done)),
    )?;
    let Reply::Exported(summary) = reply else { panic!("an export is answered by its summary") };
    let mut messages = mailbox::from_the_beginning(file).map_err(failed)?;
    while let Some(message) = next_exported(&mut messages).map_err(failed)? {
        draft.put(&message).map_err(failed)?;
        shown.wrote(message.content.len() as u64);
    }
    draft.finish().map_err(failed)?;
    Ok(summary)
}

/// Writes the accounts into a passwd-file for Dovecot.
fn accounts(target: &Path, name: Option<&str>, mailroot: &MailRoot) -> Answer {
    if target.exists() {
        return Err(there_already(target));
    }
    let copy = Replacement::begin(target, 0o600).map_err(|error| not_written(target, &error))?;
    let request = Request::ExportAccounts { name: name.map(str::to_owned) };
    let reply = carry_out(request, Enclosed::File(copy.file()), mailroot)?;
    copy.finish().map_err(|error| not_written(target, &error))?;
    Ok(reply)
}

fn there_already(path: &Path) -> Refusal {
    Refusal::new(Code::Exists, format!("{} already exists", path.display()))
        .with_hint("Choose another place, or remove it")
}

fn not_written(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::fault(format!("{} cannot be written: {error}", PathBuf::from(path).display()))
}

/// The progress line. Each octet counts twice: when read and when written.
struct Shown {
    line: Line,
    done_before: u64,
    read: u64,
    written: u64,
    total: u64,
}

impl Shown {
    fn begin(octets: u64) -> Self {
        Self { line: Line::new(), done_before: 0, read: 0, written: 0, total: 2 * octets }
    }

    fn reading(&mut self, octets: u64) {
        self.read = octets;
        self.show();
    }

    fn wrote(&mut self, octets: u64) {
        self.written += octets;
        self.read = self.read.max(self.written);
        self.show();
    }

    fn mailbox_is_done(&mut self, octets: u64) {
        self.done_before += 2 * octets;
        (self.read, self.written) = (0, 0);
    }

    fn show(&mut self) {
        let done = (self.done_before + self.read + self.written) / 2;
        let working =
            Working { stage: "exporting".to_owned(), is_in_octets: true, done, total: self.total / 2 };
        self.line.show(&working);
    }
}
