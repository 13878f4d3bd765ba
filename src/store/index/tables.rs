//! The tables of the index, each listed once, and the changes that a transaction makes to them.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | settings | key | value as typed |
//! | domains | name | `DomainRow` |
//! | mailboxes | domain, name | `MailboxRow` |
//! | counts | id of a mailbox or domain | `Counts` |
//! | quotas | account | `QuotaRow` |
//! | messages | id of a mailbox, sequence | `MessageRow` |
//! | foreign ids | id of a mailbox, unique id | sequence of the message that brought it |
//! | texts | id of the text | `TextRow` |
//! | free | offset in the file | length of the free run that begins there |
//! | blob extents | extent number | – |
//! | certificate | – | `CertificateRow`: our own, until one is configured |
//! | store | – | `StoreRow` |
//! | deleted | day, id of a mailbox, sequence | `DeletedRow` |
//! | removed mailboxes | day, id | `RemovedMailboxRow` |
//! | removed domains | day, id | `RemovedDomainRow` |
//! | deleted counts | day | `DeletedCounts` |
//!
//! A [`Table`] notes each row that it puts or removes: with that the log makes the transaction durable. The order of a
//! table's changes is kept; between tables it does not matter.

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
use super::{Fault, Snapshot};
use crate::store::file::format::Extent;
use crate::store::file::record::{self, Change};

