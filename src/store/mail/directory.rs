//! Domains, mailboxes, locks, credentials and settings.
//!
//! What the administrator may be refused is a value ([`Refused`]); only a fault of the disk is an error.

use super::Refused;
use super::delivery::REMOVED_AT_A_TIME;
use crate::address::{Address, Domain};
use crate::auth::password::Credential;
use crate::store::index::rows::{CertificateRow, Counts, DomainRow, MailboxRow, Row};
use crate::store::index::types::{DomainId, MailboxId, UnixTime};
use crate::store::index::{Fault, Read, Tx, miscounted};

/// The setting that says whether the mail of a removed mailbox is overwritten.
const ERASE_SETTING: &str = "erase";

/// What went with a domain or mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub mailboxes: u64,
    pub messages: u64,
    pub octets: u64,
}

/// Whether a lock was changed, or was already as wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockChange {
    Changed,
    AlreadySo,
}

impl Tx<'_, '_> {
    pub fn add_domain(&mut self, domain: &Domain, now: UnixTime) -> Result<Result<(), Refused>, Fault> {
        if self.domain(domain)?.is_some() {
            return Ok(Err(Refused::DomainExists));
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
        let Some(domain) = self.domain(&address.domain)? else { return Ok(Err(Refused::NoSuchDomain)) };
        if self.mailbox(address)?.is_some() {
            return Ok(Err(Refused::MailboxExists));
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

    /// Notes when somebody logged in, unless the mailbox is another one by now.
    pub fn note_login(&mut self, address: &Address, id: MailboxId, now: UnixTime) -> Result<(), Fault> {
        match self.mailbox(address)? {
            Some(row) if row.id == id => {
                self.put_mailbox(address, &MailboxRow { last_login: Some(now), ..row })
            }
            _ => Ok(()),
        }
    }

    /// Removes the domain, its mailboxes and their mail; sessions on them end. As with [`Tx::remove_mailbox`], it may
    /// come back.
    pub fn remove_domain(
        &mut self,
        domain: &Domain,
        now: UnixTime,
    ) -> Result<Result<Removed, Refused>, Fault> {
        let Some(row) = self.domain(domain)? else { return Ok(Err(Refused::NoSuchDomain)) };
        let is_kept = self.keeps_deleted()?;
        let (with, mut may_go) = (is_kept.then_some(row.id), REMOVED_AT_A_TIME);
        let mut removed = Removed::default();
        for (local, _) in self.mailboxes(domain)? {
            let address = Address { local, domain: domain.clone() };
            if let Ok(one) = self.remove_mailbox_with(&address, with, now, &mut may_go)? {
                removed.mailboxes += one.mailboxes;
                // A damaged count is no reason to keep a domain; deleting its messages says where it is wrong.
                removed.messages = removed.messages.saturating_add(one.messages);
                removed.octets = removed.octets.saturating_add(one.octets);
            }
        }
        if is_kept {
            self.keep_domain(domain, &row, now)?;
        }
        self.tables.domains.remove(domain.as_str())?;
        self.forget_counts(row.id)?;
        let totals = self.totals_mut();
        totals.domains = less_one(totals.domains)?;
        Ok(Ok(removed))
    }

    /// Removes the mailbox and its mail; a session on it ends. With the setting `undelete` it can come back for a
    /// while. When it goes for good, texts that nobody else has are overwritten, unless the setting `erase` says
    /// otherwise, once that is durable and nobody reads them any more. More than some thousand messages go later:
    /// `Store::purge_unkept` is to follow.
    pub fn remove_mailbox(
        &mut self,
        address: &Address,
        now: UnixTime,
    ) -> Result<Result<Removed, Refused>, Fault> {
        self.remove_mailbox_with(address, None, now, &mut REMOVED_AT_A_TIME.clone())
    }

    /// `with` is its domain, if that can come back too. As many messages as `may_go` says may go for good in this
    /// transaction.
    fn remove_mailbox_with(
        &mut self,
        address: &Address,
        with: Option<DomainId>,
        now: UnixTime,
        may_go: &mut u64,
    ) -> Result<Result<Removed, Refused>, Fault> {
        let Some(domain) = self.domain(&address.domain)? else { return Ok(Err(Refused::NoSuchDomain)) };
        let Some(row) = self.mailbox(address)? else { return Ok(Err(Refused::NoSuchMailbox)) };
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

    /// Locks the domain: its mailboxes with it, though their own locks stay as they are. Open sessions end.
    pub fn lock_domain(&mut self, domain: &Domain) -> Result<Result<LockChange, Refused>, Fault> {
        let Some(mut row) = self.domain(domain)? else { return Ok(Err(Refused::NoSuchDomain)) };
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
        let Some(mut row) = self.domain(domain)? else { return Ok(Err(Refused::NoSuchDomain)) };
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

    /// Locks the mailbox; an open session on it ends.
    pub fn lock_mailbox(&mut self, address: &Address) -> Result<Result<LockChange, Refused>, Fault> {
        self.set_mailbox_lock(address, true)
    }

    /// Unlocks the mailbox, unless its whole domain is locked.
    pub fn unlock_mailbox(&mut self, address: &Address) -> Result<Result<LockChange, Refused>, Fault> {
        self.set_mailbox_lock(address, false)
    }

    fn set_mailbox_lock(
        &mut self,
        address: &Address,
        locked: bool,
    ) -> Result<Result<LockChange, Refused>, Fault> {
        let Some(domain) = self.domain(&address.domain)? else { return Ok(Err(Refused::NoSuchDomain)) };
        let Some(mut row) = self.mailbox(address)? else { return Ok(Err(Refused::NoSuchMailbox)) };
        if !locked && domain.locked {
            return Ok(Err(Refused::DomainLocked));
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
        if self.domain(&address.domain)?.is_none() {
            return Ok(Err(Refused::NoSuchDomain));
        }
        let Some(mut row) = self.mailbox(address)? else { return Ok(Err(Refused::NoSuchMailbox)) };
        row.credential = credential;
        self.put_mailbox(address, &row)?;
        Ok(Ok(()))
    }

    /// Stores a setting as it was typed, or, with `None`, goes back to its default.
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

    /// Whether the mail of a mailbox that goes for good is overwritten. A value that cannot be read counts as the
    /// default.
    pub(super) fn erases(&self) -> Result<bool, Fault> {
        Ok(self.setting(ERASE_SETTING)?.is_none_or(|value| value != "0"))
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
