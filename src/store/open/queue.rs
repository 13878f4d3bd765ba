//! The queue of the writer: what it may be told, and the answers to come.

use std::pin::Pin;
use std::task::{Context, Poll};

use smol::channel::Sender;

use super::Visit;
use crate::store::file::format::Extent;
use crate::store::file::space::Draft;
use crate::store::index::types::TextId;
use crate::store::index::{Fault, Tx};

/// Jobs that may wait; whoever brings one more waits for a place.
pub const QUEUE_MAX: usize = 1024;

/// Work for the writer. It may be applied more than once, each time to a fresh transaction.
pub trait Job: Send {
    fn apply(&mut self, tx: &mut Tx<'_, '_>) -> Result<(), Fault>;
    /// Says what became of the last `apply`: it is durable, or undone.
    fn answer(self: Box<Self>, outcome: Result<(), Fault>);
}

/// What the writer may be told.
pub enum Order {
    Change(Box<dyn Job>),
    /// Look whether the index has to be opened anew.
    Mend,
    /// The time for a checkpoint has come.
    Tick,
    /// Give up what is free, and call this with the place that texts could end before; none: they lie together.
    Tighten(Box<dyn FnOnce(Result<Option<Extent>, Fault>) + Send>),
    /// Keep room for a text, and call this; with none where there is no room.
    Reserve(TextToCome, Box<dyn FnOnce(Option<Reserved>) + Send>),
    /// Make a checkpoint, and call this before anything else is changed.
    Checkpoint(Box<dyn FnOnce(Result<(), Fault>) + Send>),
}

/// A text that is to be stored soon.
#[derive(Clone, Copy)]
pub struct TextToCome {
    pub wire_octets: u64,
    pub hash: [u8; 32],
}

/// Room for a text that is written before a transaction stores it.
pub struct Reserved {
    pub draft: Draft,
    /// The text that may be the same.
    pub known: Option<TextId>,
    /// While somebody writes into the room the index is not opened anew, after which the room might be another's.
    pub visit: Visit,
}

impl Order {
    /// A change whose answer nobody awaits.
    pub fn unattended<F>(work: F) -> Self
    where
        F: FnMut(&mut Tx<'_, '_>) -> Result<(), Fault> + Send + 'static,
    {
        let (reply, _) = smol::channel::bounded(1);
        Self::Change(Box::new(Call { work, value: None, reply }))
    }
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
    pub fn new<F>(queue: Sender<Order>, work: F) -> Self
    where
        F: FnMut(&mut Tx<'_, '_>) -> Result<T, Fault> + Send + 'static,
    {
        let sent = Box::pin(async move {
            let (reply, answer) = smol::channel::bounded(1);
            let job = Box::new(Call { work, value: None, reply });
            queue.send(Order::Change(job)).await.map_err(|_| Fault::Closed)?;
            // The queue's end is let go, so that waiting for the answer does not keep the writer alive.
            drop(queue);
            answer.recv().await.unwrap_or(Err(Fault::Closed))
        });
        Self { sent }
    }

    /// Makes a checkpoint, and calls `then` on the writer's thread before anything else is changed.
    pub fn after_checkpoint(
        queue: Sender<Order>,
        then: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Self {
        let sent = Box::pin(async move {
            let (reply, answer) = smol::channel::bounded(1);
            let then = move |outcome: Result<(), Fault>| {
                // Whoever asked may have gone away.
                let _ = reply.try_send(outcome.and_then(|()| then()));
            };
            queue.send(Order::Checkpoint(Box::new(then))).await.map_err(|_| Fault::Closed)?;
            drop(queue);
            answer.recv().await.unwrap_or(Err(Fault::Closed))
        });
        Self { sent }
    }

    /// Waits, blocking the thread.
    pub fn wait(self) -> Result<T, Fault> {
        smol::future::block_on(self)
    }
}

impl Pending<bool> {
    /// One after the other, until one is refused or fails.
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

impl Pending<Option<Extent>> {
    /// Has free extents given up.
    pub fn of_extents(queue: Sender<Order>) -> Self {
        let sent = Box::pin(async move {
            let (reply, answer) = smol::channel::bounded(1);
            let then = move |outcome| {
                // Whoever asked may have gone away.
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
    /// Has room kept for a text.
    pub fn of_room(queue: Sender<Order>, text: TextToCome) -> Self {
        let sent = Box::pin(async move {
            let (reply, answer) = smol::channel::bounded(1);
            let then = move |reserved| {
                // Whoever asked may have gone away; then the room is free again.
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
