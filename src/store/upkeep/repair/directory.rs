//! Repair of domains and mailboxes, and new mailboxes for messages without one.

use std::collections::BTreeMap;

use super::{Domains, KeptMailbox, KeptMailboxes, Repair, rows_of};
use crate::address::{Address, Domain};
use crate::auth::password::{Credential, SALT_OCTETS, Verifier};
use crate::store::index::Fault;
use crate::store::index::rows::{Counts, DomainRow, MailboxRow, MessageRow, Row};
use crate::store::index::types::{DomainId, MailboxId, OwnerId};
use crate::store::upkeep::deleted::{RemovedMailbox, removed_mailbox};

impl Repair<'_, '_> {
    pub fn directory(&mut self) -> Result<(Domains, KeptMailboxes), Fault> {
        let mut owners = KeptMailboxes::new();
        let unreadable = self.mailboxes(&mut owners)?;
        self.removed_mailboxes(&mut owners)?;
        let orphans = self.orphans(&owners)?;
        self.ids.extend(owners.keys().chain(orphans.keys()).map(|id| OwnerId::from(*id)));
        let mut domains = self.domains()?;
        for (id, name) in orphans {
            let found = || format!("found-{id}@found.invalid").parse().expect("it is an address");
            // If `user@` exists, mail for `user+detail@` lay in a mailbox of that name.
            let names = name.into_iter().flat_map(|name| [name.without_detail(), name]);
            let free = names.into_iter().find(|address| !is_taken(&owners, address));
            let address = free.unwrap_or_else(found);
            self.make_mailbox(&mut owners, address, id)?;
        }
        for address in unreadable {
            if !is_taken(&owners, &address) {
                let id = MailboxId(self.new_id()?);
                self.make_mailbox(&mut owners, address, id)?;
            }
        }
        for owner in owners.values().filter(|owner| !owner.is_removed) {
            let domain = &owner.address.domain;
            if !domains.contains_key(domain.as_str()) {
                self.report.note(format!("domain {domain} was recreated for its mailboxes"));
                let id = DomainId(self.new_id()?);
                self.put_domain(domain, &DomainRow { id, locked: false, created: self.now })?;
                domains.insert(domain.to_string(), id);
            }
        }
        Ok((domains, owners))
    }

    /// The mailboxes with sound rows. Returns the names of the others, which are removed.
    fn mailboxes(&mut self, owners: &mut KeptMailboxes) -> Result<Vec<Address>, Fault> {
        let mut unreadable = Vec::new();
        let key_of = |(domain, local): (&str, &str)| (domain.to_owned(), local.to_owned());
        for ((domain, local), row) in rows_of(self.tables.mailboxes.open()?, key_of)? {
            let address = format!("{local}@{domain}").parse::<Address>().ok();
            match (address, MailboxRow::from_row(&row)) {
                (Some(address), Ok(row)) if !owners.contains_key(&row.id) => {
                    let (counts, is_removed) = (Counts::default(), false);
                    let owner = KeptMailbox { address, counts, quota: row.quota, is_removed };
                    owners.insert(row.id, owner);
                }
                (address, _) => {
                    self.report.note(format!(
                        "the row of mailbox {local}@{domain} was malformed and has been removed"
                    ));
                    self.tables.mailboxes.remove((&domain[..], &local[..]))?;
                    unreadable.extend(address);
                }
            }
        }
        Ok(unreadable)
    }

    /// The deleted mailboxes that can come back.
    fn removed_mailboxes(&mut self, owners: &mut KeptMailboxes) -> Result<(), Fault> {
        for (key, row) in rows_of(self.tables.removed_mailboxes.open()?, |key| key)? {
            match removed_mailbox(key, &row).filter(|mailbox| !owners.contains_key(&mailbox.id)) {
                Some(RemovedMailbox { id, address }) => {
                    let counts = Counts::default();
                    owners.insert(id, KeptMailbox { address, counts, quota: None, is_removed: true });
                }
                None => {
                    self.report.note(format!(
                        "the row of deleted mailbox id {} was malformed and has been removed",
                        key.1
                    ));
                    self.tables.removed_mailboxes.remove(key)?;
                }
            }
        }
        Ok(())
    }

