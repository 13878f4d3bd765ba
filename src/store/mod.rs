//! The mail store: one data file with everything in it.
//!
//! A message is a row (mailbox, sequence) that names a text; a text is a row that says where its octets lie and how
//! many messages have it. A change is durable when its record is in the log; the index is brought up to date without
//! syncs, and made durable at checkpoints. The states of a run of octets in the blob space, and who knows of it:
//!
//! | state | row now | row at the last checkpoint | in the log | may be written |
//! | --- | --- | --- | --- | --- |
//! | free | − | − | − | + |
//! | draft: taken and written by the transaction under way, or for one to come | − | − | − | + |
//! | logged, short | + | − | rows, text | − |
//! | logged, long: durable in its place | + | − | rows | − |
//! | stored | + | + | − | − |
//! | retired since the checkpoint | − | + (− if stored since) | removal | − |
//! | retired before it: a reader may still look at it | − | − | − | when no pin is left |
//!
//! - Nobody is answered before the record is durable; record n+1 is written when n is durable.
//! - Nothing retired since the last checkpoint is given out or punched: its row may come back, and a short text that is
//!   written once more from the log would lie over what took its place.
//! - Long texts are durable before their record is.
//! - A stored text is written over with its own octets only: when the same text comes again (`delivery.rs`).
//!
//! Guarantee: *after a crash at any instant, a text with a row is whole, a message with a row has its text, the counts
//! are those of the rows, and every other octet of the blob space is free.*
//!
//! The rooms, from the bottom up; `src/tests/tidy.rs` holds that a room imports those below it only:
//!
//! | room | is |
//! | --- | --- |
//! | `file` | the map of the file, redb's space and the blobs' in it, the log, the disk |
//! | `index` | tables, rows, a view of them, the transaction that changes them, faults |
//! | `open` | what is open, and for whom: handle, queue, snapshot, claims; how it is opened after a crash |
//! | `mail` | delivery, the directory of mailboxes, quotas, a mailbox as a session has it |
//! | `writer` | the one thread that changes anything |
//! | `start` | a store opened or made, and its threads started |
//! | `upkeep` | check, backup, repair, salvage |
//!
//! The store knows no protocol and no executor; what it returns can be awaited or waited for.

mod file;
mod index;
mod mail;
mod open;
mod start;
#[cfg(test)]
mod tests;
mod upkeep;
mod writer;

#[cfg(any(test, fuzzing))]
pub use index::rows::fuzz_rows;
pub use index::rows::{CertificateRow, DomainRow, PrivateKey};
pub use index::types::{Day, UnixTime};
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
#[cfg(any(test, fuzzing))]
pub use upkeep::salvage::fuzz_tree;
