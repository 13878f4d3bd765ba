//! What was deleted, and comes back on demand for as long as the setting `undelete` says.
//!
//! - A deleted message is a row under the day of its deletion, outside of every count and quota; its text keeps the
//!   reference. Days make both ways short: the oldest stand in front, and the rows of one mailbox together within a
//!   day.
//! - A deleted mailbox is its row in another table. Its messages and its counts stay where they are, under its id,
//!   which nobody else ever gets. So deleting and bringing back take the same time for ten messages and a million.
//! - The id that a message brought from another server stays its own until it goes for good.
//! - What is too old goes for good from the oldest day on, piece by piece ([`Tx::purge`]). A full disk takes from here
//!   before mail is refused.

use redb::ReadableTable;

use super::Refused;
use super::delivery::Place;
use crate::address::{Address, Domain};
use crate::store::index::rows::{
    Counts, DeletedCounts, DeletedRow, DomainRow, MailboxRow, MessageRow, RemovedDomainRow,
    RemovedMailboxRow, Row,
};
use crate::store::index::tables::{DELETED_COUNTS, REMOVED_MAILBOXES};
use crate::store::index::types::{Day, DomainId, MailboxId, OwnerId, UnixTime};
use crate::store::index::{Fault, Read, Tx, contained, miscounted};
use crate::store::open::Store;
use crate::store::open::claims::Claim;

/// The setting for how many days deleted mail is kept; 0: not at all.
const UNDELETE_SETTING: &str = "undelete";
/// Messages and mailboxes that go for good in one transaction.
const PURGED_AT_A_TIME: usize = if cfg!(test) { 16 } else { 1000 };
/// Before every other id.
const NO_MAILBOX: MailboxId = MailboxId(OwnerId(0));

/// The key and the row of a deleted mailbox.
type RemovedMailbox = ((Day, MailboxId), RemovedMailboxRow);

/// Which of a mailbox's deleted messages come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those of the last deletion: what one session deleted at its end.
    Last,
    /// Those deleted at this time or later.
    Since(UnixTime),
    All,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub mailboxes: u64,
    pub messages: u64,
    pub octets: u64,
    /// Mailboxes that could not, since there is a new one of their name.
    pub replaced: Vec<Address>,
}

/// What is kept of deleted mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub messages: u64,
    pub octets: u64,
    /// Mailboxes; their messages are counted above too.
    pub mailboxes: u64,
}

impl Store {
    /// What is kept of deleted mail, as of now. Takes time in proportion to the days and to the deleted mailboxes.
    pub fn kept(&self) -> Result<Kept, Fault> {
        let snapshot = self.read()?;
        let mut kept = Kept::default();
        let mut mailboxes = Vec::new();
        contained::read(|| {
            for row in snapshot.table(DELETED_COUNTS)?.iter()? {
                let counts = DeletedCounts::from_row(row?.1.value())?;
                kept.messages += counts.messages;
                kept.octets += counts.octets;
            }
            for row in snapshot.table(REMOVED_MAILBOXES)?.iter()? {
                mailboxes.push(row?.0.value().1);
            }
            Ok(())
        })?;
        kept.mailboxes = mailboxes.len() as u64;
        for mailbox in mailboxes {
            let counts = snapshot.counts(mailbox)?;
            kept.messages += counts.messages;
            kept.octets += counts.octets;
        }
        Ok(kept)
    }

    /// Deletes for good what was deleted before this day, piece by piece, and returns how many messages and mailboxes
    /// that was. Not for the executor.
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

    /// Deletes for good what was deleted, if the setting `undelete` says that nothing is kept. What a fault or a crash
    /// leaves of that goes when a service next looks for it.
    pub fn purge_unkept(&self) -> Result<u64, Fault> {
        let keeps = self.read()?.setting(UNDELETE_SETTING)?.is_none_or(|days| days != "0");
        if keeps { Ok(0) } else { self.purge(Day::LAST) }
    }

    /// Keeps sessions away from a mailbox while the claim is held; none where one is open.
    pub(super) fn claim(&self, mailbox: MailboxId) -> Option<Claim> {
        self.0.shared.maildrops.claim(mailbox)
    }

