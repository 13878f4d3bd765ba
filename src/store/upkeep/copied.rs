//! Opens a data file that may be a copy.
//!
//! A copied or restored file shows it: its superblock names another file (inode and time of birth). Such a file
//! is verified like in `check` before it is used, because a copy of a live file is good only if it was made
//! fast enough (`open/window.rs`). A file that does not open as it is gets the same treatment, because a copy
//! written over its original has the original's identity.

use std::path::Path;
use std::sync::Arc;

use crate::store::file::container::Container;
use crate::store::file::disk::{DataFile, Disk};
use crate::store::open::{OpenError, OpenErrorKind, Store, Trust};
use crate::store::start::lock_file;
use crate::store::upkeep::progress::Progress;

/// Log target for news to the administrator that is no warning (`log.rs`).
const NOTICE: &str = concat!(env!("CARGO_CRATE_NAME"), "::notice");

impl Store {
    /// True if the file says that it is a copy, so that opening it means reading all of it. False if that
    /// cannot be determined, for instance while another process has it open.
    pub fn is_copy(path: &Path) -> bool {
        let Ok(disk) = DataFile::open_to_read(path) else { return false };
        Container::open(Arc::new(disk)).is_ok_and(|container| container.is_copy())
    }

    /// Opens the store in a data file and locks it. A copy is verified first, which means reading all of it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let disk = Arc::new(lock_file(path, false)?);
        Self::open_or_adopt(disk, &path.display().to_string()).map_err(|kind| kind.at(path))
    }

    /// `name` is for the log.
    pub(in crate::store) fn open_or_adopt(disk: Arc<dyn Disk>, name: &str) -> Result<Self, OpenErrorKind> {
        let is_copy = Container::open(disk.clone())?.is_copy();
        let opened = if is_copy { None } else { Some(Self::open_on(disk.clone())) };
        let (what_it_is, not_opened) = match opened {
            None => ("a copy, or was restored from one", None),
            Some(Err(kind)) if kind.may_be_of_a_copy() => ("perhaps a copy", Some(kind)),
            Some(opened) => return opened,
        };
        log::warn!(target: NOTICE, "{name} is {what_it_is}: verifying all of it before using it");
        let checked = Self::open_to_check_on(disk.clone(), Trust::Copy)
            .and_then(|store| Ok(store.check(&Progress::default())?));
        match (checked, not_opened) {
            (Ok(report), _) if report.findings_total == 0 => {
                let store = Self::open_with(disk, Trust::Copy)?;
                log::warn!(target: NOTICE, "{name} is intact: {} messages", report.messages);
                Ok(store)
            }
            (_, Some(kind)) => Err(kind),
            (Err(kind), None) if !kind.is_of_damage() => Err(kind),
            (Err(kind), None) => Err(OpenErrorKind::BadCopy(kind.to_string())),
            (Ok(report), None) => Err(OpenErrorKind::BadCopy(report.findings[0].clone())),
        }
    }
}
