//! What an administrator can do to a mail store: the same with a service running and without.
//!
//! An [`Op`] is a command as it was typed and understood. It is carried out by [`Op::run`] on an open store,
//! by the tool itself or, sent over the control socket, by the service. What comes back is data: a [`Reply`],
//! or a [`Refusal`]. Neither knows how it will be shown; [`render`] does that where the administrator sits.
//!
//! Invariants:
//! - a refused command changes nothing;
//! - an `Op` that came over the socket is trusted no more than one that was typed: names, passwords and
//!   settings are read by the same code, in `run`;
//! - a password is in no `Debug` output, reply or refusal.

pub mod commands;
pub mod render;
pub mod reply;
pub mod secret;

pub use commands::Op;
pub use reply::{Refusal, Reply};