    /// Brings messages of a mailbox back, or the mailbox itself where it was deleted. With `as_new` messages get new
    /// ids, and those of a deleted mailbox come into the one that has its name now. Not for the executor.
    pub fn undelete_mailbox(
        &self,
        address: &Address,
        wanted: Wanted,
        as_new: bool,
    ) -> Result<Result<Restored, Refused>, Fault> {
        // A session must not have messages appear among those that it has counted.
        let _claim = match self.read()?.mailbox(address)? {
            None => None,
            Some(mailbox) => match self.claim(mailbox.id) {
                Some(claim) => Some(claim),
                None => return Ok(Err(Refused::InUse)),
            },
        };
        let address = address.clone();
        self.write(move |tx| tx.undelete_mailbox(&address, wanted, as_new)).wait()
    }
}

impl Tx<'_, '_> {
    /// Whether what is deleted now can come back. A setting that cannot be read counts as the default.
    pub(super) fn keeps_deleted(&self) -> Result<bool, Fault> {
        Ok(self.setting(UNDELETE_SETTING)?.is_none_or(|days| days != "0"))
    }

    /// Keeps the row of a message that was deleted. It is counted by [`Tx::count_deleted`].
    pub(super) fn keep_message(
        &mut self,
        mailbox: MailboxId,
        sequence: u64,
        row: &[u8],
        deleted: UnixTime,
    ) -> Result<(), Fault> {
        let kept = DeletedRow { deleted, message: row.to_vec() };
        self.tables.deleted.insert((deleted.day(), mailbox, sequence), &kept.to_row()[..])?;
        Ok(())
    }

    /// Counts messages of a day up or down.
    pub(super) fn count_deleted(
        &mut self,
        day: Day,
        change: fn(u64, u64) -> Option<u64>,
        messages: u64,
        octets: u64,
    ) -> Result<(), Fault> {
        if messages == 0 {
            return Ok(());
        }
        let stored = self.tables.deleted_counts.get(day)?;
        let stored = stored.map(|row| DeletedCounts::from_row(row.value())).transpose()?.unwrap_or_default();
        let messages = change(stored.messages, messages).ok_or_else(miscounted)?;
        let octets = change(stored.octets, octets).ok_or_else(miscounted)?;
        match messages {
            0 => drop(self.tables.deleted_counts.remove(day)?),
            _ => {
                let row = DeletedCounts { messages, octets }.to_row();
                self.tables.deleted_counts.insert(day, &row[..])?;
            }
        }
        Ok(())
    }

    /// Moves a mailbox to where it can come back from. `with` is its domain, if that is deleted too.
    pub(super) fn keep_mailbox(
        &mut self,
        address: &Address,
        row: &MailboxRow,
        domain: DomainId,
        with: Option<DomainId>,
        removed: UnixTime,
    ) -> Result<(), Fault> {
        let counts = self.counts(row.id)?;
        self.count_mailbox(domain, &counts, u64::checked_sub)?;
        let limit = match &row.quota {
            Some(account) => self.quota(account)?.and_then(|quota| quota.limit),
            None => None,
        };
        self.leave_quota(row, counts.octets)?;
        let kept = RemovedMailboxRow {
            domain: address.domain.to_string(),
            local: address.local.to_string(),
            removed,
            with,
            quota_limit: limit,
            mailbox: row.to_row(),
        };
        self.tables.removed_mailboxes.insert((removed.day(), row.id), &kept.to_row()[..])?;
        Ok(())
    }

    pub(super) fn keep_domain(
        &mut self,
        domain: &Domain,
        row: &DomainRow,
        removed: UnixTime,
    ) -> Result<(), Fault> {
        let kept = RemovedDomainRow { domain: domain.to_string(), removed, row: row.to_row() };
        self.tables.removed_domains.insert((removed.day(), OwnerId::from(row.id)), &kept.to_row()[..])?;
        Ok(())
    }

    /// A mailbox with all that it has comes into its domain and the whole store, or leaves them.
    fn count_mailbox(
        &mut self,
        domain: DomainId,
        counts: &Counts,
        change: fn(u64, u64) -> Option<u64>,
    ) -> Result<(), Fault> {
        let changed = |sum, by| change(sum, by).ok_or_else(miscounted);
        let of_domain = self.counts_mut(domain)?;
        of_domain.messages = changed(of_domain.messages, counts.messages)?;
        of_domain.octets = changed(of_domain.octets, counts.octets)?;
        of_domain.octets_without_utf8 = changed(of_domain.octets_without_utf8, counts.octets_without_utf8)?;
        of_domain.mailboxes = changed(of_domain.mailboxes, 1)?;
        let totals = self.totals_mut();
        totals.messages = changed(totals.messages, counts.messages)?;
        totals.octets = changed(totals.octets, counts.octets)?;
        totals.mailboxes = changed(totals.mailboxes, 1)?;
        Ok(())
    }

