//! `backup`, `check`, `compact` and repair.

use std::fs::File;
use std::path::Path;

use bincode::{Decode, Encode};

use super::reply::{BackedUp, Checked, Code, Compacted, Lost, Refusal, Reply};
use crate::store::{
    CheckReport, CompactReport, LostMessage, OpenError, OpenErrorKind, Progress, Reached, RepairReport,
    Store, UnixTime,
};

/// The progress of a long task.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Working {
    pub stage: String,
    /// True if octets are counted, otherwise rows.
    pub is_in_octets: bool,
    pub done: u64,
    /// The expected total; 0 if unknown.
    pub total: u64,
}

impl From<Reached> for Working {
    fn from(Reached { stage, done, total }: Reached) -> Self {
        Self { stage: stage.words().to_owned(), is_in_octets: stage.is_in_octets(), done, total }
    }
}

/// Copies the store into a file that the administrator has opened and will call `name`.
pub fn back_up(store: &Store, file: Option<File>, name: &str, progress: &Progress) -> Result<Reply, Refusal> {
    let Some(file) = file else {
        return Err(Refusal::usage("the request has no file to write the backup to"));
    };
    let report = store
        .backup(file, progress)
        .map_err(|e| Refusal::new(Code::Fault, format!("the backup failed: {e}")))?;
    Ok(Reply::BackedUp(BackedUp {
        file: name.to_owned(),
        messages: report.messages,
        file_octets: report.file_octets,
    }))
}

pub fn check(store: &Store, progress: &Progress) -> Result<Reply, Refusal> {
    Ok(checked(store.check(progress).map_err(Refusal::fault)?, RepairReport::default()))
}

pub fn compact(store: &Store, progress: &Progress) -> Result<Reply, Refusal> {
    let CompactReport { before, after, moved_octets } = store.compact(progress).map_err(Refusal::fault)?;
    Ok(Reply::Compacted(Compacted {
        file_octets_before: before.file_octets,
        file_octets: after.file_octets,
        allocated_octets_before: before.allocated_octets,
        allocated_octets: after.allocated_octets,
        moved_octets,
    }))
}

/// Checks a data file that no process has open.
pub fn check_file(file: &Path, progress: &Progress) -> Result<Reply, OpenError> {
    Ok(checked(Store::check_file(file, progress)?, RepairReport::default()))
}

/// Repairs a data file that no process has open, then checks it.
pub fn repair(file: &Path, progress: &Progress) -> Result<Reply, Refusal> {
    let repaired = Store::repair(file, UnixTime::now(), progress).map_err(|error| match error.kind {
        OpenErrorKind::Locked => Refusal::new(Code::Busy, error.to_string())
            .with_hint("A store can only be repaired while it is not in use: stop the service first"),
        _ => error.into(),
    })?;
    Ok(checked(Store::check_file(file, progress)?, repaired))
}

fn checked(report: CheckReport, repair: RepairReport) -> Reply {
    Reply::Checked(Checked {
        domains: report.domains,
        mailboxes: report.mailboxes,
        messages: report.messages,
        texts: report.texts,
        text_octets: report.text_octets,
        findings: report.findings,
        findings_total: report.findings_total,
        repaired: repair.repaired,
        repaired_total: repair.repaired_total,
        lost: repair.lost.into_iter().map(lost).collect(),
    })
}

fn lost(message: LostMessage) -> Lost {
    let LostMessage { mailbox, sequence, received_octets } = message;
    let (received, octets) = received_octets.unzip();
    Lost { mailbox, sequence, received_unix_seconds: received.map(|time| time.0), octets }
}
