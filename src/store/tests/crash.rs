//! Power cuts at every kind of moment: acknowledged changes survive, and nothing is half done.
//!
//! A workload runs on a recording disk, about half the time with a window for copies of the file. Then the disk is
//! rebuilt as it could be found after a cut: everything synced, and an arbitrary subset of the sectors and length
//! changes since. Each such disk must open, be clean, hold what was acknowledged before the cut, and accept more mail.
//!
//! Mutants of the store show that these tests can fail. Three are permanent (`Mutant`). Others were tried once and
//! caught at once: a one-phase commit, texts written after the commit, a superblock left out or written after the
//! sync, runs reused in the transaction that retired them, a hole punched a page too wide, and failed syncs that are
//! not repeated.

use std::collections::BTreeSet;

use super::workload::{MAILBOXES, Workload, body_number};
use super::*;
use crate::store::file::simulated::Mutant;

/// Cuts at each of the two syncs that follow a superblock.
const CUTS_AT_A_SUPERBLOCK: usize = 8;

/// Cuts the power at moments between two events and examines each resulting disk. Returns the number of cuts.
fn cut_the_power(workload: &Workload, begin: usize, cuts: usize, rng: &mut fastrand::Rng) -> usize {
    let disk = &workload.disk;
    let end = disk.events();
    let syncs: Vec<usize> = (begin..end).filter(|event| disk.is_sync(*event)).collect();
    // A third of the moments are random, a third just before a sync, and a third during the writes of a
    // checkpoint.
    let mut moments: Vec<usize> = (0..cuts)
        .map(|_| {
            let nth = rng.usize(..syncs.len());
            let sync = syncs[nth];
            match rng.u8(..3) {
                0 => rng.usize(begin..=end),
                1 => sync,
                _ => {
                    let from = if nth > 0 { syncs[nth - 1] } else { begin };
                    let last_record = (from..sync).rev().find(|event| disk.is_durable_write(*event));
                    rng.usize(last_record.unwrap_or(from)..=sync)
                }
            }
        })
        .collect();
    for superblock in (begin..end).filter(|event| disk.writes_into(*event, format::SUPERBLOCKS)) {
        for sync in syncs.iter().filter(|sync| **sync > superblock).take(2) {
            moments.extend([*sync; CUTS_AT_A_SUPERBLOCK]);
        }
    }
    moments.sort_unstable();
    let mut replay = disk.replay();
    let count = moments.len();
    for cut in moments {
        let survival = [0.5, 0.05, 0.95, 1.0, 0.0][rng.usize(..5)];
        let when = format!("cut {cut} of {begin}..{end}, survival {survival}");
        let found = Arc::new(replay.crash(cut, survival, rng));
        let store = Store::open_on(found).unwrap_or_else(|e| panic!("{when}: {e}"));
        look_at(&store, workload, cut, &when);
    }
    count
}

