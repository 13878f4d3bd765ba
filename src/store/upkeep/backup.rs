//! Copies the whole store while it is in use.
//!
//! A snapshot and a pin preserve what is being copied while mail keeps coming and going. The copy is an
//! independent store without the holes of the original. It is verified and durable when [`Store::backup`]
//! returns. The caller provides the file: the administrator's own process creates it, and names it once it is
//! complete.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::{ReadableTable, TableHandle};

use crate::store::file::container::Container;
use crate::store::file::disk::{DataFile, Disk, FileError};
use crate::store::file::log_zone;
use crate::store::file::space::{Pins, Space};
use crate::store::index::contained;
use crate::store::index::rows::{Row, TextRow};
use crate::store::index::tables::{MESSAGES, TEXTS, Table, Tables};
use crate::store::index::types::TextId;
use crate::store::index::{Beginning, Fault, IndexSnapshot, Read, RecentTexts, RemovedNames, Tx};
use crate::store::open::{OpenErrorKind, Snapshot, Store, open_database};
use crate::store::upkeep::progress::{Progress, Stage};
use crate::store::upkeep::reading::{Found, NotCopied, Reading, TextToRead, at_low_priority};
use crate::store::writer::PACE;

/// Texts sorted by place at a time, so that they are read and written in order.
const TEXTS_SORTED: usize = 100_000;

/// What a backup contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupReport {
    pub messages: u64,
    /// Length of the copy.
    pub file_octets: u64,
}

/// Why there is no backup.
#[derive(Debug)]
pub enum BackupError {
    /// A stored text has changed.
    DamagedText(blake3::Hash),
    Source(Fault),
    /// The copy could not be written.
    Copy(String),
}

/// Why a backup must not replace a file.
#[derive(Debug)]
pub enum NotReplaced {
    /// The file exists and is not a mail store.
    Foreign,
    /// Another process has it open; it may be a store in use.
    InUse,
    Io(io::Error),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::DamagedText(text) => {
                write!(f, "the stored text {text} is damaged: run `pop3svc check`")
            }
            BackupError::Source(fault) => write!(f, "{fault}"),
            BackupError::Copy(what) => write!(f, "the copy cannot be written: {what}"),
        }
    }
}

impl From<NotCopied> for BackupError {
    fn from(NotCopied(e): NotCopied) -> Self {
        BackupError::Copy(e.to_string())
    }
}

impl From<Fault> for BackupError {
    fn from(fault: Fault) -> Self {
        BackupError::Source(fault)
    }
}

impl From<redb::StorageError> for BackupError {
    fn from(e: redb::StorageError) -> Self {
        BackupError::Source(e.into())
    }
}

impl Store {
    /// Copies the store as of now into an empty file that is open for reading and writing. The copy is durable
    /// on return. Reads and writes all of the store, so keep it off the executor.
    pub fn backup(&self, file: File, progress: &Progress) -> Result<BackupReport, BackupError> {
        let (_pin, snapshot) = self.read_at_checkpoint().wait()?;
        let of_copy = |e: FileError| BackupError::Copy(OpenErrorKind::from(e).to_string());
        let file = DataFile::empty(file).map_err(of_copy)?;
        let copy = || copy_to(&snapshot, file, progress);
        let copied = at_low_priority(|| snapshot.container().reading_index_ahead(copy));
        snapshot.container().admit_reader().map_err(Fault::from)?;
        copied
    }
}

/// A backup may replace a backup or an empty file and nothing else; never a store in use.
pub fn may_replace(path: &Path) -> Result<(), NotReplaced> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(NotReplaced::Io(e)),
    };
    if !metadata.is_file() {
        return Err(NotReplaced::Foreign);
    }
    if metadata.len() == 0 {
        return Ok(());
    }
    let there = match DataFile::open(path, false) {
        Ok(file) => file,
        Err(FileError::Missing) => return Ok(()),
        Err(FileError::Locked) => return Err(NotReplaced::InUse),
        Err(FileError::Io(e)) => return Err(NotReplaced::Io(e)),
    };
    Container::open(Arc::new(there)).map(drop).map_err(|_| NotReplaced::Foreign)
}

