//! A consistent view of the index that keeps it open.

use std::ops::Deref;
use std::sync::Arc;

use super::{OpenIndex, Shared};
use crate::store::file::container::Container;
use crate::store::index::IndexSnapshot;

/// A reader of the index: it is not closed while this exists.
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
        // Someone who waits for the last reader has taken the index down first. Otherwise save the system call.
        if current.is_none() {
            self.shared.visitor_left.notify_all();
        }
    }
}

/// A consistent view of the index as of one commit. While it exists redb cannot reuse pages, so hold it only as long as
/// one question takes. After a fault it fails at the next question, so that the index can be reopened.
pub struct Snapshot {
    // Dropped before `visit`.
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
