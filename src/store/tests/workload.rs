//! Deliveries and deletions of every kind on a recording disk, and when each was acknowledged.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use redb::ReadableTable;

use super::*;
use crate::store::index::rows::{DeletedRow, MessageRow, Row};
use crate::store::index::tables::DELETED;
use crate::store::open::window::Time;
use crate::store::writer::Pace;

pub const MAILBOXES: [&str; 5] =
    ["ann@example.com", "bob@example.com", "carol@example.net", "dave@example.net", "erin@example.org"];

/// Often reached, so that the window also has to give way.
const KEPT_MAX: u64 = 4 << 20;

/// A request, and how many events the disk had seen when it was acknowledged.
struct Asked {
    /// `None`: it was answered with a fault, so it may have happened.
    acknowledged: Option<usize>,
    change: Change,
}

enum Change {
    Stored { mailboxes: Vec<usize>, body: u64 },
    Deleted { mailbox: usize, bodies: Vec<u64> },
    DomainRemoved { domain: &'static str },
    Restored { mailbox: usize, bodies: Vec<u64> },
}

pub struct Workload {
    pub disk: Arc<SimulatedDisk>,
    /// Operations answered with a fault.
    pub faults: usize,
    store: Option<Store>,
    log: Vec<Asked>,
    next_body: u64,
    steps: usize,
    /// The store's clock.
    seconds: Arc<AtomicU64>,
    /// True if the store keeps what copies of the file need.
    keeps_for_copies: bool,
    /// Steps after which something was kept for copies.
    pub steps_with_kept: usize,
    index_extents: usize,
    /// How often the index grew and shrank by extents.
    pub growths: usize,
    pub shrinkings: usize,
}

impl Workload {
    pub fn begin() -> Self {
        let disk = Arc::new(SimulatedDisk::recording());
        let store = store_with(&MAILBOXES, disk.clone());
        keep_deleted(&store, "7");
        // Two mailboxes share an account, so that cuts test its sum too.
        MAILBOXES[..2].iter().for_each(|mailbox| drop(set_quota(&store, mailbox, MAILBOXES[0], None)));
        drop(store);
        let mut workload = Self {
            disk,
            faults: 0,
            store: None,
            log: Vec::new(),
            next_body: 0,
            steps: 0,
            seconds: Arc::default(),
            keeps_for_copies: true,
            steps_with_kept: 0,
            index_extents: 1,
            growths: 0,
            shrinkings: 0,
        };
        workload.store = Some(workload.open().unwrap());
        workload
    }

    fn open(&self) -> Result<Store, OpenErrorKind> {
        let pace = Pace { for_copies: self.keeps_for_copies.then_some(KEPT_MAX), ..PACE };
        let time = Time::set_by(self.seconds.clone());
        Store::open_at_pace(self.disk.clone(), Trust::AsFound, pace, time)
    }

    /// Closes the store.
    pub fn end(&mut self) {
        self.store = None;
    }

    pub fn step(&mut self, rng: &mut fastrand::Rng) {
        let mailbox = rng.usize(..MAILBOXES.len());
        self.steps += 1;
        // Now and then so long that everything held is let go.
        self.seconds.fetch_add(if rng.u8(..32) == 0 { 120 } else { rng.u64(..6) }, Ordering::AcqRel);
        match rng.u8(..100) {
            _ if self.steps.is_multiple_of(40) => self.empty_and_open_anew(rng),
            0..62 => self.deliver_and_delete(rng, None),
            62..84 => self.deliver_and_delete(rng, Some(mailbox)),
            84..89 => self.undelete(mailbox),
            89..92 => self.remove_domain(["example.com", "example.net", "example.org"][rng.usize(..3)]),
            92..97 => self.empty(),
            _ => self.open_anew(rng),
        }
        self.steps_with_kept += usize::from(self.store().copy_window().kept_octets > 0);
        if let Ok(snapshot) = self.store().read() {
            let extents = snapshot.container().index_extents().len();
            self.growths += usize::from(extents > self.index_extents);
            self.shrinkings += usize::from(extents < self.index_extents);
            self.index_extents = extents;
        }
    }

