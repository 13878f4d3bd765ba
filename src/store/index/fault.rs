//! Faults of the disk and the data file, as callers of the store see them.

use std::fmt;
use std::io;

use super::rows::BadRow;

/// A fault of the disk or the data file; never an expected outcome.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The disk is full, or the file has reached its greatest length.
    DiskFull(String),
    Io(String),
    /// The data file contradicts itself; `pop3svc check` says where.
    Damaged(String),
    /// The store is closing.
    Closed,
    /// The store is fine, but something it depends on is unavailable. The text is a sentence.
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
            Fault::Closed => f.write_str("the mail store is closing"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, InvalidData, QuotaExceeded, StorageFull, UnexpectedEof};
        match e.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Fault::DiskFull(e.to_string()),
            // A damaged page (`damaged_page.rs`), something unknown to redb, or an offset past the end of the
            // file. Disks do not report these.
            InvalidData | UnexpectedEof => Fault::Damaged(e.to_string()),
            _ => Fault::Io(described(&e)),
        }
    }
}

/// The error, with advice if the disk itself fails: repairing in place would read a dying disk longer than a copy does.
pub fn described(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::EIO) => format!(
            "{e}; the disk is failing: copy the data file to a good disk first, then run `pop3svc check --repair` on the copy"
        ),
        _ => e.to_string(),
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
            e => Fault::damaged(format!("its index is corrupt ({e})")),
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
        Fault::damaged("a row of its index is unreadable or from a newer version")
    }
}

pub fn miscounted() -> Fault {
    Fault::damaged("a count in its index is wrong")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eio_comes_with_the_advice_to_copy_the_file_before_repairing_it() {
        let advice = "copy the data file to a good disk first";
        let of = |code| io::Error::from_raw_os_error(code);
        let met_by_redb = Fault::from(redb::StorageError::Io(of(libc::EIO)));
        assert!(matches!(&met_by_redb, Fault::Io(_)) && met_by_redb.to_string().contains(advice));
        assert!(!Fault::from(of(libc::EBADF)).to_string().contains(advice));
    }
}
