//! What a single address or user may ask of the service, besides the slots: connections at a time, logins in a time.

use crate::address::Address;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Connections by the address they come from.
#[derive(Clone, Default)]
pub struct PerAddress(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// A connection that is counted, for as long as it lasts.
pub struct Counted {
    connections: PerAddress,
    peer: IpAddr,
}

impl PerAddress {
    /// Counts one more, unless its address has `most` already (0: any number).
    pub fn count(&self, peer: IpAddr, most: u32) -> Option<Counted> {
        let mut counts = self.lock();
        let count = counts.entry(peer).or_default();
        if most > 0 && *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted { connections: self.clone(), peer })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.connections.lock();
        let count = counts.get_mut(&self.peer).expect("this connection is counted");
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.peer);
        }
    }
}

/// When users last logged in, for as long as that matters.
#[derive(Default)]
pub struct Logins(Mutex<HashMap<Address, Instant>>);

/// Users that are remembered before those whose time is over are forgotten.
const REMEMBERED_MAX: usize = 10_000;

impl Logins {
    /// Whether the user's last login is at least `delay` ago; if so, this is the last login from now on.
    pub fn may_log_in(&self, user: &Address, delay: Duration, now: Instant) -> bool {
        if delay.is_zero() {
            return true;
        }
        let mut logins = self.0.lock().expect("no holder of this lock panics");
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
    fn connections_are_counted_by_address_and_forgotten_when_they_end() {
        let connections = PerAddress::default();
        let (ann, bob) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let first = connections.count(ann, 2).unwrap();
        let second = connections.count(ann, 2).unwrap();
        assert!(connections.count(ann, 2).is_none());
        assert!(connections.count(bob, 2).is_some());
        assert!(connections.count(ann, 0).is_some(), "0 is no limit");
        drop(first);
        let third = connections.count(ann, 2).unwrap();
        drop((second, third));
        assert!(connections.lock().is_empty());
    }

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
