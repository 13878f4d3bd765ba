//! Consistent views of the index, and the transaction that changes it.
//!
//! Counts change in the same transaction as what they count: no moment and no crash separates them.

use std::collections::HashMap;

use redb::{ReadableTable, TableDefinition};

use super::contained;
use super::rows::{
    CertificateRow, Counts, DomainRow, MailboxRow, MessageRow, QuotaRow, Row, StoreRow, TextRow,
};
use super::tables::{
    CERTIFICATE, COUNTS, DOMAINS, MAILBOXES, MESSAGES, QUOTAS, SETTINGS, STORE, TEXTS, Tables,
};
use super::types::{MailboxId, OwnerId, TextId};
use super::{Fault, RecentTexts, RemovedNames};
use crate::address::{Address, Domain, LocalPart};
use crate::store::file::container::Container;
use crate::store::file::log_zone::Epoch;
use crate::store::file::space::Space;

/// A consistent view of the index as of one commit. Keep it short: while it exists, redb cannot reuse a page.
pub struct IndexSnapshot {
    /// `None` once it is being dropped.
    transaction: Option<redb::ReadTransaction>,
}

/// Questions to a snapshot, or to a transaction, which sees its own changes.
pub trait Read {
    fn setting(&self, key: &str) -> Result<Option<String>, Fault>;
    fn settings(&self) -> Result<Vec<(String, String)>, Fault>;
    fn domain(&self, domain: &Domain) -> Result<Option<DomainRow>, Fault>;
    fn domains(&self) -> Result<Vec<(Domain, DomainRow)>, Fault>;
    fn mailbox(&self, address: &Address) -> Result<Option<MailboxRow>, Fault>;
    /// The address of the mailbox, if it exists, that gets mail for this one: `user+detail@` if a mailbox has that very
    /// name, otherwise `user@` (RFC 5233 section 1).
    fn receiving(&self, address: &Address) -> Result<Address, Fault> {
        let plain = address.without_detail();
        let is_name = plain != *address && self.mailbox(address)?.is_some();
        Ok(if is_name { address.clone() } else { plain })
    }
    /// The mailboxes of a domain, ordered by name.
    fn mailboxes(&self, domain: &Domain) -> Result<Vec<(LocalPart, MailboxRow)>, Fault>;
    /// Counts of a mailbox or domain.
    fn counts(&self, id: impl Into<OwnerId>) -> Result<Counts, Fault>;
    fn quota(&self, account: &str) -> Result<Option<QuotaRow>, Fault>;
    fn message(&self, mailbox: MailboxId, sequence: u64) -> Result<Option<MessageRow>, Fault>;
    fn text(&self, id: TextId) -> Result<Option<TextRow>, Fault>;
    fn certificate(&self) -> Result<Option<CertificateRow>, Fault>;
    fn totals(&self) -> Result<StoreRow, Fault>;
}

fn get_row<R: Row>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<R>, Fault> {
    Ok(table.get(key)?.map(|row| R::from_row(row.value())).transpose()?)
}

fn every_setting(
    table: &impl ReadableTable<&'static str, &'static str>,
) -> Result<Vec<(String, String)>, Fault> {
    let mut all = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        all.push((key.value().to_owned(), value.value().to_owned()));
    }
    Ok(all)
}

fn every_domain(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Vec<(Domain, DomainRow)>, Fault> {
    let mut all = Vec::new();
    for row in table.iter()? {
        let (name, row) = row?;
        let name = name.value().parse().map_err(|_| Fault::damaged("a domain's name is malformed"))?;
        all.push((name, DomainRow::from_row(row.value())?));
    }
    Ok(all)
}

fn mailboxes_of(
    table: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    domain: &Domain,
) -> Result<Vec<(LocalPart, MailboxRow)>, Fault> {
    let mut all = Vec::new();
    for row in table.range((domain.as_str(), "")..)? {
        let (key, row) = row?;
        let (of, name) = key.value();
        if of != domain.as_str() {
            break;
        }
        let name = name.parse().map_err(|_| Fault::damaged("a mailbox's name is malformed"))?;
        all.push((name, MailboxRow::from_row(row.value())?));
    }
    Ok(all)
}

impl IndexSnapshot {
    pub fn begin(database: &redb::Database) -> Result<Self, Fault> {
        use redb::ReadableDatabase;
        contained::read(|| Ok(Self { transaction: Some(database.begin_read()?) }))
    }

    /// Use the table inside [`contained::read`] only.
    pub fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        definition: TableDefinition<K, V>,
    ) -> Result<redb::ReadOnlyTable<K, V>, Fault> {
        let transaction = self.transaction.as_ref().expect("it is there until the snapshot is dropped");
        contained::read(|| Ok(transaction.open_table(definition)?))
    }
}

