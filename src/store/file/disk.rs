//! The disk: the store's only I/O boundary.
//!
//! Every access to the data file goes through [`Disk`], which has two implementations: the real file
//! ([`DataFile`]) and, for the crash tests, a simulated disk that loses whatever was not synced
//! (`simulated.rs`).
//!
//! - A write is durable once a `sync` that began after it has returned, not before.
//! - Between two syncs any subset of the writes may reach the platter, sector by sector, in any order.
//! - Opening the data file takes an exclusive lock on it, held as long as the `DataFile` lives. The lock alone
//!   decides whether a service is running.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::num::NonZeroU64;
use std::ops::{Deref, Range};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use rustix::fs::FallocateFlags;

use super::mapping::Mapping;
use super::open_files::{WithoutReadAhead, opened_for_one_write, write_durable};
use crate::lock::Mutex;

/// Positions and lengths are octets from the start of the data file.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    fn len(&self) -> io::Result<u64>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Fails with `UnexpectedEof` unless the whole range is inside the file.
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()>;
    /// The same without read-ahead, for octets whose neighbours are not needed.
    fn read_without_ahead_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_at(at, out)
    }
    /// Announces that a range will be read soon. Only a hint: it may do nothing.
    fn will_read(&self, _at: u64, _len: u64) {}
    fn write_at(&self, at: u64, octets: &[u8]) -> io::Result<()>;
    /// Gives the range back to the file system; it then reads as zeros.
    fn punch(&self, at: u64, len: u64) -> io::Result<()>;
    /// Zeroes the range and allocates it, so that later writes to it cannot fail for lack of space.
    fn reserve_zeroed(&self, at: u64, len: u64) -> io::Result<()>;
    /// Writes octets to a part of the file that was written before, and returns when they are durable. Other
    /// writes need not be.
    fn write_durable(&self, at: u64, octets: &[u8]) -> io::Result<()>;
    /// The same for any part of the file, from threads other than the writer: they wait for their own octets
    /// only, and cannot swallow an error that the writer must hear. Unsupported on some files.
    fn write_independently(&self, _at: u64, _octets: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Returns when all writes before the call are durable.
    fn sync(&self) -> io::Result<()>;
    /// A view of octets. The caller holds a pin, so nobody changes them while the view exists.
    fn view(&self, at: u64, len: usize) -> io::Result<View>;
    fn usage(&self) -> io::Result<DiskUsage>;
    fn identity(&self) -> io::Result<Identity>;
    /// The bug the store is to have on this disk.
    #[cfg(test)]
    fn mutant(&self) -> super::simulated::Mutant {
        super::simulated::Mutant::None
    }
}

/// Tells a file from its copies, and survives renaming and reboots (a device number need not).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub inode: u64,
    /// Nanoseconds since 1970. On file systems without birth times, the device number.
    pub birth: u64,
}

/// Size of the data file, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUsage {
    /// Length of the file, holes included.
    pub file_octets: u64,
    /// What the file system has allocated for it.
    pub allocated_octets: u64,
}

/// Octets of the data file: mapped, or copied on the simulated disk.
pub enum View {
    Mapped {
        mapping: Arc<Mapping>,
        at: usize,
        len: usize,
    },
    #[cfg(test)]
    Copied(Vec<u8>),
}

impl View {
    /// A part of the view, cut off at its end.
    pub fn part(&self, range: Range<usize>) -> View {
        match self {
            View::Mapped { mapping, at, len } => {
                let end = range.end.min(*len);
                let from = range.start.min(end);
                View::Mapped { mapping: mapping.clone(), at: at + from, len: end - from }
            }
            #[cfg(test)]
            View::Copied(octets) => View::Copied(octets[range].to_vec()),
        }
    }

    /// True if reading the view will not wait for the disk.
    pub fn is_resident(&self) -> bool {
        match self {
            View::Mapped { mapping, at, len } => mapping.is_resident(*at, *len),
            #[cfg(test)]
            View::Copied(_) => true,
        }
    }

    /// Reads the view's pages into memory. Waits for the disk, so keep it off the executor. A medium error is
    /// returned here; without this call it would arrive as a signal when the octets are read.
    pub fn fetch(&self) -> io::Result<()> {
        match self {
            View::Mapped { mapping, at, len } => mapping.fetch(*at, *len),
            #[cfg(test)]
            View::Copied(_) => Ok(()),
        }
    }
}

impl Deref for View {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            View::Mapped { mapping, at, len } => &mapping.octets()[*at..*at + *len],
            #[cfg(test)]
            View::Copied(octets) => octets,
        }
    }
}

/// Why the data file could not be opened and locked.
pub enum FileError {
    Missing,
    Locked,
    Io(io::Error),
}

/// The real file, locked and mapped.
#[derive(Debug)]
pub struct DataFile {
    file: File,
    without_read_ahead: WithoutReadAhead,
    mapping: Arc<Mapping>,
    /// The file was at least this long when last looked at, and nothing here has shortened it since.
    known_len: AtomicU64,
    /// Held while the length is changed, or looked up to be remembered.
    changing_len: Mutex<()>,
}

