//! Repairs that cannot use the log: the disk fails, or nobody knows what the index has of it.

use super::*;
use crate::store::file::format::LOG_AT;

const ANN: &str = "ann@example.com";

/// A disk with three messages that only the log has.
fn with_three_logged() -> Arc<SimulatedDisk> {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    checkpoint(&store);
    for content in [b"one", b"two", b"six"] {
        deliver(&store, &[ANN], content);
    }
    // As after a kill.
    Arc::new(disk.copy())
}

#[test]
fn a_log_that_the_disk_cannot_read_is_not_given_up_for_damaged() {
    let disk = with_three_logged();
    disk.set_bad(Some(LOG_AT..LOG_AT + format::PAGE));
    let refused = Store::repair_on(disk.clone(), UnixTime(1));
    assert!(matches!(refused, Err(OpenErrorKind::Io(_))), "{refused:?}");
    disk.set_bad(None);
    assert_eq!(Store::repair_on(disk.clone(), UnixTime(1)).unwrap().lost, []);
    let store = Store::open_on(disk).unwrap();
    assert_eq!(contents(&store, ANN).len(), 3);
    assert_clean(&store);
}

#[test]
fn a_repair_says_that_the_log_is_lost_if_the_count_of_commits_is() {
    let disk = with_three_logged();
    damage::damage(&disk, |tables, _| drop(tables.store.insert((), &b"?"[..]).unwrap()));
    let report = Store::repair_on(disk.clone(), UnixTime(1)).unwrap();
    assert!(report.repaired.iter().any(|what| what.contains("log")), "{:#?}", report.repaired);
    // After a clean shutdown the log has nothing to lose.
    drop(Store::open_on(disk.clone()).unwrap());
    damage::damage(&disk, |tables, _| drop(tables.store.insert((), &b"?"[..]).unwrap()));
    let report = Store::repair_on(disk.clone(), UnixTime(1)).unwrap();
    assert!(!report.repaired.iter().any(|what| what.contains("log")), "{:#?}", report.repaired);
    assert_clean(&Store::open_on(disk).unwrap());
}
