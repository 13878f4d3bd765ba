//! The store's behaviour when nothing fails.

use super::*;

const ANN: &str = "ann@example.com";
const BOB: &str = "bob@example.com";

fn memory() -> Arc<SimulatedDisk> {
    Arc::new(SimulatedDisk::default())
}

#[test]
fn a_message_comes_back_with_its_prefix_and_exact_size() {
    let store = store_with(&[ANN], memory());
    assert_eq!(deliver(&store, &[ANN], b"Subject: a\n\n.dots\n..\nend"), [Delivery::Stored]);
    assert_eq!(
        contents(&store, ANN),
        [b"Delivered-To: ann@example.com\r\nSubject: a\r\n\r\n..dots\r\n...\r\nend\r\n".to_vec()]
    );
    assert_clean(&store);
}

#[test]
fn an_empty_text_is_a_message_too() {
    let store = store_with(&[ANN], memory());
    assert_eq!(deliver(&store, &[ANN], b""), [Delivery::Stored]);
    assert_eq!(contents(&store, ANN), [b"Delivered-To: ann@example.com\r\n".to_vec()]);
    assert_clean(&store);
}

#[test]
fn one_text_is_stored_once_and_lives_as_long_as_one_of_its_messages() {
    let store = store_with(&[ANN, BOB], memory());
    deliver(&store, &[ANN, BOB], b"the same");
    deliver(&store, &[BOB], b"the same");
    assert_eq!(store.read().unwrap().totals().unwrap().text_octets, 10);
    let maildrop = open_maildrop(&store, BOB);
    let uids: Vec<_> = maildrop.list().unwrap().iter().map(|entry| entry.uid).collect();
    assert!(maildrop.delete(&uids).wait().unwrap());
    drop(maildrop);
    assert_eq!(contents(&store, ANN).len(), 1);
    assert_eq!(contents(&store, BOB).len(), 0);
    assert_eq!(store.read().unwrap().totals().unwrap().text_octets, 10);
    assert_clean(&store);
}

#[test]
fn a_damaged_text_is_repaired_by_the_next_message_that_has_it() {
    let disk = memory();
    let store = store_with(&[ANN], disk.clone());
    deliver(&store, &[ANN], b"precious");
    let at = stored_text(&store, b"precious").unwrap().at;
    disk.write_at(at, b"X").unwrap();
    assert_eq!(store.check(&Progress::default()).unwrap().findings_total, 1);
    deliver(&store, &[ANN], b"precious");
    assert_clean(&store);
    assert!(contents(&store, ANN).iter().all(|content| content.ends_with(b"\r\nprecious\r\n")));
}

#[test]
fn a_session_sees_its_maildrop_as_it_was_at_login() {
    let store = store_with(&[ANN], memory());
    deliver(&store, &[ANN], b"before");
    let maildrop = open_maildrop(&store, ANN);
    deliver(&store, &[ANN], b"after");
    assert_eq!(maildrop.totals().messages, 1);
    assert_eq!(maildrop.list().unwrap().len(), 1);
    drop(maildrop);
    assert_eq!(open_maildrop(&store, ANN).list().unwrap().len(), 2);
}

#[test]
fn only_one_session_can_have_a_maildrop() {
    let store = store_with(&[ANN], memory());
    let first = open_maildrop(&store, ANN);
    assert_eq!(login_name(&store.open_maildrop(&address(ANN)).unwrap()), "in use");
    // The refusal must not have released the first session's claim.
    assert_eq!(login_name(&store.open_maildrop(&address(ANN)).unwrap()), "in use");
    drop(first);
    assert_eq!(login_name(&store.open_maildrop(&address(ANN)).unwrap()), "welcome");
}