    /// See [`Store::undelete_mailbox`], which keeps sessions away meanwhile.
    pub(in crate::store) fn undelete_mailbox(
        &mut self,
        address: &Address,
        wanted: Wanted,
        as_new: bool,
    ) -> Result<Result<Restored, Refused>, Fault> {
        let removed = self.newest_removed(address)?;
        let Some(domain) = self.domain(&address.domain)? else {
            return Ok(Err(Refused::NoSuchDomain));
        };
        let Some(mailbox) = self.mailbox(address)? else {
            return match removed {
                Some((key, row)) if !as_new => Ok(Ok(self.restore_mailbox(domain.id, key, &row)?)),
                Some(_) => Ok(Err(Refused::NotAsNew)),
                None => Ok(Err(Refused::NoSuchMailbox)),
            };
        };
        let place = Place::new(&domain, mailbox);
        let restored = self.restore_messages(&place, wanted, as_new)?;
        match removed {
            _ if restored.messages > 0 => Ok(Ok(restored)),
            None => Ok(Err(Refused::NothingDeleted)),
            Some(_) if !as_new => Ok(Err(Refused::MailboxReplaced)),
            Some((key, _)) => Ok(Ok(self.merge_mailbox(&place, key)?)),
        }
    }

    /// Brings a deleted domain back with the mailboxes that were deleted with it, into the one that has its name now,
    /// if there is one.
    pub fn undelete_domain(&mut self, domain: &Domain) -> Result<Result<Restored, Refused>, Fault> {
        let mut found: Option<((Day, OwnerId), RemovedDomainRow)> = None;
        for row in self.tables.removed_domains.iter()? {
            let (key, row) = row?;
            let row = RemovedDomainRow::from_row(row.value())?;
            let is_newer = found.as_ref().is_none_or(|(_, other)| other.removed <= row.removed);
            if is_newer && row.domain == domain.as_str() {
                found = Some((key.value(), row));
            }
        }
        let Some((key, removed)) = found else {
            let refused =
                if self.domain(domain)?.is_some() { Refused::NothingDeleted } else { Refused::NoSuchDomain };
            return Ok(Err(refused));
        };
        let id = match self.domain(domain)? {
            Some(row) => row.id,
            None => {
                let row = DomainRow::from_row(&removed.row)?;
                self.tables.domains.insert(domain.as_str(), &removed.row[..])?;
                *self.counts_mut(row.id)? = Counts::default();
                self.totals_mut().domains += 1;
                row.id
            }
        };
        let mut mailboxes = Vec::new();
        for row in self.tables.removed_mailboxes.iter()? {
            let (key_of_mailbox, row) = row?;
            let row = RemovedMailboxRow::from_row(row.value())?;
            if row.with == Some(DomainId(key.1)) {
                mailboxes.push((key_of_mailbox.value(), row));
            }
        }
        let mut restored = Restored::default();
        for (key, row) in mailboxes {
            let address = address_of(&row)?;
            if self.mailbox(&address)?.is_some() {
                restored.replaced.push(address);
                continue;
            }
            let one = self.restore_mailbox(id, key, &row)?;
            restored.mailboxes += 1;
            restored.messages += one.messages;
            restored.octets += one.octets;
        }
        self.tables.removed_domains.remove(key)?;
        Ok(Ok(restored))
    }

    pub(super) fn newest_removed(&self, address: &Address) -> Result<Option<RemovedMailbox>, Fault> {
        // What is left then is going for good, and not whole any more.
        if !self.keeps_deleted()? {
            return Ok(None);
        }
        let mut newest: Option<RemovedMailbox> = None;
        for row in self.tables.removed_mailboxes.iter()? {
            let (key, row) = row?;
            let row = RemovedMailboxRow::from_row(row.value())?;
            let is_newer = newest.as_ref().is_none_or(|(_, other)| other.removed <= row.removed);
            if is_newer && row.domain == address.domain.as_str() && row.local == address.local.as_str() {
                newest = Some((key.value(), row));
            }
        }
        Ok(newest)
    }

    fn restore_mailbox(
        &mut self,
        domain: DomainId,
        key: (Day, MailboxId),
        removed: &RemovedMailboxRow,
    ) -> Result<Restored, Fault> {
        let row = MailboxRow::from_row(&removed.mailbox)?;
        let counts = self.counts(row.id)?;
        self.put_mailbox(&address_of(removed)?, &row)?;
        self.count_mailbox(domain, &counts, u64::checked_add)?;
        if let Some(account) = &row.quota {
            let quota = self.quota_mut(account)?;
            if quota.mailboxes == 0 {
                quota.limit = removed.quota_limit;
            }
            quota.mailboxes += 1;
            quota.used = quota.used.checked_add(counts.octets).ok_or_else(miscounted)?;
        }
        self.tables.removed_mailboxes.remove(key)?;
        Ok(Restored { mailboxes: 1, messages: counts.messages, octets: counts.octets, replaced: vec![] })
    }

