//! A disk that loses what was not synced, for the crash tests.
//!
//! It records every write, length change and sync. [`Replay::crash`] then produces a disk as it may be found
//! after a power cut at a given event: everything synced before is there, and of everything since an arbitrary
//! subset of sectors. A failing sync behaves as on Linux: some of the pending sectors have reached the platter,
//! and no later sync writes the others, though reads still return them.

use std::io;
use std::ops::Range;
use std::sync::{Arc, MutexGuard};

use super::disk::{Disk, DiskUsage, Identity, View};
use crate::lock::Mutex;

/// Reaches the platter whole or not at all.
const SECTOR: usize = 512;
/// Unit in which images of the disk share octets, copied on write.
const PIECE: usize = 32 << 10;

#[derive(Clone, Debug)]
enum Event {
    Write {
        at: u64,
        octets: Arc<[u8]>,
    },
    SetLen(u64),
    Zero {
        at: u64,
        len: u64,
    },
    Sync,
    FailedSync,
    /// A write that is durable on return.
    Durable {
        at: u64,
        octets: Arc<[u8]>,
    },
}

/// A bug in the store, to show that the crash tests catch it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutant {
    #[default]
    None,
    /// A transaction is answered before its log record is durable.
    LogNotSynced,
    /// The space of a deleted text is reused although recovery may write that text back there.
    SpaceReusedBeforeCheckpoint,
    /// A text too long for the log is not durable before the record that names it.
    LongTextsNotSynced,
}

#[derive(Debug, Default)]
pub struct SimulatedDisk {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What reads see.
    image: Image,
    /// The image when recording began.
    initial: Image,
    /// Empty unless the disk records.
    events: Vec<Event>,
    recording: bool,
    /// Greatest length of the file; beyond it, "no space left".
    room: Option<u64>,
    /// Writes that succeed before there is "no space left" for any, even inside the file: it is sparse, or the file
    /// system writes every page to a new place.
    until_full: Option<u64>,
    /// Changes and syncs that succeed before all later ones fail.
    until_failure: Option<u64>,
    /// Syncs that succeed before one fails.
    until_failed_sync: Option<u64>,
    /// True if only one operation is to fail.
    once: bool,
    /// True if anything has failed since a failure was ordered.
    failed: bool,
    mutant: Mutant,
    /// True if reads fail too while the disk fails.
    unreadable: bool,
    /// Reads that touch this part fail, as of bad sectors.
    bad: Option<Range<u64>>,
    /// Reads that succeed before one fails.
    until_failed_read: Option<u64>,
    /// Identifies the file.
    inode: u64,
}

impl SimulatedDisk {
    pub fn recording() -> Self {
        let disk = Self::default();
        disk.lock().recording = true;
        disk
    }

    fn with(image: Image) -> Self {
        let disk = Self::default();
        disk.lock().image = image;
        disk
    }

    /// An independent disk with the same octets.
    pub fn copy(&self) -> Self {
        let copy = Self::with(self.lock().image.clone());
        copy.set_inode(self.lock().inode);
        copy
    }

    /// Number of events so far: a moment at which to put a crash.
    pub fn events(&self) -> usize {
        self.lock().events.len()
    }

    pub fn is_sync(&self, event: usize) -> bool {
        matches!(self.lock().events.get(event), Some(Event::Sync | Event::FailedSync))
    }

    /// Flushes and octets written since an event.
    pub fn work_since(&self, event: usize) -> (usize, usize) {
        let state = self.lock();
        let since = &state.events[event..];
        let flushes = since.iter().filter(|event| matches!(event, Event::Sync | Event::Durable { .. }));
        let octets = since.iter().map(|event| match event {
            Event::Write { octets, .. } | Event::Durable { octets, .. } => octets.len(),
            _ => 0,
        });
        (flushes.count(), octets.sum())
    }

    pub fn writes_into(&self, event: usize, range: std::ops::Range<u64>) -> bool {
        matches!(self.lock().events.get(event), Some(Event::Write { at, .. }) if range.contains(at))
    }

