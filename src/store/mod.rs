//! The mail store: one data file with everything in it.
//!
//! A message is a row (mailbox, sequence) that names a text; a text is a row that says where its octets lie and how
//! many messages have it. A change is durable when its record is in the log; the index is brought up to date without
//! syncs, and made durable at checkpoints. The states of a run of octets in the blob space, and who knows of it:
//!
//! | state | row now | row at the last checkpoint | in the log | may be written |
//! | --- | --- | --- | --- | --- |
//! | free | − | − | − | + |
//! | draft: taken and written by the transaction under way | − | − | − | + |
//! | logged, short | + | − | rows, text | − |
//! | logged, long: durable in its place | + | − | rows | − |
//! | stored | + | + | − | − |
//! | retired since the checkpoint | − | + (− if stored since) | removal | − |
//! | retired before it: a reader may still look at it | − | − | − | when no pin is left |
//!
//! - Nobody is answered before the record is durable; record n+1 is written when n is durable.
//! - Nothing retired since the last checkpoint is given out or punched: its row may come back, and a short text that is
//!   written once more from the log would lie over what took its place.
//! - Long texts are durable before their record is.
//! - A stored text is written over with its own octets only: when the same text comes again (`delivery.rs`).
//!
//! Guarantee: *after a crash at any instant, a text with a row is whole, a message with a row has its text, the counts
//! are those of the rows, and every other octet of the blob space is free.*
//!
//! What lies where in the file: `container.rs`. The tables: `tables.rs`. Changes go through one
//! thread: `writer.rs`. The log: `log_zone.rs`, `record.rs`; what is made of it after a crash: `recovery.rs`.
//! The store knows no protocol and no executor; what it returns can be awaited or waited for.

mod backup;
mod body;
mod check;
mod contained;
mod container;
mod delivery;
mod directory;
mod disk;
mod index;
mod log_zone;
mod maildrop;
mod mapping;
mod open_error;
mod overlay;
mod quota;
mod record;
mod recovery;
mod repair;
mod resync;
mod rows;
mod salvage;
#[cfg(test)]
mod simulated;
mod space;
mod tables;
#[cfg(test)]
mod tests;
mod verified;
mod writer;

pub use backup::{NotReplaced, may_replace};
pub use body::{Body, Incoming, Spool};
pub use check::CheckReport;
pub use delivery::Letter;
pub use directory::{LockChange, Refused, Removed};
pub use disk::DiskUsage;
pub use index::{Fault, Read, Tx};
pub use maildrop::{Maildrop, Revocation, StoredMessage};
pub use open_error::{OpenError, OpenErrorKind};
pub use quota::of_mailbox as quota_of_mailbox;
pub use repair::{LostMessage, RepairReport};
#[cfg(any(test, fuzzing))]
pub use rows::fuzz_rows;
pub use rows::{CertificateRow, DomainRow, PrivateKey};
#[cfg(any(test, fuzzing))]
pub use salvage::fuzz_tree;
pub use writer::Pending;

use container::{Container, ContainerError, IndexBackend};
use disk::{DataFile, Disk};
use index::{Beginning, Snapshot as IndexSnapshot};
use maildrop::Maildrops;
use overlay::Overlay;
use recovery::open_index;
use resync::Resync;
use rows::StoreRow;
use smol::channel::{Receiver, Sender, WeakSender};
use space::{Pin, Pins, Space};
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tables::Tables;
use verified::Verified;
use writer::{Order, Pace, Writer};

/// redb's cache, in octets. Its default is a gibibyte of heap.
const CACHE_OCTETS: usize = 64 << 20;

/// A test makes its checkpoints itself, or by the length of its small log, so that a run can be repeated.
const PACE: Pace = if cfg!(test) {
    Pace { checkpoint_after: None, retired_max: 512 << 10, log_octets: 512 << 10 }
} else {
    Pace { checkpoint_after: Some(Duration::from_secs(1)), retired_max: 64 << 20, log_octets: 4 << 20 }
};

