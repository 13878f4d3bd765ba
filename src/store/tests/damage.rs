//! Damaged files: every kind of damage is found, none causes a panic, and a repair leaves a sound store.

use super::*;
use crate::store::file::format::{EXTENT, Extent};
use crate::store::index::rows::{Counts, MailboxRow, QuotaRow, StoreRow};
use crate::store::index::rows::{MessageRow, Row, TextRow};

const ANN: &str = "ann@example.com";
const BOB: &str = "bob@example.com";
const NOW: u64 = 1_800_000_000;

/// Three texts, one shared by both mailboxes, one of ann's and a long one of bob's, with a hole among them.
fn sound() -> Arc<SimulatedDisk> {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN, BOB], disk.clone());
    let shared_quota = store.write(|tx| {
        let _ = tx.set_quota(&address(ANN), &address(ANN), Some(1 << 30))?;
        tx.set_quota(&address(BOB), &address(ANN), None)
    });
    assert!(shared_quota.wait().unwrap().is_ok());
    deliver(&store, &[ANN, BOB], SHARED);
    deliver(&store, &[ANN], b"goes");
    deliver(&store, &[ANN], b"ann's own");
    deliver(&store, &[BOB], &[b'x'; 70_000]);
    let maildrop = open_maildrop(&store, ANN);
    assert!(maildrop.delete(&[maildrop.list().unwrap()[1].uid]).wait().unwrap());
    disk
}

const SHARED: &[u8] = b"Subject: shared\n\n.of both\n";
const MESSAGES: usize = 4;

/// Finds the texts of [`sound`], numbered in the order they were stored.
fn text_id(content: &[u8]) -> TextId {
    let long = [b'x'; 70_000];
    let all = [SHARED, b"goes", b"ann's own", &long];
    TextId(all.iter().position(|text| *text == content).expect("it is one of them") as u64)
}

