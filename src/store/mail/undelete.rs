//! Deleted mail, and how it comes back while the setting `undelete` keeps it.
//!
//! - A deleted message is a row under the day of its deletion, outside every count and quota. It still
//!   references its text. Ordering by day keeps both ways short: the oldest rows come first, and within a day
//!   the rows of a mailbox are together.
//! - A deleted mailbox is a row in another table. Its messages and counts stay in place under its id, which is
//!   never reused. So deleting and undeleting it take the same time for ten messages and a million.
//! - A unique id from another server stays taken until its message goes for good.
//! - Old mail goes for good from the oldest day on (`purging.rs`). On a full disk this happens before mail is
//!   refused.

use std::collections::BTreeMap;

use redb::ReadableTable;

use super::Refused;
use super::delivery::Home;
use crate::address::{Address, Domain};
use crate::store::index::rows::{
    Counts, DeletedCounts, DeletedRow, DomainRow, MailboxRow, MessageRow, RemovedDomainRow,
    RemovedMailboxRow, Row,
};
use crate::store::index::tables::{DELETED, DELETED_COUNTS, REMOVED_MAILBOXES};
use crate::store::index::types::{Day, DomainId, MailboxId, OwnerId, UnixTime};
use crate::store::index::{Fault, Read, Tx, contained, miscounted};
use crate::store::open::Store;
use crate::store::open::claims::Claim;

/// For how many days deleted mail is kept; 0 means not at all.
const UNDELETE_SETTING: &str = "undelete";

/// Messages that come back in one transaction.
const RESTORED_AT_A_TIME: usize = if cfg!(test) { 50 } else { 2000 };

/// Key and row of a deleted mailbox.
type RemovedMailbox = ((Day, MailboxId), RemovedMailboxRow);
/// What one transaction brought back, and the key of the deleted mailbox if that has more.
type Piece = (Restored, Option<(Day, MailboxId)>);

/// Which of a mailbox's deleted messages to bring back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The last deletion: what one session deleted at its end.
    Last,
    /// Everything deleted at this time or later.
    Since(UnixTime),
    All,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub mailboxes: u64,
    pub messages: u64,
    pub octets: u64,
    /// Mailboxes that stay deleted, because new ones have their names.
    pub replaced: Vec<Address>,
}

impl Restored {
    fn add(&mut self, more: &Self) {
        self.mailboxes += more.mailboxes;
        self.messages += more.messages;
        self.octets = self.octets.saturating_add(more.octets);
    }

    fn count(&mut self, message: &MessageRow) {
        self.messages += 1;
        self.octets = self.octets.saturating_add(message.octets);
    }
}

/// The deleted mail that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub messages: u64,
    pub octets: u64,
    /// Deleted mailboxes; their messages are counted above too.
    pub mailboxes: u64,
}

impl Store {
    /// The deleted mail kept now. Takes time in proportion to the days and the deleted mailboxes.
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

    /// Claims a mailbox, to keep sessions away; `None` if one is open.
    pub(super) fn claim(&self, mailbox: MailboxId) -> Option<Claim> {
        self.0.shared.claims.claim(mailbox)
    }

    /// Brings messages of a mailbox back, or the mailbox itself if it was deleted. With `as_new`, messages get
    /// new ids, and those of a deleted mailbox go into the new one of its name. Not for the executor.
    ///
    /// Many messages come back piece by piece. If a fault or a crash interrupts that, the rest can be restored
    /// in the same way.
    pub fn undelete_mailbox(
        &self,
        address: &Address,
        wanted: Wanted,
        as_new: bool,
    ) -> Result<Result<Restored, Refused>, Fault> {
        // Messages must not appear among those an open session has counted.
        let (mailbox, _claim) = match self.read()?.mailbox(address)? {
            None => (None, None),
            Some(mailbox) => match self.claim(mailbox.id) {
                Some(claim) => (Some(mailbox.id), Some(claim)),
                None => return Ok(Err(Refused::InUse(address.clone()))),
            },
        };
        let mut restored = Restored::default();
        if let Some(mailbox) = mailbox {
            for piece in self.deleted_messages(mailbox, wanted)?.chunks(RESTORED_AT_A_TIME) {
                let (name, piece) = (address.clone(), piece.to_vec());
                let back =
                    self.write(move |tx| tx.restore_messages(&name, mailbox, &piece, as_new)).wait()?;
                restored.add(&back);
            }
        }
        if restored.messages > 0 {
            return Ok(Ok(restored));
        }
        let name = address.clone();
        let (mut restored, mut rest) =
            match self.write(move |tx| tx.undelete_removed(&name, as_new)).wait()? {
                Ok(piece) => piece,
                Err(why) => return Ok(Err(why)),
            };
        while let Some(key) = rest {
            let name = address.clone();
            let (piece, more) = self.write(move |tx| tx.merge_mailbox(&name, key)).wait()?;
            restored.add(&piece);
            rest = more;
        }
        Ok(Ok(restored))
    }

