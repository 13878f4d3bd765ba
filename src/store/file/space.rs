//! The blob space: which octets of the blob extents are free, and which must not be handed out yet.
//!
//! Only the writer thread has a [`Space`]; readers and backups hold [`Pin`]s. Commits record it in two tables:
//! the free runs, and the extents that hold blobs.
//!
//! - The tables list retired runs as free, too. After a crash no reader is left, so both really are free, and
//!   every octet of a blob extent belongs to exactly one text or one listed run.
//! - A retired run is reused or punched only after the next checkpoint, and once no pin is left from before the
//!   commit that retired it.
//! - Nothing is final before [`Space::committed`]; [`Space::aborted`] takes everything back.

mod drafts;
mod pins;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use super::container::Container;
use super::format::{BLOB_ALIGN, EXTENT, Extent, PAGE};

pub use drafts::Draft;
pub use pins::{Pin, Pins};

/// Free runs of at least this length are given back to the file system, in whole pages.
const PUNCH_OCTETS_MIN: u64 = 64 << 10;
/// While holes are less than 1/16 of the blob space, mail is appended, which is faster. Beyond that it goes
/// into the best-fitting hole, or the file would grow for ever despite its holes.
const HOLES_PART: u64 = 16;
/// Allowance for holes that nothing fits into: one extent in 64, plus one.
const SLACK_PART: u64 = 64;
/// How many holes to examine for one that lies before a given place.
const FITTING_MAX: usize = 200;

/// Octets that a text of this wire length occupies in the blob space.
pub fn footprint(wire_octets: u64) -> u64 {
    wire_octets.max(1).next_multiple_of(BLOB_ALIGN)
}

/// Consecutive octets of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    pub at: u64,
    pub len: u64,
}

impl Run {
    /// `None` if the end overflows, as in a damaged row.
    pub fn end(self) -> Option<u64> {
        self.at.checked_add(self.len)
    }
}

#[derive(Default)]
pub struct Space {
    free: Runs,
    /// Runs of deleted texts that are not handed out yet: offset → length.
    retired: BTreeMap<u64, u64>,
    /// Those retired by the current transaction.
    retiring: Vec<u64>,
    /// The others as (moment of their commit, offset), oldest first.
    waiting: VecDeque<(u64, u64)>,
    waiting_octets: u64,
    /// Moment of the last checkpoint. Runs retired since are still in it, and recovery may write a short text
    /// back there from the log, over whatever had taken its place.
    checkpoint: u64,
    /// Octets retired since then.
    retired_since: u64,
    /// True if the log contains texts that must be erased.
    log_is_to_be_erased: bool,
    /// True if runs retired now must be erased once they are free.
    erasing: bool,
    /// Offsets of the retired runs that must be erased.
    to_erase: BTreeSet<u64>,
    /// Taken by the current transaction.
    taken: Vec<Run>,
    /// Taken, but by no transaction yet; by offset.
    drafts: BTreeMap<u64, Draft>,
    /// Drafts that the current transaction turns into texts.
    claimed: Vec<Draft>,
    /// Offsets whose rows in the table of free runs may be out of date.
    touched: BTreeSet<u64>,
    /// Extents the table of blob extents does not list yet.
    new_extents: BTreeSet<Extent>,
    /// Extents given up by the current transaction or the last checkpoint.
    given_up: Vec<Extent>,
    /// All blob extents, new ones included.
    blob_extents: BTreeSet<Extent>,
    pins: Pins,
}

impl Space {
    /// The space of a new container.
    pub fn empty(pins: Pins) -> Self {
        Space { pins, ..Space::default() }
    }

    /// Loads the space from the tables. If the list of free runs cannot be right, none of it is used, so that
    /// no text is overwritten; `pop3svc check` reports it and `--repair` rebuilds it.
    pub fn load(runs: &[Run], blob_extents: BTreeSet<Extent>, pins: Pins) -> Self {
        let mut space = Space { blob_extents, pins, ..Space::default() };
        let mut end = 0;
        let is_sound = runs.iter().all(|run| {
            let Run { at, len } = *run;
            let follows = at >= end;
            end = run.end().unwrap_or(u64::MAX);
            follows && len > 0 && at % BLOB_ALIGN == 0 && len % BLOB_ALIGN == 0 && space.holds(at, len)
        });
        if !is_sound {
            log::error!(
                "the list of free space in the data file is damaged and ignored: run `pop3svc check`"
            );
            return space;
        }
        for run in runs {
            let changed = space.free.add(run.at, run.len);
            // A run that merged with none is in the table as it is.
            if changed.len() > 1 {
                space.touched.extend(changed);
            }
        }
        space
    }

