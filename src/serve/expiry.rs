//! Deletes mail older than the setting `expire` allows, and purges deleted mail that `undelete` and `undeletesize` no
//! longer keep.

use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;

use super::Service;
use crate::address::Address;
use crate::store::{Fault, Read, Store, UnixTime};

/// How often the size of the deleted mail is checked.
const ROUND: Duration = Duration::from_secs(60);
/// How often old mail is looked for, in rounds.
const ROUNDS_FOR_OLD_MAIL: u64 = 60;
/// Messages deleted per transaction.
const MESSAGES_A_TRANSACTION: usize = 1000;

/// Does its rounds for as long as the task lives.
pub async fn run(service: Arc<Service>) {
    for round in 0u64.. {
        if round.is_multiple_of(ROUNDS_FOR_OLD_MAIL) {
            look_for_old_mail(&service).await;
        }
        let (store, octets) = (service.store.clone(), service.settings().undeletesize.octets());
        if octets > 0 {
            log_purged(smol::unblock(move || store.purge_above(octets)).await);
        }
        Timer::after(ROUND).await;
    }
}

async fn look_for_old_mail(service: &Service) {
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
    log_purged(smol::unblock(move || purge(&store, days, UnixTime::now())).await);
}

fn log_purged(purged: Result<u64, Fault>) {
    match purged {
        Ok(0) => {}
        Ok(count) => log::info!("{count} deleted messages and mailboxes were purged"),
        Err(fault) => log::error!("deleted mail could not be purged: {fault}"),
    }
}

/// Purges what was deleted more than `days` ago (0 = everything, unless the stored setting says otherwise by now).
/// Returns how many messages and mailboxes went.
pub fn purge(store: &Store, days: u32, now: UnixTime) -> Result<u64, Fault> {
    match days {
        0 => store.purge_unkept(),
        days => store.purge(now.less_days(days).day()),
    }
}

/// Deletes mail received before this time and returns how many messages went. Skips mailboxes that are locked or being
/// read until another time.
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
    // Holding the maildrop keeps readers away while their mail goes.
    let crate::verdict::Login::Welcome(maildrop) = store.open_maildrop(address)? else { return Ok(0) };
    loop {
        let old = maildrop.received_before(before, MESSAGES_A_TRANSACTION)?;
        if old.is_empty() || !maildrop.delete_for_good(&old).wait()? {
            return Ok(count);
        }
        count += old.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::password::{Credential, Verifier};
    use crate::store::{Import, Wanted};
    use crate::tests::scratch;
    use crate::wire::Receiver;

    const DAY_SECONDS: u64 = 24 * 60 * 60;
    const MESSAGES: u64 = 90;

    fn bob() -> Address {
        "bob@example.com".parse().unwrap()
    }

    /// A store in which equally many messages were deleted on each of three days.
    fn with_deleted(directory: &tempfile::TempDir) -> Store {
        let store = Store::create(&directory.path().join("winpop.db")).unwrap();
        let credential = Credential { version: 0, verifier: Verifier::of_nobody([0; 16]), sealed: None };
        let added = store.write(move |tx| {
            let domain = tx.add_domain(&bob().domain, UnixTime(1))?;
            assert!(domain.is_ok() && tx.add_mailbox(&bob(), credential.clone(), UnixTime(1))?.is_ok());
            Ok(())
        });
        added.wait().unwrap();
        let mailbox = store.read().unwrap().mailbox(&bob()).unwrap().unwrap().id;
        for day in 1..=3 {
            let messages: Vec<Import> =
                (0..MESSAGES / 3).map(|number| message(day * 1000 + number)).collect();
            store.write(move |tx| tx.import(&bob(), &messages)).wait().unwrap().unwrap();
            let crate::verdict::Login::Welcome(maildrop) = store.open_maildrop(&bob()).unwrap() else {
                panic!("nobody else reads it")
            };
            let numbers: Vec<u64> = maildrop.list().unwrap().iter().map(|entry| entry.uid.seq).collect();
            drop(maildrop);
            let at = UnixTime(day * DAY_SECONDS);
            let deleted = store.write(move |tx| tx.delete_messages(&bob(), mailbox, &numbers, Some(at)));
            assert!(deleted.wait().unwrap());
        }
        store
    }

    fn message(number: u64) -> Import {
        let mut receiver = Receiver::verbatim();
        receiver.push(format!("Subject: {number:06}\r\n\r\n").as_bytes());
        let text = receiver.finish().unwrap().into();
        let unique_id = Some(format!("id-{number}"));
        Import { text, received: UnixTime(number), unique_id, repeat: 0, tag: number }
    }

    #[test]
    fn deleted_mail_is_purged_when_its_days_are_over() {
        let directory = scratch::directory();
        let store = with_deleted(&directory);
        let kept = || store.kept().unwrap().messages;
        assert_eq!((purge(&store, 7, UnixTime(8 * DAY_SECONDS)).unwrap(), kept()), (0, MESSAGES));
        assert_eq!(purge(&store, 7, UnixTime(9 * DAY_SECONDS)).unwrap(), MESSAGES / 3);
        // The setting says otherwise by now.
        assert_eq!(purge(&store, 0, UnixTime(9 * DAY_SECONDS)).unwrap(), 0);
        store.write(|tx| tx.set_setting("undelete", Some("0"))).wait().unwrap();
        assert_eq!(purge(&store, 0, UnixTime(9 * DAY_SECONDS)).unwrap(), MESSAGES / 3 * 2);
        assert_eq!((kept(), store.read().unwrap().totals().unwrap().text_octets), (0, 0));
    }

    #[test]
    fn deleted_mail_above_the_limit_is_purged_oldest_first() {
        let directory = scratch::directory();
        let store = with_deleted(&directory);
        let octets = store.kept().unwrap().octets;
        assert_eq!(store.purge_above(octets).unwrap(), 0);
        let gone = store.purge_above(octets / 2 + 1).unwrap();
        assert_eq!(gone, MESSAGES / 2, "and not one more than necessary");
        assert_eq!(store.kept().unwrap().messages, MESSAGES - gone);
        // What was deleted last is left.
        let back = store.undelete_mailbox(&bob(), Wanted::Since(UnixTime(3 * DAY_SECONDS)), false).unwrap();
        assert_eq!(back.unwrap().messages, MESSAGES / 3);
        store.purge_above(1).unwrap();
        assert_eq!(store.kept().unwrap().messages, 0);
    }
}
