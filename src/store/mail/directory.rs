//! Domains, mailboxes, locks, credentials and settings.
//!
//! A refusal to the administrator is a value ([`Refused`]); only a fault of the disk is an error.

use super::Refused;
use super::delivery::REMOVED_AT_A_TIME;
use super::refused::no_such_mailbox;
use crate::address::{Address, Domain, LocalPart};
use crate::auth::password::Credential;
use crate::settings::Stored;
use crate::store::index::rows::{CertificateRow, Counts, DomainRow, MailboxRow, Row};
use crate::store::index::types::{DomainId, MailboxId, UnixTime};
use crate::store::index::{Fault, Read, Tx, miscounted};
use crate::store::open::{Oldest, Store};

/// Mailboxes that are removed in one transaction.
const MAILBOXES_AT_A_TIME: usize = if cfg!(test) { 10 } else { 1000 };

/// Counts of what a removal took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub mailboxes: u64,
    pub messages: u64,
    pub octets: u64,
}

impl Removed {
    fn add(&mut self, more: Self) {
        self.mailboxes += more.mailboxes;
        // A damaged count is no reason to keep a domain.
        self.messages = self.messages.saturating_add(more.messages);
        self.octets = self.octets.saturating_add(more.octets);
    }
}

/// Whether the lock had to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockChange {
    Changed,
    AlreadySo,
}

impl Store {
    /// The oldest mailbox of a domain, which is remembered: reading all of them takes time in proportion to their
    /// number. Ids ascend, so it stays the oldest until it goes, or an older one comes back and changes their number.
    pub fn oldest_mailbox(&self, directory: &impl Read, domain: &Domain) -> Result<Option<Address>, Fault> {
        let Some(row) = directory.domain(domain)? else { return Ok(None) };
        let of_mailboxes = directory.counts(row.id)?.mailboxes;
        let remembered = self.0.shared.oldest.lock().get(&row.id).cloned();
        if let Some(Oldest { id, address, .. }) =
            remembered.filter(|oldest| oldest.of_mailboxes == of_mailboxes)
            && directory.mailbox(&address)?.is_some_and(|mailbox| mailbox.id == id)
        {
            return Ok(Some(address));
        }
        let mailboxes = directory.mailboxes(domain)?.into_iter();
        let Some((local, mailbox)) = mailboxes.min_by_key(|(_, mailbox)| mailbox.id) else { return Ok(None) };
        let address = Address { local, domain: domain.clone() };
        let oldest = Oldest { id: mailbox.id, address: address.clone(), of_mailboxes };
        self.0.shared.oldest.lock().insert(row.id, oldest);
        Ok(Some(address))
    }

    /// Removes a domain with everything in it. Many mailboxes go piece by piece: if a fault or a crash interrupts
    /// that, the domain has the rest of them and can be removed again. Not for the executor.
    pub fn remove_domain(&self, domain: &Domain, now: UnixTime) -> Result<Result<Removed, Refused>, Fault> {
        let mut removed = Removed::default();
        let mailboxes = self.read()?.mailboxes(domain)?;
        // The first ones go with the domain.
        for piece in mailboxes.chunks(MAILBOXES_AT_A_TIME).skip(1) {
            let (name, piece) = (domain.clone(), piece.to_vec());
            removed.add(self.write(move |tx| tx.remove_mailboxes(&name, &piece, now)).wait()?);
        }
        let name = domain.clone();
        let rest = self.write(move |tx| tx.remove_domain(&name, now)).wait()?;
        Ok(rest.map(|rest| {
            removed.add(rest);
            removed
        }))
    }
}

impl Tx<'_, '_> {
    pub fn add_domain(&mut self, domain: &Domain, now: UnixTime) -> Result<Result<(), Refused>, Fault> {
        if self.domain(domain)?.is_some() {
            return Ok(Err(Refused::DomainExists(domain.clone())));
        }
        let row = DomainRow { id: DomainId(self.new_id()?), locked: false, created: now };
        self.put_domain(domain, &row)?;
        *self.counts_mut(row.id)? = Counts::default();
        self.totals_mut().domains += 1;
        Ok(Ok(()))
    }

    pub fn add_mailbox(
        &mut self,
        address: &Address,
        credential: Credential,
        now: UnixTime,
    ) -> Result<Result<(), Refused>, Fault> {
        let Some(domain) = self.domain(&address.domain)? else {
            return Ok(Err(Refused::NoSuchDomain(address.domain.clone())));
        };
        if self.mailbox(address)?.is_some() {
            return Ok(Err(Refused::MailboxExists(address.clone())));
        }
        let row = MailboxRow {
            id: MailboxId(self.new_id()?),
            locked: false,
            created: now,
            credential,
            quota: None,
            last_login: None,
        };
        self.put_mailbox(address, &row)?;
        *self.counts_mut(row.id)? = Counts { next_sequence: 1, ..Counts::default() };
        self.counts_mut(domain.id)?.mailboxes += 1;
        self.totals_mut().mailboxes += 1;
        Ok(Ok(()))
    }

