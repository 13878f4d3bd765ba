//! Domains, mailboxes, their locks and passwords.

use std::str::FromStr;

use super::commands::{Add, ChangePwd, Delete, Lock, Unlock};
use super::configure::settings_of;
use super::reply::{Changed, Code, Refusal, Removed, Reply};
use super::{Context, accounts};
use crate::address::{Address, Domain, Malformed};
use crate::auth::directory::Place;
use crate::auth::password::Credential;
use crate::keyring::Sealing;
use crate::store::{Fault, LockChange, Read, Refused, Store, Tx, UnixTime};
use crate::units::Octets;

/// A domain or a mailbox, which most commands act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Domain(Domain),
    Mailbox(Address),
}

impl FromStr for Target {
    type Err = Malformed;

    fn from_str(typed: &str) -> Result<Self, Malformed> {
        if typed.contains('@') { typed.parse().map(Self::Mailbox) } else { typed.parse().map(Self::Domain) }
    }
}

impl Add {
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        let address = match self.target()? {
            Target::Domain(domain) => return add_domain(domain, store, context.now),
            Target::Mailbox(address) => address,
        };
        let password = self.createuser.as_ref().map(|password| password.password()).transpose()?;
        if let Some(directory) = accounts::in_force(store, context)? {
            return accounts::add_mailbox(address, password, &*directory, store, context);
        }
        let Some(password) = password else {
            return Err(Refusal::new(
                Code::NotFound,
                format!("{address} has no account yet; with the password file, a mailbox is created together with its account"),
            )
            .with_hint(format!("Create both: winpop add {address} /createuser PASSWORD")));
        };
        let sealing = context.keyring.sealing();
        let (credential, notes) = credential(password, &address, context, &sealing);
        add_mailbox(address, credential, notes, store, context.now)
    }

    /// The domain or mailbox to add, if it is a single one.
    pub fn target(&self) -> Result<Target, Refusal> {
        match (&self.name, &self.file, &self.passwords) {
            (Some(name), None, None) => match name.parse()? {
                Target::Domain(_) if self.createuser.is_some() => {
                    Err(Refusal::usage("a domain has no account; /createuser is for mailboxes"))
                }
                target => Ok(target),
            },
            (Some(_), ..) => Err(Refusal::new(Code::Usage, "/file and /passwords are for lists")),
            (None, None, _) => {
                Err(Refusal::new(Code::Usage, "DOMAIN|USER@DOMAIN is missing").with_hint("For help: add /?"))
            }
            (None, Some(_), _) => Err(Refusal::new(Code::Usage, "a list is read where winpop runs")),
        }
    }
}

fn add_domain(domain: Domain, store: &Store, now: UnixTime) -> Result<Reply, Refusal> {
    let added = domain.clone();
    changed(store, move |tx| tx.add_domain(&added, now))?;
    let mut notes = vec![postmaster_note(&domain, store)?];
    if domain.is_single_label() {
        notes.push(format!(
            "{domain} is a single label; mail from elsewhere needs a fully qualified domain name"
        ));
    }
    Ok(Changed { notes, ..Changed::new("add", &domain, format!("Domain {domain} added")) }.into())
}

/// Says who gets a new domain's mail for postmaster (RFC 5321 section 4.5.1).
fn postmaster_note(domain: &Domain, store: &Store) -> Result<String, Refusal> {
    let setting = settings_of(store)?.postmaster;
    let exists = |address: &Address| {
        store.read().and_then(|directory| Ok(directory.mailbox(address)?.is_some())).map_err(Refusal::fault)
    };
    let where_to = match setting.get() {
        Some(address) if exists(address)? => format!("goes to {address}, as the setting postmaster says"),
        Some(address) => format!(
            "goes to its first mailbox, because the mailbox of the setting postmaster, {address}, does not exist"
        ),
        None => "goes to its first mailbox; to choose another: winpop set postmaster ADDRESS".to_owned(),
    };
    Ok(format!("mail for postmaster@{domain} {where_to}"))
}

fn add_mailbox(
    address: Address,
    credential: Credential,
    notes: Vec<String>,
    store: &Store,
    now: UnixTime,
) -> Result<Reply, Refusal> {
    let new = address.clone();
    let added = store.write(move |tx| tx.add_mailbox(&new, credential.clone(), now)).wait();
    added.map_err(Refusal::fault)?.map_err(|why| match why {
        Refused::NoSuchDomain(domain) => add_first(&domain),
        why => why.into(),
    })?;
    Ok(Changed { notes, ..Changed::new("add", &address, format!("Mailbox {address} added")) }.into())
}

