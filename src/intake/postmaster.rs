//! Mail for the postmaster, which every domain must accept (RFC 5321 section 4.5.1).
//!
//! It goes to the first of these that exists:
//! 1. the mailbox `postmaster` of the domain;
//! 2. the mailbox that the setting `postmaster` names;
//! 3. the oldest mailbox of the domain.
//!
//! `<Postmaster>` without a domain means the setting's mailbox, or else the mailbox `postmaster` of the first domain
//! that has one, or else the oldest mailbox of the first domain that has any. A domain without mailboxes accepts no
//! mail for the postmaster: nobody could read it, and it is none of another domain's business.
//!
//! Quotas and locks apply as to any mail: a full mailbox refuses, a locked one accepts.

use crate::address::{Address, LocalPart};
use crate::envelope::ForwardPath;
use crate::store::{Fault, Read, Store};

const SETTING: &str = "postmaster";

/// The address the path means, which may not exist; `None` if nobody is postmaster.
pub fn address_of(
    store: &Store,
    directory: &impl Read,
    path: &ForwardPath,
) -> Result<Option<Address>, Fault> {
    let address = match path {
        ForwardPath::Postmaster => return without_domain(store, directory),
        ForwardPath::Mailbox(address) => address,
    };
    let plain = directory.receiving(address)?;
    if plain.local != postmaster() || directory.mailbox(&plain)?.is_some() {
        return Ok(Some(address.clone()));
    }
    // Not our domain: leave it to the caller to refuse.
    if directory.domain(&plain.domain)?.is_none() {
        return Ok(Some(address.clone()));
    }
    match of_setting(directory)? {
        Some(address) => Ok(Some(address)),
        None => store.oldest_mailbox(directory, &plain.domain),
    }
}

fn without_domain(store: &Store, directory: &impl Read) -> Result<Option<Address>, Fault> {
    if let Some(address) = of_setting(directory)? {
        return Ok(Some(address));
    }
    let domains = directory.domains()?;
    for (domain, _) in &domains {
        let address = Address { local: postmaster(), domain: domain.clone() };
        if directory.mailbox(&address)?.is_some() {
            return Ok(Some(address));
        }
    }
    for (domain, _) in &domains {
        if let Some(address) = store.oldest_mailbox(directory, domain)? {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

/// The setting's mailbox, if it still exists.
fn of_setting(directory: &impl Read) -> Result<Option<Address>, Fault> {
    let Some(address) = directory.setting(SETTING)?.and_then(|text| text.parse::<Address>().ok()) else {
        return Ok(None);
    };
    Ok(directory.mailbox(&address)?.is_some().then_some(address))
}

fn postmaster() -> LocalPart {
    "postmaster".parse().expect("it is a mailbox name")
}