    /// Sends some messages at once and, if a mailbox is given, a deletion of half its mail, so that some share
    /// a transaction.
    fn deliver_and_delete(&mut self, rng: &mut fastrand::Rng, mailbox: Option<usize>) {
        let deletion = mailbox.and_then(|mailbox| self.deletion(mailbox, || rng.bool()));
        let mut asked = Vec::new();
        let mut pending: Vec<smol::future::Boxed<bool>> = Vec::new();
        if let Some((change, deleted)) = deletion {
            asked.push(change);
            pending.push(Box::pin(async { deleted.await.is_ok() }));
        }
        for _ in 0..[1, 1, 2, 8][rng.usize(..4)] {
            let body = self.next_body;
            self.next_body += 1;
            let mailboxes: Vec<usize> = match rng.u8(..3) {
                0 => vec![0, 2, 4],
                _ => vec![rng.usize(..MAILBOXES.len())],
            };
            let letters: Vec<Letter> =
                mailboxes.iter().map(|m| numbered_letter(MAILBOXES[*m], body)).collect();
            let text = match rng.bool() {
                true => placed(self.store(), &body_of(body)),
                false => text(&body_of(body)),
            };
            let stored = self.store().write(move |tx| tx.deliver(&text, &letters, UnixTime(1)));
            pending.push(Box::pin(async {
                stored.await.is_ok_and(|verdicts| verdicts.iter().all(|verdict| *verdict == Delivery::Stored))
            }));
            asked.push(Change::Stored { mailboxes, body });
        }
        let done = smol::block_on(all(pending));
        for (change, done) in asked.into_iter().zip(done) {
            self.note(change, done);
        }
    }

    fn deletion(&self, mailbox: usize, mut wanted: impl FnMut() -> bool) -> Option<(Change, Pending<bool>)> {
        let Ok(Login::Welcome(maildrop)) = self.store().open_maildrop(&address(MAILBOXES[mailbox])) else {
            return None;
        };
        let (mut uids, mut bodies) = (Vec::new(), Vec::new());
        for entry in maildrop.list().ok()?.iter().filter(|_| wanted()) {
            bodies.push(body_number(&maildrop.message(entry.uid).ok()??.prefix));
            uids.push(entry.uid);
        }
        Some((Change::Deleted { mailbox, bodies }, maildrop.delete(&uids)))
    }

    fn empty_and_open_anew(&mut self, rng: &mut fastrand::Rng) {
        self.empty();
        // Pages become free a checkpoint later than they are given up, and no copy may still need them.
        self.seconds.fetch_add(1000, Ordering::AcqRel);
        for _ in 0..3 {
            let _ = self.store().write(|_| Ok(())).wait();
            let _ = self.store().read_at_checkpoint().wait();
        }
        self.open_anew(rng);
    }

    /// Closing the store makes the index as short as possible.
    fn open_anew(&mut self, rng: &mut fastrand::Rng) {
        self.store = None;
        self.keeps_for_copies = rng.bool();
        if let Ok(store) = self.open() {
            self.store = Some(store);
            return;
        }
        self.disk.fail_after(None);
        self.store = Some(self.open().unwrap());
    }

    fn empty(&mut self) {
        for mailbox in 0..MAILBOXES.len() {
            if let Some((change, deleted)) = self.deletion(mailbox, || true) {
                let done = deleted.wait().is_ok();
                self.note(change, done);
            }
        }
        let purged = self.store().write(|tx| {
            while tx.purge(Day::LAST, 100)? == 100 {}
            Ok(())
        });
        self.faults += usize::from(purged.wait().is_err());
    }

    /// Undeletes the mail of a mailbox.
    fn undelete(&mut self, mailbox: usize) {
        let name = address(MAILBOXES[mailbox]);
        let Ok(bodies) = self.deleted_in(&name) else { return };
        let restored = self.store().undelete_mailbox(&name, Wanted::All, false);
        self.note(Change::Restored { mailbox, bodies }, restored.is_ok());
    }

