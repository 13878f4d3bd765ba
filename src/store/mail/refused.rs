//! Why the store refuses an administrator's change. Each refusal names its subject.

use crate::address::{Address, Domain};
use crate::store::index::{Fault, Read};

/// An expected outcome: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    DomainExists(Domain),
    NoSuchDomain(Domain),
    MailboxExists(Address),
    /// Its domain exists.
    NoSuchMailbox(Address),
    /// The mailbox cannot be unlocked alone while its domain is locked.
    DomainLocked(Address),
    /// A quota's account must be a mailbox, and this one is not.
    NoSuchAccount(Address),
    /// The mailbox counts against no quota.
    NoQuota(Address),
    /// A session has the mailbox open.
    InUse(Address),
    /// The mailbox has nothing to undelete, or nothing from the time asked for.
    NothingDeleted(Address),
    /// No domain of this name was deleted, or it can no longer be undeleted.
    DomainNotDeleted(Domain),
    /// The mailbox was deleted and another one has its name now; nothing was deleted from the new one.
    MailboxReplaced(Address),
    /// A deleted mailbox can only come back under the ids its messages had.
    NotAsNew(Address),
}

/// The refusal for a mailbox that does not exist: its domain may be missing too.
pub(super) fn no_such_mailbox(view: &impl Read, address: &Address) -> Result<Refused, Fault> {
    Ok(match view.domain(&address.domain)? {
        Some(_) => Refused::NoSuchMailbox(address.clone()),
        None => Refused::NoSuchDomain(address.domain.clone()),
    })
}