/// A table of a transaction. It is opened by the first who uses it: most transactions need a few of all tables, and one
/// that is open costs something at the commit too.
pub struct Table<'txn, K: redb::Key + 'static, V: redb::Value + 'static> {
    transaction: &'txn redb::WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    opened: OnceCell<redb::Table<'txn, K, V>>,
    /// In the log: which table it is.
    number: u8,
    /// None: nothing is noted, since the transaction is a checkpoint.
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

    /// The table itself. It is made if it is not there.
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

    /// Adds rows behind all others, in the order of their keys, so that leaves are full; in a transaction that is not
    /// logged.
    pub fn append<'r>(
        &mut self,
        rows: impl IntoIterator<Item = (K::SelfType<'r>, V::SelfType<'r>)>,
    ) -> Result<(), Fault> {
        assert!(self.changes.is_none(), "so many changes are not for the log");
        let mut end = Leaky::new(self.open_mut()?.upper_bound_mut(Bound::<K::SelfType<'_>>::Unbounded)?);
        for (key, value) in rows {
            end.insert_before(key, value)?;
        }
        Ok(end.into_inner().close()?)
    }

    /// Removes every row, in a transaction that is not logged.
    pub fn clear(&mut self) -> Result<(), Fault> {
        assert!(self.changes.is_none(), "so many changes are not for the log");
        Ok(self.open_mut()?.retain(|_, _| false)?)
    }

    /// Makes a change again that the log has.
    fn redo(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Fault> {
        let key = K::from_bytes(key);
        match value {
            Some(value) => drop(self.open_mut()?.insert(key, V::from_bytes(value))?),
            None => drop(self.open_mut()?.remove(key)?),
        }
        Ok(())
    }

    /// Fills the table, which is empty, so that its leaves are full.
    fn copy_from(
        &mut self,
        source: &Snapshot,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<(), Fault> {
        let source = source.table(definition)?;
        let mut rows = contained::read(|| Ok(source.iter()?))?;
        let mut end = Leaky::new(self.open_mut()?.upper_bound_mut(Bound::<K::SelfType<'_>>::Unbounded)?);
        while let Some((key, value)) = contained::read(|| Ok(rows.next().transpose()?))? {
            end.insert_before(key.value(), value.value())?;
        }
        Ok(end.into_inner().close()?)
    }
}

impl Table<'_, (MailboxId, u64), &'static [u8]> {
    /// Writes the rows of a range once more, in one go, so that their leaves are full. Rows that come one at a time
    /// between others leave half of each leaf empty, because redb divides a full one in the middle. Nothing is noted:
    /// no row changes.
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

/// What a table holds, which says what becomes of it in a copy of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// What was put there from outside, or follows from it: the same in every copy.
    Content,
    /// Where things lie in this file: made anew in a copy.
    Places,
    /// How far this file has come.
    State,
}

/// A table, as upkeep goes over them: rows as octets.
pub struct Listed {
    pub number: u8,
    pub name: &'static str,
    pub holds: Holds,
    /// Whether redb can be given these octets as a key and a row of it.
    pub fits: fn(&[u8], &[u8]) -> bool,
    /// Whether these octets are a row of it.
    pub is_row: fn(&[u8]) -> bool,
}

fn fits<T: redb::Value>(octets: &[u8]) -> bool {
    T::fixed_width().is_none_or(|width| octets.len() == width)
        && (T::type_name() != <&str as redb::Value>::type_name() || is_text(octets))
}

/// A value as redb writes it.
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
    (@copy Content $table:expr, $source:ident, $constant:ident) => { $table.copy_from($source, $constant)?; };
    (@copy $other:ident $table:expr, $source:ident, $constant:ident) => {};
    ($($number:literal $holds:ident $field:ident $constant:ident $name:literal:
        $key:ty => $value:ty, $is_row:expr;)*) => {
        $(pub const $constant: TableDefinition<'static, $key, $value> = TableDefinition::new($name);)*

        /// Every table, in the order of their numbers.
        pub const LIST: &[Listed] = &[
            $(Listed {
                number: $number,
                name: $name,
                holds: Holds::$holds,
                fits: |key, row| fits::<$key>(key) && fits::<$value>(row),
                is_row: $is_row,
            },)*
        ];

        /// How many rows cannot be read, table by table: of all tables but those that the caller goes through himself.
        pub fn unreadable(snapshot: &Snapshot, but: &[&str]) -> Result<Vec<(&'static str, u64)>, Fault> {
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

        /// Every row of every table: its table, key and row, as octets.
        #[cfg(test)]
        pub fn every_row(snapshot: &Snapshot) -> Result<Vec<(&'static str, Vec<u8>, Vec<u8>)>, Fault> {
            let mut all = Vec::new();
            $(for row in snapshot.table($constant)?.iter()? {
                let (key, row) = row?;
                let (key, row) = (key.value(), row.value());
                let (key, row) = (octets::<$key>(&key), octets::<$value>(&row));
                all.push(($name, key.as_ref().to_vec(), row.as_ref().to_vec()));
            })*
            Ok(all)
        }

        /// The tables of a transaction, open for its length.
        pub struct Tables<'txn> {
            $(pub $field: Table<'txn, $key, $value>,)*
        }

        impl<'txn> Tables<'txn> {
            /// For a transaction that may be logged.
            pub fn new(transaction: &'txn redb::WriteTransaction) -> Self {
                $(let $field = Table::new(transaction, $constant, $number, true);)*
                Self { $($field,)* }
            }

            /// For one that is a checkpoint in any case. Tables that are not there are made.
            pub fn open_unlogged(transaction: &'txn redb::WriteTransaction) -> Result<Self, Fault> {
                $(let $field = Table::new(transaction, $constant, $number, false);)*
                // A table's destructor may panic itself when opening the next one has panicked.
                let tables = Leaky::new(Self { $($field,)* });
                $(tables.$field.open()?;)*
                Ok(tables.into_inner())
            }

            /// What the transaction has changed so far, as the log has it.
            pub fn changes(&mut self) -> Vec<u8> {
                let mut changes = Vec::new();
                $(changes.extend(self.$field.changes.iter_mut().flat_map(std::mem::take));)*
                changes
            }

            /// Makes a change again that the log has. A text is no row, and left to the caller.
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

            /// Removes the rows that cannot be read, and tells how many those were, table by table: of all tables but
            /// those that the caller goes through himself.
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

            /// Copies the rows of a snapshot, of the tables that are the same in a copy of the store, on a thread of
            /// its own, while `copy_texts` fills that of the texts.
            pub fn copy_from<E: From<Fault>>(
                &mut self,
                source: &Snapshot,
                copy_texts: impl FnOnce(&mut Table<'txn, TextId, &'static [u8]>) -> Result<(), E>,
            ) -> Result<(), E> {
                thread::scope(|scope| {
                    let contents = scope.spawn(|| -> Result<(), Fault> {
                        $(tables!(@copy $holds self.$field, source, $constant);)*
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

// The numbers stand in logs: they are never given to another table. A table that is added later gets the next one; a
// file that lacks it gets it when it is opened ([`make_missing`]). 30 is kept for mail that is to be sent on, 31 for
// aliases.
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

/// Makes the tables that a file of an older program lacks.
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

/// The blob extents' number in [`Change`]s: recovery looks for them before it changes anything.
pub const BLOB_EXTENTS_NUMBER: u8 = 8;
