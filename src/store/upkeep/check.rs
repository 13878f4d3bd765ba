//! Checks a store: every row, every text, every count, and that every octet has exactly one owner.
//!
//! A check works on one snapshot, so the store can be in use. Several threads go through the texts and the
//! messages once each. It needs about a hundred octets of memory per text.

mod messages;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use redb::ReadableTable;

use super::deleted;
use super::foreign_ids::ForeignId;
use crate::address::{Address, Domain};
use crate::store::file::disk::{DataFile, Disk};
use crate::store::file::format::BLOB_ALIGN;
use crate::store::file::format::{EXTENT, Extent};
use crate::store::index::contained;
use crate::store::index::rows::{
    Counts, DomainRow, MailboxRow, MessageRow, QuotaRow, Row, StoreRow, TextRow,
};
use crate::store::index::tables::{self, BLOB_EXTENTS, COUNTS, DOMAINS, FREE, MAILBOXES, QUOTAS, TEXTS};
use crate::store::index::types::{DomainId, OwnerId, TextId};
use crate::store::index::{Fault, Read};
use crate::store::open::{OpenError, OpenErrorKind, Snapshot, Store, Trust};
use crate::store::upkeep::progress::{Progress, Stage};
use crate::store::upkeep::reading::{Found, Reading, TextToRead, at_low_priority};

/// Findings that are kept; further ones are only counted.
const FINDINGS_MAX: usize = 200;
/// Upper bound on the room reserved for texts, whatever number the index gives.
const TEXTS_EXPECTED_MAX: u64 = 16 << 20;

/// What a check saw and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    pub domains: u64,
    pub mailboxes: u64,
    pub messages: u64,
    pub texts: u64,
    /// Octets of texts read and verified.
    pub text_octets: u64,
    /// Sentences; the first 200 findings.
    pub findings: Vec<String>,
    pub findings_total: u64,
}

impl CheckReport {
    #[cfg(test)]
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
    }

    pub(in crate::store) fn find(&mut self, what: String) {
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(what);
        }
    }
}

impl Store {
    /// Checks a store that is not in use, without changing the file. If the store does not open, whatever can
    /// be read is checked.
    pub fn check_file(path: &Path, progress: &Progress) -> Result<CheckReport, OpenError> {
        let disk = DataFile::open_to_read(path).map_err(|e| OpenErrorKind::from(e).at(path))?;
        Self::check_disk(Arc::new(disk), progress).map_err(|kind| kind.at(path))
    }

    pub(in crate::store) fn check_disk(
        disk: Arc<dyn Disk>,
        progress: &Progress,
    ) -> Result<CheckReport, OpenErrorKind> {
        let checked = |trust| {
            progress.begin(Stage::VerifyingIndex, 0);
            Self::open_to_check_on(disk.clone(), trust).and_then(|store| Ok(store.check(progress)?))
        };
        match checked(Trust::Verified) {
            // A copy may fail to say that it is one: if it was copied over its original.
            Err(kind) if kind.may_be_of_a_copy() => match checked(Trust::Copy) {
                Err(kind) if kind.is_of_damage() => Self::check_damaged_on(disk, &kind),
                checked => checked,
            },
            Err(kind @ OpenErrorKind::DamagedLog) => Self::check_damaged_on(disk, &kind),
            checked => checked,
        }
    }

    /// Checks the whole store as of now. Reads all of it, so keep it off the executor. Only
    /// [`Store::check_file`] also verifies the checksums of the index's pages.
    pub fn check(&self, progress: &Progress) -> Result<CheckReport, Fault> {
        let (_pin, snapshot) = self.read_at_checkpoint().wait()?;
        let check = || contained::read(|| Check::of(&snapshot, progress));
        let checked = at_low_priority(|| snapshot.container().reading_index_ahead(check));
        snapshot.container().admit_reader()?;
        checked
    }
}