    /// Carries over runs that readers of the old space may still look at, including those the failed commit was
    /// retiring: that commit may have reached the disk. If it did not, their texts are in use and stay so.
    pub fn inherit_retired(&mut self, before: &Space) {
        self.log_is_to_be_erased |= before.log_is_to_be_erased;
        let moment = self.pins.advance();
        let retiring = before.retiring.iter().map(|at| (moment, *at));
        for (moment, at) in before.waiting.iter().copied().chain(retiring) {
            let len = before.retired[&at];
            if self.free.carve(at, len, &mut self.touched) {
                self.retired.insert(at, len);
                self.to_erase.extend(before.to_erase.get(&at));
                self.touched.insert(at);
                self.waiting.push_back((moment, at));
                self.waiting_octets += len;
            }
        }
    }

    /// Takes room for a blob of `wire_octets`. Fails, changing nothing, if the file cannot grow.
    pub fn take(&mut self, wire_octets: u64, container: &Container) -> io::Result<u64> {
        let len = footprint(wire_octets);
        let holes = self.free.octets - self.free.longest();
        let appending = holes * HOLES_PART < self.blob_extents.len() as u64 * EXTENT;
        let found = if appending { self.free.first_of_longest(len) } else { self.free.best_fit(len) };
        let at = match found.or_else(|| self.free.best_fit(len)) {
            Some(at) => at,
            None => {
                self.grow(len, container)?;
                self.free.best_fit(len).expect("the space just grew by as much")
            }
        };
        self.free.cut(at, len, &mut self.touched);
        self.taken.push(Run { at, len });
        Ok(at)
    }

    /// The same for a text that must lie before `end`. `None` if none of the best-fitting holes does.
    pub fn take_before(&mut self, end: Extent, wire_octets: u64, container: &Container) -> Option<u64> {
        let len = footprint(wire_octets);
        let at = match self.free.best_fit_before(end.at(), len) {
            Some(at) => at,
            None if len <= EXTENT => {
                let extent = container.take_free_extent_before(end)?;
                self.add_extent(extent);
                extent.at()
            }
            None => return None,
        };
        // The extent may have merged with its neighbours into a longer run.
        let run = self.free.begin_of_run_with(at);
        self.free.cut(run, len, &mut self.touched);
        self.taken.push(Run { at: run, len });
        Some(run)
    }

    /// Takes all extents without texts out of the blob space. The current transaction must be a checkpoint:
    /// only after one does nothing in the file name them any more.
    pub fn give_up_free_extents(&mut self) {
        let whole = |(at, len): (&u64, &u64)| {
            let first = Extent::holding(at + EXTENT - 1).expect("it is a blob extent");
            let end = Extent::holding(at + len).expect("it is behind one");
            first.row(end.0.saturating_sub(first.0))
        };
        let extents: Vec<Extent> = self.free.by_place.iter().flat_map(whole).collect();
        for extent in extents {
            assert!(self.free.carve(extent.at(), EXTENT, &mut self.touched), "it is free");
            self.blob_extents.remove(&extent);
            self.new_extents.remove(&extent);
            self.given_up.push(extent);
        }
    }

    /// The extents given up by the checkpoint just made.
    pub fn take_given_up(&mut self) -> Vec<Extent> {
        std::mem::take(&mut self.given_up)
    }

    /// The extent before which all texts would lie if packed together into their present extents and the free
    /// ones among them. `None` if no text lies past it.
    pub fn end_of_texts_together(&self, free: &[Extent]) -> Option<Extent> {
        let in_use =
            (self.blob_extents.len() as u64 * EXTENT).saturating_sub(self.free.octets).div_ceil(EXTENT);
        let needed = in_use + in_use / SLACK_PART + 1;
        let usable: BTreeSet<Extent> = self.blob_extents.iter().chain(free).copied().collect();
        let end = usable.into_iter().nth(needed as usize)?;
        (self.blob_extents.last()? >= &end).then_some(end)
    }

    /// Gives back what was taken last.
    pub fn give_back(&mut self, at: u64) {
        let Run { at: last, len } = self.taken.pop().expect("it was just taken");
        assert_eq!(last, at, "what was taken last is given back first");
        self.touched.extend(self.free.add(at, len));
    }

