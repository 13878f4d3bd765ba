//! Disks that fail or fill up while the store is in use.

use super::*;

const ANN: &str = "ann@example.com";

#[test]
fn a_full_disk_refuses_mail_lets_readers_delete_and_recovers() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    disk.set_room(Some(disk.file_len() + 6 * format::EXTENT));
    let mut stored = 0;
    while deliver(&store, &[ANN], format!("{stored}{}", "x".repeat(50_000)).as_bytes()) == [Delivery::Stored]
    {
        stored += 1;
    }
    assert!(stored > 10, "{stored}");
    assert_eq!(deliver(&store, &[ANN], &vec![b'y'; 3 << 20]), [Delivery::DiskFull]);
    let maildrop = open_maildrop(&store, ANN);
    let entries = maildrop.list().unwrap();
    assert_eq!(entries.len(), stored);
    for entry in &entries {
        assert!(maildrop.message(entry.uid).unwrap().is_some());
    }
    let half: Vec<_> = entries.iter().step_by(2).map(|entry| entry.uid).collect();
    assert!(maildrop.delete(&half).wait().unwrap());
    drop(maildrop);
    assert_clean(&store);
    assert_eq!(deliver(&store, &[ANN], &vec![b'z'; 40_000]), [Delivery::Stored]);
    assert_clean(&store);
}

#[test]
fn the_index_may_use_the_reserve_when_the_disk_is_full() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    disk.set_room(Some(disk.file_len()));
    // Some room for texts is left in present extents; use it up.
    while deliver(&store, &[ANN], &[b'x'; 400_000]) == [Delivery::Stored] {
        if disk.file_len() > 100 * format::EXTENT {
            panic!("the disk is never full");
        }
        let maildrop = open_maildrop(&store, ANN);
        if maildrop.totals().messages > 3000 {
            break;
        }
    }
    let maildrop = open_maildrop(&store, ANN);
    let uids: Vec<_> = maildrop.list().unwrap().iter().map(|entry| entry.uid).collect();
    assert!(maildrop.delete(&uids).wait().unwrap());
    drop(maildrop);
    assert_clean(&store);
}

/// Makes the disk fail after each number of operations in turn. A delivery answered with a verdict is there;
/// one answered with a fault is there only if the disk could not even be read at that point.
#[test]
fn a_disk_that_fails_and_comes_back_costs_only_what_was_refused() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    let mut stored = 0;
    let mut failed = 0;
    let mut doubtful = 0;
    for operations in (0..60).cycle().take(300) {
        disk.fail_after(Some(operations));
        for _ in 0..3 {
            match try_deliver(&store, &[ANN], format!("{stored} of {operations}").as_bytes()) {
                Ok(verdicts) if verdicts == [Delivery::Stored] => stored += 1,
                Ok(verdicts) => assert_eq!(verdicts, [Delivery::DiskFull]),
                Err(_) => failed += 1,
            }
        }
        disk.fail_after(None);
        assert_eq!(deliver(&store, &[ANN], b"the disk is back"), [Delivery::Stored]);
        stored += 1;
        let there = open_maildrop(&store, ANN).totals().messages;
        assert!((stored..=stored + 1).contains(&there), "{there} are there, {stored} were acknowledged");
        doubtful += there - stored;
        stored = there;
    }
    assert!(failed > 50, "the disk failed only {failed} times");
    assert!(doubtful < failed / 3, "of {failed} faults {doubtful} were of transactions that had got through");
    assert_clean(&store);
    drop(store);
    let store = Store::open_on(disk).unwrap();
    assert_eq!(open_maildrop(&store, ANN).list().unwrap().len() as u64, stored);
    assert_clean(&store);
}

/// The transactions delete messages in order, each of them all its messages or none.
#[test]
fn many_deletions_that_meet_a_fault_leave_the_later_messages() {
    const MESSAGES: usize = 200;
    let mut partial = 0;
    for operations in 0..12 {
        let disk = Arc::new(SimulatedDisk::default());
        let store = store_with(&[ANN], disk.clone());
        deliver(&store, &[ANN; MESSAGES], b"one text");
        let maildrop = open_maildrop(&store, ANN);
        let uids: Vec<_> = maildrop.list().unwrap().iter().map(|entry| entry.uid).collect();
        disk.fail_after(Some(operations));
        let outcome = maildrop.delete(&uids).wait();
        disk.fail_after(None);
        drop(maildrop);
        store.write(|_| Ok(())).wait().unwrap();
        let left: Vec<_> = open_maildrop(&store, ANN).list().unwrap().iter().map(|entry| entry.uid).collect();
        assert!(uids.ends_with(&left) && (left.is_empty() || (MESSAGES - left.len()).is_multiple_of(64)));
        assert!(outcome.is_err() || left.is_empty(), "{} are left", left.len());
        partial += usize::from(!left.is_empty() && left.len() < MESSAGES);
        assert_clean(&store);
    }
    assert!(partial > 0);
}

/// A backup or a check may take minutes.
#[test]
fn long_reading_ends_when_the_index_must_be_reopened() {
    const READS_MAX: usize = 2_000_000;
    let store = store_with(&[ANN], Arc::new(SimulatedDisk::default()));
    deliver(&store, &[ANN], b"one");
    let (_pin, snapshot) = store.read_at_checkpoint().wait().unwrap();
    let at = snapshot.text(TextId(0)).unwrap().unwrap().at;
    let reader = std::thread::spawn(move || {
        let read = || snapshot.container().read_blob(at, &mut [0]);
        (0..READS_MAX).find_map(|_| read().err()).map(|_| ())
    });
    let bug = store.write(|_| -> Result<(), Fault> { panic!("a bug") });
    assert!(bug.wait().is_err());
    assert_eq!(deliver(&store, &[ANN], b"two"), [Delivery::Stored]);
    assert_eq!(reader.join().unwrap(), Some(()), "the delivery waited for the reader");
    assert_eq!(contents(&store, ANN).len(), 2);
    assert_clean(&store);
}
