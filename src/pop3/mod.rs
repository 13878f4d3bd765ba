//! POP3 as a conversation without a connection: RFC 1939 with APOP, CAPA (2449), STLS (2595), AUTH (5034), response
//! codes (3206), UTF8 and LANG (6856).
//!
//! A [`Session`] is told what happened ([`Event`]), writes its reply and names the one thing it wants next
//! ([`Next`]). Its owner does that and tells it what came of it. The session never reads, writes, waits, asks
//! for the time or for chance, and knows neither store nor socket.
//!
//! Invariants:
//! - Every line in is answered once, in the order of arrival: that is all that pipelining needs.
//! - Message numbers are those of the list as it was read, and stay so until the session ends.
//! - Deletions leave the session by [`Next::Commit`] alone, after QUIT, and `+OK` follows
//!   [`Event::Committed`] alone. A session that is dropped at any other point has deleted nothing.
//! - A reply line is at most 512 octets, and quotes nothing that the client sent. (The challenges of AUTH are no reply
//!   lines: they may be longer, and SCRAM's has the client's nonce in it.)
//! - Nothing learned before the TLS handshake outlasts it, but how often the client was refused.
//! - Listings are written in slices: `out` grows past [`SLICE_OCTETS`] by less than one slice.
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
mod maildrop;
mod mechanism;
#[cfg(any(test, fuzzing))]
pub mod memory;
mod reply;
mod session;
mod transaction;

use std::fmt;

use crate::auth::{Account, ChannelBinding, ntlm};
use crate::message::{Entry, Totals, Uid};
use crate::verdict;
use zeroize::Zeroizing;

pub use reply::turn_away;
pub use session::Session;

/// Longest command line with its line end (RFC 2449 section 4).
pub const COMMAND_OCTETS_MAX: usize = 255;
/// Longest client response within AUTH with its line end (RFC 5034 section 4).
pub const RESPONSE_OCTETS_MAX: usize = 12288;
/// A listing asks for [`Next::Flush`] when `out` holds this much.
pub const SLICE_OCTETS: usize = 32 << 10;
/// So many lines in a row that are no command end the session: the peer does not speak POP3.
pub const BAD_LINES_MAX: u32 = 20;
/// So many logins refused end the session; a guesser must come back, where its address is counted.
pub const REFUSED_LOGINS_MAX: u32 = 5;
/// The line after a message's text or a listing. Whoever sends the text for [`Next::Send`] ends it with this.
pub const TERMINATOR: &[u8] = b".\r\n";

/// What a session needs to know of the service and of the connection it is held over.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Our name in the greeting: at most 255 octets.
    pub hostname: String,
    pub channel: Channel,
    /// Whether a password may be sent as it is over this connection.
    pub plaintext_allowed: bool,
    /// Whether a password may never be sent as it is, under TLS neither (`sparequired`).
    pub spa_required: bool,
    /// Whether passwords can be had back in clear, which APOP, CRAM-MD5 and NTLM need.
    pub secrets_available: bool,
    /// Whether there are verifiers of passwords, which SCRAM needs.
    pub verifiers_available: bool,
    /// The NetBIOS name of the domain of Active Directory that checks NTLM in our place, where one does.
    pub ntlm_domain: Option<String>,
    pub ntlm_level: ntlm::Level,
    /// Days that mail is kept; `None`: for ever (EXPIRE, RFC 2449 section 6.7).
    pub expire_days: Option<u32>,
    /// Least seconds between two logins, 0 for none (LOGIN-DELAY, RFC 2449 section 6.5).
    pub login_delay_seconds: u32,
}

/// What the session is held over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// As it comes.
    Clear {
        stls_offered: bool,
    },
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