    /// Forgets what the current transaction has taken, so that it can fill a large new file in little memory. The
    /// tables must not list any of that as free yet, and the transaction cannot be aborted any more.
    pub fn forget_taken(&mut self) {
        self.taken.clear();
        let free = &self.free;
        self.touched.retain(|at| free.length_at(*at).is_some());
    }

    /// Adds extents until there is a free run of `len`.
    fn grow(&mut self, len: u64, container: &Container) -> io::Result<()> {
        if len <= EXTENT
            && let Some(extent) = container.take_free_extent()
        {
            self.add_extent(extent);
            return Ok(());
        }
        // A free run at the end of the file counts towards it.
        let at_end = self.free.length_of_run_ending_at(container.end().at());
        let count = (len - at_end).div_ceil(EXTENT) as u32;
        let first = container.extend_for_blobs(count)?;
        first.row(count).for_each(|extent| self.add_extent(extent));
        Ok(())
    }

    fn add_extent(&mut self, extent: Extent) {
        self.touched.extend(self.free.add(extent.at(), EXTENT));
        self.new_extents.insert(extent);
        self.blob_extents.insert(extent);
    }

    /// Whether texts deleted from here on are overwritten with zeros once free. A crash in between leaves them.
    pub fn set_erasing(&mut self, erasing: bool) {
        self.erasing = erasing;
    }

    /// The current transaction deletes the text at `at`. If its row cannot be right, the octets it names may
    /// belong to another text and are left alone; `pop3svc check --repair` sorts out whose they are.
    pub fn retire(&mut self, at: u64, wire_octets: u64) {
        if !self.may_be_a_text(at, wire_octets) {
            log::error!("a deleted text was listed at {at}, where no text can be: run `pop3svc check`");
            return;
        }
        self.retired.insert(at, footprint(wire_octets));
        self.retiring.push(at);
        if self.erasing {
            self.to_erase.insert(at);
            self.log_is_to_be_erased = true;
        }
        self.touched.insert(at);
    }

    fn may_be_a_text(&self, at: u64, wire_octets: u64) -> bool {
        if !at.is_multiple_of(BLOB_ALIGN) || !self.holds(at, wire_octets.max(1)) {
            return false;
        }
        let len = footprint(wire_octets);
        !self.free.overlaps(at, len) && !overlaps(&self.retired, at, len) && !self.overlaps_draft(at, len)
    }

    /// True if the range lies wholly in blob extents.
    fn holds(&self, at: u64, len: u64) -> bool {
        let Some(last) = len.checked_sub(1).and_then(|len| at.checked_add(len)) else { return false };
        let (Some(first), Some(last)) = (Extent::holding(at), Extent::holding(last)) else { return false };
        self.blob_extents.range(first..=last).count() == (last.0 - first.0) as usize + 1
    }

