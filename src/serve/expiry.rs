//! Deletes mail that is older than the setting `expire` allows.

use super::Service;
use crate::address::Address;
use crate::store::{Fault, Read, Store, UnixTime};
use async_io::Timer;
use std::sync::Arc;
use std::time::Duration;

/// How often old mail is looked for.
const ROUND: Duration = Duration::from_secs(3600);
/// Messages that one transaction deletes.
const MESSAGES_A_TRANSACTION: usize = 1000;
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// Looks for old mail again and again, for as long as the task lives.
pub async fn run(service: Arc<Service>) {
    loop {
        let days = service.settings().expire.get();
        if days > 0 {
            let store = service.store.clone();
            let before = UnixTime(UnixTime::now().0.saturating_sub(u64::from(days) * DAY_SECONDS));
            match smol::unblock(move || delete_before(&store, before)).await {
                Ok(0) => {}
                Ok(count) => log::info!("{count} messages older than {days} days were deleted"),
                Err(fault) => log::error!("old mail could not be deleted: {fault}"),
            }
        }
        Timer::after(ROUND).await;
    }
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
        if old.is_empty() || !maildrop.delete(&old).wait()? {
            return Ok(count);
        }
        count += old.len() as u64;
    }
}
