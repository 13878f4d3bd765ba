//! The outcomes that are expected: of a login, of naming a recipient, of a delivery.
//!
//! A verdict is an answer, not a failure. A fault of disk or network is an `Err` beside it, and is answered
//! with `[SYS/TEMP]` or 451.

/// What became of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login<T> {
    Welcome(T),
    /// Wrong name or wrong password: told apart by nobody.
    WrongCredentials,
    /// The directory does not let the account in, whatever the password. The client is told what it is told of a wrong password.
    Barred {
        /// For the log alone.
        why: String,
        /// Whether the password was right.
        is_proven: bool,
    },
    /// The mailbox or its domain is locked. Said only after a correct password.
    Locked,
    /// Another session holds the maildrop.
    InUse,
    /// The last login was less than the time of LOGIN-DELAY ago (RFC 2449 section 8.1.1).
    TooSoon,
}

/// What is known of a recipient before the text arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    Accepted,
    /// A domain that is not served here.
    NotLocal,
    NoSuchMailbox,
    OverQuota,
}

impl Recipient {
    /// Whether no mail for it is ever taken here. Many of them look like somebody trying out names.
    pub fn is_wrong(self) -> bool {
        matches!(self, Self::NotLocal | Self::NoSuchMailbox)
    }
}

/// What became of a message for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// On disk: this is the only verdict that may be answered with 250.
    Stored,
    NoSuchMailbox,
    OverQuota,
    /// Our own Delivered-To for this recipient, or more than a hundred Received fields, stand in it already.
    Loop,
    /// The disk, or what is left of it, cannot take the message now.
    DiskFull,
    /// Nothing stands in the way but another recipient of a message that is for all or for nobody.
    Withheld,
}
