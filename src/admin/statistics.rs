//! `list` and `stat`. The store keeps the counts up to date, so none of this takes longer with more mail.

use super::Context;
use super::commands::{List, Stat};
use super::configure::read_settings;
use super::directory::no_such_domain;
use super::reply::{
    AdoptionLine, CertificateLine, DomainLine, Lock, LockedBy, MailboxLine, QuotaLine, Refusal, Removed,
    Reply, Server, ServiceState,
};
use crate::address::{Address, Domain};
use crate::certificate;
use crate::settings::Method;
use crate::store::{DomainRow, Fault, Read, Store, mover_of, quota_of_mailbox};

impl List {
    pub fn run(&self, store: &Store) -> Result<Reply, Refusal> {
        let view = store.read().map_err(Refusal::fault)?;
        if self.all {
            if self.domain.is_some() {
                return Err(Refusal::usage(
                    "/all lists the mailboxes of all domains; leave out the domain or /all",
                ));
            }
            return Ok(Reply::AllMailboxes { mailboxes: all_mailboxes(&*view).map_err(Refusal::fault)? });
        }
        let Some(name) = &self.domain else {
            return Ok(Reply::Domains { domains: domains(&*view).map_err(Refusal::fault)? });
        };
        let (statistics, mailboxes) = one_domain(&*view, &name.parse()?)?;
        Ok(Reply::Mailboxes { domain: statistics.domain, mailboxes })
    }
}

impl Stat {
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        let view = store.read().map_err(Refusal::fault)?;
        if let Some(name) = &self.domain {
            let (statistics, mailboxes) = one_domain(&*view, &name.parse()?)?;
            return Ok(Reply::Domain { statistics, mailboxes });
        }
        let totals = view.totals().map_err(Refusal::fault)?;
        let disk = store.disk_usage().map_err(Refusal::fault)?;
        let kept = store.kept().map_err(Refusal::fault)?;
        let copies = store.copy_window();
        let statistics = Server {
            service: state(context),
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
            directory: context.service.and_then(|service| service.directory()),
            adoption: adoption(store).map_err(Refusal::fault)?,
            certificate: certificate(store, context, &*view).map_err(Refusal::fault)?,
        };
        Ok(Reply::Server {
            statistics: Box::new(statistics),
            domains: domains(&*view).map_err(Refusal::fault)?,
        })
    }
}

/// Shows that the service answers and can read its index.
pub fn health(store: &Store, context: &Context) -> Result<Reply, Refusal> {
    store.read().and_then(|view| view.totals()).map_err(Refusal::fault)?;
    Ok(Reply::Health { service: state(context) })
}

fn state(context: &Context) -> ServiceState {
    context.service.map(|service| service.state()).unwrap_or_default()
}

fn certificate(store: &Store, context: &Context, view: &impl Read) -> Result<Option<CertificateLine>, Fault> {
    let (settings, _) = read_settings(view)?;
    Ok(certificate::describe(store, &context.keyring.read(), &settings).map(|described| CertificateLine {
        names: described.names,
        fingerprint: described.fingerprint,
        self_signed: described.is_our_own,
    }))
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

fn one_domain(view: &impl Read, domain: &Domain) -> Result<(DomainLine, Vec<MailboxLine>), Refusal> {
    let row = view.domain(domain).map_err(Refusal::fault)?.ok_or_else(|| no_such_domain(domain))?;
    let line = domain_line(view, domain, &row).map_err(Refusal::fault)?;
    Ok((line, mailboxes(view, domain, row.locked).map_err(Refusal::fault)?))
}

fn all_mailboxes(view: &impl Read) -> Result<Vec<MailboxLine>, Fault> {
    let mut all = Vec::new();
    for (domain, row) in view.domains()? {
        all.extend(mailboxes(view, &domain, row.locked)?);
    }
    Ok(all)
}

fn mailboxes(view: &impl Read, domain: &Domain, domain_locked: bool) -> Result<Vec<MailboxLine>, Fault> {
    let lives_elsewhere = read_settings(view)?.0.authentication != Method::PasswordFile;
    let mut lines = Vec::new();
    for (local, row) in view.mailboxes(domain)? {
        let counts = view.counts(row.id)?;
        let lock = match (domain_locked, row.locked) {
            (true, _) => Some(LockedBy::Domain),
            (false, true) => Some(LockedBy::Mailbox),
            (false, false) => None,
        };
        let address = Address { local, domain: domain.clone() };
        lines.push(MailboxLine {
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
            has_password: lives_elsewhere || !row.credential.is_of_nobody(),
            is_whole: mover_of(view, row.id)?.is_none(),
        });
    }
    Ok(lines)
}