    /// Changes to the table of free runs: a length for each changed offset, or `None` if no run starts there.
    pub fn changed_runs(&self) -> impl Iterator<Item = (u64, Option<u64>)> + '_ {
        self.touched.iter().map(|at| (*at, self.free.length_at(*at).or_else(|| self.length_in_use_at(*at))))
    }

    /// Extents that became blob extents (true) or stopped being ones (false).
    pub fn changed_extents(&self) -> impl Iterator<Item = (Extent, bool)> + '_ {
        let new = self.new_extents.iter().map(|extent| (*extent, true));
        new.chain(self.given_up.iter().map(|extent| (*extent, false)))
    }

    /// The transaction is durable.
    pub fn committed(&mut self) {
        self.taken.clear();
        self.claimed.clear();
        self.touched.clear();
        self.new_extents.clear();
        let moment = self.pins.advance();
        self.retired_since += self.retiring.iter().map(|at| self.retired[at]).sum::<u64>();
        self.waiting_octets += self.retiring.iter().map(|at| self.retired[at]).sum::<u64>();
        self.waiting.extend(self.retiring.drain(..).map(|at| (moment, at)));
    }

    /// Octets of deleted texts that are not free yet.
    pub fn waiting_octets(&self) -> u64 {
        self.waiting_octets
    }

    /// The same, or 0 if readers hold all of them: what is kept for copies then costs nothing more.
    pub fn waiting_octets_without_readers(&self) -> u64 {
        let oldest_pin = self.pins.oldest();
        let is_free_of_readers = self.waiting.front().is_some_and(|(moment, _)| *moment < oldest_pin);
        if is_free_of_readers { self.waiting_octets } else { 0 }
    }

    /// Erases waiting runs that no crash needs any more. They do not become free.
    pub fn erase_now(&mut self, container: &Container) {
        let gone = self.waiting.iter().filter(|(moment, _)| *moment < self.checkpoint);
        for at in gone.map(|(_, at)| at).filter(|at| self.to_erase.remove(at)) {
            container.erase_blob(*at, self.retired[at]);
        }
    }

    /// The transaction just committed was a checkpoint.
    pub fn checkpointed(&mut self) {
        self.checkpoint = self.pins.now();
        self.retired_since = 0;
    }

    /// True if the log has copies of deleted texts to erase, which can be done after a checkpoint.
    pub fn log_is_to_be_erased(&self) -> bool {
        self.log_is_to_be_erased
    }

    pub fn log_was_erased(&mut self) {
        self.log_is_to_be_erased = false;
    }

    /// Octets that only a checkpoint can free.
    pub fn waits_for_checkpoint(&self) -> u64 {
        self.retired_since
    }

    /// The transaction failed; the tables have nothing of it.
    pub fn aborted(&mut self) {
        for Run { at, len } in std::mem::take(&mut self.taken) {
            self.touched.extend(self.free.add(at, len));
        }
        self.give_claimed_back();
        for extent in std::mem::take(&mut self.given_up) {
            self.touched.extend(self.free.add(extent.at(), EXTENT));
            self.blob_extents.insert(extent);
        }
        self.erasing = false;
        for at in self.retiring.drain(..) {
            self.retired.remove(&at);
            self.to_erase.remove(&at);
        }
    }

    /// Frees runs that no pin holds any more and that were retired before `horizon`. Long free runs go back to
    /// the file system.
    pub fn release(&mut self, container: &Container, horizon: u64) {
        let oldest = self.pins.oldest().min(self.checkpoint).min(horizon);
        #[cfg(test)]
        let oldest = match container.disk().mutant() {
            super::simulated::Mutant::SpaceReusedBeforeCheckpoint => self.pins.oldest(),
            _ => oldest,
        };
        let mut released = Runs::default();
        for Run { at, len } in self.take_abandoned() {
            released.add(at, len);
        }
        while let Some(&(moment, at)) = self.waiting.front()
            && moment < oldest
        {
            self.waiting.pop_front();
            let len = self.retired.remove(&at).expect("what waits is retired");
            self.waiting_octets -= len;
            if self.to_erase.remove(&at) {
                container.erase_blob(at, len);
            }
            released.add(at, len);
            self.touched.insert(at);
        }
        for (at, len) in released.by_place {
            let (before, after) = self.free.neighbours(at, len);
            self.touched.extend(self.free.add(at, len));
            // A long neighbour was punched when it became long; a short one is punched now, with the whole run.
            let from = if before >= PUNCH_OCTETS_MIN { at / PAGE * PAGE } else { at - before };
            let end = at + len;
            let to = if after >= PUNCH_OCTETS_MIN { end.next_multiple_of(PAGE) } else { end + after };
            // The run may share its first and last page.
            let from = from.max((at - before).next_multiple_of(PAGE));
            let to = to.min((end + after) / PAGE * PAGE);
            if before + len + after >= PUNCH_OCTETS_MIN && to > from {
                container.punch(from, to - from);
            }
        }
    }
}

/// True if one of these runs (offset → length, disjoint) overlaps this range.
fn overlaps(runs: &BTreeMap<u64, u64>, at: u64, len: u64) -> bool {
    runs.range(..at + len).next_back().is_some_and(|(place, length)| place + length > at)
}

/// Free runs by place and by length. Adjacent runs are always merged.
#[derive(Default)]
struct Runs {
    by_place: BTreeMap<u64, u64>,
    by_length: BTreeSet<(u64, u64)>,
    octets: u64,
}

impl Runs {
    fn overlaps(&self, at: u64, len: u64) -> bool {
        overlaps(&self.by_place, at, len)
    }

    /// Adds a run, merging it with its neighbours. Returns the offsets that changed.
    fn add(&mut self, mut at: u64, mut len: u64) -> Vec<u64> {
        assert!(!self.overlaps(at, len), "octets are freed once");
        let mut changed = vec![at];
        let before = self.by_place.range(..at).next_back().map(|(place, length)| (*place, *length));
        if let Some((place, length)) = before
            && place + length == at
        {
            self.remove(place);
            (at, len) = (place, length + len);
            changed.push(place);
        }
        if self.by_place.contains_key(&(at + len)) {
            changed.push(at + len);
            len += self.remove(at + len);
        }
        self.insert(at, len);
        changed
    }

