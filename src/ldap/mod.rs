//! An LDAPv3 client (RFC 4511) on smol, with just what an account directory needs.
//!
//! - `message` encodes requests and decodes responses without I/O; yasna does the BER.
//! - `name` escapes values for distinguished names (RFC 4514). Filters are built as trees and sent as BER, where a
//!   value is an octet string and never syntax, so they need no escaping (RFC 4515 is for filters in text).
//! - `server` names a server and how TLS begins; `locate` finds servers through a domain's SRV records.
//! - `connection` is one connection under TLS with certificate and name verified. Only the request for TLS goes in
//!   clear.
//! - `pool` keeps connections, replaces dead ones, and turns to another server if one fails or falls silent.
//!
//! Invariants:
//! - We never send an empty password: a simple bind with one is anonymous and succeeds (RFC 4513 section 5.1.2).
//! - Every wait has a limit. A connection whose answer comes too late is closed, so no answer reaches the wrong
//!   question.
//! - The octets of a response and the entries of a search have a bound. A search that finds more counts as unanswered,
//!   so that a part is never taken for the whole.

mod connection;
mod locate;
pub mod message;
mod name;
mod pool;
mod server;
#[cfg(test)]
pub mod tests;

pub use connection::Failure;
pub use message::{Attribute, Entry, Filter, Outcome};
pub use name::{domain_of, escaped};
pub use pool::{Binding, Matches, Pool};
pub use server::Server;
