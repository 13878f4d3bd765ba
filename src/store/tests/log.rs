//! The log: what a change costs, what fits into a log, and what damage to it does.

use super::*;
use crate::store::file::format::LOG_AT;
use crate::store::file::simulated::Mutant;
use crate::store::index::tables::MESSAGES;

const ANN: &str = "ann@example.com";

/// The disk as after a kill: nothing is closed.
fn killed(disk: &SimulatedDisk) -> Arc<SimulatedDisk> {
    Arc::new(disk.copy())
}

#[test]
fn a_delivery_alone_costs_one_flush_and_two_pages_however_much_is_stored() {
    let disk = Arc::new(SimulatedDisk::recording());
    let store = store_with(&[ANN], disk.clone());
    for before in [0, 3000] {
        for number in 0..before {
            deliver(&store, &[ANN], format!("{number} {}", "x".repeat(200)).as_bytes());
        }
        checkpoint(&store);
        let begin = disk.events();
        deliver(&store, &[ANN], &vec![b'y'; 1000 + before]);
        let (flushes, octets) = disk.work_since(begin);
        // The text is written in place and to the log.
        assert!(flushes == 1 && octets <= 2 * 8192, "{before}: {flushes} flushes, {octets} octets");
    }
}

#[test]
fn acknowledged_mail_survives_one_kill_and_another() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    for number in 0..20 {
        deliver(&store, &[ANN], format!("{number}").as_bytes());
    }
    let before = contents(&store, ANN);
    let disk = killed(&disk);
    for _ in 0..2 {
        let store = Store::open_on(disk.clone()).unwrap();
        assert_eq!(contents(&store, ANN), before);
        assert_clean(&store);
    }
}

#[test]
fn a_record_that_just_fits_is_logged_and_a_longer_one_is_a_checkpoint() {
    for (more, fits) in [(0, true), (1, false)] {
        let disk = Arc::new(SimulatedDisk::default());
        let mut log = log_zone::Log::new(disk.clone(), 7, 16 << 10);
        disk.set_len(LOG_AT + (64 << 20)).unwrap();
        log.append(1, &[1; 100]).unwrap();
        let changes = (12 << 10) - 64 + more;
        assert_eq!(log.fits(changes), fits);
        if fits {
            log.append(2, &vec![2; changes]).unwrap();
            assert!(!log.fits(0));
            let front = log_zone::read_front(&*disk).unwrap();
            assert_eq!(front.records.iter().map(|record| record.number).collect::<Vec<_>>(), [1, 2]);
            assert!(front.is_of(7) && !front.is_of(8));
        }
    }
    // The same with a whole store: rows that fit into no test's log.
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    let fields = format!("Received: {}\r\n", "x".repeat(40_000)).into_bytes();
    let stored = store.write(move |tx| {
        for tag in 0..20 {
            let letters = [Letter { prefix: fields.clone(), ..letter(ANN, tag) }];
            assert_eq!(tx.deliver(&text(b"long rows"), &letters, UnixTime(1))?, [Delivery::Stored]);
        }
        Ok(())
    });
    stored.wait().unwrap();
    let store = Store::open_on(killed(&disk)).unwrap();
    assert_eq!(contents(&store, ANN).len(), 20);
    assert_clean(&store);
}

/// A flipped octet costs at most the last record. Otherwise it is reported, and a repair keeps the records
/// before it.
#[test]
fn a_flipped_octet_in_any_page_of_the_log_is_found() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    checkpoint(&store);
    for number in 0..24 {
        deliver(&store, &[ANN], format!("{number} {}", "x".repeat(number * 200)).as_bytes());
    }
    let mut rng = fastrand::Rng::with_seed(3);
    let (mut refused, mut last_lost, mut whole) = (0, 0, 0);
    let findings = |disk| Store::check_disk(disk, &Progress::default()).unwrap().findings_total;
    for page in 0..64 {
        let damaged = killed(&disk);
        let at = LOG_AT + page * 4096 + rng.u64(..if page % 2 == 0 { 64 } else { 4096 });
        let mut octet = [0];
        damaged.read_at(at, &mut octet).unwrap();
        damaged.write_at(at, &[octet[0] ^ 0x10]).unwrap();
        let found = findings(damaged.clone());
        match Store::open_or_adopt(damaged.clone(), "the file") {
            Err(OpenErrorKind::DamagedLog) => {
                assert!(found > 0, "page {page}: a check finds nothing");
                refused += 1;
                let report = Store::repair_on(damaged.clone(), UnixTime(1)).unwrap();
                assert!(report.repaired.iter().any(|what| what.contains("log")), "{report:?}");
                assert_clean(&Store::open_on(damaged).unwrap());
            }
            Err(e) => panic!("{page}: {e}"),
            Ok(store) => {
                assert_eq!(found, 0, "page {page}");
                assert_clean(&store);
                match contents(&store, ANN).len() {
                    24 => whole += 1,
                    23 => last_lost += 1,
                    len => panic!("page {page}: {len} are left"),
                }
            }
        }
    }
    assert!(refused > 10 && last_lost <= 2 && whole > 5, "{refused} refused, {last_lost}, {whole} whole");
}