    /// Records a login, unless the mailbox has been replaced since.
    pub fn note_login(&mut self, address: &Address, id: MailboxId, now: UnixTime) -> Result<(), Fault> {
        match self.mailbox(address)? {
            Some(row) if row.id == id => {
                self.put_mailbox(address, &MailboxRow { last_login: Some(now), ..row })
            }
            _ => Ok(()),
        }
    }

    /// Removes the domain, its mailboxes and their mail, and ends their sessions. Like a mailbox it may be
    /// undeleted ([`Tx::remove_mailbox`]). [`Store::remove_domain`] takes many mailboxes away before.
    pub fn remove_domain(
        &mut self,
        domain: &Domain,
        now: UnixTime,
    ) -> Result<Result<Removed, Refused>, Fault> {
        let Some(row) = self.domain(domain)? else { return Ok(Err(Refused::NoSuchDomain(domain.clone()))) };
        let mailboxes = self.mailboxes(domain)?;
        let removed = self.remove_mailboxes(domain, &mailboxes, now)?;
        if self.keeps_deleted()? {
            self.keep_domain(domain, &row, now)?;
        }
        self.tables.domains.remove(domain.as_str())?;
        self.forget_counts(row.id)?;
        let totals = self.totals_mut();
        totals.domains = less_one(totals.domains)?;
        Ok(Ok(removed))
    }

    /// Removes mailboxes that go with their domain.
    fn remove_mailboxes(
        &mut self,
        domain: &Domain,
        mailboxes: &[(LocalPart, MailboxRow)],
        now: UnixTime,
    ) -> Result<Removed, Fault> {
        let (mut removed, mut may_go) = (Removed::default(), REMOVED_AT_A_TIME);
        let is_kept = self.keeps_deleted()?;
        let with = self.domain(domain)?.map(|row| row.id).filter(|_| is_kept);
        for (local, _) in mailboxes {
            let address = Address { local: local.clone(), domain: domain.clone() };
            if let Ok(one) = self.remove_mailbox_with(&address, with, now, &mut may_go)? {
                removed.add(one);
            }
        }
        Ok(removed)
    }

    /// Removes the mailbox and its mail and ends its session. With the setting `undelete` it can come back for
    /// a while. Otherwise its mail goes for good, and unless the setting `erase` is off, texts that no other
    /// message has are overwritten once the removal is durable and nobody reads them any more. Beyond some
    /// thousand messages the rest is left to `Store::purge_unkept`, which the caller must run next.
    pub fn remove_mailbox(
        &mut self,
        address: &Address,
        now: UnixTime,
    ) -> Result<Result<Removed, Refused>, Fault> {
        self.remove_mailbox_with(address, None, now, &mut REMOVED_AT_A_TIME.clone())
    }

    /// `with` is the mailbox's domain, if that is being removed too and can come back. `may_go` is how many
    /// more messages this transaction may delete for good.
    fn remove_mailbox_with(
        &mut self,
        address: &Address,
        with: Option<DomainId>,
        now: UnixTime,
        may_go: &mut u64,
    ) -> Result<Result<Removed, Refused>, Fault> {
        let Some(domain) = self.domain(&address.domain)? else {
            return Ok(Err(Refused::NoSuchDomain(address.domain.clone())));
        };
        let Some(row) = self.mailbox(address)? else {
            return Ok(Err(no_such_mailbox(self, address)?));
        };
        let counts = self.counts(row.id)?;
        if let (false, Some(left)) = (self.keeps_deleted()?, may_go.checked_sub(counts.messages)) {
            *may_go = left;
            let erases = self.erases()?;
            self.space.set_erasing(erases);
            self.delete_all_messages(&domain, row.clone())?;
            self.space.set_erasing(false);
            self.leave_quota(&row, 0)?;
            self.forget_mailbox(row.id)?;
            let of_domain = self.counts_mut(domain.id)?;
            of_domain.mailboxes = less_one(of_domain.mailboxes)?;
            let totals = self.totals_mut();
            totals.mailboxes = less_one(totals.mailboxes)?;
        } else {
            self.keep_mailbox(address, &row, domain.id, with, now)?;
        }
        self.tables.mailboxes.remove((address.domain.as_str(), address.local.as_str()))?;
        self.revoked.push(row.id);
        Ok(Ok(Removed { mailboxes: 1, messages: counts.messages, octets: counts.octets }))
    }

