//! The POP3 session as a state machine without I/O: RFC 1939 with APOP, CAPA (2449), STLS (2595), AUTH (5034), response
//! codes (3206), UTF8 and LANG (6856).
//!
//! The driver tells a [`Session`] what happened ([`Event`]). The session writes its reply and names the one thing it
//! needs next ([`Next`]); the driver does that and reports back. The session never reads, writes or waits, takes time
//! and randomness as arguments, and knows neither store nor socket.
//!
//! Invariants:
//! - Every line is answered once, in order of arrival. Pipelining needs nothing more.
//! - Message numbers come from the list as first read and do not change until the session ends.
//! - Only [`Next::Commit`], after QUIT, deletes messages, and only [`Event::Committed`] is followed by `+OK`. A session
//!   that ends anywhere else has deleted nothing. After a failed commit, the reply is RFC 1939's "some deleted messages
//!   not removed": a fault or a lock can come when thousands are gone, and what is gone is never claimed to be there.
//! - A reply line is at most 512 octets and quotes nothing from the client. (AUTH challenges are not reply lines: they
//!   may be longer, and SCRAM's contains the client's nonce.)
//! - The TLS handshake wipes everything learned before it, except the count of refused logins.
//! - Listings are written in slices: `out` exceeds [`SLICE_OCTETS`] by less than one slice.
//!
//! ```text
//! Connected ─► AUTHORIZATION ─► Login, or Account ─► Open ─► TRANSACTION ─► List, Send, Flush ─► back
//!                │    ▲  │                   ▼        │        │
//!                ▼    │  └─ StartTls ─► back Deny     │        ├─ QUIT, nothing deleted ─► Close
//!              Close  └─────── refused ──────┴────────┘        └─ QUIT ─► Commit ─► Close
//! ```

mod authorization;
mod capabilities;
mod command;
mod mechanism;
mod message_list;
mod reply;
mod session;
mod transaction;

use std::fmt;

use zeroize::Zeroizing;

use crate::address::LoginName;
use crate::auth::{Account, ChannelBinding, ntlm};
use crate::message::{Entry, Totals, Uid};
use crate::verdict;

pub use reply::turn_away;
pub use session::Session;

/// Longest command line, line end included (RFC 2449 section 4).
pub const COMMAND_OCTETS_MAX: usize = 255;
/// Longest client response within AUTH, line end included (RFC 5034 section 4).
pub const RESPONSE_OCTETS_MAX: usize = 12288;
/// A listing asks for [`Next::Flush`] once `out` holds this many octets.
pub const SLICE_OCTETS: usize = 32 << 10;
/// Consecutive lines that are not commands before the session ends: the peer does not speak POP3.
pub const BAD_LINES_MAX: u32 = 20;
/// Refused logins before the session ends. A guesser then has to reconnect, and its address is counted.
pub const REFUSED_LOGINS_MAX: u32 = 5;
/// The line that ends a listing or a message's text. For [`Next::Send`] the driver sends it.
pub const TERMINATOR: &[u8] = b".\r\n";

/// What a session knows about the service and its connection.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Our name in the greeting, at most 255 octets.
    pub hostname: String,
    pub channel: Channel,
    /// Whether this connection may carry a password in clear.
    pub plaintext_allowed: bool,
    /// Whether passwords in clear are refused even under TLS (`sparequired`).
    pub spa_required: bool,
    /// Whether stored passwords can be recovered, which APOP, CRAM-MD5 and NTLM need.
    pub secrets_available: bool,
    /// Whether password verifiers are stored here, which SCRAM needs.
    pub verifiers_available: bool,
    /// NetBIOS name of the Active Directory domain that checks NTLM, if one does.
    pub ntlm_domain: Option<String>,
    /// Whether clients that have the choice should send plain passwords: other mechanisms work, but are not offered.
    /// Users being adopted from another server can log in no other way.
    pub passwords_wanted: bool,
    pub ntlm_level: ntlm::Level,
    /// Days until mail is deleted; `None` = never (EXPIRE, RFC 2449 section 6.7).
    pub expire_days: Option<u32>,
    /// Minimum seconds between two logins; 0 = none (LOGIN-DELAY, RFC 2449 section 6.5).
    pub login_delay_seconds: u32,
}

/// What carries the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    Clear { stls_offered: bool },
    Tls(ChannelBinding),
}

