//! The writer thread: one queue, one transaction at a time, group commit.
//!
//! It takes everything queued, applies it in one transaction, makes that durable with one log record, and
//! answers everyone. A checkpoint makes the index itself durable and restarts the log. Invariants:
//!
//! - Nobody is answered, and no reader sees a change, before its record is durable. Long texts are durable
//!   before the record: other threads have placed them (`mail/placing.rs`), or else the writer does.
//! - A commit is itself a checkpoint if its record does not fit into the log, or if the disk lacks room for
//!   what a later checkpoint would write; it may then fail and is undone. All other checkpoints come after the
//!   answers.
//! - A fault undoes the whole batch. Then each job is tried alone, so that one cannot spoil another.
//! - After an I/O error redb refuses everything, so the index is reopened from the disk. Whether the failed
//!   commit got through is read from the store's own count of commits, never guessed. Only if the disk cannot
//!   even be read does it stay unknown; nothing is then retried, and everyone is told of the fault.
//! - A checkpoint or purge that makes room for a batch counts as a commit too. If it fails, the batch is undone
//!   whatever the count says.
//! - A panic of a job or of redb is handled like any other fault: the index is reopened and the old handle
//!   leaked (`contained.rs`). One message that hits a bug does not stop the service.

mod tighten;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use smol::channel::Receiver;

use crate::store::file::log_zone::{self, Log};
use crate::store::file::space::Space;
use crate::store::index::contained::{self, Leaky, Panicked};
use crate::store::index::rows::StoreRow;
use crate::store::index::tables::Tables;
use crate::store::index::types::MailboxId;
use crate::store::index::{Beginning, Fault, RecentTexts, RemovedNames, Tx};
use crate::store::open::queue::{Job, Order, Reserved, TextToCome};
use crate::store::open::recovery::open_index;
use crate::store::open::window::{Time, Window};
use crate::store::open::{OpenIndex, Shared, Trust, Visit};

/// Most jobs in one transaction.
const BATCH_MAX: usize = 512;
/// How often a transaction may wait for room to be made.
const PURGES_MAX: usize = 16;
/// Deleted messages purged at a time to make room.
const PURGED_AT_A_TIME: usize = 1000;

/// The log is nearly empty if less than this part of it is used.
const QUIET_PART: u64 = 16;
/// The log is shortened after this many checkpoints in a row that found it nearly empty.
const QUIET_CHECKPOINTS: u32 = if cfg!(test) { 4 } else { 60 };

/// A tick may be this late.
const TICK_ACCURACY: Duration = Duration::from_millis(10);

/// When to make checkpoints, and the log's initial length.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Time from the first record of a log; `None`: no clock runs.
    pub checkpoint_after: Option<Duration>,
    /// Octets that may wait for a checkpoint to free them.
    pub retired_max: u64,
    /// Octets of the log zone in a new store. A checkpoint comes when it is three quarters full: a longer one writes
    /// fewer pages of the index for each message, and makes others wait for longer.
    pub log_octets: u64,
    /// Octets that may always be kept for plain copies of the file; `None`: nothing is ever kept.
    pub for_copies: Option<u64>,
}

/// Tests make their own checkpoints, or get them from their small log, so that a run can be repeated.
pub const PACE: Pace = if cfg!(test) {
    Pace { checkpoint_after: None, retired_max: 512 << 10, log_octets: 512 << 10, for_copies: None }
} else {
    Pace {
        checkpoint_after: Some(Duration::from_secs(1)),
        retired_max: 64 << 20,
        log_octets: 8 << 20,
        for_copies: Some(64 << 20),
    }
};

/// Whether the disk had room for what a transaction wanted to store.
enum Room {
    Enough,
    /// No, but a checkpoint makes room. Nothing was changed.
    AfterACheckpoint,
    /// No, but deleted mail could be given up. Nothing was changed.
    AfterAPurge,
}

/// Gives up deleted mail that could have been undeleted.
struct Purge;

impl Job for Purge {
    fn apply(&mut self, tx: &mut Tx<'_, '_>) -> Result<(), Fault> {
        tx.purge_oldest(PURGED_AT_A_TIME, u64::MAX).map(drop)
    }

