//! Replaces a file atomically, keeping its owner and mode.
//!
//! The draft is written next to it as `.NAME.PID.N.unfinished`, synced and renamed. It is locked while its process
//! lives, so the next replacement of the same file recognises and removes what a killed process left behind.
//!
//! In a world-writable directory an existing file may be a trap, so there the new one belongs to our user only.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Suffix of every draft.
const UNFINISHED: &str = ".unfinished";
const WRITABLE_BY_ALL: u32 = 0o002;

/// A draft that will replace a file. Removed if dropped without [`Replacement::finish`].
#[derive(Debug)]
pub struct Replacement {
    file: File,
    draft: PathBuf,
    target: PathBuf,
    is_finished: bool,
}

impl Replacement {
    /// Creates an empty draft. `mode` applies if the file does not exist yet. For a symbolic link, the file it points
    /// to is replaced.
    pub fn begin(target: &Path, mode: u32) -> io::Result<Self> {
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        let Some(name) = target.file_name() else { return Err(io::ErrorKind::IsADirectory.into()) };
        let directory = directory_of(&target);
        let prefix = format!(".{}.", name.to_string_lossy());
        remove_leftovers(directory, &prefix);
        let (file, draft) = make_draft(directory, &prefix)?;
        let replacement = Self { file, draft, target, is_finished: false };
        replacement.set_owner_and_mode(mode)?;
        Ok(replacement)
    }

    /// The draft, open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the draft the owner and group of its directory, for a file that did not exist before.
    pub fn give_to_owner_of(&self, directory: &Path) -> io::Result<()> {
        give_to(&self.file, &fs::metadata(directory)?)
    }

    /// Replaces the file. On return the new file and its name are durable.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.draft, &self.target)?;
        self.is_finished = true;
        sync_directory_of(&self.target)
    }

    fn set_owner_and_mode(&self, mode: u32) -> io::Result<()> {
        let present = match is_open_to_all(directory_of(&self.target))? {
            true => None,
            false => fs::metadata(&self.target).ok(),
        };
        let mode = present.as_ref().map_or(mode, |present| present.mode() & 0o7777);
        if let Some(present) = present {
            give_to(&self.file, &present)?;
        }
        self.file.set_permissions(fs::Permissions::from_mode(mode))
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_finished {
            // The next replacement removes a leftover draft.
            let _ = fs::remove_file(&self.draft);
        }
    }
}

/// Gives a file or directory the owner and group of another.
pub fn give_to_owner_of(path: &Path, like: &Path) -> io::Result<()> {
    give_to(&File::open(path)?, &fs::metadata(like)?)
}

/// The same for an open file.
pub fn give_to(file: &File, like: &Metadata) -> io::Result<()> {
    let present = file.metadata()?;
    if (present.uid(), present.gid()) == (like.uid(), like.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()))
}

/// Syncs a directory, which makes the creation, renaming and removal of its files durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Syncs the directory of a file.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    sync_directory(directory_of(path))
}

/// The directory of a file.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn is_open_to_all(directory: &Path) -> io::Result<bool> {
    Ok(fs::metadata(directory)?.mode() & WRITABLE_BY_ALL != 0)
}

/// Creates and locks a file under the first free name.
fn make_draft(directory: &Path, prefix: &str) -> io::Result<(File, PathBuf)> {
    let mut number = 0u64;
    loop {
        let draft = directory.join(format!("{prefix}{}.{number}{UNFINISHED}", std::process::id()));
        number += 1;
        let file = match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&draft) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        // Before we locked it, another replacement may have removed it as a leftover.
        if file.try_lock().is_ok() && file.metadata()?.nlink() > 0 {
            return Ok((file, draft));
        }
    }
}

/// Removes drafts of dead processes, ignoring errors: a leftover does no harm.
fn remove_leftovers(directory: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_draft = name.starts_with(prefix) && name.ends_with(UNFINISHED);
        if is_draft && entry.file_type().is_ok_and(|kind| kind.is_file()) && is_unlocked(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_unlocked(path: &Path) -> bool {
    // Non-blocking, in case it is a FIFO by now.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    file.is_ok_and(|file| file.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::tests::scratch;
    use crate::tests::skip::needs_root;

    fn replace(target: &Path, text: &str) {
        let replacement = Replacement::begin(target, 0o600).unwrap();
        replacement.file().write_all(text.as_bytes()).unwrap();
        replacement.finish().unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_a_new_one_gets_the_mode_asked_for() {
        let dir = scratch::directory();
        let target = dir.path().join("file");
        replace(&target, "one");
        assert_eq!(mode(&target), 0o600);
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
        replace(&target, "two");
        assert_eq!((fs::read_to_string(&target).unwrap().as_str(), mode(&target)), ("two", 0o640));
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn a_replaced_file_keeps_its_owner() {
        if !needs_root("giving a file to another user") {
            return;
        }
        let dir = scratch::directory();
        let target = dir.path().join("file");
        replace(&target, "one");
        std::os::unix::fs::chown(&target, Some(12345), Some(54321)).unwrap();
        replace(&target, "two");
        let present = fs::metadata(&target).unwrap();
        assert_eq!((present.uid(), present.gid()), (12345, 54321));
        // Anyone who may write to the directory could have put this file here.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
        replace(&target, "three");
        assert_eq!((fs::metadata(&target).unwrap().uid(), mode(&target)), (0, 0o600));
    }

    #[test]
    fn leftovers_of_a_killed_process_are_removed_and_drafts_under_way_are_not() {
        let dir = scratch::directory();
        let target = dir.path().join("file");
        fs::write(dir.path().join(".file.1.0.unfinished"), "left").unwrap();
        fs::write(dir.path().join(".other.1.0.unfinished"), "of another file").unwrap();
        let under_way = Replacement::begin(&target, 0o600).unwrap();
        let draft = under_way.draft.clone();
        assert!(
            !dir.path().join(".file.1.0.unfinished").exists()
                && dir.path().join(".other.1.0.unfinished").exists()
        );
        replace(&target, "by another");
        assert!(draft.exists());
        under_way.finish().unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "");
        assert!(!draft.exists());
    }

    #[test]
    fn a_draft_that_is_given_up_changes_nothing() {
        let dir = scratch::directory();
        let target = dir.path().join("file");
        replace(&target, "one");
        drop(Replacement::begin(&target, 0o600).unwrap());
        assert_eq!((fs::read_to_string(&target).unwrap().as_str(), names(dir.path()).len()), ("one", 1));
        assert_eq!(
            Replacement::begin(&dir.path().join("no/file"), 0o600).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert!(Replacement::begin(Path::new("/"), 0o600).is_err());
    }

    #[test]
    fn a_link_still_leads_to_the_file() {
        let dir = scratch::directory();
        fs::create_dir(dir.path().join("below")).unwrap();
        let (link, target) = (dir.path().join("link"), dir.path().join("below/file"));
        replace(&target, "one");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace(&link, "two");
        assert!(link.is_symlink() && fs::read_to_string(&target).unwrap() == "two");
    }
}
