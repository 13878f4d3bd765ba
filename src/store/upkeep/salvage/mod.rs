//! Saving what can be read of a file whose index redb cannot open, or cannot walk.
//!
//! The rows are read page by page ([`tree`]); each damaged page costs the rows on it. `check` says which mailboxes that
//! concerns. A repair copies rows and texts into a new file, and mends that like any other (`repair`); the damaged file
//! is never written to, and stays beside the new one under another name.

mod tree;

#[cfg(any(test, fuzzing))]
pub use tree::fuzz_tree;

use crate::replace::Replacement;
use crate::store::file::container::Container;
use crate::store::file::disk::{DataFile, Disk};
use crate::store::file::format::{EXTENT, Extent};
use crate::store::file::space::footprint;
use crate::store::index::Fault;
use crate::store::index::contained::{self, Leaky};
use crate::store::index::rows::{Counts, MailboxRow, MessageRow, Row, TextRow};
use crate::store::index::tables::{
    BLOB_EXTENTS, CERTIFICATE, COUNTS, DOMAINS, FREE, MAILBOXES, MESSAGES, QUOTAS, SETTINGS, STORE, TEXTS,
};
use crate::store::index::types::{MailboxId, OwnerId, UnixTime};
use crate::store::open::{OpenErrorKind, Store, open_database};
use crate::store::upkeep::check::CheckReport;
use crate::store::upkeep::repair::RepairReport;
use redb::{Key, ReadableTable, TableDefinition, TableHandle, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tree::Trees;

/// Texts are read and copied in pieces of this size.
const PIECE: u64 = 256 << 10;

/// What is told of the rows that were found, table by table.
#[derive(Default)]
struct Found {
    rows: u64,
    damaged: Vec<String>,
    /// Names of mailboxes, and the messages that they should have, by id.
    mailboxes: BTreeMap<OwnerId, (String, u64)>,
    /// Messages whose rows were found, by the id of their mailbox.
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

    fn note_mailbox(&mut self, key: &[u8], row: &[u8]) {
        let (domain, local) = <(&str, &str)>::from_bytes(key);
        if let Ok(row) = MailboxRow::from_row(row) {
            self.mailboxes.entry(row.id.into()).or_default().0 = format!("{local}@{domain}");
        }
    }

    fn note_counts(&mut self, key: &[u8], row: &[u8]) {
        if let Ok(counts) = Counts::from_row(row) {
            self.mailboxes.entry(OwnerId::from_bytes(key)).or_default().1 = counts.messages;
        }
    }

    fn note_message(&mut self, key: &[u8]) {
        *self.messages.entry(<(MailboxId, u64)>::from_bytes(key).0).or_default() += 1;
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

impl Store {
    /// Checks a file whose index is damaged: what can still be read, and what cannot. Nothing is written.
    pub(in crate::store) fn check_damaged_on(disk: Arc<dyn Disk>) -> Result<CheckReport, OpenErrorKind> {
        let container = Container::open(disk)?;
        let read = |at: u64, out: &mut [u8]| container.read_index(at, out);
        let trees = Trees::find(&read);
        let mut report = CheckReport::default();
        if trees.is_empty() {
            report.find("the part of the index that leads to everything else cannot be read".to_owned());
        }
        let mut found = Found::default();
        let pages = trees.rows(SETTINGS.name(), &mut |_, _| {});
        found.note(SETTINGS.name(), pages);
        let pages = trees.rows(DOMAINS.name(), &mut |_, _| report.domains += 1);
        found.note(DOMAINS.name(), pages);
        let pages = trees.rows(MAILBOXES.name(), &mut |key, row| {
            report.mailboxes += 1;
            found.note_mailbox(key, row);
        });
        found.note(MAILBOXES.name(), pages);
        let pages = trees.rows(COUNTS.name(), &mut |key, row| found.note_counts(key, row));
        found.note(COUNTS.name(), pages);
        let pages = trees.rows(MESSAGES.name(), &mut |key, _| {
            report.messages += 1;
            found.note_message(key);
        });
        found.note(MESSAGES.name(), pages);
        let mut texts = Vec::new();
        let pages = trees.rows(TEXTS.name(), &mut |name, row| {
            report.texts += 1;
            match TextRow::from_row(row) {
                Ok(row) => match hash_of(&container, &row) {
                    Some(hash) if hash.as_bytes() == name => report.text_octets += row.wire_octets,
                    _ => texts.push(format!("the text at {} cannot be read, or has changed", row.at)),
                },
                Err(_) => texts.push("the row of a text cannot be read".to_owned()),
            }
        });
        found.note(TEXTS.name(), pages);
        for table in [QUOTAS.name(), CERTIFICATE.name(), STORE.name(), FREE.name(), BLOB_EXTENTS.name()] {
            found.note(table, trees.rows(table, &mut |_, _| {}));
        }
        report
            .find("the index is damaged; `check --repair` saves what can be read into a new file".to_owned());
        found.sentences().into_iter().chain(texts).for_each(|sentence| report.find(sentence));
        Ok(report)
    }

    /// Makes a new store of what can be read of a damaged one, in the place of its file. The damaged file stays beside it.
    pub(in crate::store) fn salvage(
        path: &Path,
        damaged: Arc<dyn Disk>,
        now: UnixTime,
    ) -> Result<RepairReport, OpenErrorKind> {
        let draft = Replacement::begin(path, 0o600).map_err(OpenErrorKind::Io)?;
        let file = draft.file().try_clone().map_err(OpenErrorKind::Io)?;
        let disk: Arc<dyn Disk> = Arc::new(DataFile::empty(file)?);
        let mut report = Self::salvage_to(damaged, disk, now)?;
        let kept = name_beside(path);
        fs::hard_link(path, &kept).map_err(OpenErrorKind::Io)?;
        draft.finish().map_err(OpenErrorKind::Io)?;
        report.mend(format!(
            "what could be read is in a new file; the damaged one is kept as {}",
            kept.display()
        ));
        Ok(report)
    }

    pub(in crate::store) fn salvage_to(
        damaged: Arc<dyn Disk>,
        disk: Arc<dyn Disk>,
        now: UnixTime,
    ) -> Result<RepairReport, OpenErrorKind> {
        let source = Container::open(damaged)?;
        let copying = || -> Result<Vec<String>, OpenErrorKind> {
            let container = Container::create(disk.clone()).map_err(OpenErrorKind::Io)?;
            let sentences = copy(&source, &container)?;
            container.finish().map_err(OpenErrorKind::Io)?;
            Ok(sentences)
        };
        let sentences = contained::change(copying).unwrap_or_else(|panicked| Err(panicked.0.into()))?;
        let mut report = Self::repair_on(disk, now)?;
        sentences.into_iter().for_each(|sentence| report.mend(sentence));
        Ok(report)
    }
}

/// A name that nothing has yet.
fn name_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut names = (1u32..).map(|n| path.with_file_name(format!("{name}.damaged.{n}")));
    names
        .find(|name| name.symlink_metadata().is_err())
        .expect("a directory has fewer files than there are numbers")
}

fn copy(source: &Container, container: &Arc<Container>) -> Result<Vec<String>, OpenErrorKind> {
    let read = |at: u64, out: &mut [u8]| source.read_index(at, out);
    let trees = Trees::find(&read);
    let mut found = Found::default();
    let database = Leaky::new(open_database(container, false)?);
    let mut transaction = Leaky::new(database.begin_write().map_err(Fault::from)?);
    transaction.set_quick_repair(true);
    copy_table(&trees, &transaction, SETTINGS, &mut found, |_, _, _| {})?;
    copy_table(&trees, &transaction, DOMAINS, &mut found, |_, _, _| {})?;
    copy_table(&trees, &transaction, MAILBOXES, &mut found, Found::note_mailbox)?;
    copy_table(&trees, &transaction, COUNTS, &mut found, Found::note_counts)?;
    copy_table(&trees, &transaction, QUOTAS, &mut found, |_, _, _| {})?;
    copy_table(&trees, &transaction, CERTIFICATE, &mut found, |_, _, _| {})?;
    copy_table(&trees, &transaction, STORE, &mut found, |_, _, _| {})?;
    copy_table(&trees, &transaction, MESSAGES, &mut found, |found, key, _| found.note_message(key))?;
    Texts::begin(source, container, &transaction)?.copy(&trees, &mut found)?;
    if !found.damaged.is_empty() {
        scan_messages(&trees, source.index_len(), &transaction, &mut found)?;
    }
    transaction.into_inner().commit().map_err(Fault::from)?;
    database.into_inner().close()?;
    if found.rows == 0 {
        return Err(OpenErrorKind::Damaged("no row of its index can be read"));
    }
    Ok(found.sentences())
}

fn copy_table<K: Key + 'static, V: Value + 'static>(
    trees: &Trees<'_>,
    transaction: &redb::WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    found: &mut Found,
    note: impl Fn(&mut Found, &[u8], &[u8]),
) -> Result<(), Fault> {
    let mut table = Leaky::new(transaction.open_table(definition)?);
    let mut outcome = Ok(());
    let pages = trees.rows(definition.name(), &mut |key, row| {
        found.rows += 1;
        note(found, key, row);
        if outcome.is_ok() {
            outcome = table.insert(K::from_bytes(key), V::from_bytes(row)).map(drop);
        }
    });
    found.note(definition.name(), pages);
    drop(table.into_inner());
    Ok(outcome?)
}

/// Messages on pages that nothing leads to any more.
fn scan_messages(
    trees: &Trees<'_>,
    len: u64,
    transaction: &redb::WriteTransaction,
    found: &mut Found,
) -> Result<(), Fault> {
    let mut messages = Leaky::new(transaction.open_table(MESSAGES)?);
    let mut count = 0;
    let mut outcome = Ok(());
    let mut keep = |key: &[u8], row: &[u8]| -> Result<(), Fault> {
        let number = <(MailboxId, u64)>::from_bytes(key);
        if messages.get(number)?.is_none() {
            messages.insert(number, row)?;
            found.note_message(key);
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
    drop(messages.into_inner());
    found.rows += count;
    if count > 0 {
        found.damaged.push(format!(
            "{count} messages were found on pages that nothing leads to any more; some may have been deleted before"
        ));
    }
    outcome
}

/// Copies the texts one behind the other.
struct Texts<'a, 'txn> {
    source: &'a Container,
    container: &'a Container,
    texts: Leaky<redb::Table<'txn, TextKey, &'static [u8]>>,
    extents: Leaky<redb::Table<'txn, Extent, ()>>,
    /// Where the next one goes, and where its room ends.
    at: u64,
    end: u64,
}

/// What texts are named by in the table.
type TextKey = [u8; 32];

impl<'a, 'txn> Texts<'a, 'txn> {
    fn begin(
        source: &'a Container,
        container: &'a Container,
        transaction: &'txn redb::WriteTransaction,
    ) -> Result<Self, Fault> {
        let texts = Leaky::new(transaction.open_table(TEXTS)?);
        let extents = Leaky::new(transaction.open_table(BLOB_EXTENTS)?);
        transaction.open_table(FREE)?;
        Ok(Self { source, container, texts, extents, at: 0, end: 0 })
    }

    fn copy(mut self, trees: &Trees<'_>, found: &mut Found) -> Result<(), Fault> {
        let mut outcome = Ok(());
        // Whatever the octets are now: repair compares them with their hash.
        let pages = trees.rows(TEXTS.name(), &mut |name, row| {
            found.rows += 1;
            if let (Ok(()), Ok(row)) = (&outcome, TextRow::from_row(row)) {
                outcome = self.keep(name, &row);
            }
        });
        found.note(TEXTS.name(), pages);
        outcome?;
        if found.damaged.is_empty() {
            return Ok(());
        }
        // On pages that nothing leads to any more rows may be out of date, and their octets another text's.
        let mut outcome = Ok(());
        let width = TextKey::fixed_width().expect("names have a fixed width");
        let is_text = |_: &[u8], row: &[u8]| TextRow::from_row(row).is_ok();
        trees.scan(self.source.index_len(), width, &is_text, &mut |name, row| {
            if let (Ok(()), Ok(row)) = (&outcome, TextRow::from_row(row))
                && hash_of(self.source, &row).is_some_and(|hash| hash.as_bytes() == name)
            {
                outcome = self.keep(name, &row);
            }
        });
        outcome
    }

    fn keep(&mut self, name: &[u8], row: &TextRow) -> Result<(), Fault> {
        let name = TextKey::from_bytes(name);
        if self.texts.get(name)?.is_some() {
            return Ok(());
        }
        if let Some(copied) = self.place(row)? {
            self.texts.insert(name, &copied.to_row()[..])?;
        }
        Ok(())
    }

    /// Copies the octets; none where they cannot be read.
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
                self.extents.insert(extent, ())?;
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
    // Where the file ends before the text does, a view says so, and nothing is read.
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
