//! Quotas: which mailboxes count against which account, and whether a message still fits.
//!
//! An account's usage changes in the same transaction as what it counts. So it is right after a crash, and
//! deleting mail makes room at once. Sizes are those LIST announces. Several mailboxes may count against one
//! account.

use super::Refused;
use super::refused::no_such_mailbox;
use crate::address::Address;
use crate::store::index::rows::{MailboxRow, QuotaRow};
use crate::store::index::{Fault, Read, Tx, miscounted};
use crate::units::Octets;

/// The limit of accounts without one of their own.
const LIMIT_SETTING: &str = "quotalimit";

/// Usage and limit of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    pub account: String,
    /// In octets.
    pub used: u64,
    /// In octets: the account's own limit or that of the setting. `None` is unlimited.
    pub limit: Option<u64>,
}

/// The quota this mailbox counts against, if any.
pub fn of_mailbox(view: &impl Read, mailbox: &MailboxRow) -> Result<Option<Quota>, Fault> {
    let Some(account) = &mailbox.quota else { return Ok(None) };
    let row = view.quota(account)?.ok_or_else(|| Fault::damaged("an account's quota is missing"))?;
    Ok(Some(Quota { account: account.clone(), used: row.used, limit: limit(view, &row)? }))
}

impl Quota {
    /// True if `octets` more fit; for 0, true if anything does.
    pub fn has_room_for(&self, octets: u64) -> bool {
        self.limit.is_none_or(|limit| self.used.saturating_add(octets.max(1)) <= limit)
    }
}

fn limit(view: &impl Read, row: &QuotaRow) -> Result<Option<u64>, Fault> {
    let limit = match row.limit {
        Some(limit) => limit,
        // An unreadable value was reported at the start and counts as the default.
        None => {
            let text = view.setting(LIMIT_SETTING)?.unwrap_or_default();
            text.parse::<Octets>().map_or(0, |limit| limit.0)
        }
    };
    Ok((limit > 0).then_some(limit))
}

impl Tx<'_, '_> {
    /// Makes the mailbox count against the quota of `account`, and sets the account's own limit if one is given
    /// (0 is unlimited).
    pub fn set_quota(
        &mut self,
        mailbox: &Address,
        account: &Address,
        limit: Option<u64>,
    ) -> Result<Result<Quota, Refused>, Fault> {
        let Some(mut row) = self.mailbox(mailbox)? else {
            return Ok(Err(no_such_mailbox(self, mailbox)?));
        };
        if self.mailbox(account)?.is_none() {
            return Ok(Err(Refused::NoSuchAccount(account.clone())));
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

    /// Makes the mailbox count against no quota. The account's own limit goes with its last mailbox.
    pub fn remove_quota(&mut self, mailbox: &Address) -> Result<Result<(), Refused>, Fault> {
        let Some(mut row) = self.mailbox(mailbox)? else {
            return Ok(Err(no_such_mailbox(self, mailbox)?));
        };
        if row.quota.is_none() {
            return Ok(Err(Refused::NoQuota(mailbox.clone())));
        }
        let octets = self.counts(row.id)?.octets;
        self.leave_quota(&row, octets)?;
        row.quota = None;
        self.put_mailbox(mailbox, &row)?;
        Ok(Ok(()))
    }

    /// Takes the mailbox with its `octets` out of its account's usage.
    pub fn leave_quota(&mut self, row: &MailboxRow, octets: u64) -> Result<(), Fault> {
        if let Some(account) = &row.quota {
            let quota = self.quota_mut(account)?;
            quota.used = quota.used.checked_sub(octets).ok_or_else(miscounted)?;
            quota.mailboxes = quota.mailboxes.checked_sub(1).ok_or_else(miscounted)?;
        }
        Ok(())
    }
}
