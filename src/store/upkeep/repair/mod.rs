//! Repairs a damaged store and reports what was lost.
//!
//! It works on a file that is not in use, in one transaction: an interrupted repair has not happened. It trusts
//! what has a checksum: the index's pages (verified when the file is opened) and the texts, which are named by
//! their hashes. Everything else follows from them:
//!
//! - Domains and mailboxes with readable rows are kept; the others are recreated. Messages whose mailbox is gone get
//!   one under the name in their Delivered-To field. No password opens it until the administrator sets one.
//! - A message whose text is gone is lost. A text that has changed is kept under its present hash, because a
//!   damaged message is worth more than none; unless its octets belong to another text or the index.
//! - Sizes, references, counts, next ids and the lists of free space are computed.

mod directory;
mod messages;
mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use redb::ReadableTable;

use crate::address::Address;
use crate::store::file::container::Container;
use crate::store::file::disk::Disk;
use crate::store::file::log_zone;
use crate::store::file::resync::Resync;
use crate::store::file::space::{Pins, Space};
use crate::store::index::contained::{self, Leaky};
use crate::store::index::rows::{Counts, QuotaRow, Row, StoreRow};
use crate::store::index::tables::Tables;
use crate::store::index::types::{DomainId, MailboxId, OwnerId, TextId, UnixTime};
use crate::store::index::{Fault, IndexSnapshot, Read};
use crate::store::open::recovery::LogFound;
use crate::store::open::{OpenError, OpenErrorKind, Store, Trust, open_database};
use crate::store::start::lock_file;
use crate::store::upkeep::HAVE_RULES;
use crate::store::upkeep::foreign_ids;
use crate::store::upkeep::progress::{Progress, Stage};
use crate::store::writer::PACE;

/// Sentences kept; further ones are only counted.
const REPAIRED_MAX: usize = 200;

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Sentences; the first 200.
    pub repaired: Vec<String>,
    pub repaired_total: u64,
    /// Every message that is gone.
    pub lost: Vec<LostMessage>,
}

/// A message that could not be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostMessage {
    pub mailbox: String,
    /// Its number in the mailbox, which is part of its UIDL.
    pub sequence: u64,
    /// When it was received and its size as announced by LIST, if its row was readable.
    pub received_octets: Option<(UnixTime, u64)>,
}

impl RepairReport {
    pub(in crate::store) fn note(&mut self, what: String) {
        self.repaired_total += 1;
        if self.repaired.len() < REPAIRED_MAX {
            self.repaired.push(what);
        }
    }
}

