//! Full disks on which making room fails, or frees nothing.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::store::open::window::Time;
use crate::store::writer::Pace;

const ANN: &str = "ann@example.com";
/// Such a text finds no room in these tests.
const LONG: usize = 50_000;
/// More syncs than one delivery makes.
const SYNCS: u64 = 8;

/// Fills the disk, then deletes the first messages.
fn fill(store: &Store, disk: &SimulatedDisk, extents: u64) {
    disk.set_room(Some(disk.file_len() + extents * format::EXTENT));
    let mut stored = 0;
    while deliver(store, &[ANN], format!("{stored}{}", "x".repeat(LONG)).as_bytes()) == [Delivery::Stored] {
        stored += 1;
    }
    checkpoint(store);
    delete_first(store, 4);
}

fn delete_first(store: &Store, count: usize) {
    let maildrop = open_maildrop(store, ANN);
    let uids: Vec<_> = maildrop.list().unwrap().iter().take(count).map(|entry| entry.uid).collect();
    assert!(maildrop.delete(&uids).wait().unwrap());
}

fn count(store: &Store) -> usize {
    open_maildrop(store, ANN).list().unwrap().len()
}

/// The checkpoint or the purge that makes room for mail can reach the disk although its sync fails. The mail itself is
/// then still missing.
#[test]
fn mail_is_not_taken_for_stored_because_a_transaction_that_made_room_for_it_is() {
    for days in ["0", "7"] {
        let mut refused = 0;
        for syncs in 0..SYNCS {
            let disk = Arc::new(SimulatedDisk::default());
            let store = store_with(&[ANN], disk.clone());
            keep_deleted(&store, days);
            fill(&store, &disk, 1);
            let before = count(&store);
            disk.fail_sync_after(syncs);
            let answer = store.write(|tx| {
                let short = tx.deliver(&text(b"short"), &[letter(ANN, 1)], UnixTime(1))?;
                let long = tx.deliver(&text(&[b'y'; LONG]), &[letter(ANN, 2)], UnixTime(1))?;
                Ok([short, long].concat())
            });
            let answer = answer.wait();
            disk.fail_after(None);
            refused += usize::from(answer.is_err());
            let stored = answer.iter().flatten().filter(|verdict| **verdict == Delivery::Stored).count();
            let there = count(&store) - before;
            assert_eq!(there, stored, "{days} days, {syncs} syncs: {answer:?}");
            assert_clean(&store);
        }
        assert!(refused > 1, "{days} days: {refused} refused");
    }
}

/// Without a reserve, room is made before the mail is looked at.
#[test]
fn the_writer_survives_a_failed_checkpoint_for_mail_that_it_has_not_looked_at() {
    let mut refused = 0;
    for syncs in 0..SYNCS {
        let disk = Arc::new(SimulatedDisk::default());
        let store = store_with(&[ANN], disk.clone());
        fill(&store, &disk, 1);
        let before = count(&store);
        let container = store.read().unwrap().container().clone();
        container.give_up_reserve();
        while container.take_free_extent().is_some() {}
        disk.fail_sync_after(syncs);
        let answer = try_deliver(&store, &[ANN], b"short");
        disk.fail_after(None);
        refused += usize::from(answer.is_err());
        store.write(|_| Ok(())).wait().unwrap();
        let stored = answer.is_ok_and(|verdicts| verdicts == [Delivery::Stored]);
        assert_eq!(count(&store) - before, usize::from(stored), "{syncs} syncs");
        assert_clean(&store);
    }
    assert!(refused > 1, "{refused} refused");
}

#[test]
fn no_checkpoint_after_the_first_is_made_for_space_that_a_reader_holds() {
    let disk = Arc::new(SimulatedDisk::recording());
    drop(store_with(&[ANN], disk.clone()));
    // With a window for copies, which gives way to mail.
    disk.set_room(Some(disk.file_len()));
    let pace = Pace { for_copies: Some(128 << 20), ..PACE };
    let time = Time::set_by(Arc::new(AtomicU64::new(0)));
    let store = Store::open_at_pace(disk.clone(), Trust::AsFound, pace, time).unwrap();
    let (pin, _) = store.read_at_checkpoint().wait().unwrap();
    fill(&store, &disk, 2);
    for round in 0..3 {
        let begin = disk.events();
        let verdict = deliver(&store, &[ANN], &[b'y'; LONG]);
        let (flushes, _) = disk.work_since(begin);
        assert_eq!(verdict, [Delivery::DiskFull]);
        assert!(flushes <= 8, "round {round}: {flushes} flushes");
    }
    drop(pin);
    assert_eq!(deliver(&store, &[ANN], &[b'y'; LONG]), [Delivery::Stored]);
    assert_clean(&store);
}

#[test]
fn deleted_mail_is_not_given_up_for_space_that_a_reader_holds() {
    const MESSAGES: u64 = 2500;
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    keep_deleted(&store, "7");
    let delivered = store.write(|tx| {
        for tag in 0..MESSAGES {
            let text = text(format!("number {tag}").as_bytes());
            assert_eq!(tx.deliver(&text, &[letter(ANN, tag)], UnixTime(1))?, [Delivery::Stored]);
        }
        Ok(())
    });
    delivered.wait().unwrap();
    fill(&store, &disk, 2);
    delete_first(&store, MESSAGES as usize - 4);
    let (pin, _) = store.read_at_checkpoint().wait().unwrap();
    for _ in 0..3 {
        assert_eq!(deliver(&store, &[ANN], &[b'y'; LONG]), [Delivery::DiskFull]);
    }
    assert_eq!(store.kept().unwrap().messages, MESSAGES - 1000);
    drop(pin);
    assert_eq!(deliver(&store, &[ANN], &[b'y'; LONG]), [Delivery::Stored]);
    assert_clean(&store);
}
