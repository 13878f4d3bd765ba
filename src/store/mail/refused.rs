//! What an administrator may be refused.

/// What the directory may answer instead of doing as told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    DomainExists,
    NoSuchDomain,
    MailboxExists,
    NoSuchMailbox,
    /// A mailbox cannot be unlocked by itself while its domain is locked.
    DomainLocked,
    /// The account that a quota is to refer to is no mailbox.
    NoSuchAccount,
    /// The mailbox counts against no quota.
    NoQuota,
    /// A session is open on the mailbox.
    InUse,
    /// Nothing that was deleted can come back, or nothing of that time.
    NothingDeleted,
    /// The mailbox was deleted, and there is a new one of its name, in which nothing was deleted.
    MailboxReplaced,
    /// A deleted mailbox comes back with the ids of its messages.
    NotAsNew,
}
