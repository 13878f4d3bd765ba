//! Makes up for a sync that failed.
//!
//! When Linux cannot write a page back it says so once, to one `fsync`, and takes the page for clean from then on: the
//! next `fsync` succeeds and says nothing of what was lost. So what was written since the last sync that succeeded is
//! remembered, and after a failure it is written once more, as the page cache still has it, before the next sync
//! counts.
//!
//! This stands between the store and its disk, and lives as long as the disk: opening the index anew does not end it.

use std::io;
use std::sync::{Arc, MutexGuard};

use super::disk::{Disk, DiskUsage, Identity, View};
use crate::lock::{Mutex, RwLock};

/// What is written again at a time.
const PIECE: u64 = 256 << 10;

#[derive(Debug)]
pub struct Resync {
    disk: Arc<dyn Disk>,
    unsynced: Mutex<Unsynced>,
    /// Held for writing while octets are read and written again, so that none are lost that another thread writes
    /// between.
    rewriting: RwLock<()>,
}

#[derive(Debug, Default)]
struct Unsynced {
    /// Offset and length; what was written behind the last one is part of it. As many as there are writes between two
    /// checkpoints, which the length of the log bounds.
    ranges: Vec<(u64, u64)>,
    /// Whether a sync has failed since the last one that succeeded.
    failed: bool,
}

impl Resync {
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, unsynced: Mutex::default(), rewriting: RwLock::default() }
    }

    fn write_again(&self, ranges: &[(u64, u64)]) -> io::Result<()> {
        let _alone = self.rewriting.write();
        let mut piece = vec![0; PIECE as usize];
        for &(at, len) in ranges {
            for from in (at..at + len).step_by(PIECE as usize) {
                let octets = &mut piece[..PIECE.min(at + len - from) as usize];
                self.disk.read_at(from, octets)?;
                self.disk.write_at(from, octets)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock()
    }
}

impl Disk for Resync {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.set_len(len)
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(at, out)
    }

    fn read_alone_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read_alone_at(at, out)
    }

    fn will_read(&self, at: u64, len: u64) {
        self.disk.will_read(at, len);
    }

    fn write_at(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        self.disk.write_at(at, octets)?;
        let len = octets.len() as u64;
        let mut unsynced = self.lock();
        match unsynced.ranges.last_mut() {
            Some((last, length)) if *last + *length == at => *length += len,
            _ => unsynced.ranges.push((at, len)),
        }
        Ok(())
    }

    fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        self.disk.punch(at, len)
    }

    fn reserve_zeroed(&self, at: u64, len: u64) -> io::Result<()> {
        self.disk.reserve_zeroed(at, len)
    }

    /// Linux tells an error of writing back to whoever syncs next, whatever range that is. So a failure here counts
    /// like that of a whole sync, and after one a whole sync has to make good what was lost.
    fn write_durable(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        if self.lock().failed {
            self.write_at(at, octets)?;
            return self.sync();
        }
        let outcome = self.disk.write_durable(at, octets);
        if outcome.is_err() {
            let mut unsynced = self.lock();
            unsynced.failed = true;
            unsynced.ranges.push((at, octets.len() as u64));
        }
        outcome
    }

    /// What this writes is durable, or given up by whoever wanted it.
    fn write_beside(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        let _not_alone = self.rewriting.read();
        self.disk.write_beside(at, octets)
    }

    fn sync(&self) -> io::Result<()> {
        let (ranges, failed) = {
            let mut unsynced = self.lock();
            (std::mem::take(&mut unsynced.ranges), unsynced.failed)
        };
        let again = if failed { self.write_again(&ranges) } else { Ok(()) };
        let outcome = again.and_then(|()| self.disk.sync());
        let mut unsynced = self.lock();
        unsynced.failed = outcome.is_err();
        if outcome.is_err() {
            unsynced.ranges.splice(0..0, ranges);
        }
        outcome
    }

    fn view(&self, at: u64, len: usize) -> io::Result<View> {
        self.disk.view(at, len)
    }

    fn usage(&self) -> io::Result<DiskUsage> {
        self.disk.usage()
    }

    #[cfg(test)]
    fn mutant(&self) -> super::simulated::Mutant {
        self.disk.mutant()
    }

    fn identity(&self) -> io::Result<Identity> {
        self.disk.identity()
    }
}
