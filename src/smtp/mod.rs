//! Receiving mail: the server's side of SMTP (RFC 5321) and LMTP (RFC 2033), two dialects of one session.
//!
//! The session is pure: events come in, replies and *one next step* come out. It knows neither sockets nor
//! the store; it asks its owner whether a recipient is acceptable, and hands the finished message over.
//!
//! Invariants:
//! - 250 after the text of a message is said only for a message that the owner called stored;
//! - what a peer sends as text or chunk is never taken for commands, whether the message is wanted or not;
//! - after a message, taken or refused, nothing of it is left;
//! - the output depends on the input's octets, not on how they were cut into reads.
//!
//! Not announced and not known: AUTH, DSN, BINARYMIME.

mod command;
#[cfg(any(test, fuzzing))]
pub mod in_memory;
mod path;
mod reply;
mod session;
#[cfg(test)]
mod tests;

pub use reply::turn_away;
pub use session::{Dialect, Event, Next, Policy, Session, Tls};