    /// Takes `len` octets off the front of the run at `at`.
    fn cut(&mut self, at: u64, len: u64, touched: &mut BTreeSet<u64>) {
        let length = self.remove(at);
        touched.insert(at);
        if length > len {
            self.insert(at + len, length - len);
            touched.insert(at + len);
        }
    }

    /// Takes a range out of a free run; false if it is not wholly free.
    fn carve(&mut self, at: u64, len: u64, touched: &mut BTreeSet<u64>) -> bool {
        let Some((&place, &length)) = self.by_place.range(..=at).next_back() else { return false };
        if place + length < at + len {
            return false;
        }
        self.remove(place);
        touched.insert(place);
        if at > place {
            self.insert(place, at - place);
        }
        if place + length > at + len {
            self.insert(at + len, place + length - (at + len));
            touched.insert(at + len);
        }
        true
    }

    fn best_fit(&self, len: u64) -> Option<u64> {
        self.by_length.range((len, 0)..).next().map(|(_, at)| *at)
    }

    /// Examines a bounded number of runs.
    fn best_fit_before(&self, end: u64, len: u64) -> Option<u64> {
        let fitting = self.by_length.range((len, 0)..).take(FITTING_MAX);
        fitting.map(|(_, at)| *at).find(|at| at + len <= end)
    }

    /// Start of the run that contains this octet.
    fn begin_of_run_with(&self, at: u64) -> u64 {
        *self.by_place.range(..=at).next_back().expect("it is free").0
    }

    fn first_of_longest(&self, len: u64) -> Option<u64> {
        self.by_length.last().filter(|(length, _)| *length >= len).map(|(_, at)| *at)
    }

    fn longest(&self) -> u64 {
        self.by_length.last().map_or(0, |(length, _)| *length)
    }

    fn length_at(&self, at: u64) -> Option<u64> {
        self.by_place.get(&at).copied()
    }

    fn length_of_run_ending_at(&self, end: u64) -> u64 {
        match self.by_place.range(..end).next_back() {
            Some((place, length)) if place + length == end => *length,
            _ => 0,
        }
    }

    /// Lengths of the runs ending at `at` and starting at the end of this range; 0 if there is none.
    fn neighbours(&self, at: u64, len: u64) -> (u64, u64) {
        (self.length_of_run_ending_at(at), self.length_at(at + len).unwrap_or(0))
    }

    fn insert(&mut self, at: u64, len: u64) {
        self.by_place.insert(at, len);
        self.by_length.insert((len, at));
        self.octets += len;
    }

    fn remove(&mut self, at: u64) -> u64 {
        let len = self.by_place.remove(&at).expect("a run begins there");
        self.by_length.remove(&(len, at));
        self.octets -= len;
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_runs_merge_with_both_neighbours() {
        let mut runs = Runs::default();
        runs.add(0, 64);
        runs.add(128, 64);
        assert_eq!(runs.by_place.len(), 2);
        runs.add(64, 64);
        assert_eq!(runs.by_place.iter().collect::<Vec<_>>(), [(&0, &192)]);
        assert_eq!(runs.octets, 192);
    }

    #[test]
    fn only_runs_that_loading_merges_are_written_again() {
        let at = |octets: u64| Extent::FIRST.at() + octets;
        let run = |from: u64, len: u64| Run { at: at(from), len };
        let load = |runs: &[Run]| Space::load(runs, BTreeSet::from([Extent::FIRST]), Pins::default());
        let apart = load(&[run(0, 64), run(128, 64), run(640, 128)]);
        assert_eq!(apart.changed_runs().count(), 0);
        let merged = load(&[run(0, 64), run(128, 64), run(192, 64), run(640, 128)]);
        assert_eq!(merged.changed_runs().collect::<Vec<_>>(), [(at(128), Some(128)), (at(192), None)]);
    }

    #[test]
    fn carving_leaves_the_octets_on_both_sides() {
        let mut runs = Runs::default();
        runs.add(0, 640);
        let mut touched = BTreeSet::new();
        assert!(runs.carve(64, 128, &mut touched));
        assert_eq!(runs.by_place.iter().collect::<Vec<_>>(), [(&0, &64), (&192, &448)]);
        assert!(!runs.carve(64, 128, &mut touched));
        assert_eq!(touched, BTreeSet::from([0, 192]));
    }
}
