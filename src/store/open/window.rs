//! The copy window: a plain copy of the data file, made front to back while the store is in use, is good.
//!
//! Such a copy reads redb's header at some instant and the rest of the file later. So whatever the last
//! checkpoint before that instant leads to is preserved for a time W after the next checkpoint: index pages by
//! holding a view of the checkpoint, texts by not handing out their space. A copy that takes less than three
//! quarters of W is good; the rest allows for the time between two checkpoints.
//!
//! - Front to back includes the holes. `tar -S` (and bsdtar in any case) lists them before it reads anything, so its
//!   copy has zeros where something was written meanwhile. When opened, it turns out to be incomplete.
//! - A held view preserves everything freed after its checkpoint, so a few views spread over the last W
//!   suffice, and the oldest one counts.
//! - redb's system tables, which list free pages, are not preserved; they are rebuilt when a copy is opened
//!   (`index/redb_header.rs`).
//! - The cost is bounded ([`Window::bound`]). Past the bound, and on a full disk, the window shrinks, oldest
//!   view first, and `stat` shows how long it has been lately.
//! - The window starts afresh when the store is opened.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::shared::OpenIndex;
use crate::store::file::format::EXTENT;
use crate::store::index::{Fault, IndexSnapshot};

/// Lower limit of W.
const LENGTH_MIN: Duration = Duration::from_secs(60);
/// Copies are expected to read this many octets a second, and may be four times slower.
const OCTETS_PER_SECOND: u64 = 100_000_000;
const SLOWNESS: u64 = 4;
/// Most checkpoints held at a time.
const HELD_MAX: u32 = 16;
/// One part in this many of the file may be kept for copies, or what the pace allows if that is more.
const BOUND_PART: u64 = 40;

/// What `stat` says about plain copies of the data file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyWindow {
    /// A copy is good if it takes less.
    pub good_below: Duration,
    /// Octets that would otherwise be free: exact for texts, an upper bound for the index.
    pub kept_octets: u64,
}

/// A clock; tests can stop it.
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

/// The held checkpoints.
pub struct Window {
    time: Time,
    /// `None`: nothing is kept for copies.
    length: Option<Duration>,
    /// Octets that may be kept in any case.
    bound_min: u64,
    file_octets: u64,
    /// Oldest first.
    held: VecDeque<Held>,
    /// When the window last shrank, and its length afterwards.
    gave_way: Option<(Duration, Duration)>,
}

struct Held {
    since: Duration,
    /// In moments of the pins: what was retired from then on is in this checkpoint.
    moment: u64,
    /// Page octets redb had written by then.
    index_octets: u64,
    _view: IndexSnapshot,
}

impl Window {
    /// `bound_min` octets may be kept in any case; `None`: nothing is ever kept.
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

    /// A checkpoint was made and nothing has changed since. `moment` is the pins' moment.
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
        let view = IndexSnapshot::begin(open.database())?;
        self.held.push_back(Held { since, moment, index_octets, _view: view });
        Ok(())
    }

    /// The moment (of the pins) before which retired texts need not be kept.
    pub fn horizon(&mut self) -> u64 {
        let now = self.time.now();
        let length = self.length.unwrap_or_default();
        // A copy whose header is the second checkpoint's or later needs nothing of the first.
        while self.held.get(1).is_some_and(|second| second.since + length <= now) {
            self.held.pop_front();
        }
        self.held.front().map_or(u64::MAX, |first| first.moment)
    }

    /// If too much is kept, drops the oldest checkpoint and returns true. `retired` is octets of texts,
    /// `index_octets` what redb has written so far.
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

    /// Most octets that may be kept for copies.
    fn bound(&self) -> u64 {
        self.bound_min.max(self.file_octets / BOUND_PART)
    }

    fn kept_octets(&self, retired: u64, index_octets: u64) -> u64 {
        let of_index = self.held.front().map_or(0, |first| index_octets - first.index_octets);
        if self.held.is_empty() { 0 } else { retired + of_index }
    }

    /// True if dropping the window would make room worth a checkpoint.
    pub fn keeps_something(&self, retired: u64, index_octets: u64) -> bool {
        let of_index = self.kept_octets(0, index_octets);
        !self.held.is_empty() && (retired > 0 || of_index >= EXTENT)
    }

    /// Drops everything, to make room or because pages are about to move. The window starts afresh at the next
    /// checkpoint, and `stat` tells until copies begun before are over.
    pub fn give_way(&mut self) {
        if !self.held.is_empty() {
            self.gave_way = Some((self.time.now(), Duration::ZERO));
        }
        self.clear();
    }

    /// Releases the index, which is about to be closed.
    pub fn clear(&mut self) {
        self.held.clear();
    }

    /// Time until something more can be freed, if nothing changes.
    pub fn next_release(&self) -> Option<Duration> {
        let second = self.held.get(1)?;
        Some((second.since + self.length?).saturating_sub(self.time.now()))
    }

    /// Time until copies begun before the window last shrank are over.
    pub fn recovers_after(&self) -> Option<Duration> {
        let (when, _) = self.gave_way?;
        (when + self.length?).checked_sub(self.time.now()).filter(|left| !left.is_zero())
    }

    pub fn status(&self, retired: u64, index_octets: u64) -> CopyWindow {
        let length = self.length.unwrap_or_default();
        let of_late = self.gave_way.filter(|_| self.recovers_after().is_some()).map(|(_, length)| length);
        CopyWindow {
            good_below: of_late.unwrap_or(length).min(length) * 3 / 4,
            kept_octets: self.kept_octets(retired, index_octets),
        }
    }
}
