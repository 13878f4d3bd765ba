//! The container: one file that holds redb's linear space and the blobs, as extents.
//!
//! What lies where: `format.rs`.
//!
//! redb sees a linear space of `index_len` octets whose octets from 4096 on are scattered over extents, 255 pages in
//! each behind a page of their sums (`container/sums.rs`); the map from its extents to the file's is the superblock.
//! Invariants:
//!
//! 1. A superblock is written to the older slot, before the sync that makes a commit durable, and only when it changed.
//! 2. Between two syncs the map only gains extents that no durable commit needs yet, and loses extents that no durable
//!    commit needs any more. So whichever of the two superblocks survives a crash serves whichever commit survives.
//!    A crash tears only the older of them; that the newer one is lost (a bad sector) looks just like it, and so the
//!    index is verified in full whenever a superblock does not match its checksum, or the file is shorter than it says.
//! 3. An extent that redb gave up is used again only after a superblock without it is durable (`dropped` until then).
//! 4. redb's header stands before the superblocks, so that a copy made front to back never holds a map that is older
//!    than the header it has to serve.
//! 5. Extents are kept aside, taken from the file system in advance, for all pages that a checkpoint has to write: redb
//!    holds no more than half its cache unwritten. Mail is accepted only while they are there. Without them each commit
//!    is a checkpoint, which may fail and is undone then; what is in the log can always be made part of the index.
//! 6. The superblock that was found is written once more before the first commit is durable: a sync that failed before
//!    the file was opened, in a process that is gone, may have lost it.
//!
//! This file knows redb's space only as octets; what is in it is `index`'s business.

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
/// redb's cache, in octets. Its default is a gibibyte of heap.
pub const CACHE_OCTETS: usize = 64 << 20;
/// Extents kept aside for the index beyond as many as it has: for the rows that a deletion adds, of free runs.
const RESERVE_EXTENTS_MORE: usize = 2;
/// As many as redb's unwritten pages fill, however large the index is.
const RESERVE_EXTENTS_MAX: usize = CACHE_OCTETS / 2 / EXTENT as usize + RESERVE_EXTENTS_MORE;

#[derive(Debug)]
pub struct Container {
    disk: Arc<dyn Disk>,
    space: Mutex<IndexSpace>,
    /// Held for writing while extents of the index are moved, and for reading by who looks for octets of them.
    moving: RwLock<()>,
    /// Whether something that a crash can explain, and damage can too, was found when the container was opened.
    doubtful: bool,
    /// redb has been told of an I/O error, and refuses everything from then on.
    failed: AtomicBool,
    sync_failed: AtomicBool,
    /// Whether the file is a copy: its superblock was written for another one.
    is_copy: AtomicBool,
    /// Whether the file is longer than it has to be, for copies of it.
    is_ahead: AtomicBool,
    /// Octets of pages that redb has written since the container was opened.
    index_octets_written: AtomicU64,
    /// redb has panicked: its handle is leaked, and must not touch the disk again.
    given_up: AtomicBool,
}

/// The superblock as it is to be written next, and what else is known of the extents.
#[derive(Debug, Default)]
struct IndexSpace {
    block: Superblock,
    sums: Sums,
    /// Extents that the file had when it was opened.
    found: Extent,
    /// Extents in use, whoever owns them.
    end: Extent,
    /// The length of the file, in octets.
    len: u64,
    /// Free whole extents.
    pool: Vec<Extent>,
    /// Zeroed extents set aside for the index.
    reserve: Vec<Extent>,
    /// Given up by redb, still in a durable superblock.
    dropped: Vec<Extent>,
    /// The superblock that was found, where it lies, until it is known to be durable: a sync that failed before the
    /// file was opened may have lost it, while it is read from the page cache as if nothing had been.
    unsure: Option<(u64, Vec<u8>)>,
    /// Counts the changes that a superblock has to carry; and those that a durable one carries.
    changes: u64,
    durable_changes: u64,
}