struct Check<'a> {
    snapshot: &'a Snapshot,
    progress: &'a Progress,
    /// The store's own counts.
    stored: StoreRow,
    report: CheckReport,
    /// Mailboxes by id: name, domain id, and what was counted.
    owners: BTreeMap<OwnerId, CheckedMailbox>,
    /// All texts with readable rows, once read.
    texts: Vec<SeenText>,
    /// Those of the messages.
    foreign_ids: Vec<ForeignId>,
}

struct CheckedMailbox {
    name: String,
    domain: Option<DomainId>,
    /// The counts in its row; `None` if there is no readable row.
    stored: Option<Counts>,
    seen: Counts,
}

impl<'a> Check<'a> {
    fn of(snapshot: &'a Snapshot, progress: &'a Progress) -> Result<CheckReport, Fault> {
        let stored = match snapshot.totals() {
            Ok(totals) => Some(totals),
            Err(Fault::Damaged(_)) => None,
            Err(fault) => return Err(fault),
        };
        let mut check = Check {
            snapshot,
            progress,
            stored: stored.unwrap_or_default(),
            report: CheckReport::default(),
            owners: BTreeMap::new(),
            texts: Vec::new(),
            foreign_ids: Vec::new(),
        };
        if stored.is_none() {
            check
                .report
                .find("the row with the counts of the whole store is missing or unreadable".to_owned());
        }
        check.directory()?;
        check.messages_and_texts()?;
        check.counts()?;
        check.quotas()?;
        check.space()?;
        let foreign_ids = std::mem::take(&mut check.foreign_ids);
        super::foreign_ids::check(snapshot, foreign_ids, |what| check.report.find(what))?;
        check.other_tables()?;
        Ok(check.report)
    }

    /// In the tables that nothing else here examines, every row must be readable.
    fn other_tables(&mut self) -> Result<(), Fault> {
        for (table, count) in tables::unreadable(self.snapshot, &super::HAVE_RULES)? {
            self.report.find(format!("{count} rows of the table \"{table}\" cannot be read"));
        }
        Ok(())
    }

    fn directory(&mut self) -> Result<(), Fault> {
        let mut domain_ids = HashMap::new();
        for row in self.snapshot.table(DOMAINS)?.iter()? {
            let (name, row) = row?;
            let name = name.value();
            self.report.domains += 1;
            match DomainRow::from_row(row.value()) {
                Ok(row) => {
                    domain_ids.insert(name.to_owned(), row.id);
                    self.add_owner(name.to_owned(), row.id.into(), None)?;
                }
                Err(_) => self.report.find(format!("the row of domain {name} cannot be read")),
            }
            if name.parse::<Domain>().is_err() {
                self.report.find(format!("\"{name}\" is listed as a domain but is not a domain name"));
            }
        }
        for row in self.snapshot.table(MAILBOXES)?.iter()? {
            let (key, row) = row?;
            let (domain, local) = key.value();
            let name = format!("{local}@{domain}");
            self.report.mailboxes += 1;
            let domain = domain_ids.get(domain).copied();
            if domain.is_none() {
                self.report.find(format!("the domain of mailbox {name} does not exist"));
            }
            if name.parse::<Address>().is_err() {
                self.report.find(format!("\"{name}\" is listed as a mailbox but is not an address"));
            }
            match MailboxRow::from_row(row.value()) {
                Ok(row) => self.add_owner(name, row.id.into(), domain.or(Some(NO_DOMAIN)))?,
                Err(_) => self.report.find(format!("the row of mailbox {name} cannot be read")),
            }
        }
        for mailbox in deleted::removed_mailboxes(self.snapshot, |what| self.report.find(what))? {
            self.add_owner(format!("deleted {}", mailbox.address), mailbox.id.into(), Some(REMOVED))?;
        }
        Ok(())
    }

