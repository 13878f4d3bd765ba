//! Opens the index: the last checkpoint, plus what the log has since.
//!
//! One transaction applies all records and writes their short texts back to their places. Its commit is a
//! checkpoint, but the store's count of commits stays as it is: after a fault that count tells which of the
//! writer's transactions got through.
//!
//! - Opening the index may allocate extents, so those the log gives to texts are read first.
//! - If recovery is cut short, nothing has happened: the log is unchanged.

use std::collections::BTreeSet;
use std::sync::Arc;

use redb::ReadableTable;

use super::{OpenErrorKind, OpenIndex, Trust, open_database};
use crate::store::file::container::Container;
use crate::store::file::disk::Disk;
use crate::store::file::format::Extent;
use crate::store::file::log_zone::{self, Front, Record};
use crate::store::file::record::{self, Change};
use crate::store::file::space::{Pins, Run, Space};
use crate::store::index::contained::{self, Leaky};
use crate::store::index::rows::{Row, StoreRow};
use crate::store::index::tables::{self, BLOB_EXTENTS, BLOB_EXTENTS_NUMBER, FREE, Tables};
use crate::store::index::{Fault, IndexSnapshot};

/// Opens container and index and works out which space is free. A panic of redb on damaged pages is returned as
/// an error.
pub fn open_index(
    disk: Arc<dyn Disk>,
    pins: Pins,
    trust: Trust,
) -> Result<(OpenIndex, Space), OpenErrorKind> {
    let opening = || {
        let container = Container::open(disk)?;
        if trust == Trust::Copy {
            container.take_for_a_copy();
        }
        let log = LogFound::read(&container)?;
        let verify = trust != Trust::AsFound || container.is_doubtful();
        let open = Leaky::new(OpenIndex::new(open_database(&container, verify)?, container));
        let totals = open.totals()?;
        let logged = if log.front.is_of(totals.epoch) { &log.blob_extents } else { &BTreeSet::new() };
        let stored = blob_extents(&IndexSnapshot::begin(open.database())?)?;
        open.container.adopt_blob_extents(&stored, logged)?;
        if log.has_gap(&open.container, &totals)? {
            // In a copy, the log may have gone on or begun again while it was read.
            if !open.container.is_copy() {
                return Err(OpenErrorKind::DamagedLog);
            }
            log::warn!("the log in this copy has a gap: what was stored after it is not in the copy");
        }
        log.make_part_of_the_index(open.database(), &open.container, &totals)?;
        tables::make_missing(open.database())?;
        if open.container.is_copy() {
            open.container.adopt_identity().map_err(OpenErrorKind::Io)?;
        }
        let now = IndexSnapshot::begin(open.database())?;
        let space = Space::load(&free_runs(&now)?, blob_extents(&now)?.into_iter().collect(), pins);
        drop(now);
        Ok((open.into_inner(), space))
    };
    contained::change(opening).unwrap_or_else(|panicked| Err(panicked.0.into()))
}

/// The log as found in the file.
pub struct LogFound {
    front: Front,
    /// Extents it gives to texts.
    blob_extents: BTreeSet<Extent>,
}

impl LogFound {
    /// Reads the log, before the index is opened.
    pub fn read(container: &Container) -> Result<Self, OpenErrorKind> {
        let front = log_zone::read_front(&**container.disk()).map_err(OpenErrorKind::Io)?;
        let mut blob_extents = BTreeSet::new();
        for record in &front.records {
            for change in changes_of(record)? {
                if let Change::Put { table: BLOB_EXTENTS_NUMBER, key, .. } = change {
                    blob_extents
                        .insert(Extent(u32::from_le_bytes(key.try_into().map_err(|_| unreadable())?)));
                }
            }
        }
        container.expect_blob_extents(&blob_extents).map_err(OpenErrorKind::Io)?;
        Ok(Self { front, blob_extents })
    }

    /// True if it does not begin with a record, as after a clean shutdown.
    pub fn is_empty(&self) -> bool {
        self.front.records.is_empty()
    }

    /// True if records since the checkpoint are missing while later ones exist.
    pub fn has_gap(&self, container: &Container, totals: &StoreRow) -> Result<bool, OpenErrorKind> {
        if !self.front.is_of(totals.epoch) {
            return Ok(false);
        }
        let first_is_missing =
            self.new_records(totals).first().is_some_and(|first| first.number > totals.commits + 1);
        let gap = self.front.has_gap(&**container.disk(), totals.epoch, totals.log_octets);
        Ok(first_is_missing || gap.map_err(OpenErrorKind::Io)?)
    }

    /// The records that the index does not have.
    fn new_records(&self, totals: &StoreRow) -> &[Record] {
        let known = self.front.records.iter().take_while(|record| record.number <= totals.commits);
        &self.front.records[known.count()..]
    }

    /// The changes that the index does not have, in order. Empty if the log belongs to another epoch.
    pub fn new_changes(&self, totals: &StoreRow) -> Result<Vec<Change<'_>>, OpenErrorKind> {
        let records = if self.front.is_of(totals.epoch) { self.new_records(totals) } else { &[] };
        let changes: Result<Vec<_>, _> = records.iter().map(changes_of).collect();
        Ok(changes?.concat())
    }

    /// Applies the records and makes a checkpoint. Does nothing if there are no records of this epoch.
    pub fn make_part_of_the_index(
        &self,
        database: &redb::Database,
        container: &Container,
        totals: &StoreRow,
    ) -> Result<(), OpenErrorKind> {
        if self.front.records.is_empty() || !self.front.is_of(totals.epoch) {
            return Ok(());
        }
        let records = self.new_records(totals);
        let mut transaction = Leaky::new(database.begin_write().map_err(Fault::from)?);
        transaction.set_quick_repair(true);
        {
            let mut tables = Leaky::new(Tables::open_unlogged(&transaction)?);
            for record in records {
                for change in changes_of(record)? {
                    if let Change::Text { at, octets } = change {
                        container.write_blob(at, octets).map_err(Fault::from)?;
                    }
                    tables.redo(&change)?;
                }
            }
            let row = tables.store.get(())?.map(|row| row.value().to_vec());
            let now = StoreRow::from_row(&row.ok_or_else(unreadable)?).map_err(Fault::from)?;
            let epoch = log_zone::new_epoch().map_err(OpenErrorKind::Io)?;
            tables.store.insert((), &StoreRow { epoch, ..now }.to_row()[..])?;
        }
        transaction.into_inner().commit().map_err(Fault::from)?;
        log::info!("replayed {} changes from the log of the data file", records.len());
        Ok(())
    }
}

fn changes_of(record: &Record) -> Result<Vec<Change<'_>>, OpenErrorKind> {
    record::changes(&record.changes).ok_or_else(unreadable)
}

fn unreadable() -> OpenErrorKind {
    OpenErrorKind::Damaged("a record of its log cannot be read")
}

/// The extents that hold blobs, according to the table.
fn blob_extents(snapshot: &IndexSnapshot) -> Result<Vec<Extent>, Fault> {
    contained::read(|| {
        let mut extents = Vec::new();
        for row in snapshot.table(BLOB_EXTENTS)?.iter()? {
            extents.push(row?.0.value());
        }
        Ok(extents)
    })
}

/// The free runs, according to the table.
fn free_runs(snapshot: &IndexSnapshot) -> Result<Vec<Run>, Fault> {
    contained::read(|| {
        let mut runs = Vec::new();
        for row in snapshot.table(FREE)?.iter()? {
            let (at, len) = row?;
            runs.push(Run { at: at.value(), len: len.value() });
        }
        Ok(runs)
    })
}