impl Drop for IndexSnapshot {
    fn drop(&mut self) {
        // If this panics the reader's pages stay pinned, and there is nobody to tell.
        let _ = contained::change(|| self.transaction = None);
    }
}

impl Read for IndexSnapshot {
    fn setting(&self, key: &str) -> Result<Option<String>, Fault> {
        contained::read(|| Ok(self.table(SETTINGS)?.get(key)?.map(|value| value.value().to_owned())))
    }

    fn settings(&self) -> Result<Vec<(String, String)>, Fault> {
        contained::read(|| every_setting(&self.table(SETTINGS)?))
    }

    fn domain(&self, domain: &Domain) -> Result<Option<DomainRow>, Fault> {
        contained::read(|| get_row(&self.table(DOMAINS)?, domain.as_str()))
    }

    fn domains(&self) -> Result<Vec<(Domain, DomainRow)>, Fault> {
        contained::read(|| every_domain(&self.table(DOMAINS)?))
    }

    fn mailbox(&self, address: &Address) -> Result<Option<MailboxRow>, Fault> {
        let key = (address.domain.as_str(), address.local.as_str());
        contained::read(|| {
            Ok(self.table(MAILBOXES)?.get(key)?.map(|row| MailboxRow::from_row(row.value())).transpose()?)
        })
    }

    fn mailboxes(&self, domain: &Domain) -> Result<Vec<(LocalPart, MailboxRow)>, Fault> {
        contained::read(|| mailboxes_of(&self.table(MAILBOXES)?, domain))
    }

    fn counts(&self, id: impl Into<OwnerId>) -> Result<Counts, Fault> {
        contained::read(|| {
            let row =
                self.table(COUNTS)?.get(id.into())?.map(|row| Counts::from_row(row.value())).transpose()?;
            Ok(row.unwrap_or_default())
        })
    }

    fn quota(&self, account: &str) -> Result<Option<QuotaRow>, Fault> {
        contained::read(|| get_row(&self.table(QUOTAS)?, account))
    }

    fn message(&self, mailbox: MailboxId, sequence: u64) -> Result<Option<MessageRow>, Fault> {
        contained::read(|| {
            let row = self.table(MESSAGES)?.get((mailbox, sequence))?;
            Ok(row.map(|row| MessageRow::from_row(row.value())).transpose()?)
        })
    }

    fn text(&self, id: TextId) -> Result<Option<TextRow>, Fault> {
        contained::read(|| {
            Ok(self.table(TEXTS)?.get(id)?.map(|row| TextRow::from_row(row.value())).transpose()?)
        })
    }

    fn certificate(&self) -> Result<Option<CertificateRow>, Fault> {
        contained::read(|| {
            let row = self.table(CERTIFICATE)?.get(())?;
            Ok(row.map(|row| CertificateRow::from_row(row.value())).transpose()?)
        })
    }

    fn totals(&self) -> Result<StoreRow, Fault> {
        contained::read(|| {
            let row = self.table(STORE)?.get(())?.map(|row| StoreRow::from_row(row.value())).transpose()?;
            row.ok_or_else(|| Fault::damaged("the row with the counts of the whole store is missing"))
        })
    }
}

/// The current transaction, on the writer thread. Many operations share one (group commit), so an operation
/// looks before it changes anything: a refusal leaves nothing behind, while a `Fault` undoes the whole
/// transaction.
pub struct Tx<'a, 'txn> {
    pub tables: Tables<'txn>,
    pub space: &'a mut Space,
    pub recent: &'a mut RecentTexts,
    pub removed_names: &'a mut RemovedNames,
    pub container: &'a Container,
    /// False if the container's reserve has a gap: no mail is accepted then.
    pub reserve_is_whole: bool,
    /// Mailboxes whose open sessions end when this is committed.
    pub revoked: Vec<MailboxId>,
    /// Short texts written so far, as the log encodes them.
    pub logged_texts: Vec<u8>,
    /// True if texts too long for the log were written.
    pub has_long_texts: bool,
    /// True if mail was refused for lack of room.
    pub room_was_missing: bool,
    /// Read and changed in memory, written once at the end.
    changed_counts: HashMap<OwnerId, Counts>,
    changed_quotas: HashMap<String, QuotaRow>,
    totals: StoreRow,
}