    fn add_owner(&mut self, name: String, id: OwnerId, domain: Option<DomainId>) -> Result<(), Fault> {
        if id >= self.stored.next_id {
            self.report.find(format!("{name} has an id that was never given out"));
        }
        let row = self.snapshot.table(COUNTS)?.get(id)?;
        let stored = row.and_then(|row| Counts::from_row(row.value()).ok());
        if stored.is_none() {
            self.report.find(format!("the counts of {name} are missing or unreadable"));
        }
        let owner = CheckedMailbox { name: name.clone(), domain, stored, seen: Counts::default() };
        if let Some(other) = self.owners.insert(id, owner) {
            self.report.find(format!("{name} and {} have the same id", other.name));
        }
        Ok(())
    }

    /// Reads every text, and goes through the messages once.
    fn messages_and_texts(&mut self) -> Result<(), Fault> {
        let texts = self.texts()?;
        let seen: Vec<AtomicU32> = std::iter::repeat_with(AtomicU32::default).take(texts.len()).collect();
        self.messages(&texts, &seen)?;
        self.deleted_messages(&texts, &seen)?;
        for (text, seen) in texts.iter().zip(seen) {
            let (text, seen) = (text, seen.into_inner());
            let id = text.id;
            if seen == 0 {
                self.report.find(format!("no message has text {id}"));
            } else if text.references != seen {
                let references = text.references;
                self.report.find(format!("text {id} counts {references} messages, but {seen} have it"));
            }
        }
        self.texts = texts;
        Ok(())
    }

    /// Deleted messages that can come back reference texts, too.
    fn deleted_messages(&mut self, texts: &[SeenText], seen: &[AtomicU32]) -> Result<(), Fault> {
        let mut found = Vec::new();
        let each = |message: &MessageRow, name: &str| {
            let Ok(index) = texts.binary_search_by_key(&message.text, |text| text.id) else {
                found.push(format!("{name} has no text"));
                return;
            };
            count_reference(&seen[index]);
            if texts[index].is_of_another_length(message) {
                found.push(format!("the size of {name} is wrong"));
            }
        };
        deleted::deleted_messages(self.snapshot, each, |what| self.report.find(what))?;
        found.into_iter().for_each(|what| self.report.find(what));
        Ok(())
    }

    /// The texts with readable rows, in order of id.
    fn texts(&mut self) -> Result<Vec<SeenText>, Fault> {
        let table = self.snapshot.table(TEXTS)?;
        let file_octets = self.snapshot.container().usage()?.file_octets;
        let expected = redb::ReadableTableMetadata::len(&table)?.min(TEXTS_EXPECTED_MAX);
        let mut texts: Vec<SeenText> = Vec::with_capacity(expected as usize);
        self.progress.begin(Stage::ReadingTexts, self.stored.text_octets);
        let reading = Reading { source: self.snapshot.container(), copy: None, progress: self.progress };
        let mut stuffed = Vec::new();
        let mut not_whole = Vec::new();
        let (report, next_text) = (&mut self.report, self.stored.next_text);
        let list = |read: &mut dyn FnMut(TextToRead) -> Result<(), Fault>| {
            for row in table.iter()? {
                let (id, row) = row?;
                let id = id.value();
                report.texts += 1;
                let Ok(row) = TextRow::from_row(row.value()) else {
                    report.find(format!("the row of text {id} cannot be read"));
                    continue;
                };
                let TextRow { hash, at, wire_octets, .. } = row;
                if id >= next_text {
                    report.find(format!("text {id} has an id that was never given out"));
                }
                let references = row.references.min(u32::MAX.into()) as u32;
                let is_outside = at.checked_add(wire_octets).is_none_or(|end| end > file_octets);
                let content_octets = if is_outside { None } else { Some(wire_octets) };
                let index = texts.len();
                texts.push(SeenText { id, at, wire_octets, content_octets, references });
                if is_outside {
                    report.find(format!("text {id} lies outside of the file"));
                } else {
                    report.text_octets += wire_octets;
                    read(TextToRead { index, hash, at, wire_octets, to: None })?;
                }
            }
            Ok(())
        };
        reading.run(list, |text, found| match found {
            Found::Whole { content_octets } if content_octets == text.wire_octets => {}
            Found::Whole { content_octets } => stuffed.push((text.index, content_octets)),
            Found::Changed => not_whole.push((text.index, "has changed since it was stored".to_owned())),
            Found::Unreadable(why) => not_whole.push((text.index, format!("cannot be read: {why}"))),
        })?;
        for (index, content_octets) in stuffed {
            texts[index].content_octets = Some(content_octets);
        }
        not_whole.sort_unstable();
        for (index, why) in not_whole {
            let text = &mut texts[index];
            text.content_octets = None;
            self.report.text_octets -= text.wire_octets;
            self.report.find(format!("text {} {why}", text.id));
        }
        Ok(texts)
    }

