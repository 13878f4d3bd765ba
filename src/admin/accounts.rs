//! Accounts that live in a directory: created, changed and deleted together with their mailboxes, and migrated there.
//!
//! The directory goes first: until it agrees, nothing changes here. If an account is created and its mailbox is then
//! refused, the account is deleted again.
//!
//! Changing a local account needs root, which the service is not. It refuses here whatever can be refused, and leaves
//! the rest to the administrator's own process ([`Reply::Yours`]).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bincode::{Decode, Encode};
use serde::Serialize;

use super::commands::MigrateToAd;
use super::configure::settings_of;
use super::directory::{add_first, changed};
use super::reply::{Changed, Code, Refusal, Reply};
use super::{Context, ownership};
use crate::address::{Address, LocalPart};
use crate::auth::directory::{Change, Creation, Directory, Place, Removal, Unavailable, Verdict};
use crate::auth::password::Credential;
use crate::directory;
use crate::local_accounts;
use crate::reachability::Reachability;
use crate::settings::{Method, Settings};
use crate::store::{Fault, Progress, Read, Refused, Stage, Store};

/// How many mailboxes a refusal names.
const NAMED_MAX: usize = 20;
/// How many mailboxes a list may have for their accounts to be shown.
const SHOWN_MAX: usize = 1000;
/// How long a list waits for a directory on the network; after that it comes without accounts.
const SHOWN_WITHIN: Duration = Duration::from_secs(3);
/// How many mailboxes are looked up between two reports of progress.
const LOOKED_UP_AT_A_TIME: usize = 200;
/// How long a directory on the network may take for these.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(10);

/// The account directory: as the running service sees it, or as it just answered this command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct DirectoryLine {
    pub method: String,
    /// When it last answered, and which server did; `None` if it has not yet.
    pub last_contact_unix_seconds: Option<u64>,
    pub last_contact: Option<String>,
    /// When a query last failed, and why; `None` if none has.
    pub last_error_unix_seconds: Option<u64>,
    pub last_error: Option<String>,
}

impl DirectoryLine {
    pub fn new(method: Method, reachability: Reachability) -> Self {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (last_contact_at, last_contact) = reachability.last_contact.unzip();
        let (last_error_at, last_error) = reachability.last_error.unzip();
        Self {
            method: method.name().to_owned(),
            last_contact_unix_seconds: last_contact_at.map(seconds),
            last_contact,
            last_error_unix_seconds: last_error_at.map(seconds),
            last_error,
        }
    }
}

/// The account of a mailbox. Serialised as two fields: `account_state`, and `account`, its name in the directory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MailboxAccount {
    /// Part of the mailbox: the data file holds the accounts.
    Here,
    /// In the directory, under this name.
    Found(String),
    /// The directory has none for this mailbox.
    None,
    /// The directory was not asked or did not answer.
    Unknown,
}

impl MailboxAccount {
    fn state(&self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Found(_) => "found",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }

    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Found(name) => Some(name),
            Self::Here | Self::None | Self::Unknown => None,
        }
    }
}

impl Serialize for MailboxAccount {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut account = serializer.serialize_struct("MailboxAccount", 2)?;
        account.serialize_field("account_state", self.state())?;
        account.serialize_field("account", &self.name())?;
        account.end()
    }
}

/// The directory in force. `None` if the data file holds the accounts.
pub fn in_force(store: &Store, context: &Context) -> Result<Option<Arc<dyn Directory>>, Refusal> {
    // The service's directory has open connections, and its state is the one that `stat` shows.
    if let Some(service) = context.service {
        return service.accounts().map_err(unusable);
    }
    directory::in_force(&settings_of(store)?, context.keyring).map_err(unusable)
}

fn unusable(why: String) -> Refusal {
    Refusal::new(Code::Fault, format!("the account directory is unavailable: {why}"))
        .with_hint("To see the settings: winpop get")
}

pub fn unavailable(unavailable: Unavailable) -> Refusal {
    Refusal::new(Code::Fault, unavailable.to_string()).with_hint("Nothing was changed here; try again later")
}

