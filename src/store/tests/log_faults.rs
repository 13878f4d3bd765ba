//! Faults and full disks during an append to the log, a checkpoint, and a replay after a kill: the fault is
//! reported, nothing acknowledged is lost, and the store goes on when the disk does.

use super::*;

const ANN: &str = "ann@example.com";
/// More changes and syncs than one small transaction or a checkpoint makes.
const OPERATIONS: u64 = 24;

/// Delivers a message; true if it was acknowledged.
fn try_one(store: &Store, number: u64) -> bool {
    let long = if number.is_multiple_of(4) { 80_000 } else { 0 };
    match try_deliver(store, &[ANN], format!("number {number} {}", "x".repeat(long)).as_bytes()) {
        Ok(verdicts) => verdicts == [Delivery::Stored],
        Err(fault) => {
            assert!(!fault.to_string().is_empty());
            false
        }
    }
}

/// True if the error says that the disk failed or is full.
fn is_of_disk(e: &OpenErrorKind) -> bool {
    matches!(e, OpenErrorKind::Io(_) | OpenErrorKind::Fault(Fault::Io(_) | Fault::DiskFull(_)))
}

/// Breaks a disk after a number of operations.
type Trouble = fn(&SimulatedDisk, u64);

/// Each kind of trouble with a name. A full disk refuses every write, also in the log and in extents that the file has,
/// as a file system does that writes every page to a new place.
const TROUBLES: [(&str, Trouble); 3] = [
    ("fault", |disk, operations| disk.fail_after(Some(operations))),
    ("full", |disk, operations| disk.fill_up_after(Some(operations))),
    ("unread", |disk, operations| disk.fail_read_after(Some(operations))),
];

/// Makes the disk whole again, with room.
fn repair_disk(disk: &SimulatedDisk) {
    disk.fail_after(None);
    disk.fill_up_after(None);
    disk.fail_read_after(None);
}

/// The number of messages; the store must be clean.
fn count(store: &Store) -> u64 {
    assert_clean(store);
    open_maildrop(store, ANN).list().unwrap().len() as u64
}

/// The store as found after a kill at this moment.
fn found(disk: &SimulatedDisk) -> Store {
    Store::open_on(Arc::new(disk.copy())).unwrap()
}

#[test]
fn a_fault_during_an_append_loses_only_what_was_refused() {
    let mut refused = 0;
    for operations in 0..OPERATIONS {
        let disk = Arc::new(SimulatedDisk::default());
        let store = store_with(&[ANN], disk.clone());
        assert!(try_one(&store, 1));
        disk.fail_once_after(operations);
        let acknowledged = (2..6).filter(|number| try_one(&store, *number)).count() as u64 + 1;
        refused += 5 - acknowledged;
        disk.fail_after(None);
        assert!(try_one(&store, 7), "{operations} operations");
        let there = count(&store);
        assert!((acknowledged + 1..=6).contains(&there), "{operations}: {acknowledged} of {there}");
        assert_eq!(count(&found(&disk)), there, "{operations} operations");
    }
    assert!(refused > 3, "only {refused} were refused");
}

/// The disk stays full until it is given room. Half of a refused write fits, which may be all that matters of a record:
/// then the first refused message is there too.
#[test]
fn a_disk_without_room_for_the_log_loses_only_what_was_refused() {
    let (mut refused, mut reported) = (0, 0);
    for writes in 0..OPERATIONS {
        let disk = Arc::new(SimulatedDisk::default());
        let store = store_with(&[ANN], disk.clone());
        assert!(try_one(&store, 1));
        disk.fill_up_after(Some(writes));
        let acknowledged = (2..8).filter(|number| try_one(&store, *number)).count() as u64 + 1;
        refused += 7 - acknowledged;
        reported += u64::from(disk.has_failed());
        let there = count(&found(&disk));
        assert!((acknowledged..=acknowledged + 1).contains(&there), "{writes}: {acknowledged} of {there}");
        disk.fill_up_after(None);
        assert!(try_one(&store, 9), "{writes} writes");
        assert_eq!(count(&store), there + 1, "{writes} writes");
        assert_eq!(count(&found(&disk)), there + 1, "{writes} writes");
    }
    assert!(refused > 20 && reported > 5, "{refused} were refused on {reported} disks");
}