    fn counts(&mut self) -> Result<(), Fault> {
        let mut expected: BTreeMap<OwnerId, Counts> = BTreeMap::new();
        let mut whole = StoreRow { domains: self.report.domains, ..StoreRow::default() };
        for (id, owner) in &self.owners {
            let of_it = expected.entry(*id).or_default();
            of_it.messages += owner.seen.messages;
            of_it.octets = of_it.octets.saturating_add(owner.seen.octets);
            of_it.octets_without_utf8 =
                of_it.octets_without_utf8.saturating_add(owner.seen.octets_without_utf8);
            if let Some(domain) = owner.domain.filter(|domain| *domain != REMOVED) {
                let of_domain = expected.entry(domain.into()).or_default();
                of_domain.messages += owner.seen.messages;
                of_domain.octets = of_domain.octets.saturating_add(owner.seen.octets);
                of_domain.octets_without_utf8 =
                    of_domain.octets_without_utf8.saturating_add(owner.seen.octets_without_utf8);
                of_domain.mailboxes += 1;
                whole.mailboxes += 1;
                whole.messages += owner.seen.messages;
                whole.octets = whole.octets.saturating_add(owner.seen.octets);
            }
        }
        for (id, owner) in &self.owners {
            let Some(stored) = owner.stored else { continue };
            let right = Counts { next_sequence: stored.next_sequence, ..expected[id] };
            if stored != right {
                self.report.find(format!(
                    "{} counts {} messages and {} octets but has {} and {}",
                    owner.name, stored.messages, stored.octets, right.messages, right.octets
                ));
            }
        }
        for row in self.snapshot.table(COUNTS)?.iter()? {
            let id = row?.0.value();
            if !self.owners.contains_key(&id) {
                self.report.find(format!("there are counts of an id ({id}) that does not exist"));
            }
        }
        let stored = self.stored;
        let StoreRow { domains, mailboxes, messages, octets, .. } = whole;
        whole = StoreRow { domains, mailboxes, messages, octets, ..stored };
        if stored != whole {
            self.report
                .find(format!("the counts of the whole store are {stored:?}, but should be {whole:?}"));
        }
        Ok(())
    }

    /// The usage of each account must be the sum of its mailboxes.
    fn quotas(&mut self) -> Result<(), Fault> {
        let mut right: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for row in self.snapshot.table(MAILBOXES)?.iter()? {
            let Ok(row) = MailboxRow::from_row(row?.1.value()) else { continue };
            if let (Some(account), Some(owner)) = (row.quota, self.owners.get(&row.id.into())) {
                let (used, mailboxes) = right.entry(account).or_default();
                *used = used.saturating_add(owner.seen.octets);
                *mailboxes += 1;
            }
        }
        for row in self.snapshot.table(QUOTAS)?.iter()? {
            let (account, row) = row?;
            let account = account.value();
            let Some((used, mailboxes)) = right.remove(account) else {
                self.report.find(format!("nothing counts against the quota of {account}"));
                continue;
            };
            match QuotaRow::from_row(row.value()) {
                Ok(quota) if (quota.used, quota.mailboxes) == (used, mailboxes) => {}
                Ok(quota) => self.report.find(format!(
                    "the quota of {account} counts {} octets of {} mailboxes, but should count {used} of {mailboxes}",
                    quota.used, quota.mailboxes
                )),
                Err(_) => self.report.find(format!("the quota of {account} cannot be read")),
            }
        }
        for account in right.into_keys() {
            self.report.find(format!("the quota of {account}, against which mailboxes count, is missing"));
        }
        Ok(())
    }

