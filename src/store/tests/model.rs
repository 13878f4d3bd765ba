//! A plain model of the store, and the steps that can be taken on both.

use super::*;
use std::collections::BTreeMap;

/// All that the store is to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub domains: BTreeMap<String, ModelDomain>,
    /// Identities of mailboxes given out.
    pub identities: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelDomain {
    pub locked: bool,
    pub mailboxes: BTreeMap<String, ModelMailbox>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelMailbox {
    pub identity: u64,
    pub locked: bool,
    pub next_sequence: u64,
    /// By sequence number: what RETR sends.
    pub messages: BTreeMap<u64, Vec<u8>>,
}

#[derive(Clone, Debug)]
pub enum Step {
    AddDomain(Domain),
    RemoveDomain(Domain),
    LockDomain(Domain, bool),
    AddMailbox(Address),
    RemoveMailbox(Address),
    LockMailbox(Address, bool),
    Deliver { recipients: Vec<Address>, text: u64, number: u64 },
    Delete { address: Address, identity: u64, sequences: Vec<u64> },
}

#[derive(Debug, PartialEq)]
pub enum Answer {
    Done(Result<(), Refused>),
    Removed(Result<Removed, Refused>),
    Locked(Result<LockChange, Refused>),
    Delivered(Vec<Delivery>),
    Deleted(bool),
}

impl Model {
    pub fn domain(&mut self, domain: &Domain) -> Result<&mut ModelDomain, Refused> {
        self.domains.get_mut(domain.as_str()).ok_or(Refused::NoSuchDomain)
    }

    pub fn mailbox(&mut self, address: &Address) -> Result<&mut ModelMailbox, Refused> {
        let domain = self.domain(&address.domain)?;
        domain.mailboxes.get_mut(address.local.as_str()).ok_or(Refused::NoSuchMailbox)
    }

    pub fn take(&mut self, step: &Step) -> Answer {
        match step {
            Step::AddDomain(domain) => {
                let is_new = !self.domains.contains_key(domain.as_str());
                self.domains.entry(domain.to_string()).or_default();
                Answer::Done(if is_new { Ok(()) } else { Err(Refused::DomainExists) })
            }
            Step::RemoveDomain(domain) => {
                let removed = self.domains.remove(domain.as_str()).ok_or(Refused::NoSuchDomain);
                Answer::Removed(removed.map(|domain| {
                    domain.mailboxes.values().map(removed_with).fold(Removed::default(), |sum, one| Removed {
                        mailboxes: sum.mailboxes + 1,
                        messages: sum.messages + one.messages,
                        octets: sum.octets + one.octets,
                    })
                }))
            }
            Step::LockDomain(domain, locked) => Answer::Locked(self.domain(domain).map(|domain| {
                let mut changed = domain.locked != *locked;
                domain.locked = *locked;
                for mailbox in domain.mailboxes.values_mut().filter(|_| !locked) {
                    changed |= mailbox.locked;
                    mailbox.locked = false;
                }
                if changed { LockChange::Changed } else { LockChange::AlreadySo }
            })),
            Step::AddMailbox(address) => {
                self.identities += 1;
                let new = ModelMailbox { identity: self.identities, next_sequence: 1, ..Default::default() };
                Answer::Done(self.domain(&address.domain).and_then(|domain| {
                    match domain.mailboxes.contains_key(address.local.as_str()) {
                        true => Err(Refused::MailboxExists),
                        false => {
                            domain.mailboxes.insert(address.local.to_string(), new);
                            Ok(())
                        }
                    }
                }))
            }
            Step::RemoveMailbox(address) => {
                Answer::Removed(self.domain(&address.domain).and_then(|domain| {
                    let removed =
                        domain.mailboxes.remove(address.local.as_str()).ok_or(Refused::NoSuchMailbox)?;
                    Ok(removed_with(&removed))
                }))
            }
            Step::LockMailbox(address, locked) => Answer::Locked(self.lock_mailbox(address, *locked)),
            Step::Deliver { recipients, text, number } => {
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
            Step::Delete { address, identity, sequences } => {
                let domain_is_locked = self.domain(&address.domain).is_ok_and(|domain| domain.locked);
                Answer::Deleted(match self.mailbox(address) {
                    Ok(mailbox) if mailbox.identity == *identity && !mailbox.locked && !domain_is_locked => {
                        mailbox.messages.retain(|sequence, _| !sequences.contains(sequence));
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
            return Err(Refused::DomainLocked);
        }
        let changed = mailbox.locked != locked;
        mailbox.locked = locked;
        Ok(if changed { LockChange::Changed } else { LockChange::AlreadySo })
    }

    /// The same but for the identities, which the store does not show.
    pub fn nameless(&self) -> Model {
        let mut model = self.clone();
        model.identities = 0;
        let mailboxes = model.domains.values_mut().flat_map(|domain| domain.mailboxes.values_mut());
        mailboxes.for_each(|mailbox| mailbox.identity = 0);
        model
    }
}

pub fn removed_with(mailbox: &ModelMailbox) -> Removed {
    let octets = mailbox.messages.values().map(|content| crate::wire::unstuff(content).len() as u64).sum();
    Removed { mailboxes: 1, messages: mailbox.messages.len() as u64, octets }
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

/// A few texts that come again and again, of lengths from nothing to some hundred thousand octets.
pub fn content_of(number: u64) -> Vec<u8> {
    let len = [0, 1, 63, 900, 4000, 20_000, 70_000, 300_000][number as usize % 8];
    let mut content = format!("{number}\n.\n").into_bytes();
    content.resize(len.max(3), b'a' + (number % 26) as u8);
    content
}