    /// Limits the file's length from now on, or lifts the limit.
    pub fn set_room(&self, room: Option<u64>) {
        self.lock().room = room;
    }

    /// Lets `writes` more succeed and refuses all later ones for want of room, or lifts that.
    pub fn fill_up_after(&self, writes: Option<u64>) {
        let mut state = self.lock();
        state.until_full = writes;
        state.failed = false;
    }

    /// Fails one read after `reads` more.
    pub fn fail_read_after(&self, reads: Option<u64>) {
        let mut state = self.lock();
        state.until_failed_read = reads;
        state.failed = false;
    }

    pub fn file_len(&self) -> u64 {
        self.lock().image.len as u64
    }

    /// Makes this another file.
    pub fn set_inode(&self, inode: u64) {
        self.lock().inode = inode;
    }

    /// Pages that are not all zeros.
    pub fn used_pages(&self) -> usize {
        const NOTHING: [u8; 4096] = [0; 4096];
        let state = self.lock();
        let pieces = state.image.pieces.iter().filter(|piece| ***piece != [0; PIECE]);
        pieces.flat_map(|piece| piece.chunks(NOTHING.len())).filter(|page| **page != NOTHING).count()
    }

    pub fn octets(&self) -> Vec<u8> {
        let mut octets = vec![0; self.file_len() as usize];
        self.read_at(0, &mut octets).expect("it can be read");
        octets
    }

    /// Fails every change and sync after `operations` more; `None` repairs the disk.
    pub fn fail_after(&self, operations: Option<u64>) {
        let mut state = self.lock();
        state.until_failure = operations;
        state.until_failed_sync = None;
        state.once = false;
        state.failed = false;
        state.unreadable = false;
    }

    /// True if anything has failed since the last `fail_after`.
    pub fn has_failed(&self) -> bool {
        self.lock().failed
    }

    /// Fails one change or sync after `operations` more.
    pub fn fail_once_after(&self, operations: u64) {
        self.fail_after(Some(operations));
        self.lock().once = true;
    }