    fn deleted_in(&self, mailbox: &Address) -> Result<Vec<u64>, Fault> {
        let snapshot = self.store().read()?;
        let Some(row) = snapshot.mailbox(mailbox)? else { return Ok(vec![]) };
        let mut bodies = Vec::new();
        for deleted in snapshot.table(DELETED)?.iter()? {
            let (key, deleted) = deleted?;
            if key.value().1 == row.id {
                let message = MessageRow::from_row(&DeletedRow::from_row(deleted.value())?.message)?;
                bodies.push(body_number(&message.prefix));
            }
        }
        Ok(bodies)
    }

    fn remove_domain(&mut self, domain: &'static str) {
        let name: Domain = domain.parse().unwrap();
        let removed = self.store().write(move |tx| tx.remove_domain(&name, UnixTime(1))).wait();
        self.note(Change::DomainRemoved { domain }, removed.is_ok());
        let made_again = self.store().write(move |tx| {
            for mailbox in MAILBOXES.map(address) {
                if mailbox.domain.as_str() == domain {
                    let _ = tx.add_domain(&mailbox.domain, UnixTime(1))?;
                    let _ = tx.add_mailbox(&mailbox, credential(), UnixTime(1))?;
                }
            }
            Ok(())
        });
        self.faults += usize::from(made_again.wait().is_err());
    }

    fn note(&mut self, change: Change, done: bool) {
        self.faults += usize::from(!done);
        self.log.push(Asked { acknowledged: done.then(|| self.disk.events()), change });
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("the workload has not ended")
    }

    /// Bodies that must be in a mailbox after a cut, and bodies that may be: a request in progress may have
    /// happened.
    pub fn expectations(&self, mailbox: usize, cut: usize) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
        for Asked { acknowledged, change } in &self.log {
            let acknowledged = acknowledged.is_some_and(|events| events <= cut);
            let gone: Vec<u64> = match change {
                Change::Stored { mailboxes, body } if mailboxes.contains(&mailbox) => {
                    may.insert(*body);
                    if acknowledged {
                        must.insert(*body);
                    }
                    continue;
                }
                Change::Restored { mailbox: of, bodies } if *of == mailbox => {
                    may.extend(bodies);
                    if acknowledged {
                        must.extend(bodies);
                    }
                    continue;
                }
                Change::Deleted { mailbox: of, bodies } if *of == mailbox => bodies.clone(),
                Change::DomainRemoved { domain } if MAILBOXES[mailbox].ends_with(domain) => {
                    may.iter().copied().collect()
                }
                _ => continue,
            };
            for body in gone {
                must.remove(&body);
                if acknowledged {
                    may.remove(&body);
                }
            }
        }
        (must, may)
    }
}

/// Polls all of them before waiting for any, so that they queue together.
async fn all(pending: Vec<smol::future::Boxed<bool>>) -> Vec<bool> {
    let executor = smol::LocalExecutor::new();
    let tasks: Vec<_> = pending.into_iter().map(|pending| executor.spawn(pending)).collect();
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

/// Pairs of numbers share a body. Some bodies are tiny, a few longer than most holes.
fn body_of(number: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(number / 2);
    let len = match rng.u8(..16) {
        0 => rng.usize(60_000..250_000),
        1..4 => rng.usize(10_000..70_000),
        _ => rng.usize(..5000),
    };
    let letter = rng.alphanumeric() as u8;
    let mut body = format!("Subject: {}\n\n", number / 2).into_bytes();
    body.resize(body.len() + len, letter);
    body
}

/// Long header fields make the index grow and shrink by extents.
fn numbered_letter(recipient: &str, body: u64) -> Letter {
    let filler = "x".repeat(fastrand::Rng::with_seed(body).usize(..24_000));
    let prefix = format!("X-Number: {body}\r\nReceived: {filler}\r\n").into_bytes();
    Letter { recipient: address(recipient), prefix, tag: body }
}

pub fn body_number(prefix: &[u8]) -> u64 {
    let prefix = std::str::from_utf8(prefix).unwrap();
    let (_, after) = prefix.split_once("X-Number: ").unwrap();
    after.split_once("\r\n").unwrap().0.parse().unwrap()
}