impl Store {
    /// Repairs the store in a data file that nobody has open. Reads all of it, and needs memory for the row of
    /// every text. If the index cannot be read in full, whatever can be read is saved into a new file that
    /// replaces the damaged one.
    pub fn repair(path: &Path, now: UnixTime, progress: &Progress) -> Result<RepairReport, OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(lock_file(path, false)?);
        let repaired = match Self::repair_telling(disk.clone(), now, progress) {
            Err(kind) if kind.is_of_damage() => Self::salvage(path, disk, now, progress),
            repaired => repaired,
        };
        repaired.map_err(|kind| kind.at(path))
    }

    #[cfg(test)]
    pub(in crate::store) fn repair_on(
        disk: Arc<dyn Disk>,
        now: UnixTime,
    ) -> Result<RepairReport, OpenErrorKind> {
        Self::repair_telling(disk, now, &Progress::default())
    }

    pub(in crate::store) fn repair_telling(
        disk: Arc<dyn Disk>,
        now: UnixTime,
        progress: &Progress,
    ) -> Result<RepairReport, OpenErrorKind> {
        match Self::repair_as(disk.clone(), now, Trust::Verified, progress) {
            Err(kind) if kind.is_of_damage() => Self::repair_as(disk, now, Trust::Copy, progress),
            repaired => repaired,
        }
    }

    fn repair_as(
        disk: Arc<dyn Disk>,
        now: UnixTime,
        trust: Trust,
        progress: &Progress,
    ) -> Result<RepairReport, OpenErrorKind> {
        progress.begin(Stage::VerifyingIndex, 0);
        let repairing = || {
            // We do not know yet who owns which extent. As none is adopted, only new ones are handed out.
            let container = Container::open(Arc::new(Resync::new(disk)))?;
            if trust == Trust::Copy {
                container.take_for_a_copy();
            }
            let log = match LogFound::read(&container) {
                // No damage: the log may be readable later, or in a copy of the file.
                Err(kind) if !kind.is_of_damage() => return Err(kind),
                log => log,
            };
            let database = Leaky::new(open_database(&container, true)?);
            let mut report = RepairReport::default();
            match (log, IndexSnapshot::begin(&database)?.totals()) {
                (_, Err(fault)) if !matches!(fault, Fault::Damaged(_)) => return Err(fault.into()),
                (Ok(log), Ok(totals)) => {
                    if log.has_gap(&container, &totals)? && !container.is_copy() {
                        report.note(
                            "the log was damaged: the last changes, of a second or so, are lost".to_owned(),
                        );
                    }
                    log.make_part_of_the_index(&database, &container, &totals)?;
                }
                (Err(_), _) => report.note("the log was damaged: what it had is lost".to_owned()),
                (Ok(log), Err(_)) if log.is_empty() => {}
                // The row is rebuilt below, but nobody knows which logged changes the index lacks.
                (Ok(_), Err(_)) => report.note(
                    "the log could not be used: the last changes, of a second or so, may be lost".to_owned(),
                ),
            }
            let before = IndexSnapshot::begin(&database)?;
            let mut transaction = Leaky::new(database.begin_write().map_err(Fault::from)?);
            transaction.set_quick_repair(true);
            let report = {
                let tables = Tables::open_unlogged(&transaction)?;
                let (space, ids) = (Space::empty(Pins::default()), BTreeSet::new());
                let container = &*container;
                let repair = Repair { before: &before, tables, container, space, ids, now, report, progress };
                container.reading_index_ahead(|| repair.run())?
            };
            drop(before);
            transaction.into_inner().commit().map_err(Fault::from)?;
            if container.is_copy() {
                container.adopt_identity().map_err(OpenErrorKind::Io)?;
            }
            database.into_inner().close()?;
            Ok(report)
        };
        contained::change(repairing).unwrap_or_else(|panicked| Err(panicked.0.into()))
    }
}

struct Repair<'a, 'txn> {
    /// The state to repair, for several threads to read.
    before: &'a IndexSnapshot,
    tables: Tables<'txn>,
    container: &'a Container,
    /// Hands out new extents only.
    space: Space,
    /// Ids in use.
    ids: BTreeSet<OwnerId>,
    now: UnixTime,
    report: RepairReport,
    progress: &'a Progress,
}

/// A mailbox that is kept, with its counts.
struct KeptMailbox {
    address: Address,
    counts: Counts,
    /// The account it counts against.
    quota: Option<String>,
    /// True for a deleted mailbox, which counts towards nothing else.
    is_removed: bool,
}

type KeptMailboxes = BTreeMap<MailboxId, KeptMailbox>;
/// Ids of domains by name.
type Domains = BTreeMap<String, DomainId>;

impl Repair<'_, '_> {
    fn run(mut self) -> Result<RepairReport, Fault> {
        let (domains, mut owners) = self.directory()?;
        let mut texts = self.texts()?;
        let foreign_ids = self.messages(&mut owners, &mut texts)?;
        self.deleted_messages(&mut texts)?;
        foreign_ids::repair(&mut self.tables, foreign_ids, |what| self.report.note(what))?;
        let text_octets = self.references(&texts)?;
        self.counts(&domains, &owners, text_octets)?;
        self.quotas(&owners)?;
        self.space(&texts)?;
        for (table, count) in self.tables.remove_unreadable(&HAVE_RULES)? {
            self.report
                .note(format!("{count} rows of the table \"{table}\" were malformed and have been removed"));
        }
        Ok(self.report)
    }

    /// The store's own counts; zeros if that row is unreadable.
    fn stored_totals(&self) -> Result<StoreRow, Fault> {
        let row = self.tables.store.get(())?;
        Ok(row.and_then(|row| StoreRow::from_row(row.value()).ok()).unwrap_or_default())
    }

