//! Saves what can be read from a file whose index redb cannot open or walk.
//!
//! Rows are read page by page ([`tree`]); each damaged page costs the rows on it. `check` reports which
//! mailboxes that affects. A repair copies rows and texts into a new file and repairs that like any other
//! (`repair`). The damaged file is never written to and stays next to the new one under another name.
//!
//! Logged changes since the last checkpoint replace rows of the same keys. Logged texts are written to their
//! places in memory ([`Overlay`]).

pub mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{TableHandle, Value};

use crate::replace::Replacement;
use crate::store::file::container::Container;
use crate::store::file::disk::{DataFile, Disk};
use crate::store::file::format::EXTENT;
use crate::store::file::log_zone;
use crate::store::file::overlay::Overlay;
use crate::store::file::record::Change;
use crate::store::file::space::footprint;
use crate::store::index::Fault;
use crate::store::index::contained::{self, Leaky};
use crate::store::index::rows::{Counts, MailboxRow, MessageRow, Row, StoreRow, TextRow};
use crate::store::index::tables::{
    AnyTable, COUNTS, DOMAINS, Holds, LIST, MAILBOXES, MESSAGES, STORE, TEXTS, Tables,
};
use crate::store::index::types::{MailboxId, OwnerId, TextId, UnixTime};
use crate::store::open::recovery::LogFound;
use crate::store::open::{OpenErrorKind, Store, open_database};
use crate::store::upkeep::check::CheckReport;
use crate::store::upkeep::progress::Progress;
use crate::store::upkeep::repair::RepairReport;
use crate::store::writer::PACE;
use tree::Trees;

/// Texts are read and copied in pieces of this length.
const PIECE: u64 = 256 << 10;

/// What is reported about the rows found, table by table.
#[derive(Default)]
struct Found {
    rows: u64,
    damaged: Vec<String>,
    /// Names of mailboxes by id, and how many messages each should have.
    mailboxes: BTreeMap<OwnerId, (String, u64)>,
    /// Messages whose rows were found, by mailbox.
    messages: BTreeMap<MailboxId, u64>,
}

impl Found {
    fn note(&mut self, table: &str, damaged_pages: Option<u64>) {
        match damaged_pages {
            Some(0) => {}
            Some(pages) => {
                self.damaged.push(format!("{pages} pages of the table \"{table}\" cannot be read"))
            }
            None => self.damaged.push(format!("the table \"{table}\" was not found")),
        }
    }

    fn note_row(&mut self, table: &AnyTable, key: &[u8], row: &[u8]) {
        self.rows += 1;
        if table.name == MAILBOXES.name() {
            let (domain, local) = <(&str, &str)>::from_bytes(key);
            if let Ok(row) = MailboxRow::from_row(row) {
                self.mailboxes.entry(row.id.into()).or_default().0 = format!("{local}@{domain}");
            }
        } else if table.name == COUNTS.name() {
            if let Ok(counts) = Counts::from_row(row) {
                self.mailboxes.entry(OwnerId::from_bytes(key)).or_default().1 = counts.messages;
            }
        } else if table.name == MESSAGES.name() {
            *self.messages.entry(<(MailboxId, u64)>::from_bytes(key).0).or_default() += 1;
        }
    }

    /// Sentences about what is missing.
    fn sentences(self) -> Vec<String> {
        let mut sentences = self.damaged;
        for (id, (name, counted)) in &self.mailboxes {
            let found = self.messages.get(&MailboxId(*id)).copied().unwrap_or(0);
            if !name.is_empty() && found < *counted {
                let lost = counted - found;
                sentences
                    .push(format!("{lost} of the {counted} messages of {name} cannot be read in the index"));
            }
        }
        sentences
    }
}

/// The rows of a damaged file, from its trees and its log.
struct Rows<'a> {
    trees: Trees<'a>,
    /// By table number and key; `None` if the row was removed.
    logged: BTreeMap<u8, BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    /// Sentences about what is missing from the log.
    lost_of_log: Vec<String>,
}

