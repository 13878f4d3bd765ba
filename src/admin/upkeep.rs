//! Looking after the data file: backup, check and repair.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::reply::{BackedUp, Checked, Code, Lost, Refusal, Reply};
use crate::store::{BackupError, LostMessage, OpenErrorKind, RepairReport, Store};

pub fn back_up(store: &Store, file: &str) -> Result<Reply, Refusal> {
    match store.backup(Path::new(file)) {
        Ok(report) => Ok(Reply::BackedUp(BackedUp {
            file: file.to_owned(),
            messages: report.messages,
            file_octets: report.file_octets,
        })),
        Err(e @ BackupError::NotReplaced(_)) => {
            Err(Refusal::new(Code::Exists, e.to_string()).with_hint("Name another file, or remove it"))
        }
        Err(e) => Err(Refusal::new(Code::Fault, format!("there is no backup: {e}"))),
    }
}

pub fn check(store: &Store) -> Result<Reply, Refusal> {
    check_after(store, RepairReport::default())
}

/// Repairs the store in a file that nobody has open, and checks what came of it.
pub fn repair(file: &Path) -> Result<Reply, Refusal> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let repaired = Store::repair(file, now).map_err(|error| match error.kind {
        OpenErrorKind::Locked => Refusal::new(Code::Busy, error.to_string())
            .with_hint("A store is repaired while nobody uses it: end the service first"),
        _ => Refusal::fault(error),
    })?;
    check_after(&Store::open(file).map_err(Refusal::fault)?, repaired)
}

fn check_after(store: &Store, repaired: RepairReport) -> Result<Reply, Refusal> {
    let report = store.check().map_err(Refusal::fault)?;
    Ok(Reply::Checked(Checked {
        domains: report.domains,
        mailboxes: report.mailboxes,
        messages: report.messages,
        texts: report.texts,
        text_octets: report.text_octets,
        findings: report.findings,
        findings_total: report.findings_total,
        repaired: repaired.mended,
        repaired_total: repaired.mended_total,
        lost: repaired.lost.into_iter().map(lost).collect(),
    }))
}

fn lost(message: LostMessage) -> Lost {
    let LostMessage { mailbox, sequence, received_octets } = message;
    let (received, octets) = received_octets.unzip();
    Lost { mailbox, sequence, received, octets }
}
