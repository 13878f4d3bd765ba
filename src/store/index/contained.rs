//! The boundary between the store and redb: no damaged page ends the process.
//!
//! The container notices a page that does not match its sum before redb sees it (`container/sums.rs`). A reader
//! that meets one is unwound to here. That is safe, because redb holds no lock while it reads a page, and the
//! other readers go on. The writer gets an I/O error instead, after which redb refuses everything and the index
//! is reopened.
//!
//! Damage that gets past the sums, as in a forged file, may make redb panic. That panic is caught here too.
//! Since redb may have been doing anything, its handles are leaked: a destructor that panics during another
//! panic would abort the process.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::thread;

use super::Fault;
use crate::store::file::damaged_page::{DamagedPage, INSIDE, Inside};

/// Runs work that only reads.
pub fn read<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    contain(Inside::Read, work).unwrap_or_else(|panicked| Err(panicked.0))
}

/// A panic that was caught. What it left behind must be neither used nor dropped.
#[derive(Debug)]
pub struct Panicked(pub Fault);

/// A redb handle that is leaked instead of dropped during a panic.
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

/// Runs work that changes something, or that opens or closes a database.
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
    Fault::damaged(format!("its index is corrupt ({said})"))
}

/// Silences panics that are caught here: the caller reports the fault in a sentence, and a backtrace would not
/// help.
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
