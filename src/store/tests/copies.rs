//! Plain copies of the file of a store in use: front to back, page by page, between the writes of deliveries,
//! deletions and checkpoints, on a clock that the test controls. A copy that takes less than the window must
//! open, be clean, and hold what was acknowledged before it began.
//!
//! Another test shows that this can fail: if nothing is kept for copies, most are bad.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::store::file::disk::{DiskUsage, Identity, View};
use crate::store::file::format::PAGE;
use crate::store::open::window::Time;
use crate::store::writer::Pace;

const MAILBOXES: [&str; 3] = ["ann@example.com", "bob@example.com", "carol@example.net"];
/// Three quarters of the shortest window, in seconds.
const GOOD_BELOW: u64 = 45;

/// More than the window needs in these tests.
const ENOUGH: Option<u64> = Some(128 << 20);
const NOTHING: [u8; PAGE as usize] = [0; PAGE as usize];

/// The disk of a store in use, which is being copied.
#[derive(Debug)]
struct Copied {
    disk: Arc<SimulatedDisk>,
    copier: Mutex<Option<Copier>>,
}

#[derive(Debug)]
struct Copier {
    copy: Arc<SimulatedDisk>,
    at: u64,
    /// Set to copy like `tar` and `rsync`, which ask for the length first. Otherwise copy to the end, wherever that is
    /// by then.
    len: Option<u64>,
    /// Non-zero pages that may still be copied before the clock moves.
    pages_left: usize,
    rng: fastrand::Rng,
}

impl Copied {
    /// Copies up to `pages` pages. True at the end of the file.
    fn copy(&self, copier: &mut Copier, pages: usize) -> bool {
        let mut copied = 0;
        loop {
            let end = copier.len.unwrap_or(self.disk.file_len());
            if copier.at >= end {
                copier.copy.set_len(end).unwrap();
                return true;
            }
            let mut page = vec![0; PAGE.min(end - copier.at) as usize];
            self.disk.read_at(copier.at, &mut page).unwrap();
            if page != NOTHING[..page.len()] {
                if copied == pages {
                    return false;
                }
                copied += 1;
                copier.pages_left = copier.pages_left.saturating_sub(1);
                copier.copy.write_at(copier.at, &page).unwrap();
            }
            copier.at += page.len() as u64;
        }
    }

    /// Copies some of the file before the next change to it.
    fn between_two_writes(&self) {
        if let Some(copier) = &mut *self.copier.lock().unwrap() {
            let pages = copier.rng.usize(..=copier.pages_left.min(40));
            self.copy(copier, pages);
        }
    }
}

impl Disk for Copied {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.between_two_writes();
        self.disk.set_len(len)
    }
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(at, out)
    }
    fn write_at(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        self.between_two_writes();
        self.disk.write_at(at, octets)
    }
    fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        self.between_two_writes();
        self.disk.punch(at, len)
    }
    fn reserve_zeroed(&self, at: u64, len: u64) -> io::Result<()> {
        self.between_two_writes();
        self.disk.reserve_zeroed(at, len)
    }
    fn write_durable(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        self.between_two_writes();
        self.disk.write_durable(at, octets)
    }
    fn sync(&self) -> io::Result<()> {
        self.between_two_writes();
        self.disk.sync()
    }
    fn view(&self, at: u64, len: usize) -> io::Result<View> {
        self.disk.view(at, len)
    }
    fn usage(&self) -> io::Result<DiskUsage> {
        self.disk.usage()
    }
    fn identity(&self) -> io::Result<Identity> {
        self.disk.identity()
    }
}

/// A store in use, and what is in it.
struct Laboratory {
    disk: Arc<Copied>,
    store: Store,
    seconds: Arc<AtomicU64>,
    rng: fastrand::Rng,
    next: u64,
    /// The mailbox of each message, by number.
    stored: BTreeMap<u64, usize>,
}

impl Laboratory {
    fn new(seed: u64, for_copies: Option<u64>) -> Self {
        Self::on(Arc::new(SimulatedDisk::default()), seed, for_copies)
    }

    fn on(disk: Arc<SimulatedDisk>, seed: u64, for_copies: Option<u64>) -> Self {
        let store = store_with(&MAILBOXES, disk.clone());
        add_mailbox(&store, "dave@example.net");
        drop(store);
        let disk = Arc::new(Copied { disk, copier: Mutex::default() });
        let seconds = Arc::new(AtomicU64::new(0));
        let pace = Pace { for_copies, ..PACE };
        let time = Time::set_by(seconds.clone());
        let store = Store::open_at_pace(disk.clone(), Trust::AsFound, pace, time).unwrap();
        let rng = fastrand::Rng::with_seed(seed);
        Self { disk, store, seconds, rng, next: 0, stored: BTreeMap::new() }
    }