/// Changes the tables in ways only damage can.
pub fn damage(disk: &Arc<SimulatedDisk>, change: impl FnOnce(&mut Tables<'_>, &Container)) {
    let container = Container::open(disk.clone()).unwrap();
    let database = open_database(&container, false).unwrap();
    let mut transaction = database.begin_write().unwrap();
    transaction.set_quick_repair(true);
    change(&mut Tables::open_unlogged(&transaction).unwrap(), &container);
    transaction.commit().unwrap();
    database.close().unwrap();
}

fn text_row(tables: &Tables<'_>, content: &[u8]) -> TextRow {
    TextRow::from_row(tables.texts.get(text_id(content)).unwrap().unwrap().value()).unwrap()
}

fn put_text(tables: &mut Tables<'_>, content: &[u8], row: TextRow) {
    tables.texts.insert(text_id(content), &row.to_row()[..]).unwrap();
}

fn id_of(tables: &Tables<'_>, mailbox: &str) -> MailboxId {
    let address = address(mailbox);
    let row = tables.mailboxes.get((address.domain.as_str(), address.local.as_str())).unwrap().unwrap();
    MailboxRow::from_row(row.value()).unwrap().id
}

fn change_counts(tables: &mut Tables<'_>, id: impl Into<OwnerId>, change: impl FnOnce(&mut Counts)) {
    let id = id.into();
    let mut counts = Counts::from_row(tables.counts.get(id).unwrap().unwrap().value()).unwrap();
    change(&mut counts);
    tables.counts.insert(id, &counts.to_row()[..]).unwrap();
}

fn change_store(tables: &mut Tables<'_>, change: impl FnOnce(&mut StoreRow)) {
    let mut row = StoreRow::from_row(tables.store.get(()).unwrap().unwrap().value()).unwrap();
    change(&mut row);
    tables.store.insert((), &row.to_row()[..]).unwrap();
}

fn change_message(tables: &mut Tables<'_>, change: impl FnOnce(&mut MessageRow)) {
    let key = (id_of(tables, ANN), 1);
    let mut row = MessageRow::from_row(tables.messages.get(key).unwrap().unwrap().value()).unwrap();
    change(&mut row);
    tables.messages.insert(key, &row.to_row()[..]).unwrap();
}

type Damage = fn(&mut Tables<'_>, &Container);

/// Kinds of damage, and how many messages each costs.
const DAMAGES: &[(&str, usize, Damage)] = &[
    ("a text's row is gone", 2, |t, _| drop(t.texts.remove(text_id(SHARED)).unwrap())),
    ("a text's row makes no sense", 2, |t, _| drop(t.texts.insert(text_id(SHARED), &b"?"[..]).unwrap())),
    ("a text's row leads into another text", 2, |t, _| {
        let row = TextRow { at: text_row(t, &[b'x'; 70_000]).at + 640, ..text_row(t, SHARED) };
        put_text(t, SHARED, row);
    }),
    ("a text's row leads into the index", 2, |t, c| {
        let row = TextRow { at: c.index_extents()[0].at(), ..text_row(t, SHARED) };
        put_text(t, SHARED, row);
    }),
    ("a text's row leads out of the file", 2, |t, _| {
        put_text(t, SHARED, TextRow { at: 1 << 50, ..text_row(t, SHARED) });
    }),
    ("a text's row leads past every number", 2, |t, _| {
        put_text(
            t,
            SHARED,
            TextRow { hash: [0; 32], at: u64::MAX - 63, wire_octets: u64::MAX, references: u64::MAX },
        );
    }),
    ("a text's row leads into the header", 2, |t, _| {
        put_text(t, SHARED, TextRow { at: 0, ..text_row(t, SHARED) });
    }),
    ("a text is said to be longer than it is", 0, |t, _| {
        let row = text_row(t, b"ann's own");
        put_text(t, b"ann's own", TextRow { wire_octets: row.wire_octets + 1, ..row });
    }),
    ("a text has too few references", 0, |t, _| {
        put_text(t, SHARED, TextRow { references: 1, ..text_row(t, SHARED) });
    }),
    ("a text has too many references", 0, |t, _| {
        put_text(t, SHARED, TextRow { references: u64::MAX, ..text_row(t, SHARED) });
    }),
    ("a text has no references", 0, |t, _| {
        put_text(t, SHARED, TextRow { references: 0, ..text_row(t, SHARED) });
    }),
    ("a message's row is gone", 0, |t, _| drop(t.messages.remove((id_of(t, ANN), 1)).unwrap())),
    ("a message's row makes no sense", 1, |t, _| {
        drop(t.messages.insert((id_of(t, ANN), 1), &[9; 40][..]).unwrap());
    }),
    ("a message's size is wrong", 0, |t, _| change_message(t, |row| row.octets += 1)),
    ("a message's size is absurd", 0, |t, _| change_message(t, |row| row.octets = u64::MAX)),
    ("a message names a text that never was", 1, |t, _| change_message(t, |row| row.text = TextId(1 << 40))),
    ("a message belongs to nobody", 0, |t, _| {
        let row = t.messages.get((id_of(t, ANN), 1)).unwrap().unwrap().value().to_vec();
        t.messages.insert((MailboxId(OwnerId(4_000_000)), 1), &row[..]).unwrap();
    }),
    ("a message has a number never given out", 0, |t, _| {
        let ann = id_of(t, ANN);
        let row = t.messages.remove((ann, 1)).unwrap().unwrap().value().to_vec();
        t.messages.insert((ann, 1000), &row[..]).unwrap();
    }),
    ("a mailbox has too many messages counted", 0, |t, _| {
        change_counts(t, id_of(t, ANN), |c| c.messages += 1)
    }),
    ("a mailbox has no messages counted", 0, |t, _| change_counts(t, id_of(t, ANN), |c| c.messages = 0)),
    ("a mailbox's octets are absurd", 0, |t, _| change_counts(t, id_of(t, ANN), |c| c.octets = u64::MAX)),
    ("a mailbox's messages are absurd", 0, |t, _| change_counts(t, id_of(t, ANN), |c| c.messages = u64::MAX)),
    ("a mailbox starts to count anew", 0, |t, _| change_counts(t, id_of(t, ANN), |c| c.next_sequence = 1)),
    ("a mailbox's counts are gone", 0, |t, _| drop(t.counts.remove(id_of(t, ANN).0).unwrap())),
    ("a mailbox's counts make no sense", 0, |t, _| {
        drop(t.counts.insert(id_of(t, ANN).0, &b"?"[..]).unwrap())
    }),
    ("nobody's counts", 0, |t, _| {
        drop(t.counts.insert(OwnerId(4_000_000), &Counts::default().to_row()[..]).unwrap());
    }),
    ("the store's counts are gone", 0, |t, _| drop(t.store.remove(()).unwrap())),
    ("the store's counts make no sense", 0, |t, _| drop(t.store.insert((), &b"?"[..]).unwrap())),
    ("the store counts nothing", 0, |t, _| change_store(t, |row| (row.messages, row.mailboxes) = (0, 0))),
    ("the store counts no octets", 0, |t, _| change_store(t, |row| (row.octets, row.text_octets) = (0, 0))),
    ("the store counts absurdly", 0, |t, _| change_store(t, |row| row.octets = u64::MAX)),
    ("ids of texts are given out anew", 0, |t, _| change_store(t, |row| row.next_text = TextId(0))),
    ("a text's row has another hash", 0, |t, _| {
        put_text(t, SHARED, TextRow { hash: [0; 32], ..text_row(t, SHARED) })
    }),
    ("ids are given out anew", 0, |t, _| change_store(t, |row| row.next_id = OwnerId(1))),
    ("a quota has too little used", 0, |t, _| {
        let row = QuotaRow { limit: Some(1 << 30), used: 1, mailboxes: 2 };
        drop(t.quotas.insert(ANN, &row.to_row()[..]).unwrap());
    }),
    ("a quota is gone", 0, |t, _| drop(t.quotas.remove(ANN).unwrap())),
    ("a quota makes no sense", 0, |t, _| drop(t.quotas.insert(ANN, &b"?"[..]).unwrap())),
    ("nobody's quota", 0, |t, _| {
        drop(t.quotas.insert(BOB, &QuotaRow::default().to_row()[..]).unwrap());
    }),
    ("a free run is not listed", 0, |t, _| {
        let (at, _) = t.free.first().unwrap().map(|(at, len)| (at.value(), len.value())).unwrap();
        t.free.remove(at).unwrap();
    }),
    ("a free run is too long", 0, |t, _| {
        let (at, len) = t.free.first().unwrap().map(|(at, len)| (at.value(), len.value())).unwrap();
        t.free.insert(at, len + 64).unwrap();
    }),
    ("a free run lies in a text", 0, |t, _| {
        let at = text_row(t, &[b'x'; 70_000]).at;
        t.free.insert(at + 6400, 64).unwrap();
    }),
    ("a free run lies across a place", 0, |t, _| {
        let (at, len) = t.free.first().unwrap().map(|(at, len)| (at.value(), len.value())).unwrap();
        t.free.insert(at + 1, len - 1).unwrap();
    }),
    ("a free run is absurd", 0, |t, _| drop(t.free.insert(u64::MAX, u64::MAX).unwrap())),
    ("a free run is nothing", 0, |t, _| drop(t.free.insert(Extent::FIRST.at() + 128, 0).unwrap())),
    ("an extent of texts is not listed", 0, |t, _| {
        let extent = t.blob_extents.first().unwrap().map(|(extent, _)| extent.value()).unwrap();
        t.blob_extents.remove(extent).unwrap();
    }),
    ("an extent of the index is listed", 0, |t, c| {
        drop(t.blob_extents.insert(c.index_extents()[0], ()).unwrap())
    }),
    ("an extent outside of the file is listed", 0, |t, _| {
        drop(t.blob_extents.insert(Extent(u32::MAX), ()).unwrap())
    }),
    ("our own certificate makes no sense", 0, |t, _| drop(t.certificate.insert((), &b"?"[..]).unwrap())),
    ("a mailbox's row makes no sense", 0, |t, _| {
        drop(t.mailboxes.insert(("example.com", "ann"), &b"?"[..]).unwrap())
    }),
    ("a mailbox's row is gone", 0, |t, _| drop(t.mailboxes.remove(("example.com", "ann")).unwrap())),
    ("two mailboxes have one id", 0, |t, _| {
        let row = t.mailboxes.get(("example.com", "ann")).unwrap().unwrap().value().to_vec();
        t.mailboxes.insert(("example.com", "bob"), &row[..]).unwrap();
    }),
    ("a mailbox's name is none", 0, |t, _| {
        let row = t.mailboxes.remove(("example.com", "ann")).unwrap().unwrap().value().to_vec();
        t.mailboxes.insert(("example.com", "an\nn"), &row[..]).unwrap();
    }),
    ("a domain's row makes no sense", 0, |t, _| drop(t.domains.insert("example.com", &b"?"[..]).unwrap())),
    ("a domain's row is gone", 0, |t, _| drop(t.domains.remove("example.com").unwrap())),
    ("a domain's name is none", 0, |t, _| {
        let row = t.domains.remove("example.com").unwrap().unwrap().value().to_vec();
        t.domains.insert("-", &row[..]).unwrap();
    }),
    ("a domain has the id of a mailbox", 0, |t, _| {
        let row = DomainRow { id: DomainId(id_of(t, ANN).0), locked: false, created: UnixTime(1) };
        t.domains.insert("example.com", &row.to_row()[..]).unwrap();
    }),
];

/// Uses the store like a service. Faults are allowed, panics are not.
fn use_it(store: &Store) {
    let outcomes = [
        try_deliver(store, &[ANN, BOB], SHARED).err(),
        try_deliver(store, &[ANN, BOB], b"something new").err(),
        store.write(|tx| tx.add_domain(&"more.example".parse().unwrap(), UnixTime(1))).wait().err(),
        store.write(|tx| tx.add_mailbox(&address("new@example.com"), credential(), UnixTime(1))).wait().err(),
        delete_all(store, ANN).err(),
        store.write(|tx| tx.remove_domain(&"example.com".parse().unwrap(), UnixTime(1))).wait().err(),
    ];
    for fault in outcomes.into_iter().flatten() {
        assert!(!fault.to_string().contains("see the message before"), "a panic: {fault}");
    }
}

fn delete_all(store: &Store, mailbox: &str) -> Result<(), Fault> {
    if let Login::Welcome(maildrop) = store.open_maildrop(&address(mailbox))? {
        let uids: Vec<_> = maildrop.list()?.iter().map(|entry| entry.uid).collect();
        for uid in &uids {
            let _ = maildrop.message(*uid);
        }
        maildrop.delete(&uids).wait()?;
    }
    Ok(())
}

fn findings(disk: &Arc<SimulatedDisk>) -> u64 {
    match Store::open_on(disk.clone()) {
        Ok(store) => store.check(&Progress::default()).map_or(1, |report| report.findings_total),
        Err(_) => 1,
    }
}

#[test]
fn every_kind_of_damage_is_found_and_repaired() {
    let sound = sound();
    assert_eq!(findings(&Arc::new(sound.copy())), 0);
    for (what, costs, change) in DAMAGES {
        let disk = Arc::new(sound.copy());
        damage(&disk, change);
        assert!(findings(&disk) > 0, "not found: {what}");
        if let Ok(store) = Store::open_on(Arc::new(disk.copy())) {
            use_it(&store);
        }
        let report = Store::repair_on(disk.clone(), UnixTime(NOW)).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(report.repaired_total > 0, "{what}: {report:?}");
        assert_eq!(report.lost.len(), *costs, "{what}: {report:?}");
        let store = Store::open_on(disk.clone()).unwrap_or_else(|e| panic!("after mending that {what}: {e}"));
        let found = store.check(&Progress::default()).unwrap();
        assert!(found.is_clean(), "after mending that {what}: {:#?}", found.findings);
        if !what.contains("message's row is gone") && !what.contains("belongs to nobody") {
            assert_eq!(found.messages as usize, MESSAGES - costs, "{what}");
        }
        drop(store);
        let again = Store::repair_on(disk.clone(), UnixTime(NOW)).unwrap();
        assert_eq!(again, RepairReport::default(), "after mending that {what}");
        use_it(&Store::open_on(disk).unwrap());
    }
}

#[test]
fn a_repair_says_what_is_lost() {
    let disk = sound();
    damage(&disk, |tables, _| drop(tables.texts.remove(text_id(SHARED)).unwrap()));
    let report = Store::repair_on(disk, UnixTime(NOW)).unwrap();
    let octets = (b"Delivered-To: ann@example.com\r\n".len() + SHARED.len() + 3) as u64;
    let lost = |mailbox: &str| LostMessage {
        mailbox: mailbox.into(),
        sequence: 1,
        received_octets: Some((UnixTime(1), octets)),
    };
    assert_eq!(report.lost, [lost(ANN), lost(BOB)]);
}

#[test]
fn a_lost_mailbox_is_named_after_the_mail_in_it() {
    const DETAIL: &str = "bob+x@example.com";
    for (others, named) in [(&[][..], BOB), (&[BOB][..], DETAIL)] {
        let disk = Arc::new(SimulatedDisk::default());
        let store = store_with(&[others, &[DETAIL]].concat(), disk.clone());
        deliver(&store, &[DETAIL], b"to a mailbox whose name has a plus");
        drop(store);
        damage(&disk, |tables, _| drop(tables.mailboxes.remove(("example.com", "bob+x")).unwrap()));
        Store::repair_on(disk.clone(), UnixTime(NOW)).unwrap();
        let store = Store::open_on(disk).unwrap();
        assert_clean(&store);
        assert_eq!(contents(&store, named).len(), 1, "{named}");
    }
}

#[test]
fn a_text_that_has_changed_is_kept_as_it_is_now() {
    let disk = sound();
    let store = Store::open_on(disk.clone()).unwrap();
    let at = store.read().unwrap().text(text_id(SHARED)).unwrap().unwrap().at;
    drop(store);
    // Hits the line end before the stuffed dot, and adds a dot that is not stuffed.
    disk.write_at(at, b"subject: shared\n\n\n.of").unwrap();
    assert!(findings(&disk) > 0);
    let report = Store::repair_on(disk.clone(), UnixTime(NOW)).unwrap();
    assert!(report.lost.is_empty(), "{report:?}");
    let store = Store::open_on(disk).unwrap();
    assert_clean(&store);
    for mailbox in [ANN, BOB] {
        let contents = contents(&store, mailbox);
        assert!(String::from_utf8_lossy(&contents[0]).contains("\r\nsubject: shared\r\n"), "{mailbox}");
    }
}

#[test]
fn random_damage_to_rows_is_repaired_without_a_panic() {
    let sound = sound();
    let mut rng = fastrand::Rng::with_seed(77);
    for round in 0..150 {
        let disk = Arc::new(sound.copy());
        damage(&disk, |tables, _| {
            for _ in 0..rng.usize(1..4) {
                damage_some_row(tables, &mut rng);
            }
        });
        if let Ok(store) = Store::open_on(Arc::new(disk.copy())) {
            store.check(&Progress::default()).unwrap();
            use_it(&store);
        }
        Store::repair_on(disk.clone(), UnixTime(NOW)).unwrap_or_else(|e| panic!("round {round}: {e}"));
        let store = Store::open_on(disk).unwrap_or_else(|e| panic!("round {round}: {e}"));
        let found = store.check(&Progress::default()).unwrap();
        assert!(found.is_clean(), "round {round}: {:#?}", found.findings);
        use_it(&store);
    }
}

/// Flips some octets of a value. Keys belong to the index, whose pages have checksums.
fn damage_some_row(tables: &mut Tables<'_>, rng: &mut fastrand::Rng) {
    macro_rules! damage_one_of {
        ($table:expr, $key:expr) => {{
            let table = &mut $table;
            let count = table.iter().unwrap().count();
            let chosen = table.iter().unwrap().nth(rng.usize(..count)).unwrap().unwrap();
            let (key, mut row) = ($key(chosen.0.value()), chosen.1.value().to_vec());
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..row.len());
                row[at] = [rng.u8(..), 0, 0xff][rng.usize(..3)];
            }
            drop(chosen);
            let borrowed = borrow_key(&key);
            table.insert(borrowed, &row[..]).unwrap();
        }};
    }
    fn borrow_key<T: Copy>(key: &T) -> T {
        *key
    }
    match rng.u8(..6) {
        0 => damage_one_of!(tables.texts, |key| key),
        1 => damage_one_of!(tables.messages, |key| key),
        2 => damage_one_of!(tables.counts, |key| key),
        3 => {
            let row = tables.store.get(()).unwrap().unwrap().value().to_vec();
            let mut row = row;
            let at = rng.usize(..row.len());
            row[at] = rng.u8(..);
            tables.store.insert((), &row[..]).unwrap();
        }
        4 => {
            let at = tables.free.first().unwrap().map_or(0, |(at, _)| at.value());
            tables.free.insert(at.wrapping_add(rng.u64(..4) * 64), rng.u64(..) >> rng.u32(..64)).unwrap();
        }
        _ => {
            let extent = rng.u32(..) >> rng.u32(..32);
            if rng.bool() {
                tables.blob_extents.insert(Extent(extent), ()).unwrap();
            } else {
                let last = tables.blob_extents.last().unwrap().map(|(extent, _)| extent.value());
                if let Some(extent) = last {
                    tables.blob_extents.remove(extent).unwrap();
                }
            }
        }
    }
}

