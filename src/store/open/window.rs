//! The copy window: a plain copy of the data file, made front to back while the store is in use, is good.
//!
//! Such a copy has read redb's header at some instant, and the rest of the file later. So what the last checkpoint of
//! that instant leads to stays as it is for a time W after the next one: pages of the index by a view that is held of a
//! checkpoint, texts because their space is not given out. Then a copy that takes less than three quarters of W is good
//! (the rest is for the time between two checkpoints).
//!
//! - A view that is held keeps all that was set free after its checkpoint. So of the checkpoints of the last W few are
//!   held, and the oldest of them counts.
//! - redb's own tables, lists of free pages, are not kept: who opens a copy makes them anew (`index/redb_header.rs`).
//! - The cost is bounded ([`Window::bound`]). Beyond that, and on a full disk, the window gives way, oldest first, and
//!   `stat` tells how long it has been of late.
//! - It begins anew when the store is opened.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::shared::OpenIndex;
use crate::store::file::format::EXTENT;
use crate::store::index::{Fault, Snapshot};

/// The least W.
const LENGTH_MIN: Duration = Duration::from_secs(60);
/// A copy is expected to read so many octets a second, and may be four times as slow.
const OCTETS_PER_SECOND: u64 = 100_000_000;
const SLOWNESS: u64 = 4;
/// Checkpoints held at a time.
const HELD_MAX: u32 = 16;
/// What may be kept for copies, as a part of the file; at least what the store's pace says.
const BOUND_PART: u64 = 40;

/// What `stat` says of plain copies of the data file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyWindow {
    /// A copy is good if it takes less.
    pub good_below: Duration,
    /// Octets that would be free but for it: of texts, and of the index at most.
    pub kept_octets: u64,
}

/// The time since some instant; in a test it may stand still.
pub struct Time {
    began: Instant,
    #[cfg(test)]
    seconds: Option<std::sync::Arc<std::sync::atomic::AtomicU64>>,
}

impl Time {
    pub fn real() -> Self {
        Self {
            began: Instant::now(),
            #[cfg(test)]
            seconds: None,
        }
    }

    #[cfg(test)]
    pub fn set_by(seconds: std::sync::Arc<std::sync::atomic::AtomicU64>) -> Self {
        Self { seconds: Some(seconds), ..Self::real() }
    }

    fn now(&self) -> Duration {
        #[cfg(test)]
        if let Some(seconds) = &self.seconds {
            return Duration::from_secs(seconds.load(std::sync::atomic::Ordering::Acquire));
        }
        self.began.elapsed()
    }
}

/// The checkpoints that are held.
pub struct Window {
    time: Time,
    /// None: nothing is kept for copies.
    length: Option<Duration>,
    /// Octets that may be kept in any case.
    bound_min: u64,
    file_octets: u64,
    /// Oldest first.
    held: VecDeque<Held>,
    /// When the window had to give way last, and how long it was then.
    gave_way: Option<(Duration, Duration)>,
}

struct Held {
    since: Duration,
    /// Of the pins: what was retired from then on is in this checkpoint.
    moment: u64,
    /// What redb had written by then.
    index_octets: u64,
    _view: Snapshot,
}

impl Window {
    /// `bound_min` is how much may be kept in any case; none: nothing ever is.
    pub fn new(time: Time, bound_min: Option<u64>) -> Self {
        Self {
            time,
            length: bound_min.map(|_| LENGTH_MIN),
            bound_min: bound_min.unwrap_or_default(),
            file_octets: 0,
            held: VecDeque::new(),
            gave_way: None,
        }
    }

    /// A checkpoint was made, before anything else is changed. `moment` is that of the pins.
    pub fn checkpointed(&mut self, open: &OpenIndex, moment: u64) -> Result<(), Fault> {
        let Some(length) = &mut self.length else { return Ok(()) };
        if self.held.is_empty() {
            open.container.keep_ahead();
        }
        self.file_octets = open.container.disk().len()?;
        let needed = Duration::from_secs(SLOWNESS * self.file_octets / OCTETS_PER_SECOND);
        *length = needed.max(LENGTH_MIN);
        let since = self.time.now();
        if self.held.back().is_some_and(|last| since < last.since + *length / HELD_MAX) {
            return Ok(());
        }
        let index_octets = open.container.index_octets_written();
        let view = Snapshot::begin(open.database())?;
        self.held.push_back(Held { since, moment, index_octets, _view: view });
        Ok(())
    }

    /// The moment (of the pins) before which nothing that was retired is kept any more.
    pub fn horizon(&mut self) -> u64 {
        let now = self.time.now();
        let length = self.length.unwrap_or_default();
        // A copy whose header is of the second, or of a later one, needs nothing of the first.
        while self.held.get(1).is_some_and(|second| second.since + length <= now) {
            self.held.pop_front();
        }
        self.held.front().map_or(u64::MAX, |first| first.moment)
    }

    /// Gives way by one checkpoint if too much is kept, and says whether it has: `retired` octets of texts, and pages
    /// of which redb has written so many octets by now.
    pub fn shorten(&mut self, retired: u64, index_octets: u64) -> bool {
        if self.kept_octets(retired, index_octets) <= self.bound() {
            return false;
        }
        self.held.pop_front();
        let now = self.time.now();
        let left = self.held.front().map_or(Duration::ZERO, |first| now.saturating_sub(first.since));
        self.gave_way = Some((now, left));
        true
    }

    /// How many octets may be kept for copies.
    fn bound(&self) -> u64 {
        self.bound_min.max(self.file_octets / BOUND_PART)
    }

    fn kept_octets(&self, retired: u64, index_octets: u64) -> u64 {
        let of_index = self.held.front().map_or(0, |first| index_octets - first.index_octets);
        if self.held.is_empty() { 0 } else { retired + of_index }
    }

    /// Whether giving way would make room worth a checkpoint.
    pub fn keeps_something(&self, retired: u64, index_octets: u64) -> bool {
        let of_index = self.kept_octets(0, index_octets);
        !self.held.is_empty() && (retired > 0 || of_index >= EXTENT)
    }

    /// The disk has no room for anything else. It begins anew at the next checkpoint.
    pub fn give_way(&mut self) {
        if !self.held.is_empty() {
            self.gave_way = Some((self.time.now(), Duration::ZERO));
        }
        self.clear();
    }

    /// Lets go of the index, which is about to be closed or to be moved.
    pub fn clear(&mut self) {
        self.held.clear();
    }

    /// In how long something more may be free, if nothing is changed.
    pub fn next_release(&self) -> Option<Duration> {
        let second = self.held.get(1)?;
        Some((second.since + self.length?).saturating_sub(self.time.now()))
    }

    pub fn status(&self, retired: u64, index_octets: u64) -> CopyWindow {
        let now = self.time.now();
        let length = self.length.unwrap_or_default();
        let of_late = self.gave_way.filter(|(when, _)| now < *when + length).map(|(_, length)| length);
        CopyWindow {
            good_below: of_late.unwrap_or(length).min(length) * 3 / 4,
            kept_octets: self.kept_octets(retired, index_octets),
        }
    }
}