impl<'a> Rows<'a> {
    /// Reads the log and writes its texts to their places.
    fn of(container: &Container, trees: Trees<'a>) -> Result<Self, OpenErrorKind> {
        let mut rows = Self { trees, logged: BTreeMap::new(), lost_of_log: Vec::new() };
        let mut totals = None;
        rows.trees.rows(STORE.name(), &mut |_, row| totals = StoreRow::from_row(row).ok());
        let log = match (LogFound::read(container), totals) {
            (Ok(log), Some(totals)) => Some((log, totals)),
            (Err(OpenErrorKind::Io(e)), _) => return Err(OpenErrorKind::Io(e)),
            // Without the row that counts commits we cannot tell which logged changes the index has.
            (Ok(_), None) | (Err(_), _) => None,
        };
        let Some((log, totals)) = log else {
            rows.lost_of_log
                .push("the log cannot be read: the changes of the last second or so are lost".to_owned());
            return Ok(rows);
        };
        if log.has_gap(container, &totals)? {
            rows.lost_of_log
                .push("the log was damaged: the last changes, of a second or so, are lost".to_owned());
        }
        for change in log.new_changes(&totals)? {
            let (table, key, row) = match change {
                Change::Text { at, octets } => {
                    container.write_blob(at, octets).map_err(OpenErrorKind::Io)?;
                    continue;
                }
                Change::Put { table, key, value } => (table, key, Some(value.to_vec())),
                Change::Removed { table, key } => (table, key, None),
            };
            rows.logged.entry(table).or_default().insert(key.to_vec(), row);
        }
        Ok(rows)
    }

    /// Passes every readable row of a table to `each`. Returns the number of unreadable pages, or `None` if the
    /// table was not found.
    fn each(&self, table: &AnyTable, each: &mut dyn FnMut(&[u8], &[u8])) -> Option<u64> {
        let Some(logged) = self.logged.get(&table.number) else { return self.trees.rows(table.name, each) };
        let pages = self.trees.rows(table.name, &mut |key, row| {
            if !logged.contains_key(key) {
                each(key, row);
            }
        });
        for (key, row) in logged {
            if let Some(row) = row {
                each(key, row);
            }
        }
        pages
    }
}

impl Store {
    /// Checks a file that does not open because its index or its log is damaged (`why`): what can still be read and
    /// what cannot. Writes nothing.
    pub(in crate::store) fn check_damaged_on(
        disk: Arc<dyn Disk>,
        why: &OpenErrorKind,
    ) -> Result<CheckReport, OpenErrorKind> {
        let container = Container::open(Arc::new(Overlay::new(disk).map_err(OpenErrorKind::Io)?))?;
        let read = |at: u64, out: &mut [u8]| container.read_index(at, out);
        let trees = Trees::find(&read);
        let mut report = CheckReport::default();
        if trees.is_empty() {
            report.find("the part of the index that leads to everything else cannot be read".to_owned());
        }
        let rows = Rows::of(&container, trees)?;
        let mut found = Found::default();
        let mut texts = Vec::new();
        for table in LIST {
            let mut unreadable = 0;
            let pages = rows.each(table, &mut |key, row| {
                found.note_row(table, key, row);
                unreadable += u64::from(!(table.is_row)(row));
                if table.name == DOMAINS.name() {
                    report.domains += 1;
                } else if table.name == MAILBOXES.name() {
                    report.mailboxes += 1;
                } else if table.name == MESSAGES.name() {
                    report.messages += 1;
                } else if table.name == TEXTS.name() {
                    report.texts += 1;
                    let Ok(row) = TextRow::from_row(row) else { return };
                    match hash_of(&container, &row) {
                        Some(hash) if hash == row.hash => report.text_octets += row.wire_octets,
                        _ => texts.push(format!("the text at {} is unreadable or has changed", row.at)),
                    }
                }
            });
            found.note(table.name, pages);
            if unreadable > 0 {
                report.find(format!("{unreadable} rows of the table \"{}\" cannot be read", table.name));
            }
        }
        if !matches!(why, OpenErrorKind::DamagedLog) {
            let index = "the index is damaged; `check --repair` saves what can be read into a new file";
            report.find(index.to_owned());
        }
        let sentences = rows.lost_of_log.into_iter().chain(found.sentences()).chain(texts);
        sentences.for_each(|sentence| report.find(sentence));
        Ok(report)
    }

