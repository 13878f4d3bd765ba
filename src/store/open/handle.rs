//! The handle to an open store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use smol::channel::Sender;

use super::queue::{Order, Pending, Reserved, TextToCome, Tightened};
use super::window::CopyWindow;
use super::{Shared, Snapshot};
use crate::store::file::disk::DiskUsage;
use crate::store::file::space::Pin;
use crate::store::index::{Fault, Tx};

/// An open mail store. Clones share it; dropping the last one closes it.
#[derive(Clone)]
pub struct Store(pub(in crate::store) Arc<Inner>);

/// Shared by all handles.
pub struct Inner {
    pub shared: Arc<Shared>,
    /// Taken when the store is closed.
    pub queue: Option<Sender<Order>>,
    pub writer: Option<JoinHandle<()>>,
}

impl Store {
    /// A consistent view of the index. Drop it soon: see [`Snapshot`].
    pub fn read(&self) -> Result<Snapshot, Fault> {
        let outcome = self.0.shared.snapshot();
        if outcome.is_err() && !self.0.shared.reopening_was_requested.swap(true, Ordering::Relaxed) {
            // A reader may have met a fault while nobody writes, so wake the writer. If the queue is full, it
            // has work enough to find the fault by itself.
            let queue = self.0.queue.as_ref().expect("it is there until the store is closed");
            let _ = queue.try_send(Order::Wake);
        }
        outcome
    }

    /// Hands work to the writer. It may call the closure several times, each time in a new transaction, so
    /// effects outside the transaction must not accumulate. The closure must look before it changes anything,
    /// since it shares the transaction with others.
    pub fn write<T, F>(&self, work: F) -> Pending<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_, '_>) -> Result<T, Fault> + Send + 'static,
    {
        let queue = self.0.queue.clone().expect("it is there until the store is closed");
        Pending::of_change(queue, work)
    }

    /// The same for work that nobody waits for and that may be skipped: it is, if the queue is full.
    pub fn write_unattended<F>(&self, work: F)
    where
        F: FnMut(&mut Tx<'_, '_>) -> Result<(), Fault> + Send + 'static,
    {
        let queue = self.0.queue.as_ref().expect("it is there until the store is closed");
        let _ = queue.try_send(Order::unattended(work));
    }

    /// A view of the index at a checkpoint, with a pin on its texts. It suits long work: redb can still reuse
    /// the pages it has allocated since.
    pub(in crate::store) fn read_at_checkpoint(&self) -> Pending<(Pin, Snapshot)> {
        let queue = self.0.queue.clone().expect("it is there until the store is closed");
        let shared = self.0.shared.clone();
        Pending::after_checkpoint(queue, move || {
            // Pin before the snapshot, so that no text in the snapshot is overwritten in between.
            let pin = shared.pins.pin();
            Ok((pin, shared.snapshot()?))
        })
    }

    /// Has the writer move a part of the index forward and cut off free space at the end of the file.
    pub(in crate::store) fn tighten(&self) -> Pending<Tightened> {
        let queue = self.0.queue.clone().expect("it is there until the store is closed");
        Pending::new(queue, Order::Tighten)
    }

    /// Has the writer reserve room for a text; `None` if there is none.
    pub(in crate::store) fn keep_room(&self, text: TextToCome) -> Pending<Option<Reserved>> {
        let queue = self.0.queue.clone().expect("it is there until the store is closed");
        Pending::new(queue, move |answer| Order::Reserve(text, answer))
    }

    /// How long a plain copy of the data file may take, and what that costs.
    pub fn copy_window(&self) -> CopyWindow {
        // Read first: once a compaction is over, the window says what it did to copies.
        let compactions = self.0.shared.compactions.load(Ordering::Acquire);
        let window = *self.0.shared.copy_window.lock();
        match compactions {
            0 => window,
            _ => CopyWindow { good_below: Duration::ZERO, ..window },
        }
    }

    /// Size of the data file on disk.
    pub fn disk_usage(&self) -> Result<DiskUsage, Fault> {
        Ok(self.0.shared.disk.usage()?)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // If the writer panicked, that has been printed, and nobody is left to tell.
            let _ = writer.join();
        }
    }
}