/// An open mail store. Clones are handles on the same one; the last of them closes it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// Taken when the store is closed.
    queue: Option<Sender<Order>>,
    writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store in a data file and locks it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let disk = Arc::new(lock_file(path, false)?);
        Self::open_on(disk).map_err(|e| e.at(path))
    }

    /// Opens a store to check it, and compares every page of its index with its checksum first. What is written goes
    /// nowhere.
    fn open_to_check_on(disk: Arc<dyn Disk>) -> Result<Self, OpenErrorKind> {
        let overlay = Overlay::new(disk).map_err(OpenErrorKind::Io)?;
        Self::open_with(Arc::new(overlay), Trust::Verified)
    }

    /// The same for a file that is open already, for reading and writing, and has no name of its own yet.
    pub fn open_file_verified(file: std::fs::File) -> Result<Self, OpenErrorKind> {
        let disk = DataFile::locked(file).map_err(OpenErrorKind::from)?;
        Self::open_with(Arc::new(disk), Trust::Verified)
    }

    /// Makes a store in a new data file; the file counts as a store when all of it is durable.
    pub fn create(path: &Path) -> Result<Self, OpenError> {
        let disk = Arc::new(lock_file(path, true)?);
        let store = Self::create_on(disk).map_err(|e| e.at(path))?;
        sync_directory_of(path).map_err(|e| OpenErrorKind::Io(e).at(path))?;
        Ok(store)
    }

    fn open_on(disk: Arc<dyn Disk>) -> Result<Self, OpenErrorKind> {
        Self::open_with(disk, Trust::AsFound)
    }

    fn open_with(disk: Arc<dyn Disk>, trust: Trust) -> Result<Self, OpenErrorKind> {
        let disk: Arc<dyn Disk> = Arc::new(Resync::new(disk));
        let pins = Pins::default();
        let (open, space) = open_index(disk.clone(), pins.clone(), trust)?;
        Self::start(disk, pins, open, space)
    }

    fn create_on(disk: Arc<dyn Disk>) -> Result<Self, OpenErrorKind> {
        if disk.len().map_err(OpenErrorKind::Io)? > 0 {
            match Container::open(disk.clone()) {
                // Its making was cut short, so nothing was ever acknowledged in it: it is made again.
                Err(ContainerError::Unfinished) => {}
                Err(e) => return Err(e.into()),
                Ok(_) => return Err(OpenErrorKind::AlreadyExists),
            }
        }
        let container = Container::create(disk.clone()).map_err(OpenErrorKind::Io)?;
        let database = open_database(&container, false)?;
        log_zone::write_zeros(&*disk, 0..PACE.log_octets).map_err(OpenErrorKind::Io)?;
        make_tables(&database, &container)?;
        container.finish().map_err(OpenErrorKind::Io)?;
        database.close()?;
        Self::open_on(disk)
    }

    fn start(disk: Arc<dyn Disk>, pins: Pins, open: OpenIndex, space: Space) -> Result<Self, OpenErrorKind> {
        let totals = open.totals()?;
        let shared = Arc::new(Shared {
            disk,
            pins,
            maildrops: Maildrops::default(),
            verified: Verified::default(),
            current: Mutex::new(Some(Arc::new(open))),
            visitor_left: Condvar::new(),
            mending_was_asked: AtomicBool::new(false),
        });
        let (queue, jobs) = smol::channel::bounded(writer::QUEUE_MAX);
        let (clock, first_records) = smol::channel::bounded(1);
        if let Some(after) = PACE.checkpoint_after {
            let queue = queue.downgrade();
            let thread = std::thread::Builder::new().name("store clock".into());
            thread.spawn(move || run_clock(&first_records, after, &queue)).map_err(OpenErrorKind::Io)?;
        }
        let writer = Writer::new(shared.clone(), jobs, space, &totals, PACE, clock);
        let thread = std::thread::Builder::new().name("store writer".into());
        let writer = thread.spawn(move || writer.run()).map_err(OpenErrorKind::Io)?;
        Ok(Self(Arc::new(Inner { shared, queue: Some(queue), writer: Some(writer) })))
    }

    /// A consistent view of the index. To be let go soon: see [`Snapshot`].
    pub fn read(&self) -> Result<Snapshot, Fault> {
        let outcome = self.0.shared.snapshot();
        if outcome.is_err() && !self.0.shared.mending_was_asked.swap(true, Ordering::Relaxed) {
            // A reader may have met the fault, and nobody might write for a long time. If there is no place in the
            // queue the writer has enough to do to find out by itself.
            let queue = self.0.queue.as_ref().expect("it is there until the store is closed");
            let _ = queue.try_send(Order::Mend);
        }
        outcome
    }

    /// Hands work to the writer. The closure may be called more than once, each time on a fresh transaction, so what it
    /// keeps outside of the transaction must not add up. It must look before it changes anything, since it
    /// shares its transaction with others.
    pub fn write<T, F>(&self, work: F) -> Pending<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_, '_>) -> Result<T, Fault> + Send + 'static,
    {
        let queue = self.0.queue.clone().expect("it is there until the store is closed");
        Pending::new(queue, work)
    }

    /// A view of the index and a pin on the texts, of the moment of a checkpoint: while it is held, redb still uses pages
    /// again that it made since. For what takes long.
    fn read_at_checkpoint(&self) -> Pending<(Pin, Snapshot)> {
        let queue = self.0.queue.clone().expect("it is there until the store is closed");
        let shared = self.0.shared.clone();
        Pending::after_checkpoint(queue, move || {
            // The pin comes before the snapshot: no text that the snapshot has is overwritten meanwhile.
            let pin = shared.pins.pin();
            Ok((pin, shared.snapshot()?))
        })
    }

    /// What the data file takes on the disk.
    pub fn disk_usage(&self) -> Result<DiskUsage, Fault> {
        Ok(self.0.shared.disk.usage()?)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // A panic of the writer has been printed by then, and there is nobody left to tell.
            let _ = writer.join();
        }
    }
}