    /// Fails one sync after `syncs` more.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.fail_after(None);
        self.lock().until_failed_sync = Some(syncs);
    }

    /// Fails everything, reads too, until `fail_after(None)`.
    pub fn fail_altogether(&self) {
        let mut state = self.lock();
        state.until_failure = Some(0);
        state.unreadable = true;
    }

    /// Makes reads that touch this part of the file fail, or none any more.
    pub fn set_bad(&self, bad: Option<Range<u64>>) {
        self.lock().bad = bad;
    }

    /// Gives the store a bug on this disk; disks made by a crash do not have it.
    pub fn set_mutant(&self, mutant: Mutant) {
        self.lock().mutant = mutant;
    }

    /// Drops the recording to save memory. No crash before this moment can be simulated any more.
    pub fn forget_events(&self) {
        let mut state = self.lock();
        state.events.clear();
        state.initial = state.image.clone();
    }

    pub fn is_durable_write(&self, event: usize) -> bool {
        matches!(self.lock().events.get(event), Some(Event::Durable { .. }))
    }

    /// A disk with the same octets that records from now on.
    pub fn recording_copy(&self) -> Self {
        let disk = self.copy();
        let mut state = disk.lock();
        state.recording = true;
        state.initial = state.image.clone();
        drop(state);
        disk
    }

    /// The recorded events, to be played from one cut to the next.
    pub fn replay(&self) -> Replay {
        let state = self.lock();
        Replay { events: state.events.clone(), synced: state.initial.clone(), pending: Vec::new(), played: 0 }
    }

    fn change(&self, event: Event) -> io::Result<()> {
        let mut state = self.lock();
        if let Event::Write { at, octets } | Event::Durable { at, octets } = &event
            && !state.has_room_for_a_write()
        {
            // Half of it still fitted.
            let half = Event::Write { at: *at, octets: octets[..octets.len() / 2].into() };
            state.carry_out(half);
            return Err(io::ErrorKind::StorageFull.into());
        }
        let end = match &event {
            Event::Write { at, octets } | Event::Durable { at, octets } => at + octets.len() as u64,
            Event::SetLen(len) => *len,
            Event::Zero { .. } | Event::Sync | Event::FailedSync => 0,
        };
        if state.room.is_some_and(|room| end > room.max(state.image.len as u64)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let is_sync = matches!(event, Event::Sync | Event::Durable { .. });
        let is_failed_sync = is_sync && state.until_failed_sync == Some(0);
        let fails = state.until_failure == Some(0) || is_failed_sync;
        if is_sync {
            state.until_failed_sync = state.until_failed_sync.and_then(|left| left.checked_sub(1));
        }
        state.failed |= fails;
        state.until_failure = match state.until_failure {
            Some(0) if state.once => None,
            left => left.map(|left| left.saturating_sub(1)),
        };
        let event = match event {
            event if !fails => Some(event),
            Event::Sync => Some(Event::FailedSync),
            // Some sectors have reached the platter, and reads return all of them.
            Event::Durable { at, octets } if is_failed_sync => Some(Event::Write { at, octets }),
            Event::Durable { at, octets } => {
                Some(Event::Write { at, octets: octets[..octets.len() / 2].into() })
            }
            // A failed write may have written half.
            Event::Write { at, octets } => {
                Some(Event::Write { at, octets: octets[..octets.len() / 2].into() })
            }
            _ => None,
        };
        if let Some(event) = event {
            state.carry_out(event);
        }
        if fails { Err(io::Error::other("the simulated disk has failed")) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn has_room_for_a_write(&mut self) -> bool {
        let has_room = self.until_full != Some(0);
        self.until_full = self.until_full.map(|left| left.saturating_sub(1));
        self.failed |= !has_room;
        has_room
    }

    fn carry_out(&mut self, event: Event) {
        self.image.apply(&event);
        if self.recording {
            self.events.push(event);
        }
    }
}

/// The history of a disk, played forward.
pub struct Replay {
    events: Vec<Event>,
    /// The disk as of the last sync played.
    synced: Image,
    /// Events after it.
    pending: Vec<Event>,
    played: usize,
}

impl Replay {
    /// The disk as found after a power cut just before event `at`, which must not precede an earlier cut. Each
    /// unsynced sector and length change survives with probability `survival`.
    pub fn crash(&mut self, at: usize, survival: f64, rng: &mut fastrand::Rng) -> SimulatedDisk {
        for event in &self.events[self.played.min(at)..at] {
            match event {
                Event::Sync => self.pending.drain(..).for_each(|event| self.synced.apply(&event)),
                Event::FailedSync => {
                    self.pending = self.pending.iter().flat_map(|event| survivors(event, 0.5, rng)).collect();
                }
                Event::Durable { .. } => {
                    self.synced.apply(event);
                    // Earlier lost writes must not come back over it.
                    self.pending.push(event.clone());
                }
                event => self.pending.push(event.clone()),
            }
        }
        self.played = at;
        let mut image = self.synced.clone();
        for event in &self.pending {
            match event {
                Event::Durable { .. } => image.apply(event),
                Event::Write { .. } => {
                    survivors(event, survival, rng).iter().for_each(|event| image.apply(event))
                }
                event if rng.f64() < survival => image.apply(event),
                _ => {}
            }
        }
        SimulatedDisk::with(image)
    }
}

/// The sectors of a write that survive, chosen one by one. Length changes and holes belong to the file system
/// and are not lost by a failed write.
fn survivors(event: &Event, survival: f64, rng: &mut fastrand::Rng) -> Vec<Event> {
    let Event::Write { at, octets } = event else { return vec![event.clone()] };
    if survival >= 1.0 {
        return vec![event.clone()];
    }
    let mut surviving = Vec::new();
    let mut done = 0;
    while done < octets.len() {
        let from = at + done as u64;
        let count = (SECTOR - from as usize % SECTOR).min(octets.len() - done);
        if rng.f64() < survival {
            surviving.push(Event::Write { at: from, octets: octets[done..done + count].into() });
        }
        done += count;
    }
    surviving
}

/// The octets of a disk, in pieces shared between copies.
#[derive(Clone, Debug, Default)]
struct Image {
    pieces: Vec<Arc<[u8; PIECE]>>,
    len: usize,
}

impl Image {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { at, octets } | Event::Durable { at, octets } => self.write(*at as usize, octets),
            Event::SetLen(len) => self.set_len(*len as usize),
            Event::Zero { at, len } => {
                let end = (at + len).min(self.len as u64) as usize;
                let mut at = *at as usize;
                while at < end {
                    let count = (PIECE - at % PIECE).min(end - at);
                    self.part(at, count).fill(0);
                    at += count;
                }
            }
            Event::Sync | Event::FailedSync => {}
        }
    }

    fn set_len(&mut self, len: usize) {
        if len < self.len {
            self.pieces.truncate(len.div_ceil(PIECE));
            if !len.is_multiple_of(PIECE) {
                self.part(len, PIECE - len % PIECE).fill(0);
            }
        } else {
            let empty = Arc::new([0; PIECE]);
            self.pieces.resize(len.div_ceil(PIECE), empty);
        }
        self.len = len;
    }

    fn write(&mut self, mut at: usize, mut octets: &[u8]) {
        if self.len < at + octets.len() {
            self.set_len(at + octets.len());
        }
        while !octets.is_empty() {
            let (now, rest) = octets.split_at((PIECE - at % PIECE).min(octets.len()));
            self.part(at, now.len()).copy_from_slice(now);
            at += now.len();
            octets = rest;
        }
    }

    fn read(&self, mut at: usize, out: &mut [u8]) -> io::Result<()> {
        if at.checked_add(out.len()).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut out = out;
        while !out.is_empty() {
            let count = (PIECE - at % PIECE).min(out.len());
            let (now, rest) = out.split_at_mut(count);
            now.copy_from_slice(&self.pieces[at / PIECE][at % PIECE..][..count]);
            at += count;
            out = rest;
        }
        Ok(())
    }

    /// Part of one piece, for changing.
    fn part(&mut self, at: usize, count: usize) -> &mut [u8] {
        &mut Arc::make_mut(&mut self.pieces[at / PIECE])[at % PIECE..][..count]
    }
}