    fn counts(&mut self, domains: &Domains, owners: &KeptMailboxes, text_octets: u64) -> Result<(), Fault> {
        let stored = self.stored_totals()?;
        let mut whole = StoreRow {
            domains: domains.len() as u64,
            mailboxes: owners.values().filter(|owner| !owner.is_removed).count() as u64,
            text_octets,
            commits: stored.commits,
            epoch: stored.epoch,
            // The zone of an older store may be shorter. What lies behind it reads as zeros.
            log_octets: stored.log_octets.max(PACE.log_octets),
            key: stored.key,
            ..StoreRow::default()
        };
        let mut right: BTreeMap<OwnerId, Counts> =
            domains.values().map(|id| (OwnerId::from(*id), Counts::default())).collect();
        for (id, owner) in owners {
            if !owner.is_removed {
                let of_domain = right.entry(domains[owner.address.domain.as_str()].into()).or_default();
                of_domain.mailboxes += 1;
                of_domain.messages += owner.counts.messages;
                of_domain.octets += owner.counts.octets;
                of_domain.octets_without_utf8 += owner.counts.octets_without_utf8;
                whole.messages += owner.counts.messages;
                whole.octets += owner.counts.octets;
            }
            let before = self
                .tables
                .counts
                .get(OwnerId::from(*id))?
                .and_then(|row| Counts::from_row(row.value()).ok());
            let next_sequence =
                before.map_or(1, |counts| counts.next_sequence).max(owner.counts.next_sequence);
            right.insert((*id).into(), Counts { next_sequence, ..owner.counts });
        }
        let stored_counts = rows_of(self.tables.counts.open()?, |id| id)?;
        for (id, _) in stored_counts.iter().filter(|(id, _)| !right.contains_key(id)) {
            self.report.note(format!("counts of an id ({id}) that does not exist were removed"));
            self.tables.counts.remove(id)?;
        }
        let stored_counts: BTreeMap<OwnerId, Vec<u8>> = stored_counts.into_iter().collect();
        for (id, counts) in &right {
            let row = counts.to_row();
            if stored_counts.get(id) != Some(&row) {
                let Counts { messages, octets, .. } = counts;
                self.report.note(format!("id {id} now counts {messages} messages and {octets} octets"));
                self.tables.counts.insert(id, &row[..])?;
            }
        }
        let last_text = self.tables.texts.last()?.map(|(id, _)| id.value());
        let after_last = last_text.map_or(TextId(0), |id| id.next().unwrap_or(id));
        whole.next_text = stored.next_text.max(after_last);
        whole.next_id =
            stored.next_id.max(right.keys().next_back().map_or(OwnerId(1), |id| id.next().unwrap_or(*id)));
        if whole != stored {
            self.report.note("the counts of the whole store were recomputed".to_owned());
        }
        whole.commits = stored.commits.saturating_add(1);
        whole.epoch = log_zone::new_epoch()?;
        self.tables.store.insert((), &whole.to_row()[..])?;
        Ok(())
    }
}

impl Repair<'_, '_> {
    /// Computes the usage of accounts from their mailboxes. Readable limits stay.
    fn quotas(&mut self, owners: &KeptMailboxes) -> Result<(), Fault> {
        let stored: BTreeMap<String, Vec<u8>> =
            rows_of(self.tables.quotas.open()?, |account| account.to_owned())?.into_iter().collect();
        let mut right: BTreeMap<&str, QuotaRow> = BTreeMap::new();
        for owner in owners.values() {
            let Some(account) = &owner.quota else { continue };
            let limit = stored.get(account).and_then(|row| QuotaRow::from_row(row).ok()?.limit);
            let quota = right.entry(account).or_insert(QuotaRow { limit, ..QuotaRow::default() });
            quota.used = quota.used.saturating_add(owner.counts.octets);
            quota.mailboxes += 1;
        }
        for account in stored.keys().filter(|account| !right.contains_key(account.as_str())) {
            self.report.note(format!("the quota of {account} was removed: no mailbox counts against it"));
            self.tables.quotas.remove(account.as_str())?;
        }
        for (account, quota) in right {
            let row = quota.to_row();
            if stored.get(account) != Some(&row) {
                self.report.note(format!("the quota of {account} now has {} octets used", quota.used));
                self.tables.quotas.insert(account, &row[..])?;
            }
        }
        Ok(())
    }
}

/// The rows of a table that will be changed while they are gone through.
fn rows_of<K: redb::Key + 'static, T>(
    table: &impl ReadableTable<K, &'static [u8]>,
    key_of: impl for<'k> Fn(K::SelfType<'k>) -> T,
) -> Result<Vec<(T, Vec<u8>)>, Fault> {
    let mut rows = Vec::new();
    for row in table.iter()? {
        let (key, row) = row?;
        rows.push((key_of(key.value()), row.value().to_vec()));
    }
    Ok(rows)
}