#[test]
fn trouble_in_a_checkpoint_loses_nothing_and_the_next_one_makes_up_for_it() {
    for (name, trouble) in TROUBLES {
        let mut failed = 0;
        for operations in 0..OPERATIONS {
            let when = format!("{name} after {operations} operations");
            let disk = Arc::new(SimulatedDisk::default());
            let store = store_with(&[ANN], disk.clone());
            (1..5).for_each(|number| assert!(try_one(&store, number)));
            trouble(&disk, operations);
            let _ = store.read_at_checkpoint().wait();
            failed += u64::from(disk.has_failed());
            // The power goes before the disk is back.
            assert_eq!(count(&found(&disk)), 4, "{when}");
            repair_disk(&disk);
            checkpoint(&store);
            assert!(try_one(&store, 5), "{when}");
            assert_eq!(count(&store), 5, "{when}");
            assert_eq!(count(&found(&disk)), 5, "{when}");
        }
        assert!(failed > 4 || name == "unread", "{name}: only {failed} checkpoints failed");
    }
}

/// A disk with six messages that only the log has.
fn disk_with_six_logged() -> Arc<SimulatedDisk> {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    checkpoint(&store);
    (1..7).for_each(|number| assert!(try_one(&store, number)));
    Arc::new(disk.copy())
}

/// Runs `work` on copies of the disk with each kind of trouble after each number of operations. Its error must blame
/// the disk, and once the disk is back it must succeed and find all six messages.
fn assert_trouble_is_told_and_loses_nothing(
    disk: &SimulatedDisk,
    work: impl Fn(Arc<SimulatedDisk>) -> Result<(), OpenErrorKind>,
) {
    for (name, trouble) in TROUBLES {
        let mut failed = 0;
        for operations in 0..2 * OPERATIONS {
            let when = format!("{name} after {operations} operations");
            let found = Arc::new(disk.copy());
            trouble(&found, operations);
            if let Err(e) = work(found.clone()) {
                assert!(is_of_disk(&e) && !e.is_of_damage(), "{when}: {e}");
                failed += 1;
            }
            repair_disk(&found);
            work(found.clone()).unwrap_or_else(|e| panic!("{when}: {e}"));
            assert_eq!(count(&Store::open_on(found).unwrap()), 6, "{when}");
        }
        assert!(failed > 4, "{name}: only {failed} failed");
    }
}

#[test]
fn trouble_during_replay_is_reported_and_the_next_open_has_everything() {
    let disk = disk_with_six_logged();
    assert_trouble_is_told_and_loses_nothing(&disk, |found| Store::open_on(found).map(drop));
    disk.fail_altogether();
    assert!(Store::open_on(disk.clone()).is_err_and(|e| is_of_disk(&e)));
    disk.fail_after(None);
    assert_eq!(count(&Store::open_on(disk).unwrap()), 6);
}

/// Only damage leads to a salvage, or to advice about damage.
#[test]
fn trouble_of_the_disk_during_repair_or_check_is_not_taken_for_damage() {
    let disk = disk_with_six_logged();
    assert_trouble_is_told_and_loses_nothing(&disk, |found| {
        let repaired = Store::repair_on(found, UnixTime(1));
        repaired.map(|report| assert_eq!(report.lost, []))
    });
    // A file that cannot grow is long enough.
    let full = Arc::new(disk.copy());
    full.set_room(Some(0));
    assert_eq!(Store::repair_on(full.clone(), UnixTime(1)).unwrap().lost, []);
    assert_eq!(count(&Store::open_on(full).unwrap()), 6);
    disk.fail_altogether();
    assert!(Store::check_disk(disk, &Progress::default()).is_err_and(|e| is_of_disk(&e)));
}

