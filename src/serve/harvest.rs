//! Slows down strangers who try out which mailboxes exist: after a few wrong recipients from a network, each further
//! one is answered later.
//!
//! Only answers to wrong recipients wait. Mail to existing mailboxes is never slowed, and a sender with a typo or a
//! stale list notices nothing. Memory is bounded. [`crate::smtp`] decides how many wrong recipients end a session.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use super::guard::{FIRST_WAIT, Failures, count, count_failure};
use super::network::network_of;
use crate::lock::Mutex;

/// Wrong recipients per network answered at once.
const FREE: u32 = 5;
/// Longest wait before an answer.
const WAIT_MAX: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct Harvest(Mutex<State>);

#[derive(Default)]
struct State {
    networks: HashMap<IpAddr, Failures>,
    total: u64,
}

impl Harvest {
    /// Counts a wrong recipient and returns how long its answer must wait.
    pub fn wrong(&self, peer: IpAddr, now: Instant) -> Duration {
        let network = network_of(peer);
        let mut state = self.lock();
        state.total += 1;
        count_failure(&mut state.networks, network, now);
        match count(&state.networks, &network, now).saturating_sub(FREE) {
            0 => Duration::ZERO,
            count => FIRST_WAIT.saturating_mul(1 << (count - 1).min(16)).min(WAIT_MAX),
        }
    }

    /// Wrong recipients since the start.
    pub fn total(&self) -> u64 {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_wrong_recipients_are_free_and_then_the_wait_grows_to_its_bound() {
        let (harvest, now) = (Harvest::default(), Instant::now());
        let host = |number: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, number]);
        let waits: Vec<_> = (0..12).map(|number| harvest.wrong(host(number), now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 250, 500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(harvest.wrong([192, 0, 2, 1].into(), now), Duration::ZERO);
        assert_eq!(harvest.total(), 13);
    }
}