    /// Every octet of a blob extent must belong to one text or one free run, and no blob extent to the index.
    fn space(&mut self) -> Result<(), Fault> {
        let texts = std::mem::take(&mut self.texts);
        let text_octets: u128 = texts.iter().map(|text| u128::from(text.wire_octets)).sum();
        // Offsets and lengths. Those of damaged rows are cut to what can be added without overflow.
        let footprint = |octets: u64| octets.max(1).checked_next_multiple_of(BLOB_ALIGN).unwrap_or(u64::MAX);
        let mut owned: Vec<(u64, u64)> =
            texts.into_iter().map(|text| (text.at, footprint(text.wire_octets))).collect();
        if text_octets != u128::from(self.stored.text_octets) {
            self.report.find("the total length of the texts is counted wrong".to_owned());
        }
        for row in self.snapshot.table(FREE)?.iter()? {
            let (at, len) = row?;
            owned.push((at.value(), len.value()));
        }
        owned.sort_unstable();
        for pair in owned.windows(2) {
            if pair[0].0.saturating_add(pair[0].1) > pair[1].0 {
                self.report.find(format!("the octets at {} have two owners", pair[1].0));
            }
        }
        let index_extents: HashSet<Extent> = self.snapshot.container().index_extents().into_iter().collect();
        let mut blob_extents = Vec::new();
        for row in self.snapshot.table(BLOB_EXTENTS)?.iter()? {
            blob_extents.push(row?.0.value());
        }
        if blob_extents.iter().any(|extent| index_extents.contains(extent)) {
            self.report.find("a part of the file belongs to the index and to texts".to_owned());
        }
        let inside = |at: u64| {
            let extent = Extent::holding(at);
            extent.is_some_and(|extent| blob_extents.binary_search(&extent).is_ok())
        };
        let is_misplaced = |&(at, len): &(u64, u64)| {
            len == 0 || at % BLOB_ALIGN != 0 || !inside(at) || !inside(at.saturating_add(len - 1))
        };
        if owned.iter().any(is_misplaced) {
            self.report.find("a text or free run lies outside of the space for texts".to_owned());
        }
        let sum: u128 = owned.iter().map(|(_, len)| u128::from(*len)).sum();
        let space = blob_extents.len() as u128 * u128::from(EXTENT);
        if sum != space {
            self.report.find(format!("the space for texts is {space} octets, and {sum} are accounted for"));
        }
        Ok(())
    }
}

/// For a mailbox without a domain. No domain has this id: ids start at 1.
const NO_DOMAIN: DomainId = DomainId(OwnerId(0));

/// For a deleted mailbox, which counts for no domain. This id is never given out.
const REMOVED: DomainId = DomainId(OwnerId(u32::MAX));

/// A text in little memory: there may be many millions.
struct SeenText {
    id: TextId,
    at: u64,
    wire_octets: u64,
    /// `None` if the text does not match its hash.
    content_octets: Option<u64>,
    /// Saturates; a higher count is wrong anyway.
    references: u32,
}

impl SeenText {
    /// True if the size in a message row does not fit this text. False if the text is damaged, so that nothing
    /// is known.
    fn is_of_another_length(&self, row: &MessageRow) -> bool {
        self.content_octets.is_some_and(|octets| row.octets != octets + row.prefix.len() as u64)
    }
}

/// Counts one more message, saturating: the text's row cannot say that many.
fn count_reference(seen: &AtomicU32) {
    let _ = seen.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seen| seen.checked_add(1));
}
