//! The state that handles, readers and writer share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Condvar, MutexGuard};

use super::claims::Claims;
use super::verified::Verified;
use super::window::CopyWindow;
use super::{OpenErrorKind, Snapshot, Visit};
use crate::address::Address;
use crate::lock::{Mutex, NO_PANIC};
use crate::store::file::container::{CACHE_OCTETS, Container, IndexBackend};
use crate::store::file::disk::Disk;
use crate::store::file::space::Pins;
use crate::store::index::redb_header;
use crate::store::index::rows::StoreRow;
use crate::store::index::types::{DomainId, MailboxId};
use crate::store::index::{Fault, IndexSnapshot, Read as _, contained};

/// Shared by handles, readers and writer.
pub struct Shared {
    pub disk: Arc<dyn Disk>,
    pub pins: Pins,
    pub claims: Claims,
    pub verified: Verified,
    /// `None` while the index is being reopened, and after that failed.
    pub current: Mutex<Option<Arc<OpenIndex>>>,
    pub visitor_left: Condvar,
    /// True if a reader has already asked the writer to reopen the index.
    pub reopening_was_requested: AtomicBool,
    /// As of the writer's last look.
    pub copy_window: Mutex<CopyWindow>,
    /// Compactions in progress: copies made meanwhile are not good.
    pub compactions: AtomicUsize,
    /// Held while a long list is read with several threads, to bound their number.
    pub long_lists: Mutex<()>,
    /// The oldest mailboxes of domains, as found since a mailbox was last removed; at most one per domain.
    pub oldest: Mutex<HashMap<DomainId, Oldest>>,
}

/// A mailbox that was the oldest of its domain.
#[derive(Clone)]
pub struct Oldest {
    pub id: MailboxId,
    pub address: Address,
    /// How many the domain had.
    pub of_mailboxes: u64,
}

/// The open container and the index in it.
pub struct OpenIndex {
    /// Taken when the index is closed.
    database: Option<redb::Database>,
    pub container: Arc<Container>,
}

impl OpenIndex {
    pub fn new(database: redb::Database, container: Arc<Container>) -> Self {
        Self { database: Some(database), container }
    }

    pub fn database(&self) -> &redb::Database {
        self.database.as_ref().expect("it is there until the index is closed")
    }

    pub fn totals(&self) -> Result<StoreRow, Fault> {
        IndexSnapshot::begin(self.database())?.totals()
    }

    /// True if the writer can go on with it after a fault.
    pub fn is_usable(&self) -> bool {
        !self.container.has_failed()
            && contained::change(|| self.database().begin_write().is_ok()).is_ok_and(|usable| usable)
    }
}

impl Drop for OpenIndex {
    fn drop(&mut self) {
        let database = self.database.take();
        if self.container.is_given_up() {
            // redb panicked in an unknown state, so its destructor may panic too.
            std::mem::forget(database);
        } else if contained::change(|| drop(database)).is_err() {
            self.container.give_up();
        }
    }
}

impl Shared {
    /// Ends the sessions on these mailboxes, which were locked or removed.
    pub fn revoke(&self, mailboxes: &[MailboxId]) {
        self.claims.revoke(mailboxes);
        if !mailboxes.is_empty() {
            self.oldest.lock().clear();
        }
    }

    pub fn note_copy_window(&self, window: CopyWindow) {
        *self.copy_window.lock() = window;
    }

    pub fn current(&self) -> Result<Arc<OpenIndex>, Fault> {
        let current = self.lock();
        current
            .clone()
            .ok_or_else(|| Fault::Io("the store has not recovered from an earlier disk fault".into()))
    }

    pub fn snapshot(self: &Arc<Self>) -> Result<Snapshot, Fault> {
        let visit = Visit { shared: self.clone(), open: Some(self.current()?) };
        if visit.open().container.has_failed() {
            return Err(Fault::Io("the store has not recovered from an earlier disk fault".into()));
        }
        let index = IndexSnapshot::begin(visit.open().database())?;
        Ok(Snapshot { index, visit })
    }

    /// Turns readers away and waits for the last one, then closes the index.
    pub fn take_down(&self) -> Arc<dyn Disk> {
        let mut current = self.lock();
        if let Some(open) = current.take() {
            open.container.turn_readers_away();
            while Arc::strong_count(&open) > 1 {
                current = self.visitor_left.wait(current).expect(NO_PANIC);
            }
        }
        self.disk.clone()
    }

    pub fn put_up(&self, open: OpenIndex) -> Arc<OpenIndex> {
        let open = Arc::new(open);
        *self.lock() = Some(open.clone());
        open
    }

    /// Closes the index, or leaves that to its last reader: the caller may hold a snapshot itself.
    pub fn close(&self) {
        let open = self.lock().take();
        drop(open);
    }

    pub fn lock(&self) -> MutexGuard<'_, Option<Arc<OpenIndex>>> {
        self.current.lock()
    }
}

/// How far redb's pages are trusted when the index is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// As after any shutdown or crash: verified only if the container is in doubt.
    AsFound,
    /// Every page is verified before it is used.
    Verified,
    /// The same, and the file counts as a copy of a live one, whatever it says itself.
    Copy,
}

pub fn open_database(container: &Arc<Container>, verify: bool) -> Result<redb::Database, OpenErrorKind> {
    let verify = verify || container.is_copy();
    if container.is_copy() {
        container.change_index_header(redb_header::forget_free_lists).map_err(OpenErrorKind::Io)?;
    }
    let mut builder = redb::Database::builder();
    builder.set_cache_size(CACHE_OCTETS);
    builder.set_check_integrity_on_open(verify);
    let open = || builder.create_with_backend(IndexBackend(container.clone()));
    Ok(if verify { container.reading_index_ahead(open)? } else { open()? })
}
