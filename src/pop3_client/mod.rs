//! A POP3 client (RFC 1939) that fetches a mailbox from its old server.
//!
//! - `server`: the server's address, how TLS begins, and the login names it knows.
//! - `reply`: parses what a server says, without I/O.
//! - `connection`: lines and texts over a socket. `session`: the dialogue that logs in, lists and retrieves.
//!
//! Invariants:
//! - it deletes nothing: its only commands are CAPA, STLS, USER, PASS, AUTH, LIST, UIDL, RETR and QUIT;
//! - passwords go over TLS with a verified certificate and name, unless the administrator wrote `pop3+clear`;
//! - every wait, line, list and text has a limit, and a server that exceeds one is abandoned;
//! - a text counts once its last line has arrived, and is what the server holds, octet for octet.

mod connection;
pub mod reply;
mod server;
mod session;

pub use server::Server;
pub use session::{Listed, Session, Trouble};
