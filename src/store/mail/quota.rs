//! Quotas: whose octets count against which account, and whether a message still fits.
//!
//! The usage of an account is kept in the transaction of what is counted, so it is right after a crash, and deleting
//! mail makes room at once. What counts is what LIST announces. Several mailboxes may count against one account.

use super::Refused;
use crate::address::Address;
use crate::store::index::rows::{MailboxRow, QuotaRow};
use crate::store::index::{Fault, Read, Tx, miscounted};
use crate::units::Octets;

/// The setting that holds for accounts without a limit of their own.
const LIMIT_SETTING: &str = "quotalimit";

/// An account's quota as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    pub account: String,
    /// Octets.
    pub used: u64,
    /// Octets, whether the account's own or that of the setting; none: there is no limit.
    pub limit: Option<u64>,
}

/// What this mailbox counts against.
pub fn of_mailbox(view: &impl Read, mailbox: &MailboxRow) -> Result<Option<Quota>, Fault> {
    let Some(account) = &mailbox.quota else { return Ok(None) };
    let row = view.quota(account)?.ok_or_else(|| Fault::damaged("an account's quota is missing"))?;
    Ok(Some(Quota { account: account.clone(), used: row.used, limit: limit(view, &row)? }))
}

impl Quota {
    /// Whether so many octets more are within the limit; none more: whether anything is.
    pub fn has_room_for(&self, octets: u64) -> bool {
        self.limit.is_none_or(|limit| self.used.saturating_add(octets.max(1)) <= limit)
    }
}

fn limit(view: &impl Read, row: &QuotaRow) -> Result<Option<u64>, Fault> {
    let limit = match row.limit {
        Some(limit) => limit,
        // A value that cannot be read has been complained of at the start, and counts as the default.
        None => {
            let text = view.setting(LIMIT_SETTING)?.unwrap_or_default();
            text.parse::<Octets>().map_or(0, |limit| limit.0)
        }
    };
    Ok((limit > 0).then_some(limit))
}

impl Tx<'_, '_> {
    /// Lets the mailbox's octets count against the quota of `account` from now on, and sets the account's own limit if
    /// one is given (0: no limit).
    pub fn set_quota(
        &mut self,
        mailbox: &Address,
        account: &Address,
        limit: Option<u64>,
    ) -> Result<Result<Quota, Refused>, Fault> {
        if self.domain(&mailbox.domain)?.is_none() {
            return Ok(Err(Refused::NoSuchDomain));
        }
        let Some(mut row) = self.mailbox(mailbox)? else { return Ok(Err(Refused::NoSuchMailbox)) };
        if self.mailbox(account)?.is_none() {
            return Ok(Err(Refused::NoSuchAccount));
        }
        let name = account.to_string();
        let octets = self.counts(row.id)?.octets;
        if row.quota.as_ref() != Some(&name) {
            self.leave_quota(&row, octets)?;
            let quota = self.quota_mut(&name)?;
            quota.used += octets;
            quota.mailboxes += 1;
            row.quota = Some(name.clone());
            self.put_mailbox(mailbox, &row)?;
        }
        if limit.is_some() {
            self.quota_mut(&name)?.limit = limit;
        }
        let quota = of_mailbox(self, &row)?.expect("the mailbox has just got one");
        Ok(Ok(quota))
    }

    /// Lets the mailbox's octets count against nothing. The account's own limit goes with its last mailbox.
    pub fn remove_quota(&mut self, mailbox: &Address) -> Result<Result<(), Refused>, Fault> {
        if self.domain(&mailbox.domain)?.is_none() {
            return Ok(Err(Refused::NoSuchDomain));
        }
        let Some(mut row) = self.mailbox(mailbox)? else { return Ok(Err(Refused::NoSuchMailbox)) };
        if row.quota.is_none() {
            return Ok(Err(Refused::NoQuota));
        }
        let octets = self.counts(row.id)?.octets;
        self.leave_quota(&row, octets)?;
        row.quota = None;
        self.put_mailbox(mailbox, &row)?;
        Ok(Ok(()))
    }

    /// The mailbox, which has so many octets, does not count against its account any more.
    pub fn leave_quota(&mut self, row: &MailboxRow, octets: u64) -> Result<(), Fault> {
        if let Some(account) = &row.quota {
            let quota = self.quota_mut(account)?;
            quota.used = quota.used.checked_sub(octets).ok_or_else(miscounted)?;
            quota.mailboxes = quota.mailboxes.checked_sub(1).ok_or_else(miscounted)?;
        }
        Ok(())
    }
}