#[test]
fn a_lock_ends_the_session_and_its_deletions_but_not_delivery() {
    let store = store_with(&[ANN, BOB], memory());
    deliver(&store, &[ANN, BOB], b"text");
    for by_domain in [false, true] {
        let maildrop = open_maildrop(&store, ANN);
        let uids: Vec<_> = maildrop.list().unwrap().iter().map(|entry| entry.uid).collect();
        let ann = address(ANN);
        let locked = store.write(move |tx| match by_domain {
            true => tx.lock_domain(&ann.domain),
            false => tx.lock_mailbox(&ann),
        });
        assert_eq!(locked.wait().unwrap(), Ok(LockChange::Changed));
        smol::block_on(maildrop.revocation().happened());
        assert!(!maildrop.delete(&uids).wait().unwrap());
        drop(maildrop);
        assert_eq!(login_name(&store.open_maildrop(&address(ANN)).unwrap()), "locked");
        assert_eq!(deliver(&store, &[ANN], b"more"), [Delivery::Stored]);
        let unlocked = store.write(|tx| tx.unlock_domain(&"example.com".parse().unwrap()));
        assert_eq!(unlocked.wait().unwrap(), Ok(LockChange::Changed));
    }
    assert_eq!(contents(&store, ANN).len(), 3);
    assert_clean(&store);
}

#[test]
fn a_mailbox_is_unlocked_alone_only_while_its_domain_is_not_locked() {
    let store = store_with(&[ANN], memory());
    let outcome = store.write(|tx| {
        let ann = address(ANN);
        let first = tx.lock_domain(&ann.domain)?;
        Ok((first, tx.lock_domain(&ann.domain)?, tx.unlock_mailbox(&ann)?))
    });
    let expected =
        (Ok(LockChange::Changed), Ok(LockChange::AlreadySo), Err(Refused::DomainLocked(address(ANN))));
    assert_eq!(outcome.wait().unwrap(), expected);
}

#[test]
fn deleting_a_domain_takes_its_mail_and_leaves_the_others() {
    let store = store_with(&[ANN, BOB, "carol@example.net"], memory());
    for _ in 0..3 {
        deliver(&store, &[ANN, BOB, "carol@example.net"], b"shared");
    }
    let removed = store
        .write(|tx| tx.remove_domain(&"example.com".parse::<Domain>().unwrap(), UnixTime(1)))
        .wait()
        .unwrap();
    let octets = 6 * (b"Delivered-To: ann@example.com\r\nshared\r\n".len() as u64);
    assert_eq!(removed, Ok(Removed { mailboxes: 2, messages: 6, octets }));
    assert_eq!(deliver(&store, &[ANN], b"x"), [Delivery::NoSuchMailbox]);
    assert_eq!(contents(&store, "carol@example.net").len(), 3);
    assert_clean(&store);
}

#[test]
fn a_recreated_mailbox_shares_no_uid_with_the_old_one() {
    let store = store_with(&[ANN], memory());
    deliver(&store, &[ANN], b"old");
    let old = open_maildrop(&store, ANN).list().unwrap();
    assert!(store.write(|tx| tx.remove_mailbox(&address(ANN), UnixTime(1))).wait().unwrap().is_ok());
    add_mailbox(&store, ANN);
    assert!(store.write(|tx| tx.deliver(&text(b"new"), &[letter(ANN, 8)], UnixTime(1))).wait().is_ok());
    let new = open_maildrop(&store, ANN).list().unwrap();
    assert_ne!(old[0].uid, new[0].uid);
}

#[test]
fn a_loop_is_refused() {
    let store = store_with(&[ANN, BOB], memory());
    let looping = b"Delivered-To: ann@example.com\n\ntext";
    assert_eq!(deliver(&store, &[ANN, BOB], looping), [Delivery::Loop, Delivery::Stored]);
    let received = "Received: x\n".repeat(101);
    assert_eq!(deliver(&store, &[BOB], received.as_bytes()), [Delivery::Loop]);
}

#[test]
fn mail_for_a_detail_goes_to_the_mailbox() {
    let store = store_with(&[ANN], memory());
    assert_eq!(deliver(&store, &["ann+lists@example.com"], b"x"), [Delivery::Stored]);
    assert_eq!(contents(&store, ANN).len(), 1);
}