fn look_at(store: &Store, workload: &Workload, cut: usize, when: &str) {
    let report = store.check(&Progress::default()).unwrap_or_else(|e| panic!("{when}: {e}"));
    assert!(report.is_clean(), "{when}: {:#?}", report.findings);
    for (index, mailbox) in MAILBOXES.iter().enumerate() {
        let (must, may) = workload.expectations(index, cut);
        let found: BTreeSet<u64> = match store.open_maildrop(&address(mailbox)).unwrap() {
            Login::Welcome(maildrop) => numbers_in(&maildrop),
            // Its domain may have been removed and not recreated yet.
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
    // Examining takes time, so not every disk is examined twice.
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
    // How often the index grows depends on which deliveries share a transaction, and so on how busy the machine
    // is.
    let has_grown_and_shrunk = |workload: &Workload| workload.growths > 2 && workload.shrinkings > 2;
    let mut steps = 0;
    while steps < 320 || steps < 6000 && !has_grown_and_shrunk(&workload) {
        workload.step(&mut rng);
        steps += 1;
    }
    let (growths, shrinkings) = (workload.growths, workload.shrinkings);
    assert!(has_grown_and_shrunk(&workload), "the index grew {growths} times and shrank {shrinkings} times");
    let held = workload.steps_with_kept;
    assert!(held > steps / 4, "something was kept for copies after only {held} of {steps} steps");
    workload.end();
    cut_the_power(&workload, begin, 2500, &mut rng);
}

/// Cuts the power again during recovery, and once more after that.
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

/// True if the cuts catch the mutant's bug. Their complaint must start with the cut.
fn cuts_find(mutant: Mutant, steps: usize, cuts: usize) {
    let mut rng = fastrand::Rng::with_seed(20260104);
    let mut workload = Workload::begin();
    workload.disk.set_mutant(mutant);
    let begin = workload.disk.events();
    for _ in 0..steps {
        workload.step(&mut rng);
    }
    workload.end();
    cut_the_power(&workload, begin, cuts, &mut rng);
}

#[test]
#[should_panic(expected = "cut ")]
fn cuts_find_a_log_that_is_not_synced() {
    cuts_find(Mutant::LogNotSynced, 60, 300);
}

#[test]
#[should_panic(expected = "cut ")]
fn cuts_find_long_texts_that_are_not_synced() {
    cuts_find(Mutant::LongTextsNotSynced, 120, 1000);
}

/// A long text takes the place of a short one that was deleted, while the log still has the short one.
#[test]
fn cuts_find_no_text_that_recovery_wrote_over() {
    cut_between_short_and_long_texts(Mutant::None);
}

#[test]
#[should_panic(expected = "cut ")]
fn cuts_find_space_that_is_used_again_before_the_checkpoint() {
    cut_between_short_and_long_texts(Mutant::SpaceReusedBeforeCheckpoint);
}

fn cut_between_short_and_long_texts(mutant: Mutant) {
    let mut rng = fastrand::Rng::with_seed(20260105);
    let disk = Arc::new(SimulatedDisk::recording());
    let store = store_with(&[MAILBOXES[0]], disk.clone());
    disk.set_mutant(mutant);
    let begin = disk.events();
    for round in 0..12 {
        deliver(&store, &[MAILBOXES[0]], format!("short {round} {}", "s".repeat(60_000)).as_bytes());
        let maildrop = open_maildrop(&store, MAILBOXES[0]);
        let uids: Vec<_> = maildrop.list().unwrap().iter().map(|entry| entry.uid).collect();
        assert!(maildrop.delete(&uids).wait().unwrap());
        drop(maildrop);
        deliver(&store, &[MAILBOXES[0]], format!("long {round} {}", "l".repeat(90_000)).as_bytes());
    }
    let end = disk.events();
    let mut replay = disk.replay();
    for cut in begin..=end {
        let survival = [0.5, 0.05, 0.95, 1.0, 0.0][rng.usize(..5)];
        let when = format!("cut {cut} of {begin}..{end}, survival {survival}");
        let store = Store::open_on(Arc::new(replay.crash(cut, survival, &mut rng)));
        let store = store.unwrap_or_else(|e| panic!("{when}: {e}"));
        let report = store.check(&Progress::default()).unwrap_or_else(|e| panic!("{when}: {e}"));
        assert!(report.is_clean(), "{when}: {:#?}", report.findings);
        assert!(open_maildrop(&store, MAILBOXES[0]).totals().messages <= 2, "{when}");
    }
}

/// The disk fails, the process ends, and the next one sees in the page cache what never reached the disk.
#[test]
fn a_cut_after_a_service_that_could_not_sync_was_started_again_loses_nothing() {
    let mut failed = 0;
    for operations in (0..60).step_by(3) {
        let disk = Arc::new(SimulatedDisk::recording());
        let mut store = store_with(&[MAILBOXES[0]], disk.clone());
        // Long rows make the index grow by extents, which the superblock lists.
        let mut expected = 0;
        let grow = |store: &Store, count: usize| {
            let fields = format!("Received: {}\r\n", "x".repeat(40_000)).into_bytes();
            let letters: Vec<_> =
                (0..count).map(|_| Letter { prefix: fields.clone(), ..letter(MAILBOXES[0], 1) }).collect();
            store.write(move |tx| tx.deliver(&text(b"long rows"), &letters, UnixTime(1))).wait().is_ok()
        };
        for _ in 0..3 {
            expected += if grow(&store, 6) { 6 } else { 0 };
        }
        disk.fail_after(Some(operations));
        let _ = store.read_at_checkpoint().wait();
        failed += usize::from(disk.has_failed());
        drop(store);
        disk.fail_after(None);
        store = Store::open_on(disk.clone()).unwrap();
        expected += if grow(&store, 3) { 3 } else { 0 };
        checkpoint(&store);
        let (cut, mut rng) = (disk.events(), fastrand::Rng::with_seed(operations));
        for survival in [0.0, 0.5, 1.0] {
            let when = format!("cut after {operations} operations, survival {survival}");
            let found = disk.replay().crash(cut, survival, &mut rng);
            let found = Store::open_on(Arc::new(found)).unwrap_or_else(|e| panic!("{when}: {e}"));
            assert_clean(&found);
            assert_eq!(open_maildrop(&found, MAILBOXES[0]).totals().messages, expected, "{when}");
        }
    }
    assert!(failed > 5, "only {failed} checkpoints failed");
}

/// Any number of cuts: `POP3SVC_CUTS` is the number, `POP3SVC_SEED` chooses workload and cuts.
#[test]
fn power_cuts_by_number_and_seed_lose_nothing() {
    let given = |name: &str| std::env::var(name).ok().map(|typed| typed.parse::<u64>().expect("a number"));
    let asked = given("POP3SVC_CUTS");
    let (cuts, seed) = (asked.unwrap_or(60), given("POP3SVC_SEED").unwrap_or(1));
    let mut done = 0;
    for round in 0.. {
        let seed_of_round = seed.wrapping_mul(1_000_003).wrapping_add(round);
        let mut rng = fastrand::Rng::with_seed(seed_of_round);
        let mut workload = Workload::begin();
        let begin = workload.disk.events();
        let now = (cuts - done).min(2500);
        for _ in 0..(now / 8).clamp(20, 320) {
            if rng.u8(..16) == 0 {
                workload.disk.fail_after(Some(rng.u64(..60)));
                workload.step(&mut rng);
                workload.disk.fail_after(None);
            }
            workload.step(&mut rng);
        }
        workload.end();
        done += cut_the_power(&workload, begin, now as usize, &mut rng) as u64;
        if asked.is_some() {
            println!("{done} cuts, the last workload by seed {seed_of_round}");
        }
        if done >= cuts {
            return;
        }
    }
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
fn an_interrupted_create_leaves_a_whole_store_or_none() {
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
