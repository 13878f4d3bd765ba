//! The tables of the index, each listed once, and the changes a transaction makes to them.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | settings | key | value as typed |
//! | domains | name | `DomainRow` |
//! | mailboxes | domain, name | `MailboxRow` |
//! | counts | mailbox or domain id | `Counts` |
//! | quotas | account | `QuotaRow` |
//! | messages | mailbox id, sequence | `MessageRow` |
//! | foreign ids | mailbox id, unique id | sequence of the message with that id |
//! | texts | text id | `TextRow` |
//! | free | offset in the file | length of the free run starting there |
//! | blob extents | extent number | – |
//! | certificate | – | `CertificateRow`: our own, until one is configured |
//! | store | – | `StoreRow` |
//! | deleted | day, mailbox id, sequence | `DeletedRow` |
//! | removed mailboxes | day, id | `RemovedMailboxRow` |
//! | removed domains | day, id | `RemovedDomainRow` |
//! | deleted counts | day | `DeletedCounts` |
//!
//! A [`Table`] records every row it puts or removes, for the log. The log keeps the order of changes within a
//! table; between tables it does not matter.

use std::borrow::Borrow;
use std::cell::OnceCell;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::panic::resume_unwind;
use std::thread;

use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableHandle};

use super::contained::{self, Leaky};
use super::rows::{
    CertificateRow, Counts, DeletedCounts, DeletedRow, DomainRow, MailboxRow, MessageRow, QuotaRow,
    RemovedDomainRow, RemovedMailboxRow, Row, StoreRow, TextRow,
};
use super::types::{Day, MailboxId, OwnerId, TextId};
use super::{Fault, IndexSnapshot};
use crate::store::file::format::Extent;
use crate::store::file::record::{self, Change};

/// A table in a transaction, opened on first use: most transactions need few of the tables, and each open one
/// slows the commit.
pub struct Table<'txn, K: redb::Key + 'static, V: redb::Value + 'static> {
    transaction: &'txn redb::WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    opened: OnceCell<redb::Table<'txn, K, V>>,
    /// The table's number in the log.
    number: u8,
    /// `None` if the transaction is a checkpoint, which needs no log record.
    changes: Option<Vec<u8>>,
}

impl<'txn, K: redb::Key + 'static, V: redb::Value + 'static> Table<'txn, K, V> {
    fn new(
        transaction: &'txn redb::WriteTransaction,
        definition: TableDefinition<'static, K, V>,
        number: u8,
        is_logged: bool,
    ) -> Self {
        let (opened, changes) = (OnceCell::new(), is_logged.then(Vec::new));
        Self { transaction, definition, opened, number, changes }
    }

