//! The container: one file of extents that holds redb's linear space and the blobs. `format.rs` has the layout.
//!
//! redb sees a linear space of `index_len` octets. From octet 4096 on, its octets are scattered over extents,
//! 255 pages in each after a page of their sums (`container/sums.rs`). The superblock maps redb's extents to
//! those of the file. Invariants:
//!
//! 1. A superblock goes to the older slot, before the sync that makes a commit durable, and only if it changed.
//! 2. Between two syncs the map only gains extents that no durable commit needs yet and only loses extents that
//!    no durable commit needs any more. So either superblock serves either commit, whichever of them survive a
//!    crash. A crash tears only the older superblock; losing the newer one (a bad sector) looks the same, so
//!    the index is verified in full if a superblock fails its checksum, or if the file is shorter than it says.
//! 3. An extent that redb gave up is reused only once a superblock without it is durable; until then it is in
//!    `dropped`.
//! 4. redb's header comes before the superblocks in the file, so a copy made front to back never has a map
//!    older than the header it must serve.
//! 5. A reserve of allocated extents covers every page a checkpoint may have to write: redb keeps at most half
//!    its cache unwritten. Mail is accepted only while the reserve is full. Without it every commit is a
//!    checkpoint, which may fail and is then undone. So whatever is in the log can always be brought into the
//!    index.
//! 6. The superblock found at open is rewritten before the first commit becomes durable: a sync that failed in
//!    an earlier process may have lost it.
//!
//! To the container redb's space is just octets; their meaning is the business of `index`.

mod backend;
mod blocks;
mod compaction;
mod sums;

use super::disk::{Disk, DiskUsage, View};
use super::format::{
    AHEAD_MAX, AHEAD_MIN, EXTENT, Extent, HEADERS, INDEX_EXTENT, INDEX_PAGE_0, MAP_EXTENTS_MAX, PAGE, SLOTS,
};
pub use backend::IndexBackend;
pub use blocks::ContainerError;
use blocks::Superblock;
#[cfg(test)]
pub use blocks::forge_superblock;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::thread;

use crate::lock::{Mutex, RwLock};
use sums::Sums;

/// Longer runs are not written but punched.
const ERASED_BY_WRITING_MAX: u64 = 64 << 10;
/// redb's cache, in octets. redb's default is 1 GiB of heap.
pub const CACHE_OCTETS: usize = 64 << 20;
/// Reserve extents beyond one per index extent: a deletion adds rows (free runs).
const RESERVE_EXTENTS_MORE: usize = 2;
/// Enough for all of redb's unwritten pages, however large the index is.
const RESERVE_EXTENTS_MAX: usize = CACHE_OCTETS / 2 / EXTENT as usize + RESERVE_EXTENTS_MORE;

#[derive(Debug)]
pub struct Container {
    disk: Arc<dyn Disk>,
    space: Mutex<IndexSpace>,
    /// Held for writing while index extents move; readers hold it while they look octets up.
    moving: RwLock<()>,
    /// True if open found something that a crash *or* damage could explain; the index is then verified in full.
    doubtful: bool,
    /// redb has seen an I/O error and will refuse everything from now on.
    failed: AtomicBool,
    sync_failed: AtomicBool,
    /// True if the file is a copy: its superblock was written for another file.
    is_copy: AtomicBool,
    /// True if the file is kept longer than needed, so that copies of it are good.
    is_ahead: AtomicBool,
    /// Page octets redb has written since the container was opened.
    index_octets_written: AtomicU64,
    /// redb has panicked: its handle is leaked and must not touch the disk again.
    given_up: AtomicBool,
    /// True once the writer waits for the last reader, to reopen the index.
    is_closing: AtomicBool,
}

/// The next superblock, and what else is known about the extents.
#[derive(Debug, Default)]
struct IndexSpace {
    block: Superblock,
    sums: Sums,
    /// Number of extents in the file when it was opened.
    found: Extent,
    /// End of the extents in use, by anyone.
    end: Extent,
    /// Length of the file in octets.
    len: u64,
    /// Free extents.
    pool: Vec<Extent>,
    /// Zeroed and allocated extents set aside for the index.
    reserve: Vec<Extent>,
    /// Extents redb gave up that a durable superblock still lists.
    dropped: Vec<Extent>,
    /// The superblock found at open and its offset, until it is known to be durable. A sync that failed before
    /// we opened the file may have lost it while the page cache still shows it.
    unsure: Option<(u64, Vec<u8>)>,
    /// Number of superblock changes so far, and how many of them are durable.
    changes: u64,
    durable_changes: u64,
}