impl Disk for SimulatedDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file_len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Event::SetLen(len))
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.lock();
        let is_bad = |bad: &Range<u64>| at < bad.end && at + out.len() as u64 > bad.start;
        let fails =
            state.unreadable || state.bad.as_ref().is_some_and(is_bad) || state.until_failed_read == Some(0);
        state.until_failed_read = state.until_failed_read.and_then(|left| left.checked_sub(1));
        if fails {
            state.failed = true;
            return Err(io::Error::other("the simulated disk cannot be read"));
        }
        state.image.read(at as usize, out)
    }

    fn write_at(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        self.change(Event::Write { at, octets: octets.into() })
    }

    fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        self.change(Event::Zero { at, len })
    }

    fn reserve_zeroed(&self, at: u64, len: u64) -> io::Result<()> {
        if !self.lock().has_room_for_a_write() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.change(Event::Zero { at, len })
    }

    fn write_durable(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        let octets = octets.into();
        let is_durable = self.lock().mutant != Mutant::LogNotSynced;
        self.change(if is_durable { Event::Durable { at, octets } } else { Event::Write { at, octets } })
    }

    fn write_independently(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        let octets = octets.into();
        let is_durable = self.lock().mutant != Mutant::LongTextsNotSynced;
        self.change(if is_durable { Event::Durable { at, octets } } else { Event::Write { at, octets } })
    }

    fn sync(&self) -> io::Result<()> {
        self.change(Event::Sync)
    }

    fn view(&self, at: u64, len: usize) -> io::Result<View> {
        if at.checked_add(len as u64).is_none_or(|end| end > self.file_len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut octets = vec![0; len];
        self.read_at(at, &mut octets)?;
        Ok(View::Copied(octets))
    }

    fn mutant(&self) -> Mutant {
        self.lock().mutant
    }

    fn usage(&self) -> io::Result<DiskUsage> {
        Ok(DiskUsage { file_octets: self.file_len(), allocated_octets: self.file_len() })
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity { inode: self.lock().inode, birth: 0 })
    }
}
