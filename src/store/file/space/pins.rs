//! Pins: who may still look at deleted texts.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::lock::Mutex;

/// Tracks who may still look at deleted texts. A moment is a count of commits.
#[derive(Clone, Default)]
pub struct Pins(Arc<Mutex<PinState>>);

#[derive(Default)]
struct PinState {
    now: u64,
    held: BTreeMap<u64, usize>,
}

/// While a pin is held, no octet that belonged to a text when it was taken is handed out again.
///
/// Take the pin before looking up the text; otherwise the text may go in between.
pub struct Pin {
    pins: Pins,
    moment: u64,
}

impl Pins {
    pub fn pin(&self) -> Pin {
        let mut state = self.lock();
        let moment = state.now;
        *state.held.entry(moment).or_default() += 1;
        Pin { pins: self.clone(), moment }
    }

    /// Ends the current moment and returns it.
    pub(super) fn advance(&self) -> u64 {
        let mut state = self.lock();
        state.now += 1;
        state.now - 1
    }

    pub fn now(&self) -> u64 {
        self.lock().now
    }

    pub(super) fn oldest(&self) -> u64 {
        let state = self.lock();
        state.held.keys().next().copied().unwrap_or(u64::MAX)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, PinState> {
        self.0.lock()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.pins.lock();
        let count = state.held.get_mut(&self.moment).expect("this pin is counted");
        *count -= 1;
        if *count == 0 {
            state.held.remove(&self.moment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_keeps_what_is_retired_after_it_and_nothing_else() {
        let pins = Pins::default();
        let before = pins.advance();
        let pin = pins.pin();
        let after = pins.advance();
        assert!(before < pins.oldest() && after >= pins.oldest());
        drop(pin);
        assert!(after < pins.oldest());
    }
}
