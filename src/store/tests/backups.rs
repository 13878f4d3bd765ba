//! What a backup takes of the service that makes it.

use super::*;
use crate::store::file::space::{Pins, Space};
use crate::store::upkeep::backup::copy_texts;

const ANN: &str = "ann@example.com";

#[test]
fn a_backup_keeps_no_record_of_the_texts_it_has_copied() {
    let store = store_with(&[ANN], Arc::new(SimulatedDisk::default()));
    for number in 0..50 {
        deliver(&store, &[ANN], format!("number {number}").as_bytes());
    }
    let container = Container::create(Arc::new(SimulatedDisk::default())).unwrap();
    let database = open_database(&container, false).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut tables = Tables::open_unlogged(&transaction).unwrap();
    let mut space = Space::empty(Pins::default());
    let source = store.read().unwrap();
    copy_texts(&source, &container, &mut space, &mut tables.texts, &Progress::default()).unwrap();
    let changed: Vec<_> = space.changed_runs().collect();
    assert!(matches!(changed[..], [(_, Some(_))]), "only the free run at the end: {changed:?}");
}
