//! When users last logged in, for the setting `logindelay` (LOGIN-DELAY, RFC 2449 section 6.5).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::lock::Mutex;

/// Users remembered before those whose delay is over are forgotten.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Default)]
pub struct Logins(Mutex<HashMap<Address, Instant>>);

impl Logins {
    /// Whether the user's last login is at least `delay` ago. If so, the user counts as logged in now.
    pub fn may_log_in(&self, user: &Address, delay: Duration, now: Instant) -> bool {
        if delay.is_zero() {
            return true;
        }
        let mut logins = self.0.lock();
        let is_over = |last: Instant| now.saturating_duration_since(last) >= delay;
        if logins.get(user).is_some_and(|last| !is_over(*last)) {
            return false;
        }
        if logins.len() >= REMEMBERED_MAX {
            logins.retain(|_, last| !is_over(*last));
        }
        logins.insert(user.clone(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_logs_in_again_only_after_the_delay() {
        let logins = Logins::default();
        let user: Address = "ann@example.com".parse().unwrap();
        let (start, delay) = (Instant::now(), Duration::from_secs(60));
        assert!(logins.may_log_in(&user, delay, start));
        assert!(!logins.may_log_in(&user, delay, start + Duration::from_secs(59)));
        assert!(logins.may_log_in(&user, Duration::ZERO, start + Duration::from_secs(59)));
        assert!(logins.may_log_in(&user, delay, start + Duration::from_secs(60)));
    }
}