#[test]
fn space_of_deleted_mail_is_used_again() {
    let disk = memory();
    let store = store_with(&[ANN], disk.clone());
    let mut rng = fastrand::Rng::with_seed(3);
    let mut longest = 0;
    for round in 0..30 {
        for _ in 0..20 {
            let body: Vec<u8> = (0..rng.usize(1..60_000)).map(|_| rng.alphanumeric() as u8).collect();
            deliver(&store, &[ANN], &body);
        }
        let maildrop = open_maildrop(&store, ANN);
        let uids: Vec<_> = maildrop.list().unwrap().iter().map(|entry| entry.uid).collect();
        assert!(maildrop.delete(&uids).wait().unwrap());
        if round == 4 {
            longest = disk.file_len();
        }
    }
    assert!(disk.file_len() <= longest + 2 * format::EXTENT, "{} after {longest}", disk.file_len());
    assert_clean(&store);
}

#[test]
fn a_text_that_is_being_read_is_not_overwritten() {
    let store = store_with(&[ANN], memory());
    deliver(&store, &[ANN], b"held");
    let maildrop = open_maildrop(&store, ANN);
    let entry = maildrop.list().unwrap().remove(0);
    let held = maildrop.message(entry.uid).unwrap().unwrap();
    let at = stored_text(&store, b"held").unwrap().at;
    assert!(maildrop.delete(&[entry.uid]).wait().unwrap());
    let place_of = |content: &'static [u8]| {
        deliver(&store, &[ANN], content);
        stored_text(&store, content).unwrap().at
    };
    assert_ne!(place_of(b"one"), at);
    drop(held);
    // All holes together are small, so mail is appended; the hole is free again nevertheless.
    deliver(&store, &[ANN], b"two");
    assert_clean(&store);
}

#[test]
fn a_store_is_opened_as_it_was_closed() {
    let disk = memory();
    let store = store_with(&[ANN], disk.clone());
    deliver(&store, &[ANN], b"kept");
    let before = open_maildrop(&store, ANN).list().unwrap();
    drop(store);
    let store = Store::open_on(disk).unwrap();
    assert_eq!(open_maildrop(&store, ANN).list().unwrap(), before);
    assert_clean(&store);
}

#[test]
fn a_snapshot_outlives_the_store() {
    let disk = memory();
    let store = store_with(&[ANN], disk.clone());
    deliver(&store, &[ANN], b"kept");
    let snapshot = store.read().unwrap();
    drop(store);
    assert_eq!(snapshot.totals().unwrap().messages, 1);
    drop(snapshot);
    assert_eq!(contents(&Store::open_on(disk).unwrap(), ANN).len(), 1);
}

#[test]
fn texts_longer_than_an_extent_lie_in_one_piece() {
    let store = store_with(&[ANN], memory());
    let body = vec![b'x'; 3 * format::EXTENT as usize + 17];
    deliver(&store, &[ANN], &body);
    deliver(&store, &[ANN], b"short");
    deliver(&store, &[ANN], &body[1..]);
    assert_eq!(contents(&store, ANN).iter().map(Vec::len).max(), Some(body.len() + 2 + 31));
    assert_clean(&store);
}

#[test]
fn a_text_in_a_file_is_stored_like_one_in_memory_and_shares_its_place() {
    let store = store_with(&[ANN, BOB], Arc::default());
    let in_memory = text(&b"a line that comes again and again\r\n".repeat(30_000));
    let Body::Octets(octets) = &in_memory.wire else { panic!("it is in memory") };
    let directory = scratch::directory();
    let mut spool = Spool::create(directory.path()).unwrap();
    octets.chunks(100_000).for_each(|piece| spool.append(piece).unwrap());
    let in_file = in_memory.clone().with_wire(|_| Body::File(Arc::new(spool)));
    let octets = octets.clone();
    for (recipient, text) in [(ANN, in_file.clone()), (BOB, in_memory), (ANN, in_file)] {
        let stored =
            store.write(move |tx| tx.deliver(&text, &[letter(recipient, 1)], UnixTime(1))).wait().unwrap();
        assert_eq!(stored, [Delivery::Stored]);
        assert_eq!(store.read().unwrap().totals().unwrap().text_octets, octets.len() as u64);
    }
    for content in contents(&store, ANN) {
        assert!(content.ends_with(&octets));
    }
    assert_clean(&store);
}

