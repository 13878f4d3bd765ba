//! Administration of a mail store, the same whether or not a service is running.
//!
//! An [`Op`] is a parsed `winpop` command; a [`Request`] is an `Op` or another task of the command-line tool.
//! [`Request::run`] carries it out on an open store: in the tool itself or, sent over the control socket, in the
//! service. The result is data, a [`Reply`] or a [`Refusal`], which the tool prints.
//!
//! Invariants:
//! - a refused command changes nothing;
//! - when a command returns, its changes are on disk;
//! - an `Op` from the socket is trusted no more than a typed one: `run` checks names, passwords and settings;
//! - no `Debug` output, reply or refusal contains a password.

mod accounts;
pub mod audit;
mod bulk;
mod configure;
mod directory;
mod export;
mod import;
mod key;
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
use std::sync::{Arc, MutexGuard};

use bincode::{Decode, Encode};

use crate::auth::directory::Directory;
use crate::auth::password::Fresh;
use crate::keyring::Keyring;
use crate::mailroot::MailRoot;
use crate::settings::Settings;
use crate::store::{Progress, Store, UnixTime};

/// What a command needs besides the store.
pub struct Context<'a> {
    pub mailroot: &'a MailRoot,
    pub now: UnixTime,
    /// Randomness for a password that the command may set.
    pub fresh: Fresh,
    /// The key that seals passwords. `key --rotate` replaces it.
    pub keyring: &'a Keyring,
    /// The running service, if the command is carried out there.
    pub service: Option<&'a dyn Service>,
}

impl<'a> Context<'a> {
    /// With the current time and fresh randomness.
    pub fn of_now(
        mailroot: &'a MailRoot,
        keyring: &'a Keyring,
        service: Option<&'a dyn Service>,
    ) -> Result<Self, Refusal> {
        let fresh = Fresh::draw().map_err(Refusal::fault)?;
        let now = UnixTime::now();
        Ok(Self { mailroot, now, fresh, keyring, service })
    }
}

/// A running service, as commands see it. The store itself ends the sessions of locked and deleted mailboxes.
pub trait Service {
    fn state(&self) -> reply::ServiceState;

    fn connections(&self) -> reply::Connections;

    /// The account directory, or `None` if the data file holds the accounts. An error is a sentence.
    fn accounts(&self) -> Result<Option<Arc<dyn Directory>>, String>;

    /// The state of the account directory, if there is one.
    fn directory(&self) -> Option<reply::DirectoryLine>;

    /// The right to change settings, held from reading them until they are stored: [`Service::apply`] replaces all of
    /// them, so two changes at once would undo each other. Waits for it: a change of authentication may take minutes.
    fn turn_to_change_settings(&self) -> MutexGuard<'_, ()>;

    /// Puts changed settings into effect before they are stored. An error is a sentence that says what prevents it,
    /// such as a port that is taken; nothing has changed then. If storing them fails afterwards, this is called again
    /// with the two swapped.
    fn apply(&self, before: &Settings, after: &Settings) -> Result<(), String>;
}

/// A task for the process that has the store open.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    Command(Op),
    /// List the mailboxes of a domain, or all, without asking anybody for their accounts.
    Mailboxes {
        domain: Option<String>,
    },
    /// Replace the stored password of a local account, whose password in the operating system was just changed.
    PasswordChanged(ChangePwd),
    /// Add domains and mailboxes.
    AddMany(Vec<Entry>),
    /// Copy the whole store into the file that comes with the request. The name is only for the reply.
    Backup {
        file: String,
    },
    /// Verify everything.
    Check,
    /// Give free space back.
    Compact,
    /// Show that the service answers.
    Health,
    /// Show the state of the key that seals passwords.
    Key,
    /// Make a new key and seal all passwords under it.
    RotateKey {
        /// Even if the key of some passwords is missing, which gives them up.
        discard: bool,
    },
    /// Write the messages of a mailbox into the file that comes with the request.
    Export {
        mailbox: String,
    },
    /// Write the id, size and hash of each message of a mailbox into the file that comes with the request.
    Ids {
        mailbox: String,
    },
    /// Write the accounts of a domain, of one mailbox, or all accounts into the file that comes with the request.
    ExportAccounts {
        name: Option<String>,
    },
    /// Close a mailbox to its user until the import ends.
    BeginImport {
        mailbox: String,
        /// Create the domain and the mailbox if they are missing.
        makes: bool,
    },
    EndImport {
        mailbox: String,
    },
    /// Store messages of another server. Their texts are in the file that comes with the request.
    Import(Batch),
}

impl Request {
    /// True if it goes through all mail or all mailboxes and reports its progress.
    pub fn is_long(&self) -> bool {
        match self {
            Self::Backup { .. } | Self::Check | Self::Compact => true,
            Self::Export { .. } | Self::Ids { .. } => true,
            Self::Command(Op::Set(set)) => set.is_of_authentication(),
            _ => false,
        }
    }

    /// Carries the request out, with the file that came with it. May block for minutes: do not call it on an executor.
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
            Self::Mailboxes { domain } => statistics::mailboxes_alone(domain.as_deref(), store),
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
    /// Carries the command out. May block for long: do not call it on an executor.
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        match self {
            Self::Add(add) => add.run(store, context),
            Self::Delete(delete) => delete.run(store, context),
            Self::List(list) => list.run(store, context),
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

    /// True if this command may create a missing mail store: it adds a domain or changes a setting. An error if the
    /// command would be refused anyway.
    pub fn founds_store(&self) -> Result<bool, Refusal> {
        match self {
            Self::Add(add) => Ok(matches!(add.target()?, Target::Domain(_))),
            Self::Set(set) => set.founds_store(),
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests;
