//! The writer thread: one queue, one transaction at a time, group commit.
//!
//! It takes all that has queued, applies it in one transaction, commits, and answers everyone. Invariants:
//!
//! - Nobody is answered before the commit is durable.
//! - A fault in a batch undoes the whole batch; then each of its jobs is tried alone, so that one cannot spoil another.
//! - When redb has met an I/O error it refuses everything after; then the index is opened anew from the disk. Whether
//!   the commit that failed got through is read from the store's own count of commits, never guessed.

use super::index::{Fault, Tables, Tx};
use super::space::Space;
use super::{OpenIndex, Shared, open_index};
use smol::channel::{Receiver, Sender};
use std::pin::Pin;
use std::sync::Arc;
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

pub struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<Box<dyn Job>>,
    space: Space,
    /// As the store counts them.
    commits: u64,
    /// Whether the disk was full the last time mail was to be stored; said once, not for every message.
    disk_was_full: bool,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, queue: Receiver<Box<dyn Job>>, space: Space, commits: u64) -> Self {
        Self { shared, queue, space, commits, disk_was_full: false }
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
        let outcome = self.commit_or_recover(&mut batch);
        if outcome.is_err() && batch.len() > 1 {
            for job in batch {
                let mut alone = vec![job];
                let outcome = self.commit_or_recover(&mut alone);
                alone.into_iter().for_each(|job| job.answer(outcome.clone()));
            }
            return;
        }
        batch.into_iter().for_each(|job| job.answer(outcome.clone()));
    }

    /// One transaction. An error means that nothing of it is in the store.
    fn commit_or_recover(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), Fault> {
        let open = match self.shared.current() {
            Ok(open) => open,
            // An earlier attempt to open the index anew has failed; the disk may be back by now.
            Err(_) => self.reopen()?,
        };
        match self.commit(&open, batch) {
            Ok(()) => {
                self.commits += 1;
                Ok(())
            }
            Err(fault) => {
                self.space.aborted();
                if open.database.begin_write().is_ok() {
                    return Err(fault);
                }
                log::error!("{fault}; the data file is opened anew");
                drop(open);
                let before = self.commits;
                self.reopen()?;
                if self.commits == before { Err(fault) } else { Ok(()) }
            }
        }
    }

    fn commit(&mut self, open: &OpenIndex, batch: &mut [Box<dyn Job>]) -> Result<(), Fault> {
        self.space.release(&open.container);
        let reserve = open.container.fill_reserve();
        self.note_disk(&reserve);
        let mut transaction = open.database.begin_write()?;
        // Quick repair implies two-phase commit: a crash never leaves the index to be rebuilt, and never
        // leaves a row without its blob.
        transaction.set_quick_repair(true);
        let revoked = {
            let tables = Tables::open(&transaction)?;
            let mut tx = Tx::begin(tables, &mut self.space, &open.container, reserve.is_ok())?;
            for job in batch.iter_mut() {
                job.apply(&mut tx)?;
            }
            tx.settle()?
        };
        transaction.commit()?;
        self.space.committed();
        self.space.release(&open.container);
        self.shared.maildrops.revoke(&revoked);
        Ok(())
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
        let disk = self.shared.take_down();
        let (open, mut space) = open_index(disk, self.shared.pins.clone())
            .map_err(|e| Fault::Io(format!("opening it anew failed: {e}")))?;
        space.inherit_retired(&self.space);
        self.space = space;
        self.commits = open.commits()?;
        Ok(self.shared.put_up(open))
    }
}