    /// The redb table, created if missing.
    pub fn open(&self) -> Result<&redb::Table<'txn, K, V>, Fault> {
        if self.opened.get().is_none() {
            let table = self.transaction.open_table(self.definition)?;
            assert!(self.opened.set(table).is_ok(), "it was not open");
        }
        Ok(self.opened.get().expect("it is open"))
    }

    fn open_mut(&mut self) -> Result<&mut redb::Table<'txn, K, V>, Fault> {
        self.open()?;
        Ok(self.opened.get_mut().expect("it is open"))
    }

    pub fn get<'k>(
        &self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<redb::AccessGuard<'_, V>>, Fault> {
        Ok(self.open()?.get(key)?)
    }

    pub fn range<'k, KR: Borrow<K::SelfType<'k>> + 'k>(
        &self,
        range: impl RangeBounds<KR> + 'k,
    ) -> Result<redb::Range<'_, K, V>, Fault> {
        Ok(self.open()?.range(range)?)
    }

    pub fn iter(&self) -> Result<redb::Range<'_, K, V>, Fault> {
        Ok(self.open()?.iter()?)
    }

    pub fn first(&self) -> Result<Option<Entry<'_, K, V>>, Fault> {
        Ok(self.open()?.first()?)
    }

    pub fn last(&self) -> Result<Option<Entry<'_, K, V>>, Fault> {
        Ok(self.open()?.last()?)
    }

    pub fn insert<'k, 'v>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        value: impl Borrow<V::SelfType<'v>>,
    ) -> Result<Option<redb::AccessGuard<'_, V>>, Fault> {
        if let Some(changes) = &mut self.changes {
            let (key, value) = (K::as_bytes(key.borrow()), V::as_bytes(value.borrow()));
            record::put(changes, self.number, key.as_ref(), value.as_ref());
        }
        Ok(self.open_mut()?.insert(key.borrow(), value.borrow())?)
    }

    pub fn remove<'k>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<redb::AccessGuard<'_, V>>, Fault> {
        if let Some(changes) = &mut self.changes {
            record::remove(changes, self.number, K::as_bytes(key.borrow()).as_ref());
        }
        Ok(self.open_mut()?.remove(key.borrow())?)
    }

    /// Appends rows after all others, in key order, so that leaves are full. Only in a transaction that is not logged.
    pub fn append<'r>(
        &mut self,
        rows: impl IntoIterator<Item = (K::SelfType<'r>, V::SelfType<'r>)>,
    ) -> Result<(), Fault> {
        assert!(self.changes.is_none(), "bulk changes are not logged");
        let mut end = Leaky::new(self.open_mut()?.upper_bound_mut(Bound::<K::SelfType<'_>>::Unbounded)?);
        for (key, value) in rows {
            end.insert_before(key, value)?;
        }
        Ok(end.into_inner().close()?)
    }

    /// Removes every row. Only in a transaction that is not logged.
    pub fn clear(&mut self) -> Result<(), Fault> {
        assert!(self.changes.is_none(), "bulk changes are not logged");
        Ok(self.open_mut()?.retain(|_, _| false)?)
    }

    /// Repeats a change from the log.
    fn redo(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Fault> {
        let key = K::from_bytes(key);
        match value {
            Some(value) => drop(self.open_mut()?.insert(key, V::from_bytes(value))?),
            None => drop(self.open_mut()?.remove(key)?),
        }
        Ok(())
    }

    /// Fills the table, which must be empty, with full leaves. `copied` is called for each row.
    fn copy_from(
        &mut self,
        source: &IndexSnapshot,
        definition: TableDefinition<'static, K, V>,
        copied: &(dyn Fn(&str) + Sync),
    ) -> Result<(), Fault> {
        let source = source.table(definition)?;
        let mut rows = contained::read(|| Ok(source.iter()?))?;
        let mut end = Leaky::new(self.open_mut()?.upper_bound_mut(Bound::<K::SelfType<'_>>::Unbounded)?);
        while let Some((key, value)) = contained::read(|| Ok(rows.next().transpose()?))? {
            end.insert_before(key.value(), value.value())?;
            copied(definition.name());
        }
        Ok(end.into_inner().close()?)
    }
}

impl Table<'_, (MailboxId, u64), &'static [u8]> {
    /// Rewrites the rows of a range in one go, so that their leaves are full. redb splits a full leaf in the
    /// middle, so rows inserted one at a time between others leave each leaf half empty. Not logged, because no
    /// row changes.
    pub fn pack(&mut self, mailbox: MailboxId, sequences: RangeInclusive<u64>) -> Result<(), Fault> {
        let (first, last) = ((mailbox, *sequences.start()), (mailbox, *sequences.end()));
        let mut rows = Vec::new();
        for row in self.range(first..=last)? {
            let (key, row) = row?;
            rows.push((key.value(), row.value().to_vec()));
        }
        if rows.len() < 2 {
            return Ok(());
        }
        self.open_mut()?.retain_in(first..=last, |_, _| false)?;
        let mut gap = Leaky::new(self.open_mut()?.upper_bound_mut(Bound::Excluded(first))?);
        for (key, row) in &rows {
            gap.insert_before(*key, &row[..])?;
        }
        Ok(gap.into_inner().close()?)
    }
}

/// A key and its row.
type Entry<'a, K, V> = (redb::AccessGuard<'a, K>, redb::AccessGuard<'a, V>);

/// What a table holds decides what a copy of the store does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Data from outside, or derived from it: the same in every copy.
    Content,
    /// Places in this file: a copy has its own.
    Places,
    /// Progress of this file.
    State,
}

/// A table as upkeep sees it: rows as octets.
pub struct AnyTable {
    pub number: u8,
    pub name: &'static str,
    pub holds: Holds,
    /// True if redb can decode these octets as a key and value of the table.
    pub fits: fn(&[u8], &[u8]) -> bool,
    /// True if these octets are a row of the table.
    pub is_row: fn(&[u8]) -> bool,
}

fn fits<T: redb::Value>(octets: &[u8]) -> bool {
    T::fixed_width().is_none_or(|width| octets.len() == width)
        && (T::type_name() != <&str as redb::Value>::type_name() || is_text(octets))
}

/// A value as redb encodes it.
fn octets<'a, 'b: 'a, T: redb::Value + 'b>(value: &'a T::SelfType<'b>) -> impl AsRef<[u8]> + 'a {
    T::as_bytes(value)
}

fn is_text(row: &[u8]) -> bool {
    std::str::from_utf8(row).is_ok()
}

fn is_number(row: &[u8]) -> bool {
    row.len() == size_of::<u64>()
}

macro_rules! tables {
    (@copy Content $table:expr, $source:ident, $constant:ident, $copied:ident) => {
        $table.copy_from($source, $constant, $copied)?;
    };
    (@copy $other:ident $table:expr, $source:ident, $constant:ident, $copied:ident) => {};
    ($($number:literal $holds:ident $field:ident $constant:ident $name:literal:
        $key:ty => $value:ty, $is_row:expr;)*) => {
        $(pub const $constant: TableDefinition<'static, $key, $value> = TableDefinition::new($name);)*

        /// Every table, in order of number.
        pub const LIST: &[AnyTable] = &[
            $(AnyTable {
                number: $number,
                name: $name,
                holds: Holds::$holds,
                fits: |key, row| fits::<$key>(key) && fits::<$value>(row),
                is_row: $is_row,
            },)*
        ];

        /// Counts unreadable rows by table, skipping tables that the caller examines itself.
        pub fn unreadable(snapshot: &IndexSnapshot, but: &[&str]) -> Result<Vec<(&'static str, u64)>, Fault> {
            let mut all = Vec::new();
            $(if !but.contains(&$name) {
                let is_row: fn(&[u8]) -> bool = $is_row;
                let mut count = 0;
                for row in snapshot.table($constant)?.iter()? {
                    count += u64::from(!is_row(octets::<$value>(&row?.1.value()).as_ref()));
                }
                all.push(($name, count));
            })*
            all.retain(|(_, count)| *count > 0);
            Ok(all)
        }

        /// Every row of every table: table name, key and row, as octets.
        #[cfg(test)]
        pub fn every_row(snapshot: &IndexSnapshot) -> Result<Vec<(&'static str, Vec<u8>, Vec<u8>)>, Fault> {
            let mut all = Vec::new();
            $(for row in snapshot.table($constant)?.iter()? {
                let (key, row) = row?;
                let (key, row) = (key.value(), row.value());
                let (key, row) = (octets::<$key>(&key), octets::<$value>(&row));
                all.push(($name, key.as_ref().to_vec(), row.as_ref().to_vec()));
            })*
            Ok(all)
        }

        /// The tables of a transaction.
        pub struct Tables<'txn> {
            $(pub $field: Table<'txn, $key, $value>,)*
        }

        impl<'txn> Tables<'txn> {
            /// For a transaction that may be logged.
            pub fn new(transaction: &'txn redb::WriteTransaction) -> Self {
                $(let $field = Table::new(transaction, $constant, $number, true);)*
                Self { $($field,)* }
            }

            /// For a transaction that is a checkpoint in any case. Creates missing tables.
            pub fn open_unlogged(transaction: &'txn redb::WriteTransaction) -> Result<Self, Fault> {
                $(let $field = Table::new(transaction, $constant, $number, false);)*
                // If opening a table panics, the destructor of the others may panic too.
                let tables = Leaky::new(Self { $($field,)* });
                $(tables.$field.open()?;)*
                Ok(tables.into_inner())
            }

            /// The transaction's changes so far, as the log encodes them.
            pub fn changes(&mut self) -> Vec<u8> {
                let mut changes = Vec::new();
                $(changes.extend(self.$field.changes.iter_mut().flat_map(std::mem::take));)*
                changes
            }

            /// Repeats a change from the log. Texts are not rows; the caller writes them.
            pub fn redo(&mut self, change: &Change<'_>) -> Result<(), Fault> {
                let (table, key, value) = match *change {
                    Change::Put { table, key, value } => (table, key, Some(value)),
                    Change::Removed { table, key } => (table, key, None),
                    Change::Text { .. } => return Ok(()),
                };
                match table {
                    $($number => self.$field.redo(key, value),)*
                    _ => Err(Fault::damaged("its log names a table that does not exist")),
                }
            }

            /// Removes unreadable rows and counts them by table, skipping tables that the caller examines
            /// itself.
            pub fn remove_unreadable(&mut self, but: &[&str]) -> Result<Vec<(&'static str, u64)>, Fault> {
                let mut all = Vec::new();
                $(if !but.contains(&$name) {
                    let is_row: fn(&[u8]) -> bool = $is_row;
                    let mut count = 0;
                    self.$field.open_mut()?.retain(|_, row| {
                        let keep = is_row(octets::<$value>(&row).as_ref());
                        count += u64::from(!keep);
                        keep
                    })?;
                    all.push(($name, count));
                })*
                all.retain(|(_, count)| *count > 0);
                Ok(all)
            }

            /// Copies the tables that are the same in every copy of the store on another thread, while
            /// `copy_texts` fills the table of texts. `copied` gets the table's name with each row.
            pub fn copy_from<E: From<Fault>>(
                &mut self,
                source: &IndexSnapshot,
                copied: &(dyn Fn(&str) + Sync),
                copy_texts: impl FnOnce(&mut Table<'txn, TextId, &'static [u8]>) -> Result<(), E>,
            ) -> Result<(), E> {
                thread::scope(|scope| {
                    let contents = scope.spawn(|| -> Result<(), Fault> {
                        $(tables!(@copy $holds self.$field, source, $constant, copied);)*
                        Ok(())
                    });
                    let texts = copy_texts(&mut self.texts);
                    let contents = contents.join().unwrap_or_else(|panic| resume_unwind(panic));
                    texts.and(contents.map_err(E::from))
                })
            }
        }
    };
}

// Logs contain these numbers, so none is ever reused. A new table gets the next one; files that lack it get it
// when they are opened ([`make_missing`]). 30 is reserved for mail queued for relay, 31 for aliases.
tables! {
    0 Content settings SETTINGS "settings": &'static str => &'static str, is_text;
    1 Content domains DOMAINS "domains": &'static str => &'static [u8], DomainRow::is_row;
    2 Content mailboxes MAILBOXES "mailboxes": (&'static str, &'static str) => &'static [u8], MailboxRow::is_row;
    3 Content counts COUNTS "counts": OwnerId => &'static [u8], Counts::is_row;
    4 Content quotas QUOTAS "quotas": &'static str => &'static [u8], QuotaRow::is_row;
    5 Content messages MESSAGES "messages": (MailboxId, u64) => &'static [u8], MessageRow::is_row;
    6 Places texts TEXTS "texts": TextId => &'static [u8], TextRow::is_row;
    7 Places free FREE "free": u64 => u64, is_number;
    8 Places blob_extents BLOB_EXTENTS "blob extents": Extent => (), <[u8]>::is_empty;
    9 Content certificate CERTIFICATE "certificate": () => &'static [u8], CertificateRow::is_row;
    10 State store STORE "store": () => &'static [u8], StoreRow::is_row;
    11 Content deleted DELETED "deleted": (Day, MailboxId, u64) => &'static [u8], DeletedRow::is_row;
    12 Content removed_mailboxes REMOVED_MAILBOXES "removed mailboxes":
        (Day, MailboxId) => &'static [u8], RemovedMailboxRow::is_row;
    13 Content removed_domains REMOVED_DOMAINS "removed domains":
        (Day, OwnerId) => &'static [u8], RemovedDomainRow::is_row;
    14 Content deleted_counts DELETED_COUNTS "deleted counts": Day => &'static [u8], DeletedCounts::is_row;
    15 Content foreign_ids FOREIGN_IDS "foreign ids": (MailboxId, &'static str) => u64, is_number;
}

/// Creates the tables that a file of an older program lacks.
pub fn make_missing(database: &redb::Database) -> Result<(), Fault> {
    let there: Vec<String> = {
        let transaction = database.begin_read()?;
        transaction.list_tables()?.map(|table| table.name().to_owned()).collect()
    };
    if LIST.iter().all(|table| there.iter().any(|name| name == table.name)) {
        return Ok(());
    }
    let mut transaction = Leaky::new(database.begin_write()?);
    transaction.set_quick_repair(true);
    drop(Tables::open_unlogged(&transaction)?);
    Ok(transaction.into_inner().commit()?)
}

/// Number of the blob extents in [`Change`]s: recovery looks for them before it changes anything.
pub const BLOB_EXTENTS_NUMBER: u8 = 8;
