//! What the end of the service waits for, and how work learns of it.

use std::convert::Infallible;

use smol::channel::{Receiver, Sender};

use crate::lock::Mutex;

/// Lets work in until it is closed, and tells when all of it has left.
pub struct Gate {
    /// Cloned for each that enters; `None` once closed.
    pass: Mutex<Option<Sender<Infallible>>>,
    /// Nothing is ever sent: receiving fails when the last sender is dropped.
    left: Receiver<Infallible>,
}

/// Held by work for as long as it lasts.
pub struct Pass {
    _held: Sender<Infallible>,
}

/// A phase of the service that begins once, for any number to wait for.
pub struct Phase(Gate);

impl Gate {
    pub fn new() -> Self {
        let (pass, left) = smol::channel::bounded(1);
        Self { pass: Mutex::new(Some(pass)), left }
    }

    /// `None` once the gate is closed.
    pub fn enter(&self) -> Option<Pass> {
        self.pass.lock().clone().map(|held| Pass { _held: held })
    }

    pub fn close(&self) {
        self.pass.lock().take();
    }

    /// Returns when the gate is closed and every [`Pass`] dropped.
    pub async fn emptied(&self) {
        let _ = self.left.recv().await;
    }
}

impl Phase {
    pub fn new() -> Self {
        Self(Gate::new())
    }

    pub fn begin(&self) {
        self.0.close();
    }

    pub async fn begun(&self) {
        self.0.emptied().await;
    }
}

#[cfg(test)]
mod tests {
    use smol::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn a_gate_is_empty_when_it_is_closed_and_the_last_has_left() {
        let gate = Gate::new();
        let inside = gate.enter().unwrap();
        assert!(block_on(poll_once(gate.emptied())).is_none());
        gate.close();
        assert!(gate.enter().is_none() && block_on(poll_once(gate.emptied())).is_none());
        drop(inside);
        assert!(block_on(poll_once(gate.emptied())).is_some());
    }

    #[test]
    fn a_phase_begins_once_for_everybody() {
        let phase = Phase::new();
        assert!(block_on(poll_once(phase.begun())).is_none());
        phase.begin();
        assert!((0..2).all(|_| block_on(poll_once(phase.begun())).is_some()));
    }
}
