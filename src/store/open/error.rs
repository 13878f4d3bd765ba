//! Why a store could not be opened or created.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::store::file::container::ContainerError;
use crate::store::file::disk::FileError;
use crate::store::file::format;
use crate::store::index::{Fault, described};

/// Prints as one line that ends with what to do.
#[derive(Debug)]
pub struct OpenError {
    pub path: PathBuf,
    pub kind: OpenErrorKind,
}

#[derive(Debug)]
pub enum OpenErrorKind {
    /// There is no such file, or creating it was never finished.
    Missing,
    /// Another process has it open.
    Locked,
    AlreadyExists,
    NotAStore,
    /// Written by a newer version of this program.
    Newer {
        version: u32,
    },
    /// Written before the first release.
    Older {
        version: u32,
    },
    Damaged(&'static str),
    /// A record of the log cannot be read, and there are later ones.
    DamagedLog,
    /// A copy of a live file, made too slowly or not front to back.
    BadCopy(String),
    Io(io::Error),
    Fault(Fault),
}

impl OpenErrorKind {
    /// True if the file is a damaged store, as opposed to a disk that is failing or full.
    pub(in crate::store) fn is_of_damage(&self) -> bool {
        use OpenErrorKind::{BadCopy, Damaged, DamagedLog};
        matches!(self, Damaged(_) | DamagedLog | BadCopy(_) | OpenErrorKind::Fault(Fault::Damaged(_)))
    }

    /// True if an intact copy that was written over its original may fail in this way. Its log may have a gap too, but
    /// so has that of an original that lost acknowledged mail.
    pub(in crate::store) fn may_be_of_a_copy(&self) -> bool {
        self.is_of_damage() && !matches!(self, OpenErrorKind::DamagedLog)
    }

    pub(in crate::store) fn at(self, path: &Path) -> OpenError {
        OpenError { path: path.to_owned(), kind: self }
    }
}

impl From<FileError> for OpenErrorKind {
    fn from(e: FileError) -> Self {
        match e {
            FileError::Missing => OpenErrorKind::Missing,
            FileError::Locked => OpenErrorKind::Locked,
            FileError::Io(e) => OpenErrorKind::Io(e),
        }
    }
}

impl From<ContainerError> for OpenErrorKind {
    fn from(e: ContainerError) -> Self {
        match e {
            ContainerError::Unfinished => OpenErrorKind::Missing,
            ContainerError::NotAStore => OpenErrorKind::NotAStore,
            ContainerError::Newer { version } => OpenErrorKind::Newer { version },
            ContainerError::Older { version } => OpenErrorKind::Older { version },
            ContainerError::Damaged(what) => OpenErrorKind::Damaged(what),
            ContainerError::Io(e) => OpenErrorKind::Io(e),
        }
    }
}

impl From<Fault> for OpenErrorKind {
    fn from(fault: Fault) -> Self {
        OpenErrorKind::Fault(fault)
    }
}

impl From<redb::DatabaseError> for OpenErrorKind {
    fn from(e: redb::DatabaseError) -> Self {
        OpenErrorKind::Fault(e.into())
    }
}

impl fmt::Display for OpenErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenErrorKind::Missing => f.write_str("there is no mail store in it"),
            OpenErrorKind::Locked => f.write_str("another process has it open"),
            OpenErrorKind::AlreadyExists => f.write_str("it already contains a mail store"),
            OpenErrorKind::NotAStore => f.write_str("it is not a mail store of this program"),
            OpenErrorKind::Newer { version } => write!(
                f,
                "it is of format version {version}, and this program knows versions up to {}: use a newer pop3svc",
                format::VERSION
            ),
            OpenErrorKind::Older { version } => write!(
                f,
                "it is of format version {version}, from before the first release, and this program begins with version {}",
                format::VERSION_FIRST
            ),
            OpenErrorKind::Damaged(what) => write!(f, "it is damaged: {what}; restore it from a backup"),
            OpenErrorKind::DamagedLog => f.write_str(
                "its log is damaged, so its last changes cannot be read; `pop3svc check --repair` saves the rest",
            ),
            OpenErrorKind::BadCopy(what) => write!(
                f,
                "it is an incomplete copy ({what}): copy it again, faster; `pop3svc check --repair` saves what it has"
            ),
            OpenErrorKind::Io(e) => f.write_str(&described(e)),
            OpenErrorKind::Fault(fault) => write!(f, "{fault}"),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.kind)
    }
}

impl std::error::Error for OpenError {}
