//! Drafts: runs that a thread beside the writer fills with a long text, before any transaction is asked to store it.
//!
//! Nobody else is given their octets, and the tables list them as free: a crash leaves nothing of them. A transaction
//! makes one a text by claiming it. One that nobody holds any more is free again without being told so. When the index
//! is opened anew all drafts end; what wrote them has finished by then, for it held the old one open.

use std::io;
use std::sync::Arc;

use super::{Run, Space};
use crate::store::file::container::Container;

/// A run of the blob space that is kept for its holder.
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
    /// Room for a text of this wire length, outside of any transaction. Fails where the file cannot grow.
    pub fn take_draft(&mut self, wire_octets: u64, container: &Container) -> io::Result<Draft> {
        let at = self.take(wire_octets, container)?;
        let draft = Draft(Arc::new(self.taken.pop().expect("it was just taken")));
        self.drafts.insert(at, draft.clone());
        Ok(draft)
    }

    /// Whether these octets are still kept for its holder, and no text's yet.
    pub fn keeps(&self, draft: &Draft) -> bool {
        self.drafts.get(&draft.at()).is_some_and(|kept| kept.is(draft))
    }

    /// Makes it a text's, in the transaction under way.
    pub fn claim(&mut self, draft: &Draft) {
        assert!(self.keeps(draft), "it is a draft");
        let claimed = self.drafts.remove(&draft.at());
        self.touched.insert(draft.at());
        self.claimed.extend(claimed);
    }

    /// The transaction that claimed them has failed.
    pub(super) fn give_claimed_back(&mut self) {
        for draft in self.claimed.drain(..) {
            self.touched.insert(draft.at());
            self.drafts.insert(draft.at(), draft);
        }
    }

    /// The drafts that nobody holds but this list; they are in it no longer.
    pub(super) fn take_abandoned(&mut self) -> Vec<Run> {
        let mut abandoned = Vec::new();
        // Seen to be the only holder, this thread sees all that the others have done before.
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

    /// The length of what the tables list as free though it is not given out.
    pub(super) fn length_in_use_at(&self, at: u64) -> Option<u64> {
        self.retired.get(&at).copied().or_else(|| self.drafts.get(&at).map(|draft| draft.0.len))
    }

    pub(super) fn overlaps_draft(&self, at: u64, len: u64) -> bool {
        let before = self.drafts.range(..at + len).next_back();
        before.is_some_and(|(place, draft)| place + draft.0.len > at)
    }
}
