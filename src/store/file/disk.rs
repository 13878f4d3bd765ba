//! The disk: the one boundary of I/O of the store.
//!
//! Everything the data file is made of passes through [`Disk`]. Two things stand behind it: the real file
//! ([`DataFile`]) and a simulated disk that loses what was not synced (`simulated.rs`, for the crash tests).
//!
//! - A write is durable when a `sync` that began after it has returned, not before.
//! - Between two syncs any subset of the writes may reach the platter, sector by sector, in any order.
//! - The exclusive lock on the data file is taken when it is opened and lives as long as the `DataFile`: it is
//!   the only judge of "a service is running".

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::num::NonZeroU64;
use std::ops::{Deref, Range};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use rustix::fs::FallocateFlags;

use super::beside::{Alone, Beside, write_durable};
use super::mapping::Mapping;

/// Positions and lengths are in octets from the start of the data file.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    fn len(&self) -> io::Result<u64>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Fails with `UnexpectedEof` where the range is not wholly inside the file.
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()>;
    /// The same where what lies beside it is not wanted: the system reads nothing ahead.
    fn read_alone_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_at(at, out)
    }
    /// Tells that a range will be read soon. Nothing comes of it where that does not help.
    fn will_read(&self, _at: u64, _len: u64) {}
    fn write_at(&self, at: u64, octets: &[u8]) -> io::Result<()>;
    /// Gives the range back to the file system; it reads as zeros afterwards.
    fn punch(&self, at: u64, len: u64) -> io::Result<()>;
    /// Makes the range read as zeros and takes the room for it now, so that later writes into it do not fail
    /// for want of space.
    fn reserve_zeroed(&self, at: u64, len: u64) -> io::Result<()>;
    /// Writes octets into a part of the file that was written before, and returns when these are durable. Others need
    /// not be.
    fn write_durable(&self, at: u64, octets: &[u8]) -> io::Result<()>;
    /// The same for any part of the file, on a thread that is not the writer's: its wait is nobody else's, and no error
    /// of another thread's writes is told here instead of there. Not every file can be written so.
    fn write_beside(&self, _at: u64, _octets: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Returns when all writes before the call are durable.
    fn sync(&self) -> io::Result<()>;
    /// A view of octets that nobody will change while it is held (the caller's pin sees to that).
    fn view(&self, at: u64, len: usize) -> io::Result<View>;
    fn usage(&self) -> io::Result<DiskUsage>;
    fn identity(&self) -> io::Result<Identity>;
    /// What the store is to get wrong on this disk.
    #[cfg(test)]
    fn mutant(&self) -> super::simulated::Mutant {
        super::simulated::Mutant::None
    }
}

/// What no copy of a file has in common with it, and what stays when it is renamed or the machine starts again (the
/// number of a device does not always).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub inode: u64,
    /// Nanoseconds since 1970; where the file system keeps no time of birth, the number of the device.
    pub birth: u64,
}

/// What the data file takes, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUsage {
    /// The length of the file, holes included.
    pub file_octets: u64,
    /// What the file system has really set aside for it.
    pub allocated_octets: u64,
}

/// Octets of the data file: mapped into memory, or (on the simulated disk) copied.
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
    /// A part of it; ends where the view ends.
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

    /// Whether reading the view will not wait for the disk.
    pub fn is_resident(&self) -> bool {
        match self {
            View::Mapped { mapping, at, len } => mapping.is_resident(*at, *len),
            #[cfg(test)]
            View::Copied(_) => true,
        }
    }

    /// Reads the view's pages into memory; waits for the disk, so not to be called on the executor. An error
    /// of the medium comes back as an error here, instead of as a signal when the octets are read.
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

/// Why the data file could not be opened as a locked file.
pub enum FileError {
    Missing,
    Locked,
    Io(io::Error),
}

/// The real file, locked and mapped.
#[derive(Debug)]
pub struct DataFile {
    file: File,
    beside: Beside,
    alone: Alone,
    mapping: Arc<Mapping>,
    /// The file was seen to be at least so long, and has not been made shorter here since.
    known_len: AtomicU64,
}

impl DataFile {
    /// Opens the file and takes its lock; never waits for it. A file that is made here can be read by its
    /// owner alone. A symbolic link is refused, wherever it leads: root would write where somebody else chooses.
    pub fn open(path: &Path, create: bool) -> Result<Self, FileError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        match options.open(path) {
            Ok(file) => Self::locked(file),
            Err(e) if e.raw_os_error() == Some(libc::ELOOP) => Err(FileError::Io(io::Error::other(
                "it is a symbolic link, which is not followed; name the directory that the file itself lies in",
            ))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(FileError::Missing),
            Err(e) => Err(FileError::Io(e)),
        }
    }

    /// Opens a file that is only read. The lock is taken all the same: nobody is to change it meanwhile.
    pub fn open_to_read(path: &Path) -> Result<Self, FileError> {
        match File::open(path) {
            Ok(file) => Self::locked(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(FileError::Missing),
            Err(e) => Err(FileError::Io(e)),
        }
    }

    /// Takes a file over that somebody else has made, open for reading and writing. It must hold nothing yet.
    pub fn empty(file: File) -> Result<Self, FileError> {
        let metadata = file.metadata().map_err(FileError::Io)?;
        if !metadata.is_file() || metadata.len() > 0 {
            return Err(FileError::Io(io::Error::other("it is not an empty file")));
        }
        Self::locked(file)
    }

    /// Takes a file over that somebody else has opened, for reading and writing.
    pub fn locked(file: File) -> Result<Self, FileError> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FileError::Locked),
            Err(TryLockError::Error(e)) => return Err(FileError::Io(e)),
        }
        let mapping = Arc::new(Mapping::new(&file).map_err(FileError::Io)?);
        Ok(Self {
            file,
            beside: Beside::default(),
            alone: Alone::default(),
            mapping,
            known_len: AtomicU64::new(0),
        })
    }

    /// Where the file system does not know the call, zeros are written instead.
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
                "the data file has reached the size that can be mapped",
            ));
        }
        // Before, so that no view is made of what goes, and after, for a look at the length that came between.
        self.known_len.fetch_min(len, Ordering::Relaxed);
        let outcome = self.file.set_len(len);
        self.known_len.fetch_min(len, Ordering::Relaxed);
        outcome
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, at)
    }

    fn read_alone_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.alone.of(&self.file).read_exact_at(out, at)
    }

    fn will_read(&self, at: u64, len: u64) {
        // Advice that the file system does not take changes nothing.
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

    fn write_beside(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        let file = self.beside.of(&self.file).ok_or(io::ErrorKind::Unsupported)?;
        write_durable(file, at, octets)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn view(&self, at: u64, len: usize) -> io::Result<View> {
        // Past the end of the file a mapping ends in a signal, so the bounds are checked here.
        let end = at.checked_add(len as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > self.known_len.load(Ordering::Relaxed) {
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
        // st_blocks counts 512 octets, whatever the file system's block size (stat(2)).
        Ok(DiskUsage { file_octets: metadata.len(), allocated_octets: metadata.blocks() * 512 })
    }

    fn identity(&self) -> io::Result<Identity> {
        let metadata = self.file.metadata()?;
        let birth = metadata.created().ok().and_then(|birth| birth.duration_since(UNIX_EPOCH).ok());
        let birth = birth.map_or_else(|| metadata.dev(), |birth| birth.as_nanos() as u64);
        Ok(Identity { inode: metadata.ino(), birth })
    }
}
