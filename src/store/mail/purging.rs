//! Deleted mail goes for good, oldest first and piece by piece: when its time is over, when nothing is to be kept,
//! or to make room.

use super::undelete::UNDELETE_SETTING;
use crate::store::index::rows::{DeletedRow, MessageRow, Row};
use crate::store::index::types::{Day, MailboxId, OwnerId};
use crate::store::index::{Fault, Read, Tx, miscounted};
use crate::store::open::Store;

/// Messages and mailboxes that go for good in one transaction.
const PURGED_AT_A_TIME: usize = if cfg!(test) { 16 } else { 1000 };
/// Sorts before every other id.
const NO_MAILBOX: MailboxId = MailboxId(OwnerId(0));

impl Store {
    /// Deletes for good whatever was deleted before this day, piece by piece. Returns the number of messages
    /// and mailboxes. Not for the executor.
    pub fn purge(&self, before: Day) -> Result<u64, Fault> {
        let mut count = 0;
        loop {
            let purged = self.write(move |tx| tx.purge(before, PURGED_AT_A_TIME)).wait()?;
            count += purged as u64;
            if purged < PURGED_AT_A_TIME {
                return Ok(count);
            }
        }
    }

    /// Deletes for good everything deleted, if the setting `undelete` says that nothing is kept. If a fault or
    /// a crash interrupts it, the service does the rest the next time it looks.
    pub fn purge_unkept(&self) -> Result<u64, Fault> {
        let keeps = self.read()?.setting(UNDELETE_SETTING)?.is_none_or(|days| days != "0");
        if keeps { Ok(0) } else { self.purge(Day::LAST) }
    }
}

impl Tx<'_, '_> {
    /// Deletes for good what was deleted before this day, oldest first and at most `most` messages and
    /// mailboxes. Returns how many; fewer than `most` means all are gone.
    pub fn purge(&mut self, before: Day, most: usize) -> Result<usize, Fault> {
        let mut gone = Vec::new();
        for row in self.tables.deleted.range(..(before, NO_MAILBOX, 0))?.take(most) {
            let (key, row) = row?;
            gone.push((key.value(), MessageRow::from_row(&DeletedRow::from_row(row.value())?.message)?));
        }
        let mut done = gone.len();
        for (key, message) in gone {
            self.tables.deleted.remove(key)?;
            self.count_deleted(key.0, u64::checked_sub, 1, message.octets)?;
            self.forget_foreign_id(key.1, key.2, &message)?;
            self.drop_reference(message.text)?;
        }
        while done < most {
            let next = self.tables.removed_mailboxes.range(..(before, NO_MAILBOX))?.next().transpose()?;
            let Some(key) = next.map(|(key, _)| key.value()) else { break };
            let left = most - done;
            let purged = self.purge_messages(key.1, left)?;
            done += purged;
            if purged < left {
                self.tables.removed_mailboxes.remove(key)?;
                self.forget_mailbox(key.1)?;
                done += 1;
            }
        }
        if done < most {
            let mut domains = Vec::new();
            for row in self.tables.removed_domains.range(..(before, OwnerId(0)))? {
                domains.push(row?.0.value());
            }
            for key in domains {
                self.tables.removed_domains.remove(key)?;
            }
        }
        Ok(done)
    }

    /// The same for the oldest day that has anything, regardless of the setting, to make room.
    pub fn purge_oldest(&mut self, most: usize) -> Result<usize, Fault> {
        let message = self.tables.deleted.first()?.map(|(key, _)| key.value().0);
        let mailbox = self.tables.removed_mailboxes.first()?.map(|(key, _)| key.value().0);
        match message.into_iter().chain(mailbox).min() {
            Some(day) => self.purge(day.next(), most),
            None => Ok(0),
        }
    }

    /// True if something is kept that could be given up for room.
    pub fn keeps_something(&self) -> Result<bool, Fault> {
        Ok(self.tables.deleted.first()?.is_some() || self.tables.removed_mailboxes.first()?.is_some())
    }

    /// Deletes messages of a deleted mailbox for good.
    fn purge_messages(&mut self, mailbox: MailboxId, most: usize) -> Result<usize, Fault> {
        let mut gone = Vec::new();
        for row in self.tables.messages.range((mailbox, 0)..=(mailbox, u64::MAX))?.take(most) {
            let (key, row) = row?;
            gone.push((key.value(), MessageRow::from_row(row.value())?));
        }
        let erases = self.erases()?;
        self.space.set_erasing(erases);
        for (key, message) in &gone {
            self.tables.messages.remove(*key)?;
            self.forget_foreign_id(mailbox, key.1, message)?;
            self.drop_reference(message.text)?;
            let counts = self.counts_mut(mailbox)?;
            counts.messages = counts.messages.checked_sub(1).ok_or_else(miscounted)?;
            counts.octets = counts.octets.checked_sub(message.octets).ok_or_else(miscounted)?;
            counts.octets_without_utf8 = counts
                .octets_without_utf8
                .checked_sub(message.octets_without_utf8())
                .ok_or_else(miscounted)?;
        }
        self.space.set_erasing(false);
        Ok(gone.len())
    }
}