    fn restore_messages(&mut self, place: &Place, wanted: Wanted, as_new: bool) -> Result<Restored, Fault> {
        let mut days = Vec::new();
        for row in self.tables.deleted_counts.iter()? {
            days.push(row?.0.value());
        }
        let mut found: Vec<((Day, MailboxId, u64), DeletedRow)> = Vec::new();
        for day in days {
            for row in self.tables.deleted.range((day, place.mailbox, 0)..=(day, place.mailbox, u64::MAX))? {
                let (key, row) = row?;
                found.push((key.value(), DeletedRow::from_row(row.value())?));
            }
        }
        let since = match wanted {
            Wanted::Last => found.iter().map(|(_, row)| row.deleted).max().unwrap_or_default(),
            Wanted::Since(time) => time,
            Wanted::All => UnixTime(0),
        };
        // In the order in which they came, also as new mail.
        found.sort_unstable_by_key(|((_, _, sequence), _)| *sequence);
        let mut restored = Restored::default();
        for (key, row) in found.into_iter().filter(|(_, row)| row.deleted >= since) {
            let message = MessageRow::from_row(&row.message)?;
            self.tables.deleted.remove(key)?;
            self.count_deleted(key.0, u64::checked_sub, 1, message.octets)?;
            restored.messages += 1;
            restored.octets += message.octets;
            if as_new {
                self.forget_foreign_id(key.1, key.2, &message)?;
            }
            self.put_back(place, (!as_new).then_some(key.2), message)?;
        }
        Ok(restored)
    }

    /// Puts the messages of a deleted mailbox, as new ones, into the one that has its name now.
    fn merge_mailbox(&mut self, place: &Place, key: (Day, MailboxId)) -> Result<Restored, Fault> {
        let mut restored = Restored::default();
        let mut messages = Vec::new();
        for row in self.tables.messages.range((key.1, 0)..=(key.1, u64::MAX))? {
            let (of, row) = row?;
            messages.push((of.value(), MessageRow::from_row(row.value())?));
        }
        for (of, message) in messages {
            self.tables.messages.remove(of)?;
            self.forget_foreign_id(of.0, of.1, &message)?;
            restored.messages += 1;
            restored.octets += message.octets;
            self.put_back(place, None, message)?;
        }
        self.tables.removed_mailboxes.remove(key)?;
        self.forget_mailbox(key.1)?;
        Ok(restored)
    }

    /// A message is in the mailbox again: under its number, and with the id that it brought from elsewhere, or as a new
    /// one.
    fn put_back(&mut self, place: &Place, sequence: Option<u64>, message: MessageRow) -> Result<(), Fault> {
        let mut message = message;
        let Some(sequence) = sequence else {
            message.foreign_id = None;
            return self.add_message(place, &message).map(drop);
        };
        self.change_counts(place, |count| count.checked_add(1), &message, u64::checked_add)?;
        let replaced = self.tables.messages.insert((place.mailbox, sequence), &message.to_row()[..])?;
        match replaced {
            None => Ok(()),
            Some(_) => Err(Fault::damaged("a message is there, and deleted, under the same number")),
        }
    }

    /// Deletes for good what was deleted before this day: at most so many messages and mailboxes, the oldest first.
    /// Returns how many; fewer than `most`: all is done.
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

    /// The same for the oldest day that has something, whatever the setting says: room is needed.
    pub fn purge_oldest(&mut self, most: usize) -> Result<usize, Fault> {
        let message = self.tables.deleted.first()?.map(|(key, _)| key.value().0);
        let mailbox = self.tables.removed_mailboxes.first()?.map(|(key, _)| key.value().0);
        match message.into_iter().chain(mailbox).min() {
            Some(day) => self.purge(day.next(), most),
            None => Ok(0),
        }
    }

    /// Whether something is kept that could be given up for room.
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

fn address_of(row: &RemovedMailboxRow) -> Result<Address, Fault> {
    let malformed = || Fault::damaged("the name of a deleted mailbox is malformed");
    format!("{}@{}", row.local, row.domain).parse().map_err(|_| malformed())
}
