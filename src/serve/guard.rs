//! Slows down guessing: after a wrong password the next attempt waits, longer each time.
//!
//! Failures are counted by network ([`network_of`]), by account, and by both together. An attempt at an account waits
//!
//! - because of this network's failures at this account, if there was a recent login to it from this network. So
//!   neither a stranger elsewhere nor a neighbour behind the same router can shut a user out;
//! - otherwise because of all failures from the network, and of the account's failures from anywhere.
//!
//! A login clears the failures at that account from that network, and nothing else: logging in to one's own mailbox
//! buys no guesses at others. Every spelling of a login name counts as the same account; a name that cannot be an
//! account counts against the network only.
//!
//! The right password of a barred account is not a guess. A mail program that keeps trying it slows down that account,
//! as a wrong password would, but nobody else in its network.
//!
//! Nobody is locked out for good, and memory is bounded.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use super::network::network_of;
use crate::lock::Mutex;

/// The wait after the first failure; it doubles with each further one.
pub const FIRST_WAIT: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Failures at an account from anywhere before strangers have to wait.
const ACCOUNT_FAILURES_FREE: u32 = 5;
/// Failures are forgotten once none has followed for this long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// How long after a login its network counts as usual for the account.
const USUAL_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Most entries per table.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Default)]
pub struct Guard(Mutex<State>);

#[derive(Default)]
struct State {
    networks: HashMap<IpAddr, Failures>,
    accounts: HashMap<String, Failures>,
    /// A network's failures at one account.
    pairs: HashMap<(String, IpAddr), Failures>,
    /// Right passwords of accounts that may not log in.
    barred: HashMap<(String, IpAddr), Failures>,
    usual: HashMap<(String, IpAddr), Instant>,
    total: u64,
    last: Option<Instant>,
}

#[derive(Clone, Copy)]
pub struct Failures {
    count: u32,
    last: Instant,
}

impl Guard {
    /// How long an attempt from this address must wait now. `account` is `None` for a name that cannot be an account.
    pub fn wait(&self, peer: IpAddr, account: Option<&str>, now: Instant) -> Duration {
        let state = self.lock();
        let network = network_of(peer);
        let of_network = || count(&state.networks, &network, now);
        let failures = match account {
            None => of_network(),
            Some(account) => {
                let of_account = count(&state.accounts, account, now).saturating_sub(ACCOUNT_FAILURES_FREE);
                let pair = (account.to_owned(), network);
                let is_usual = state
                    .usual
                    .get(&pair)
                    .is_some_and(|last| now.saturating_duration_since(*last) < USUAL_FOR);
                let failures = match is_usual {
                    true => count(&state.pairs, &pair, now),
                    false => of_network().max(of_account),
                };
                failures.saturating_add(count(&state.barred, &pair, now))
            }
        };
        match failures {
            0 => Duration::ZERO,
            failures => FIRST_WAIT.saturating_mul(1 << (failures - 1).min(16)).min(WAIT_MAX),
        }
    }

    pub fn failed(&self, peer: IpAddr, account: Option<&str>, now: Instant) {
        let mut state = self.lock();
        let network = network_of(peer);
        count_failure(&mut state.networks, network, now);
        if let Some(account) = account {
            count_failure(&mut state.accounts, account.to_owned(), now);
            count_failure(&mut state.pairs, (account.to_owned(), network), now);
        }
        state.total += 1;
        state.last = Some(now);
    }

    /// The password was right, but the account may not log in.
    pub fn barred(&self, peer: IpAddr, account: Option<&str>, now: Instant) {
        let mut state = self.lock();
        if let Some(account) = account {
            count_failure(&mut state.barred, (account.to_owned(), network_of(peer)), now);
        }
        state.total += 1;
        state.last = Some(now);
    }

    pub fn succeeded(&self, peer: IpAddr, account: Option<&str>, now: Instant) {
        let Some(account) = account else { return };
        let mut state = self.lock();
        let pair = (account.to_owned(), network_of(peer));
        state.barred.remove(&pair);
        let own = state.pairs.remove(&pair).filter(|failures| failures.is_fresh(now));
        if let (Some(own), Some(all)) = (own, state.networks.get_mut(&pair.1)) {
            all.count = all.count.saturating_sub(own.count);
        }
        if state.usual.len() >= REMEMBERED_MAX && !state.usual.contains_key(&pair) {
            make_room(&mut state.usual, |last| *last);
        }
        state.usual.insert(pair, now);
    }