/// What the handles, the readers and the writer have in common.
pub(in crate::store) struct Shared {
    disk: Arc<dyn Disk>,
    pins: Pins,
    maildrops: Maildrops,
    verified: Verified,
    /// None while the index is being opened anew, and after that has failed.
    current: Mutex<Option<Arc<OpenIndex>>>,
    visitor_left: Condvar,
    /// Whether a reader has asked the writer already to open the index anew.
    mending_was_asked: AtomicBool,
}

/// The container and the index in it, open.
pub(in crate::store) struct OpenIndex {
    /// Taken when the index is closed.
    database: Option<redb::Database>,
    container: Arc<Container>,
}

impl OpenIndex {
    fn new(database: redb::Database, container: Arc<Container>) -> Self {
        Self { database: Some(database), container }
    }

    fn database(&self) -> &redb::Database {
        self.database.as_ref().expect("it is there until the index is closed")
    }

    fn totals(&self) -> Result<StoreRow, Fault> {
        IndexSnapshot::begin(self.database())?.totals()
    }

    /// Whether the writer can go on with it after a fault.
    fn is_usable(&self) -> bool {
        !self.container.has_failed()
            && contained::change(|| self.database().begin_write().is_ok()).is_ok_and(|usable| usable)
    }
}

impl Drop for OpenIndex {
    fn drop(&mut self) {
        let database = self.database.take();
        if self.container.is_given_up() {
            // What redb was doing when it panicked is not known, and its destructor may panic too.
            std::mem::forget(database);
        } else if contained::change(|| drop(database)).is_err() {
            self.container.give_up();
        }
    }
}

impl Shared {
    fn current(&self) -> Result<Arc<OpenIndex>, Fault> {
        let current = self.lock();
        current.clone().ok_or_else(|| Fault::Io("an earlier fault of the disk is not mended".into()))
    }

