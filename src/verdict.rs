//! The expected outcomes of a login, of naming a recipient and of a delivery.
//!
//! A verdict is an answer, not a failure. A disk or network fault is an `Err` instead, and gets `[SYS/TEMP]` or 451.

use std::fmt;

/// The outcome of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login<T> {
    Welcome(T),
    /// Wrong name or password; nothing tells which.
    WrongCredentials,
    /// The directory bars the account, whatever the password. The client gets the same reply as for a wrong password.
    Barred {
        /// For the log only.
        why: String,
        /// Whether the password was right.
        is_proven: bool,
    },
    /// The mailbox or its domain is locked. Only revealed after a correct password.
    Locked,
    /// Another session holds the maildrop.
    InUse,
    /// Some of its mail is still being fetched from another server.
    Incomplete,
    /// The last login was less than LOGIN-DELAY ago (RFC 2449 section 8.1.1).
    TooSoon,
}

impl<T> Login<T> {
    pub fn map<U>(self, welcome: impl FnOnce(T) -> U) -> Login<U> {
        match self {
            Self::Welcome(value) => Login::Welcome(welcome(value)),
            Self::WrongCredentials => Login::WrongCredentials,
            Self::Barred { why, is_proven } => Login::Barred { why, is_proven },
            Self::Locked => Login::Locked,
            Self::InUse => Login::InUse,
            Self::Incomplete => Login::Incomplete,
            Self::TooSoon => Login::TooSoon,
        }
    }
}

/// The verdict on a recipient before the text arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    Accepted,
    /// Its domain is not served here.
    NotLocal,
    NoSuchMailbox,
    OverQuota,
}

impl Recipient {
    /// Whether the recipient does not exist here. Many of those suggest someone guessing names.
    pub fn is_wrong(self) -> bool {
        matches!(self, Self::NotLocal | Self::NoSuchMailbox)
    }
}

/// The outcome of a delivery for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Durable. The only verdict answered with 250.
    Stored,
    NoSuchMailbox,
    OverQuota,
    /// It already carries our Delivered-To for this recipient, or more than a hundred Received fields.
    Loop,
    /// The disk has no room for it.
    DiskFull,
    /// Refused only because another recipient of an all-or-nothing delivery was.
    Withheld,
}

/// As the log words it.
impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "stored",
            Self::NoSuchMailbox => "no such mailbox",
            Self::OverQuota => "over quota",
            Self::Loop => "mail loop",
            Self::DiskFull => "no room on the disk",
            Self::Withheld => "withheld, because another recipient was refused",
        })
    }
}