/// Adds a mailbox whose account is in the directory. With a password, creates the account too.
pub fn add_mailbox(
    address: Address,
    password: Option<&str>,
    directory: &dyn Directory,
    store: &Store,
    context: &Context,
) -> Result<Reply, Refusal> {
    let place = directory.place();
    {
        let view = store.read().map_err(Refusal::fault)?;
        if view.domain(&address.domain).map_err(Refusal::fault)?.is_none() {
            return Err(add_first(&address.domain));
        }
        if view.mailbox(&address).map_err(Refusal::fault)?.is_some() {
            return Err(Refusal::from(Refused::MailboxExists(address.clone())));
        }
        if place == Place::ThisMachine {
            refuse_namesakes(directory::namesakes(&*view, &address.local).map_err(Refusal::fault)?)?;
            local_accounts::has_length_of_name(&address.local)
                .map_err(|why| Refusal::new(Code::Value, why))?;
        }
    }
    let account = match password {
        Some(_) if place == Place::ThisMachine => {
            return match directory.account_of(&address).map_err(unavailable)? {
                Some(name) => Err(account_exists(&address, &name, place)),
                None => Ok(Reply::Yours { command: format!("add {address}") }),
            };
        }
        Some(password) => Some(create_account(&address, password, directory)?),
        None => match directory.account_of(&address).map_err(unavailable)? {
            Some(_) => None,
            None => {
                let missing = format!("{address} has no account {}", place.words());
                return Err(match directory.bars(&address).map_err(unavailable)? {
                    Some(why) => Refusal::new(Code::Value, format!("{missing}: {why}")),
                    None => Refusal::new(Code::NotFound, missing)
                        .with_hint(format!("To create it too: winpop add {address} /createuser PASSWORD")),
                });
            }
        },
    };
    let mut notes = Vec::new();
    if let Some(name) = account.as_ref().filter(|name| **name != address.local.as_str()) {
        notes.push(format!(
            "the account name {} is taken or not allowed, so the account is called {name}; the mailbox keeps its own name",
            address.local
        ));
    }
    let (added, credential, now) = (address.clone(), Credential::of_nobody(context.fresh), context.now);
    let outcome = changed(store, move |tx| {
        // Another administrator may have been faster.
        let taken = match place {
            Place::ThisMachine => directory::namesakes(tx, &added.local)?,
            Place::Network => Vec::new(),
        };
        if taken.iter().any(|other| *other != added) {
            return Ok(Ok(taken));
        }
        match tx.add_mailbox(&added, credential.clone(), now)? {
            // As in the original, every such mailbox gets a quota.
            Ok(()) => Ok(tx.set_quota(&added, &added, None)?.map(|_| Vec::new())),
            Err(why) => Ok(Err(why)),
        }
    });
    if let Err(refusal) = outcome.and_then(refuse_namesakes) {
        return Err(match account {
            Some(name) => undone(refusal, &address, &name, directory),
            None => refusal,
        });
    }
    Ok(Changed { notes, ..Changed::new("add", &address, format!("Mailbox {address} added")) }.into())
}

/// A local account belongs to one mailbox.
fn refuse_namesakes(found: Vec<Address>) -> Result<(), Refusal> {
    let Some(other) = found.first() else { return Ok(()) };
    Err(Refusal::new(
        Code::AccountTaken,
        format!("{other} exists; with local accounts, mailbox names must be unique across all domains"),
    ))
}

fn account_exists(address: &Address, name: &str, place: Place) -> Refusal {
    Refusal::new(Code::AccountTaken, format!("{address} already has an account {}, {name}", place.words()))
        .with_hint(format!("To use it: winpop add {address}"))
}

/// Deletes the account that was created for a mailbox that is then refused.
pub fn undone(refusal: Refusal, address: &Address, name: &str, directory: &dyn Directory) -> Refusal {
    match directory.remove(address) {
        Ok(Removal::Removed { .. } | Removal::NoSuchAccount) => refusal,
        Ok(Removal::Refused(why)) | Err(Unavailable(why)) => Refusal {
            message: format!(
                "{}; its account {name} was created and could not be deleted again: {why}",
                refusal.message
            ),
            ..refusal
        },
    }
}

