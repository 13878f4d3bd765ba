//! What an administrator can do to a mail store: the same with a service running and without.
//!
//! An [`Op`] is a command of `winpop` as it was typed and understood, a [`Request`] that or one of the other things
//! that are asked of a store. It is carried out by [`Request::run`] on an open store, by the tool itself or, sent over
//! the control socket, by the service. What comes back is data: a [`Reply`], or a [`Refusal`]. How it
//! is shown is decided where the administrator sits.
//!
//! Invariants:
//! - a refused command changes nothing;
//! - a command that was carried out is on disk;
//! - an `Op` that came over the socket is trusted no more than one that was typed: names, passwords and
//!   settings are read by the same code, in `run`;
//! - a password is in no `Debug` output, reply or refusal.

mod accounts;
pub mod audit;
mod bulk;
mod configure;
mod directory;
mod export;
mod import;
mod key;
mod lookup;
mod moving;
mod ownership;
mod quota;
mod relocate;
mod statistics;
mod submission;
mod trial;
mod undelete;
mod upkeep;

pub mod commands;
pub mod reply;
pub mod secret;

pub use accounts::{change_password, create_account, undone};
pub use bulk::{ENTRIES_MAX, Entry, one_by_one};
pub use commands::{ChangePwd, Op};
pub use configure::read_settings;
pub use directory::Target;
pub use export::{ExportedMessage, ListedMessage, next_exported};
pub use import::{Announced, BATCH_MESSAGES_MAX, BATCH_OCTETS_MAX, Batch, MESSAGE_OCTETS_MAX};
pub use relocate::{Present, set_mailroot};
pub use reply::{Refusal, Reply};
pub use submission::{Submission, deliver, receiver};
pub use upkeep::{Working, check, check_file, repair};

use std::fs::File;
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::auth::directory::Directory;
use crate::auth::password::Fresh;
use crate::keyring::Keyring;
use crate::lock::RwLock;
use crate::mailroot::MailRoot;
use crate::settings::Settings;
use crate::store::{Progress, Store, UnixTime};

/// What a command needs to know beside the store.
pub struct Context<'a> {
    pub mailroot: &'a MailRoot,
    pub now: UnixTime,
    /// Fresh randomness, for a password that the command may set.
    pub fresh: Fresh,
    /// What seals that password; changed by the command that changes the key.
    pub keyring: &'a RwLock<Keyring>,
    /// The service that carries the command out, if one does.
    pub service: Option<&'a dyn Service>,
}

impl<'a> Context<'a> {
    /// With the time of now and fresh randomness.
    pub fn of_now(
        mailroot: &'a MailRoot,
        keyring: &'a RwLock<Keyring>,
        service: Option<&'a dyn Service>,
    ) -> Result<Self, Refusal> {
        let fresh = Fresh::draw().map_err(Refusal::fault)?;
        let now = UnixTime::now();
        Ok(Self { mailroot, now, fresh, keyring, service })
    }
}

/// What a running service does when an administrator changes something; the store itself ends the sessions
/// of what is locked or deleted.
pub trait Service {
    fn state(&self) -> reply::ServiceState;

    fn connections(&self) -> reply::Connections;

    /// The directory of accounts in force, none where the data file holds them. An error is a sentence.
    fn accounts(&self) -> Result<Option<Arc<dyn Directory>>, String>;

    /// The state of the directory of accounts, if one is in force.
    fn directory(&self) -> Option<reply::DirectoryLine>;

    /// Makes changed settings effective, before they are stored. A refusal is one sentence that says what
    /// stands in the way, such as a port that is taken, and means that everything is as before. Called
    /// with the two swapped where the settings could then not be stored.
    fn apply(&self, before: &Settings, after: &Settings) -> Result<(), String>;
}

