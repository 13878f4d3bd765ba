//! `list` and `stat`. The store keeps the counts up to date, so none of this takes longer with more mail.

use std::time::SystemTime;

use super::commands::{List, Stat};
use super::configure::{read_settings, settings_of};
use super::directory::no_such_domain;
use super::reply::{
    AdoptionLine, CertificateLine, DirectoryLine, DomainLine, Lock, LockedBy, MailboxAccount, MailboxLine,
    QuotaLine, Refusal, Removed, Reply, Server, ServiceState,
};
use super::{Context, accounts};
use crate::address::{Address, Domain};
use crate::certificate;
use crate::reachability::Reachability;
use crate::settings::Settings;
use crate::store::{DomainRow, Fault, Read, Store, mover_of, quota_of_mailbox};

impl List {
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        match (&self.domain, self.all) {
            (Some(_), true) => {
                Err(Refusal::usage("/all lists the mailboxes of all domains; leave out the domain or /all"))
            }
            (Some(name), false) => {
                let (statistics, mailboxes) = one_domain(store, &name.parse()?)?;
                let (mailboxes, accounts_error) = with_accounts(mailboxes, store, context);
                Ok(Reply::Mailboxes { domain: statistics.domain, mailboxes, accounts_error })
            }
            (None, true) => {
                let mailboxes = all_mailboxes(store).map_err(Refusal::fault)?;
                let (mailboxes, accounts_error) = with_accounts(mailboxes, store, context);
                Ok(Reply::AllMailboxes { mailboxes, accounts_error })
            }
            (None, false) => {
                let listed = store.read().and_then(|view| domains(&*view));
                Ok(Reply::Domains { domains: listed.map_err(Refusal::fault)? })
            }
        }
    }
}

impl Stat {
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        if let Some(name) = &self.domain {
            let (statistics, mailboxes) = one_domain(store, &name.parse()?)?;
            let (mailboxes, accounts_error) = with_accounts(mailboxes, store, context);
            return Ok(Reply::Domain { statistics, mailboxes, accounts_error });
        }
        let settings = settings_of(store)?;
        let directory = directory(store, context, &settings);
        let view = store.read().map_err(Refusal::fault)?;
        let totals = view.totals().map_err(Refusal::fault)?;
        let disk = store.disk_usage().map_err(Refusal::fault)?;
        let kept = store.kept().map_err(Refusal::fault)?;
        let copies = store.copy_window();
        let statistics = Server {
            service: state(context),
            authentication: settings.authentication.name().to_owned(),
            domains: totals.domains,
            mailboxes: totals.mailboxes,
            messages: totals.messages,
            octets: totals.octets,
            deleted: Removed { mailboxes: kept.mailboxes, messages: kept.messages, octets: kept.octets },
            file_octets: disk.file_octets,
            allocated_octets: disk.allocated_octets,
            copy_good_below_seconds: context.service.map(|_| copies.good_below.as_secs()),
            copy_kept_octets: copies.kept_octets,
            connections: context.service.map(|service| service.connections()),
            directory,
            adoption: adoption(store).map_err(Refusal::fault)?,
            certificate: certificate(store, context, &settings),
        };
        Ok(Reply::Server {
            statistics: Box::new(statistics),
            domains: domains(&*view).map_err(Refusal::fault)?,
        })
    }
}

/// The mailboxes of a domain, or all, for callers that do not need their accounts.
pub fn mailboxes_alone(domain: Option<&str>, store: &Store) -> Result<Reply, Refusal> {
    let listed = match domain {
        Some(name) => one_domain(store, &name.parse()?)?.1,
        None => all_mailboxes(store).map_err(Refusal::fault)?,
    };
    let mailboxes = listed.into_iter().map(|(_, line)| line).collect();
    Ok(Reply::AllMailboxes { mailboxes, accounts_error: None })
}

/// Shows that the service answers and can read its index.
pub fn health(store: &Store, context: &Context) -> Result<Reply, Refusal> {
    store.read().and_then(|view| view.totals()).map_err(Refusal::fault)?;
    Ok(Reply::Health { service: state(context) })
}

fn state(context: &Context) -> ServiceState {
    context.service.map(|service| service.state()).unwrap_or_default()
}

/// The state of the account directory, if one is in force. A service knows it; without one it is asked here, within its
/// deadline.
fn directory(store: &Store, context: &Context, settings: &Settings) -> Option<DirectoryLine> {
    if let Some(service) = context.service {
        return service.directory();
    }
    let reachability = match accounts::in_force(store, context) {
        Ok(None) => return None,
        Ok(Some(directory)) => {
            // An error is in what it then knows.
            let _ = directory.reach();
            directory.reachability()
        }
        Err(refusal) => {
            Reachability { last_error: Some((SystemTime::now(), refusal.message)), ..Reachability::default() }
        }
    };
    Some(DirectoryLine::new(settings.authentication, reachability))
}