impl<'a, 'txn> Tx<'a, 'txn> {
    pub fn begin(
        tables: Tables<'txn>,
        space: &'a mut Space,
        recent: &'a mut RecentTexts,
        removed_names: &'a mut RemovedNames,
        container: &'a Container,
        reserve_is_whole: bool,
    ) -> Result<Self, Fault> {
        let totals = match tables.store.get(())? {
            Some(row) => StoreRow::from_row(row.value())?,
            None => StoreRow { next_id: OwnerId(1), ..StoreRow::default() },
        };
        Ok(Self {
            tables,
            space,
            recent,
            removed_names,
            container,
            reserve_is_whole,
            revoked: Vec::new(),
            logged_texts: Vec::new(),
            has_long_texts: false,
            room_was_missing: false,
            changed_counts: HashMap::new(),
            changed_quotas: HashMap::new(),
            totals,
        })
    }

    /// An id that no mailbox or domain has had.
    pub fn new_id(&mut self) -> Result<OwnerId, Fault> {
        let id = self.totals.next_id;
        self.totals.next_id = id.next().ok_or_else(|| Fault::damaged("all ids are used up"))?;
        if self.changed_counts.contains_key(&id) || self.tables.counts.get(id)?.is_some() {
            return Err(Fault::damaged("an id would be used twice"));
        }
        Ok(id)
    }

    /// An id that no text has had.
    pub fn new_text_id(&mut self) -> Result<TextId, Fault> {
        let id = self.totals.next_text;
        self.totals.next_text = id.next().ok_or_else(|| Fault::damaged("all ids of texts are used up"))?;
        if self.tables.texts.get(id)?.is_some() {
            return Err(Fault::damaged("the id of a text would be used twice"));
        }
        Ok(id)
    }

    /// The counts of a mailbox or domain, for changing.
    pub fn counts_mut(&mut self, id: impl Into<OwnerId>) -> Result<&mut Counts, Fault> {
        let id = id.into();
        if !self.changed_counts.contains_key(&id) {
            let counts = self.counts(id)?;
            self.changed_counts.insert(id, counts);
        }
        Ok(self.changed_counts.get_mut(&id).expect("it was just put there"))
    }

    pub fn forget_counts(&mut self, id: impl Into<OwnerId>) -> Result<(), Fault> {
        let id = id.into();
        self.changed_counts.remove(&id);
        self.tables.counts.remove(id)?;
        Ok(())
    }

    /// The quota of an account, for changing. An account left without mailboxes loses its row at the end.
    pub fn quota_mut(&mut self, account: &str) -> Result<&mut QuotaRow, Fault> {
        if !self.changed_quotas.contains_key(account) {
            let quota = self.quota(account)?.unwrap_or_default();
            self.changed_quotas.insert(account.to_owned(), quota);
        }
        let quota = self.changed_quotas.get_mut(account).expect("it was just put there");
        // Its limit went with its last mailbox, though the row is still there.
        if quota.mailboxes == 0 {
            *quota = QuotaRow::default();
        }
        Ok(quota)
    }

    pub fn totals_mut(&mut self) -> &mut StoreRow {
        &mut self.totals
    }

