//! Looking after the data file: backup and check.

use std::path::Path;

use super::reply::{BackedUp, Checked, Code, Refusal, Reply};
use crate::store::{BackupError, Store};

pub fn back_up(store: &Store, file: &str) -> Result<Reply, Refusal> {
    match store.backup(Path::new(file)) {
        Ok(report) => Ok(Reply::BackedUp(BackedUp {
            file: file.to_owned(),
            messages: report.messages,
            file_octets: report.file_octets,
        })),
        Err(e @ BackupError::NotReplaced(_)) => {
            Err(Refusal::new(Code::Exists, e.to_string()).with_mend("Name another file, or remove it"))
        }
        Err(e) => Err(Refusal::new(Code::Fault, format!("there is no backup: {e}"))),
    }
}

pub fn check(store: &Store) -> Result<Reply, Refusal> {
    let report = store.check().map_err(Refusal::fault)?;
    Ok(Reply::Checked(Checked {
        domains: report.domains,
        mailboxes: report.mailboxes,
        messages: report.messages,
        texts: report.texts,
        text_octets: report.text_octets,
        findings: report.findings,
        findings_total: report.findings_total,
    }))
}