impl Delete {
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        let now = context.now;
        match self.name.parse()? {
            Target::Domain(_) if self.deleteuser => {
                Err(Refusal::new(Code::Usage, "a domain has no account; /deleteuser is for mailboxes"))
            }
            Target::Domain(domain) => {
                let removed = store.remove_domain(&domain, now).map_err(Refusal::fault)??;
                purge_unkept(store);
                let message = format!(
                    "Domain {domain} deleted with {} and {} ({})",
                    count(removed.mailboxes, "mailbox", "mailboxes"),
                    count(removed.messages, "message", "messages"),
                    Octets(removed.octets)
                );
                Ok(Changed { removed: Some(removed.into()), ..Changed::new("delete", &domain, message) }
                    .into())
            }
            Target::Mailbox(address) => {
                // Under the password file, the account is part of the mailbox.
                let directory = if self.deleteuser { accounts::in_force(store, context)? } else { None };
                let account = match directory {
                    None => None,
                    Some(directory) => {
                        accounts::is_there(&address, store)?;
                        if directory.place() == Place::ThisMachine {
                            return Ok(Reply::Yours { command: format!("delete {address}") });
                        }
                        Some(accounts::delete(&address, &*directory)?)
                    }
                };
                let deleted = address.clone();
                let removed =
                    changed(store, move |tx| tx.remove_mailbox(&deleted, now)).map_err(|refusal| {
                        match &account {
                            None => refusal,
                            Some(account) => {
                                Refusal { message: format!("{}; {account}", refusal.message), ..refusal }
                            }
                        }
                    })?;
                purge_unkept(store);
                let message = format!(
                    "Mailbox {address} deleted with {} ({})",
                    count(removed.messages, "message", "messages"),
                    Octets(removed.octets)
                );
                let notes = account.into_iter().collect();
                Ok(Changed {
                    removed: Some(removed.into()),
                    notes,
                    ..Changed::new("delete", &address, message)
                }
                .into())
            }
        }
    }
}

impl Lock {
    pub fn run(&self, store: &Store) -> Result<Reply, Refusal> {
        let target: Target = self.name.parse()?;
        let locked = target.clone();
        let change = changed(store, move |tx| match &locked {
            Target::Domain(domain) => tx.lock_domain(domain),
            Target::Mailbox(address) => tx.lock_mailbox(address),
        })?;
        Ok(match change {
            LockChange::Changed => target.changed("lock", "locked"),
            LockChange::AlreadySo => target.changed("lock", "is already locked"),
        })
    }
}

impl Unlock {
    pub fn run(&self, store: &Store) -> Result<Reply, Refusal> {
        let target: Target = self.name.parse()?;
        let unlocked = target.clone();
        let change = changed(store, move |tx| match &unlocked {
            Target::Domain(domain) => tx.unlock_domain(domain),
            Target::Mailbox(address) => {
                let change = tx.unlock_mailbox(address)?;
                // This also opens a mailbox whose import was cut short.
                let was_moving = change.is_ok() && tx.end_move(address)?;
                Ok(change.map(|change| if was_moving { LockChange::Changed } else { change }))
            }
        })?;
        Ok(match change {
            LockChange::Changed => target.changed("unlock", "unlocked"),
            LockChange::AlreadySo => target.changed("unlock", "is not locked"),
        })
    }
}

impl ChangePwd {
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        let address: Address = self.name.parse()?;
        let Some(password) = &self.password else {
            return Err(Refusal::new(Code::Usage, "NEWPASSWORD is missing"));
        };
        let message = format!("Password of {address} changed");
        if let Some(directory) = accounts::in_force(store, context)? {
            let password = password.password()?;
            accounts::is_there(&address, store)?;
            if directory.place() == Place::ThisMachine {
                return Ok(Reply::Yours { command: format!("changepwd {address}") });
            }
            accounts::change_password(&address, password, &*directory)?;
            let sealing = context.keyring.sealing();
            accounts::renew(&address, || credential(password, &address, context, &sealing).0, store)?;
            return Ok(Changed::new("changepwd", &address, message).into());
        }
        let sealing = context.keyring.sealing();
        let (credential, notes) = credential(password.password()?, &address, context, &sealing);
        let changed_one = address.clone();
        changed(store, move |tx| tx.set_credential(&changed_one, credential.clone()))?;
        Ok(Changed { notes, ..Changed::new("changepwd", &address, message) }.into())
    }
}

