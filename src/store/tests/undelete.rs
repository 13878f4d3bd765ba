//! Deleted mail and mailboxes: outside every count, restored unchanged, and purged when their time is over or room is
//! needed.

use super::*;
use crate::store::UnixTime;

const ANN: &str = "ann@example.com";
const DAY: u64 = 24 * 60 * 60;

fn keeping_store(disk: Arc<SimulatedDisk>) -> Store {
    let store = store_with(&[ANN], disk);
    keep_deleted(&store, "7");
    store
}

fn memory() -> Arc<SimulatedDisk> {
    Arc::new(SimulatedDisk::default())
}

fn delete(store: &Store, nth: usize) {
    let maildrop = open_maildrop(store, ANN);
    let uid = maildrop.list().unwrap()[nth].uid;
    assert!(maildrop.delete(&[uid]).wait().unwrap());
}

fn undelete(store: &Store, wanted: Wanted, as_new: bool) -> Result<Restored, Refused> {
    store.undelete_mailbox(&address(ANN), wanted, as_new).unwrap()
}

fn uids(store: &Store) -> Vec<(u64, u64)> {
    open_maildrop(store, ANN).list().unwrap().iter().map(|entry| (entry.uid.seq, entry.uid.tag)).collect()
}

fn purge(store: &Store, before: Day) -> usize {
    store.write(move |tx| tx.purge(before, 1000)).wait().unwrap()
}

#[test]
fn deleted_mail_is_counted_apart_and_comes_back_in_its_place_under_its_id() {
    let store = keeping_store(memory());
    set_quota(&store, ANN, ANN, Some(1000));
    for content in [b"one", b"two", b"six"] {
        deliver(&store, &[ANN], content);
    }
    let (before, texts) = (uids(&store), contents(&store, ANN));
    let used = set_quota(&store, ANN, ANN, None).used;
    delete(&store, 1);
    assert_eq!((uids(&store).len(), store.kept().unwrap().messages), (2, 1));
    assert!(set_quota(&store, ANN, ANN, None).used < used);
    assert_clean(&store);
    assert_eq!(undelete(&store, Wanted::Last, false).unwrap().messages, 1);
    assert_eq!((uids(&store), contents(&store, ANN)), (before, texts));
    assert_eq!((set_quota(&store, ANN, ANN, None).used, store.kept().unwrap()), (used, Kept::default()));
    assert_eq!(undelete(&store, Wanted::All, false), Err(Refused::NothingDeleted(address(ANN))));
    assert_clean(&store);
}

#[test]
fn the_oldest_mailbox_is_remembered_until_it_goes_or_an_older_one_comes_back() {
    let store = keeping_store(memory());
    let (bob, eve) = ("bob@example.com", "eve@example.com");
    [bob, eve].iter().for_each(|mailbox| add_mailbox(&store, mailbox));
    let oldest = || {
        let snapshot = store.read().unwrap();
        store.oldest_mailbox(&*snapshot, &address(ANN).domain).unwrap().unwrap().to_string()
    };
    let remove = |mailbox: &str| {
        let mailbox = address(mailbox);
        store.write(move |tx| tx.remove_mailbox(&mailbox, UnixTime::now())).wait().unwrap().unwrap();
    };
    assert_eq!(oldest(), ANN);
    // Without reading the others: even a wrong one is believed.
    let eve_id = store.read().unwrap().mailbox(&address(eve)).unwrap().unwrap().id;
    for known in store.0.shared.oldest.lock().values_mut() {
        (known.id, known.address) = (eve_id, address(eve));
    }
    assert_eq!(oldest(), eve);
    remove(ANN);
    assert_eq!(oldest(), bob);
    assert_eq!(undelete(&store, Wanted::All, false).unwrap().mailboxes, 1);
    assert_eq!(oldest(), ANN);
    // The number is the same as before, but not the mailboxes.
    remove(ANN);
    assert_eq!(oldest(), bob);
    remove(eve);
    undelete(&store, Wanted::All, false).unwrap();
    assert_eq!(oldest(), ANN);
}

#[test]
fn as_new_mail_it_comes_behind_the_others_with_new_ids() {
    let store = keeping_store(memory());
    deliver(&store, &[ANN], b"one");
    deliver(&store, &[ANN], b"two");
    let before = uids(&store);
    delete(&store, 0);
    assert_eq!(undelete(&store, Wanted::All, true).unwrap().messages, 1);
    let after = uids(&store);
    assert_eq!((after[0], after.len()), (before[1], 2));
    assert!(after[1].0 > before[1].0);
    assert_clean(&store);
}

