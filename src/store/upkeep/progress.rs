//! Progress of long work, for display.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// The current stage of long work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Nothing can be counted yet.
    #[default]
    Beginning,
    /// Verifying checksums of index pages; nothing is counted.
    VerifyingIndex,
    /// Reading and verifying texts; counts octets.
    ReadingTexts,
    /// Examining message rows.
    ReadingMessages,
    /// Copying message rows.
    CopyingMessages,
    /// Reading, verifying and copying texts; counts octets.
    CopyingTexts,
    /// Making the result durable; nothing is counted.
    Finishing,
    /// Moving the index to the front of the file; counts octets.
    MovingIndex,
    /// Moving texts to the front of the file; counts octets.
    MovingTexts,
    /// Looking for the accounts of mailboxes, one by one.
    LookingForAccounts,
}

const STAGES: [Stage; 10] = [
    Stage::Beginning,
    Stage::VerifyingIndex,
    Stage::ReadingTexts,
    Stage::ReadingMessages,
    Stage::CopyingMessages,
    Stage::CopyingTexts,
    Stage::Finishing,
    Stage::MovingIndex,
    Stage::MovingTexts,
    Stage::LookingForAccounts,
];

impl Stage {
    pub fn words(self) -> &'static str {
        match self {
            Stage::Beginning => "beginning",
            Stage::VerifyingIndex => "verifying the index",
            Stage::ReadingTexts => "reading texts",
            Stage::ReadingMessages => "reading messages",
            Stage::CopyingMessages => "copying messages",
            Stage::CopyingTexts => "copying texts",
            Stage::Finishing => "finishing",
            Stage::MovingIndex => "moving the index",
            Stage::MovingTexts => "moving texts",
            Stage::LookingForAccounts => "looking for accounts",
        }
    }

    /// True if octets are counted, false for rows.
    pub fn is_in_octets(self) -> bool {
        matches!(self, Stage::ReadingTexts | Stage::CopyingTexts | Stage::MovingIndex | Stage::MovingTexts)
    }
}

/// Shared by the working threads and the one that displays progress. Never blocks.
#[derive(Debug, Default)]
pub struct Progress {
    stage: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
}

/// A reading of a [`Progress`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    pub stage: Stage,
    /// Octets or rows.
    pub done: u64,
    /// How many are expected; 0 if unknown.
    pub total: u64,
}

impl Progress {
    /// Starts the next stage. `total` is the amount expected in it, 0 if unknown.
    pub fn begin(&self, stage: Stage, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    pub fn add(&self, done: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
    }

    pub fn reached(&self) -> Reached {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let stage = STAGES[usize::from(self.stage.load(Ordering::Relaxed))];
        Reached { stage, done: load(&self.done), total: load(&self.total) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_begins_with_nothing_done() {
        let progress = Progress::default();
        for stage in STAGES {
            progress.begin(stage, 7);
            assert_eq!(progress.reached(), Reached { stage, done: 0, total: 7 });
            progress.add(3);
            assert_eq!(progress.reached().done, 3);
        }
    }
}