    fn answer(self: Box<Self>, _outcome: Result<(), Fault>) {}
}

/// The state of a transaction that met a fault.
enum Failure {
    /// Nothing of it is in the store.
    Undone(Fault),
    /// It may be in the store.
    Unknown(Fault),
}

pub struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<Order>,
    space: Space,
    recent: RecentTexts,
    removed_names: RemovedNames,
    log: Log,
    pace: Pace,
    /// What is kept for copies of the file.
    window: Window,
    /// Takes the times at which to wake the writer.
    clock: SyncSender<Instant>,
    next_tick: Option<Instant>,
    /// True if checkpoints give up extents without texts.
    is_giving_up: bool,
    /// Time of the first record since the last checkpoint.
    first_record: Instant,
    /// True if a record did not fit into the log: the next checkpoint lengthens it.
    log_was_full: bool,
    /// Checkpoints in a row that found the log nearly empty.
    quiet_checkpoints: u32,
    /// The store's count of commits.
    commits: u64,
    /// True unless the current transaction only makes room for the batch, which is then not in the store even if the
    /// transaction is.
    carries_batch: bool,
    /// Mailboxes whose sessions end once the current transaction is durable.
    revoked: Vec<MailboxId>,
    /// True if a sync has failed since the index was opened. What it lost may be gone from the page cache too
    /// (on btrfs it is), so redb's pages are then verified when the index is reopened.
    a_sync_failed: bool,
    /// True if the disk was full when mail was last stored. Logged once, not for every message.
    disk_was_full: bool,
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        queue: Receiver<Order>,
        space: Space,
        totals: &StoreRow,
        pace: Pace,
        time: Time,
        clock: SyncSender<Instant>,
    ) -> Self {
        let log = Log::new(shared.disk.clone(), totals.epoch, totals.log_octets);
        Self {
            shared,
            queue,
            space,
            recent: RecentTexts::default(),
            removed_names: RemovedNames::default(),
            log,
            pace,
            window: Window::new(time, pace.for_copies),
            clock,
            next_tick: None,
            is_giving_up: false,
            first_record: Instant::now(),
            log_was_full: false,
            quiet_checkpoints: 0,
            commits: totals.commits,
            carries_batch: true,
            revoked: Vec::new(),
            a_sync_failed: false,
            disk_was_full: false,
        }
    }

    /// Works until every sender of the queue is gone.
    pub fn run(mut self) {
        if let Ok(open) = self.shared.current() {
            self.hold_for_copies(&open, self.shared.pins.now());
            self.release(&open);
        }
        while let Ok(first) = self.queue.recv_blocking() {
            let (mut batch, mut checkpoints, mut tightenings) = (Vec::new(), Vec::new(), Vec::new());
            let mut next = Some(first);
            while let Some(order) = next {
                match order {
                    Order::Change(job) => batch.push(job),
                    Order::Reserve(text, answer) => answer.give(Ok(self.keep_room(text))),
                    // What is due is seen to below in any case.
                    Order::Wake => {}
                    Order::Checkpoint(then) => checkpoints.push(then),
                    Order::Tighten(answer) => tightenings.push(answer),
                }
                next = if batch.len() < BATCH_MAX { self.queue.try_recv().ok() } else { None };
            }
            if batch.is_empty() {
                // If it fails, the next order finds out.
                if let Ok(open) = self.sound_index() {
                    self.release(&open);
                }
            } else {
                self.carry_out(batch);
            }
            let is_due = !checkpoints.is_empty() || self.checkpoint_is_due();
            if is_due {
                let outcome = self.checkpoint();
                checkpoints.into_iter().for_each(|then| then(outcome.clone()));
            }
            for answer in tightenings {
                answer.give(self.tighten());
            }
            // In every round, because the clock may have been set for something earlier. But a checkpoint that failed
            // is tried again only with the next order.
            if let Some(after) = self.pace.checkpoint_after.filter(|_| !is_due && !self.log.is_empty()) {
                self.wake_after(after.saturating_sub(self.first_record.elapsed()));
            }
        }
        if self.checkpoint().is_ok() {
            self.log.blank();
            if let Ok(open) = self.shared.current() {
                self.space.erase_now(&open.container);
            }
        }
        self.window.clear();
        self.shared.close();
    }

    fn carry_out(&mut self, mut batch: Vec<Box<dyn Job>>) {
        match self.commit_or_recover(&mut batch) {
            Err(Failure::Undone(_)) if batch.len() > 1 => {
                batch.into_iter().for_each(|job| self.carry_out(vec![job]));
            }
            Ok(()) => batch.into_iter().for_each(|job| job.answer(Ok(()))),
            Err(Failure::Undone(fault) | Failure::Unknown(fault)) => {
                batch.into_iter().for_each(|job| job.answer(Err(fault.clone())));
            }
        }
    }

    /// Reserves room for a text that another thread will write; `None` if there is none.
    fn keep_room(&mut self, text: TextToCome) -> Option<Reserved> {
        let open = self.sound_index().ok()?;
        open.container.fill_reserve(self.log.used()).ok()?;
        let draft = self.space.take_draft(text.wire_octets, &open.container).ok()?;
        let visit = Visit { shared: self.shared.clone(), open: Some(open) };
        Some(Reserved { draft, known: self.recent.find(&text.hash), visit })
    }

    /// True if a checkpoint is due that nobody waits for.
    fn checkpoint_is_due(&self) -> bool {
        let is_time = self.pace.checkpoint_after.is_some_and(|after| self.first_record.elapsed() >= after);
        !self.log.is_empty()
            && (is_time
                || self.log.used() > self.log.len() / 4 * 3
                || self.space.waits_for_checkpoint() > self.pace.retired_max)
    }

    /// Makes everything in the log part of the durable index.
    fn checkpoint(&mut self) -> Result<(), Fault> {
        if self.log.is_empty() { Ok(()) } else { self.checkpoint_in_any_case() }
    }

    fn checkpoint_in_any_case(&mut self) -> Result<(), Fault> {
        match self.commit_or_recover(&mut []) {
            Ok(()) => Ok(()),
            Err(Failure::Undone(fault) | Failure::Unknown(fault)) => Err(fault),
        }
    }

    /// Runs one transaction; without jobs it is a checkpoint.
    fn commit_or_recover(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), Failure> {
        let open = self.sound_index().map_err(Failure::Undone)?;
        self.revoked.clear();
        self.carries_batch = true;
        let outcome = contained::change(|| self.commit(&open, batch));
        let fault = match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(fault)) if open.is_usable() => {
                self.aborted();
                return Err(Failure::Undone(fault));
            }
            Ok(Err(fault)) => fault,
            Err(Panicked(fault)) => {
                open.container.give_up();
                fault
            }
        };
        log::error!("{fault}; reopening the data file");
        drop(open);
        let before = self.commits;
        self.reopen().map_err(Failure::Unknown)?;
        if self.commits == before {
            return Err(Failure::Undone(fault));
        }
        self.shared.revoke(&self.revoked);
        if self.carries_batch { Ok(()) } else { Err(Failure::Undone(fault)) }
    }

    /// A transaction failed; the tables have nothing of it.
    fn aborted(&mut self) {
        self.space.aborted();
        self.removed_names.forget();
    }

    /// The open index, or a reopened one if it met a fault: the disk may be back.
    fn sound_index(&mut self) -> Result<Arc<OpenIndex>, Fault> {
        match self.shared.current().ok().filter(|open| !open.container.has_failed()) {
            Some(open) => Ok(open),
            None => self.reopen(),
        }
    }

    fn commit(&mut self, open: &OpenIndex, batch: &mut [Box<dyn Job>]) -> Result<(), Fault> {
        for _ in 0..PURGES_MAX {
            let waiting = self.space.waiting_octets();
            match self.transaction(open, batch, true)? {
                Room::Enough => return Ok(()),
                Room::AfterACheckpoint => self.window.give_way(),
                Room::AfterAPurge => {
                    log::warn!("the disk is full: deleting mail for good that could still be undeleted");
                    self.make_room(open, &mut [Box::new(Purge)])?;
                    self.window.give_way();
                }
            }
            self.make_room(open, &mut [])?;
            // What waits even now is held by readers, who would also hold whatever else was given up.
            let still_waiting = self.space.waiting_octets();
            if still_waiting > 0 && still_waiting >= waiting {
                break;
            }
        }
        self.transaction(open, batch, false).map(drop)
    }

    /// Runs a transaction without the batch.
    fn make_room(&mut self, open: &OpenIndex, jobs: &mut [Box<dyn Job>]) -> Result<(), Fault> {
        self.carries_batch = false;
        self.transaction(open, jobs, false)?;
        self.carries_batch = true;
        Ok(())
    }

    /// With `may_wait`, does nothing if a checkpoint or a purge must make room first.
    fn transaction(
        &mut self,
        open: &OpenIndex,
        batch: &mut [Box<dyn Job>],
        may_wait: bool,
    ) -> Result<Room, Fault> {
        let is_checkpoint = batch.is_empty();
        self.release(open);
        let reserve = open.container.fill_reserve(self.log.used());
        let room_can_be_made = may_wait && !is_checkpoint && self.room_can_be_made(open);
        if reserve.is_err() && room_can_be_made {
            return Ok(Room::AfterACheckpoint);
        }
        self.note_disk(&reserve);
        let log_octets = self.log_octets(is_checkpoint);
        let mut transaction = Leaky::new(open.database().begin_write()?);
        let settled = {
            let tables = Tables::new(&transaction);
            let mut tx = Leaky::new(Tx::begin(
                tables,
                &mut self.space,
                &mut self.recent,
                &mut self.removed_names,
                &open.container,
                reserve.is_ok(),
            )?);
            for job in batch.iter_mut() {
                job.apply(&mut tx)?;
            }
            // If something waits that no checkpoint can free, readers hold it, and would hold purged mail as well.
            let can_purge = may_wait && tx.space.waiting_octets() == 0;
            if tx.room_was_missing && (room_can_be_made || can_purge && tx.keeps_something()?) {
                drop(tx);
                self.aborted();
                return Ok(if room_can_be_made { Room::AfterACheckpoint } else { Room::AfterAPurge });
            }
            if is_checkpoint && self.is_giving_up {
                tx.space.give_up_free_extents();
            }
            let (log, log_was_full) = (&self.log, &mut self.log_was_full);
            tx.settle(|octets| {
                *log_was_full |= !log.fits(octets);
                // Whatever is logged must be sure to fit into the index.
                let logged = log.used() + octets as u64;
                let is_logged =
                    !is_checkpoint && log.fits(octets) && open.container.fill_reserve(logged).is_ok();
                let begins = || Ok(Beginning { epoch: log_zone::new_epoch()?, log_octets });
                (!is_logged).then(begins).transpose()
            })?
        };
        self.revoked = settled.revoked;
        match settled.begins {
            Some(Beginning { epoch, log_octets }) => {
                // Quick repair implies two-phase commit: after a crash the index need not be rebuilt, and no
                // row lacks its blob.
                transaction.set_quick_repair(true);
                transaction.into_inner().commit()?;
                self.log.begin(epoch, log_octets);
                self.space.committed();
                self.space.checkpointed();
                self.hold_for_copies(open, self.shared.pins.now());
                if self.space.log_is_to_be_erased() {
                    self.log.erase();
                    self.space.log_was_erased();
                }
            }
            None => {
                if settled.has_long_texts {
                    open.container.sync_texts()?;
                }
                if self.log.is_empty() {
                    self.first_record = Instant::now();
                }
                if let Err(e) = self.log.append(settled.number, &settled.changes) {
                    open.container.note_failed_log();
                    return Err(e.into());
                }
                transaction.set_durability(redb::Durability::None).expect("there are no savepoints");
                transaction.into_inner().commit()?;
                self.space.committed();
            }
        }
        self.release(open);
        self.shared.revoke(&self.revoked);
        // Last: after a panic above, the count in the file then tells that this transaction is in it.
        self.commits += 1;
        Ok(Room::Enough)
    }

    /// Preserves the present checkpoint for copies of the file that find it.
    fn hold_for_copies(&mut self, open: &OpenIndex, moment: u64) {
        if let Err(fault) = self.window.checkpointed(open, moment) {
            // Copies made now will turn out damaged when they are opened.
            log::warn!("plain copies of the data file made now will not be usable: {fault}");
            self.window.give_way();
        }
    }

    /// Frees what nobody needs any more.
    fn release(&mut self, open: &OpenIndex) {
        loop {
            let horizon = self.window.horizon();
            self.space.release(&open.container, horizon);
            let retired = self.space.waiting_octets_without_readers();
            if !self.window.shorten(retired, open.container.index_octets_written()) {
                let status = self.window.status(retired, open.container.index_octets_written());
                break self.shared.note_copy_window(status);
            }
        }
        // What `stat` says must change although nothing else does.
        let recovery = self.window.recovers_after();
        let release = self.window.next_release().filter(|_| self.space.waiting_octets() > 0);
        if let Some(after) = recovery.into_iter().chain(release).min() {
            self.wake_after(after);
        }
    }

    /// True if a checkpoint would free something.
    fn room_can_be_made(&self, open: &OpenIndex) -> bool {
        let retired = self.space.waiting_octets_without_readers();
        let written = open.container.index_octets_written();
        self.space.waits_for_checkpoint() > 0 || self.window.keeps_something(retired, written)
    }

    /// Asks the clock for a tick after this time.
    fn wake_after(&mut self, after: Duration) {
        let due = Instant::now() + after;
        let is_behind =
            self.next_tick.is_none_or(|next| due + TICK_ACCURACY < next || next <= Instant::now());
        // If the clock is behind, the writer will look at its own soon.
        if is_behind && self.clock.try_send(due).is_ok() {
            self.next_tick = Some(due);
        }
    }

    /// Length of the log after the next checkpoint: longer if it was full; the initial length if it has long
    /// been nearly empty, or if space is being given up.
    fn log_octets(&mut self, is_checkpoint: bool) -> u64 {
        let len = self.log.len();
        if !is_checkpoint {
            return len;
        }
        let is_quiet = self.log.used() < len / QUIET_PART;
        self.quiet_checkpoints = if is_quiet { self.quiet_checkpoints + 1 } else { 0 };
        match std::mem::take(&mut self.log_was_full) {
            _ if self.is_giving_up || self.quiet_checkpoints > QUIET_CHECKPOINTS => {
                len.min(self.pace.log_octets)
            }
            // Without room for a longer log the present one will do.
            true => self.log.lengthen().unwrap_or(len),
            false => len,
        }
    }

    fn note_disk(&mut self, reserve: &std::io::Result<()>) {
        match reserve {
            Err(e) if !self.disk_was_full => {
                log::error!("the disk is full ({e}): refusing mail until it has room");
                self.disk_was_full = true;
            }
            Ok(()) if self.disk_was_full => {
                log::warn!("the disk has room again: accepting mail");
                self.disk_was_full = false;
            }
            _ => {}
        }
    }

    /// Reopens the index from the disk, once no reader of the old one is left.
    fn reopen(&mut self) -> Result<Arc<OpenIndex>, Fault> {
        self.a_sync_failed |= self.shared.current().is_ok_and(|open| open.container.a_sync_failed());
        let trust = if self.a_sync_failed { Trust::Verified } else { Trust::AsFound };
        // From here on, what a copy in progress has read may be overwritten.
        self.window.give_way();
        let disk = self.shared.take_down();
        // If this fails, the next reader may ask again.
        self.shared.reopening_was_requested.store(false, Ordering::Relaxed);
        let (open, mut space) = open_index(disk, self.shared.pins.clone(), trust)
            .map_err(|e| Fault::Io(format!("reopening it failed: {e}")))?;
        let moment = self.shared.pins.now();
        space.inherit_retired(&self.space);
        // Opening found a checkpoint or made one.
        space.checkpointed();
        self.space = space;
        self.removed_names.forget();
        self.a_sync_failed = false;
        let totals = open.totals()?;
        self.commits = totals.commits;
        self.log.begin(totals.epoch, totals.log_octets);
        self.hold_for_copies(&open, moment);
        Ok(self.shared.put_up(open))
    }
}
