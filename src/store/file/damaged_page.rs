//! How redb learns that a page it asks for is damaged. That depends on why redb was entered.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::resume_unwind;

thread_local! {
    /// Why this thread is inside redb; usually it is not.
    pub static INSIDE: Cell<Inside> = const { Cell::new(Inside::Neither) };
}

/// Why redb was entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    Neither,
    Read,
    Change,
}

/// An index page does not match its sum. The number is its offset in redb's space.
#[derive(Debug)]
pub struct DamagedPage(pub u64);

impl fmt::Display for DamagedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its index page at octet {} fails its checksum", self.0)
    }
}

impl std::error::Error for DamagedPage {}

/// What to tell redb about a damaged page. For a reader this unwinds and does not return.
pub fn damaged_page(at: u64) -> io::Error {
    if INSIDE.get() == Inside::Read {
        resume_unwind(Box::new(DamagedPage(at)));
    }
    io::Error::new(io::ErrorKind::InvalidData, DamagedPage(at))
}