/// The log still has a short text for a place that a long one has taken: recovery must not overwrite the long one.
#[test]
fn a_long_text_does_not_take_the_place_of_a_short_one_that_the_log_still_has() {
    long_texts_after_short_ones(Mutant::None);
}

#[test]
#[should_panic(expected = "recovery wrote over a text")]
fn space_that_is_used_again_before_the_checkpoint_would_be_found() {
    long_texts_after_short_ones(Mutant::SpaceReusedBeforeCheckpoint);
}

fn long_texts_after_short_ones(mutant: Mutant) {
    let disk = Arc::new(SimulatedDisk::default());
    disk.set_mutant(mutant);
    let store = store_with(&[ANN], disk.clone());
    for round in 0..12 {
        deliver(&store, &[ANN], format!("short {round} {}", "s".repeat(60_000)).as_bytes());
        let maildrop = open_maildrop(&store, ANN);
        let uids: Vec<_> = maildrop.list().unwrap().iter().map(|entry| entry.uid).collect();
        assert!(maildrop.delete(&uids).wait().unwrap());
        drop(maildrop);
        deliver(&store, &[ANN], format!("long {round} {}", "l".repeat(90_000)).as_bytes());
        let found = Store::open_on(killed(&disk)).unwrap();
        let report = found.check(&Progress::default()).unwrap();
        assert!(report.is_clean(), "recovery wrote over a text: {:#?}", report.findings);
        assert!(contents(&found, ANN)[0].starts_with(b"Delivered-To: ann@example.com\r\nlong "));
    }
}

#[test]
fn deleted_space_that_waits_for_a_checkpoint_is_found_when_the_disk_is_full() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    disk.set_room(Some(disk.file_len() + 2 * format::EXTENT));
    let mut stored = 0;
    while deliver(&store, &[ANN], format!("{stored}{}", "x".repeat(50_000)).as_bytes()) == [Delivery::Stored]
    {
        stored += 1;
    }
    checkpoint(&store);
    let maildrop = open_maildrop(&store, ANN);
    let uids: Vec<_> = maildrop.list().unwrap().iter().take(4).map(|entry| entry.uid).collect();
    assert!(maildrop.delete(&uids).wait().unwrap());
    assert_eq!(deliver(&store, &[ANN], &[b'z'; 50_000]), [Delivery::Stored]);
    assert_clean(&store);
}

#[test]
fn a_log_that_was_full_is_longer_after_the_next_checkpoint_and_after_opening() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    let octets = |store: &Store| store.read().unwrap().totals().unwrap().log_octets;
    assert_eq!(octets(&store), PACE.log_octets);
    let fields = format!("Received: {}\r\n", "x".repeat(40_000)).into_bytes();
    let too_long = store.write(move |tx| {
        for tag in 0..20 {
            let letters = [Letter { prefix: fields.clone(), ..letter(ANN, tag) }];
            tx.deliver(&text(b"long rows"), &letters, UnixTime(1))?;
        }
        Ok(())
    });
    too_long.wait().unwrap();
    deliver(&store, &[ANN], b"something to make a checkpoint of");
    checkpoint(&store);
    assert_eq!(octets(&store), 2 * PACE.log_octets);
    for number in 0..14 {
        deliver(&store, &[ANN], format!("{number}{}", "x".repeat(50_000)).as_bytes());
    }
    let found = Store::open_on(killed(&disk)).unwrap();
    assert_eq!(contents(&found, ANN).len(), 35);
    assert_clean(&found);
    // With little mail for a long time the log returns to its initial length, also after a kill.
    for number in 0..8 {
        deliver(&store, &[ANN], format!("then {number}").as_bytes());
        checkpoint(&store);
    }
    assert_eq!(octets(&store), PACE.log_octets);
    deliver(&store, &[ANN], b"last");
    let found = Store::open_on(killed(&disk)).unwrap();
    assert_eq!(contents(&found, ANN).len(), 44);
    assert_clean(&found);
}