/// True if these octets are anywhere in the file.
fn is_in_file(disk: &SimulatedDisk, octets: &[u8]) -> bool {
    memchr::memmem::find(&disk.octets(), octets).is_some()
}

#[test]
fn the_mail_of_a_deleted_mailbox_is_overwritten_unless_a_setting_says_otherwise() {
    const SECRET: &[u8] = b"a word that only one text contains";
    for (len, erase, stays) in
        [(100, None, false), (200_000, None, false), (100, Some("1"), false), (100, Some("0"), true)]
    {
        let disk = Arc::new(SimulatedDisk::default());
        let store = store_with(&[ANN, BOB], disk.clone());
        store.write(move |tx| tx.set_setting("erase", erase)).wait().unwrap();
        let content = [SECRET, &vec![b'x'; len], SECRET].concat();
        deliver(&store, &[ANN], &content);
        deliver(&store, &[BOB], b"kept");
        assert!(is_in_file(&disk, SECRET));
        assert!(store.write(|tx| tx.remove_mailbox(&address(ANN), UnixTime(1))).wait().unwrap().is_ok());
        checkpoint(&store);
        assert_eq!(is_in_file(&disk, SECRET), stays, "{len} octets, erase {erase:?}");
        assert_eq!(contents(&store, BOB).len(), 1);
        assert_clean(&store);
    }
}

#[test]
fn texts_being_read_or_shared_are_not_overwritten() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN, BOB], disk.clone());
    deliver(&store, &[ANN, BOB], b"a text of both");
    deliver(&store, &[ANN], b"a text of ann's");
    let maildrop = open_maildrop(&store, ANN);
    let held = maildrop.message(maildrop.list().unwrap()[1].uid).unwrap().unwrap();
    assert!(store.write(|tx| tx.remove_mailbox(&address(ANN), UnixTime(1))).wait().unwrap().is_ok());
    checkpoint(&store);
    assert!(is_in_file(&disk, b"a text of both") && is_in_file(&disk, b"a text of ann's"));
    drop(held);
    deliver(&store, &[BOB], b"and more");
    assert!(is_in_file(&disk, b"a text of both") && !is_in_file(&disk, b"a text of ann's"));
    assert_clean(&store);
}

#[test]
fn a_text_that_comes_again_is_stored_once_and_once_more_after_a_start() {
    let disk = memory();
    let store = store_with(&[ANN, BOB], disk.clone());
    let texts = |store: &Store| store.check(&Progress::default()).unwrap().texts;
    for _ in 0..3 {
        deliver(&store, &[ANN, BOB], b"again");
    }
    assert_eq!((texts(&store), stored_text(&store, b"again").unwrap().references), (1, 6));
    drop(store);
    let store = Store::open_on(disk).unwrap();
    deliver(&store, &[ANN], b"again");
    deliver(&store, &[BOB], b"again");
    assert_eq!(texts(&store), 2);
    let holds = |content: &Vec<u8>| String::from_utf8_lossy(content).contains("again");
    assert!(contents(&store, ANN).iter().all(holds));
    assert_clean(&store);
    for mailbox in [ANN, BOB] {
        let maildrop = open_maildrop(&store, mailbox);
        let uids: Vec<_> = maildrop.list().unwrap().iter().map(|entry| entry.uid).collect();
        assert!(maildrop.delete(&uids).wait().unwrap());
    }
    assert_eq!(texts(&store), 0);
    // The text is gone, although its hash is still remembered.
    deliver(&store, &[ANN], b"again");
    assert_eq!(texts(&store), 1);
    assert_clean(&store);
}