    /// Writes what was held back, so that the transaction can be committed. `begins` decides whether the commit
    /// is a checkpoint, given the most octets a log record of the transaction can need.
    pub fn settle(
        &mut self,
        begins: impl FnOnce(usize) -> Result<Option<Beginning>, Fault>,
    ) -> Result<Settled, Fault> {
        self.totals.commits += 1;
        for (id, counts) in &self.changed_counts {
            self.tables.counts.insert(id, &counts.to_row()[..])?;
        }
        for (account, quota) in &self.changed_quotas {
            match quota.mailboxes {
                0 => self.tables.quotas.remove(account.as_str())?,
                _ => self.tables.quotas.insert(account.as_str(), &quota.to_row()[..])?,
            };
        }
        for (at, len) in self.space.changed_runs() {
            match len {
                Some(len) => self.tables.free.insert(at, len)?,
                None => self.tables.free.remove(at)?,
            };
        }
        for (extent, is_blobs) in self.space.changed_extents() {
            match is_blobs {
                true => self.tables.blob_extents.insert(extent, ())?,
                false => self.tables.blob_extents.remove(extent)?,
            };
        }
        let mut changes = std::mem::take(&mut self.logged_texts);
        changes.append(&mut self.tables.changes());
        let begins = begins(changes.len() + STORE_CHANGE_MAX)?;
        if let Some(Beginning { epoch, log_octets }) = begins {
            (self.totals.epoch, self.totals.log_octets) = (epoch, log_octets);
        }
        self.tables.store.insert((), &self.totals.to_row()[..])?;
        changes.append(&mut self.tables.changes());
        Ok(Settled {
            begins,
            number: self.totals.commits,
            changes,
            has_long_texts: self.has_long_texts,
            revoked: std::mem::take(&mut self.revoked),
        })
    }
}

/// Most octets the change of the store's own row takes in a record.
const STORE_CHANGE_MAX: usize = 512;

/// A checkpoint restarts the log like this.
#[derive(Clone, Copy)]
pub struct Beginning {
    pub epoch: Epoch,
    pub log_octets: u64,
}

/// A transaction ready to be committed.
pub struct Settled {
    /// `None`: the commit is not durable by itself, so `changes` go into the log first.
    pub begins: Option<Beginning>,
    pub number: u64,
    pub changes: Vec<u8>,
    /// True if texts must be made durable before the record.
    pub has_long_texts: bool,
    /// Mailboxes whose sessions end once it is durable.
    pub revoked: Vec<MailboxId>,
}

impl Read for Tx<'_, '_> {
    fn setting(&self, key: &str) -> Result<Option<String>, Fault> {
        Ok(self.tables.settings.get(key)?.map(|value| value.value().to_owned()))
    }

    fn settings(&self) -> Result<Vec<(String, String)>, Fault> {
        every_setting(self.tables.settings.open()?)
    }

    fn domain(&self, domain: &Domain) -> Result<Option<DomainRow>, Fault> {
        get_row(self.tables.domains.open()?, domain.as_str())
    }

    fn domains(&self) -> Result<Vec<(Domain, DomainRow)>, Fault> {
        every_domain(self.tables.domains.open()?)
    }

    fn mailbox(&self, address: &Address) -> Result<Option<MailboxRow>, Fault> {
        let key = (address.domain.as_str(), address.local.as_str());
        Ok(self.tables.mailboxes.get(key)?.map(|row| MailboxRow::from_row(row.value())).transpose()?)
    }

    fn mailboxes(&self, domain: &Domain) -> Result<Vec<(LocalPart, MailboxRow)>, Fault> {
        mailboxes_of(self.tables.mailboxes.open()?, domain)
    }

    fn counts(&self, id: impl Into<OwnerId>) -> Result<Counts, Fault> {
        let id = id.into();
        if let Some(counts) = self.changed_counts.get(&id) {
            return Ok(*counts);
        }
        let row = self.tables.counts.get(id)?.map(|row| Counts::from_row(row.value())).transpose()?;
        Ok(row.unwrap_or_default())
    }

    fn quota(&self, account: &str) -> Result<Option<QuotaRow>, Fault> {
        match self.changed_quotas.get(account) {
            Some(quota) => Ok((quota.mailboxes > 0).then_some(*quota)),
            None => get_row(self.tables.quotas.open()?, account),
        }
    }

    fn message(&self, mailbox: MailboxId, sequence: u64) -> Result<Option<MessageRow>, Fault> {
        let row = self.tables.messages.get((mailbox, sequence))?;
        Ok(row.map(|row| MessageRow::from_row(row.value())).transpose()?)
    }

    fn text(&self, id: TextId) -> Result<Option<TextRow>, Fault> {
        Ok(self.tables.texts.get(id)?.map(|row| TextRow::from_row(row.value())).transpose()?)
    }

    fn certificate(&self) -> Result<Option<CertificateRow>, Fault> {
        let row = self.tables.certificate.get(())?;
        Ok(row.map(|row| CertificateRow::from_row(row.value())).transpose()?)
    }

    fn totals(&self) -> Result<StoreRow, Fault> {
        Ok(self.totals)
    }
}
