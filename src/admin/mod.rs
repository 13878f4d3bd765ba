//! What an administrator can do to a mail store: the same with a service running and without.
//!
//! An [`Op`] is a command as it was typed and understood. It is carried out by [`Op::run`] on an open store,
//! by the tool itself or, sent over the control socket, by the service. What comes back is data: a [`Reply`],
//! or a [`Refusal`]. Neither knows how it will be shown; [`render`] does that where the administrator sits.
//!
//! Invariants:
//! - a refused command changes nothing;
//! - a command that was carried out is on disk;
//! - an `Op` that came over the socket is trusted no more than one that was typed: names, passwords and
//!   settings are read by the same code, in `run`;
//! - a password is in no `Debug` output, reply or refusal.

mod configure;
mod directory;
mod statistics;

pub mod commands;
pub mod render;
pub mod reply;
pub mod secret;

pub use commands::Op;
pub use directory::Target;
pub use reply::{Refusal, Reply};

use crate::mailroot::MailRoot;
use crate::settings::Settings;
use crate::store::Store;

/// What a command needs to know beside the store.
pub struct Context<'a> {
    pub mailroot: &'a MailRoot,
    /// Unix time in seconds.
    pub now: u64,
    /// Fresh randomness, for a password that the command may set.
    pub salt: [u8; 16],
    /// The service that carries the command out, if one does.
    pub service: Option<&'a dyn Service>,
}

/// What a running service does when an administrator changes something; the store itself ends the sessions
/// of what is locked or deleted.
pub trait Service {
    /// Makes changed settings effective, before they are stored. A refusal is one sentence that says what
    /// stands in the way, such as a port that is taken, and means that everything is as before. Called
    /// with the two swapped where the settings could then not be stored.
    fn apply(&self, before: &Settings, after: &Settings) -> Result<(), String>;
}

impl Op {
    /// Carries the command out. Takes milliseconds, or longer with much mail: not to be called on an executor.
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        match self {
            Self::Add(add) => add.run(store, context),
            Self::Delete(delete) => delete.run(store),
            Self::List(list) => list.run(store),
            Self::Lock(lock) => lock.run(store),
            Self::Unlock(unlock) => unlock.run(store),
            Self::Stat(stat) => stat.run(store),
            Self::ChangePwd(change) => change.run(store, context),
            Self::Set(set) => set.run(store, context),
            Self::Get(get) => get.run(store, context),
        }
    }

    /// Whether a mail store may be made for this command where there is none: for a domain, or a setting.
    /// Refused where the command could not be carried out anyway.
    pub fn founds_store(&self) -> Result<bool, Refusal> {
        match self {
            Self::Add(add) => Ok(matches!(add.name.parse()?, Target::Domain(_))),
            Self::Set(set) => set.is_stored().map(|_| true),
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests;
