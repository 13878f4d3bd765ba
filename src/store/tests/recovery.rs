//! What survives when the index is reopened after a fault: pins on texts, ended sessions, readers.

use std::time::{Duration, Instant};

use super::*;

const ANN: &str = "ann@example.com";
const BOB: &str = "bob@example.com";

/// More changes and syncs than one small transaction makes.
const OPERATIONS: u64 = 40;

fn place_of(store: &Store, content: &[u8]) -> u64 {
    stored_text(store, content).unwrap().at
}

#[test]
fn a_text_that_is_being_read_is_not_overwritten_after_a_fault_either() {
    let mut deleted_in_spite_of_it = 0;
    for operations in 0..OPERATIONS {
        let disk = Arc::new(SimulatedDisk::default());
        let store = store_with(&[ANN, BOB], disk.clone());
        deliver(&store, &[ANN], b"held");
        let maildrop = open_maildrop(&store, ANN);
        let uid = maildrop.list().unwrap()[0].uid;
        let held = maildrop.message(uid).unwrap().unwrap();
        let at = place_of(&store, b"held");
        disk.fail_after(Some(operations));
        let answer = maildrop.delete(&[uid]).wait();
        let failed = disk.has_failed();
        disk.fail_after(None);
        deliver(&store, &[BOB], b"like");
        assert_ne!(place_of(&store, b"like"), at, "{operations} operations, {answer:?}");
        if failed && contents(&store, BOB).len() == 1 && maildrop.list().unwrap().is_empty() {
            deleted_in_spite_of_it += 1;
        }
        drop(held);
        deliver(&store, &[BOB], b"then");
        assert_clean(&store);
    }
    assert!(deleted_in_spite_of_it > 0, "no commit got through although the disk reported a fault");
}

#[test]
fn a_lock_that_survives_a_fault_ends_the_session() {
    let mut locked_in_spite_of_it = 0;
    for operations in 0..OPERATIONS {
        let disk = Arc::new(SimulatedDisk::default());
        let store = store_with(&[ANN], disk.clone());
        let maildrop = open_maildrop(&store, ANN);
        disk.fail_once_after(operations);
        let answer = store.write(|tx| tx.lock_mailbox(&address(ANN))).wait();
        let failed = disk.has_failed();
        disk.fail_after(None);
        if let Ok(answer) = answer {
            assert_eq!(answer, Ok(LockChange::Changed));
            let ended = smol::block_on(smol::future::poll_once(maildrop.revocation().happened()));
            assert!(ended.is_some(), "{operations} operations");
            locked_in_spite_of_it += usize::from(failed);
        }
    }
    assert!(locked_in_spite_of_it > 0, "no commit got through although the disk reported a fault");
}

/// A store whose reader met a disk fault; the disk has recovered.
fn after_a_reader_met_a_fault() -> Store {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    disk.fail_altogether();
    // Read like redb does if the page is not in its cache.
    let index = container::IndexBackend(store.read().unwrap().container().clone());
    assert!(redb::StorageBackend::read(&index, 4096, &mut [0; 4096]).is_err());
    assert!(store.open_maildrop(&address(ANN)).is_err());
    // The first attempt to reopen it fails too.
    assert!(store.write(|_| Ok(())).wait().is_err());
    disk.fail_after(None);
    store
}

#[test]
fn the_store_recovers_from_a_fault_that_a_reader_met_without_a_write() {
    let store = after_a_reader_met_a_fault();
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.open_maildrop(&address(ANN)).is_err() {
        assert!(Instant::now() < deadline, "nobody has opened the index anew");
        std::thread::yield_now();
    }
}

#[test]
fn mail_is_accepted_at_once_after_a_reader_met_a_fault() {
    let store = after_a_reader_met_a_fault();
    assert_eq!(deliver(&store, &[ANN], b"as if nothing had been"), [Delivery::Stored]);
}

