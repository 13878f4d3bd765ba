//! The writer thread: one queue, one transaction at a time, group commit.
//!
//! It takes all that has queued, applies it in one transaction, commits, and answers everyone. Invariants:
//!
//! - Nobody is answered before the commit is durable.
//! - A fault in a batch undoes the whole batch; then each of its jobs is tried alone, so that one cannot spoil another.
//! - When redb has met an I/O error it refuses everything after; then the index is opened anew from the disk. Whether
//!   the commit that failed got through is read from the store's own count of commits, never guessed. Only where the
//!   disk cannot even be read is it not known; then nothing is tried again, and everyone is told of the fault.
//! - A panic, of a job or of redb, is a fault like any other, after which the index is opened anew and the old handle
//!   is leaked (`contained.rs`): one message that meets a bug does not end the service.

use super::contained::{self, Leaky, Panicked};
use super::index::{Fault, Tables, Tx};
use super::space::Space;
use super::{OpenIndex, Shared, Trust, open_index};
use smol::channel::{Receiver, Sender};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// Jobs that may wait; whoever brings one more waits for a place.
pub const QUEUE_MAX: usize = 1024;
/// Jobs in one transaction.
const BATCH_MAX: usize = 512;

/// Work for the writer. It may be applied more than once, each time to a fresh transaction.
pub trait Job: Send {
    fn apply(&mut self, tx: &mut Tx<'_, '_>) -> Result<(), Fault>;
    /// Says what became of the last `apply`: it is durable, or undone.
    fn answer(self: Box<Self>, outcome: Result<(), Fault>);
}

/// A job that only makes the writer look whether the index has to be opened anew.
pub struct Mend;

impl Job for Mend {
    fn apply(&mut self, _: &mut Tx<'_, '_>) -> Result<(), Fault> {
        Ok(())
    }

    fn answer(self: Box<Self>, _: Result<(), Fault>) {}
}

/// A job made of a closure.
pub struct Call<T, F> {
    work: F,
    value: Option<T>,
    reply: Sender<Result<T, Fault>>,
}

impl<T: Send, F: FnMut(&mut Tx<'_, '_>) -> Result<T, Fault> + Send> Job for Call<T, F> {
    fn apply(&mut self, tx: &mut Tx<'_, '_>) -> Result<(), Fault> {
        self.value = Some((self.work)(tx)?);
        Ok(())
    }

    fn answer(mut self: Box<Self>, outcome: Result<(), Fault>) {
        let value = outcome.map(|()| self.value.take().expect("it was applied before it was committed"));
        // Whoever asked may have gone away; what was done stays done.
        let _ = self.reply.try_send(value);
    }
}

/// The answer to come of a job. It can be awaited, or waited for.
#[must_use = "what was asked for is done only when this has answered"]
pub struct Pending<T> {
    sent: Pin<Box<dyn Future<Output = Result<T, Fault>> + Send>>,
}

impl<T: Send + 'static> Pending<T> {
    pub fn new<F>(queue: Sender<Box<dyn Job>>, work: F) -> Self
    where
        F: FnMut(&mut Tx<'_, '_>) -> Result<T, Fault> + Send + 'static,
    {
        let sent = Box::pin(async move {
            let (reply, answer) = smol::channel::bounded(1);
            let job = Box::new(Call { work, value: None, reply });
            queue.send(job).await.map_err(|_| Fault::Closed)?;
            // The queue's end is let go, so that waiting for the answer does not keep the writer alive.
            drop(queue);
            answer.recv().await.unwrap_or(Err(Fault::Closed))
        });
        Self { sent }
    }

    /// Waits, blocking the thread.
    pub fn wait(self) -> Result<T, Fault> {
        smol::block_on(self)
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.sent.as_mut().poll(context)
    }
}

/// What became of a transaction that met a fault.
enum Failure {
    /// Nothing of it is in the store.
    Undone(Fault),
    /// It may be in the store or not.
    Unknown(Fault),
}