    /// One second of traffic.
    fn second(&mut self) {
        self.seconds.fetch_add(1, Ordering::AcqRel);
        for _ in 0..self.rng.usize(1..8) {
            if self.stored.len() > 150 || (self.stored.len() > 60 && self.rng.bool()) {
                self.delete();
            } else {
                (0..self.rng.usize(1..6)).for_each(|_| self.deliver());
            }
        }
        if self.rng.u8(..4) > 0 {
            checkpoint(&self.store);
        }
    }

    fn deliver(&mut self) {
        let (number, mailbox) = (self.next, self.rng.usize(..MAILBOXES.len()));
        self.next += 1;
        let octets = match self.rng.u8(..12) {
            0 => self.rng.usize(70_000..200_000),
            1..4 => self.rng.usize(5000..30_000),
            _ => self.rng.usize(..3000),
        };
        let content = format!("Subject: {number}\n\n{}\n", "x".repeat(octets));
        let prefix = format!("X-Number: {number}\r\nX: {}\r\n", "y".repeat(self.rng.usize(..2000)));
        let letters = [Letter { prefix: prefix.into_bytes(), ..letter(MAILBOXES[mailbox], number) }];
        let text = text(content.as_bytes());
        let stored = self.store.write(move |tx| tx.deliver(&text, &letters, UnixTime(1)));
        assert_eq!(stored.wait().unwrap(), [Delivery::Stored]);
        self.stored.insert(number, mailbox);
    }

    /// Delivers a message and deletes it at once; returns its octets.
    fn store_and_delete(&mut self, octets: usize) -> u64 {
        let content = format!("Subject: {}\n\n{}\n", self.next, "x".repeat(octets));
        self.next += 1;
        assert_eq!(deliver(&self.store, &["dave@example.net"], content.as_bytes()), [Delivery::Stored]);
        let maildrop = open_maildrop(&self.store, "dave@example.net");
        let uids: Vec<_> = maildrop.list().unwrap().iter().map(|entry| entry.uid).collect();
        assert!(maildrop.delete(&uids).wait().unwrap());
        octets as u64
    }

    /// Deletes a third of a mailbox.
    fn delete(&mut self) {
        let mailbox = self.rng.usize(..MAILBOXES.len());
        let maildrop = open_maildrop(&self.store, MAILBOXES[mailbox]);
        let mut gone = Vec::new();
        for entry in maildrop.list().unwrap().iter() {
            if self.rng.u8(..3) == 0 {
                let message = maildrop.message(entry.uid).unwrap().unwrap();
                self.stored.remove(&workload::body_number(&message.prefix));
                gone.push(entry.uid);
            }
        }
        maildrop.delete(&gone).wait().unwrap();
    }

    /// Copies the file within this many seconds. Returns the copy, or what is wrong with it.
    fn copy(&mut self, seconds: u64) -> Result<Arc<SimulatedDisk>, String> {
        let before = self.stored.clone();
        let all_before = self.next;
        let copy = Arc::new(SimulatedDisk::default());
        copy.set_inode(2);
        let asks_first = self.rng.bool();
        let mut copier = Copier {
            copy: copy.clone(),
            at: 0,
            len: asks_first.then(|| self.disk.disk.file_len()),
            pages_left: 0,
            rng: self.rng.fork(),
        };
        // The beginning may come at once from the page cache, and the end slowly.
        let pages = self.disk.disk.used_pages() / (seconds as usize + 1) + 1;
        let at_once = self.rng.usize(..pages * 2);
        self.disk.copy(&mut copier, at_once);
        *self.disk.copier.lock().unwrap() = Some(copier);
        for _ in 0..seconds {
            self.disk.copier.lock().unwrap().as_mut().unwrap().pages_left = pages;
            self.second();
            let mut copier = self.disk.copier.lock().unwrap();
            let copier = copier.as_mut().unwrap();
            let left = copier.pages_left;
            self.disk.copy(copier, left);
        }
        let mut copier = self.disk.copier.lock().unwrap().take().unwrap();
        assert!(self.disk.copy(&mut copier, usize::MAX));
        self.verdict(&copy, &before, all_before).map(|()| copy)
    }