impl DataFile {
    /// Opens the file and takes its lock without waiting for it. A new file is readable by its owner only.
    /// Symbolic links are refused: root would write wherever someone else points it.
    pub fn open(path: &Path, create: bool) -> Result<Self, FileError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        match options.open(path) {
            // Before we had the lock, a restore may have put another file in the place of this one.
            Ok(file) => Self::locked(file).and_then(|file| match file.lies_at(path) {
                true => Ok(file),
                false => Err(FileError::Locked),
            }),
            Err(e) if e.raw_os_error() == Some(libc::ELOOP) => Err(FileError::Io(io::Error::other(
                "it is a symbolic link, and links are not followed; name the directory that holds the file itself",
            ))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(FileError::Missing),
            Err(e) => Err(FileError::Io(e)),
        }
    }

    /// True if this is the file of that path.
    pub(in crate::store) fn lies_at(&self, path: &Path) -> bool {
        let is_same =
            |there: Metadata, ours: Metadata| (there.dev(), there.ino()) == (ours.dev(), ours.ino());
        fs::metadata(path).is_ok_and(|there| self.file.metadata().is_ok_and(|ours| is_same(there, ours)))
    }

    /// Opens a file for reading only. It is locked too, so that nobody changes it meanwhile.
    pub fn open_to_read(path: &Path) -> Result<Self, FileError> {
        match File::open(path) {
            Ok(file) => Self::locked(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(FileError::Missing),
            Err(e) => Err(FileError::Io(e)),
        }
    }

    /// Takes over an empty file that the caller has opened for reading and writing.
    pub fn empty(file: File) -> Result<Self, FileError> {
        let metadata = file.metadata().map_err(FileError::Io)?;
        if !metadata.is_file() || metadata.len() > 0 {
            return Err(FileError::Io(io::Error::other("it is not an empty file")));
        }
        Self::locked(file)
    }

    /// Takes over a file that the caller has opened for reading and writing.
    pub fn locked(file: File) -> Result<Self, FileError> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FileError::Locked),
            Err(TryLockError::Error(e)) => return Err(FileError::Io(e)),
        }
        let mapping = Arc::new(Mapping::new(&file).map_err(FileError::Io)?);
        Ok(Self {
            file,
            without_read_ahead: WithoutReadAhead::default(),
            mapping,
            known_len: AtomicU64::new(0),
            changing_len: Mutex::default(),
        })
    }

    /// Writes zeros instead on file systems without fallocate.
    fn allocate_or_write_zeros(&self, flags: FallocateFlags, at: u64, len: u64) -> io::Result<()> {
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, at, len)) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                let zeros = [0; 64 << 10];
                let end = at + len;
                (at..end).step_by(zeros.len()).try_for_each(|at| {
                    let count = zeros.len().min((end - at) as usize);
                    self.file.write_all_at(&zeros[..count], at)
                })
            }
            Err(e) => Err(e.into()),
        }
    }
}

impl Disk for DataFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.mapping.len() as u64 {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the data file has reached its maximum size",
            ));
        }
        let _alone = self.changing_len.lock();
        // Before, so that no view is made of what is cut off.
        self.known_len.fetch_min(len, Ordering::Relaxed);
        self.file.set_len(len)
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, at)
    }

    fn read_without_ahead_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.without_read_ahead.of(&self.file).read_exact_at(out, at)
    }

    fn will_read(&self, at: u64, len: u64) {
        // A file system may ignore the hint.
        let _ = rustix::fs::fadvise(&self.file, at, NonZeroU64::new(len), rustix::fs::Advice::WillNeed);
    }

    fn write_at(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        self.file.write_all_at(octets, at)
    }

    fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        self.allocate_or_write_zeros(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len)
    }

    fn reserve_zeroed(&self, at: u64, len: u64) -> io::Result<()> {
        self.punch(at, len)?;
        self.allocate_or_write_zeros(FallocateFlags::empty(), at, len)
    }

    fn write_durable(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        write_durable(&self.file, at, octets)
    }

    fn write_independently(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        write_durable(&opened_for_one_write(&self.file)?, at, octets)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn view(&self, at: u64, len: usize) -> io::Result<View> {
        // Reading a mapping past the end of the file raises SIGBUS, so check the bounds here.
        let end = at.checked_add(len as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > self.known_len.load(Ordering::Relaxed) {
            let _unchanged = self.changing_len.lock();
            let file_len = self.len()?;
            if end > file_len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.known_len.store(file_len, Ordering::Relaxed);
        }
        Ok(View::Mapped { mapping: self.mapping.clone(), at: at as usize, len })
    }

    fn usage(&self) -> io::Result<DiskUsage> {
        let metadata = self.file.metadata()?;
        // st_blocks counts units of 512 octets, whatever the block size (stat(2)).
        Ok(DiskUsage { file_octets: metadata.len(), allocated_octets: metadata.blocks() * 512 })
    }

    fn identity(&self) -> io::Result<Identity> {
        let metadata = self.file.metadata()?;
        let birth = metadata.created().ok().and_then(|birth| birth.duration_since(UNIX_EPOCH).ok());
        let birth = birth.map_or_else(|| metadata.dev(), |birth| birth.as_nanos() as u64);
        Ok(Identity { inode: metadata.ino(), birth })
    }
}