impl Container {
    /// Lays out an empty container without its header: until [`Container::finish`] the file counts as unfinished.
    pub fn create(disk: Arc<dyn Disk>) -> io::Result<Arc<Self>> {
        disk.set_len(0)?;
        disk.write_at(0, &blocks::unfinished_header())?;
        disk.sync()?;
        let len = Extent::FIRST.at();
        disk.set_len(len)?;
        // A full disk must not stand in the way of a superblock.
        disk.reserve_zeroed(INDEX_PAGE_0, len - INDEX_PAGE_0)?;
        let block = Superblock { sequence: 1, identity: disk.identity()?, ..Superblock::default() };
        let space = IndexSpace { block, len, ..IndexSpace::default() };
        disk.write_at(SLOTS[1], &space.block.encode()?)?;
        disk.sync()?;
        Ok(Self::new(disk, space, false, false))
    }

    /// Writes the headers. Everything that makes the container whole is durable before them, so one is enough.
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
        })
    }

    /// Reads header and superblocks. Which extents are blobs' is not known yet: none is given out before
    /// [`Container::adopt_blob_extents`].
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
        // What a durable commit needs was in the file before the commit was durable. A crash can keep a superblock that
        // names more, and lose the length of the file; so what it names beyond the end is not needed by anyone.
        let mut beyond = false;
        for place in block.map.iter_mut().filter(|place| place.is_some_and(|extent| extent >= in_file)) {
            *place = None;
            beyond = true;
        }
        if block.index_len.div_ceil(INDEX_EXTENT) > MAP_EXTENTS_MAX as u64 {
            return Err(ContainerError::Damaged("its index is longer than an index can be"));
        }
        let doubtful = one_is_lost || beyond;
        // Where one was lost, or not right, the first sync to come writes it anew.
        let changes = u64::from(doubtful);
        let is_copy = block.identity != disk.identity()?;
        let space =
            IndexSpace { block, found: in_file, end: in_file, len, unsure, changes, ..IndexSpace::default() };
        Ok(Self::new(disk, space, doubtful, is_copy))
    }

    /// Whether the file is a copy, made by whatever program while the store was in use or not.
    pub fn is_copy(&self) -> bool {
        self.is_copy.load(Ordering::Acquire)
    }

    /// Takes the file for a copy, whatever its superblock says.
    pub fn take_for_a_copy(&self) {
        self.is_copy.store(true, Ordering::Release);
    }

    /// Changes redb's header in its place, before redb has read it. False: `change` would not have it.
    pub fn change_index_header(&self, change: impl FnOnce(&mut [u8; 320]) -> bool) -> io::Result<bool> {
        let mut header = [0; 320];
        self.disk.read_at(INDEX_PAGE_0, &mut header)?;
        let changed = change(&mut header);
        if changed {
            self.disk.write_at(INDEX_PAGE_0, &header)?;
        }
        Ok(changed)
    }

    /// From now on the file is lengthened before it has to be, so that a copy as long as it was at first has what its
    /// front leads to.
    pub fn keep_ahead(&self) {
        self.is_ahead.store(true, Ordering::Relaxed);
        let mut space = self.lock();
        let end = space.end;
        // If the disk is full, copies are just good for a shorter time.
        let _ = self.lengthen(&mut space, end);
    }

    /// From now on, and durably, this file is no copy but a store of its own.
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

    /// Octets of pages that redb has written since the container was opened. About as many have been set free.
    pub fn index_octets_written(&self) -> u64 {
        self.index_octets_written.load(Ordering::Relaxed)
    }

    /// Whether the index is to be verified in full before it is used.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Whether an I/O error has put an end to the index's work: it has to be opened anew.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Puts an end to the index's work after a panic of redb.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.failed.store(true, Ordering::Release);
    }

    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// The log could not be written: whether its last record is durable is to be read from the disk.
    pub fn note_failed_log(&self) {
        self.failed.store(true, Ordering::Release);
        self.sync_failed.store(true, Ordering::Release);
    }

    /// Returns when the texts that were written before are durable.
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

    /// Whether it was a sync: then what was written before may never have reached the disk.
    pub fn a_sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Acquire)
    }

    /// Told which extents the log names as blobs', before the index is opened, which may take some. A crash may have
    /// lost the length that the file had with them.
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

    /// Told which extents hold blobs, by the index as of the last checkpoint and by the log since. What nobody owns is
    /// free. An extent with two owners, or one of the index's beyond the end of the file, is damage: what a checkpoint
    /// names was in the file before.
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
        // What lies behind the last is in the file for its length alone.
        space.end = Extent(owned.iter().rposition(|owned| *owned).map_or(0, |last| last as u32 + 1));
        space.pool = (0..space.end.0).rev().filter(|extent| !owned[*extent as usize]).map(Extent).collect();
        Ok(())
    }

    /// Fills the reserve, for a checkpoint with so many octets in the log. Fails where the disk has no room for it:
    /// then no mail is accepted.
    pub fn fill_reserve(&self, logged: u64) -> io::Result<()> {
        let mut space = self.lock();
        let in_use = space.block.map.iter().flatten().count();
        // A page of the index may be half full of what the log has.
        let new = (2 * logged).div_ceil(EXTENT) as usize;
        let wanted = (in_use + new + RESERVE_EXTENTS_MORE).min(RESERVE_EXTENTS_MAX);
        while space.reserve.len() > RESERVE_EXTENTS_MAX {
            let extent = space.reserve.pop().expect("there are more than are wanted");
            self.punch(extent.at(), EXTENT);
            space.pool.push(extent);
        }
        while space.reserve.len() < wanted {
            self.add_to_reserve(&mut space)?;
        }
        Ok(())
    }

    fn add_to_reserve(&self, space: &mut IndexSpace) -> io::Result<()> {
        // On a full disk some of them may have room still, because they were in the reserve when the index was last
        // open.
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

    /// Room for blobs: `count` extents in a row, at the end of the file. Nothing of them is on disk yet.
    pub fn extend_for_blobs(&self, count: u32) -> io::Result<Extent> {
        let mut space = self.lock();
        let first = space.end;
        self.lengthen(&mut space, first.plus(count))?;
        space.end = first.plus(count);
        Ok(first)
    }

    /// How much longer than that the file is to be.
    fn ahead_of(&self, end: Extent) -> u64 {
        match self.is_ahead.load(Ordering::Relaxed) {
            true => (end.at() / 8).clamp(AHEAD_MIN, AHEAD_MAX).next_multiple_of(EXTENT),
            false => 0,
        }
    }

    /// Sees to it that the file has so many extents, and that it is ahead of them; on a disk that has no length to
    /// spare it has them and no more.
    fn lengthen(&self, space: &mut IndexSpace, end: Extent) -> io::Result<()> {
        let needed = end.at();
        let ahead = self.ahead_of(end);
        if space.len >= needed + ahead {
            return Ok(());
        }
        // Twice as much, so that not every extent changes the length.
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

    /// A free extent inside the file, for blobs that need no more than one.
    pub fn take_free_extent(&self) -> Option<Extent> {
        self.lock().pool.pop()
    }

    pub fn take_free_extent_before(&self, end: Extent) -> Option<Extent> {
        let mut space = self.lock();
        let nth = space.pool.iter().rposition(|extent| *extent < end)?;
        Some(space.pool.remove(nth))
    }

    /// The end of the file, as an extent number.
    pub fn end(&self) -> Extent {
        self.lock().end
    }

    pub fn write_blob(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        debug_assert!(at >= Extent::FIRST.at());
        self.disk.write_at(at, octets)
    }

    /// See [`Disk::write_beside`].
    pub fn write_text_beside(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        debug_assert!(at >= Extent::FIRST.at());
        self.disk.write_beside(at, octets)
    }

    /// Overwrites octets that are free with zeros: long runs by giving whole pages back, which then read as zeros.
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
        self.disk.read_at(at, out)
    }

    /// Does work that reads most of the index in the order of its keys, while the index is read ahead in the order of
    /// the file: page by page a disk takes ten times as long.
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
        self.disk.view(at, len)
    }

    /// Gives a free range back to the file system. Errors are ignored: the range is free either way.
    pub fn punch(&self, at: u64, len: u64) {
        let _ = self.disk.punch(at, len);
    }

    pub fn usage(&self) -> io::Result<DiskUsage> {
        self.disk.usage()
    }

    /// The extents that the superblock lists as the index's.
    pub fn index_extents(&self) -> Vec<Extent> {
        self.lock().block.map.iter().flatten().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, IndexSpace> {
        self.space.lock()
    }
}