    /// Day of deletion and number of a mailbox's deleted messages, in order of arrival.
    fn deleted_messages(&self, mailbox: MailboxId, wanted: Wanted) -> Result<Vec<(Day, u64)>, Fault> {
        let snapshot = self.read()?;
        let mut found = Vec::new();
        contained::read(|| {
            let deleted = snapshot.table(DELETED)?;
            for row in snapshot.table(DELETED_COUNTS)?.iter()? {
                let day = row?.0.value();
                for row in deleted.range((day, mailbox, 0)..=(day, mailbox, u64::MAX))? {
                    let (key, row) = row?;
                    found.push((key.value().2, day, DeletedRow::from_row(row.value())?.deleted));
                }
            }
            Ok(())
        })?;
        let since = match wanted {
            Wanted::Last => found.iter().map(|(.., deleted)| *deleted).max().unwrap_or_default(),
            Wanted::Since(time) => time,
            Wanted::All => UnixTime(0),
        };
        found.sort_unstable();
        let wanted = found.into_iter().filter(|(.., deleted)| *deleted >= since);
        Ok(wanted.map(|(sequence, day, _)| (day, sequence)).collect())
    }
}

impl Tx<'_, '_> {
    /// True if what is deleted now can come back. An unreadable setting counts as the default.
    pub(super) fn keeps_deleted(&self) -> Result<bool, Fault> {
        Ok(self.setting(UNDELETE_SETTING)?.is_none_or(|days| days != "0"))
    }

    /// Keeps the row of a deleted message. [`Tx::count_deleted`] counts it.
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

    /// Counts deleted messages of a day up or down.
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

    /// Counts messages down by the days of their deletion, each with its octets.
    pub(super) fn uncount_deleted(&mut self, gone: impl Iterator<Item = (Day, u64)>) -> Result<(), Fault> {
        let mut days: BTreeMap<Day, DeletedCounts> = BTreeMap::new();
        for (day, octets) in gone {
            let counts = days.entry(day).or_default();
            counts.messages += 1;
            counts.octets = counts.octets.saturating_add(octets);
        }
        for (day, DeletedCounts { messages, octets }) in days {
            self.count_deleted(day, u64::checked_sub, messages, octets)?;
        }
        Ok(())
    }

    /// Moves a mailbox to the deleted ones. `with` is its domain, if that is being deleted too.
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
        let key = (removed.day(), row.id);
        self.tables.removed_mailboxes.insert(key, &kept.to_row()[..])?;
        self.removed_names.note(address.to_string(), removed, key);
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

    /// Adds a mailbox with its counts to its domain and the store, or takes it out.
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

    /// Brings a deleted mailbox back, or the first of its messages as new ones into the present mailbox of its
    /// name.
    fn undelete_removed(&mut self, address: &Address, as_new: bool) -> Result<Result<Piece, Refused>, Fault> {
        let Some(domain) = self.domain(&address.domain)? else {
            return Ok(Err(Refused::NoSuchDomain(address.domain.clone())));
        };
        let Some((key, row)) = self.newest_removed(address)? else {
            return Ok(Err(Refused::NothingDeleted(address.clone())));
        };
        match self.mailbox(address)? {
            None if as_new => Ok(Err(Refused::NotAsNew(address.clone()))),
            None => Ok(Ok((self.restore_mailbox(domain.id, key, &row)?, None))),
            Some(_) if as_new => Ok(Ok(self.merge_mailbox(address, key)?)),
            Some(_) => Ok(Err(Refused::MailboxReplaced(address.clone()))),
        }
    }