    /// Ids that have messages but no mailbox row, with the names their messages know.
    fn orphans(&self, owners: &KeptMailboxes) -> Result<BTreeMap<MailboxId, Option<Address>>, Fault> {
        let mut orphans = BTreeMap::new();
        let mut from = MailboxId(OwnerId(0));
        while let Some(first) = self.tables.messages.range((from, 0)..)?.next() {
            let mailbox = first?.0.value().0;
            if !owners.contains_key(&mailbox) {
                orphans.insert(mailbox, self.name_in_messages(mailbox)?);
            }
            let Some(next) = OwnerId::from(mailbox).next() else { break };
            from = MailboxId(next);
        }
        Ok(orphans)
    }

    fn name_in_messages(&self, mailbox: MailboxId) -> Result<Option<Address>, Fault> {
        for row in self.tables.messages.range((mailbox, 0)..=(mailbox, u64::MAX))? {
            let message = MessageRow::from_row(row?.1.value());
            if let Some(name) = message.ok().and_then(|message| delivered_to(&message)) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// A domain's id only leads to its counts, so a domain that shares its id gets a new one.
    fn domains(&mut self) -> Result<Domains, Fault> {
        let mut domains = Domains::new();
        for (name, row) in rows_of(self.tables.domains.open()?, |name| name.to_owned())? {
            let Ok(domain) = name.parse::<Domain>() else {
                self.report.note(format!(
                    "\"{name}\" was listed as a domain without being a domain name, and was removed"
                ));
                self.tables.domains.remove(&name[..])?;
                continue;
            };
            let id = match DomainRow::from_row(&row) {
                Ok(row) if self.ids.insert(row.id.into()) => row.id,
                row => {
                    let id = DomainId(self.new_id()?);
                    // We may not know whether it was locked. Lock it: that loses nothing and can be undone.
                    let (locked, created) = row.map_or((true, self.now), |row| (row.locked, row.created));
                    let state = if locked { ", and is locked" } else { "" };
                    self.report.note(format!("domain {name} was recreated{state}"));
                    self.put_domain(&domain, &DomainRow { id, locked, created })?;
                    id
                }
            };
            domains.insert(name, id);
        }
        Ok(domains)
    }

    fn put_domain(&mut self, domain: &Domain, row: &DomainRow) -> Result<(), Fault> {
        self.tables.domains.insert(domain.as_str(), &row.to_row()[..])?;
        Ok(())
    }

    fn make_mailbox(
        &mut self,
        owners: &mut KeptMailboxes,
        address: Address,
        id: MailboxId,
    ) -> Result<(), Fault> {
        self.report.note(format!("mailbox {address} was recreated without a password"));
        let credential =
            Credential { version: 0, verifier: Verifier::of_nobody([0; SALT_OCTETS]), sealed: None };
        let row =
            MailboxRow { id, locked: false, created: self.now, credential, quota: None, last_login: None };
        let key = (address.domain.as_str(), address.local.as_str());
        self.tables.mailboxes.insert(key, &row.to_row()[..])?;
        let counts = Counts::default();
        owners.insert(id, KeptMailbox { address, counts, quota: None, is_removed: false });
        Ok(())
    }

    /// An id that nothing has or ever had.
    fn new_id(&mut self) -> Result<OwnerId, Fault> {
        let counted = self.tables.counts.last()?.map_or(OwnerId(0), |(id, _)| id.value());
        let known = self.ids.last().copied().unwrap_or_default().max(counted);
        let id = self.stored_totals()?.next_id.max(known.next().unwrap_or(known));
        if !self.ids.insert(id) || id == OwnerId(u32::MAX) {
            return Err(Fault::damaged("all ids are used up"));
        }
        Ok(id)
    }
}

/// True if a mailbox that is not deleted has this address.
fn is_taken(owners: &KeptMailboxes, address: &Address) -> bool {
    owners.values().any(|owner| !owner.is_removed && owner.address == *address)
}

/// The address in our own Delivered-To field.
fn delivered_to(message: &MessageRow) -> Option<Address> {
    let mut lines = message.prefix.split(|octet| *octet == b'\n');
    let field = lines.find_map(|line| line.strip_prefix(b"Delivered-To:"))?;
    std::str::from_utf8(field).ok()?.trim().parse().ok()
}
