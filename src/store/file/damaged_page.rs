//! How redb is told that a page which it asks for is damaged: it depends on what it was entered for.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::resume_unwind;

thread_local! {
    /// How this thread is inside redb; not at all as a rule.
    pub static INSIDE: Cell<Inside> = const { Cell::new(Inside::Neither) };
}

/// What redb is entered for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    Neither,
    Read,
    Change,
}

/// A page of the index does not match its sum. The number is its place in redb's space, in octets.
#[derive(Debug)]
pub struct DamagedPage(pub u64);

impl fmt::Display for DamagedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the page of its index at {} does not match its sum", self.0)
    }
}

impl std::error::Error for DamagedPage {}

/// What redb is told when it asks for a damaged page; a reader never comes back from here.
pub fn damaged_page(at: u64) -> io::Error {
    if INSIDE.get() == Inside::Read {
        resume_unwind(Box::new(DamagedPage(at)));
    }
    io::Error::new(io::ErrorKind::InvalidData, DamagedPage(at))
}
