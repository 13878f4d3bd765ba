//! A consistent view of the index, which is not closed under it.

use std::ops::Deref;
use std::sync::Arc;

use super::{OpenIndex, Shared};
use crate::store::file::container::Container;
use crate::store::index::Snapshot as IndexSnapshot;

/// Somebody reads the index: it is not closed under them.
pub struct Visit {
    pub shared: Arc<Shared>,
    pub open: Option<Arc<OpenIndex>>,
}

impl Visit {
    pub fn open(&self) -> &OpenIndex {
        self.open.as_ref().expect("it is there until the visit is dropped")
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let current = self.shared.lock();
        self.open = None;
        // Whoever waits for the last reader has taken it down first; waking nobody costs a system call all the same.
        if current.is_none() {
            self.shared.visitor_left.notify_all();
        }
    }
}

/// A consistent view of the index, as of one commit. While it is held redb cannot reuse a page, and a data file that
/// met an I/O error cannot be opened anew: so not for longer than a question takes.
pub struct Snapshot {
    // Dropped before the visit ends.
    pub index: IndexSnapshot,
    pub visit: Visit,
}

impl Snapshot {
    pub(in crate::store) fn container(&self) -> &Arc<Container> {
        &self.visit.open().container
    }
}

impl Deref for Snapshot {
    type Target = IndexSnapshot;

    fn deref(&self) -> &IndexSnapshot {
        &self.index
    }
}