/// Octets flip anywhere: the file may fail to open, but what a check of a verified store calls sound is sound.
#[test]
fn flipped_octets_anywhere_are_found_and_never_a_panic() {
    let sound = sound();
    let before =
        [ANN, BOB].map(|mailbox| contents(&Store::open_on(Arc::new(sound.copy())).unwrap(), mailbox));
    let container = Container::open(Arc::new(sound.copy())).unwrap();
    let index_at = container.index_extents()[0].at();
    let long = Store::open_on(Arc::new(sound.copy())).unwrap().read().unwrap();
    let long_at = long.text(text_id(&[b'x'; 70_000])).unwrap().unwrap().at;
    let mut rng = fastrand::Rng::with_seed(78);
    let (mut refused, mut found, mut harmless) = (0, 0, 0);
    for round in 0..400 {
        let disk = Arc::new(sound.copy());
        let len = disk.file_len();
        for _ in 0..rng.usize(1..3) {
            let at = match rng.u8(..7) {
                0 => rng.u64(..64),
                1 => format::INDEX_PAGE_0 + rng.u64(..320),
                2 => format::SLOTS[rng.usize(..2)] + rng.u64(..64),
                3 | 4 => index_at + rng.u64(..EXTENT / 8),
                5 => long_at + rng.u64(..70_000),
                _ => rng.u64(..len),
            };
            let mut octet = [0];
            disk.read_at(at, &mut octet).unwrap();
            disk.write_at(at, &[octet[0] ^ 1 << rng.u8(..8)]).unwrap();
        }
        if let Ok(store) = Store::open_on(Arc::new(disk.copy())) {
            let _ = store.check(&Progress::default());
            let _ = try_deliver(&store, &[ANN, BOB], b"on damaged ground");
            let _ = delete_all(&store, BOB);
        }
        let _ = Store::repair_on(Arc::new(disk.copy()), UnixTime(NOW));
        match Store::open_with(disk, Trust::Verified) {
            Err(_) => refused += 1,
            Ok(store) if !store.check(&Progress::default()).is_ok_and(|report| report.is_clean()) => {
                found += 1
            }
            Ok(store) => {
                harmless += 1;
                let after = [ANN, BOB].map(|mailbox| contents(&store, mailbox));
                assert!(after == before, "round {round}: damage was not found");
            }
        }
    }
    assert!(
        refused > 50 && found > 0 && harmless > 50,
        "{refused} refused, {found} found, {harmless} harmless"
    );
}
