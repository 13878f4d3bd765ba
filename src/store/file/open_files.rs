//! Further open files on the data file: for writes from threads other than the writer, and for reads of single
//! pages.
//!
//! Linux reports a write-back error once per open file, to whichever thread syncs first (fsync(2)). As each write of
//! another thread has an open file of its own, nobody takes the error that another one, or the writer, must hear.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Opens the file again, for one write by a thread other than the writer. Fails with `Unsupported` if the system does
/// not let us: /proc is missing, or the file is another user's.
pub fn opened_for_one_write(file: &File) -> io::Result<File> {
    // The lock belongs to the first open file; this one does not ask for it.
    let again = OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()));
    again.map_err(|_| io::ErrorKind::Unsupported.into())
}

/// An open file without read-ahead: Linux sets that per open file (posix_fadvise(2)).
#[derive(Debug, Default)]
pub struct WithoutReadAhead(OnceLock<Option<File>>);

impl WithoutReadAhead {
    /// Falls back to the file itself if it cannot be opened again; the system then reads more than it needs to.
    pub fn of<'f>(&'f self, file: &'f File) -> &'f File {
        let open = || {
            let again = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
            rustix::fs::fadvise(&again, 0, None, rustix::fs::Advice::Random)?;
            Ok::<_, io::Error>(again)
        };
        self.0.get_or_init(|| open().ok()).as_ref().unwrap_or(file)
    }
}

/// Writes octets and returns when they are durable. Other writes need not be.
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
            // Linux before 4.7, or a file system that does not know the flag.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {
                file.write_all_at(octets, at)?;
                return file.sync_data();
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