    fn verdict(
        &self,
        copy: &Arc<SimulatedDisk>,
        before: &BTreeMap<u64, usize>,
        next_before: u64,
    ) -> Result<(), String> {
        let store = Store::open_or_adopt(Arc::new(copy.copy()), "the copy").map_err(|e| e.to_string())?;
        let report = store.check(&Progress::default()).map_err(|e| e.to_string())?;
        if let Some(finding) = report.findings.first() {
            return Err(finding.clone());
        }
        let mut found = BTreeSet::new();
        for (index, mailbox) in MAILBOXES.iter().enumerate() {
            let maildrop = open_maildrop(&store, mailbox);
            for entry in maildrop.list().unwrap().iter() {
                let message = maildrop.message(entry.uid).unwrap().unwrap();
                let number = workload::body_number(&message.prefix);
                found.insert(number);
                match before.get(&number) {
                    Some(of) if *of != index => return Err(format!("{number} is in {mailbox}")),
                    None if number < next_before => return Err(format!("{number} was deleted before")),
                    _ => {}
                }
            }
        }
        // Those deleted meanwhile may or may not be there.
        match before.keys().find(|number| self.stored.contains_key(number) && !found.contains(number)) {
            Some(lost) => Err(format!("{lost} is not in the copy")),
            None => Ok(()),
        }
    }
}

/// Makes `runs` copies. Returns how many are good, and what is wrong with a bad one.
fn copies(runs: u64, for_copies: Option<u64>) -> (u64, Option<String>) {
    let (mut good, mut wrong) = (0, None);
    for seed in 0..runs {
        let mut laboratory = Laboratory::new(seed, for_copies);
        let (warm_up, takes) = (laboratory.rng.u64(5..40), laboratory.rng.u64(2..GOOD_BELOW));
        (0..warm_up).for_each(|_| laboratory.second());
        match laboratory.copy(takes) {
            Ok(_) => good += 1,
            Err(what) => wrong = Some(format!("seed {seed}, {takes} s: {what}")),
        }
    }
    (good, wrong)
}

/// `COPIES` sets how many are made.
#[test]
fn a_copy_made_within_the_window_is_good() {
    let runs = std::env::var("COPIES").ok().and_then(|runs| runs.parse().ok()).unwrap_or(4);
    let (good, wrong) = copies(runs, ENOUGH);
    assert_eq!((good, wrong), (runs, None));
}

#[test]
fn without_the_window_copies_are_bad() {
    let (good, wrong) = copies(6, None);
    assert!(good <= 3, "{good} of 6 are good");
    assert!(wrong.is_some());
}

/// The clock stands still, so nothing is ever kept long enough.
#[test]
fn space_kept_for_copies_is_bounded() {
    const BOUND: u64 = 20 << 20;
    let mut laboratory = Laboratory::new(1, Some(BOUND));
    (0..20).for_each(|_| laboratory.second());
    let long_ago = laboratory.store.copy_window();
    assert_eq!(long_ago.good_below.as_secs(), GOOD_BELOW);
    let mut retired = 0;
    while retired < 6 * BOUND {
        retired += laboratory.store_and_delete(800_000);
        checkpoint(&laboratory.store);
        let kept = laboratory.store.copy_window().kept_octets;
        // A fortieth of the file may be more.
        let bound = BOUND.max(laboratory.disk.disk.file_len() / 40);
        assert!(kept <= bound, "{kept} of {bound}");
    }
    assert!(laboratory.store.copy_window().good_below.as_secs() < GOOD_BELOW);
    let used = laboratory.disk.disk.file_len() - format::Extent::FIRST.at() - format::AHEAD_MIN;
    assert!(used < format::AHEAD_MIN + 3 * BOUND, "{used}");
    assert_clean(&laboratory.store);
    // The window recovers when there is less to do.
    for _ in 0..130 {
        laboratory.seconds.fetch_add(1, Ordering::AcqRel);
        laboratory.deliver();
        checkpoint(&laboratory.store);
    }
    assert_eq!(laboratory.store.copy_window().good_below.as_secs(), GOOD_BELOW);
}

#[test]
fn what_a_reader_holds_is_not_counted_against_copies() {
    const BOUND: u64 = 20 << 20;
    let mut laboratory = Laboratory::new(1, Some(BOUND));
    (0..20).for_each(|_| laboratory.second());
    let reader = laboratory.store.read_at_checkpoint().wait().unwrap();
    // Until it holds everything that is kept.
    for _ in 0..130 {
        laboratory.seconds.fetch_add(1, Ordering::AcqRel);
        laboratory.deliver();
        checkpoint(&laboratory.store);
    }
    let mut retired = 0;
    while retired < 3 * BOUND {
        retired += laboratory.store_and_delete(800_000);
        checkpoint(&laboratory.store);
        assert_eq!(laboratory.store.copy_window().good_below.as_secs(), GOOD_BELOW);
    }
    drop(reader);
    laboratory.store.write(|_| Ok(())).wait().unwrap();
    let window = laboratory.store.copy_window();
    assert!(window.kept_octets <= BOUND && window.good_below.as_secs() < GOOD_BELOW, "{window:?}");
    assert_clean(&laboratory.store);
}

