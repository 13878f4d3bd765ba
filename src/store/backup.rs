//! A copy of the whole store, made while it is being served.
//!
//! A snapshot and a pin hold still what is copied; mail goes on coming and going beside. The copy is a store of its own,
//! without the holes of the original. It is made under a temporary name, and gets its own name when all of it is
//! verified and durable: whoever finds the file finds it whole.

use super::contained;
use super::container::Container;
use super::disk::{DataFile, Disk, FileError};
use super::index::{CERTIFICATE, COUNTS, DOMAINS, MAILBOXES, QUOTAS, TEXTS};
use super::index::{Fault, MESSAGES, Read, SETTINGS, Snapshot as IndexSnapshot, Tables, Tx};
use super::rows::{Row, TextRow};
use super::space::{Pins, Space};
use super::{OpenErrorKind, Snapshot, Store, open_database, sync_directory_of};
use redb::{ReadableTable, TableDefinition};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Texts that are sorted by their place at a time, so that they are read and written in order.
const TEXTS_SORTED: usize = 100_000;

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupReport {
    pub messages: u64,
    /// The length of the copy.
    pub file_octets: u64,
}

/// Why there is no backup. The file that was there before, if any, is untouched.
#[derive(Debug)]
pub enum BackupError {
    /// The file that is there is not a store, so it is not replaced.
    NotReplaced(PathBuf),
    /// A text is not what it was when it was stored.
    DamagedText(blake3::Hash),
    Source(Fault),
    Copy(PathBuf, String),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::NotReplaced(path) => {
                write!(
                    f,
                    "{} exists and is not a backup of a mail store, so it is not replaced",
                    path.display()
                )
            }
            BackupError::DamagedText(text) => {
                write!(f, "the stored text {text} is damaged: run `pop3svc check`")
            }
            BackupError::Source(fault) => write!(f, "{fault}"),
            BackupError::Copy(path, what) => write!(f, "{}: {what}", path.display()),
        }
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
    /// Copies the store as of now to `path`, replacing an older backup there. Takes as long as reading and
    /// writing all of it; not for the executor.
    pub fn backup(&self, path: &Path) -> Result<BackupReport, BackupError> {
        may_replace(path)?;
        let _pin = self.0.shared.pins.pin();
        let snapshot = self.read()?;
        let temporary = temporary_beside(path);
        let of_copy = |e: FileError| BackupError::Copy(temporary.clone(), OpenErrorKind::from(e).to_string());
        let file = DataFile::create_new(&temporary).map_err(of_copy)?;
        let outcome = copy_to(&snapshot, file, &temporary).and_then(|report| {
            let failed = |e: io::Error| BackupError::Copy(path.to_owned(), e.to_string());
            fs::rename(&temporary, path).map_err(failed)?;
            sync_directory_of(path).map_err(failed)?;
            Ok(report)
        });
        if outcome.is_err() {
            // Removing what is half done is a courtesy; the error to report is the one that came before.
            let _ = fs::remove_file(&temporary);
        }
        outcome
    }
}

/// A backup may take the place of a backup or of an empty file, of nothing else, and never of a store in use.
fn may_replace(path: &Path) -> Result<(), BackupError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(BackupError::Copy(path.to_owned(), e.to_string())),
    };
    if !metadata.is_file() {
        return Err(BackupError::NotReplaced(path.to_owned()));
    }
    if metadata.len() == 0 {
        return Ok(());
    }
    let there = match DataFile::open(path, false) {
        Ok(file) => file,
        Err(_) => return Err(BackupError::Copy(path.to_owned(), "it is in use, or cannot be opened".into())),
    };
    match Container::open(Arc::new(there)) {
        Ok(_) => Ok(()),
        Err(_) => Err(BackupError::NotReplaced(path.to_owned())),
    }
}

/// A name that no other backup has: two of them may be under way at once, and one that was killed may have left
/// its file behind.
fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let names =
        (0u32..).map(|n| path.with_file_name(format!(".{name}.{}.{n}.unfinished", std::process::id())));
    let mut unused = names.skip_while(|name| name.symlink_metadata().is_ok());
    unused.next().expect("a directory has fewer files than there are numbers")
}

fn copy_to(source: &Snapshot, file: DataFile, temporary: &Path) -> Result<BackupReport, BackupError> {
    let of_copy = |what: String| BackupError::Copy(temporary.to_owned(), what);
    let disk: Arc<dyn Disk> = Arc::new(file);
    let container = Container::create(disk.clone()).map_err(|e| of_copy(e.to_string()))?;
    let database = open_database(&container, false).map_err(|e| of_copy(e.to_string()))?;
    let fault_of_copy = |fault: Fault| of_copy(fault.to_string());
    let mut transaction = database.begin_write().map_err(|e| of_copy(e.to_string()))?;
    transaction.set_quick_repair(true);
    {
        let mut space = Space::empty(Pins::default());
        let tables = Tables::open(&transaction).map_err(fault_of_copy)?;
        let mut tx = Tx::begin(tables, &mut space, &container, true).map_err(fault_of_copy)?;
        copy_texts(source, &mut tx, temporary)?;
        copy_table(source, SETTINGS, &mut tx.tables.settings)?;
        copy_table(source, DOMAINS, &mut tx.tables.domains)?;
        copy_table(source, MAILBOXES, &mut tx.tables.mailboxes)?;
        copy_table(source, COUNTS, &mut tx.tables.counts)?;
        copy_table(source, QUOTAS, &mut tx.tables.quotas)?;
        copy_table(source, CERTIFICATE, &mut tx.tables.certificate)?;
        copy_table(source, MESSAGES, &mut tx.tables.messages)?;
        *tx.totals_mut() = source.totals()?;
        tx.settle().map_err(fault_of_copy)?;
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

fn copy_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    source: &Snapshot,
    definition: TableDefinition<'static, K, V>,
    copy: &mut redb::Table<'_, K, V>,
) -> Result<(), BackupError> {
    let table = source.table(definition)?;
    let mut rows = contained::read(|| Ok(table.iter()?))?;
    while let Some((key, value)) = contained::read(|| Ok(rows.next().transpose()?))? {
        copy.insert(key.value(), value.value())?;
    }
    Ok(())
}

/// Copies the texts in the order of their places, some ten thousands at a time, and compares each with its name.
fn copy_texts(source: &Snapshot, tx: &mut Tx<'_, '_>, temporary: &Path) -> Result<(), BackupError> {
    let table = source.table(TEXTS)?;
    let mut rows = contained::read(|| Ok(table.iter()?))?;
    loop {
        let mut texts = contained::read(|| {
            let mut texts = Vec::new();
            for row in rows.by_ref().take(TEXTS_SORTED) {
                let (name, row) = row?;
                texts.push((TextRow::from_row(row.value())?, name.value()));
            }
            Ok(texts)
        })?;
        if texts.is_empty() {
            return Ok(());
        }
        texts.sort_unstable_by_key(|(row, _)| row.at);
        for (row, name) in texts {
            let text = source.container().view_blob(row.at, row.wire_octets as usize).map_err(Fault::from)?;
            text.fetch().map_err(Fault::from)?;
            if blake3::hash(&text) != name {
                return Err(BackupError::DamagedText(name.into()));
            }
            let failed = |e: io::Error| BackupError::Copy(temporary.to_owned(), e.to_string());
            let at = tx.space.take(row.wire_octets, tx.container).map_err(failed)?;
            tx.container.write_blob(at, &text).map_err(failed)?;
            tx.tables.texts.insert(name, &TextRow { at, ..row }.to_row()[..])?;
        }
    }
}