#[test]
fn nothing_comes_back_among_the_messages_of_an_open_session() {
    let store = keeping_store(memory());
    deliver(&store, &[ANN], b"one");
    delete(&store, 0);
    let session = open_maildrop(&store, ANN);
    assert_eq!(undelete(&store, Wanted::All, false), Err(Refused::InUse(address(ANN))));
    drop(session);
    assert!(undelete(&store, Wanted::All, false).is_ok());
}

#[test]
fn a_deleted_mailbox_comes_back_whole_with_lock_and_quota() {
    let store = keeping_store(memory());
    let quota = set_quota(&store, ANN, ANN, Some(5000));
    deliver(&store, &[ANN], b"one");
    let (before, row) = (uids(&store), store.read().unwrap().mailbox(&address(ANN)).unwrap());
    store.write(|tx| tx.remove_mailbox(&address(ANN), UnixTime(1))).wait().unwrap().unwrap();
    assert_clean(&store);
    assert_eq!(deliver(&store, &[ANN], b"x"), [Delivery::NoSuchMailbox]);
    let expected = Kept { messages: 1, octets: 36, mailboxes: 1 };
    assert_eq!(store.kept().unwrap(), expected);
    assert_eq!(undelete(&store, Wanted::Last, false).unwrap().mailboxes, 1);
    assert_eq!(store.read().unwrap().mailbox(&address(ANN)).unwrap(), row);
    assert_eq!(uids(&store), before);
    assert_eq!(set_quota(&store, ANN, ANN, None).limit, quota.limit);
    assert_clean(&store);
}

#[test]
fn a_new_mailbox_of_the_name_stays_and_gets_the_old_mail_as_new_only_when_told() {
    let store = keeping_store(memory());
    deliver(&store, &[ANN], b"old");
    store.write(|tx| tx.remove_mailbox(&address(ANN), UnixTime(1))).wait().unwrap().unwrap();
    add_mailbox(&store, ANN);
    deliver(&store, &[ANN], b"new");
    assert_eq!(undelete(&store, Wanted::All, false), Err(Refused::MailboxReplaced(address(ANN))));
    assert_eq!(undelete(&store, Wanted::All, true).unwrap().messages, 1);
    let texts = contents(&store, ANN);
    assert!(texts[0].ends_with(b"new\r\n") && texts[1].ends_with(b"old\r\n"));
    assert_clean(&store);
}

#[test]
fn a_domain_comes_back_with_the_mailboxes_that_went_with_it() {
    let store = keeping_store(memory());
    for mailbox in ["bob@example.com", "carol@example.com"] {
        add_mailbox(&store, mailbox);
    }
    deliver(&store, &[ANN], b"one");
    let domain: Domain = "example.com".parse().unwrap();
    store.write(|tx| tx.remove_mailbox(&address("carol@example.com"), UnixTime(1))).wait().unwrap().unwrap();
    let removed = domain.clone();
    store.write(move |tx| tx.remove_domain(&removed, UnixTime(2))).wait().unwrap().unwrap();
    assert_eq!(undelete(&store, Wanted::All, false), Err(Refused::NoSuchDomain(domain.clone())));
    assert_clean(&store);
    let wanted = domain.clone();
    let restored = store.write(move |tx| tx.undelete_domain(&wanted)).wait().unwrap().unwrap();
    assert_eq!((restored.mailboxes, restored.messages), (2, 1));
    let wanted = domain.clone();
    let again = store.write(move |tx| tx.undelete_domain(&wanted)).wait().unwrap();
    assert_eq!(again, Err(Refused::DomainNotDeleted(domain)));
    assert_clean(&store);
}

#[test]
fn kept_mail_is_purged_by_day_and_leaves_free_space() {
    let store = keeping_store(memory());
    let mut days = Vec::new();
    for day in [10, 11, 12] {
        deliver(&store, &[ANN], format!("of day {day}").as_bytes());
        let id = store.read().unwrap().mailbox(&address(ANN)).unwrap().unwrap().id;
        let sequence = uids(&store)[0].0;
        let at = UnixTime(day * DAY + 5);
        let deleted =
            store.write(move |tx| tx.delete_messages(&address(ANN), id, &[sequence], Some(at))).wait();
        assert!(deleted.unwrap());
        days.push(at.day());
    }
    assert_eq!(purge(&store, days[0]), 0);
    assert_eq!((purge(&store, days[2]), store.kept().unwrap().messages), (2, 1));
    assert_clean(&store);
    store.write(|tx| tx.remove_mailbox(&address(ANN), UnixTime(12 * DAY))).wait().unwrap().unwrap();
    assert_eq!(purge(&store, Day::LAST), 2);
    assert_eq!(store.kept().unwrap(), Kept::default());
    assert_eq!(store.read().unwrap().totals().unwrap().text_octets, 0);
    assert_clean(&store);
}

