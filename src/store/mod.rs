//! The mail store: one data file with everything in it.
//!
//! A message is a row (mailbox, sequence) that names a text. A text is a row that says where its octets are and
//! how many messages share it. A change is durable once its record is in the log; the index follows without
//! syncs and becomes durable at checkpoints.
//!
//! A run of octets in the blob space is in one of these states:
//!
//! | state | row now | row at the last checkpoint | in the log | may be written |
//! | --- | --- | --- | --- | --- |
//! | free | − | − | − | + |
//! | draft: taken and written by the current transaction or for a later one | − | − | − | + |
//! | logged, short | + | − | rows, text | − |
//! | logged, long: durable in place | + | − | rows | − |
//! | stored | + | + | − | − |
//! | retired since the checkpoint | − | + (− if stored since) | removal | − |
//! | retired before it: readers may still see it | − | − | − | once no pin is left |
//!
//! - Nobody is answered before the record is durable. Record n+1 is written when n is durable.
//! - Nothing retired since the last checkpoint is reused or punched: its row may come back, and recovery may
//!   write a short text from the log back over whatever had taken its place.
//! - Long texts are durable before their record.
//! - A stored text is only ever overwritten with its own octets, when the same text comes again
//!   (`delivery.rs`).
//!
//! Guarantee: *after a crash at any instant, a text with a row is intact, a message with a row has its text,
//! the counts match the rows, and every other octet of the blob space is free.*
//!
//! The rooms from the bottom up. A room imports only rooms below it; `src/tests/tidy.rs` checks that.
//!
//! | room | subject |
//! | --- | --- |
//! | `file` | the file's map, redb's space and the blob space, the log, the disk |
//! | `index` | tables, rows, views of them, the transaction that changes them, faults |
//! | `open` | the open store: handle, queue, snapshots, claims, recovery after a crash |
//! | `mail` | delivery, mailboxes and domains, quotas, the maildrop a session sees |
//! | `writer` | the one thread that changes anything |
//! | `start` | opening or creating a store and starting its threads |
//! | `upkeep` | check, backup, repair, salvage, compaction |
//!
//! The store knows no protocol and no executor. Its answers can be awaited or waited for.

mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod index;
mod mail;
mod open;
mod start;
#[cfg(test)]
mod tests;
mod upkeep;
mod writer;

pub use index::rows::{CertificateRow, DomainRow, PrivateKey};
pub use index::types::UnixTime;
pub use index::{Fault, Read, Tx};
#[cfg(test)]
pub use mail::Kept;
pub use mail::quota::{Quota, of_mailbox as quota_of_mailbox};
pub use mail::{Adoption, Import, Imported, Listed, Mover, mover_of};
pub use mail::{
    Body, Incoming, Letter, LockChange, Maildrop, Refused, Removed, Restored, Revocation, Spool,
    StoredMessage, Wanted,
};
pub use open::{OpenError, OpenErrorKind, Store};
pub use upkeep::backup::{NotReplaced, may_replace};
pub use upkeep::check::CheckReport;
pub use upkeep::compact::CompactReport;
pub use upkeep::progress::{Progress, Reached, Stage};
pub use upkeep::repair::{LostMessage, RepairReport};
