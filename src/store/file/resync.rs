//! Repeats writes that a failed sync may have lost.
//!
//! If Linux cannot write a page back it reports that once, to one `fsync`, and then considers the page clean:
//! the next `fsync` succeeds although data is lost. So we remember what was written since the last successful
//! sync. After a failure those octets, still in the page cache, are written again before the next sync counts.
//!
//! This wraps the disk and lives as long as it does, across reopenings of the index.

use std::io;
use std::sync::{Arc, MutexGuard};

use super::disk::{Disk, DiskUsage, Identity, View};
use crate::lock::{Mutex, RwLock};

/// Octets rewritten at a time.
const PIECE: u64 = 256 << 10;

#[derive(Debug)]
pub struct Resync {
    disk: Arc<dyn Disk>,
    unsynced: Mutex<Unsynced>,
    /// Held for writing during a rewrite, so that nothing another thread writes in between is overwritten with
    /// older octets.
    rewriting: RwLock<()>,
}

#[derive(Debug, Default)]
struct Unsynced {
    /// Offset and length of writes, adjacent ones merged. Their number is bounded by the writes between two
    /// checkpoints, and so by the length of the log.
    ranges: Vec<(u64, u64)>,
    /// True if a sync has failed since the last successful one.
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

    fn read_without_ahead_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read_without_ahead_at(at, out)
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

    /// Linux reports a write-back error to the next sync of any range, so a failure here counts like one of a
    /// full sync and takes a full sync to repair.
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

    /// On return this is durable, or its caller has given up on it.
    fn write_independently(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        let _not_alone = self.rewriting.read();
        self.disk.write_independently(at, octets)
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
