//! Remembers hashes for a while: those of passwords that were right lately, for [`super::accounts`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::lock::Mutex;

/// Hashes remembered at a time.
const REMEMBERED_MAX: usize = 10_000;

pub struct Remembered {
    time: Duration,
    hashes: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Remembered {
    /// Each hash is remembered for `time`.
    pub fn new(time: Duration) -> Self {
        Self { time, hashes: Mutex::default() }
    }

    pub fn holds(&self, hash: &[u8; 32]) -> bool {
        self.hashes.lock().get(hash).is_some_and(|since| since.elapsed() < self.time)
    }

    pub fn remember(&self, hash: [u8; 32]) {
        let mut hashes = self.hashes.lock();
        if hashes.len() >= REMEMBERED_MAX {
            hashes.retain(|_, since| since.elapsed() < self.time);
        }
        // All are fresh. Finding the oldest is not worth it: what is forgotten is only derived again.
        if hashes.len() >= REMEMBERED_MAX {
            hashes.clear();
        }
        hashes.insert(hash, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_remembered_for_their_time() {
        let (long, none) = (Remembered::new(Duration::from_secs(600)), Remembered::new(Duration::ZERO));
        for hashes in [&long, &none] {
            hashes.remember([1; 32]);
        }
        assert!(long.holds(&[1; 32]) && !long.holds(&[2; 32]) && !none.holds(&[1; 32]));
        for number in 0..2 * REMEMBERED_MAX as u64 {
            long.remember(*blake3::hash(&number.to_le_bytes()).as_bytes());
        }
        assert!(long.hashes.lock().len() <= REMEMBERED_MAX);
    }
}
