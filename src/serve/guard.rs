//! Guessing made slow: whoever got a password wrong waits before the next attempt, longer each time.
//!
//! Failures are counted by address (IPv6: by network, since a host there has as many addresses as it wants) and, against
//! many addresses guessing at one account, by account. The account's wait does not hold for an address from which somebody
//! has logged in to it lately, so that a stranger cannot shut out a user. Nobody is locked out, and memory is bounded.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The wait after the first failure of an address; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Failures at an account, from wherever, before strangers have to wait.
const ACCOUNT_FAILURES_FREE: u32 = 5;
/// A failure is forgotten when none has followed it for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// An address is usual for an account for so long after a login.
const USUAL_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Entries of each kind that are remembered.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Default)]
pub struct Guard(Mutex<State>);

#[derive(Default)]
struct State {
    addresses: HashMap<IpAddr, Failures>,
    accounts: HashMap<String, Failures>,
    usual: HashMap<(String, IpAddr), Instant>,
    total: u64,
    last: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Guard {
    /// How long an attempt to log in from this address, under this name, has to wait now.
    pub fn wait(&self, peer: IpAddr, name: &str, now: Instant) -> Duration {
        let state = self.lock();
        let (peer, name) = (network_of(peer), folded(name));
        let count = |failures: Option<&Failures>| {
            failures.filter(|failures| failures.is_fresh(now)).map_or(0, |failures| failures.count)
        };
        let by_address = count(state.addresses.get(&peer));
        let is_usual = state
            .usual
            .get(&(name.clone(), peer))
            .is_some_and(|last| now.saturating_duration_since(*last) < USUAL_FOR);
        let by_account = match is_usual {
            true => 0,
            false => count(state.accounts.get(&name)).saturating_sub(ACCOUNT_FAILURES_FREE),
        };
        match by_address.max(by_account) {
            0 => Duration::ZERO,
            count => FIRST_WAIT.saturating_mul(1 << (count - 1).min(16)).min(WAIT_MAX),
        }
    }

    pub fn failed(&self, peer: IpAddr, name: &str, now: Instant) {
        let mut state = self.lock();
        count_failure(&mut state.addresses, network_of(peer), now);
        count_failure(&mut state.accounts, folded(name), now);
        state.total += 1;
        state.last = Some(now);
    }

    pub fn succeeded(&self, peer: IpAddr, name: &str, now: Instant) {
        let mut state = self.lock();
        let (peer, name) = (network_of(peer), folded(name));
        state.addresses.remove(&peer);
        if state.usual.len() >= REMEMBERED_MAX {
            make_room(&mut state.usual, |last| *last);
        }
        state.usual.insert((name, peer), now);
    }

    /// Failures since the start, and how long ago the last one was.
    pub fn failures(&self, now: Instant) -> (u64, Option<Duration>) {
        let state = self.lock();
        (state.total, state.last.map(|last| now.saturating_duration_since(last)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Failures {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < FORGOTTEN_AFTER
    }
}

fn count_failure<K: Eq + Hash + Clone>(failures: &mut HashMap<K, Failures>, key: K, now: Instant) {
    if failures.len() >= REMEMBERED_MAX && !failures.contains_key(&key) {
        make_room(failures, |failures| failures.last);
    }
    let entry = failures.entry(key).or_insert(Failures { count: 0, last: now });
    if !entry.is_fresh(now) {
        entry.count = 0;
    }
    *entry = Failures { count: entry.count.saturating_add(1), last: now };
}

/// Forgets the older half.
fn make_room<K: Eq + Hash + Clone, V>(entries: &mut HashMap<K, V>, age: impl Fn(&V) -> Instant) {
    let mut ages: Vec<Instant> = entries.values().map(&age).collect();
    let middle = ages.len() / 2;
    let median = *ages.select_nth_unstable(middle).1;
    entries.retain(|_, value| age(value) > median);
}

/// IPv4: the address. IPv6: its network of 64 bits.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// A name that was typed, cut so that it cannot fill the memory.
fn folded(name: &str) -> String {
    name.chars().take(128).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "ann@example.com";

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn the_wait_grows_up_to_its_bound_and_is_forgotten() {
        let (guard, now) = (Guard::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(guard.wait(ip(1), ANN, now).as_millis());
            guard.failed(ip(1), ANN, now);
        }
        assert_eq!(waits, [0, 250, 500, 1000, 2000, 4000, 8000, 10_000]);
        assert_eq!(guard.wait(ip(1), ANN, now + FORGOTTEN_AFTER), Duration::ZERO);
        assert_eq!(guard.failures(now), (8, Some(Duration::ZERO)));
    }

    #[test]
    fn a_login_ends_the_wait_of_its_address() {
        let (guard, now) = (Guard::default(), Instant::now());
        guard.failed(ip(1), ANN, now);
        guard.succeeded(ip(1), ANN, now);
        assert_eq!(guard.wait(ip(1), ANN, now), Duration::ZERO);
    }

    #[test]
    fn many_addresses_guessing_at_one_account_wait_and_its_user_does_not() {
        let (guard, now) = (Guard::default(), Instant::now());
        guard.succeeded(ip(1), "Ann@Example.com", now);
        for stranger in 10..30 {
            guard.failed(ip(stranger), ANN, now);
        }
        assert_eq!(guard.wait(ip(99), ANN, now), WAIT_MAX);
        assert_eq!(guard.wait(ip(99), "bob@example.com", now), Duration::ZERO);
        assert_eq!(guard.wait(ip(1), ANN, now), Duration::ZERO);
    }

    #[test]
    fn hosts_of_one_ipv6_network_are_one() {
        let (guard, now) = (Guard::default(), Instant::now());
        guard.failed("2001:db8::1".parse().unwrap(), ANN, now);
        assert!(guard.wait("2001:db8::ffff".parse().unwrap(), "x", now) > Duration::ZERO);
        assert_eq!(guard.wait("2001:db8:0:1::1".parse().unwrap(), "x", now), Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded() {
        let (guard, now) = (Guard::default(), Instant::now());
        for number in 0..3 * REMEMBERED_MAX as u32 {
            let at = now + Duration::from_millis(number.into());
            guard.failed(IpAddr::V4((0x0a00_0000 + number).into()), &number.to_string(), at);
            guard.succeeded(IpAddr::V4((0x0b00_0000 + number).into()), &number.to_string(), at);
        }
        let state = guard.lock();
        assert!(state.addresses.len() <= REMEMBERED_MAX && state.accounts.len() <= REMEMBERED_MAX);
        assert!(state.usual.len() <= REMEMBERED_MAX);
    }
}
