//! Mail from another server keeps its unique ids and order, and nothing is imported twice.

use super::*;
use crate::store::index::rows::MessageRow;

const ANN: &str = "ann@example.com";

fn import(content: &str, unique_id: Option<&str>, repeat: u32) -> Import {
    Import {
        text: text(content.as_bytes()),
        received: UnixTime(1),
        unique_id: unique_id.map(str::to_owned),
        repeat,
        tag: 7,
    }
}

fn take_in(store: &Store, messages: &[Import]) -> Vec<Imported> {
    let messages = messages.to_vec();
    store.write(move |tx| tx.import(&address(ANN), &messages)).wait().unwrap().unwrap()
}

fn unique_ids(store: &Store) -> Vec<String> {
    open_maildrop(store, ANN).list().unwrap().iter().map(|entry| entry.unique_id().to_string()).collect()
}

#[test]
fn an_imported_message_keeps_its_id_its_size_and_its_place() {
    let store = store_with(&[ANN], Arc::new(SimulatedDisk::default()));
    let longest = "x".repeat(255);
    let messages =
        [import("one", Some("zz"), 0), import("two", Some(&longest), 0), import("three", Some("!~"), 0)];
    assert_eq!(take_in(&store, &messages), [Imported::Stored; 3]);
    assert_eq!(unique_ids(&store), ["zz", &longest, "!~"]);
    assert_eq!(contents(&store, ANN), [&b"one\r\n"[..], b"two\r\n", b"three\r\n"]);
    assert_clean(&store);
}

#[test]
fn an_id_that_cannot_be_sent_or_is_taken_gives_way_to_a_new_one() {
    let store = store_with(&[ANN], Arc::new(SimulatedDisk::default()));
    let messages = [
        import("one", Some("a"), 0),
        import("two", Some("a"), 0),
        import("three", Some("with space"), 0),
        import("four", None, 0),
        import("four", None, 1),
    ];
    let renamed = Imported::Renamed;
    assert_eq!(take_in(&store, &messages), [Imported::Stored, renamed, renamed, renamed, renamed]);
    let ids = unique_ids(&store);
    assert_eq!(ids[0], "a");
    let different: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(different.len(), 5, "{ids:?}");
    assert!(ids.iter().all(|id| crate::message::is_unique_id(id)));
}

#[test]
fn an_import_can_be_done_again_and_adds_what_is_new() {
    let store = store_with(&[ANN], Arc::new(SimulatedDisk::default()));
    let mut messages = vec![import("one", Some("a"), 0), import("two", Some("a"), 0), import("two", None, 1)];
    take_in(&store, &messages);
    let ids = unique_ids(&store);
    messages.push(import("three", Some("b"), 0));
    let there = Imported::AlreadyThere;
    assert_eq!(take_in(&store, &messages), [there, there, there, Imported::Stored]);
    assert_eq!(unique_ids(&store)[..3], ids);
}

#[test]
fn a_message_of_ours_that_comes_back_is_known_by_its_id() {
    let store = store_with(&[ANN], Arc::new(SimulatedDisk::default()));
    deliver(&store, &[ANN], b"ours");
    let ours = unique_ids(&store).remove(0);
    let sent = contents(&store, ANN).remove(0);
    let back = import(std::str::from_utf8(&sent).unwrap(), Some(&ours), 0);
    assert_eq!(take_in(&store, &[back]), [Imported::AlreadyThere]);
    // The number is taken, but the tag differs, so it is not one of our messages.
    let other = import("another", Some("1.00000000000000ff"), 0);
    assert_eq!(take_in(&store, &[other]), [Imported::Stored]);
}

#[test]
fn an_id_goes_with_its_message_and_its_mailbox() {
    let store = store_with(&[ANN], Arc::new(SimulatedDisk::default()));
    take_in(&store, &[import("one", Some("a"), 0)]);
    let removed = store.write(|tx| tx.remove_mailbox(&address(ANN), UnixTime(1))).wait().unwrap();
    assert!(removed.is_ok());
    add_mailbox(&store, ANN);
    assert_eq!(take_in(&store, &[import("one", Some("a"), 0)]), [Imported::Stored]);
    assert_clean(&store);
}

#[test]
fn only_the_first_login_of_a_day_is_noted() {
    let store = store_with(&[ANN], Arc::new(SimulatedDisk::default()));
    let last_login =
        |store: &Store| store.read().unwrap().mailbox(&address(ANN)).unwrap().unwrap().last_login;
    let log_in = |at| {
        open_maildrop(&store, ANN).note_login(UnixTime(at));
        // The writer works in order, so the login has been noted after this.
        store.write(|_| Ok(())).wait().unwrap();
        last_login(&store)
    };
    assert_eq!(last_login(&store), None);
    let day = 24 * 60 * 60;
    assert_eq!(log_in(3 * day + 5), Some(UnixTime(3 * day + 5)));
    assert_eq!(log_in(3 * day + 6), Some(UnixTime(3 * day + 5)));
    assert_eq!(log_in(4 * day), Some(UnixTime(4 * day)));
    assert_eq!(log_in(day), Some(UnixTime(4 * day)), "a clock that was put back changes nothing");
}

type Damage = fn(&mut Tables<'_>, MailboxId);

#[test]
fn wrong_ids_are_found_and_repaired() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    let messages = [import("one", Some("a"), 0), import("two", Some("b"), 0), import("three", Some("c"), 0)];
    keep_deleted(&store, "7");
    assert_eq!(take_in(&store, &messages), [Imported::Stored; 3]);
    // Deleted mail can come back, and keeps its id.
    let maildrop = open_maildrop(&store, ANN);
    assert!(maildrop.delete(&[maildrop.list().unwrap()[2].uid]).wait().unwrap());
    drop(maildrop);
    let mailbox = store.read().unwrap().mailbox(&address(ANN)).unwrap().unwrap().id;
    assert_clean(&store);
    drop(store);
    let damages: [(&str, Damage); 5] = [
        ("an id is not listed", |t, of| drop(t.foreign_ids.remove((of, "a")).unwrap())),
        ("nor is one of a deleted message", |t, of| drop(t.foreign_ids.remove((of, "c")).unwrap())),
        ("an id is nobody's", |t, of| drop(t.foreign_ids.insert((of, "x"), 1).unwrap())),
        ("an id leads to another message", |t, of| drop(t.foreign_ids.insert((of, "b"), 1).unwrap())),
        ("two messages have one id", |t, of| {
            let row = t.messages.get((of, 2)).unwrap().unwrap().value().to_vec();
            let row = MessageRow { foreign_id: Some("a".into()), ..MessageRow::from_row(&row).unwrap() };
            t.messages.insert((of, 2), &row.to_row()[..]).unwrap();
        }),
    ];
    for (what, change) in damages {
        let disk = Arc::new(disk.copy());
        super::damage::damage(&disk, |tables, _| change(tables, mailbox));
        let report = Store::open_on(disk.clone()).unwrap().check(&Progress::default()).unwrap();
        assert!(!report.is_clean(), "{what}");
        let repaired = Store::repair_on(disk.clone(), UnixTime(1)).unwrap();
        assert!(repaired.repaired_total > 0 && repaired.lost.is_empty(), "{what}: {repaired:?}");
        let store = Store::open_on(disk).unwrap();
        assert_clean(&store);
        let ids = unique_ids(&store);
        assert!(ids[0] == "a" && (ids[1] == "b" || what.starts_with("two")), "{what}: {ids:?}");
        assert_eq!(take_in(&store, &messages[..1]), [Imported::AlreadyThere], "{what}");
    }
}