#[test]
fn no_copy_is_promised_to_be_good_while_the_file_is_compacted_or_soon_after() {
    let mut laboratory = Laboratory::new(4, ENOUGH);
    (0..5).for_each(|_| laboratory.second());
    let good_below = |store: &Store| store.copy_window().good_below.as_secs();
    assert_eq!(good_below(&laboratory.store), GOOD_BELOW);
    // Deletes enough from the front for texts to be moved.
    (0..10).for_each(|_| laboratory.delete());
    std::thread::scope(|scope| {
        let store = laboratory.store.clone();
        let compaction = scope.spawn(move || store.compact(&Progress::default()).unwrap());
        // From its first step on.
        while good_below(&laboratory.store) != 0 {
            std::thread::yield_now();
        }
        while !compaction.is_finished() {
            assert_eq!(good_below(&laboratory.store), 0);
        }
    });
    for _ in 0..60 {
        assert_eq!(good_below(&laboratory.store), 0);
        laboratory.seconds.fetch_add(1, Ordering::AcqRel);
        laboratory.store.write(|_| Ok(())).wait().unwrap();
    }
    assert_eq!(good_below(&laboratory.store), GOOD_BELOW);
}

#[test]
fn on_a_full_disk_mail_comes_before_copies() {
    let disk = Arc::new(SimulatedDisk::default());
    // On this disk, space freed between other octets makes no room elsewhere, so let the index allocate its own
    // first.
    disk.set_room(Some(format::Extent::FIRST.plus(26).at()));
    let mut laboratory = Laboratory::on(disk, 2, ENOUGH);
    (0..15).for_each(|_| laboratory.second());
    let store = &laboratory.store;
    let dave = "dave@example.net";
    let mut number = 0;
    let mut fill = || {
        let before = number;
        let mut store_one = || {
            number += 1;
            deliver(store, &[dave], format!("{number}{}", "x".repeat(300_000)).as_bytes())
        };
        while store_one() == [Delivery::Stored] {}
        number - before
    };
    assert!(fill() > 10);
    for _ in 0..2 {
        let maildrop = open_maildrop(store, dave);
        let uids: Vec<_> = maildrop.list().unwrap().iter().map(|entry| entry.uid).collect();
        assert!(maildrop.delete(&uids).wait().unwrap());
        drop(maildrop);
        let filled = fill();
        assert!(filled > 10, "{filled}: a copy might have needed it");
        assert_eq!(store.copy_window().good_below.as_secs(), 0);
    }
    assert_clean(store);
}

/// With much mail stored, 600 deliveries in 20 checkpoints.
#[test]
fn the_index_grows_little_while_a_backup_or_a_copy_is_made() {
    let growth = |for_copies, is_backed_up: bool| {
        let mut laboratory = Laboratory::new(3, for_copies);
        let letters: Vec<Letter> = (0..3000).map(|tag| letter(MAILBOXES[0], tag)).collect();
        let text = text(b"much mail");
        let stored = laboratory.store.write(move |tx| tx.deliver(&text, &letters, UnixTime(1))).wait();
        assert_eq!(stored.unwrap().len(), 3000);
        checkpoint(&laboratory.store);
        let index_len = |store: &Store| store.read().unwrap().container().index_len();
        let before = index_len(&laboratory.store);
        let held = is_backed_up.then(|| laboratory.store.read_at_checkpoint().wait().unwrap());
        for _ in 0..20 {
            laboratory.seconds.fetch_add(1, Ordering::AcqRel);
            (0..30).for_each(|_| laboratory.deliver());
            checkpoint(&laboratory.store);
        }
        drop(held);
        index_len(&laboratory.store) - before
    };
    let usual = growth(None, false);
    // Each checkpoint rewrites about thirty pages of 4 KiB, and the lists of pages that are not free yet.
    for (for_copies, is_backed_up) in [(None, true), (ENOUGH, false), (ENOUGH, true)] {
        let growth = growth(for_copies, is_backed_up);
        assert!(
            growth <= usual + (10 << 20),
            "{growth}, and {usual} without ({for_copies:?}, {is_backed_up})"
        );
    }
}
