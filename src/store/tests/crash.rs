//! Power cuts at every kind of moment: what was acknowledged is there, nothing is half done.
//!
//! A workload runs on a recording disk. Then the disk is rebuilt as it could be found after a cut: everything synced,
//! and an arbitrary subset of the sectors and length changes since. Each such disk must open, be clean, hold what was
//! acknowledged before the cut, and take more mail.
//!
//! That these tests can fail was shown by breaking the store on purpose. Found at once: a one-phase commit, texts written after
//! the commit, space used again before the checkpoint, long texts that were not synced, a superblock left out or written after the sync, runs used again in the transaction that retired them,
//! a hole punched a page too wide, and failed syncs not made up for.

use super::workload::{MAILBOXES, Workload, body_number};
use super::*;
use std::collections::BTreeSet;

/// How often the power is cut at each of the two syncs that follow a superblock.
const CUTS_AT_A_SUPERBLOCK: usize = 8;

/// Cuts the power at moments between two events, and looks at what is left each time.
fn cut_the_power(workload: &Workload, begin: usize, cuts: usize, rng: &mut fastrand::Rng) {
    let disk = &workload.disk;
    let end = disk.events();
    let syncs: Vec<usize> = (begin..end).filter(|event| disk.is_sync(*event)).collect();
    // One half of the moments are anywhere, the other just before a sync.
    let mut moments: Vec<usize> = (0..cuts)
        .map(|_| if rng.bool() { rng.usize(begin..=end) } else { syncs[rng.usize(..syncs.len())] })
        .collect();
    for superblock in (begin..end).filter(|event| disk.writes_into(*event, format::SUPERBLOCKS)) {
        for sync in syncs.iter().filter(|sync| **sync > superblock).take(2) {
            moments.extend([*sync; CUTS_AT_A_SUPERBLOCK]);
        }
    }
    moments.sort_unstable();
    let mut replay = disk.replay();
    for cut in moments {
        let survival = [0.5, 0.05, 0.95, 1.0, 0.0][rng.usize(..5)];
        let when = format!("cut {cut} of {begin}..{end}, survival {survival}");
        let found = Arc::new(replay.crash(cut, survival, rng));
        let store = Store::open_on(found).unwrap_or_else(|e| panic!("{when}: {e}"));
        look_at(&store, workload, cut, &when);
    }
}

fn look_at(store: &Store, workload: &Workload, cut: usize, when: &str) {
    let report = store.check(&Progress::default()).unwrap();
    assert!(report.is_clean(), "{when}: {:#?}", report.findings);
    for (index, mailbox) in MAILBOXES.iter().enumerate() {
        let (must, may) = workload.expectations(index, cut);
        let found: BTreeSet<u64> = match store.open_maildrop(&address(mailbox)).unwrap() {
            Login::Welcome(maildrop) => numbers_in(&maildrop),
            // Its domain may have been removed, and not been made again yet.
            _ => BTreeSet::new(),
        };
        let lost: Vec<_> = must.difference(&found).collect();
        assert!(lost.is_empty(), "{when}: {mailbox} lost {lost:?}");
        let risen: Vec<_> = found.difference(&may).collect();
        assert!(risen.is_empty(), "{when}: {mailbox} has {risen:?} again");
    }
    let _ = store.write(|tx| tx.add_domain(&"after.example".parse().unwrap(), UnixTime(1))).wait().unwrap();
    add_mailbox(store, "new@after.example");
    assert_eq!(deliver(store, &["new@after.example"], b"after the cut"), [Delivery::Stored]);
    // A look takes its time, so not every disk gets a second one.
    if cut.is_multiple_of(8) {
        assert_clean(store);
    }
}

fn numbers_in(maildrop: &Maildrop) -> BTreeSet<u64> {
    let entries = maildrop.list().unwrap();
    entries
        .iter()
        .map(|entry| body_number(&maildrop.message(entry.uid).unwrap().expect("it is listed").prefix))
        .collect()
}

