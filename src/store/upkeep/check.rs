//! Verifying a store: every row, every text, every count, and that every octet has one owner.
//!
//! It works on one snapshot, so a store can be checked while it is being served. Memory is bounded: the texts are gone
//! through in parts.

use crate::address::{Address, Domain};
use crate::store::file::disk::{DataFile, Disk};
use crate::store::file::format::BLOB_ALIGN;
use crate::store::file::format::{EXTENT, Extent};
use crate::store::index::contained;
use crate::store::index::rows::{
    Counts, DomainRow, MailboxRow, MessageRow, QuotaRow, Row, StoreRow, TextRow,
};
use crate::store::index::tables::{
    self, BLOB_EXTENTS, COUNTS, DOMAINS, FREE, MAILBOXES, MESSAGES, QUOTAS, TEXTS,
};
use crate::store::index::types::{DomainId, MailboxId, OwnerId};
use crate::store::index::{Fault, Read};
use crate::store::open::{OpenError, OpenErrorKind, Snapshot, Store, Trust};
use crate::wire;
use redb::ReadableTable;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// Findings that are kept; more are counted.
const FINDINGS_MAX: usize = 200;
/// Texts looked at in one pass over the messages.
const TEXTS_A_PASS: u64 = 500_000;

/// What a check saw and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    pub domains: u64,
    pub mailboxes: u64,
    pub messages: u64,
    pub texts: u64,
    /// Octets of texts that were read and compared with their names.
    pub text_octets: u64,
    /// Sentences, the first two hundred.
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
    /// Checks a store that nobody serves. What can be read is checked even where the store does not open. The file is not
    /// changed.
    pub fn check_file(path: &Path) -> Result<CheckReport, OpenError> {
        let disk = DataFile::open_to_read(path).map_err(|e| OpenErrorKind::from(e).at(path))?;
        Self::check_disk(Arc::new(disk)).map_err(|kind| kind.at(path))
    }

    pub(in crate::store) fn check_disk(disk: Arc<dyn Disk>) -> Result<CheckReport, OpenErrorKind> {
        let checked =
            |trust| Self::open_to_check_on(disk.clone(), trust).and_then(|store| Ok(store.check()?));
        match checked(Trust::Verified) {
            // A copy may not say that it is one: somebody has put it in the place of the file that it was made of.
            Err(kind) if kind.is_of_damage() => match checked(Trust::Copy) {
                Err(kind) if kind.is_of_damage() => Self::check_damaged_on(disk),
                checked => checked,
            },
            checked => checked,
        }
    }

    /// Verifies the whole store as of now. Takes as long as reading it; not for the executor. The checksums of the
    /// index's own pages are compared by [`Store::check_file`].
    pub fn check(&self) -> Result<CheckReport, Fault> {
        let (_pin, snapshot) = self.read_at_checkpoint().wait()?;
        contained::read(|| Check::of(&snapshot))
    }
}

struct Check<'a> {
    snapshot: &'a Snapshot,
    /// What the store counts of itself.
    stored: StoreRow,
    report: CheckReport,
    /// Mailboxes by id: name, the id of the domain, and what was counted.
    owners: BTreeMap<OwnerId, Owner>,
}

struct Owner {
    name: String,
    domain: Option<DomainId>,
    /// As its row has them; none where there is no such row, or it cannot be read.
    stored: Option<Counts>,
    seen: Counts,
}

impl<'a> Check<'a> {
    fn of(snapshot: &'a Snapshot) -> Result<CheckReport, Fault> {
        let stored = match snapshot.totals() {
            Ok(totals) => Some(totals),
            Err(Fault::Damaged(_)) => None,
            Err(fault) => return Err(fault),
        };
        let mut check = Check {
            snapshot,
            stored: stored.unwrap_or_default(),
            report: CheckReport::default(),
            owners: BTreeMap::new(),
        };
        if stored.is_none() {
            check.report.find("the row that counts the whole store is missing, or cannot be read".to_owned());
        }
        check.directory()?;
        check.messages_and_texts()?;
        check.counts()?;
        check.quotas()?;
        check.space()?;
        check.other_tables()?;
        Ok(check.report)
    }

