//! Restoring more mail than one transaction brings back.

use super::*;

const ANN: &str = "ann@example.com";
const MESSAGES: usize = 200;

/// ANN had many messages, and deleted them all in one session.
fn with_deleted(disk: Arc<SimulatedDisk>) -> Store {
    let store = store_with(&[ANN], disk);
    keep_deleted(&store, "7");
    for number in 0..MESSAGES {
        deliver(&store, &[ANN], format!("number {number:03}").as_bytes());
    }
    let maildrop = open_maildrop(&store, ANN);
    let uids: Vec<_> = maildrop.list().unwrap().iter().map(|entry| entry.uid).collect();
    assert!(maildrop.delete(&uids).wait().unwrap());
    drop(maildrop);
    checkpoint(&store);
    store
}

/// ANN's mailbox was deleted with many messages, and there is a new one.
fn with_replaced(disk: Arc<SimulatedDisk>) -> Store {
    let store = with_deleted(disk);
    undelete(&store, false);
    store.write(|tx| tx.remove_mailbox(&address(ANN), UnixTime(1))).wait().unwrap().unwrap();
    add_mailbox(&store, ANN);
    checkpoint(&store);
    store
}

fn undelete(store: &Store, as_new: bool) -> Restored {
    store.undelete_mailbox(&address(ANN), Wanted::Last, as_new).unwrap().unwrap()
}

fn assert_in_order(store: &Store) {
    let texts: Vec<Vec<u8>> = contents(store, ANN);
    assert!(texts.is_sorted_by(|one, next| one[one.len() - 5..] < next[next.len() - 5..]));
}

/// After a cut at any moment, part of the messages may be back, and the same command brings back the rest.
fn every_cut_leaves_the_rest_restorable(make: fn(Arc<SimulatedDisk>) -> Store, as_new: bool) {
    let disk = Arc::new(SimulatedDisk::recording());
    let store = make(disk.clone());
    let (begin, commits) = (disk.events(), store.read().unwrap().totals().unwrap().commits);
    let restored = undelete(&store, as_new);
    assert_eq!((restored.messages, restored.mailboxes), (MESSAGES as u64, 0));
    let pieces = store.read().unwrap().totals().unwrap().commits - commits;
    assert!(pieces > 3, "other changes had {pieces} turns at most");
    assert_eq!((contents(&store, ANN).len(), store.kept().unwrap()), (MESSAGES, Kept::default()));
    assert_in_order(&store);
    assert_clean(&store);
    drop(store);
    let mut rng = fastrand::Rng::with_seed(20261127);
    let mut replay = disk.replay();
    let mut partial = 0;
    for cut in begin..=disk.events() {
        let store = Store::open_on(Arc::new(replay.crash(cut, rng.f64(), &mut rng))).unwrap();
        assert_clean(&store);
        let (back, kept) = (contents(&store, ANN).len(), store.kept().unwrap().messages as usize);
        assert_eq!(back + kept, MESSAGES, "cut {cut}");
        if back < MESSAGES {
            partial += usize::from(back > 0);
            assert_eq!(undelete(&store, as_new).messages as usize, kept, "cut {cut}");
        }
        assert_eq!((contents(&store, ANN).len(), store.kept().unwrap()), (MESSAGES, Kept::default()));
        assert_in_order(&store);
        assert_clean(&store);
    }
    assert!(partial >= 3, "{partial} cuts left a part");
}

#[test]
fn deleted_messages_come_back_piece_by_piece() {
    every_cut_leaves_the_rest_restorable(with_deleted, false);
}

#[test]
fn deleted_messages_come_back_as_new_piece_by_piece_in_order_of_arrival() {
    every_cut_leaves_the_rest_restorable(with_deleted, true);
}

#[test]
fn the_mail_of_a_replaced_mailbox_comes_into_the_new_one_piece_by_piece() {
    every_cut_leaves_the_rest_restorable(with_replaced, true);
}