/// The time it takes must not tell a sender whether the text is stored already.
#[test]
fn a_text_that_is_stored_already_is_written_like_a_new_one() {
    let disk = Arc::new(SimulatedDisk::recording());
    let store = store_with(&[ANN], disk.clone());
    // Get the first allocations for the index out of the way.
    deliver(&store, &[ANN], b"first");
    deliver(&store, &[ANN], b"second");
    for octets in [1000, 60_000, 90_000, 2_000_000] {
        let content = vec![b'x'; octets];
        let [new, known] = [(), ()].map(|()| {
            checkpoint(&store);
            let begin = disk.events();
            assert_eq!(deliver(&store, &[ANN], &content), [Delivery::Stored]);
            disk.work_since(begin)
        });
        assert_eq!(new.0, known.0, "flushes for {octets} octets");
        assert!(new.1.abs_diff(known.1) <= 4096, "{octets}: {} octets written, then {}", new.1, known.1);
    }
    assert_clean(&store);
}

/// Each row goes between those of other mailboxes, which would leave leaves half empty.
#[test]
fn the_leaves_of_messages_are_full_though_mail_comes_to_many_mailboxes_in_turn() {
    let names: Vec<String> = (0..10).map(|number| format!("user{number}@example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&names, disk.clone());
    let fields = format!("Received: {}\r\n", "x".repeat(500)).into_bytes();
    for number in 0..100 {
        let letters: Vec<Letter> =
            names.iter().map(|name| Letter { prefix: fields.clone(), ..letter(name, number) }).collect();
        let text = text(format!("number {number}").as_bytes());
        let delivered = store.write(move |tx| tx.deliver(&text, &letters, UnixTime(1)));
        assert_eq!(delivered.wait().unwrap(), [Delivery::Stored; 10]);
    }
    let table = store.read().unwrap().table(MESSAGES).unwrap();
    let stats = redb::ReadableTableMetadata::stats(&table).unwrap();
    let full = stats.stored_bytes() as f64 / (stats.leaf_pages() * format::PAGE) as f64;
    assert!(full > 0.75, "leaves are full to {full}");
    for store in [&store, &Store::open_on(killed(&disk)).unwrap()] {
        assert!(names.iter().all(|name| contents(store, name).len() == 100));
        assert_clean(store);
    }
}

/// A sender can put heads of records into texts, and so into the log. Reading what each of them announces would take
/// very long.
#[test]
fn what_the_head_of_a_record_of_another_epoch_announces_is_not_read() {
    let disk = Arc::new(SimulatedDisk::default());
    disk.set_len(LOG_AT + format::LOG_OCTETS_MAX).unwrap();
    let mut log = log_zone::Log::new(disk.clone(), 7, 1 << 20);
    log.append(1, &[1; 100]).unwrap();
    let mut planted = [0; format::RECORD_HEAD];
    planted[..4].copy_from_slice(format::RECORD_MAGIC);
    planted[4..8].copy_from_slice(&(512u32 << 10).to_le_bytes());
    planted[8..24].copy_from_slice(&8u128.to_le_bytes());
    planted[24..32].copy_from_slice(&3u64.to_le_bytes());
    let page = |nth: u64| LOG_AT + nth * format::PAGE;
    disk.write_at(page(5), &planted).unwrap();
    // Its announced rest, but no place where a record can begin.
    disk.set_bad(Some(page(6) + format::RECORD_HEAD as u64..page(7)));
    let front = log_zone::read_front(&*disk).unwrap();
    assert!(!front.has_gap(&*disk, 7, 1 << 20).unwrap());
    planted[8..24].copy_from_slice(&7u128.to_le_bytes());
    disk.write_at(page(5), &planted).unwrap();
    assert!(front.has_gap(&*disk, 7, 1 << 20).is_err(), "what may be a later record is read");
}