/// The account of each mailbox in a list. An error is a sentence.
pub fn shown(addresses: &[Address], store: &Store, context: &Context) -> Result<Vec<MailboxAccount>, String> {
    let Some(directory) = in_force(store, context).map_err(|refusal| refusal.message)? else {
        return Ok(vec![MailboxAccount::Here; addresses.len()]);
    };
    if addresses.len() > SHOWN_MAX {
        return Err(format!("they are looked up only for {SHOWN_MAX} mailboxes or fewer"));
    }
    let shared = match directory.place() {
        Place::ThisMachine => store
            .read()
            .and_then(|view| shared_among(&*view, addresses))
            .map_err(|fault| fault.to_string())?,
        Place::Network => HashSet::new(),
    };
    let names = names(addresses, &*directory, &shared, SHOWN_WITHIN).map_err(|why| why.to_string())?;
    let account = |name: Option<String>| name.map_or(MailboxAccount::None, MailboxAccount::Found);
    Ok(names.into_iter().map(account).collect())
}

/// The account of each mailbox. A local account belongs to one mailbox, so mailboxes that share a name have none.
fn names(
    addresses: &[Address],
    directory: &dyn Directory,
    shared: &HashSet<LocalPart>,
    within: Duration,
) -> Result<Vec<Option<String>>, Unavailable> {
    let mut names = directory.accounts_of(addresses, within)?;
    for (name, address) in names.iter_mut().zip(addresses) {
        name.take_if(|_| shared.contains(&address.local));
    }
    Ok(names)
}

/// Names of these mailboxes that exist in several domains.
fn shared_among(view: &impl Read, addresses: &[Address]) -> Result<HashSet<LocalPart>, Fault> {
    let lookups = addresses.len() as u64 * view.totals()?.domains;
    if lookups > view.totals()?.mailboxes {
        return shared_names(view);
    }
    let mut shared = HashSet::new();
    for Address { local, .. } in addresses {
        if directory::namesakes(view, local)?.len() > 1 {
            shared.insert(local.clone());
        }
    }
    Ok(shared)
}

/// Names of mailboxes that exist in several domains.
fn shared_names(view: &impl Read) -> Result<HashSet<LocalPart>, Fault> {
    let (mut seen, mut shared) = (HashSet::new(), HashSet::new());
    for (domain, _) in view.domains()? {
        for (local, _) in view.mailboxes(&domain)? {
            if !seen.insert(local.clone()) {
                shared.insert(local);
            }
        }
    }
    Ok(shared)
}

/// Creates a mailbox's account and returns its name.
pub fn create_account(
    address: &Address,
    password: &str,
    directory: &dyn Directory,
) -> Result<String, Refusal> {
    match directory.create(address, password).map_err(unavailable)? {
        Creation::Created { name } => Ok(name),
        Creation::Exists { name } => Err(account_exists(address, &name, directory.place())),
        Creation::Refused(why) => {
            Err(Refusal::new(Code::Value, format!("the account was not created: {why}")))
        }
    }
}

/// Deletes the account of a mailbox that is about to be deleted. Returns a note about it.
pub fn delete(address: &Address, directory: &dyn Directory) -> Result<String, Refusal> {
    match directory.remove(address).map_err(unavailable)? {
        Removal::Removed { name } => Ok(format!("its account {name} was deleted from the directory")),
        Removal::NoSuchAccount => Ok("it had no account in the directory".to_owned()),
        Removal::Refused(why) => {
            Err(Refusal::new(Code::Value, format!("the account was not deleted: {why}"))
                .with_hint("Nothing was changed. Without /deleteuser the mailbox alone is deleted"))
        }
    }
}

