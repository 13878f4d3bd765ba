//! POP3 (RFC 1939), the client's side, on smol: what it takes to fetch the mail of a mailbox from the server where it
//! lay so far.
//!
//! - `server` says where that is, how TLS begins, and under which name a mailbox is known there.
//! - `reply` reads what a server says, without I/O.
//! - `connection` brings lines and texts over a socket; `session` is the dialogue: log in, list, retrieve.
//!
//! Invariants:
//! - nothing is ever deleted there: the only commands are CAPA, STLS, USER, PASS, AUTH, LIST, UIDL, RETR and QUIT;
//! - a password goes over TLS, certificate and name verified, or where the administrator wrote `pop3+clear`;
//! - every wait has a limit, and so have a line, a list and a text: a server that does not keep to it is left;
//! - a text counts when its last line has come, and is what the server holds, octet for octet.

mod connection;
mod reply;
mod server;
mod session;

#[cfg(any(test, fuzzing))]
pub use reply::{Text, read_any_line};
pub use server::Server;
pub use session::{Listed, Session, Trouble};