fn copy_to(source: &Snapshot, file: DataFile, progress: &Progress) -> Result<BackupReport, BackupError> {
    let of_copy = BackupError::Copy;
    let disk: Arc<dyn Disk> = Arc::new(file);
    let container = Container::create(disk.clone()).map_err(|e| of_copy(e.to_string()))?;
    log_zone::write_zeros(&*disk, 0..PACE.log_octets).map_err(|e| of_copy(e.to_string()))?;
    let database = open_database(&container, false).map_err(|e| of_copy(e.to_string()))?;
    let fault_of_copy = |fault: Fault| of_copy(fault.to_string());
    let mut transaction = database.begin_write().map_err(|e| of_copy(e.to_string()))?;
    transaction.set_quick_repair(true);
    {
        let mut space = Space::empty(Pins::default());
        let tables = Tables::open_unlogged(&transaction).map_err(fault_of_copy)?;
        let (mut recent, mut names) = (RecentTexts::default(), RemovedNames::default());
        let mut tx = Tx::begin(tables, &mut space, &mut recent, &mut names, &container, true)
            .map_err(fault_of_copy)?;
        let totals = source.totals()?;
        progress.begin(Stage::CopyingTexts, totals.text_octets);
        let (space, container) = (&mut *tx.space, tx.container);
        // Another thread copies the messages meanwhile. After the texts, show how far it is.
        let (messages, texts_are_done) = (AtomicU64::new(0), AtomicBool::new(false));
        let copied = |table: &str| {
            if table == MESSAGES.name() {
                messages.fetch_add(1, Ordering::Relaxed);
                progress.add(u64::from(texts_are_done.load(Ordering::Relaxed)));
            }
        };
        tx.tables.copy_from(source, &copied, |table| {
            copy_texts(source, container, space, table, progress)?;
            progress.begin(Stage::CopyingMessages, totals.messages);
            progress.add(messages.load(Ordering::Relaxed));
            texts_are_done.store(true, Ordering::Relaxed);
            Ok::<_, BackupError>(())
        })?;
        progress.begin(Stage::Finishing, 0);
        *tx.totals_mut() = totals;
        let epoch = log_zone::new_epoch().map_err(|e| of_copy(e.to_string()))?;
        let beginning = Beginning { epoch, log_octets: PACE.log_octets };
        tx.settle(|_| Ok(Some(beginning))).map_err(fault_of_copy)?;
    }
    transaction.commit().map_err(|e| of_copy(e.to_string()))?;
    let messages = IndexSnapshot::begin(&database)
        .and_then(|copy| Ok(redb::ReadableTableMetadata::len(&copy.table(MESSAGES)?)?))
        .map_err(fault_of_copy)?;
    database.close().map_err(|e| of_copy(e.to_string()))?;
    container.finish().map_err(|e| of_copy(e.to_string()))?;
    let file_octets = disk.len().map_err(|e| of_copy(e.to_string()))?;
    Ok(BackupReport { messages, file_octets })
}

/// Copies the texts in order of place, a batch at a time, verifying each. This thread assigns their places in
/// the copy and writes their rows while other threads copy.
pub(in crate::store) fn copy_texts(
    source: &Snapshot,
    copy: &Container,
    space: &mut Space,
    copied: &mut Table<'_, TextId, &'static [u8]>,
    progress: &Progress,
) -> Result<(), BackupError> {
    let table = source.table(TEXTS)?;
    let mut rows = contained::read(|| Ok(table.iter()?))?;
    let reading = Reading { source: source.container(), copy: Some(copy), progress };
    let list = |read: &mut dyn FnMut(TextToRead) -> Result<(), BackupError>| {
        loop {
            let mut texts = contained::read(|| {
                let mut texts = Vec::new();
                for row in rows.by_ref().take(TEXTS_SORTED) {
                    let (id, row) = row?;
                    texts.push((id.value(), TextRow::from_row(row.value())?));
                }
                Ok(texts)
            })?;
            if texts.is_empty() {
                return Ok(());
            }
            texts.sort_unstable_by_key(|(_, row)| row.at);
            for (_, row) in &mut texts {
                let (at, wire_octets) = (row.at, row.wire_octets);
                row.at = space.take(wire_octets, copy).map_err(NotCopied)?;
                read(TextToRead { index: 0, hash: row.hash, at, wire_octets, to: Some(row.at) })?;
            }
            space.forget_taken();
            // In table order, which is fastest.
            texts.sort_unstable_by_key(|(id, _)| *id);
            let rows: Vec<_> = texts.iter().map(|(id, row)| (*id, row.to_row())).collect();
            copied.append(rows.iter().map(|(id, row)| (*id, &row[..])))?;
        }
    };
    let mut damaged = None;
    reading.run(list, |text, found| match found {
        Found::Whole { .. } => {}
        Found::Changed => drop(damaged.get_or_insert(BackupError::DamagedText(text.hash.into()))),
        Found::Unreadable(why) => drop(damaged.get_or_insert(BackupError::Source(Fault::Io(why)))),
    })?;
    damaged.map_or(Ok(()), Err)
}
