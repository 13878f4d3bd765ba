//! Power cuts at every kind of moment: what was acknowledged is there, nothing is half done.
//!
//! A workload runs on a recording disk. Then the disk is rebuilt as it could be found after a cut: everything synced,
//! and an arbitrary subset of the sectors and length changes since. Each such disk must open, be clean, hold what was
//! acknowledged before the cut, and take more mail.

use super::*;
use std::collections::BTreeSet;

const CUTS: usize = 3000;
const MAILBOXES: [&str; 4] = ["ann@example.com", "bob@example.com", "carol@example.net", "dave@example.net"];

/// Something that was acknowledged, and how many events the disk had seen by then.
struct Acknowledged {
    events: usize,
    change: Change,
}

enum Change {
    Stored { mailbox: usize, body: u64 },
    Deleted { mailbox: usize, bodies: Vec<u64> },
}

/// Runs deliveries and deletions, and returns what was acknowledged when.
fn workload(store: &Store, disk: &SimulatedDisk, rng: &mut fastrand::Rng) -> Vec<Acknowledged> {
    let mut log = Vec::new();
    let mut next_body = 0;
    for _ in 0..260 {
        let mailbox = rng.usize(..MAILBOXES.len());
        if rng.u8(..5) < 2 {
            let maildrop = open_maildrop(store, MAILBOXES[mailbox]);
            let mut uids = Vec::new();
            let mut bodies = Vec::new();
            for entry in maildrop.list().unwrap().iter().filter(|_| rng.bool()) {
                let message = maildrop.message(entry.uid).unwrap().unwrap();
                bodies.push(number_of(&[&message.prefix[..], &message.text].concat()));
                uids.push(entry.uid);
            }
            assert!(maildrop.delete(&uids).wait().unwrap());
            log.push(Acknowledged { events: disk.events(), change: Change::Deleted { mailbox, bodies } });
        } else {
            // Several at once, so that some share a commit, and some a text.
            let count = [1, 1, 6][rng.usize(..3)];
            let pending: Vec<_> = (0..count)
                .map(|_| {
                    let body = next_body;
                    next_body += 1;
                    let text = text(&body_of(body));
                    let letters = [letter(MAILBOXES[mailbox], body)];
                    (body, store.write(move |tx| tx.deliver(&text, &letters, 1)))
                })
                .collect();
            let bodies: Vec<u64> = pending.iter().map(|(body, _)| *body).collect();
            let all = pending.into_iter().map(|(_, pending)| pending);
            for verdicts in smol::block_on(join_all(all)) {
                assert_eq!(verdicts.unwrap(), [Delivery::Stored]);
            }
            for body in bodies {
                log.push(Acknowledged { events: disk.events(), change: Change::Stored { mailbox, body } });
            }
        }
    }
    log
}

/// Polls all of them before any is waited for, so that they queue together.
async fn join_all<T>(all: impl Iterator<Item = Pending<T>>) -> Vec<Result<T, Fault>> {
    let executor = smol::LocalExecutor::new();
    let tasks: Vec<_> = all.map(|pending| executor.spawn(pending)).collect();
    executor
        .run(async {
            let mut outcomes = Vec::new();
            for task in tasks {
                outcomes.push(task.await);
            }
            outcomes
        })
        .await
}

/// Short and long texts; every seventh is the same as one before, but for its number in the header.
fn body_of(number: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(number / 2);
    let len = if rng.u8(..8) == 0 { rng.usize(20_000..90_000) } else { rng.usize(..6000) };
    let filler: String = std::iter::repeat_with(|| rng.alphanumeric()).take(len).collect();
    format!("X-Number: {number}\n\n{filler}").into_bytes()
}

fn number_of(content: &[u8]) -> u64 {
    let content = std::str::from_utf8(content).unwrap();
    let (_, after) = content.split_once("X-Number: ").unwrap();
    after.split_once("\r\n").unwrap().0.parse().unwrap()
}

/// What must be in a mailbox after a cut, and what may be: an operation that was under way has happened or not.
fn expectations(log: &[Acknowledged], mailbox: usize, cut: usize) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
    for entry in log {
        let acknowledged = entry.events <= cut;
        match &entry.change {
            Change::Stored { mailbox: of, body } if *of == mailbox => {
                may.insert(*body);
                if acknowledged {
                    must.insert(*body);
                }
            }
            Change::Deleted { mailbox: of, bodies } if *of == mailbox => {
                for body in bodies {
                    must.remove(body);
                    if acknowledged {
                        may.remove(body);
                    }
                }
            }
            _ => {}
        }
    }
    (must, may)
}

#[test]
fn thousands_of_power_cuts_lose_nothing_and_leave_nothing_half_done() {
    let mut rng = fastrand::Rng::with_seed(20260101);
    let disk = Arc::new(SimulatedDisk::recording());
    let store = store_with(&MAILBOXES, disk.clone());
    let begin = disk.events();
    let log = workload(&store, &disk, &mut rng);
    drop(store);
    let end = disk.events();
    let mut cuts: Vec<usize> = (0..CUTS)
        .map(|_| {
            let mut cut = rng.usize(begin..=end);
            // Half of them hit a sync that is about to be made.
            while rng.bool() && cut < end && !disk.is_sync(cut) {
                cut += 1;
            }
            cut
        })
        .collect();
    cuts.sort_unstable();
    let mut replay = disk.replay();
    for cut in cuts {
        let survival = [0.5, 0.05, 0.95, 1.0, 0.0][rng.usize(..5)];
        let found = Arc::new(replay.crash(cut, survival, &mut rng));
        let store = Store::open_on(found).unwrap_or_else(|e| panic!("cut {cut}, survival {survival}: {e}"));
        let report = store.check().unwrap();
        assert!(report.is_clean(), "cut {cut}, survival {survival}: {:#?}", report.findings);
        for (index, mailbox) in MAILBOXES.iter().enumerate() {
            let (must, may) = expectations(&log, index, cut);
            let found: BTreeSet<u64> = contents(&store, mailbox).iter().map(|c| number_of(c)).collect();
            let lost: Vec<_> = must.difference(&found).collect();
            assert!(lost.is_empty(), "cut {cut}, survival {survival}: {mailbox} lost {lost:?}");
            let risen: Vec<_> = found.difference(&may).collect();
            assert!(risen.is_empty(), "cut {cut}, survival {survival}: {mailbox} has {risen:?} again");
        }
        assert_eq!(
            deliver(&store, &[MAILBOXES[0]], b"X-Number: 999999\n\nafter the cut"),
            [Delivery::Stored]
        );
        assert_clean(&store);
    }
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
