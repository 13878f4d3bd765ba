//! Thins out lines about events that may come in floods.

use std::time::{Duration, Instant};

use crate::lock::Mutex;

/// Lets one line per interval through.
pub struct Rarely {
    every: Duration,
    state: Mutex<State>,
}

struct State {
    logged: Option<Instant>,
    /// Events since then.
    count: u64,
}

impl Rarely {
    pub const fn new(every: Duration) -> Self {
        Self { every, state: Mutex::new(State { logged: None, count: 0 }) }
    }

    /// Counts an event. If a line is due, returns how many events it stands for.
    pub fn happened(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        state.count += 1;
        if state.logged.is_some_and(|logged| now.saturating_duration_since(logged) < self.every) {
            return None;
        }
        state.logged = Some(now);
        Some(std::mem::take(&mut state.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_per_interval_with_its_count() {
        let (rarely, start) = (Rarely::new(Duration::from_secs(60)), Instant::now());
        assert_eq!(rarely.happened(start), Some(1));
        assert_eq!((0..5).find_map(|_| rarely.happened(start + Duration::from_secs(59))), None);
        assert_eq!(rarely.happened(start + Duration::from_secs(60)), Some(6));
    }
}