/// A full disk refuses mail, and what was taken before can be made part of the index, at a checkpoint and after a kill.
#[test]
fn a_full_disk_prevents_neither_checkpoint_nor_replay() {
    for extents in 2..6 {
        let disk = Arc::new(SimulatedDisk::default());
        let store = store_with(&[ANN], disk.clone());
        disk.set_room(Some(disk.file_len() + extents * format::EXTENT));
        let mut stored = 0;
        for number in 0..400 {
            stored += u64::from(try_one(&store, number));
        }
        assert!(stored > 0 && stored < 400, "{extents} extents: {stored}");
        let after_kill = Arc::new(disk.copy());
        after_kill.set_room(Some(after_kill.file_len()));
        assert_eq!(count(&Store::open_on(after_kill).unwrap()), stored, "{extents} extents");
        checkpoint(&store);
        assert_eq!(count(&store), stored);
        disk.set_room(None);
        assert!(try_one(&store, 401));
        assert_eq!(count(&found(&disk)), stored + 1);
    }
}

/// What it costs to preserve redb's pages of an old snapshot while others write, as during a backup.
#[test]
fn the_index_grows_by_little_while_a_backup_looks_at_it() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    (1..300).for_each(|number| drop(deliver(&store, &[ANN], format!("kept {number}").as_bytes())));
    let (pin, snapshot) = store.read_at_checkpoint().wait().unwrap();
    let before = snapshot.container().index_extents().len();
    for number in 0..1500 {
        deliver(&store, &[ANN], format!("then {number}").as_bytes());
        if number % 10 == 9 {
            let maildrop = open_maildrop(&store, ANN);
            let uids: Vec<_> = maildrop.list().unwrap().iter().skip(299).map(|entry| entry.uid).collect();
            assert!(maildrop.delete(&uids).wait().unwrap());
        }
    }
    let growth = snapshot.container().index_extents().len() - before;
    drop((pin, snapshot));
    // Each of the transactions touches a dozen pages; without the log that would be some seventy extents.
    assert!(growth <= 8, "the index has grown by {growth} extents");
}

/// One by one, with a checkpoint after forty: the device cost of a delivery does not depend on how much is stored.
/// `POP3SVC_ROWS` sets the largest store tried.
#[test]
fn what_a_delivery_costs_the_device_is_the_same_however_much_is_stored() {
    let rows = std::env::var("POP3SVC_ROWS").map_or(4000, |typed| typed.parse().expect("a number"));
    let mut costs = Vec::new();
    for stored in [100, rows] {
        let disk = Arc::new(SimulatedDisk::recording());
        let store = store_with(&[ANN, "other@example.com"], disk.clone());
        for from in (0..stored).step_by(200) {
            let filled = store.write(move |tx| {
                for number in from..from + 200 {
                    let letters = [letter("other@example.com", number)];
                    tx.deliver(&text(format!("stored {number}").as_bytes()), &letters, UnixTime(1))?;
                }
                Ok(())
            });
            filled.wait().unwrap();
            disk.forget_events();
        }
        checkpoint(&store);
        let begin = disk.events();
        for number in 0..40 {
            deliver(&store, &[ANN], format!("one {number} {}", "y".repeat(1000)).as_bytes());
        }
        let (flushes, octets) = disk.work_since(begin);
        // The text in its place, and a page of the log.
        assert!(flushes == 40 && octets <= 40 * (5 << 10), "{stored}: {flushes} flushes, {octets} octets");
        checkpoint(&store);
        costs.push(disk.work_since(begin).1 / 40);
    }
    println!("octets of a delivery: {costs:?}");
    // The checkpoint adds the pages of the index that the deliveries share.
    assert!(costs[1] <= costs[0] * 6 / 5 && costs[1] <= 9 << 10, "octets of a delivery: {costs:?}");
}