pub struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<Box<dyn Job>>,
    space: Space,
    /// As the store counts them.
    commits: u64,
    /// The mailboxes whose sessions end when the transaction under way is durable.
    revoked: Vec<u32>,
    /// Whether a sync has failed since the index was opened. What that has lost the page cache may have lost too (on btrfs it
    /// has), so redb's pages are not taken then for what was written.
    a_sync_failed: bool,
    /// Whether the disk was full the last time mail was to be stored; said once, not for every message.
    disk_was_full: bool,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, queue: Receiver<Box<dyn Job>>, space: Space, commits: u64) -> Self {
        Self {
            shared,
            queue,
            space,
            commits,
            revoked: Vec::new(),
            a_sync_failed: false,
            disk_was_full: false,
        }
    }

    /// Works until every sender of the queue is gone.
    pub fn run(mut self) {
        while let Ok(first) = self.queue.recv_blocking() {
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX
                && let Ok(job) = self.queue.try_recv()
            {
                batch.push(job);
            }
            self.carry_out(batch);
        }
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

    /// One transaction.
    fn commit_or_recover(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), Failure> {
        let open = self.sound_index().map_err(Failure::Undone)?;
        self.revoked.clear();
        let outcome = contained::change(|| self.commit(&open, batch));
        let fault = match outcome {
            Ok(Ok(())) => {
                self.commits += 1;
                self.space.committed();
                self.space.release(&open.container);
                self.shared.maildrops.revoke(&self.revoked);
                return Ok(());
            }
            Ok(Err(fault)) if open.is_usable() => {
                self.space.aborted();
                return Err(Failure::Undone(fault));
            }
            Ok(Err(fault)) => fault,
            Err(Panicked(fault)) => {
                open.container.give_up();
                fault
            }
        };
        log::error!("{fault}; the data file is opened anew");
        drop(open);
        let before = self.commits;
        self.reopen().map_err(Failure::Unknown)?;
        if self.commits == before {
            return Err(Failure::Undone(fault));
        }
        self.shared.maildrops.revoke(&self.revoked);
        Ok(())
    }

    /// The index as it is open, or opened anew where it met a fault before: the disk may be back by now.
    fn sound_index(&mut self) -> Result<Arc<OpenIndex>, Fault> {
        match self.shared.current().ok().filter(|open| !open.container.has_failed()) {
            Some(open) => Ok(open),
            None => self.reopen(),
        }
    }

    fn commit(&mut self, open: &OpenIndex, batch: &mut [Box<dyn Job>]) -> Result<(), Fault> {
        self.space.release(&open.container);
        let reserve = open.container.fill_reserve();
        self.note_disk(&reserve);
        let mut transaction = Leaky::new(open.database().begin_write()?);
        // Quick repair implies two-phase commit: a crash never leaves the index to be rebuilt, and never
        // leaves a row without its blob.
        transaction.set_quick_repair(true);
        {
            let tables = Tables::open(&transaction)?;
            let mut tx = Leaky::new(Tx::begin(tables, &mut self.space, &open.container, reserve.is_ok())?);
            for job in batch.iter_mut() {
                job.apply(&mut tx)?;
            }
            self.revoked = tx.settle()?;
        }
        Ok(transaction.into_inner().commit()?)
    }

    fn note_disk(&mut self, reserve: &std::io::Result<()>) {
        match reserve {
            Err(e) if !self.disk_was_full => {
                log::error!("no room on the disk ({e}): mail is refused until there is");
                self.disk_was_full = true;
            }
            Ok(()) if self.disk_was_full => {
                log::warn!("there is room on the disk again: mail is accepted");
                self.disk_was_full = false;
            }
            _ => {}
        }
    }

    /// Opens the index anew from the disk, when no reader is left of the old one.
    fn reopen(&mut self) -> Result<Arc<OpenIndex>, Fault> {
        self.a_sync_failed |= self.shared.current().is_ok_and(|open| open.container.a_sync_failed());
        let trust = if self.a_sync_failed { Trust::Verified } else { Trust::AsFound };
        let disk = self.shared.take_down();
        // If this fails, the next reader may ask for another attempt.
        self.shared.mending_was_asked.store(false, Ordering::Relaxed);
        let (open, mut space) = open_index(disk, self.shared.pins.clone(), trust)
            .map_err(|e| Fault::Io(format!("opening it anew failed: {e}")))?;
        space.inherit_retired(&self.space);
        self.space = space;
        self.a_sync_failed = false;
        self.commits = open.commits()?;
        Ok(self.shared.put_up(open))
    }
}