impl Container {
    /// Lays out an empty container without a header. It counts as unfinished until [`Container::finish`].
    pub fn create(disk: Arc<dyn Disk>) -> io::Result<Arc<Self>> {
        disk.set_len(0)?;
        disk.write_at(0, &blocks::unfinished_header())?;
        disk.sync()?;
        let len = Extent::FIRST.at();
        disk.set_len(len)?;
        // Writing a superblock must not fail on a full disk.
        disk.reserve_zeroed(INDEX_PAGE_0, len - INDEX_PAGE_0)?;
        let block = Superblock { sequence: 1, identity: disk.identity()?, ..Superblock::default() };
        let space = IndexSpace { block, len, ..IndexSpace::default() };
        disk.write_at(SLOTS[1], &space.block.encode()?)?;
        disk.sync()?;
        Ok(Self::new(disk, space, false, false))
    }

    /// Writes the headers. Everything else is durable before them, so finding one of them is enough.
    pub fn finish(&self) -> io::Result<()> {
        self.disk.sync()?;
        for at in HEADERS {
            self.disk.write_at(at, &blocks::encode_header())?;
        }
        self.disk.sync()
    }

    fn new(disk: Arc<dyn Disk>, space: IndexSpace, doubtful: bool, is_copy: bool) -> Arc<Self> {
        Arc::new(Self {
            disk,
            space: Mutex::new(space),
            moving: RwLock::default(),
            doubtful,
            is_copy: is_copy.into(),
            is_ahead: AtomicBool::default(),
            index_octets_written: AtomicU64::default(),
            failed: AtomicBool::default(),
            sync_failed: AtomicBool::default(),
            given_up: AtomicBool::default(),
            is_closing: AtomicBool::default(),
        })
    }