#[test]
fn thousands_of_power_cuts_lose_nothing_and_leave_nothing_half_done() {
    let mut rng = fastrand::Rng::with_seed(20260101);
    let mut workload = Workload::begin();
    let begin = workload.disk.events();
    for _ in 0..320 {
        workload.step(&mut rng);
    }
    let (growths, shrinkings) = (workload.growths, workload.shrinkings);
    assert!(growths > 2 && shrinkings > 2, "the index grew {growths} times and shrank {shrinkings} times");
    workload.end();
    cut_the_power(&workload, begin, 2500, &mut rng);
}

/// The power goes again while the log is made part of the index, and once more after that.
#[test]
fn cuts_during_recovery_lose_nothing_either() {
    let mut rng = fastrand::Rng::with_seed(20260103);
    let mut workload = Workload::begin();
    let begin = workload.disk.events();
    for _ in 0..40 {
        workload.step(&mut rng);
    }
    workload.end();
    let mut moments: Vec<usize> = (0..24).map(|_| rng.usize(begin..workload.disk.events())).collect();
    moments.sort_unstable();
    let mut replay = workload.disk.replay();
    let mut recoveries = 0;
    for cut in moments {
        let first = Arc::new(replay.crash(cut, [0.0, 0.5, 1.0][rng.usize(..3)], &mut rng).recording_copy());
        drop(Store::open_on(first.clone()).unwrap());
        recoveries += usize::from(first.work_since(0).0 > 4);
        for _ in 0..4 {
            let again = rng.usize(..=first.events());
            let second = Arc::new(first.replay().crash(again, rng.f64(), &mut rng).recording_copy());
            drop(Store::open_on(second.clone()).unwrap_or_else(|e| panic!("cut {cut}, then {again}: {e}")));
            let once_more = rng.usize(..=second.events());
            let third = Arc::new(second.replay().crash(once_more, rng.f64(), &mut rng));
            let when = format!("cut {cut}, then {again}, then {once_more}");
            let store = Store::open_on(third).unwrap_or_else(|e| panic!("{when}: {e}"));
            look_at(&store, &workload, cut, &when);
        }
    }
    assert!(recoveries > 8, "the log had something to recover only {recoveries} times");
}

/// The control: a log that is not synced loses mail, or brings it back, and the cuts above would show it.
#[test]
#[should_panic(expected = "cut ")]
fn cuts_find_a_log_that_is_not_synced() {
    let mut rng = fastrand::Rng::with_seed(20260104);
    let mut workload = Workload::begin();
    workload.disk.forget_durable_writes();
    let begin = workload.disk.events();
    for _ in 0..60 {
        workload.step(&mut rng);
    }
    workload.end();
    cut_the_power(&workload, begin, 300, &mut rng);
}

#[test]
fn power_cuts_after_faults_of_the_disk_lose_nothing_either() {
    let mut rng = fastrand::Rng::with_seed(20260102);
    let mut workload = Workload::begin();
    let begin = workload.disk.events();
    for _ in 0..80 {
        workload.disk.fail_after(Some(rng.u64(..60)));
        for _ in 0..3 {
            workload.step(&mut rng);
        }
        workload.disk.fail_after(None);
        workload.step(&mut rng);
    }
    assert!(workload.faults > 80, "the disk failed only {} times", workload.faults);
    workload.end();
    cut_the_power(&workload, begin, 1000, &mut rng);
}

#[test]
fn a_store_whose_making_was_cut_short_is_made_again_or_whole() {
    let mut rng = fastrand::Rng::with_seed(5);
    let disk = Arc::new(SimulatedDisk::recording());
    drop(Store::create_on(disk.clone()).unwrap());
    let mut replay = disk.replay();
    for cut in 0..=disk.events() {
        for survival in [0.0, 0.5, 1.0] {
            let found: Arc<dyn Disk> = Arc::new(replay.crash(cut, survival, &mut rng));
            let store = match Store::open_on(found.clone()) {
                Ok(store) => store,
                Err(OpenErrorKind::Missing) => Store::create_on(found).unwrap(),
                Err(e) => panic!("cut {cut}, survival {survival}: {e}"),
            };
            add_mailbox(&store, MAILBOXES[0]);
            assert_clean(&store);
        }
    }
}