    /// Makes a new store from what can be read of a damaged one, in place of its file. The damaged file stays
    /// next to it.
    pub(in crate::store) fn salvage(
        path: &Path,
        damaged: Arc<dyn Disk>,
        now: UnixTime,
        progress: &Progress,
    ) -> Result<RepairReport, OpenErrorKind> {
        let draft = Replacement::begin(path, 0o600).map_err(OpenErrorKind::Io)?;
        let file = draft.file().try_clone().map_err(OpenErrorKind::Io)?;
        let disk: Arc<dyn Disk> = Arc::new(DataFile::empty(file)?);
        let mut report = Self::salvage_to(damaged, disk, now, progress)?;
        let kept = free_name_for(path);
        fs::hard_link(path, &kept).map_err(OpenErrorKind::Io)?;
        draft.finish().map_err(OpenErrorKind::Io)?;
        report.note(format!(
            "what could be read is in a new file; the damaged one is kept as {}",
            kept.display()
        ));
        Ok(report)
    }

    pub(in crate::store) fn salvage_to(
        damaged: Arc<dyn Disk>,
        disk: Arc<dyn Disk>,
        now: UnixTime,
        progress: &Progress,
    ) -> Result<RepairReport, OpenErrorKind> {
        let source = Container::open(Arc::new(Overlay::new(damaged).map_err(OpenErrorKind::Io)?))?;
        let copying = || -> Result<Vec<String>, OpenErrorKind> {
            let container = Container::create(disk.clone()).map_err(OpenErrorKind::Io)?;
            log_zone::write_zeros(&*disk, 0..PACE.log_octets).map_err(OpenErrorKind::Io)?;
            let sentences = copy(&source, &container)?;
            container.finish().map_err(OpenErrorKind::Io)?;
            Ok(sentences)
        };
        let sentences = contained::change(copying).unwrap_or_else(|panicked| Err(panicked.0.into()))?;
        let mut report = Self::repair_telling(disk, now, progress)?;
        sentences.into_iter().for_each(|sentence| report.note(sentence));
        Ok(report)
    }
}

/// A name that is not taken.
fn free_name_for(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut names = (1u32..).map(|n| path.with_file_name(format!("{name}.damaged.{n}")));
    names
        .find(|name| name.symlink_metadata().is_err())
        .expect("a directory has fewer files than there are numbers")
}

fn copy(source: &Container, container: &Arc<Container>) -> Result<Vec<String>, OpenErrorKind> {
    let read = |at: u64, out: &mut [u8]| source.read_index(at, out);
    let rows = Rows::of(source, Trees::find(&read))?;
    let mut found = Found::default();
    let database = Leaky::new(open_database(container, false)?);
    let mut transaction = Leaky::new(database.begin_write().map_err(Fault::from)?);
    transaction.set_quick_repair(true);
    {
        let mut tables = Leaky::new(Tables::open_unlogged(&transaction)?);
        // Places come from copying the texts, and from the repair.
        for table in LIST.iter().filter(|table| table.holds != Holds::Places) {
            copy_table(&rows, table, &mut tables, &mut found)?;
        }
        Texts { source, container, tables: &mut tables, at: 0, end: 0 }.copy(&rows, &mut found)?;
        if !found.damaged.is_empty() {
            scan_messages(&rows.trees, source.index_len(), &mut tables, &mut found)?;
        }
    }
    transaction.into_inner().commit().map_err(Fault::from)?;
    database.into_inner().close()?;
    if found.rows == 0 {
        return Err(OpenErrorKind::Damaged("no row of its index can be read"));
    }
    Ok(rows.lost_of_log.into_iter().chain(found.sentences()).collect())
}

fn copy_table(
    rows: &Rows<'_>,
    table: &AnyTable,
    tables: &mut Tables<'_>,
    found: &mut Found,
) -> Result<(), Fault> {
    let mut outcome = Ok(());
    let pages = rows.each(table, &mut |key, row| {
        if outcome.is_ok() && (table.fits)(key, row) {
            found.note_row(table, key, row);
            outcome = tables.redo(&Change::Put { table: table.number, key, value: row });
        }
    });
    found.note(table.name, pages);
    outcome
}

