//! A plain model of the store, and the operations that can be run on both.

use std::collections::BTreeMap;

use super::*;

/// Everything the store is supposed to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub domains: BTreeMap<String, ModelDomain>,
    /// Number of identities given to mailboxes and domains so far.
    pub identities: u64,
    /// Deleted mailboxes that can come back, oldest first.
    pub removed: Vec<ModelRemoved>,
    /// Deleted domains, oldest first: when, name, identity, whether it was locked.
    pub removed_domains: Vec<(UnixTime, String, u64, bool)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ModelRemoved {
    pub at: UnixTime,
    pub address: String,
    /// The domain it was deleted with.
    pub with: Option<u64>,
    pub mailbox: ModelMailbox,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelDomain {
    pub identity: u64,
    pub locked: bool,
    pub mailboxes: BTreeMap<String, ModelMailbox>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelMailbox {
    pub identity: u64,
    pub locked: bool,
    pub next_sequence: u64,
    /// What RETR sends, by sequence number.
    pub messages: BTreeMap<u64, Vec<u8>>,
    /// Deleted messages that can come back, with the time of their deletion.
    pub deleted: BTreeMap<u64, (UnixTime, Vec<u8>)>,
}

#[derive(Clone, Debug)]
pub enum Operation {
    AddDomain(Domain),
    RemoveDomain(Domain, UnixTime),
    LockDomain(Domain, bool),
    AddMailbox(Address),
    RemoveMailbox(Address, UnixTime),
    LockMailbox(Address, bool),
    Deliver { recipients: Vec<Address>, text: u64, number: u64 },
    Delete { address: Address, identity: u64, sequences: Vec<u64>, at: UnixTime },
    Undelete { address: Address, wanted: Wanted, as_new: bool },
    UndeleteDomain(Domain),
    Purge { before: Day },
}

#[derive(Debug, PartialEq)]
pub enum Answer {
    Done(Result<(), Refused>),
    Removed(Result<Removed, Refused>),
    Locked(Result<LockChange, Refused>),
    Delivered(Vec<Delivery>),
    Deleted(bool),
    Restored(Result<Restored, Refused>),
    Purged,
}

impl Model {
    pub fn domain(&mut self, domain: &Domain) -> Result<&mut ModelDomain, Refused> {
        self.domains.get_mut(domain.as_str()).ok_or_else(|| Refused::NoSuchDomain(domain.clone()))
    }

    pub fn mailbox(&mut self, address: &Address) -> Result<&mut ModelMailbox, Refused> {
        let domain = self.domain(&address.domain)?;
        let mailbox = domain.mailboxes.get_mut(address.local.as_str());
        mailbox.ok_or_else(|| Refused::NoSuchMailbox(address.clone()))
    }

    pub fn take(&mut self, step: &Operation) -> Answer {
        match step {
            Operation::AddDomain(domain) => {
                let is_new = !self.domains.contains_key(domain.as_str());
                self.identities += 1;
                let new = ModelDomain { identity: self.identities, ..Default::default() };
                self.domains.entry(domain.to_string()).or_insert(new);
                Answer::Done(if is_new { Ok(()) } else { Err(Refused::DomainExists(domain.clone())) })
            }
            Operation::RemoveDomain(domain, at) => {
                let removed = self.domains.remove(domain.as_str());
                let removed = removed.ok_or_else(|| Refused::NoSuchDomain(domain.clone()));
                if let Ok(row) = &removed {
                    self.removed_domains.push((*at, domain.to_string(), row.identity, row.locked));
                    for (local, mailbox) in &row.mailboxes {
                        let (at, with, mailbox) = (*at, Some(row.identity), mailbox.clone());
                        let address = format!("{local}@{domain}");
                        self.removed.push(ModelRemoved { at, address, with, mailbox });
                    }
                }
                Answer::Removed(removed.map(|domain| {
                    domain.mailboxes.values().map(removed_with).fold(Removed::default(), |sum, one| Removed {
                        mailboxes: sum.mailboxes + 1,
                        messages: sum.messages + one.messages,
                        octets: sum.octets + one.octets,
                    })
                }))
            }
            Operation::LockDomain(domain, locked) => Answer::Locked(self.domain(domain).map(|domain| {
                let mut changed = domain.locked != *locked;
                domain.locked = *locked;
                for mailbox in domain.mailboxes.values_mut().filter(|_| !locked) {
                    changed |= mailbox.locked;
                    mailbox.locked = false;
                }
                if changed { LockChange::Changed } else { LockChange::AlreadySo }
            })),
            Operation::AddMailbox(address) => {
                self.identities += 1;
                let new = ModelMailbox { identity: self.identities, next_sequence: 1, ..Default::default() };
                Answer::Done(self.domain(&address.domain).and_then(|domain| {
                    match domain.mailboxes.contains_key(address.local.as_str()) {
                        true => Err(Refused::MailboxExists(address.clone())),
                        false => {
                            domain.mailboxes.insert(address.local.to_string(), new);
                            Ok(())
                        }
                    }
                }))
            }
            Operation::RemoveMailbox(address, at) => {
                let removed = self.domain(&address.domain).and_then(|domain| {
                    let mailbox = domain.mailboxes.remove(address.local.as_str());
                    mailbox.ok_or_else(|| Refused::NoSuchMailbox(address.clone()))
                });
                Answer::Removed(removed.map(|mailbox| {
                    let removed = removed_with(&mailbox);
                    let (at, address) = (*at, address.to_string());
                    self.removed.push(ModelRemoved { at, address, with: None, mailbox });
                    removed
                }))
            }
            Operation::LockMailbox(address, locked) => Answer::Locked(self.lock_mailbox(address, *locked)),
            Operation::Deliver { recipients, text, number } => {
                let deliver = |recipient: &Address| match self.mailbox(recipient) {
                    Ok(mailbox) => {
                        let content = [prefix_of(*number), wire_of(*text)].concat();
                        mailbox.messages.insert(mailbox.next_sequence, content);
                        mailbox.next_sequence += 1;
                        Delivery::Stored
                    }
                    Err(_) => Delivery::NoSuchMailbox,
                };
                Answer::Delivered(recipients.iter().map(deliver).collect())
            }
            Operation::Undelete { address, wanted, as_new } => {
                Answer::Restored(self.undelete(address, *wanted, *as_new))
            }
            Operation::UndeleteDomain(domain) => Answer::Restored(self.undelete_domain(domain)),
            Operation::Purge { before } => {
                let live = self.domains.values_mut().flat_map(|domain| domain.mailboxes.values_mut());
                let removed = self.removed.iter_mut().map(|removed| &mut removed.mailbox);
                for mailbox in live.chain(removed) {
                    mailbox.deleted.retain(|_, (at, _)| at.day() >= *before);
                }
                self.removed.retain(|removed| removed.at.day() >= *before);
                self.removed_domains.retain(|(at, ..)| at.day() >= *before);
                Answer::Purged
            }
            Operation::Delete { address, identity, sequences, at } => {
                let domain_is_locked = self.domain(&address.domain).is_ok_and(|domain| domain.locked);
                Answer::Deleted(match self.mailbox(address) {
                    Ok(mailbox) if mailbox.identity == *identity && !mailbox.locked && !domain_is_locked => {
                        for sequence in sequences {
                            let gone = mailbox.messages.remove(sequence);
                            mailbox.deleted.extend(gone.map(|content| (*sequence, (*at, content))));
                        }
                        true
                    }
                    _ => false,
                })
            }
        }
    }

    fn lock_mailbox(&mut self, address: &Address, locked: bool) -> Result<LockChange, Refused> {
        let domain_is_locked = self.domain(&address.domain)?.locked;
        let mailbox = self.mailbox(address)?;
        if domain_is_locked && !locked {
            return Err(Refused::DomainLocked(address.clone()));
        }
        let changed = mailbox.locked != locked;
        mailbox.locked = locked;
        Ok(if changed { LockChange::Changed } else { LockChange::AlreadySo })
    }

    fn undelete(&mut self, address: &Address, wanted: Wanted, as_new: bool) -> Result<Restored, Refused> {
        let removed = self.removed.iter().rposition(|removed| removed.address == address.to_string());
        let domain = self.domains.get_mut(address.domain.as_str());
        let domain = domain.ok_or_else(|| Refused::NoSuchDomain(address.domain.clone()))?;
        let Some(mailbox) = domain.mailboxes.get_mut(address.local.as_str()) else {
            let removed = removed.ok_or_else(|| Refused::NothingDeleted(address.clone()))?;
            if as_new {
                return Err(Refused::NotAsNew(address.clone()));
            }
            let mailbox = self.removed.remove(removed).mailbox;
            let restored = restored_with(&mailbox, 1);
            domain.mailboxes.insert(address.local.to_string(), mailbox);
            return Ok(restored);
        };
        let since = match wanted {
            Wanted::Last => mailbox.deleted.values().map(|(at, _)| *at).max().unwrap_or_default(),
            Wanted::Since(time) => time,
            Wanted::All => UnixTime(0),
        };
        let mut back: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        mailbox.deleted.retain(|sequence, (at, content)| {
            if *at >= since {
                back.insert(*sequence, content.clone());
            }
            *at < since
        });
        if back.is_empty() {
            let removed = removed.ok_or_else(|| Refused::NothingDeleted(address.clone()))?;
            if !as_new {
                return Err(Refused::MailboxReplaced(address.clone()));
            }
            back = self.removed.remove(removed).mailbox.messages;
        }
        let restored = restored_with(&ModelMailbox { messages: back.clone(), ..Default::default() }, 0);
        for (sequence, content) in back {
            let sequence = if as_new { mailbox.next_sequence } else { sequence };
            mailbox.next_sequence += u64::from(as_new);
            mailbox.messages.insert(sequence, content);
        }
        Ok(restored)
    }

    fn undelete_domain(&mut self, domain: &Domain) -> Result<Restored, Refused> {
        let found = self.removed_domains.iter().rposition(|(_, name, ..)| name == domain.as_str());
        let Some(found) = found else {
            return Err(Refused::DomainNotDeleted(domain.clone()));
        };
        let (_, name, identity, locked) = self.removed_domains.remove(found);
        let there =
            self.domains.entry(name).or_insert(ModelDomain { identity, locked, ..Default::default() });
        let mut restored = Restored::default();
        self.removed.retain(|removed| {
            let address: Address = removed.address.parse().unwrap();
            let is_new = !there.mailboxes.contains_key(address.local.as_str());
            if removed.with != Some(identity) {
                return true;
            }
            if !is_new {
                restored.replaced.push(address);
                return true;
            }
            let one = restored_with(&removed.mailbox, 1);
            restored.mailboxes += 1;
            restored.messages += one.messages;
            restored.octets += one.octets;
            there.mailboxes.insert(address.local.to_string(), removed.mailbox.clone());
            false
        });
        Ok(restored)
    }

    /// The model without identities, which the store does not show.
    pub fn nameless(&self) -> Model {
        let mut model = self.clone();
        model.identities = 0;
        for removed in &mut model.removed {
            removed.with = removed.with.map(|_| 0);
            removed.mailbox.identity = 0;
        }
        model.removed.sort_by_key(|removed| (removed.at, removed.address.clone()));
        model.removed_domains.iter_mut().for_each(|(_, _, identity, _)| *identity = 0);
        model.removed_domains.sort();
        model.domains.values_mut().for_each(|domain| domain.identity = 0);
        let mailboxes = model.domains.values_mut().flat_map(|domain| domain.mailboxes.values_mut());
        mailboxes.for_each(|mailbox| mailbox.identity = 0);
        model
    }
}

pub fn removed_with(mailbox: &ModelMailbox) -> Removed {
    let octets = mailbox.messages.values().map(|content| crate::wire::unstuff(content).len() as u64).sum();
    Removed { mailboxes: 1, messages: mailbox.messages.len() as u64, octets }
}

fn restored_with(mailbox: &ModelMailbox, mailboxes: u64) -> Restored {
    let Removed { messages, octets, .. } = removed_with(mailbox);
    Restored { mailboxes, messages, octets, replaced: vec![] }
}

pub fn prefix_of(number: u64) -> Vec<u8> {
    format!("X-Number: {number}\r\n").into_bytes()
}

fn wire_of(number: u64) -> Vec<u8> {
    match text(&content_of(number)).wire {
        Body::Octets(wire) => wire,
        Body::File(_) | Body::Placed(_) => unreachable!("these texts are kept in memory"),
    }
}

/// One of a few recurring texts, from empty to some hundred thousand octets.
pub fn content_of(number: u64) -> Vec<u8> {
    let len = [0, 1, 63, 900, 4000, 20_000, 70_000, 300_000][number as usize % 8];
    let mut content = format!("{number}\n.\n").into_bytes();
    content.resize(len.max(3), b'a' + (number % 26) as u8);
    content
}
