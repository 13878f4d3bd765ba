//! Bits flip in a file in use: the process survives, damaged parts are refused, and the rest works.

use super::*;
use crate::store::file::format::{EXTENT, Extent};

const MAILBOXES: usize = 40;
const MESSAGES: usize = 12;
const PAGE: u64 = 4096;

fn mailbox(number: usize) -> String {
    format!("user{number}@example.com")
}

/// A store whose index has many pages.
fn many() -> Arc<SimulatedDisk> {
    let disk = Arc::new(SimulatedDisk::default());
    let names: Vec<String> = (0..MAILBOXES).map(mailbox).collect();
    let store = store_with(&names.iter().map(String::as_str).collect::<Vec<_>>(), disk.clone());
    for (number, name) in names.iter().enumerate() {
        let fields = format!("Delivered-To: {name}\r\nReceived: {}\r\n", "x".repeat(700)).into_bytes();
        let letters = [Letter { prefix: fields, ..letter(name, 7) }];
        for message in 0..MESSAGES {
            let (text, letters) = (text(format!("{number} {message}").as_bytes()), letters.clone());
            assert!(store.write(move |tx| tx.deliver(&text, &letters, UnixTime(1))).wait().is_ok());
        }
    }
    disk
}

/// Index pages in use, by offset in the file: a check fails without them.
fn index_pages(disk: &SimulatedDisk) -> Vec<u64> {
    let container = Container::open(Arc::new(disk.copy())).unwrap();
    let extents = container.index_extents().into_iter().map(Extent::at);
    let pages = extents.flat_map(|at| (at..at + EXTENT).step_by(PAGE as usize));
    let is_used = |at: &u64| {
        let mut page = [0; PAGE as usize];
        disk.read_at(*at, &mut page).unwrap();
        let damaged = Arc::new(disk.copy());
        flip(&damaged, *at + PAGE / 2, 0);
        page.iter().any(|octet| *octet != 0)
            && !Store::open_on(damaged)
                .is_ok_and(|store| store.check(&Progress::default()).is_ok_and(|report| report.is_clean()))
    };
    pages.filter(is_used).collect()
}

fn flip(disk: &SimulatedDisk, at: u64, bit: u8) {
    let mut octet = [0];
    disk.read_at(at, &mut octet).unwrap();
    disk.write_at(at, &[octet[0] ^ 1 << bit]).unwrap();
}

/// Uses a mailbox like a service; false if a fault prevented that.
fn is_served(store: &Store, name: &str) -> bool {
    let session = || -> Result<(), Fault> {
        let Login::Welcome(maildrop) = store.open_maildrop(&address(name))? else { return Ok(()) };
        let entries = maildrop.list()?;
        for entry in &entries {
            maildrop.message(entry.uid)?;
        }
        assert_eq!(try_deliver(store, &[name], b"new")?, [Delivery::Stored]);
        assert!(maildrop.delete(&[entries[0].uid]).wait()?);
        Ok(())
    };
    match session() {
        Ok(()) => true,
        Err(Fault::Damaged(_)) => false,
        Err(fault) => panic!("{name}: {fault}"),
    }
}

#[test]
fn a_flipped_bit_in_the_index_costs_what_it_hits_and_ends_nothing() {
    let sound = many();
    let pages = index_pages(&sound);
    assert!(pages.len() > 100, "{} pages", pages.len());
    let mut rng = fastrand::Rng::with_seed(79);
    let (mut refused, mut served, mut not_served) = (0, 0, 0);
    const ROUNDS: usize = 300;
    for _ in 0..ROUNDS {
        let disk = Arc::new(sound.copy());
        flip(&disk, pages[rng.usize(..pages.len())] + rng.u64(..PAGE), rng.u8(..8));
        let Ok(store) = Store::open_on(disk) else {
            refused += 1;
            continue;
        };
        for number in 0..4 {
            let number = (number * 10 + rng.usize(..10)) % MAILBOXES;
            match is_served(&store, &mailbox(number)) {
                true => served += 1,
                false => not_served += 1,
            }
        }
    }
    assert!(not_served > 0, "no flip was met");
    assert!(served > 5 * not_served, "{served} served, {not_served} not, {refused} not opened");
    assert!(refused < ROUNDS / 4, "{refused} of {ROUNDS} not opened");
}

/// The number of readable messages; each must be intact.
fn saved(store: &Store) -> usize {
    let read = |number| {
        let Ok(Login::Welcome(maildrop)) = store.open_maildrop(&address(&mailbox(number))) else { return 0 };
        let entries = maildrop.list().unwrap();
        let whole = |uid| maildrop.message(uid).unwrap().is_some_and(|message| message.verify().is_ok());
        assert!(entries.iter().all(|entry| whole(entry.uid)), "mailbox {number}");
        entries.len()
    };
    (0..MAILBOXES).map(read).sum()
}

/// A page holds four message rows or about thirty text rows. Rows below a damaged branch are found nevertheless.
#[test]
fn a_repair_saves_what_the_damaged_pages_do_not_hold() {
    let sound = many();
    let pages = index_pages(&sound);
    let mut rng = fastrand::Rng::with_seed(80);
    let (mut salvaged, mut lost) = (0, 0);
    const ROUNDS: usize = 60;
    for round in 0..ROUNDS {
        let damaged = Arc::new(sound.copy());
        for _ in 0..rng.usize(1..4) {
            flip(&damaged, pages[rng.usize(..pages.len())] + rng.u64(..PAGE), rng.u8(..8));
        }
        let before = damaged.octets();
        let report = Store::check_disk(damaged.clone(), &Progress::default())
            .unwrap_or_else(|e| panic!("round {round}: {e}"));
        let disk = Arc::new(SimulatedDisk::default());
        let repaired = match Store::repair_on(Arc::new(damaged.copy()), UnixTime(1)) {
            Ok(_) => continue,
            Err(_) => Store::salvage_to(damaged.clone(), disk.clone(), UnixTime(1), &Progress::default())
                .unwrap_or_else(|e| panic!("{round}: {e}")),
        };
        salvaged += 1;
        assert!(report.findings_total > 0 && repaired.repaired_total > 0, "round {round}: {report:?}");
        assert!(damaged.octets() == before, "round {round}: the damaged file was changed");
        let store = Store::open_on(disk).unwrap();
        assert_clean(&store);
        lost += MAILBOXES * MESSAGES - saved(&store);
        deliver(&store, &[&mailbox(0)], b"it goes on");
        assert_clean(&store);
    }
    assert!(salvaged > ROUNDS / 2, "{salvaged} of {ROUNDS}");
    let stored = salvaged * MAILBOXES * MESSAGES;
    assert!(lost > 0 && lost < stored / 20, "{lost} lost of {stored}");
}