/// Messages on pages that nothing refers to any more.
fn scan_messages(
    trees: &Trees<'_>,
    len: u64,
    tables: &mut Tables<'_>,
    found: &mut Found,
) -> Result<(), Fault> {
    let mut count = 0;
    let mut outcome = Ok(());
    let mut keep = |key: &[u8], row: &[u8]| -> Result<(), Fault> {
        let number = <(MailboxId, u64)>::from_bytes(key);
        if tables.messages.get(number)?.is_none() {
            tables.messages.insert(number, row)?;
            *found.messages.entry(number.0).or_default() += 1;
            count += 1;
        }
        Ok(())
    };
    let is_message = |_: &[u8], row: &[u8]| MessageRow::from_row(row).is_ok();
    let width = <(MailboxId, u64)>::fixed_width().expect("numbers have a fixed width");
    trees.scan(len, width, &is_message, &mut |key, row| {
        if outcome.is_ok() {
            outcome = keep(key, row);
        }
    });
    found.rows += count;
    if count > 0 {
        found.damaged.push(format!(
            "{count} messages were found on orphaned pages; some of them may have been deleted earlier"
        ));
    }
    outcome
}

/// Copies the texts one after the other.
struct Texts<'a, 'txn> {
    source: &'a Container,
    container: &'a Container,
    tables: &'a mut Tables<'txn>,
    /// Where the next one goes, and the end of the room for it.
    at: u64,
    end: u64,
}

impl Texts<'_, '_> {
    fn copy(mut self, rows: &Rows<'_>, found: &mut Found) -> Result<(), Fault> {
        let mut outcome = Ok(());
        let listed = LIST.iter().find(|table| table.name == TEXTS.name()).expect("it is a table");
        // Whatever the octets are now; the repair verifies them.
        let pages = rows.each(listed, &mut |id, row| {
            found.rows += 1;
            if let (Ok(()), Ok(row), true) = (&outcome, TextRow::from_row(row), (listed.fits)(id, row)) {
                outcome = self.keep(id, &row);
            }
        });
        found.note(listed.name, pages);
        outcome?;
        if found.damaged.is_empty() {
            return Ok(());
        }
        // Pages that nothing refers to may have old rows, whose octets belong to other texts by now.
        let mut outcome = Ok(());
        let width = TextId::fixed_width().expect("numbers have a fixed width");
        let is_text = |_: &[u8], row: &[u8]| TextRow::from_row(row).is_ok();
        rows.trees.scan(self.source.index_len(), width, &is_text, &mut |id, row| {
            if let (Ok(()), Ok(row)) = (&outcome, TextRow::from_row(row))
                && hash_of(self.source, &row).is_some_and(|hash| hash == row.hash)
            {
                outcome = self.keep(id, &row);
            }
        });
        outcome
    }

    fn keep(&mut self, id: &[u8], row: &TextRow) -> Result<(), Fault> {
        let id = TextId::from_bytes(id);
        if self.tables.texts.get(id)?.is_some() {
            return Ok(());
        }
        if let Some(copied) = self.place(row)? {
            self.tables.texts.insert(id, &copied.to_row()[..])?;
        }
        Ok(())
    }

    /// Copies the octets; `None` if they cannot be read.
    fn place(&mut self, row: &TextRow) -> Result<Option<TextRow>, Fault> {
        let len = footprint(row.wire_octets);
        if self.source.view_blob(row.at, row.wire_octets as usize).is_err() {
            return Ok(None);
        }
        if self.at + len > self.end {
            let count = len.div_ceil(EXTENT) as u32;
            let first = self.container.extend_for_blobs(count)?;
            (self.at, self.end) = (first.at(), first.plus(count).at());
            for extent in first.row(count) {
                self.tables.blob_extents.insert(extent, ())?;
            }
        }
        let mut piece = vec![0; PIECE.min(row.wire_octets) as usize];
        for from in (0..row.wire_octets).step_by(PIECE as usize) {
            let piece = &mut piece[..PIECE.min(row.wire_octets - from) as usize];
            if self.source.read_blob(row.at + from, piece).is_err() {
                return Ok(None);
            }
            self.container.write_blob(self.at + from, piece)?;
        }
        let copied = TextRow { at: self.at, ..*row };
        self.at += len;
        Ok(Some(copied))
    }
}

fn hash_of(container: &Container, row: &TextRow) -> Option<blake3::Hash> {
    // If the file ends before the text does, making the view fails and nothing is read.
    container.view_blob(row.at, row.wire_octets as usize).ok()?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE.min(row.wire_octets) as usize];
    for from in (0..row.wire_octets).step_by(PIECE as usize) {
        let piece = &mut piece[..PIECE.min(row.wire_octets - from) as usize];
        container.read_blob(row.at + from, piece).ok()?;
        hasher.update(piece);
    }
    Some(hasher.finalize())
}