/// Sets the password of a mailbox's account.
pub fn change_password(address: &Address, password: &str, directory: &dyn Directory) -> Result<(), Refusal> {
    match directory.change_password(address, password).map_err(unavailable)? {
        Change::Changed => Ok(()),
        Change::NoSuchAccount => {
            let place = directory.place().words();
            Err(Refusal::new(Code::NotFound, format!("{address} has no account {place}")))
        }
        Change::Refused(why) => {
            Err(Refusal::new(Code::Value, format!("the password was not changed: {why}")))
        }
    }
}

/// If the data file holds a password too, replaces it: the old one must not work again if the password file comes back
/// into force.
pub fn renew(address: &Address, renewed: impl FnOnce() -> Credential, store: &Store) -> Result<(), Refusal> {
    if stored(address, store)?.is_of_nobody() {
        return Ok(());
    }
    let (address, credential) = (address.clone(), renewed());
    changed(store, move |tx| tx.set_credential(&address, credential.clone()))
}

/// Refuses if there is no such mailbox.
pub fn is_there(address: &Address, store: &Store) -> Result<(), Refusal> {
    stored(address, store).map(drop)
}

/// The credential in the data file.
fn stored(address: &Address, store: &Store) -> Result<Credential, Refusal> {
    let row = store.read().and_then(|view| view.mailbox(address)).map_err(Refusal::fault)?;
    row.map(|row| row.credential).ok_or_else(|| Refusal::from(Refused::NoSuchMailbox(address.clone())))
}

impl MigrateToAd {
    /// Creates one mailbox's account in Active Directory, with its password. For a whole domain, the administrator's
    /// process sends one such command per mailbox.
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        let address: Address = self.name.parse()?;
        let settings = settings_of(store)?;
        if settings.authentication != Method::PasswordFile {
            return Err(Refusal::new(
                Code::NotAvailable,
                format!(
                    "authentication is by {}, so there is nothing to migrate",
                    settings.authentication.name()
                ),
            ));
        }
        let stored = stored(&address, store)?;
        let directory = directory::active_directory(&settings, context.keyring).map_err(unusable)?;
        let Some(password) = context.keyring.recover(&stored, &address) else {
            return Err(Refusal::new(
                Code::NotFound,
                format!("the password of {address} cannot be recovered"),
            )
            .with_hint(format!(
                "It is sealed again when its user next logs in with it, or set a new one: winpop changepwd {address} -"
            )));
        };
        let created = directory.create(&address, &password).map_err(unavailable)?;
        let (message, notes) = match created {
            Creation::Created { name } => {
                let notes = (name != address.local.as_str())
                    .then(|| format!("its account is called {name} there; the mailbox keeps its own name"));
                (format!("{address} has its account in Active Directory now"), notes)
            }
            Creation::Exists { name } => match directory.verify(&address.to_string(), &password) {
                Ok(Verdict::Right(_)) => (
                    format!("{address} already has its account in Active Directory, with this password"),
                    None,
                ),
                Ok(Verdict::Wrong) => {
                    return Err(Refusal::new(
                        Code::Exists,
                        format!("{address} already has an account in Active Directory, {name}, with another password"),
                    )
                    .with_hint("It was left as it is; its user logs in with the password it has there"));
                }
                Ok(Verdict::Barred { why, .. }) => {
                    let message = format!("the account of {address} in Active Directory, {name}, {why}");
                    return Err(Refusal::new(Code::Exists, message).with_hint("It was left as it is"));
                }
                Err(trouble) => return Err(unavailable(trouble)),
            },
            Creation::Refused(why) => {
                return Err(Refusal::new(
                    Code::Value,
                    format!("the account of {address} was not created: {why}"),
                ));
            }
        };
        Ok(Changed { notes: notes.into_iter().collect(), ..Changed::new("migratetoad", &address, message) }
            .into())
    }
}

