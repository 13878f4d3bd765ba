//! The maildrop as one session sees it: numbered messages, some marked as deleted.

use std::collections::BTreeSet;

use super::command::Number;
use crate::message::{Entry, Totals, Uid};

/// The list as read, which never changes, and the deletion marks, which QUIT carries out and RSET removes.
#[derive(Debug)]
pub struct MessageList {
    entries: Vec<Entry>,
    all: Totals,
    /// Positions of the marked messages.
    marked: BTreeSet<usize>,
    /// Totals of the unmarked messages.
    remaining: Totals,
}

impl MessageList {
    pub fn new(entries: Vec<Entry>) -> Self {
        let all =
            Totals { messages: entries.len() as u64, octets: entries.iter().map(|entry| entry.octets).sum() };
        Self { entries, all, marked: BTreeSet::new(), remaining: all }
    }

    /// What STAT reports: unmarked messages only (RFC 1939 section 5).
    pub fn remaining(&self) -> Totals {
        self.remaining
    }

    /// The position of the message with this number, if it exists and is unmarked.
    pub fn position(&self, number: Number) -> Option<usize> {
        let index = usize::try_from(number.0.checked_sub(1)?).ok()?;
        (index < self.entries.len() && !self.marked.contains(&index)).then_some(index)
    }

    /// The message at a position from [`Self::position`] or [`Self::listed_from`].
    pub fn entry(&self, index: usize) -> &Entry {
        &self.entries[index]
    }

    /// The first unmarked position at or after `index`.
    pub fn listed_from(&self, index: usize) -> Option<usize> {
        (index..self.entries.len()).find(|index| !self.marked.contains(index))
    }

    /// Marks an unmarked message.
    pub fn mark(&mut self, index: usize) {
        assert!(self.marked.insert(index), "a message is marked once");
        self.remaining.messages -= 1;
        self.remaining.octets -= self.entries[index].octets;
    }

    /// In time proportional to the marks, not to the messages: a client may ask for it as often as it likes.
    pub fn unmark_all(&mut self) {
        self.marked.clear();
        self.remaining = self.all;
    }

    pub fn has_marks(&self) -> bool {
        !self.marked.is_empty()
    }

    /// The marked messages, in list order.
    pub fn marked(&self) -> Vec<Uid> {
        self.marked.iter().map(|index| self.entries[*index].uid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maildrop(octets: &[u64]) -> MessageList {
        let entry = |(seq, &octets)| Entry { octets, uid: Uid { seq: seq as u64, tag: 0 }, foreign_id: None };
        MessageList::new(octets.iter().enumerate().map(entry).collect())
    }

    #[test]
    fn numbers_begin_at_one_and_outlast_deletions() {
        let mut maildrop = maildrop(&[10, 20, 30]);
        assert_eq!(maildrop.position(Number(1)), Some(0));
        maildrop.mark(0);
        assert_eq!(maildrop.position(Number(1)), None);
        assert_eq!(maildrop.position(Number(2)), Some(1));
        for none in [0, 4, u64::MAX] {
            assert_eq!(maildrop.position(Number(none)), None, "{none}");
        }
    }

    #[test]
    fn totals_follow_the_marks() {
        let mut maildrop = maildrop(&[10, 20, 30]);
        maildrop.mark(1);
        assert_eq!(maildrop.remaining(), Totals { messages: 2, octets: 40 });
        assert_eq!(maildrop.marked(), [Uid { seq: 1, tag: 0 }]);
        assert_eq!(maildrop.listed_from(1), Some(2));
        maildrop.unmark_all();
        assert_eq!(maildrop.remaining(), Totals { messages: 3, octets: 60 });
        assert!(maildrop.marked().is_empty());
    }
}
