//! How far a long work has come, for whoever shows it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What a long work is about at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Before anything can be counted.
    #[default]
    Beginning,
    /// The pages of the index are compared with their checksums; nothing is counted.
    VerifyingIndex,
    /// Texts are read and compared with their hashes; in octets.
    ReadingTexts,
    /// The rows of messages are gone through, one by one.
    ReadingMessages,
    /// The rows of messages are copied.
    CopyingMessages,
    /// Texts are read, compared and copied; in octets.
    CopyingTexts,
    /// What was made is made durable; nothing is counted.
    Finishing,
    /// Texts are moved to the front of the file; in octets.
    MovingTexts,
    /// The accounts of mailboxes are looked for, one by one.
    LookingForAccounts,
}

const STAGES: [Stage; 9] = [
    Stage::Beginning,
    Stage::VerifyingIndex,
    Stage::ReadingTexts,
    Stage::ReadingMessages,
    Stage::CopyingMessages,
    Stage::CopyingTexts,
    Stage::Finishing,
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
            Stage::MovingTexts => "moving texts",
            Stage::LookingForAccounts => "looking for accounts",
        }
    }

    /// Whether octets are counted; otherwise it is rows.
    pub fn is_in_octets(self) -> bool {
        matches!(self, Stage::ReadingTexts | Stage::CopyingTexts | Stage::MovingTexts)
    }
}

/// Shared by who works, in several threads, and who shows it. Never waits.
#[derive(Debug, Default)]
pub struct Progress {
    stage: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
}

/// A look at a [`Progress`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    pub stage: Stage,
    /// Octets or rows.
    pub done: u64,
    /// As many are expected; none: it is not known.
    pub total: u64,
}

impl Progress {
    /// The next stage; `total` is what is expected to be done in it, 0 where that is not known.
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