fn certificate(store: &Store, context: &Context, settings: &Settings) -> Option<CertificateLine> {
    let described = certificate::describe(store, context.keyring, settings)?;
    Some(CertificateLine {
        names: described.names,
        fingerprint: described.fingerprint,
        self_signed: described.is_our_own,
    })
}

/// Goes through all mailboxes, but only if users are moving here.
fn adoption(store: &Store) -> Result<Option<AdoptionLine>, Fault> {
    let view = store.read()?;
    let moving = view.moving()?;
    let (settings, _) = read_settings(&*view)?;
    if settings.adopt.is_empty() && moving.is_empty() {
        return Ok(None);
    }
    let mut line = AdoptionLine::default();
    for (domain, _) in view.domains()? {
        for (_, mailbox) in view.mailboxes(&domain)? {
            let of = match (moving.contains_key(&mailbox.id), mailbox.credential.is_of_nobody()) {
                (true, _) => &mut line.incomplete,
                (false, true) => &mut line.not_moved,
                (false, false) => &mut line.moved,
            };
            *of += 1;
        }
    }
    Ok(Some(line))
}

fn domains(view: &impl Read) -> Result<Vec<DomainLine>, Fault> {
    view.domains()?.iter().map(|(domain, row)| domain_line(view, domain, row)).collect()
}

fn domain_line(view: &impl Read, domain: &Domain, row: &DomainRow) -> Result<DomainLine, Fault> {
    let counts = view.counts(row.id)?;
    Ok(DomainLine {
        domain: domain.to_string(),
        unicode: domain.unicode(),
        lock: Lock(row.locked.then_some(LockedBy::Domain)),
        mailboxes: counts.mailboxes,
        messages: counts.messages,
        octets: counts.octets,
    })
}

type Mailboxes = Vec<(Address, MailboxLine)>;

fn one_domain(store: &Store, domain: &Domain) -> Result<(DomainLine, Mailboxes), Refusal> {
    let view = store.read().map_err(Refusal::fault)?;
    let row = view.domain(domain).map_err(Refusal::fault)?.ok_or_else(|| no_such_domain(domain))?;
    let line = domain_line(&*view, domain, &row).map_err(Refusal::fault)?;
    Ok((line, mailboxes(&*view, domain, row.locked).map_err(Refusal::fault)?))
}

fn all_mailboxes(store: &Store) -> Result<Mailboxes, Fault> {
    let view = store.read()?;
    let mut all = Vec::new();
    for (domain, row) in view.domains()? {
        all.extend(mailboxes(&*view, &domain, row.locked)?);
    }
    Ok(all)
}

fn mailboxes(view: &impl Read, domain: &Domain, domain_locked: bool) -> Result<Mailboxes, Fault> {
    let mut lines = Vec::new();
    for (local, row) in view.mailboxes(domain)? {
        let counts = view.counts(row.id)?;
        let lock = match (domain_locked, row.locked) {
            (true, _) => Some(LockedBy::Domain),
            (false, true) => Some(LockedBy::Mailbox),
            (false, false) => None,
        };
        let address = Address { local, domain: domain.clone() };
        let line = MailboxLine {
            mailbox: address.to_string(),
            unicode: address.unicode(),
            lock: Lock(lock),
            messages: counts.messages,
            octets: counts.octets,
            last_login_unix_seconds: row.last_login.map(|time| time.0),
            quota: quota_of_mailbox(view, &row)?.map(|quota| QuotaLine {
                account: quota.account,
                used_octets: quota.used,
                limit_octets: quota.limit,
            }),
            has_password: !row.credential.is_of_nobody(),
            is_whole: mover_of(view, row.id)?.is_none(),
            account: MailboxAccount::Unknown,
        };
        lines.push((address, line));
    }
    Ok(lines)
}

/// The lines with the accounts of their mailboxes; or why those could not be found out.
fn with_accounts(
    mailboxes: Mailboxes,
    store: &Store,
    context: &Context,
) -> (Vec<MailboxLine>, Option<String>) {
    let (addresses, mut lines): (Vec<Address>, Vec<MailboxLine>) = mailboxes.into_iter().unzip();
    match accounts::shown(&addresses, store, context) {
        Ok(accounts) => {
            lines.iter_mut().zip(accounts).for_each(|(line, account)| line.account = account);
            (lines, None)
        }
        Err(why) => (lines, Some(why)),
    }
}