#[test]
fn a_full_disk_takes_deleted_mail_before_it_refuses_new_mail() {
    let disk = memory();
    let store = keeping_store(disk.clone());
    let content = vec![b'x'; 300_000];
    for number in 0..40u8 {
        deliver(&store, &[ANN], &[&[number][..], &content].concat());
    }
    for _ in 0..40 {
        delete(&store, 0);
    }
    disk.set_room(Some(disk.file_len()));
    for number in 100..130u8 {
        let verdict = deliver(&store, &[ANN], &[&[number][..], &content].concat());
        assert_eq!(verdict, [Delivery::Stored], "{number}");
    }
    assert_eq!(uids(&store).len(), 30);
    assert!(store.kept().unwrap().messages < 40);
    assert_clean(&store);
}

#[test]
fn a_backup_includes_deleted_mail() {
    let store = keeping_store(memory());
    deliver(&store, &[ANN], b"one");
    deliver(&store, &[ANN], b"two");
    delete(&store, 0);
    let directory = scratch::directory();
    back_up(&store, &directory.path().join("copy.db"));
    let copy = Store::open(&directory.path().join("copy.db")).unwrap();
    assert_clean(&copy);
    assert_eq!(undelete(&copy, Wanted::Last, false).unwrap().messages, 1);
    assert_eq!(contents(&copy, ANN).len(), 2);
    assert_clean(&copy);
}

#[test]
fn the_id_of_another_server_stays_with_a_deleted_message_until_it_is_gone() {
    let store = keeping_store(memory());
    let import = Import {
        text: text(b"imported"),
        received: UnixTime(1),
        unique_id: Some("its-id".to_owned()),
        repeat: 0,
        tag: 1,
    };
    let take_in = || {
        let import = import.clone();
        store
            .write(move |tx| tx.import(&address(ANN), std::slice::from_ref(&import)))
            .wait()
            .unwrap()
            .unwrap()
    };
    let ids =
        || open_maildrop(&store, ANN).list().unwrap().iter().map(|e| e.unique_id().to_string()).collect();
    assert_eq!(take_in(), [Imported::Stored]);
    let before: Vec<String> = ids();
    delete(&store, 0);
    // Its owner deleted it, so it must not come back from the other server.
    assert_eq!(take_in(), [Imported::AlreadyThere]);
    assert_eq!(undelete(&store, Wanted::Last, false).unwrap().messages, 1);
    assert_eq!(ids(), before);
    delete(&store, 0);
    assert_eq!(undelete(&store, Wanted::Last, true).unwrap().messages, 1);
    assert_ne!(ids(), before);
    delete(&store, 0);
    purge(&store, Day::LAST);
    assert_eq!(take_in(), [Imported::Stored]);
    assert_clean(&store);
}

#[test]
fn a_deleted_mailbox_is_not_adopted_while_it_can_come_back() {
    let store = keeping_store(memory());
    let adopt =
        || store.write(|tx| tx.begin_adoption(&address(ANN), credential(), UnixTime(1))).wait().unwrap();
    let remove = || store.write(|tx| tx.remove_mailbox(&address(ANN), UnixTime(1))).wait().unwrap().unwrap();
    let fault = || Fault::damaged("as a test has it");
    remove();
    assert_eq!(adopt(), Adoption::NotAdoptable);
    assert_eq!(undelete(&store, Wanted::Last, false).unwrap().mailboxes, 1);
    assert_eq!(adopt(), Adoption::Begun);
    // Deletions and purges that were rolled back.
    let undone = store.write(move |tx| {
        let _ = tx.remove_mailbox(&address(ANN), UnixTime(1))?;
        assert_eq!(tx.begin_adoption(&address(ANN), credential(), UnixTime(1))?, Adoption::NotAdoptable);
        Err::<(), _>(fault())
    });
    assert!(undone.wait().is_err());
    assert_eq!(adopt(), Adoption::Begun);
    remove();
    assert_eq!(adopt(), Adoption::NotAdoptable);
    let undone = store.write(move |tx| {
        tx.purge(Day::LAST, 10)?;
        assert_eq!(tx.begin_adoption(&address(ANN), credential(), UnixTime(1))?, Adoption::Begun);
        Err::<(), _>(fault())
    });
    assert!(undone.wait().is_err());
    assert_eq!(adopt(), Adoption::NotAdoptable);
    purge(&store, Day::LAST);
    assert_eq!(adopt(), Adoption::Begun);
    assert_clean(&store);
}