/// What happened. `Connected` comes first; lines come when [`Next::ReadLine`] asked for one, everything else
/// as the answer to what was asked. An answer to what was not asked is a bug of the owner, and panics.
pub enum Event<'a> {
    Connected,
    /// A line without its line end.
    Line(&'a [u8]),
    /// A line was longer than asked for and has been skipped whole.
    LineTooLong,
    Account(Account),
    LoggedIn(verdict::Login<Totals>),
    /// TLS has begun, and this holds from now on.
    Secured(Policy),
    /// The messages of the maildrop as it was at login, oldest first: those that the totals of the login
    /// counted. From here on the list is what is counted.
    Listed(Vec<Entry>),
    /// Status line, text and terminator went out.
    Sent,
    /// The message is not there any more. Nothing was written of the [`Transmission`].
    Gone,
    /// `out` is empty again.
    Flushed,
    /// The deletions are durable.
    Committed,
    /// What was asked for cannot be had now, by a fault of store, network or directory.
    Unavailable,
    /// What was asked for is damaged on the disk. May answer whatever `Unavailable` may.
    Damaged,
    /// The mailbox was locked or deleted. This and the two below may come in place of any answer, and end the session.
    Revoked,
    /// The client was silent for too long.
    TimedOut,
    ShuttingDown,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Quit,
    /// QUIT could not delete what was marked.
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

/// What the session wants. Replies in `out` go out before the client can see that it is waited for.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// A line of at most so many octets with its line end: `Line` or `LineTooLong`.
    ReadLine { octets_max: usize },
    /// Check these and lock the maildrop: `LoggedIn` or `Unavailable`.
    Login(Credentials),
    /// Find out what a mechanism must know of the account of this name, whether there is one or not: `Account` or
    /// `Unavailable`. As to names, see [`Credentials`].
    Account { name: String },
    /// The client proved that it knows the password of the account that was last found, which is of this name: lock
    /// the maildrop. `LoggedIn` or `Unavailable`.
    Open { name: String },
    /// Ask the directory whether this proves a password, and lock the maildrop: `LoggedIn` or `Unavailable`.
    Prove(ntlm::Claim),
    /// The client failed to prove it for this name: note that down, and let it wait for the answer as long as the guess
    /// was bad. `LoggedIn(WrongCredentials)`.
    Deny { name: String },
    /// Write `out`, throw away what was received and not yet handed over, and do the handshake: `Secured`. After a
    /// handshake that failed only hanging up is left.
    StartTls,
    /// Read the list of messages: `Listed` or `Unavailable`.
    List,
    /// Send a message: `Sent`, `Gone` or `Unavailable`.
    Send(Transmission),
    /// Write `out` and empty it: `Flushed`.
    Flush,
    /// Delete these messages, all or none: `Committed` or `Unavailable`.
    Commit {
        /// In the order of the list, never empty.
        deleted: Vec<Uid>,
    },
    /// Write `out` and hang up.
    Close(Ending),
}

/// A message to send: after `out` the status line, the text in wire form, [`TERMINATOR`].
///
/// The status line is not in `out`, because it promises a text. The owner finds the text first; if it can't, it
/// drops the line and answers `Gone` or `Unavailable`, and the client sees an `-ERR` where the `+OK` would
/// have been. After a fault in the middle of a text only hanging up is left.
#[derive(Debug, PartialEq)]
pub struct Transmission {
    pub uid: Uid,
    /// `None` for the whole text (RETR). Otherwise header, empty line and so many lines of the body, or as many
    /// as there are (TOP, RFC 1939 section 7).
    pub body_lines: Option<u64>,
    /// With its CRLF.
    pub status: String,
}

/// A name and a password as the client sent them: preparing them (RFC 4013) and finding the mailbox are the
/// owner's. Where the name was not UTF-8, U+FFFD stands in it, which no mailbox's name has: so it takes the
/// way, and the time, of any unknown name.
#[derive(Debug, PartialEq)]
pub struct Credentials {
    pub name: String,
    pub password: Password,
}

/// A password that logs do not show, and that is wiped when it is dropped.
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
