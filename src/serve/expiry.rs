//! Deletes mail that is older than the setting `expire` allows, and for good what was deleted before the days of `undelete`.

use super::Service;
use crate::address::Address;
use crate::store::{Day, Fault, Read, Store, UnixTime};
use async_io::Timer;
use std::sync::Arc;
use std::time::Duration;

/// How often old mail is looked for.
const ROUND: Duration = Duration::from_secs(3600);
/// Messages that one transaction deletes.
const MESSAGES_A_TRANSACTION: usize = 1000;

/// Looks for old mail again and again, for as long as the task lives.
pub async fn run(service: Arc<Service>) {
    loop {
        let days = service.settings().expire.get();
        if days > 0 {
            let store = service.store.clone();
            let before = UnixTime::now().less_days(days);
            match smol::unblock(move || delete_before(&store, before)).await {
                Ok(0) => {}
                Ok(count) => log::info!("{count} messages older than {days} days were deleted"),
                Err(fault) => log::error!("old mail could not be deleted: {fault}"),
            }
        }
        let (store, days) = (service.store.clone(), service.settings().undelete.get());
        match smol::unblock(move || purge(&store, days, UnixTime::now())).await {
            Ok(0) => {}
            Ok(count) => log::info!("{count} deleted messages and mailboxes are gone for good"),
            Err(fault) => log::error!("deleted mail could not be removed for good: {fault}"),
        }
        Timer::after(ROUND).await;
    }
}

/// Removes for good what was deleted more than so many days ago, and returns how many messages and mailboxes that was.
pub fn purge(store: &Store, days: u32, now: UnixTime) -> Result<u64, Fault> {
    let before = match days {
        0 => Day::LAST,
        days => now.less_days(days).day(),
    };
    store.purge(before)
}

/// Deletes what was received before this time, and returns how many messages that was. Mailboxes that are locked, or
/// in which somebody is reading, are left for another time.
pub fn delete_before(store: &Store, before: UnixTime) -> Result<u64, Fault> {
    let mut count = 0;
    let domains = store.read()?.domains()?;
    for (domain, _) in domains {
        let mailboxes = store.read()?.mailboxes(&domain)?;
        for (local, _) in mailboxes {
            count += delete_from_mailbox(store, &Address { local, domain: domain.clone() }, before)?;
        }
    }
    Ok(count)
}

fn delete_from_mailbox(store: &Store, address: &Address, before: UnixTime) -> Result<u64, Fault> {
    let mut count = 0;
    // The claim of a maildrop keeps readers away while mail goes from under them.
    let crate::verdict::Login::Welcome(maildrop) = store.open_maildrop(address)? else { return Ok(0) };
    loop {
        let old = maildrop.received_before(before, MESSAGES_A_TRANSACTION)?;
        if old.is_empty() || !maildrop.delete_for_good(&old).wait()? {
            return Ok(count);
        }
        count += old.len() as u64;
    }
}
