//! Receiving mail: the server side of SMTP (RFC 5321) and LMTP (RFC 2033), two dialects of one session.
//!
//! The session does no I/O: an event goes in, replies and *one next step* come out. It knows neither sockets nor the
//! store; it asks its driver whether a recipient is acceptable and hands it the finished message.
//!
//! Invariants:
//! - a message gets 250 only after the driver has reported it stored;
//! - text and chunks are never run as commands, even those of a refused message;
//! - nothing of a message, taken or refused, outlives it;
//! - the output depends on the octets received, not on how reads split them.
//!
//! Not implemented and not announced: AUTH, DSN, BINARYMIME.

mod command;
mod path;
mod reply;
mod session;
#[cfg(test)]
mod tests;

pub use reply::turn_away;
pub use session::{Counts, Dialect, Ending, Event, Next, Policy, Session, TlsState};