impl ChangePwd {
    /// Finishes after the local account has got the new password.
    pub fn run_after(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        let address: Address = self.name.parse()?;
        if let Some(password) = &self.password {
            let password = password.password()?;
            let sealing = context.keyring.sealing();
            accounts::renew(&address, || credential(password, &address, context, &sealing).0, store)?;
        }
        Ok(Changed::new("changepwd", &address, format!("Password of {address} changed")).into())
    }
}

/// The credential for a new password, and notes about it.
fn credential(
    password: &str,
    address: &Address,
    context: &Context,
    sealing: &Sealing,
) -> (Credential, Vec<String>) {
    let credential = Credential::new(password, address, context.fresh, sealing.key().ok());
    let notes = sealing
        .key()
        .err()
        .map(|trouble| format!("{trouble}, so APOP, CRAM-MD5 and NTLM will not work for this mailbox"));
    (credential, notes.into_iter().collect())
}

/// Changes the store and waits until the change is durable.
pub fn changed<T: Send + 'static>(
    store: &Store,
    work: impl FnMut(&mut Tx<'_, '_>) -> Result<Result<T, Refused>, Fault> + Send + 'static,
) -> Result<T, Refusal> {
    Ok(store.write(work).wait().map_err(Refusal::fault)??)
}

/// The deletion is already final for everyone; if this fails, a service completes it.
fn purge_unkept(store: &Store) {
    if let Err(fault) = store.purge_unkept() {
        log::warn!("deleted mail could not be removed for good yet: {fault}");
    }
}

impl Target {
    fn changed(&self, action: &str, done: &str) -> Reply {
        match self {
            Self::Domain(domain) => Changed::new(action, domain, format!("Domain {domain} {done}")).into(),
            Self::Mailbox(address) => {
                Changed::new(action, address, format!("Mailbox {address} {done}")).into()
            }
        }
    }
}

/// There is no such domain.
pub fn no_such_domain(domain: &Domain) -> Refusal {
    Refusal::new(Code::NotFound, format!("there is no domain {domain}"))
        .with_hint("To see the domains: winpop list")
}

/// There is no such domain for a new mailbox.
pub fn add_first(domain: &Domain) -> Refusal {
    no_such_domain(domain).with_hint(format!("Add it first: winpop add {domain}"))
}

fn nothing_deleted(of: &impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::NotFound, format!("there is nothing to restore for {of}"))
        .with_hint("How long deleted mail can be restored: winpop get undelete")
}

impl From<Refused> for Refusal {
    fn from(why: Refused) -> Self {
        match why {
            Refused::DomainExists(domain) => {
                Self::new(Code::Exists, format!("the domain {domain} already exists"))
            }
            Refused::NoSuchDomain(domain) => no_such_domain(&domain),
            Refused::MailboxExists(address) => {
                Self::new(Code::Exists, format!("the mailbox {address} already exists"))
            }
            Refused::NoSuchMailbox(address) => {
                Self::new(Code::NotFound, format!("there is no mailbox {address}"))
                    .with_hint(format!("To see the mailboxes: winpop list {}", address.domain))
            }
            Refused::DomainLocked(address) => {
                Self::new(Code::Locked, format!("{address} is locked with its whole domain"))
                    .with_hint(format!("To unlock the domain: winpop unlock {}", address.domain))
            }
            Refused::NoSuchAccount(account) => {
                Self::new(Code::NotFound, format!("there is no account {account}"))
                    .with_hint(format!("To see the accounts: winpop list {}", account.domain))
            }
            Refused::NoQuota(address) => {
                Self::new(Code::NotFound, format!("{address} counts against no quota"))
            }
            Refused::InUse(address) => Self::new(Code::Busy, format!("a client is reading {address}"))
                .with_hint("Try again when its session has ended, or lock the mailbox first, which ends it"),
            Refused::NothingDeleted(address) => nothing_deleted(&address),
            Refused::DomainNotDeleted(domain) => nothing_deleted(&domain),
            Refused::MailboxReplaced(address) => Self::new(
                Code::Exists,
                format!("{address} was deleted, and there is a new mailbox of that name"),
            )
            .with_hint(format!("To bring the old mail into it as new mail: winpop undelete {address} /new")),
            Refused::NotAsNew(address) => Self::new(
                Code::Usage,
                format!("{address} is restored as a whole, and its messages keep their ids"),
            )
            .with_hint(format!("Leave out /new: winpop undelete {address}")),
        }
    }
}

pub fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

impl From<crate::store::Removed> for Removed {
    fn from(removed: crate::store::Removed) -> Self {
        let crate::store::Removed { mailboxes, messages, octets } = removed;
        Self { mailboxes, messages, octets }
    }
}