impl Channel {
    fn binding(&self) -> Option<&ChannelBinding> {
        match self {
            Channel::Clear { .. } => None,
            Channel::Tls(binding) => Some(binding),
        }
    }
}

/// What happened. `Connected` comes first; after that each event answers the last [`Next`]. Any other event is a bug in
/// the driver, and panics.
pub enum Event<'a> {
    Connected,
    /// A line, without its line end.
    Line(&'a [u8]),
    /// A line exceeded the limit and was skipped whole.
    LineTooLong,
    Account(Account),
    LoggedIn(verdict::Login<Totals>),
    /// TLS is up; this policy now applies.
    Secured(Policy),
    /// The messages at login, oldest first: exactly those that the login's totals counted.
    Listed(Vec<Entry>),
    /// Status line, text and terminator went out.
    Sent,
    /// The message no longer exists. Nothing of the [`Transmission`] was written.
    Gone,
    /// `out` is empty again.
    Flushed,
    /// The deletions are durable.
    Committed,
    /// The request failed for now: store, network or directory is at fault.
    Unavailable,
    /// The request failed for good: the data is damaged on disk. Possible wherever `Unavailable` is.
    Damaged,
    /// The mailbox was locked or deleted. This event and the two below may come instead of any answer; each ends the
    /// session.
    Revoked,
    /// The client was silent for too long.
    TimedOut,
    ShuttingDown,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Quit,
    /// QUIT could not delete everything that was marked.
    NotCommitted,
    /// Too many refused logins, or lines that are not commands.
    TooManyErrors,
    Revoked,
    TimedOut,
    ShuttingDown,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::Quit => "QUIT",
            Ending::NotCommitted => "the deletions could not be written",
            Ending::TooManyErrors => "too many errors",
            Ending::Revoked => "the mailbox was locked or deleted",
            Ending::TimedOut => "timed out",
            Ending::ShuttingDown => "the service is shutting down",
        })
    }
}

/// What the session needs. Replies in `out` are sent before the driver waits for the client.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// A line of at most `octets_max` octets, line end included: `Line` or `LineTooLong`.
    ReadLine { octets_max: usize },
    /// Check the credentials and lock the maildrop: `LoggedIn` or `Unavailable`.
    Login(Credentials),
    /// Look up what a mechanism needs of this account, whether it exists or not: `Account` or `Unavailable`.
    Account { login: LoginName },
    /// The client proved that it knows the password of the account last looked up: lock its maildrop. `LoggedIn` or
    /// `Unavailable`.
    Open,
    /// The client's proof for the account last looked up is wrong: count the guess and answer
    /// `LoggedIn(WrongCredentials)`.
    Deny,
    /// Ask the directory whether this proves a password, and lock the maildrop: `LoggedIn` or `Unavailable`.
    Prove(ntlm::Proof),
    /// Write `out`, discard unread input and do the handshake: `Secured`. If the handshake fails, hang up.
    StartTls,
    /// Read the list of messages: `Listed` or `Unavailable`.
    List,
    /// Send a message: `Sent`, `Gone` or `Unavailable`.
    Send(Transmission),
    /// Write `out` and empty it: `Flushed`.
    Flush,
    /// Delete these messages: `Committed`, or if some stay, `Unavailable`.
    Commit {
        /// In the order of the list, never empty. If some stay, they are the last ones.
        deleted: Vec<Uid>,
    },
    /// Write `out` and hang up.
    Close(Ending),
}

/// A message to send: first `out`, then the status line, the text in wire form and [`TERMINATOR`].
///
/// The status line promises a text, so the driver finds the text before it sends the line. If it can't, it drops the
/// line and answers `Gone` or `Unavailable`, and the client gets `-ERR` instead. If a fault comes up in the middle of a
/// text, it hangs up.
#[derive(Debug, PartialEq)]
pub struct Transmission {
    pub uid: Uid,
    /// `None` = the whole text (RETR). Otherwise the header, the empty line and at most this many lines of the body
    /// (TOP, RFC 1939 section 7).
    pub body_lines: Option<u64>,
    /// Ends with CRLF.
    pub status: String,
}

/// A name and a password as the client sent them. The driver prepares them (RFC 4013) and finds the mailbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Credentials {
    pub login: LoginName,
    pub password: Password,
}

/// A password. Logs never show it, and it is wiped when dropped.
#[derive(Clone, PartialEq)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Password {
    fn from(octets: &[u8]) -> Self {
        Self(Zeroizing::new(octets.to_vec()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}