    /// Brings a deleted domain back with the mailboxes that were deleted with it. If there is a new domain of
    /// its name, they go into that one.
    pub fn undelete_domain(&mut self, domain: &Domain) -> Result<Result<Restored, Refused>, Fault> {
        // With `undelete` off, what is left is being purged and no longer complete.
        if !self.keeps_deleted()? {
            return Ok(Err(Refused::DomainNotDeleted(domain.clone())));
        }
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
            return Ok(Err(Refused::DomainNotDeleted(domain.clone())));
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
            restored.add(&one);
        }
        self.tables.removed_domains.remove(key)?;
        Ok(Ok(restored))
    }

    pub(super) fn newest_removed(&mut self, address: &Address) -> Result<Option<RemovedMailbox>, Fault> {
        // As in `undelete_domain`.
        if !self.keeps_deleted()? {
            return Ok(None);
        }
        if !self.removed_names.is_known() {
            self.removed_names.begin();
            for row in self.tables.removed_mailboxes.iter()? {
                let (key, row) = row?;
                let row = RemovedMailboxRow::from_row(row.value())?;
                self.removed_names.note(format!("{}@{}", row.local, row.domain), row.removed, key.value());
            }
        }
        let Some(key) = self.removed_names.find(address) else { return Ok(None) };
        let row = self.tables.removed_mailboxes.get(key)?;
        let row = row.map(|row| RemovedMailboxRow::from_row(row.value())).transpose()?;
        Ok(Some((key, row.expect("the names are those of the table"))))
    }

    /// Removes the row of a deleted mailbox, which comes back or is gone for good.
    pub(super) fn remove_removed(&mut self, key: (Day, MailboxId)) -> Result<(), Fault> {
        self.removed_names.forget();
        self.tables.removed_mailboxes.remove(key)?;
        Ok(())
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
        self.remove_removed(key)?;
        Ok(Restored { mailboxes: 1, messages: counts.messages, octets: counts.octets, replaced: vec![] })
    }

    /// Puts deleted messages back into the mailbox, unless it was removed or they were purged meanwhile.
    fn restore_messages(
        &mut self,
        address: &Address,
        mailbox: MailboxId,
        messages: &[(Day, u64)],
        as_new: bool,
    ) -> Result<Restored, Fault> {
        let mut restored = Restored::default();
        let Some(home) = self.home(address)?.filter(|home| home.mailbox == mailbox) else {
            return Ok(restored);
        };
        let mut found = Vec::new();
        for (day, sequence) in messages {
            let removed = self.tables.deleted.remove((*day, mailbox, *sequence))?;
            if let Some(row) = removed.map(|row| DeletedRow::from_row(row.value())).transpose()? {
                found.push((*day, *sequence, MessageRow::from_row(&row.message)?));
            }
        }
        self.uncount_deleted(found.iter().map(|(day, _, message)| (*day, message.octets)))?;
        for (_, sequence, message) in found {
            restored.count(&message);
            if as_new {
                self.forget_foreign_id(mailbox, sequence, &message)?;
            }
            self.put_back(&home, (!as_new).then_some(sequence), message)?;
        }
        Ok(restored)
    }

    /// Adds messages of a deleted mailbox, as new ones, to the present mailbox of its name.
    fn merge_mailbox(&mut self, address: &Address, key: (Day, MailboxId)) -> Result<Piece, Fault> {
        let mut restored = Restored::default();
        // Between two pieces the one may have been removed and the other purged.
        let Some(home) = self.home(address)? else { return Ok((restored, None)) };
        if self.tables.removed_mailboxes.get(key)?.is_none() {
            return Ok((restored, None));
        }
        let mut messages = Vec::new();
        for row in self.tables.messages.range((key.1, 0)..=(key.1, u64::MAX))?.take(RESTORED_AT_A_TIME + 1) {
            let (of, row) = row?;
            messages.push((of.value().1, MessageRow::from_row(row.value())?));
        }
        let is_all = messages.len() <= RESTORED_AT_A_TIME;
        messages.truncate(RESTORED_AT_A_TIME);
        for (sequence, message) in messages {
            restored.count(&message);
            self.take_out(key.1, sequence, &message)?;
            self.put_back(&home, None, message)?;
        }
        if is_all {
            self.remove_removed(key)?;
            self.forget_mailbox(key.1)?;
        }
        Ok((restored, (!is_all).then_some(key)))
    }

    /// Takes a message out of a deleted mailbox, which no other counts include.
    pub(super) fn take_out(
        &mut self,
        mailbox: MailboxId,
        sequence: u64,
        message: &MessageRow,
    ) -> Result<(), Fault> {
        self.tables.messages.remove((mailbox, sequence))?;
        self.forget_foreign_id(mailbox, sequence, message)?;
        let less = |count: u64, by| count.checked_sub(by).ok_or_else(miscounted);
        let counts = self.counts_mut(mailbox)?;
        counts.messages = less(counts.messages, 1)?;
        counts.octets = less(counts.octets, message.octets)?;
        counts.octets_without_utf8 = less(counts.octets_without_utf8, message.octets_without_utf8())?;
        Ok(())
    }

    fn home(&self, address: &Address) -> Result<Option<Home>, Fault> {
        let (domain, mailbox) = (self.domain(&address.domain)?, self.mailbox(address)?);
        Ok(domain.zip(mailbox).map(|(domain, mailbox)| Home::new(&domain, mailbox)))
    }

    /// Puts a message back into the mailbox, under its old number and foreign id, or as a new one.
    fn put_back(&mut self, home: &Home, sequence: Option<u64>, message: MessageRow) -> Result<(), Fault> {
        let mut message = message;
        let Some(sequence) = sequence else {
            message.foreign_id = None;
            return self.add_message(home, &message).map(drop);
        };
        self.change_counts(home, |count| count.checked_add(1), &message, u64::checked_add)?;
        let replaced = self.tables.messages.insert((home.mailbox, sequence), &message.to_row()[..])?;
        match replaced {
            None => Ok(()),
            Some(_) => Err(Fault::damaged("a message both exists and is deleted under the same number")),
        }
    }
}

fn address_of(row: &RemovedMailboxRow) -> Result<Address, Fault> {
    let malformed = || Fault::damaged("the name of a deleted mailbox is malformed");
    format!("{}@{}", row.local, row.domain).parse().map_err(|_| malformed())
}
