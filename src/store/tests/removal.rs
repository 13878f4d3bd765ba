//! Removing more mail than one transaction deletes, with nothing kept.

use super::*;

const ANN: &str = "ann@example.com";
const BOB: &str = "bob@example.com";
const EVE: &str = "eve@example.net";
const MESSAGES: usize = 200;

/// ANN and BOB have more mail than one transaction deletes, EVE has one message.
fn filled(disk: Arc<SimulatedDisk>) -> Store {
    let store = store_with(&[ANN, BOB, EVE], disk);
    for number in 0..MESSAGES / 20 {
        for mailbox in [ANN, BOB] {
            deliver(&store, &[mailbox; 20], format!("number {number}").as_bytes());
        }
    }
    deliver(&store, &[EVE], b"stays");
    checkpoint(&store);
    store
}

fn remove(store: &Store, mailbox: &str) -> Removed {
    let mailbox = address(mailbox);
    store.write(move |tx| tx.remove_mailbox(&mailbox, UnixTime(1))).wait().unwrap().unwrap()
}

/// After a cut at any moment the mailbox either has all its mail or is gone. In that case the rest of its mail is
/// deleted when the store is used again.
#[test]
fn a_large_mailbox_goes_piece_by_piece_and_no_cut_leaves_half_of_it() {
    let disk = Arc::new(SimulatedDisk::recording());
    let store = filled(disk.clone());
    let begin = disk.events();
    assert_eq!(remove(&store, ANN).messages, MESSAGES as u64);
    let purged = store.purge_unkept().unwrap();
    assert_eq!(purged, MESSAGES as u64 + 1, "the mailbox counts too");
    drop(store);
    let mut rng = fastrand::Rng::with_seed(20260404);
    let mut replay = disk.replay();
    let (mut whole, mut partial, mut gone) = (0, 0, 0);
    for cut in begin..=disk.events() {
        let found = Arc::new(replay.crash(cut, rng.f64(), &mut rng));
        let store = Store::open_on(found).unwrap_or_else(|e| panic!("cut {cut}: {e}"));
        assert_clean(&store);
        if store.read().unwrap().mailbox(&address(ANN)).unwrap().is_some() {
            whole += 1;
            assert_eq!(open_maildrop(&store, ANN).list().unwrap().len(), MESSAGES, "cut {cut}");
            continue;
        }
        let left = store.kept().unwrap().messages as usize;
        *(if left > 0 && left < MESSAGES { &mut partial } else { &mut gone }) += 1;
        let undeleted = store.undelete_mailbox(&address(ANN), Wanted::All, false).unwrap();
        assert_eq!(undeleted, Err(Refused::NothingDeleted(address(ANN))), "cut {cut}");
        store.purge_unkept().unwrap();
        assert_eq!(store.kept().unwrap(), Kept::default(), "cut {cut}");
        assert_eq!(contents(&store, BOB).len(), MESSAGES, "cut {cut}");
        assert_clean(&store);
    }
    assert!(whole > 0 && partial > 10 && gone > 0, "{whole} whole, {partial} partly gone, {gone} gone");
}

#[test]
fn a_domain_with_large_mailboxes_goes_at_once_and_its_mail_piece_by_piece() {
    let disk = Arc::new(SimulatedDisk::recording());
    let store = filled(disk.clone());
    let domain: Domain = "example.com".parse().unwrap();
    let (begin, name) = (disk.events(), domain.clone());
    let removed = store.write(move |tx| tx.remove_domain(&name, UnixTime(1))).wait().unwrap().unwrap();
    assert_eq!((removed.mailboxes, removed.messages), (2, 2 * MESSAGES as u64));
    let (_, at_once) = disk.work_since(begin);
    assert!(at_once < 16 << 10, "{at_once} octets were written by the one transaction");
    assert_eq!(deliver(&store, &[ANN], b"x"), [Delivery::NoSuchMailbox]);
    // The name is free again, and its next owner gets nothing of the old mail.
    add_mailbox(&store, ANN);
    assert_clean(&store);
    let purged = store.purge_unkept().unwrap();
    assert_eq!((purged, store.kept().unwrap()), (2 * MESSAGES as u64 + 2, Kept::default()));
    assert_eq!((contents(&store, ANN).len(), contents(&store, EVE).len()), (0, 1));
    let wanted = domain.clone();
    let undeleted = store.write(move |tx| tx.undelete_domain(&wanted)).wait().unwrap();
    assert_eq!(undeleted, Err(Refused::DomainNotDeleted(domain)));
    assert_clean(&store);
}

