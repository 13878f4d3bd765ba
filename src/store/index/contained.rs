//! The boundary at which the store enters redb: no damaged page ends the process.
//!
//! A page that does not match its sum is found by the container before redb sees it (`container/sums.rs`). A reader
//! that meets one is unwound to here: no lock of redb is held while it reads a page, so the others read on. The writer
//! gets an I/O error instead, after which redb refuses everything and the index is opened anew.
//!
//! What gets past the sums, for instance in a file that was forged, may make redb panic. That is caught here too.
//! What redb was doing then is not known, so its handles are leaked: a destructor that panics while another panic is
//! under way would abort the process.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::thread;

use super::Fault;
use crate::store::file::damaged_page::{DamagedPage, INSIDE, Inside};

/// Runs what only reads.
pub fn read<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    contain(Inside::Read, work).unwrap_or_else(|panicked| Err(panicked.0))
}

/// A panic that was caught. What it left behind is not to be used again, and not to be dropped.
#[derive(Debug)]
pub struct Panicked(pub Fault);

/// A handle of redb's that is leaked, not dropped, while a panic is under way.
pub struct Leaky<T>(Option<T>);

impl<T> Leaky<T> {
    pub fn new(handle: T) -> Self {
        Self(Some(handle))
    }

    pub fn into_inner(mut self) -> T {
        self.0.take().expect("it is taken here alone")
    }
}

impl<T> Deref for Leaky<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is taken")
    }
}

impl<T> DerefMut for Leaky<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it is there until it is taken")
    }
}

impl<T> Drop for Leaky<T> {
    fn drop(&mut self) {
        if thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}

/// Runs what changes something, or opens or closes a database.
pub fn change<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    contain(Inside::Change, work)
}

fn contain<T>(inside: Inside, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    keep_quiet();
    let before = INSIDE.replace(inside);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(before);
    outcome.map_err(|payload| Panicked(fault_of(payload)))
}

fn fault_of(payload: Box<dyn Any + Send>) -> Fault {
    if let Some(page) = payload.downcast_ref::<DamagedPage>() {
        return Fault::damaged(page.to_string());
    }
    let said = payload.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    Fault::damaged(format!("its index makes no sense ({said})"))
}

/// A panic that is caught here is told by whoever gets the fault, in a sentence; the backtrace would say nothing to
/// them.
fn keep_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if INSIDE.get() == Inside::Neither {
                before(info);
            }
        }));
    });
}