/// Checks that winbind's helpers answer, if `adntlm` names their socket.
pub fn check_ntlm(after: &Settings, context: &Context) -> Result<(), Refusal> {
    if after.adntlm.get().is_none() {
        return Ok(());
    }
    let directory = directory::active_directory(after, context.keyring).map_err(unusable)?;
    directory.try_ntlm().map_err(|Unavailable(why)| {
        Refusal::new(Code::Value, format!("NTLM cannot be checked: {why}"))
            .with_hint("It needs a machine that is joined to the domain, and ntlm_auth behind this socket")
    })
}

/// Refuses to change the method if mailboxes could not log in afterwards, unless forced.
pub fn refuse_to_leave_out(
    after: &Settings,
    is_forced: bool,
    store: &Store,
    context: &Context,
    progress: &Progress,
) -> Result<(), Refusal> {
    let directory = directory::in_force(after, context.keyring).map_err(unusable)?;
    if is_forced {
        return Ok(());
    }
    if let Some(directory) = &directory {
        directory.reach().map_err(unavailable)?;
    }
    let left_out = left_out(directory.as_deref(), store, progress)?;
    if left_out.is_empty() {
        return Ok(());
    }
    let more = left_out.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let named: Vec<String> = left_out.iter().take(NAMED_MAX).map(Address::to_string).collect();
    let hint = match after.authentication {
        Method::ActiveDirectory => {
            "Create their accounts: winpop migrateToAD DOMAIN; or leave them out with /force"
        }
        Method::LocalAccounts => {
            "Each needs an account of its name (useradd, chpasswd), and no mailbox of another domain may have the same name; or \
             leave them out with /force"
        }
        Method::PasswordFile => {
            "Give them a password: winpop changepwd USER@DOMAIN -, after the change with /force"
        }
    };
    Err(Refusal::new(
        Code::NotFound,
        format!("{} could no longer log in: {}{more}", mailboxes(left_out.len()), named.join(", ")),
    )
    .with_hint(hint))
}

/// The mailboxes without an account in the directory, or, for the password file, without a password.
fn left_out(
    directory: Option<&dyn Directory>,
    store: &Store,
    progress: &Progress,
) -> Result<Vec<Address>, Refusal> {
    let (mut of_nobody, mut all) = (Vec::new(), Vec::new());
    let mut shared = HashSet::new();
    {
        let view = store.read().map_err(Refusal::fault)?;
        if directory.is_some_and(|directory| directory.place() == Place::ThisMachine) {
            shared = shared_names(&*view).map_err(Refusal::fault)?;
        }
        for (domain, _) in view.domains().map_err(Refusal::fault)? {
            for (local, row) in view.mailboxes(&domain).map_err(Refusal::fault)? {
                let address = Address { local, domain: domain.clone() };
                if row.credential.is_of_nobody() {
                    of_nobody.push(address.clone());
                }
                all.push(address);
            }
        }
    }
    let Some(directory) = directory else { return Ok(of_nobody) };
    progress.begin(Stage::LookingForAccounts, all.len() as u64);
    let mut left_out = Vec::new();
    for addresses in all.chunks(LOOKED_UP_AT_A_TIME) {
        let accounts = names(addresses, directory, &shared, LOOKED_UP_WITHIN).map_err(unavailable)?;
        let without = addresses.iter().zip(accounts).filter(|(_, account)| account.is_none());
        left_out.extend(without.map(|(address, _)| address.clone()));
        progress.add(addresses.len() as u64);
    }
    Ok(left_out)
}

/// A note on the rights that the service needs to check local passwords, if no service is here to say so itself.
pub fn note_of_rights(after: &Settings, context: &Context) -> Option<String> {
    if after.authentication != Method::LocalAccounts || context.service.is_some() {
        return None;
    }
    let user = ownership::owner(&context.mailroot.dir).filter(|user| user.uid != 0)?;
    Some(format!(
        "the service runs as the user {user}, which must be able to read /etc/shadow: set SupplementaryGroups=shadow in its \
         unit, or run usermod -aG shadow {}",
        user.typed()
    ))
}

fn mailboxes(count: usize) -> String {
    format!("{count} {}", if count == 1 { "mailbox" } else { "mailboxes" })
}

#[cfg(test)]
mod tests;