    /// The number of failures since the start, and how long ago the last one was.
    pub fn failures(&self, now: Instant) -> (u64, Option<Duration>) {
        let state = self.lock();
        (state.total, state.last.map(|last| now.saturating_duration_since(last)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Failures {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < FORGOTTEN_AFTER
    }
}

/// Failures that are not forgotten yet.
pub fn count<K, Q>(failures: &HashMap<K, Failures>, key: &Q, now: Instant) -> u32
where
    K: Eq + Hash + Borrow<Q>,
    Q: Eq + Hash + ?Sized,
{
    failures.get(key).filter(|failures| failures.is_fresh(now)).map_or(0, |failures| failures.count)
}

/// Counts one more. A full table forgets its older half first.
pub fn count_failure<K: Eq + Hash + Clone>(failures: &mut HashMap<K, Failures>, key: K, now: Instant) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Option<&str> = Some("ann@example.com");
    const BOB: Option<&str> = Some("bob@example.com");
    const EVE: Option<&str> = Some("eve@example.com");

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
    fn a_login_clears_the_failures_at_its_own_account() {
        let (guard, now) = (Guard::default(), Instant::now());
        guard.failed(ip(1), ANN, now);
        guard.succeeded(ip(1), ANN, now);
        assert_eq!(guard.wait(ip(1), ANN, now), Duration::ZERO);
        assert_eq!(guard.wait(ip(1), BOB, now), Duration::ZERO);
    }

    #[test]
    fn a_login_to_ones_own_account_buys_no_guesses_at_others() {
        let (guard, now) = (Guard::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            guard.failed(ip(1), ANN, now);
            guard.succeeded(ip(1), EVE, now);
            waits.push(guard.wait(ip(1), ANN, now).as_millis());
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(guard.wait(ip(1), BOB, now), WAIT_MAX);
        assert_eq!(guard.wait(ip(1), EVE, now), Duration::ZERO);
    }

    #[test]
    fn the_right_password_of_a_barred_account_slows_that_account_alone() {
        let (guard, now) = (Guard::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..4 {
            waits.push(guard.wait(ip(1), ANN, now).as_millis());
            guard.barred(ip(1), ANN, now);
        }
        // As long as after a wrong password: a stranger must not be able to tell the two apart.
        assert_eq!(waits, [0, 250, 500, 1000]);
        assert_eq!(guard.wait(ip(1), BOB, now), Duration::ZERO);
        assert_eq!(guard.failures(now).0, 4);
        guard.succeeded(ip(1), ANN, now);
        assert_eq!(guard.wait(ip(1), ANN, now), Duration::ZERO);
    }

    #[test]
    fn a_name_that_is_not_an_address_counts_against_the_network() {
        let (guard, now) = (Guard::default(), Instant::now());
        guard.failed(ip(1), None, now);
        assert_eq!(guard.wait(ip(1), None, now), FIRST_WAIT);
        assert!(guard.lock().accounts.is_empty());
    }

    #[test]
    fn many_addresses_guessing_at_one_account_wait_and_its_user_does_not() {
        let (guard, now) = (Guard::default(), Instant::now());
        guard.succeeded(ip(1), ANN, now);
        for stranger in 10..30 {
            guard.failed(ip(stranger), ANN, now);
        }
        assert_eq!(guard.wait(ip(99), ANN, now), WAIT_MAX);
        assert_eq!(guard.wait(ip(99), BOB, now), Duration::ZERO);
        assert_eq!(guard.wait(ip(1), ANN, now), Duration::ZERO);
    }

    #[test]
    fn hosts_of_one_ipv6_network_are_one() {
        let (guard, now) = (Guard::default(), Instant::now());
        guard.failed("2001:db8::1".parse().unwrap(), ANN, now);
        assert!(guard.wait("2001:db8::ffff".parse().unwrap(), BOB, now) > Duration::ZERO);
        assert_eq!(guard.wait("2001:db8:0:1::1".parse().unwrap(), BOB, now), Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded() {
        let (guard, now) = (Guard::default(), Instant::now());
        for number in 0..3 * REMEMBERED_MAX as u32 {
            let at = now + Duration::from_millis(number.into());
            let name = format!("{number}@example.com");
            let name = Some(&*name);
            guard.failed(IpAddr::V4((0x0a00_0000 + number).into()), name, at);
            guard.barred(IpAddr::V4((0x0a00_0000 + number).into()), name, at);
            guard.succeeded(IpAddr::V4((0x0b00_0000 + number).into()), name, at);
        }
        let state = guard.lock();
        let State { networks, accounts, pairs, barred, usual, .. } = &*state;
        let sizes = [networks.len(), accounts.len(), pairs.len(), barred.len(), usual.len()];
        assert!(sizes.iter().all(|size| *size > 0 && *size <= REMEMBERED_MAX), "{sizes:?}");
    }
}