/// Erasing costs what the log has held, not the length of its zone, and waits for a checkpoint.
#[test]
fn purging_in_small_steps_writes_a_little_for_each_message() {
    let disk = Arc::new(SimulatedDisk::recording());
    let store = store_with(&[ANN, EVE], disk.clone());
    // Nobody knows what the zone holds when it is opened, so it is erased in full once.
    deliver(&store, &[EVE], b"first");
    remove(&store, EVE);
    checkpoint(&store);
    keep_deleted(&store, "7");
    (0..MESSAGES).for_each(|number| drop(deliver(&store, &[ANN], format!("secret {number}").as_bytes())));
    remove(&store, ANN);
    let is_in_file = || memchr::memmem::find(&disk.octets(), b"secret").is_some();
    checkpoint(&store);
    let begin = disk.events();
    for _ in 0..MESSAGES / 4 {
        assert_eq!(store.write(|tx| tx.purge(Day::LAST, 4)).wait().unwrap(), 4);
    }
    let (_, purging) = disk.work_since(begin);
    assert!(purging <= MESSAGES * 2048, "{purging} octets to purge {MESSAGES} messages");
    assert!(is_in_file());
    let begin = disk.events();
    checkpoint(&store);
    let (_, erasing) = disk.work_since(begin);
    assert!(erasing <= MESSAGES * 4096, "{erasing} octets for the checkpoint");
    assert!(!is_in_file());
    assert_clean(&store);
}

#[test]
fn a_domain_whose_purge_was_interrupted_does_not_come_back_in_part() {
    let store = filled(Arc::new(SimulatedDisk::default()));
    keep_deleted(&store, "7");
    let domain: Domain = "example.com".parse().unwrap();
    let name = domain.clone();
    store.write(move |tx| tx.remove_domain(&name, UnixTime(1))).wait().unwrap().unwrap();
    keep_deleted(&store, "0");
    assert_eq!(store.write(|tx| tx.purge(Day::LAST, MESSAGES / 2)).wait().unwrap(), MESSAGES / 2);
    let name = domain.clone();
    let undeleted = store.write(move |tx| tx.undelete_domain(&name)).wait().unwrap();
    assert_eq!(undeleted, Err(Refused::DomainNotDeleted(domain)));
}

/// After a cut at any moment the rest of the domain can be deleted, and all of it comes back.
#[test]
fn a_domain_of_many_mailboxes_goes_piece_by_piece_and_comes_back_whole() {
    const MAILBOXES: usize = 40;
    let disk = Arc::new(SimulatedDisk::recording());
    let store = store_with(&[EVE], disk.clone());
    keep_deleted(&store, "7");
    let names: Vec<String> = (0..MAILBOXES).map(|number| format!("user{number}@example.com")).collect();
    names.iter().for_each(|name| add_mailbox(&store, name));
    deliver(&store, &[&names[7]], b"one");
    checkpoint(&store);
    let domain: Domain = "example.com".parse().unwrap();
    let (begin, commits) = (disk.events(), store.read().unwrap().totals().unwrap().commits);
    let removed = store.remove_domain(&domain, UnixTime(1)).unwrap().unwrap();
    assert_eq!((removed.mailboxes, removed.messages), (MAILBOXES as u64, 1));
    let pieces = store.read().unwrap().totals().unwrap().commits - commits;
    assert!(pieces > 3, "other changes had {pieces} turns at most");
    drop(store);
    let mut rng = fastrand::Rng::with_seed(20261128);
    let (mut replay, mut partial) = (disk.replay(), 0);
    for cut in begin..=disk.events() {
        let store = Store::open_on(Arc::new(replay.crash(cut, rng.f64(), &mut rng))).unwrap();
        assert_clean(&store);
        if store.read().unwrap().domain(&domain).unwrap().is_some() {
            let left = store.remove_domain(&domain, UnixTime(2)).unwrap().unwrap().mailboxes;
            partial += usize::from(left < MAILBOXES as u64);
        }
        let name = domain.clone();
        let restored = store.write(move |tx| tx.undelete_domain(&name)).wait().unwrap().unwrap();
        assert_eq!((restored.mailboxes, restored.messages), (MAILBOXES as u64, 1), "cut {cut}");
        assert_clean(&store);
    }
    assert!(partial >= 3, "{partial} cuts left a part");
}
