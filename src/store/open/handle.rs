//! The handle on an open store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use smol::channel::Sender;

use super::queue::{Order, Pending, Reserved, TextToCome};
use super::window::CopyWindow;
use super::{Shared, Snapshot};
use crate::store::file::disk::DiskUsage;
use crate::store::file::format::Extent;
use crate::store::file::space::Pin;
use crate::store::index::{Fault, Tx};

/// An open mail store. Clones are handles on the same one; the last of them closes it.
#[derive(Clone)]
pub struct Store(pub(in crate::store) Arc<Inner>);

/// One for all handles.
pub struct Inner {
    pub shared: Arc<Shared>,
    /// Taken when the store is closed.
    pub queue: Option<Sender<Order>>,
    pub writer: Option<JoinHandle<()>>,
}

impl Store {
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

    /// The same for work that nobody waits for, and that may be left undone: it is where the queue has no place.
    pub fn write_unattended<F>(&self, work: F)
    where
        F: FnMut(&mut Tx<'_, '_>) -> Result<(), Fault> + Send + 'static,
    {
        let queue = self.0.queue.as_ref().expect("it is there until the store is closed");
        let _ = queue.try_send(Order::unattended(work));
    }

    /// A view of the index and a pin on the texts, of the moment of a checkpoint: while it is held, redb still uses
    /// pages again that it made since. For what takes long.
    pub(in crate::store) fn read_at_checkpoint(&self) -> Pending<(Pin, Snapshot)> {
        let queue = self.0.queue.clone().expect("it is there until the store is closed");
        let shared = self.0.shared.clone();
        Pending::after_checkpoint(queue, move || {
            // The pin comes before the snapshot: no text that the snapshot has is overwritten meanwhile.
            let pin = shared.pins.pin();
            Ok((pin, shared.snapshot()?))
        })
    }

    /// Has the writer give up what is free at the end of the file. Returns the place that texts could end before, if
    /// they lie apart.
    pub(in crate::store) fn tighten(&self) -> Pending<Option<Extent>> {
        let queue = self.0.queue.clone().expect("it is there until the store is closed");
        Pending::of_extents(queue)
    }

    /// Has the writer keep room for a text; none where there is no room.
    pub(in crate::store) fn keep_room(&self, text: TextToCome) -> Pending<Option<Reserved>> {
        let queue = self.0.queue.clone().expect("it is there until the store is closed");
        Pending::of_room(queue, text)
    }

    /// How long a plain copy of the data file may take, and what that costs.
    pub fn copy_window(&self) -> CopyWindow {
        *self.0.shared.copy_window.lock()
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
