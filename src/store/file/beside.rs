//! The data file, opened more than once: for writes beside the writer's, and for reads of single pages.
//!
//! Linux tells an error of writing back once to each open file, whichever of its threads syncs first (fsync(2)). With
//! an open file of their own, other threads cannot take away the error that the writer has to hear of, nor he theirs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

#[derive(Debug, Default)]
pub struct Beside(OnceLock<Option<File>>);

impl Beside {
    /// None where the system does not let the file be opened again: /proc is missing, or it is another user's.
    pub fn of(&self, file: &File) -> Option<&File> {
        let open = || {
            // The lock on the file belongs to the first one, and is not asked for here.
            OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        };
        self.0.get_or_init(|| open().ok()).as_ref()
    }
}

/// Linux reads ahead in a file, or not (posix_fadvise(2)), for each time that it was opened.
#[derive(Debug, Default)]
pub struct Alone(OnceLock<Option<File>>);

impl Alone {
    /// The file itself where it cannot be opened again: then too much is read.
    pub fn of<'f>(&'f self, file: &'f File) -> &'f File {
        let open = || {
            let again = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
            rustix::fs::fadvise(&again, 0, None, rustix::fs::Advice::Random)?;
            Ok::<_, io::Error>(again)
        };
        self.0.get_or_init(|| open().ok()).as_ref().unwrap_or(file)
    }
}

/// Writes octets, and returns when these are durable. Others need not be.
pub fn write_durable(file: &File, mut at: u64, mut octets: &[u8]) -> io::Result<()> {
    while !octets.is_empty() {
        let slices = [io::IoSlice::new(octets)];
        let written = rustix::io::retry_on_intr(|| {
            rustix::io::pwritev2(file, &slices, at, rustix::io::ReadWriteFlags::DSYNC)
        });
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                at += count as u64;
                octets = &octets[count..];
            }
            // Linux before 4.7, and file systems that do not know the flag.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {
                file.write_all_at(octets, at)?;
                return file.sync_data();
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
