//! Goes through all messages on several threads, each with a stretch of the table.

use std::ops::RangeInclusive;

use super::progress::Progress;
use super::reading::on_all_processors;
use crate::lock::Mutex;
use crate::store::index::Fault;
use crate::store::index::rows::Counts;
use crate::store::index::types::{MailboxId, OwnerId};

/// About this many messages per stretch.
const STRETCH_MESSAGES: u64 = 100_000;
const STRETCHES_OF_ONE_MAX: u64 = 1000;
/// Messages between two reports of progress.
const MESSAGES_UNTOLD: u64 = 1000;

/// A range of message keys.
pub type Stretch = RangeInclusive<(MailboxId, u64)>;

/// Ranges that cover all messages, each with about the same number, according to the mailboxes' counts.
pub fn stretches(counted: impl Iterator<Item = (OwnerId, Counts)>) -> Vec<Stretch> {
    let mut ends = Vec::new();
    let mut messages = 0;
    for (id, counts) in counted {
        // A large mailbox is cut by sequence number, which deleted messages have, too.
        let cuts = (counts.messages / STRETCH_MESSAGES).min(STRETCHES_OF_ONE_MAX);
        ends.extend((1..=cuts).map(|cut| (id, counts.next_sequence / (cuts + 1) * cut)));
        messages += counts.messages % STRETCH_MESSAGES;
        if messages >= STRETCH_MESSAGES {
            ends.push((id, u64::MAX));
            messages = 0;
        }
    }
    let mut from = (OwnerId(0), 0);
    let mut stretches = Vec::new();
    for end in ends.into_iter().chain([(OwnerId(u32::MAX), u64::MAX)]) {
        if end >= from {
            let key = |(id, sequence)| (MailboxId(id), sequence);
            stretches.push(key(from)..=key(end));
            from = match end.1 {
                u64::MAX => (end.0.next().unwrap_or(end.0), 0),
                sequence => (end.0, sequence + 1),
            };
        }
    }
    stretches
}

/// Runs `work` on each stretch and returns the results in order.
pub fn on_all_stretches<T: Send>(
    stretches: Vec<Stretch>,
    work: impl Fn(Stretch) -> Result<T, Fault> + Sync,
) -> Result<Vec<T>, Fault> {
    let count = stretches.len();
    let left = Mutex::new(stretches.into_iter().enumerate());
    let next = || left.lock().next();
    let some = || {
        let mut done = Vec::new();
        while let Some((nth, stretch)) = next() {
            done.push((nth, work(stretch)?));
        }
        Ok::<_, Fault>(done)
    };
    let mut done = on_all_processors(count, &some)?;
    done.sort_unstable_by_key(|(nth, _)| *nth);
    Ok(done.into_iter().map(|(_, done)| done).collect())
}

/// Reports progress now and then instead of for every message.
pub struct Told<'a> {
    progress: &'a Progress,
    untold: u64,
}

impl<'a> Told<'a> {
    pub fn to(progress: &'a Progress) -> Self {
        Self { progress, untold: 0 }
    }

    pub fn one(&mut self) {
        self.untold += 1;
        if self.untold == MESSAGES_UNTOLD {
            self.progress.add(std::mem::take(&mut self.untold));
        }
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.progress.add(self.untold);
    }
}
