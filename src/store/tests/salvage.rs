//! What a salvage saves from a damaged file: every table, and what only the log has.

use super::*;
use crate::auth::seal::Key;
use crate::store::index::tables::{self, Holds, LIST};

const ANN: &str = "ann@example.com";
const BOB: &str = "bob@example.com";

/// A closed store with rows in every table.
fn full(disk: &Arc<SimulatedDisk>) {
    let store = store_with(&[ANN, BOB], disk.clone());
    set_quota(&store, ANN, ANN, Some(1 << 30));
    let sealed = Key::new([7; 32]).seal_private_key(b"key", b"certificate", [0; 24]);
    let certificate = CertificateRow {
        certificate: b"certificate".to_vec(),
        key: PrivateKey::Sealed(sealed),
        hostname: "mail.example.com".to_owned(),
    };
    let set = store.write(move |tx| {
        tx.set_setting(crate::settings::DECOY_SECRET, Some("00ff"))?;
        tx.set_certificate(&certificate)
    });
    set.wait().unwrap();
    let import = Import {
        text: text(b"of another server"),
        received: UnixTime(1),
        unique_id: Some("its-id".to_owned()),
        repeat: 0,
        tag: 1,
    };
    let import = store.write(move |tx| tx.import(&address(BOB), std::slice::from_ref(&import)));
    assert_eq!(import.wait().unwrap(), Ok(vec![Imported::Stored]));
    deliver(&store, &[ANN, BOB], b"of both");
    deliver(&store, &[BOB], &[b'x'; 70_000]);
    leave_deleted(&store);
}

/// Leaves a deleted message, mailbox and domain, all of which can come back.
fn leave_deleted(store: &Store) {
    const CAROL: &str = "carol@example.net";
    keep_deleted(store, "7");
    add_mailbox(store, CAROL);
    deliver(store, &[CAROL], b"deleted");
    deliver(store, &[CAROL], b"in a deleted mailbox");
    let maildrop = open_maildrop(store, CAROL);
    assert!(maildrop.delete(&[maildrop.list().unwrap()[0].uid]).wait().unwrap());
    drop(maildrop);
    let domain = address(CAROL).domain;
    store.write(move |tx| tx.remove_domain(&domain, UnixTime(1))).wait().unwrap().unwrap();
    keep_deleted(store, "0");
}

fn salvaged(damaged: Arc<SimulatedDisk>) -> (Store, RepairReport) {
    let disk = Arc::new(SimulatedDisk::default());
    let report = Store::salvage_to(damaged, disk.clone(), UnixTime(1), &Progress::default()).unwrap();
    (Store::open_on(disk).unwrap(), report)
}

#[test]
fn a_salvage_takes_over_every_row_that_is_the_same_in_every_copy() {
    let disk = Arc::new(SimulatedDisk::default());
    full(&disk);
    let content = |store: &Store| {
        let all = tables::every_row(&store.read().unwrap()).unwrap();
        let holds = |name: &str| LIST.iter().find(|table| table.name == name).unwrap().holds;
        all.into_iter().filter(|(name, ..)| holds(name) == Holds::Content).collect::<Vec<_>>()
    };
    let (store, _) = salvaged(disk.clone());
    assert_eq!(content(&store), content(&Store::open_on(disk).unwrap()));
    assert_clean(&store);
}

#[test]
fn a_salvage_reads_the_log() {
    let disk = Arc::new(SimulatedDisk::default());
    full(&disk);
    let store = Store::open_on(disk.clone()).unwrap();
    deliver(&store, &[ANN], b"only in the log");
    deliver(&store, &[ANN], &[b'y'; 70_000]);
    let maildrop = open_maildrop(&store, ANN);
    assert!(maildrop.delete(&[maildrop.list().unwrap()[0].uid]).wait().unwrap());
    drop(maildrop);
    add_mailbox(&store, "new@example.com");
    // Nothing of this is in the index on the disk.
    let damaged = Arc::new(disk.copy());
    let expected = [ANN, BOB].map(|mailbox| contents(&store, mailbox));
    assert_eq!(expected.each_ref().map(Vec::len), [2, 3]);
    let before = damaged.octets();
    let report = Store::check_damaged_on(damaged.clone(), &OpenErrorKind::Damaged("its index")).unwrap();
    assert_eq!((report.mailboxes, report.messages), (3, 6));
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    let (store, report) = salvaged(damaged.clone());
    assert!(damaged.octets() == before, "the damaged file was changed");
    // Those are not copied.
    assert_eq!(report.repaired, ["the lists of free space were rebuilt"]);
    assert!(report.lost.is_empty());
    assert_eq!([ANN, BOB].map(|mailbox| contents(&store, mailbox)), expected);
    assert!(contents(&store, "new@example.com").is_empty());
    assert_clean(&store);
}

#[test]
fn a_file_that_lacks_a_table_of_a_newer_program_gets_it_when_it_is_opened() {
    let disk = Arc::new(SimulatedDisk::default());
    full(&disk);
    // Without the other tables there is no store, and no newer program can have added them.
    for table in LIST.iter().filter(|table| table.holds == Holds::Content) {
        let older = Arc::new(disk.copy());
        let container = Container::open(older.clone()).unwrap();
        let database = open_database(&container, false).unwrap();
        let mut transaction = database.begin_write().unwrap();
        transaction.set_quick_repair(true);
        assert!(transaction.delete_table(redb::TableDefinition::<(), ()>::new(table.name)).is_ok());
        transaction.commit().unwrap();
        database.close().unwrap();
        let store = Store::open_on(older).unwrap_or_else(|e| panic!("{}: {e}", table.name));
        let all = tables::every_row(&store.read().unwrap()).unwrap();
        assert!(all.iter().all(|(name, ..)| *name != table.name), "{}", table.name);
        let _ = store.write(|tx| tx.add_domain(&"a.example".parse().unwrap(), UnixTime(1))).wait().unwrap();
    }
}