    fn snapshot(self: &Arc<Self>) -> Result<Snapshot, Fault> {
        let visit = Visit { shared: self.clone(), open: Some(self.current()?) };
        if visit.open().container.has_failed() {
            return Err(Fault::Io("an earlier fault of the disk is not mended".into()));
        }
        let index = IndexSnapshot::begin(visit.open().database())?;
        Ok(Snapshot { index, visit })
    }

    /// Closes the index when its last reader is gone.
    fn take_down(&self) -> Arc<dyn Disk> {
        let mut current = self.lock();
        if let Some(open) = current.take() {
            while Arc::strong_count(&open) > 1 {
                current = self.visitor_left.wait(current).expect("no holder of this lock panics");
            }
        }
        self.disk.clone()
    }

    fn put_up(&self, open: OpenIndex) -> Arc<OpenIndex> {
        let open = Arc::new(open);
        *self.lock() = Some(open.clone());
        open
    }

    /// Closes the index, or leaves that to its last reader: who lets go of the store may be a reader himself.
    fn close(&self) {
        let open = self.lock().take();
        drop(open);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<OpenIndex>>> {
        self.current.lock().expect("no holder of this lock panics")
    }
}

/// Somebody reads the index: it is not closed under them.
struct Visit {
    shared: Arc<Shared>,
    open: Option<Arc<OpenIndex>>,
}

impl Visit {
    fn open(&self) -> &OpenIndex {
        self.open.as_ref().expect("it is there until the visit is dropped")
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let _current = self.shared.lock();
        self.open = None;
        self.shared.visitor_left.notify_all();
    }
}

/// A consistent view of the index, as of one commit. While it is held redb cannot reuse a page, and a data file that
/// met an I/O error cannot be opened anew: so not for longer than a question takes.
pub struct Snapshot {
    // Dropped before the visit ends.
    index: IndexSnapshot,
    visit: Visit,
}

impl Snapshot {
    fn container(&self) -> &Arc<Container> {
        &self.visit.open().container
    }
}

impl Deref for Snapshot {
    type Target = IndexSnapshot;

    fn deref(&self) -> &IndexSnapshot {
        &self.index
    }
}

/// How far redb's pages are trusted when they are opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// As after any shutdown or crash; verified only where the container gives reason for doubt.
    AsFound,
    /// Every page is compared with its checksum before it is used.
    Verified,
}

fn open_database(container: &Arc<Container>, verify: bool) -> Result<redb::Database, OpenErrorKind> {
    let mut builder = redb::Database::builder();
    builder.set_cache_size(CACHE_OCTETS);
    builder.set_check_integrity_on_open(verify);
    Ok(builder.create_with_backend(IndexBackend(container.clone()))?)
}

/// The first transaction: every table, and the counts of an empty store.
fn make_tables(database: &redb::Database, container: &Container) -> Result<(), OpenErrorKind> {
    let mut transaction = database.begin_write().map_err(Fault::from)?;
    transaction.set_quick_repair(true);
    let mut space = Space::empty(Pins::default());
    let tables = Tables::open_unlogged(&transaction)?;
    let epoch = log_zone::new_epoch().map_err(OpenErrorKind::Io)?;
    let beginning = Beginning { epoch, log_octets: PACE.log_octets };
    Tx::begin(tables, &mut space, container, true)?.settle(|_| Ok(Some(beginning)))?;
    transaction.commit().map_err(Fault::from)?;
    Ok(())
}

/// Tells the writer when the first record of a log is so old. Ends with the store.
fn run_clock(first_records: &Receiver<Instant>, after: Duration, queue: &WeakSender<Order>) {
    while let Ok(first) = first_records.recv_blocking() {
        std::thread::sleep((first + after).saturating_duration_since(Instant::now()));
        let Some(queue) = queue.upgrade() else { return };
        // If the queue is full, the writer looks at its own clock before long.
        let _ = queue.try_send(Order::Tick);
    }
}

fn lock_file(path: &Path, create: bool) -> Result<DataFile, OpenError> {
    DataFile::open(path, create).map_err(|e| OpenErrorKind::from(e).at(path))
}

/// Makes the name of a new file durable.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::File::open(directory)?.sync_all()
}
