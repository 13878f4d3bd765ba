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
//! | texts | blake3 of the wire form | `TextRow` |
//! | free | offset in the file | length of the free run that begins there |
//! | blob extents | extent number | – |
//! | certificate | – | `CertificateRow`: our own, until one is configured |
//! | store | – | `StoreRow` |
//!
//! A [`Table`] notes each row that it puts or removes: with that the log makes the transaction durable. The order of a
//! table's changes is kept; between tables it does not matter.

use super::contained::{self, Leaky};
use super::types::{MailboxId, OwnerId};
use super::{Fault, Snapshot};
use crate::store::file::format::Extent;
use crate::store::file::record::{self, Change};
use redb::{ReadableTable, TableDefinition};
use std::borrow::Borrow;
use std::ops::Deref;

/// A table of a transaction.
pub struct Table<'txn, K: redb::Key + 'static, V: redb::Value + 'static> {
    table: redb::Table<'txn, K, V>,
    /// In the log: which table it is.
    number: u8,
    /// None: nothing is noted, since the transaction is a checkpoint.
    changes: Option<Vec<u8>>,
}

impl<'txn, K: redb::Key + 'static, V: redb::Value + 'static> Table<'txn, K, V> {
    fn open(
        transaction: &'txn redb::WriteTransaction,
        definition: TableDefinition<'static, K, V>,
        number: u8,
        is_logged: bool,
    ) -> Result<Leaky<Self>, Fault> {
        let table = transaction.open_table(definition)?;
        Ok(Leaky::new(Self { table, number, changes: is_logged.then(Vec::new) }))
    }

    pub fn insert<'k, 'v>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        value: impl Borrow<V::SelfType<'v>>,
    ) -> Result<Option<redb::AccessGuard<'_, V>>, redb::StorageError> {
        if let Some(changes) = &mut self.changes {
            let (key, value) = (K::as_bytes(key.borrow()), V::as_bytes(value.borrow()));
            record::put(changes, self.number, key.as_ref(), value.as_ref());
        }
        self.table.insert(key.borrow(), value.borrow())
    }

    pub fn remove<'k>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<redb::AccessGuard<'_, V>>, redb::StorageError> {
        if let Some(changes) = &mut self.changes {
            record::remove(changes, self.number, K::as_bytes(key.borrow()).as_ref());
        }
        self.table.remove(key.borrow())
    }

    /// Removes every row, in a transaction that is not logged.
    pub fn clear(&mut self) -> Result<(), Fault> {
        assert!(self.changes.is_none(), "so many changes are not for the log");
        Ok(self.table.retain(|_, _| false)?)
    }

    /// Makes a change again that the log has.
    fn redo(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Fault> {
        let key = K::from_bytes(key);
        match value {
            Some(value) => drop(self.table.insert(key, V::from_bytes(value))?),
            None => drop(self.table.remove(key)?),
        }
        Ok(())
    }

    fn copy_from(
        &mut self,
        source: &Snapshot,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<(), Fault> {
        let source = source.table(definition)?;
        let mut rows = contained::read(|| Ok(source.iter()?))?;
        while let Some((key, value)) = contained::read(|| Ok(rows.next().transpose()?))? {
            self.table.insert(key.value(), value.value())?;
        }
        Ok(())
    }
}

impl<'txn, K: redb::Key + 'static, V: redb::Value + 'static> Deref for Table<'txn, K, V> {
    type Target = redb::Table<'txn, K, V>;

    fn deref(&self) -> &Self::Target {
        &self.table
    }
}

macro_rules! tables {
    (@copy copied $table:expr, $source:ident, $constant:ident) => { $table.copy_from($source, $constant)?; };
    (@copy made $table:expr, $source:ident, $constant:ident) => {};
    ($($number:literal $kind:ident $field:ident $constant:ident $name:literal: $key:ty => $value:ty;)*) => {
        $(pub const $constant: TableDefinition<'static, $key, $value> = TableDefinition::new($name);)*

        /// The tables of a transaction, open for its length.
        pub struct Tables<'txn> {
            $(pub $field: Table<'txn, $key, $value>,)*
        }

        impl<'txn> Tables<'txn> {
            /// For a transaction that may be logged.
            pub fn open(transaction: &'txn redb::WriteTransaction) -> Result<Self, Fault> {
                Self::open_as(transaction, true)
            }

            /// For one that is a checkpoint in any case.
            pub fn open_unlogged(transaction: &'txn redb::WriteTransaction) -> Result<Self, Fault> {
                Self::open_as(transaction, false)
            }

            fn open_as(transaction: &'txn redb::WriteTransaction, is_logged: bool) -> Result<Self, Fault> {
                // A table's destructor may panic itself when opening the next one has panicked.
                $(let $field = Table::open(transaction, $constant, $number, is_logged)?;)*
                Ok(Self { $($field: $field.into_inner(),)* })
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

            /// Copies the rows of a snapshot, of the tables that are the same in a copy of the store.
            pub fn copy_from(&mut self, source: &Snapshot) -> Result<(), Fault> {
                $(tables!(@copy $kind self.$field, source, $constant);)*
                Ok(())
            }
        }
    };
}

// The numbers stand in logs: they are never given to another table. A backup takes over what is `copied`; what is `made`
// it makes anew, since texts lie elsewhere in a copy.
tables! {
    0 copied settings SETTINGS "settings": &'static str => &'static str;
    1 copied domains DOMAINS "domains": &'static str => &'static [u8];
    2 copied mailboxes MAILBOXES "mailboxes": (&'static str, &'static str) => &'static [u8];
    3 copied counts COUNTS "counts": OwnerId => &'static [u8];
    4 copied quotas QUOTAS "quotas": &'static str => &'static [u8];
    5 copied messages MESSAGES "messages": (MailboxId, u64) => &'static [u8];
    6 made texts TEXTS "texts": [u8; 32] => &'static [u8];
    7 made free FREE "free": u64 => u64;
    8 made blob_extents BLOB_EXTENTS "blob extents": Extent => ();
    9 copied certificate CERTIFICATE "certificate": () => &'static [u8];
    10 made store STORE "store": () => &'static [u8];
}

/// The blob extents' number in [`Change`]s: recovery looks for them before it changes anything.
pub const BLOB_EXTENTS_NUMBER: u8 = 8;