    /// The tables that nothing else here goes through have rows that can be read.
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
                self.report.find(format!("\"{name}\" is listed as a domain and is not a domain name"));
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
                self.report.find(format!("\"{name}\" is listed as a mailbox and is not an address"));
            }
            match MailboxRow::from_row(row.value()) {
                Ok(row) => self.add_owner(name, row.id.into(), domain.or(Some(NO_DOMAIN)))?,
                Err(_) => self.report.find(format!("the row of mailbox {name} cannot be read")),
            }
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
            self.report.find(format!("the counts of {name} are missing, or cannot be read"));
        }
        let owner = Owner { name: name.clone(), domain, stored, seen: Counts::default() };
        if let Some(other) = self.owners.insert(id, owner) {
            self.report.find(format!("{name} and {} have the same id", other.name));
        }
        Ok(())
    }

    /// Goes through the texts in parts of bounded size; the messages are counted on the first pass.
    fn messages_and_texts(&mut self) -> Result<(), Fault> {
        let texts = redb::ReadableTableMetadata::len(&self.snapshot.table(TEXTS)?)?;
        let parts = texts.div_ceil(TEXTS_A_PASS).clamp(1, 256) as u32;
        for part in 0..parts {
            // The first octet of a name says which part it belongs to.
            let first = (part * 256 / parts) as u8;
            let last = ((part + 1) * 256 / parts - 1) as u8;
            let mut seen = self.texts_of_part(first, last)?;
            self.messages_of_part(first, last, part == 0, &mut seen)?;
            for (name, text) in seen {
                if text.references_seen == 0 {
                    self.report.find(format!("no message has the text {}", blake3::Hash::from(name)));
                } else if text.references != text.references_seen {
                    self.report.find(format!(
                        "text {} counts {} messages and {} have it",
                        blake3::Hash::from(name),
                        text.references,
                        text.references_seen
                    ));
                }
            }
        }
        Ok(())
    }

    fn texts_of_part(&mut self, first: u8, last: u8) -> Result<HashMap<[u8; 32], SeenText>, Fault> {
        let mut seen = HashMap::new();
        for row in self.snapshot.table(TEXTS)?.range(part_range(first, last))? {
            let (name, row) = row?;
            let name = name.value();
            self.report.texts += 1;
            let Ok(row) = TextRow::from_row(row.value()) else {
                self.report.find(format!("the row of text {} cannot be read", blake3::Hash::from(name)));
                continue;
            };
            let octets = self.read_text(&name, &row);
            seen.insert(name, SeenText { octets, references: row.references, references_seen: 0 });
        }
        Ok(seen)
    }

    /// The content's length, or none where the text is not what its name says.
    fn read_text(&mut self, name: &[u8; 32], row: &TextRow) -> Option<u64> {
        let hash = blake3::Hash::from(*name);
        let file = self.snapshot.container().usage().map(|usage| usage.file_octets).unwrap_or(0);
        if row.at.checked_add(row.wire_octets).is_none_or(|end| end > file) {
            self.report.find(format!("text {hash} lies outside of the file"));
            return None;
        }
        let mut text = Vec::new();
        if text.try_reserve_exact(row.wire_octets as usize).is_err() {
            self.report.find(format!("text {hash} is too long to be read"));
            return None;
        }
        text.resize(row.wire_octets as usize, 0);
        if let Err(e) = self.snapshot.container().read_blob(row.at, &mut text) {
            self.report.find(format!("text {hash} cannot be read: {e}"));
            return None;
        }
        if blake3::hash(&text) != hash {
            self.report.find(format!("text {hash} has changed since it was stored"));
            return None;
        }
        self.report.text_octets += row.wire_octets;
        Some(wire::unstuff(&text).len() as u64)
    }

    fn messages_of_part(
        &mut self,
        first: u8,
        last: u8,
        count: bool,
        seen: &mut HashMap<[u8; 32], SeenText>,
    ) -> Result<(), Fault> {
        for row in self.snapshot.table(MESSAGES)?.iter()? {
            let (key, row) = row?;
            let (mailbox, sequence) = key.value();
            let Ok(row) = MessageRow::from_row(row.value()) else {
                if count {
                    self.report.find(format!(
                        "the row of message {sequence} of mailbox id {mailbox} cannot be read"
                    ));
                }
                continue;
            };
            if count {
                self.count_message(mailbox, sequence, &row);
            }
            if !(first..=last).contains(&row.text[0]) {
                continue;
            }
            let Some(text) = seen.get_mut(&row.text) else {
                self.report.find(format!("message {sequence} of {} has no text", self.name_of(mailbox)));
                continue;
            };
            text.references_seen += 1;
            if let Some(octets) = text.octets
                && row.octets != octets + row.prefix.len() as u64
            {
                self.report
                    .find(format!("the size of message {sequence} of {} is wrong", self.name_of(mailbox)));
            }
        }
        Ok(())
    }

    fn count_message(&mut self, mailbox: MailboxId, sequence: u64, row: &MessageRow) {
        self.report.messages += 1;
        let Some(owner) = self.owners.get_mut(&mailbox.into()).filter(|owner| owner.domain.is_some()) else {
            self.report.find(format!("message {sequence} belongs to no mailbox (id {mailbox})"));
            return;
        };
        owner.seen.messages += 1;
        owner.seen.octets = owner.seen.octets.saturating_add(row.octets);
        owner.seen.octets_without_utf8 =
            owner.seen.octets_without_utf8.saturating_add(row.octets_without_utf8());
        if owner.stored.is_some_and(|stored| sequence >= stored.next_sequence) {
            let name = owner.name.clone();
            self.report.find(format!("message {sequence} of {name} has a number that was never given out"));
        }
    }

    fn name_of(&self, mailbox: MailboxId) -> &str {
        self.owners.get(&mailbox.into()).map_or("a mailbox that does not exist", |owner| &owner.name)
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
            if let Some(domain) = owner.domain {
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
                    "{} is counted as {} messages and {} octets, and has {} and {}",
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
                .find(format!("the counts of the whole store are {stored:?}, and should be {whole:?}"));
        }
        Ok(())
    }

    /// What accounts have used is what their mailboxes hold.
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
                    "the quota of {account} has {} octets of {} mailboxes used, and it should be {used} of {mailboxes}",
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

    /// Every octet of a blob extent belongs to one text or one free run, and no blob extent is the index's.
    fn space(&mut self) -> Result<(), Fault> {
        // Beginnings and lengths; sums of them are taken in more bits than a damaged row has.
        let mut owned: Vec<(u128, u128)> = Vec::new();
        let mut text_octets = 0;
        for row in self.snapshot.table(TEXTS)?.iter()? {
            if let Ok(row) = TextRow::from_row(row?.1.value()) {
                let len = u128::from(row.wire_octets.max(1)).next_multiple_of(u128::from(BLOB_ALIGN));
                owned.push((row.at.into(), len));
                text_octets += u128::from(row.wire_octets);
            }
        }
        if text_octets != u128::from(self.stored.text_octets) {
            self.report.find("the texts are not as long together as is counted".to_owned());
        }
        for row in self.snapshot.table(FREE)?.iter()? {
            let (at, len) = row?;
            owned.push((at.value().into(), len.value().into()));
        }
        owned.sort_unstable();
        for pair in owned.windows(2) {
            if pair[0].0 + pair[0].1 > pair[1].0 {
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
        let inside = |at: u128| {
            let extent = u64::try_from(at).ok().and_then(Extent::holding);
            extent.is_some_and(|extent| blob_extents.binary_search(&extent).is_ok())
        };
        let is_misplaced = |&(at, len): &(u128, u128)| {
            len == 0 || at % u128::from(BLOB_ALIGN) != 0 || !inside(at) || !inside(at + len - 1)
        };
        if owned.iter().any(is_misplaced) {
            self.report.find("a text or free run lies outside of the space for texts".to_owned());
        }
        let sum: u128 = owned.iter().map(|(_, len)| len).sum();
        let space = blob_extents.len() as u128 * u128::from(EXTENT);
        if sum != space {
            self.report.find(format!("the space for texts is {space} octets, and {sum} are accounted for"));
        }
        Ok(())
    }
}

/// Of a mailbox whose domain is gone: no domain has it, since ids begin with 1.
const NO_DOMAIN: DomainId = DomainId(OwnerId(0));

struct SeenText {
    octets: Option<u64>,
    references: u64,
    references_seen: u64,
}

fn part_range(first: u8, last: u8) -> std::ops::RangeInclusive<[u8; 32]> {
    let mut low = [0; 32];
    low[0] = first;
    let mut high = [0xff; 32];
    high[0] = last;
    low..=high
}