#[test]
fn a_job_that_panics_harms_only_itself() {
    let store = store_with(&[ANN], Arc::new(SimulatedDisk::default()));
    let before = text(b"before");
    let letters = [letter(ANN, 1)];
    let asked = [
        store.write(move |tx| tx.deliver(&before, &letters, UnixTime(1))),
        store.write(|tx| {
            tx.deliver(&text(b"undone"), &[letter(ANN, 2)], UnixTime(1))?;
            panic!("as a bug would");
        }),
    ];
    let [stored, panicked] = asked.map(Pending::wait);
    assert_eq!(stored.unwrap(), [Delivery::Stored]);
    assert!(matches!(panicked, Err(Fault::Damaged(_))), "{panicked:?}");
    assert_eq!(deliver(&store, &[ANN], b"after"), [Delivery::Stored]);
    assert_eq!(contents(&store, ANN).len(), 2);
    assert_clean(&store);
}

#[test]
fn much_mail_can_be_deleted_at_once_on_a_full_disk() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    for batch in 0..120 {
        let letters: Vec<_> = (0..100).map(|tag| letter(ANN, tag)).collect();
        let delivered = store.write(move |tx| {
            for (number, letter) in letters.iter().enumerate() {
                let text = text(format!("{batch} {number}").as_bytes());
                assert_eq!(tx.deliver(&text, std::slice::from_ref(letter), UnixTime(1))?, [Delivery::Stored]);
            }
            Ok(())
        });
        delivered.wait().unwrap();
    }
    disk.set_room(Some(disk.file_len()));
    let mut stored = 0;
    while deliver(&store, &[ANN], format!("{stored}{}", "x".repeat(9_000)).as_bytes()) == [Delivery::Stored] {
        stored += 1;
    }
    let maildrop = open_maildrop(&store, ANN);
    let uids: Vec<_> = maildrop.list().unwrap().iter().map(|entry| entry.uid).collect();
    assert_eq!(uids.len(), 12_000 + stored);
    // Every third one, so that each index page is touched and none is freed.
    for from in 0..3 {
        let part: Vec<_> = uids.iter().skip(from).step_by(3).copied().collect();
        assert!(maildrop.delete(&part).wait().unwrap());
    }
    assert_clean(&store);
}

/// After a failed sync Linux forgets what it had to write, and the next sync succeeds without it.
#[test]
fn a_failed_sync_is_repeated() {
    for syncs in 0..8 {
        let disk = Arc::new(SimulatedDisk::recording());
        let store = store_with(&[ANN], disk.clone());
        disk.fail_sync_after(syncs);
        // Long rows make the index grow by whole extents.
        let fields = format!("Received: {}\r\n", "x".repeat(40_000)).into_bytes();
        let grown = store.write(move |tx| {
            for tag in 0..60 {
                let letters = [Letter { prefix: fields.clone(), ..letter(ANN, tag) }];
                assert_eq!(tx.deliver(&text(b"long"), &letters, UnixTime(1))?, [Delivery::Stored]);
            }
            Ok(())
        });
        let grown = grown.wait().is_ok();
        while try_deliver(&store, &[ANN], b"after it").is_err() {}
        let cut = disk.events();
        for seed in 0..4 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let found = disk.replay().crash(cut, 0.0, &mut rng);
            let found = Store::open_on(Arc::new(found)).unwrap_or_else(|e| panic!("{syncs} syncs: {e}"));
            assert_clean(&found);
            assert_eq!(contents(&found, ANN).len(), if grown { 61 } else { 1 }, "{syncs} syncs");
        }
    }
}

#[test]
fn deleted_mail_is_overwritten_in_the_log_too_if_a_fault_comes_before_the_checkpoint() {
    let mut faults = 0;
    for operations in 0..OPERATIONS {
        let disk = Arc::new(SimulatedDisk::default());
        let store = store_with(&[ANN, BOB], disk.clone());
        deliver(&store, &[ANN], b"a secret");
        store.write(|tx| tx.remove_mailbox(&address(ANN), UnixTime(1))).wait().unwrap().unwrap();
        disk.fail_once_after(operations);
        faults += usize::from(try_deliver(&store, &[BOB], b"refused").is_err());
        disk.fail_after(None);
        deliver(&store, &[BOB], b"next");
        checkpoint(&store);
        assert!(memchr::memmem::find(&disk.octets(), b"a secret").is_none(), "{operations} operations");
        assert_clean(&store);
    }
    assert!(faults > 0);
}
