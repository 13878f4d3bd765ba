//! Locks whose poisoning is a bug: if a holder has panicked, so does the next.
//!
//! They are the standard library's, with that decision made once.

use std::sync::{self, MutexGuard, RwLockReadGuard, RwLockWriteGuard, TryLockError};

/// True of every lock in this program.
pub const NO_PANIC: &str = "no holder of this lock panics";

#[derive(Debug, Default)]
pub struct Mutex<T>(sync::Mutex<T>);

#[derive(Debug, Default)]
pub struct RwLock<T>(sync::RwLock<T>);

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect(NO_PANIC)
    }

    /// `None` if somebody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            held => Some(held.expect(NO_PANIC)),
        }
    }

    pub fn into_inner(self) -> T {
        self.0.into_inner().expect(NO_PANIC)
    }
}

impl<T> RwLock<T> {
    pub const fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().expect(NO_PANIC)
    }

    /// `None` if somebody changes it, or waits to.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        match self.0.try_read() {
            Err(TryLockError::WouldBlock) => None,
            held => Some(held.expect(NO_PANIC)),
        }
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().expect(NO_PANIC)
    }
}
