//! What a single address or user may ask of the service, besides the slots: connections at a time, logins in a time.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::address::Address;

/// The network that counts as one client. IPv4: the address. IPv6: its network of 64 bits, since a host there has as
/// many addresses as it wants.
pub fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

/// Connections by the network they come from.
#[derive(Clone, Default)]
pub struct PerAddress(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// A connection that is counted, for as long as it lasts.
pub struct Counted {
    connections: PerAddress,
    network: IpAddr,
}

impl PerAddress {
    /// Counts one more, unless its network has `most` already (0: any number).
    pub fn count(&self, peer: IpAddr, most: u32) -> Option<Counted> {
        let network = network_of(peer);
        let mut counts = self.lock();
        let count = counts.entry(network).or_default();
        if most > 0 && *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted { connections: self.clone(), network })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.connections.lock();
        let count = counts.get_mut(&self.network).expect("this connection is counted");
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.network);
        }
    }
}

/// Something that may happen very often and is to be said now and then only.
pub struct Rarely {
    every: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl Rarely {
    pub const fn new(every: Duration) -> Self {
        Self { every, state: Mutex::new((None, 0)) }
    }

    /// It happened. How often since it was last said, if it is to be said now.
    pub fn happened(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        let (said, count) = &mut *state;
        *count += 1;
        if said.is_some_and(|said| now.saturating_duration_since(said) < self.every) {
            return None;
        }
        *said = Some(now);
        Some(std::mem::take(count))
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

/// Names that are remembered for a time.
pub struct Remembered {
    time: Duration,
    names: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Remembered {
    pub fn new(time: Duration) -> Self {
        Self { time, names: Mutex::default() }
    }

    pub fn holds(&self, name: &[u8; 32]) -> bool {
        self.lock().get(name).is_some_and(|since| since.elapsed() < self.time)
    }

    pub fn remember(&self, name: [u8; 32]) {
        let mut names = self.lock();
        if names.len() >= REMEMBERED_MAX {
            names.retain(|_, since| since.elapsed() < self.time);
        }
        // Where all are fresh the oldest are not worth looking for: they are derived again.
        if names.len() >= REMEMBERED_MAX {
            names.clear();
        }
        names.insert(name, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Instant>> {
        self.names.lock().expect("no holder of this lock panics")
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
    fn hosts_of_one_ipv6_network_are_counted_together() {
        let connections = PerAddress::default();
        let count = |peer: &str| connections.count(peer.parse().unwrap(), 1);
        let _first = count("2001:db8::1").unwrap();
        assert!(count("2001:db8::2").is_none() && count("2001:db8:0:1::1").is_some());
        let _mapped = count("::ffff:192.0.2.7").unwrap();
        assert!(count("192.0.2.7").is_none() && count("192.0.2.8").is_some());
    }

    #[test]
    fn what_happens_often_is_said_now_and_then_with_its_count() {
        let (rarely, start) = (Rarely::new(Duration::from_secs(60)), Instant::now());
        assert_eq!(rarely.happened(start), Some(1));
        assert_eq!((0..5).find_map(|_| rarely.happened(start + Duration::from_secs(59))), None);
        assert_eq!(rarely.happened(start + Duration::from_secs(60)), Some(6));
    }

    #[test]
    fn names_are_remembered_for_their_time() {
        let (long, none) = (Remembered::new(Duration::from_secs(600)), Remembered::new(Duration::ZERO));
        for names in [&long, &none] {
            names.remember([1; 32]);
        }
        assert!(long.holds(&[1; 32]) && !long.holds(&[2; 32]) && !none.holds(&[1; 32]));
        for number in 0..2 * REMEMBERED_MAX as u64 {
            long.remember(*blake3::hash(&number.to_le_bytes()).as_bytes());
        }
        assert!(long.lock().len() <= REMEMBERED_MAX);
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
