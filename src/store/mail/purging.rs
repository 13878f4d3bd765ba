//! Deleted mail goes for good, oldest first and piece by piece: when its time is over, when nothing is to be kept,
//! or to make room.

use crate::store::index::rows::{DeletedRow, MessageRow, Row};
use crate::store::index::types::{Day, MailboxId, OwnerId};
use crate::store::index::{Fault, Tx};
use crate::store::open::Store;

/// Messages and mailboxes that go for good in one transaction.
const PURGED_AT_A_TIME: usize = if cfg!(test) { 16 } else { 1000 };
/// Sorts before every other id.
const NO_MAILBOX: MailboxId = MailboxId(OwnerId(0));

/// How much deleted mail goes.
#[derive(Clone, Copy, Default)]
pub struct Amount {
    /// Messages and mailboxes.
    pub count: usize,
    /// Sum of the sizes LIST announced.
    pub octets: u64,
}

impl Amount {
    /// True until one of the two has reached its limit.
    fn is_below(self, limit: Self) -> bool {
        self.count < limit.count && self.octets < limit.octets
    }

    fn add(&mut self, message: &MessageRow) {
        self.count += 1;
        self.octets = self.octets.saturating_add(message.octets);
    }
}

impl Store {
    /// Deletes for good whatever was deleted before this day, piece by piece. Returns the number of messages
    /// and mailboxes. Not for the executor.
    pub fn purge(&self, before: Day) -> Result<u64, Fault> {
        self.purge_in_pieces(move |tx| tx.purge(before, PURGED_AT_A_TIME))
    }

    /// Deletes for good everything deleted, as long as the setting `undelete` says that nothing is kept. If a
    /// fault or a crash interrupts it, the service does the rest the next time it looks.
    pub fn purge_unkept(&self) -> Result<u64, Fault> {
        // The setting may change between two pieces, and what is deleted from then on is kept.
        self.purge_in_pieces(
            |tx| if tx.keeps_deleted()? { Ok(0) } else { tx.purge(Day::LAST, PURGED_AT_A_TIME) },
        )
    }

    fn purge_in_pieces(
        &self,
        purge: impl Fn(&mut Tx<'_, '_>) -> Result<usize, Fault> + Copy + Send + 'static,
    ) -> Result<u64, Fault> {
        let mut count = 0;
        loop {
            let purged = self.write(purge).wait()?;
            count += purged as u64;
            if purged < PURGED_AT_A_TIME {
                return Ok(count);
            }
        }
    }

    /// Deletes for good what was deleted first, until at most these octets of deleted mail are kept. Returns the
    /// number of messages and mailboxes. What is deleted or restored meanwhile counts the next time.
    pub fn purge_above(&self, octets: u64) -> Result<u64, Fault> {
        let mut excess = self.kept()?.octets.saturating_sub(octets);
        let mut count = 0;
        while excess > 0 {
            let purged = self.write(move |tx| tx.purge_oldest(PURGED_AT_A_TIME, excess)).wait()?;
            if purged.count == 0 {
                break;
            }
            count += purged.count as u64;
            excess = excess.saturating_sub(purged.octets);
        }
        Ok(count)
    }
}

impl Tx<'_, '_> {
    /// Deletes for good what was deleted before this day, oldest first and at most `most` messages and
    /// mailboxes. Returns how many; fewer than `most` means all are gone.
    pub fn purge(&mut self, before: Day, most: usize) -> Result<usize, Fault> {
        Ok(self.purge_some(before, Amount { count: most, octets: u64::MAX })?.count)
    }

    /// The same for the oldest day that has anything, regardless of the setting, to make room. Also stops once these
    /// octets are gone.
    pub fn purge_oldest(&mut self, most: usize, octets: u64) -> Result<Amount, Fault> {
        let message = self.tables.deleted.first()?.map(|(key, _)| key.value().0);
        let mailbox = self.tables.removed_mailboxes.first()?.map(|(key, _)| key.value().0);
        match message.into_iter().chain(mailbox).min() {
            Some(day) => self.purge_some(day.next(), Amount { count: most, octets }),
            None => Ok(Amount::default()),
        }
    }

    /// True if something is kept that could be given up for room.
    pub fn keeps_something(&self) -> Result<bool, Fault> {
        Ok(self.tables.deleted.first()?.is_some() || self.tables.removed_mailboxes.first()?.is_some())
    }

    fn purge_some(&mut self, before: Day, most: Amount) -> Result<Amount, Fault> {
        let (mut done, mut gone) = (Amount::default(), Vec::new());
        for row in self.tables.deleted.range(..(before, NO_MAILBOX, 0))? {
            if !done.is_below(most) {
                break;
            }
            let (key, row) = row?;
            let message = MessageRow::from_row(&DeletedRow::from_row(row.value())?.message)?;
            done.add(&message);
            gone.push((key.value(), message));
        }
        self.uncount_deleted(gone.iter().map(|(key, message)| (key.0, message.octets)))?;
        for (key, message) in gone {
            self.tables.deleted.remove(key)?;
            self.forget_foreign_id(key.1, key.2, &message)?;
            self.drop_reference(message.text)?;
        }
        while done.is_below(most) {
            let next = self.tables.removed_mailboxes.range(..(before, NO_MAILBOX))?.next().transpose()?;
            let Some(key) = next.map(|(key, _)| key.value()) else { break };
            let is_empty = self.purge_messages(key.1, most, &mut done)?;
            if is_empty && done.count < most.count {
                self.remove_removed(key)?;
                self.forget_mailbox(key.1)?;
                done.count += 1;
            }
        }
        if done.is_below(most) {
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

    /// Deletes messages of a deleted mailbox for good and adds them to `done`. Returns true if none is left.
    fn purge_messages(&mut self, mailbox: MailboxId, most: Amount, done: &mut Amount) -> Result<bool, Fault> {
        let mut gone = Vec::new();
        let mut is_empty = true;
        for row in self.tables.messages.range((mailbox, 0)..=(mailbox, u64::MAX))? {
            is_empty = done.is_below(most);
            if !is_empty {
                break;
            }
            let (key, row) = row?;
            let message = MessageRow::from_row(row.value())?;
            done.add(&message);
            gone.push((key.value().1, message));
        }
        let erases = self.erases()?;
        self.space.set_erasing(erases);
        for (sequence, message) in &gone {
            self.take_out(mailbox, *sequence, message)?;
            self.drop_reference(message.text)?;
        }
        self.space.set_erasing(false);
        Ok(is_empty)
    }
}
