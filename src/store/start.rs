//! Opens or creates a store and starts its threads.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use smol::channel::WeakSender;

use crate::lock::Mutex;
use crate::replace::sync_directory_of;
use crate::store::file::container::{Container, ContainerError};
use crate::store::file::disk::{DataFile, Disk};
use crate::store::file::log_zone;
use crate::store::file::overlay::Overlay;
use crate::store::file::resync::Resync;
use crate::store::file::space::{Pins, Space};
use crate::store::index::tables::Tables;
use crate::store::index::{Beginning, Fault, RecentTexts, RemovedNames, Tx};
use crate::store::open::claims::Claims;
use crate::store::open::queue::{self, Order};
use crate::store::open::recovery::open_index;
use crate::store::open::verified::Verified;
use crate::store::open::window::Time;
use crate::store::open::{Inner, OpenError, OpenErrorKind, OpenIndex, Shared, Store, Trust, open_database};
use crate::store::writer::{PACE, Pace, Writer};

/// Times the clock may still have to read.
const DUES_MAX: usize = 16;

impl Store {
    /// Opens a store for checking. Writes go nowhere.
    pub(in crate::store) fn open_to_check_on(
        disk: Arc<dyn Disk>,
        trust: Trust,
    ) -> Result<Self, OpenErrorKind> {
        let overlay = Overlay::new(disk).map_err(OpenErrorKind::Io)?;
        Self::open_with(Arc::new(overlay), trust)
    }

    /// Opens an unnamed file that is open for reading and writing, and verifies it.
    pub fn open_file_verified(file: std::fs::File) -> Result<Self, OpenErrorKind> {
        let disk = DataFile::locked(file).map_err(OpenErrorKind::from)?;
        Self::open_with(Arc::new(disk), Trust::Verified)
    }

    /// Creates a store in a new data file. The file counts as a store once all of it is durable.
    pub fn create(path: &Path) -> Result<Self, OpenError> {
        let disk = Arc::new(lock_file(path, true)?);
        let store = Self::create_on(disk).map_err(|e| e.at(path))?;
        sync_directory_of(path).map_err(|e| OpenErrorKind::Io(e).at(path))?;
        Ok(store)
    }

    pub(in crate::store) fn open_on(disk: Arc<dyn Disk>) -> Result<Self, OpenErrorKind> {
        Self::open_with(disk, Trust::AsFound)
    }

    pub(in crate::store) fn open_with(disk: Arc<dyn Disk>, trust: Trust) -> Result<Self, OpenErrorKind> {
        Self::open_at_pace(disk, trust, PACE, Time::real())
    }

    pub(in crate::store) fn open_at_pace(
        disk: Arc<dyn Disk>,
        trust: Trust,
        pace: Pace,
        time: Time,
    ) -> Result<Self, OpenErrorKind> {
        let disk: Arc<dyn Disk> = Arc::new(Resync::new(disk));
        let pins = Pins::default();
        let (open, space) = open_index(disk.clone(), pins.clone(), trust)?;
        Self::start(disk, pins, open, space, pace, time)
    }

    pub(in crate::store) fn create_on(disk: Arc<dyn Disk>) -> Result<Self, OpenErrorKind> {
        if disk.len().map_err(OpenErrorKind::Io)? > 0 {
            match Container::open(disk.clone()) {
                // Creating it was cut short, so it never held acknowledged mail. Start again.
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

    fn start(
        disk: Arc<dyn Disk>,
        pins: Pins,
        open: OpenIndex,
        space: Space,
        pace: Pace,
        time: Time,
    ) -> Result<Self, OpenErrorKind> {
        let totals = open.totals()?;
        let shared = Arc::new(Shared {
            disk,
            pins,
            claims: Claims::default(),
            verified: Verified::default(),
            current: Mutex::new(Some(Arc::new(open))),
            visitor_left: Condvar::new(),
            reopening_was_requested: AtomicBool::new(false),
            copy_window: Mutex::default(),
            compactions: AtomicUsize::default(),
            long_lists: Mutex::default(),
            oldest: Mutex::default(),
        });
        let (queue, jobs) = smol::channel::bounded(queue::QUEUE_MAX);
        let (clock, dues) = std::sync::mpsc::sync_channel(DUES_MAX);
        if pace.checkpoint_after.is_some() {
            let queue = queue.downgrade();
            let thread = std::thread::Builder::new().name("store clock".into());
            thread.spawn(move || run_clock(&dues, &queue)).map_err(OpenErrorKind::Io)?;
        }
        let writer = Writer::new(shared.clone(), jobs, space, &totals, pace, time, clock);
        let thread = std::thread::Builder::new().name("store writer".into());
        let writer = thread.spawn(move || writer.run()).map_err(OpenErrorKind::Io)?;
        Ok(Self(Arc::new(Inner { shared, queue: Some(queue), writer: Some(writer) })))
    }
}

/// The first transaction: every table, and the counts of an empty store.
fn make_tables(database: &redb::Database, container: &Container) -> Result<(), OpenErrorKind> {
    let mut transaction = database.begin_write().map_err(Fault::from)?;
    transaction.set_quick_repair(true);
    let mut space = Space::empty(Pins::default());
    let tables = Tables::open_unlogged(&transaction)?;
    let epoch = log_zone::new_epoch().map_err(OpenErrorKind::Io)?;
    let beginning = Beginning { epoch, log_octets: PACE.log_octets };
    let (mut recent, mut names) = (RecentTexts::default(), RemovedNames::default());
    Tx::begin(tables, &mut space, &mut recent, &mut names, container, true)?
        .settle(|_| Ok(Some(beginning)))?;
    transaction.commit().map_err(Fault::from)?;
    Ok(())
}

/// Wakes the writer at each time it has asked for. Ends with the store.
fn run_clock(dues: &Receiver<Instant>, queue: &WeakSender<Order>) {
    let mut waiting = BTreeSet::new();
    loop {
        let next = waiting.first().map(|due: &Instant| due.saturating_duration_since(Instant::now()));
        match next {
            Some(Duration::ZERO) => {
                waiting.pop_first();
                let Some(queue) = queue.upgrade() else { return };
                // If the queue is full, the writer will look at the clock by itself soon.
                let _ = queue.try_send(Order::Wake);
            }
            Some(wait) => match dues.recv_timeout(wait) {
                Ok(due) => drop(waiting.insert(due)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            },
            None => match dues.recv() {
                Ok(due) => drop(waiting.insert(due)),
                Err(_) => return,
            },
        }
    }
}

pub fn lock_file(path: &Path, create: bool) -> Result<DataFile, OpenError> {
    DataFile::open(path, create).map_err(|e| OpenErrorKind::from(e).at(path))
}
