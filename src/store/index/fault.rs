//! What can go wrong with disk and data file, as every caller of the store is told.

use std::fmt;
use std::io;

use super::rows::BadRow;

/// A fault of the disk or of the data file: never an expected outcome.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The disk is full, or the file has reached its greatest size.
    DiskFull(String),
    Io(String),
    /// The data file contradicts itself; `pop3svc check` says where.
    Damaged(String),
    /// The store is being closed.
    Closed,
    /// The store is well, but somebody else who has to be asked is not there: a sentence.
    Elsewhere(String),
}

impl Fault {
    pub fn damaged(what: impl Into<String>) -> Self {
        Fault::Damaged(what.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::DiskFull(what) => write!(f, "no room on the disk: {what}"),
            Fault::Io(what) => write!(f, "the data file cannot be read or written: {what}"),
            Fault::Damaged(what) => write!(f, "the data file is damaged: {what}"),
            Fault::Elsewhere(why) => f.write_str(why),
            Fault::Closed => f.write_str("the mail store is being closed"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, InvalidData, QuotaExceeded, StorageFull, UnexpectedEof};
        match e.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Fault::DiskFull(e.to_string()),
            // A damaged page (`damaged_page.rs`), what redb does not know, and a place past the end of the file. No
            // disk says so.
            InvalidData | UnexpectedEof => Fault::Damaged(e.to_string()),
            _ => Fault::Io(e.to_string()),
        }
    }
}

impl From<redb::Error> for Fault {
    fn from(e: redb::Error) -> Self {
        match e {
            redb::Error::Io(e) => e.into(),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::LockPoisoned(_) => {
                Fault::Io(e.to_string())
            }
            redb::Error::Corrupted(what) => Fault::Damaged(what),
            e => Fault::damaged(format!("its index makes no sense ({e})")),
        }
    }
}

macro_rules! faults_of_redb {
    ($($error:ty),*) => { $(impl From<$error> for Fault {
        fn from(e: $error) -> Self {
            redb::Error::from(e).into()
        }
    })* };
}
faults_of_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::CursorError,
    redb::DatabaseError
);

impl From<BadRow> for Fault {
    fn from(_: BadRow) -> Self {
        Fault::damaged("a row of its index cannot be read, or is of a newer version")
    }
}

pub fn miscounted() -> Fault {
    Fault::damaged("a count is not that of what is there")
}
