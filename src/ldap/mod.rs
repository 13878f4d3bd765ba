//! LDAPv3 (RFC 4511), the client's side, on smol: what a directory of accounts needs of it and nothing more.
//!
//! - `message` turns requests into octets and octets into responses, without I/O; BER itself is yasna's.
//! - `name` escapes values for distinguished names (RFC 4514). A filter is built as a tree and sent as BER, in which a
//!   value is a string of octets and never syntax, so nothing has to be escaped there (RFC 4515 is for filters that are
//!   text).
//! - `server` names a server and says how TLS begins; `locate` finds servers by the SRV records of a domain.
//! - `connection` is one connection under TLS, certificate and name verified; nothing is sent in clear but the request
//!   for TLS.
//! - `pool` keeps connections, makes them anew when they die, and tries several servers in turn.
//!
//! Invariants:
//! - an empty password is never sent: a simple bind with one is anonymous and succeeds (RFC 4513 section 5.1.2);
//! - every wait has a limit, and a connection whose answer came too late is closed, so no answer reaches the wrong
//!   question;
//! - the octets of a response, and the entries of a search, have a bound.

mod connection;
mod locate;
mod message;
mod name;
mod pool;
mod server;

pub use connection::Failure;
pub use message::{Attribute, Entry, Filter, Outcome};
#[cfg(any(test, fuzzing))]
pub use message::{RESPONSE_OCTETS_MAX, Response, decode, frame_octets};
pub use name::{domain_of, escaped};
pub use pool::{Binding, Pool, State};
pub use server::Server;
