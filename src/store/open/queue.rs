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
    /// See to what is due: a checkpoint, or an index that must be reopened.
    Wake,
    /// Make a checkpoint, then call this before anything else changes.
    Checkpoint(Box<dyn FnOnce(Result<(), Fault>) + Send>),
    /// Reserve room for a text. The answer is `None` if there is none.
    Reserve(TextToCome, Answer<Option<Reserved>>),
    /// Move a part of the index forward and cut off free space.
    Tighten(Answer<Tightened>),
}

/// Where the answer to an order goes.
pub struct Answer<T>(Sender<Result<T, Fault>>);

impl<T> Answer<T> {
    pub fn give(self, outcome: Result<T, Fault>) {
        // The caller may have gone away; what was done stays done.
        let _ = self.0.try_send(outcome);
    }
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
        let (nobody, _) = smol::channel::bounded(1);
        Self::Change(Box::new(Call { work, value: None, answer: Answer(nobody) }))
    }
}

/// A job made from a closure.
pub struct Call<T, F> {
    work: F,
    value: Option<T>,
    answer: Answer<T>,
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
        self.answer.give(value);
    }
}

/// The pending answer to an order. It can be awaited, or waited for with [`Pending::wait`].
#[must_use = "what was asked for is done only when this has answered"]
pub struct Pending<T> {
    sent: Pin<Box<dyn Future<Output = Result<T, Fault>> + Send>>,
}

impl<T: Send + 'static> Pending<T> {
    /// Sends the order that `order` makes of the place for its answer.
    pub fn new(queue: Sender<Order>, order: impl FnOnce(Answer<T>) -> Order + Send + 'static) -> Self {
        let sent = Box::pin(async move {
            let (answer, answered) = smol::channel::bounded(1);
            queue.send(order(Answer(answer))).await.map_err(|_| Fault::Closed)?;
            // Drop the queue, so that waiting for the answer does not keep the writer alive.
            drop(queue);
            answered.recv().await.unwrap_or(Err(Fault::Closed))
        });
        Self { sent }
    }

    pub fn of_change<F>(queue: Sender<Order>, work: F) -> Self
    where
        F: FnMut(&mut Tx<'_, '_>) -> Result<T, Fault> + Send + 'static,
    {
        Self::new(queue, |answer| Order::Change(Box::new(Call { work, value: None, answer })))
    }

    /// Makes a checkpoint and calls `then` on the writer's thread before anything else changes.
    pub fn after_checkpoint(
        queue: Sender<Order>,
        then: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Self {
        Self::new(queue, |answer| {
            Order::Checkpoint(Box::new(|outcome| answer.give(outcome.and_then(|()| then()))))
        })
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

impl<T> Future for Pending<T> {
    type Output = Result<T, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.sent.as_mut().poll(context)
    }
}
