//! The writer's queue: orders to it, and their pending answers.

use std::pin::Pin;
use std::task::{Context, Poll};

use smol::channel::Sender;

use super::Visit;
use crate::store::file::format::Extent;
use crate::store::file::space::Draft;
use crate::store::index::types::TextId;
use crate::store::index::{Fault, Tx};

/// Orders that may wait in the queue; senders of more wait for a place.
pub const QUEUE_MAX: usize = 1024;

/// Work for the writer. May be applied several times, each time to a new transaction.
pub trait Job: Send {
    fn apply(&mut self, tx: &mut Tx<'_, '_>) -> Result<(), Fault>;
    /// Reports that the last `apply` is durable, or was undone.
    fn answer(self: Box<Self>, outcome: Result<(), Fault>);
}

/// An order to the writer.
pub enum Order {
    Change(Box<dyn Job>),
    /// Check whether the index must be reopened.
    Reopen,
    /// A checkpoint is due.
    Tick,
    /// Move a part of the index forward and cut off free space, then call this.
    Tighten(Box<dyn FnOnce(Result<Tightened, Fault>) + Send>),
    /// Reserve room for a text, then call this; with `None` if there is no room.
    Reserve(TextToCome, Box<dyn FnOnce(Option<Reserved>) + Send>),
    /// Make a checkpoint, then call this before anything else changes.
    Checkpoint(Box<dyn FnOnce(Result<(), Fault>) + Send>),
}

/// What the writer has done to shorten the file.
#[derive(Clone, Copy, Debug)]
pub struct Tightened {
    /// Octets of the index that were moved forward; 0 if no more can be.
    pub moved_octets: u64,
    /// The extent before which all texts would fit; `None` if no text lies past it.
    pub end_of_texts: Option<Extent>,
}

/// A text about to be stored.
#[derive(Clone, Copy)]
pub struct TextToCome {
    pub wire_octets: u64,
    pub hash: [u8; 32],
}

/// Room for a text to be written before a transaction stores it.
pub struct Reserved {
    pub draft: Draft,
    /// A stored text that may be the same.
    pub known: Option<TextId>,
    /// Keeps the index from being reopened, which would give the room to someone else.
    pub visit: Visit,
}

impl Order {
    /// A change whose answer nobody waits for.
    pub fn unattended<F>(work: F) -> Self
    where
        F: FnMut(&mut Tx<'_, '_>) -> Result<(), Fault> + Send + 'static,
    {
        let (reply, _) = smol::channel::bounded(1);
        Self::Change(Box::new(Call { work, value: None, reply }))
    }
}

/// A job made from a closure.
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
        // A bug in the writer must not end its thread, which nobody would start again.
        let not_applied = || Fault::Io("internal error: a change was committed but never applied".to_owned());
        let value = outcome.and_then(|()| self.value.take().ok_or_else(not_applied));
        // The caller may have gone away; what was done stays done.
        let _ = self.reply.try_send(value);
    }
}

/// The pending answer to an order. It can be awaited, or waited for with [`Pending::wait`].
#[must_use = "what was asked for is done only when this has answered"]
pub struct Pending<T> {
    sent: Pin<Box<dyn Future<Output = Result<T, Fault>> + Send>>,
}

impl<T: Send + 'static> Pending<T> {
    pub fn new<F>(queue: Sender<Order>, work: F) -> Self
    where
        F: FnMut(&mut Tx<'_, '_>) -> Result<T, Fault> + Send + 'static,
    {
        let sent = Box::pin(async move {
            let (reply, answer) = smol::channel::bounded(1);
            let job = Box::new(Call { work, value: None, reply });
            queue.send(Order::Change(job)).await.map_err(|_| Fault::Closed)?;
            // Drop the queue, so that waiting for the answer does not keep the writer alive.
            drop(queue);
            answer.recv().await.unwrap_or(Err(Fault::Closed))
        });
        Self { sent }
    }

    /// Makes a checkpoint and calls `then` on the writer's thread before anything else changes.
    pub fn after_checkpoint(
        queue: Sender<Order>,
        then: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Self {
        let sent = Box::pin(async move {
            let (reply, answer) = smol::channel::bounded(1);
            let then = move |outcome: Result<(), Fault>| {
                // The caller may have gone away.
                let _ = reply.try_send(outcome.and_then(|()| then()));
            };
            queue.send(Order::Checkpoint(Box::new(then))).await.map_err(|_| Fault::Closed)?;
            drop(queue);
            answer.recv().await.unwrap_or(Err(Fault::Closed))
        });
        Self { sent }
    }

    /// Blocks the thread until the answer is there.
    pub fn wait(self) -> Result<T, Fault> {
        smol::future::block_on(self)
    }
}

impl Pending<bool> {
    /// Waits for one after the other, until one is refused or fails.
    pub fn in_turn(all: Vec<Self>) -> Self {
        let sent = Box::pin(async move {
            for one in all {
                if !one.await? {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        Self { sent }
    }
}

impl Pending<Tightened> {
    /// Orders the file to be shortened.
    pub fn of_tightening(queue: Sender<Order>) -> Self {
        let sent = Box::pin(async move {
            let (reply, answer) = smol::channel::bounded(1);
            let then = move |outcome| {
                // The caller may have gone away.
                let _ = reply.try_send(outcome);
            };
            queue.send(Order::Tighten(Box::new(then))).await.map_err(|_| Fault::Closed)?;
            drop(queue);
            answer.recv().await.unwrap_or(Err(Fault::Closed))
        });
        Self { sent }
    }
}

impl Pending<Option<Reserved>> {
    /// Orders room to be reserved for a text.
    pub fn of_room(queue: Sender<Order>, text: TextToCome) -> Self {
        let sent = Box::pin(async move {
            let (reply, answer) = smol::channel::bounded(1);
            let then = move |reserved| {
                // If the caller has gone away, the room becomes free again.
                let _ = reply.try_send(reserved);
            };
            queue.send(Order::Reserve(text, Box::new(then))).await.map_err(|_| Fault::Closed)?;
            drop(queue);
            answer.recv().await.map_err(|_| Fault::Closed)
        });
        Self { sent }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.sent.as_mut().poll(context)
    }
}