    /// Reads header and superblocks. Until [`Container::adopt_blob_extents`] says which extents hold blobs,
    /// none is handed out.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Arc<Self>, ContainerError> {
        let len = disk.len()?;
        blocks::find_header(&*disk, len)?;
        if len < Extent::FIRST.at() {
            return Err(ContainerError::Damaged("it was cut short"));
        }
        let (mut block, one_is_lost) = blocks::newest_superblock(&*disk)?;
        let unsure = Some((SLOTS[(block.sequence % 2) as usize], block.encode()?));
        let in_file =
            Extent::holding(len).ok_or(ContainerError::Damaged("it is longer than a store can be"))?;
        // Whatever a durable commit needs was in the file before that commit. A crash can keep a superblock
        // that names more and still lose the file's new length, so nobody needs what it names past the end.
        let mut beyond = false;
        for place in block.map.iter_mut().filter(|place| place.is_some_and(|extent| extent >= in_file)) {
            *place = None;
            beyond = true;
        }
        if block.index_len.div_ceil(INDEX_EXTENT) > MAP_EXTENTS_MAX as u64 {
            return Err(ContainerError::Damaged("its index is longer than an index can be"));
        }
        let doubtful = one_is_lost || beyond;
        // A lost or doubtful superblock is rewritten by the next sync.
        let changes = u64::from(doubtful);
        let is_copy = block.identity != disk.identity()?;
        let space =
            IndexSpace { block, found: in_file, end: in_file, len, unsure, changes, ..IndexSpace::default() };
        Ok(Self::new(disk, space, doubtful, is_copy))
    }

    /// True if the file is a copy, however it was made.
    pub fn is_copy(&self) -> bool {
        self.is_copy.load(Ordering::Acquire)
    }

    /// Treats the file as a copy, whatever its superblock says.
    pub fn take_for_a_copy(&self) {
        self.is_copy.store(true, Ordering::Release);
    }

    /// Edits redb's header in place, before redb reads it. Returns false if `change` declined.
    pub fn change_index_header(&self, change: impl FnOnce(&mut [u8; 320]) -> bool) -> io::Result<bool> {
        let mut header = [0; 320];
        self.disk.read_at(INDEX_PAGE_0, &mut header)?;
        let changed = change(&mut header);
        if changed {
            self.disk.write_at(INDEX_PAGE_0, &header)?;
        }
        Ok(changed)
    }

    /// From now on the file grows early, so that a copy as long as the file was at its start has everything its
    /// front refers to.
    pub fn keep_ahead(&self) {
        self.is_ahead.store(true, Ordering::Relaxed);
        let mut space = self.lock();
        let end = space.end;
        // On a full disk copies are good for a shorter time, nothing worse.
        let _ = self.lengthen(&mut space, end);
    }

    /// Makes this file a store in its own right instead of a copy; durable on return.
    pub fn adopt_identity(&self) -> io::Result<()> {
        {
            let mut space = self.lock();
            space.block.identity = self.disk.identity()?;
            space.changes += 1;
        }
        self.sync_index()?;
        self.is_copy.store(false, Ordering::Release);
        Ok(())
    }

    /// Page octets redb has written since the container was opened. About as many were freed.
    pub fn index_octets_written(&self) -> u64 {
        self.index_octets_written.load(Ordering::Relaxed)
    }

    /// True if the index must be verified in full before it is used.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// True if an I/O error has stopped the index; it must be reopened.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Stops the index after redb panicked.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.failed.store(true, Ordering::Release);
    }

    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// From now on readers meet an error at their next step. A backup or a check would otherwise keep everybody waiting
    /// until it ends.
    pub fn turn_readers_away(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    pub fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Fails if the index is about to be reopened; what was read meanwhile may then be incomplete.
    pub fn admit_reader(&self) -> io::Result<()> {
        match self.is_closing() {
            true => Err(io::Error::other("the data file is being reopened after a fault; try again")),
            false => Ok(()),
        }
    }

    /// Notes that a log write failed: only the disk can tell whether the last record is durable.
    pub fn note_failed_log(&self) {
        self.failed.store(true, Ordering::Release);
        self.sync_failed.store(true, Ordering::Release);
    }

    /// Returns when all texts written before are durable.
    pub fn sync_texts(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.disk.mutant() == super::simulated::Mutant::LongTextsNotSynced {
            return Ok(());
        }
        let synced = self.disk.sync();
        if synced.is_err() {
            self.note_failed_log();
        }
        synced
    }

    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// True if a sync failed: earlier writes may never have reached the disk.
    pub fn a_sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Acquire)
    }

    /// Tells the container which extents the log names as blob extents. Call it before the index is opened,
    /// since that may take extents. A crash may have lost the file length that came with them.
    pub fn expect_blob_extents(&self, logged: &BTreeSet<Extent>) -> io::Result<()> {
        let mut space = self.lock();
        if let Some(last) = logged.last() {
            space.end = space.end.max(last.plus(1));
            if space.len < space.end.at() {
                self.lengthen(&mut space, last.plus(1))?;
            }
        }
        Ok(())
    }

    /// Tells the container which extents hold blobs, according to the last checkpoint and the log since.
    /// Extents without an owner are free. Two owners, or a checkpointed extent past the end of the file, mean
    /// damage: whatever a checkpoint names was in the file before it.
    pub fn adopt_blob_extents(
        &self,
        stored: &[Extent],
        logged: &BTreeSet<Extent>,
    ) -> Result<(), ContainerError> {
        let mut space = self.lock();
        let mut owned = vec![false; space.end.0 as usize];
        if stored.iter().any(|extent| *extent >= space.found) {
            return Err(ContainerError::Damaged("it was cut short"));
        }
        let index_extents = space.block.map.iter().flatten().copied();
        let new = logged.iter().filter(|extent| stored.binary_search(extent).is_err());
        for extent in index_extents.chain(stored.iter().chain(new).copied()) {
            if std::mem::replace(&mut owned[extent.0 as usize], true) {
                return Err(ContainerError::Damaged("a part of the file has two owners"));
            }
        }
        space.reserve.clear();
        space.dropped.clear();
        // Past the last owned extent the file has nothing but its length.
        space.end = Extent(owned.iter().rposition(|owned| *owned).map_or(0, |last| last as u32 + 1));
        space.pool = (0..space.end.0).rev().filter(|extent| !owned[*extent as usize]).map(Extent).collect();
        Ok(())
    }

    /// Fills the reserve for a checkpoint with `logged` octets in the log. Fails if the disk has no room for
    /// it; no mail is accepted then.
    pub fn fill_reserve(&self, logged: u64) -> io::Result<()> {
        let mut space = self.lock();
        while space.reserve.len() > RESERVE_EXTENTS_MAX {
            let extent = space.reserve.pop().expect("there are more than are wanted");
            self.punch(extent.at(), EXTENT);
            space.pool.push(extent);
        }
        // Usual if the index is large, so don't count its extents.
        if space.reserve.len() == RESERVE_EXTENTS_MAX {
            return Ok(());
        }
        let in_use = space.block.map.iter().flatten().count();
        // An index page may be only half full of logged rows.
        let new = (2 * logged).div_ceil(EXTENT) as usize;
        let wanted = (in_use + new + RESERVE_EXTENTS_MORE).min(RESERVE_EXTENTS_MAX);
        while space.reserve.len() < wanted {
            self.add_to_reserve(&mut space)?;
        }
        Ok(())
    }

    fn add_to_reserve(&self, space: &mut IndexSpace) -> io::Result<()> {
        // On a full disk some of these may still be allocated, from the reserve of an earlier run.
        for (nth, extent) in space.pool.iter().enumerate().rev() {
            if self.disk.reserve_zeroed(extent.at(), EXTENT).is_ok() {
                let extent = space.pool.remove(nth);
                space.reserve.push(extent);
                return Ok(());
            }
        }
        let extent = space.end;
        self.lengthen(space, extent.plus(1))?;
        space.end = extent.plus(1);
        let outcome = self.disk.reserve_zeroed(extent.at(), EXTENT);
        if outcome.is_ok() {
            space.reserve.push(extent)
        } else {
            space.pool.insert(0, extent)
        }
        outcome
    }

    /// Room for blobs: `count` adjacent extents at the end of the file. Nothing of them is on disk yet.
    pub fn extend_for_blobs(&self, count: u32) -> io::Result<Extent> {
        let mut space = self.lock();
        let first = space.end;
        self.lengthen(&mut space, first.plus(count))?;
        space.end = first.plus(count);
        Ok(first)
    }

    /// How far the file should extend past `end`, in octets.
    fn ahead_of(&self, end: Extent) -> u64 {
        match self.is_ahead.load(Ordering::Relaxed) {
            true => (end.at() / 8).clamp(AHEAD_MIN, AHEAD_MAX).next_multiple_of(EXTENT),
            false => 0,
        }
    }

    /// Makes the file long enough for `end` plus what it should be ahead; just long enough for `end` if the
    /// disk allows no more.
    fn lengthen(&self, space: &mut IndexSpace, end: Extent) -> io::Result<()> {
        let needed = end.at();
        let ahead = self.ahead_of(end);
        if space.len >= needed + ahead {
            return Ok(());
        }
        // Twice as far, so that the length does not change with every extent.
        match self.disk.set_len(needed + 2 * ahead) {
            Ok(()) => space.len = needed + 2 * ahead,
            Err(_) if space.len >= needed => {}
            Err(_) => {
                self.disk.set_len(needed)?;
                space.len = needed;
            }
        }
        Ok(())
    }

    /// A free extent inside the file, for blobs that fit into one.
    pub fn take_free_extent(&self) -> Option<Extent> {
        self.lock().pool.pop()
    }

    pub fn take_free_extent_before(&self, end: Extent) -> Option<Extent> {
        let mut space = self.lock();
        let nth = space.pool.iter().rposition(|extent| *extent < end)?;
        Some(space.pool.remove(nth))
    }

    /// End of the file, as an extent number.
    pub fn end(&self) -> Extent {
        self.lock().end
    }

    pub fn write_blob(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        debug_assert!(at >= Extent::FIRST.at());
        self.disk.write_at(at, octets)
    }

    /// See [`Disk::write_independently`].
    pub fn write_text_independently(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        debug_assert!(at >= Extent::FIRST.at());
        self.disk.write_independently(at, octets)
    }

    /// Overwrites free octets with zeros. Long runs are punched instead, which reads as zeros too.
    pub fn erase_blob(&self, at: u64, len: u64) {
        const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
        let (first, last) = (at.next_multiple_of(PAGE), (at + len) / PAGE * PAGE);
        let (first, last) =
            if last.saturating_sub(first) < ERASED_BY_WRITING_MAX { (at, at) } else { (first, last) };
        let outcome = || -> io::Result<()> {
            for (mut from, end) in [(at, first), (last, at + len)] {
                while from < end {
                    let count = (end - from).min(ZEROS.len() as u64);
                    self.disk.write_at(from, &ZEROS[..count as usize])?;
                    from += count;
                }
            }
            if last > first { self.disk.punch(first, last - first) } else { Ok(()) }
        };
        if let Err(e) = outcome() {
            log::warn!("{len} octets of deleted mail could not be overwritten: {e}");
        }
    }

    pub fn read_blob(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.admit_reader()?;
        self.disk.read_at(at, out)
    }

    /// Runs `work`, which reads most of the index in key order, while reading the index ahead in file order.
    /// Page by page a disk takes ten times as long.
    pub fn reading_index_ahead<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut extents = self.index_extents();
        extents.sort_unstable();
        thread::scope(|scope| {
            scope.spawn(move || extents.iter().for_each(|extent| self.disk.will_read(extent.at(), EXTENT)));
            work()
        })
    }

    /// See [`Disk::will_read`].
    pub fn will_read_blobs(&self, at: u64, len: u64) {
        self.disk.will_read(at, len);
    }

    pub fn view_blob(&self, at: u64, len: usize) -> io::Result<View> {
        self.admit_reader()?;
        self.disk.view(at, len)
    }

    /// Gives a free range back to the file system. Errors do not matter: the range is free either way.
    pub fn punch(&self, at: u64, len: u64) {
        let _ = self.disk.punch(at, len);
    }

    pub fn usage(&self) -> io::Result<DiskUsage> {
        self.disk.usage()
    }

    /// The index extents the superblock lists.
    pub fn index_extents(&self) -> Vec<Extent> {
        self.lock().block.map.iter().flatten().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, IndexSpace> {
        self.space.lock()
    }
}
