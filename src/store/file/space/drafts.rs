//! Drafts: runs that another thread fills with a long text before a transaction stores it.
//!
//! Their octets are handed out to nobody else but listed as free in the tables, so a crash leaves nothing of
//! them. A transaction turns a draft into a text by claiming it. Dropping the last handle frees the run.
//! Reopening the index ends all drafts; their writers have finished by then, because each keeps the old index
//! open.

use std::io;
use std::sync::Arc;

use super::{Run, Space};
use crate::store::file::container::Container;

/// A run of the blob space kept for its holder.
#[derive(Clone, Debug)]
pub struct Draft(Arc<Run>);

impl Draft {
    pub fn at(&self) -> u64 {
        self.0.at
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Space {
    /// Takes room for a text of this wire length, outside any transaction. Fails if the file cannot grow.
    pub fn take_draft(&mut self, wire_octets: u64, container: &Container) -> io::Result<Draft> {
        let at = self.take(wire_octets, container)?;
        let draft = Draft(Arc::new(self.taken.pop().expect("it was just taken")));
        self.drafts.insert(at, draft.clone());
        Ok(draft)
    }

    /// True if the run is still kept for its holder and not yet a text.
    pub fn keeps(&self, draft: &Draft) -> bool {
        self.drafts.get(&draft.at()).is_some_and(|kept| kept.is(draft))
    }

    /// Makes the run a text in the current transaction.
    pub fn claim(&mut self, draft: &Draft) {
        assert!(self.keeps(draft), "it is a draft");
        let claimed = self.drafts.remove(&draft.at());
        self.touched.insert(draft.at());
        self.claimed.extend(claimed);
    }

    /// The transaction that claimed drafts failed.
    pub(super) fn give_claimed_back(&mut self) {
        for draft in self.claimed.drain(..) {
            self.touched.insert(draft.at());
            self.drafts.insert(draft.at(), draft);
        }
    }

    /// Removes and returns the drafts nobody else holds any more.
    pub(super) fn take_abandoned(&mut self) -> Vec<Run> {
        let mut abandoned = Vec::new();
        // `get_mut` succeeds only for the last holder, and makes what the others wrote visible here.
        self.drafts.retain(|_, draft| match Arc::get_mut(&mut draft.0) {
            Some(run) => {
                abandoned.push(*run);
                false
            }
            None => true,
        });
        self.touched.extend(abandoned.iter().map(|run| run.at));
        abandoned
    }

    /// Length of a run that the tables list as free although it is in use.
    pub(super) fn length_in_use_at(&self, at: u64) -> Option<u64> {
        self.retired.get(&at).copied().or_else(|| self.drafts.get(&at).map(|draft| draft.0.len))
    }

    pub(super) fn overlaps_draft(&self, at: u64, len: u64) -> bool {
        let before = self.drafts.range(..at + len).next_back();
        before.is_some_and(|(place, draft)| place + draft.0.len > at)
    }
}
