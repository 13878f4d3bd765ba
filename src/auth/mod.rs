//! Credentials: what is kept of a password, and how a password is checked against it.
//!
//! Knows neither store nor sockets.

pub mod password;
pub mod seal;
