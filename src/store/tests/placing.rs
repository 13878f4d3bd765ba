//! Long texts are written by other threads than the writer, to room reserved for them.

use super::*;
use crate::store::file::simulated::Mutant;
use crate::store::mail::placing::Room;

const ANN: &str = "ann@example.com";
const LONG: usize = 300_000;

fn store_placed(store: &Store, text: Incoming) -> Vec<Delivery> {
    store.write(move |tx| tx.deliver(&text, &[letter(ANN, 7)], UnixTime(1))).wait().unwrap()
}

fn room(store: &Store, text: &Incoming) -> Room {
    smol::block_on(store.room_for(text)).expect("it is long, and there is room")
}

/// Where the texts of ann's messages lie.
fn places(store: &Store) -> Vec<u64> {
    let texts = store.read().unwrap().table(TEXTS).unwrap();
    texts.iter().unwrap().map(|row| TextRow::from_row(row.unwrap().1.value()).unwrap().at).collect()
}

#[test]
fn other_mail_does_not_wait_for_a_long_text_that_is_being_written() {
    let store = store_with(&[ANN], Arc::new(SimulatedDisk::default()));
    let long = text(&[b'x'; LONG]);
    let room = room(&store, &long);
    for number in 0..20 {
        assert_eq!(deliver(&store, &[ANN], format!("{number}").as_bytes()), [Delivery::Stored]);
    }
    checkpoint(&store);
    assert_clean(&store);
    let placed = room.place(long);
    assert!(matches!(placed.wire, Body::Placed(_)));
    assert_clean(&store);
    assert_eq!(store_placed(&store, placed), [Delivery::Stored]);
    assert_eq!(contents(&store, ANN).len(), 21);
    assert!(contents(&store, ANN)[20].ends_with(b"xxxx\r\n"));
    assert_clean(&store);
}

/// The writer writes only its rows.
#[test]
fn the_transaction_of_a_long_text_writes_and_syncs_nothing_of_it() {
    let disk = Arc::new(SimulatedDisk::recording());
    let store = store_with(&[ANN], disk.clone());
    // The first one allocates extents.
    assert_eq!(store_placed(&store, placed(&store, &[b'w'; LONG])), [Delivery::Stored]);
    let placed = placed(&store, &[b'x'; LONG]);
    let before = disk.events();
    assert_eq!(store_placed(&store, placed), [Delivery::Stored]);
    let (flushes, octets) = disk.work_since(before);
    assert!(flushes == 1 && octets < 16 << 10, "{flushes} flushes, {octets} octets");
}

#[test]
fn room_that_is_not_used_is_free_again() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    let long = text(&[b'x'; LONG]);
    assert_eq!(deliver(&store, &[ANN], b"the first"), [Delivery::Stored]);
    for _ in 0..3 {
        drop(room(&store, &long));
        drop(room(&store, &long).place(long.clone()));
        // The next transaction finds out.
        assert_eq!(deliver(&store, &[ANN], b"short"), [Delivery::Stored]);
    }
    let before = disk.file_len();
    for _ in 0..40 {
        drop(room(&store, &long).place(long.clone()));
        assert_eq!(deliver(&store, &[ANN], b"short"), [Delivery::Stored]);
    }
    assert_eq!(disk.file_len(), before);
    assert_clean(&store);
    // Room reserved before the store was closed means nothing after it is opened again.
    let room = room(&store, &long);
    assert_eq!(deliver(&store, &[ANN], b"beside the room"), [Delivery::Stored]);
    drop((room, store));
    assert_clean(&Store::open_on(disk).unwrap());
}