    /// Locks the domain and ends its sessions. The mailboxes' own locks stay as they are.
    pub fn lock_domain(&mut self, domain: &Domain) -> Result<Result<LockChange, Refused>, Fault> {
        let Some(mut row) = self.domain(domain)? else {
            return Ok(Err(Refused::NoSuchDomain(domain.clone())));
        };
        if row.locked {
            return Ok(Ok(LockChange::AlreadySo));
        }
        row.locked = true;
        self.put_domain(domain, &row)?;
        let mailboxes = self.mailboxes(domain)?;
        self.revoked.extend(mailboxes.iter().map(|(_, mailbox)| mailbox.id));
        Ok(Ok(LockChange::Changed))
    }

    /// Unlocks the domain and every mailbox in it.
    pub fn unlock_domain(&mut self, domain: &Domain) -> Result<Result<LockChange, Refused>, Fault> {
        let Some(mut row) = self.domain(domain)? else {
            return Ok(Err(Refused::NoSuchDomain(domain.clone())));
        };
        let mut change = LockChange::AlreadySo;
        if row.locked {
            row.locked = false;
            self.put_domain(domain, &row)?;
            change = LockChange::Changed;
        }
        for (local, mut mailbox) in self.mailboxes(domain)? {
            if mailbox.locked {
                mailbox.locked = false;
                self.put_mailbox(&Address { local, domain: domain.clone() }, &mailbox)?;
                change = LockChange::Changed;
            }
        }
        Ok(Ok(change))
    }

    /// Locks the mailbox and ends its session.
    pub fn lock_mailbox(&mut self, address: &Address) -> Result<Result<LockChange, Refused>, Fault> {
        self.set_mailbox_lock(address, true)
    }

    /// Unlocks the mailbox, unless its domain is locked.
    pub fn unlock_mailbox(&mut self, address: &Address) -> Result<Result<LockChange, Refused>, Fault> {
        self.set_mailbox_lock(address, false)
    }

    fn set_mailbox_lock(
        &mut self,
        address: &Address,
        locked: bool,
    ) -> Result<Result<LockChange, Refused>, Fault> {
        let Some(domain) = self.domain(&address.domain)? else {
            return Ok(Err(Refused::NoSuchDomain(address.domain.clone())));
        };
        let Some(mut row) = self.mailbox(address)? else {
            return Ok(Err(no_such_mailbox(self, address)?));
        };
        if !locked && domain.locked {
            return Ok(Err(Refused::DomainLocked(address.clone())));
        }
        if row.locked == locked {
            return Ok(Ok(LockChange::AlreadySo));
        }
        row.locked = locked;
        self.put_mailbox(address, &row)?;
        if locked {
            self.revoked.push(row.id);
        }
        Ok(Ok(LockChange::Changed))
    }

    /// Replaces the whole credential.
    pub fn set_credential(
        &mut self,
        address: &Address,
        credential: Credential,
    ) -> Result<Result<(), Refused>, Fault> {
        let Some(mut row) = self.mailbox(address)? else {
            return Ok(Err(no_such_mailbox(self, address)?));
        };
        row.credential = credential;
        self.put_mailbox(address, &row)?;
        Ok(Ok(()))
    }

    /// Stores a setting as typed; `None` restores its default.
    pub fn set_setting(&mut self, key: &str, value: Option<&str>) -> Result<(), Fault> {
        match value {
            Some(value) => self.tables.settings.insert(key, value)?,
            None => self.tables.settings.remove(key)?,
        };
        Ok(())
    }

    pub fn set_certificate(&mut self, certificate: &CertificateRow) -> Result<(), Fault> {
        self.tables.certificate.insert((), &certificate.to_row()[..])?;
        Ok(())
    }

    /// True if mail of a mailbox removed for good is overwritten. An unreadable value counts as the default.
    pub(super) fn erases(&self) -> Result<bool, Fault> {
        Ok(self.setting(Stored::erase.name())?.is_none_or(|value| value != "0"))
    }

    fn put_domain(&mut self, domain: &Domain, row: &DomainRow) -> Result<(), Fault> {
        self.tables.domains.insert(domain.as_str(), &row.to_row()[..])?;
        Ok(())
    }

    pub fn put_mailbox(&mut self, address: &Address, row: &MailboxRow) -> Result<(), Fault> {
        let key = (address.domain.as_str(), address.local.as_str());
        self.tables.mailboxes.insert(key, &row.to_row()[..])?;
        Ok(())
    }
}

fn less_one(count: u64) -> Result<u64, Fault> {
    count.checked_sub(1).ok_or_else(miscounted)
}
