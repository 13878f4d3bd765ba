//! Compaction loses nothing, shortens the file, and survives crashes like any other change.

use super::*;
use crate::store::file::format::EXTENT;

const ANN: &str = "ann@example.com";

/// Mail of which nine in ten are deleted, but not the last.
fn thinned(disk: Arc<SimulatedDisk>) -> (Store, Vec<Vec<u8>>) {
    let store = filled(disk);
    let left = thin(&store);
    (store, left)
}

fn filled(disk: Arc<SimulatedDisk>) -> Store {
    let store = store_with(&[ANN], disk);
    let mut rng = fastrand::Rng::with_seed(3);
    for number in 0..400 {
        let octets = [100, 3000, 20_000, 300_000][rng.usize(..4)];
        deliver(&store, &[ANN], format!("Subject: {number}\n\n{}\n", "x".repeat(octets)).as_bytes());
    }
    checkpoint(&store);
    store
}

/// Deletes most messages and returns the others.
fn thin(store: &Store) -> Vec<Vec<u8>> {
    let mut rng = fastrand::Rng::with_seed(4);
    let maildrop = open_maildrop(store, ANN);
    let uids: Vec<_> = maildrop.list().unwrap().iter().map(|entry| entry.uid).collect();
    let gone: Vec<_> = uids.iter().copied().filter(|_| rng.u8(..10) > 0).take(370).collect();
    for part in gone.chunks(20) {
        maildrop.delete(part).wait().unwrap();
    }
    drop(maildrop);
    let left = contents(store, ANN);
    assert!(left.len() > 20);
    left
}

#[test]
fn remaining_texts_lie_together_and_the_file_ends_after_them() {
    let disk = Arc::new(SimulatedDisk::default());
    let (store, left) = thinned(disk.clone());
    let before = disk.file_len();
    let report = store.compact(&Progress::default()).unwrap();
    assert_eq!((report.before.file_octets, report.after.file_octets), (before, disk.file_len()));
    let text_octets: u64 = left.iter().map(|content| content.len() as u64).sum();
    let in_extents = disk.file_len() - format::Extent::FIRST.at();
    // The rest is the index, its reserve (an extent for each of the index's and a few more), and some slack.
    assert!(in_extents < text_octets + 7 * EXTENT, "{in_extents} for {text_octets}");
    assert!(before - disk.file_len() > 9 * EXTENT, "{} of {before}", disk.file_len());
    assert!(report.moved_octets > 0 && report.moved_octets <= text_octets, "{report:?}");
    assert_clean(&store);
    assert_eq!(contents(&store, ANN), left);
    // Nothing is left to do.
    let again = store.compact(&Progress::default()).unwrap();
    assert_eq!(again.moved_octets, 0);
    drop(store);
    let store = Store::open_on(disk).unwrap();
    assert_clean(&store);
    assert_eq!(contents(&store, ANN), left);
    deliver(&store, &[ANN], b"it goes on");
    assert_clean(&store);
}

/// In a backup the index comes after the texts; it moves into the room they leave.
#[test]
fn a_file_that_ends_with_the_index_becomes_shorter_too() {
    let directory = scratch::directory();
    let path = directory.path().join("copy");
    back_up(&filled(Arc::new(SimulatedDisk::default())), &path);
    let store = Store::open(&path).unwrap();
    let left = thin(&store);
    let report = store.compact(&Progress::default()).unwrap();
    let (before, after) = (report.before.file_octets, report.after.file_octets);
    assert!(before - after > 9 * EXTENT && report.moved_octets > 0, "{before}, then {after}");
    assert_clean(&store);
    assert_eq!(contents(&store, ANN), left);
}

#[test]
fn a_message_that_is_being_read_stays_where_it_is() {
    let disk = Arc::new(SimulatedDisk::default());
    let (store, left) = thinned(disk);
    let maildrop = open_maildrop(&store, ANN);
    let last = *maildrop.list().unwrap().iter().map(|entry| &entry.uid).next_back().unwrap();
    let message = maildrop.message(last).unwrap().unwrap();
    store.compact(&Progress::default()).unwrap();
    assert!(left.last().unwrap().ends_with(&message.text));
    assert!(message.verify().is_ok());
    drop((message, maildrop));
    store.compact(&Progress::default()).unwrap();
    assert_clean(&store);
    assert_eq!(contents(&store, ANN), left);
}

#[test]
fn a_power_cut_in_the_middle_loses_nothing() {
    let made = Arc::new(SimulatedDisk::default());
    let (store, left) = thinned(made.clone());
    drop(store);
    let disk = Arc::new(made.recording_copy());
    let store = Store::open_on(disk.clone()).unwrap();
    let begin = disk.events();
    store.compact(&Progress::default()).unwrap();
    drop(store);
    let end = disk.events();
    let mut rng = fastrand::Rng::with_seed(4);
    let mut cuts: Vec<usize> = (0..40).map(|_| rng.usize(begin..=end)).collect();
    cuts.sort_unstable();
    let mut replay = disk.replay();
    for cut in cuts {
        let survival = [0.5, 0.05, 0.95, 1.0, 0.0][rng.usize(..5)];
        let found = Arc::new(replay.crash(cut, survival, &mut rng));
        let store =
            Store::open_on(found).unwrap_or_else(|e| panic!("cut {cut} of {begin}..{end}, {survival}: {e}"));
        assert_clean(&store);
        assert_eq!(contents(&store, ANN), left, "cut {cut} of {begin}..{end}, {survival}");
    }
}