#[test]
fn a_long_text_that_is_known_is_shared_and_one_that_is_damaged_replaced() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    assert_eq!(store_placed(&store, placed(&store, &[b'x'; LONG])), [Delivery::Stored]);
    let [at] = places(&store)[..] else { panic!("there is one") };
    assert_eq!(store_placed(&store, placed(&store, &[b'x'; LONG])), [Delivery::Stored]);
    assert_eq!(places(&store), [at]);
    // Two are placed before either is stored: the second then shares the first one's text.
    let (one, two) = (placed(&store, &[b'y'; LONG]), placed(&store, &[b'y'; LONG]));
    assert_eq!(store_placed(&store, one), [Delivery::Stored]);
    assert_eq!(store_placed(&store, two.clone()), [Delivery::Stored]);
    assert_eq!(places(&store).len(), 2);
    // A text handed in twice is stored once.
    assert_eq!(store_placed(&store, two), [Delivery::Stored]);
    assert_eq!(places(&store).len(), 2);
    disk.write_at(at + 1000, b"damage").unwrap();
    assert_eq!(store_placed(&store, placed(&store, &[b'x'; LONG])), [Delivery::Stored]);
    assert!(!places(&store).contains(&at) && places(&store).len() == 2);
    assert_clean(&store);
}

/// After a fault the room may belong to another text.
#[test]
fn a_text_whose_room_ended_with_a_fault_is_written_once_more() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    let long = placed(&store, &[b'x'; LONG]);
    let before = Arc::downgrade(store.read().unwrap().container());
    disk.fail_sync_after(0);
    // Other tests examine whether it got through.
    let _ = try_deliver(&store, &[ANN], b"the disk fails");
    disk.fail_after(None);
    assert!(before.upgrade().is_none(), "the index was opened anew");
    assert_eq!(deliver(&store, &[ANN], &[b'y'; LONG]), [Delivery::Stored]);
    assert_eq!(store_placed(&store, long), [Delivery::Stored]);
    let contents = contents(&store, ANN);
    let [.., one, two] = &contents[..] else { panic!("{} are there", contents.len()) };
    assert!(one.ends_with(b"yyyy\r\n") && two.ends_with(b"xxxx\r\n"));
    assert_clean(&store);
}

#[test]
fn the_writer_finds_out_if_the_disk_is_full_or_fails() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    let long = text(&[b'x'; LONG]);
    let room = room(&store, &long);
    disk.fail_once_after(0);
    let not_placed = room.place(long);
    assert!(matches!(not_placed.wire, Body::Octets(_)));
    disk.fail_after(None);
    assert_eq!(store_placed(&store, not_placed), [Delivery::Stored]);
    disk.set_room(Some(disk.file_len()));
    let huge = placed(&store, &vec![b'z'; 40 << 20]);
    assert_eq!(store_placed(&store, huge), [Delivery::DiskFull]);
    assert_clean(&store);
}

/// A real data file can be opened twice.
#[test]
fn another_thread_writes_a_long_text_on_a_real_file() {
    let directory = scratch::directory();
    let path = directory.path().join("winpop.db");
    let store = Store::create(&path).unwrap();
    add_mailbox(&store, ANN);
    let placed = placed(&store, &vec![b'x'; 3 << 20]);
    assert!(matches!(placed.wire, Body::Placed(_)));
    assert_eq!(store_placed(&store, placed), [Delivery::Stored]);
    assert_clean(&store);
    drop(store);
    let store = Store::open(&path).unwrap();
    assert!(contents(&store, ANN)[0].ends_with(b"xxxx\r\n"));
}

/// True if the mail is intact after a power cut that loses everything not synced.
fn whole_after_a_cut(mutant: Mutant) -> bool {
    let disk = Arc::new(SimulatedDisk::recording());
    let store = store_with(&[ANN], disk.clone());
    disk.set_mutant(mutant);
    let placed = placed(&store, &[b'x'; LONG]);
    assert!(matches!(placed.wire, Body::Placed(_)));
    assert_eq!(store_placed(&store, placed), [Delivery::Stored]);
    let found = disk.replay().crash(disk.events(), 0.0, &mut fastrand::Rng::with_seed(1));
    let store = Store::open_on(Arc::new(found)).unwrap();
    let report = store.check(&Progress::default()).unwrap();
    assert_eq!(open_maildrop(&store, ANN).totals().messages, 1);
    report.is_clean()
}

#[test]
fn a_long_text_written_by_another_thread_is_durable_before_its_record() {
    assert!(whole_after_a_cut(Mutant::None));
    assert!(!whole_after_a_cut(Mutant::LongTextsNotSynced), "the cut finds one that is not");
}