/// What can be asked of a store.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    Command(Op),
    /// Keep the new password of an account of this machine, which was changed there, where an old one was kept.
    PasswordChanged(ChangePwd),
    /// Add domains and mailboxes.
    AddMany(Vec<Entry>),
    /// Copy the whole store into the file that comes with the request, which the administrator has opened. The name
    /// is only told.
    Backup {
        file: String,
    },
    /// Verify everything.
    Check,
    /// Give free space back.
    Compact,
    /// Say that the service answers.
    Health,
    /// Show the state of the key that seals passwords.
    Key,
    /// Make a new key, and seal all passwords under it.
    RotateKey {
        /// Even where some cannot be, because the key that they are sealed under is not there.
        discard: bool,
    },
    /// Write the messages of a mailbox into the file that comes with the request.
    Export {
        mailbox: String,
    },
    /// Write the ids, octets and hashes of the messages of a mailbox into the file that comes with the request.
    Ids {
        mailbox: String,
    },
    /// Write the accounts of a domain, of one mailbox or of all into the file that comes with the request.
    ExportAccounts {
        name: Option<String>,
    },
    /// Let nobody into a mailbox until its import is over.
    BeginImport {
        mailbox: String,
        /// Make the domain and the mailbox where they are not there.
        makes: bool,
    },
    EndImport {
        mailbox: String,
    },
    /// Take in messages of another server, whose texts are in the file that comes with the request.
    Import(Batch),
}

impl Request {
    /// Whether it goes through all mail or all mailboxes, and tells how far it is.
    pub fn is_long(&self) -> bool {
        match self {
            Self::Backup { .. } | Self::Check | Self::Compact => true,
            Self::Export { .. } | Self::Ids { .. } => true,
            Self::Command(Op::Set(set)) => set.is_of_authentication(),
            _ => false,
        }
    }

    /// Carries the request out with the file that came with it. Takes milliseconds, or minutes with much mail: not to be
    /// called on an executor.
    pub fn run(
        &self,
        store: &Store,
        context: &Context,
        file: Option<File>,
        progress: &Progress,
    ) -> Result<Reply, Refusal> {
        match self {
            Self::Command(Op::Set(set)) => set.run(store, context, progress),
            Self::Command(op) => op.run(store, context),
            Self::PasswordChanged(change) => change.run_after(store, context),
            Self::AddMany(entries) => bulk::add_many(entries, store, context),
            Self::Backup { file: name } => upkeep::back_up(store, file, name, progress),
            Self::Check => upkeep::check(store, progress),
            Self::Compact => upkeep::compact(store, progress),
            Self::Health => statistics::health(store, context),
            Self::Key => key::show(store, context),
            Self::RotateKey { discard } => key::rotate(store, context, *discard),
            Self::Export { mailbox } => export::export(mailbox, store, file, progress),
            Self::Ids { mailbox } => export::ids(mailbox, store, file),
            Self::ExportAccounts { name } => export::accounts(name.as_deref(), store, file),
            Self::BeginImport { mailbox, makes } => moving::begin(mailbox, *makes, store, context),
            Self::EndImport { mailbox } => moving::end(mailbox, store),
            Self::Import(batch) => import::import(batch, store, context, file),
        }
    }
}

impl Op {
    /// Carries the command out. Takes milliseconds, or longer with much mail: not to be called on an executor.
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        match self {
            Self::Add(add) => add.run(store, context),
            Self::Delete(delete) => delete.run(store, context),
            Self::List(list) => list.run(store),
            Self::Lock(lock) => lock.run(store),
            Self::Unlock(unlock) => unlock.run(store),
            Self::Stat(stat) => stat.run(store, context),
            Self::ChangePwd(change) => change.run(store, context),
            Self::MigrateToAd(migrate) => migrate.run(store, context),
            Self::Undelete(undelete) => undelete.run(store, context),
            Self::Test(test) => test.run(store, context),
            Self::CreateQuotaFile(create) => create.run(store),
            Self::DeleteQuotaFile(delete) => delete.run(store),
            Self::Set(set) => set.run(store, context, &Progress::default()),
            Self::Get(get) => get.run(store, context),
        }
    }

    /// Whether a mail store may be made for this command where there is none: for a domain, or a setting.
    /// Refused where the command could not be carried out anyway.
    pub fn founds_store(&self) -> Result<bool, Refusal> {
        match self {
            Self::Add(add) => Ok(matches!(add.target()?, Target::Domain(_))),
            Self::Set(set) => set.is_stored().map(|_| true),
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests;
