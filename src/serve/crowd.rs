//! Strangers: POP3 connections without a login and SMTP connections without a message under way. Anyone can open them,
//! so each network gets only so many, and when places run out one of them has to go.
//!
//! - The oldest of the largest group goes; a group is a network ([`network_of`]). So a crowd from one network pushes
//!   out its own members, and a single client is safe until as many others have come after it as there are places.
//! - Only strangers are ever pushed out.
//! - [`Stranger::pushed_out`] tells the stranger. Its owner drops the session at once, without last words: a client
//!   that does not read must not keep the place.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use smol::channel::{Receiver, Sender};

use super::network::network_of;
use crate::lock::Mutex;

#[derive(Clone, Default)]
pub struct Crowd(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next_number: u64,
    /// By network, then by age. No group is empty.
    groups: HashMap<IpAddr, BTreeMap<u64, Member>>,
}

struct Member {
    /// Since when it has a place; `None` while it waits for one.
    seated: Option<Instant>,
    push: Sender<()>,
}

/// A connection that is or was a stranger. Dropping it leaves the crowd.
pub struct Stranger {
    crowd: Crowd,
    network: IpAddr,
    /// Its position by age; `None` while it is not a stranger.
    number: Mutex<Option<u64>>,
    push: Sender<()>,
    pushed: Receiver<()>,
}

/// Which strangers may be pushed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    All,
    /// Those that got their place then or earlier.
    SeatedBy(Instant),
}

impl Crowd {
    /// Lets a connection in as a stranger without a place, unless its network has `most` already (0 = any number).
    pub fn enter(&self, peer: IpAddr, most: u32) -> Option<Stranger> {
        let network = network_of(peer);
        let (push, pushed) = smol::channel::bounded(1);
        let number = self.lock().add(network, most, Member { seated: None, push: push.clone() })?;
        Some(Stranger { crowd: self.clone(), network, number: Mutex::new(Some(number)), push, pushed })
    }

    /// Pushes out the oldest stranger of the largest group. False if there is nobody, or if that one is from the
    /// network of `of_other_than`.
    pub fn push_out(&self, among: Among, of_other_than: Option<IpAddr>) -> bool {
        let mut state = self.lock();
        let Some((network, number)) = state.next_to_go(among) else { return false };
        if of_other_than.map(network_of) == Some(network) {
            return false;
        }
        let member = state.remove(network, number).expect("it was just found");
        // Full: it has been told already.
        let _ = member.push.try_send(());
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn add(&mut self, network: IpAddr, most: u32, member: Member) -> Option<u64> {
        let count = self.groups.get(&network).map_or(0, BTreeMap::len);
        if most > 0 && count >= most as usize {
            return None;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.groups.entry(network).or_default().insert(number, member);
        Some(number)
    }

    fn remove(&mut self, network: IpAddr, number: u64) -> Option<Member> {
        let group = self.groups.get_mut(&network)?;
        let member = group.remove(&number);
        if group.is_empty() {
            self.groups.remove(&network);
        }
        member
    }

    /// Among groups of equal size, the one with the oldest member.
    fn next_to_go(&self, among: Among) -> Option<(IpAddr, u64)> {
        let may_go = |member: &Member| match among {
            Among::All => true,
            Among::SeatedBy(moment) => member.seated.is_some_and(|seated| seated <= moment),
        };
        let size_and_oldest = |group: &BTreeMap<u64, Member>| {
            let mut numbers = group.iter().filter(|(_, member)| may_go(member)).map(|(number, _)| *number);
            numbers.next().map(|oldest| (1 + numbers.count(), Reverse(oldest)))
        };
        let groups =
            self.groups.iter().filter_map(|(network, group)| Some((size_and_oldest(group)?, *network)));
        groups.max().map(|((_, Reverse(oldest)), network)| (network, oldest))
    }
}

impl Stranger {
    /// The connection gets its place.
    pub fn seat(&self) {
        let number = *self.number();
        let mut state = self.crowd.lock();
        let member = number.and_then(|number| state.groups.get_mut(&self.network)?.get_mut(&number));
        if let Some(member) = member {
            member.seated = Some(Instant::now());
        }
    }

    /// The connection stops being a stranger and is safe from now on. False if it has been pushed out already.
    pub fn leave_crowd(&self) -> bool {
        let number = self.number().take();
        number.is_none_or(|number| self.crowd.lock().remove(self.network, number).is_some())
    }

    /// The connection becomes a stranger again: the youngest of its network, with a place.
    pub fn rejoin_crowd(&self) {
        let mut number = self.number();
        if number.is_none() {
            let member = Member { seated: Some(Instant::now()), push: self.push.clone() };
            *number = self.crowd.lock().add(self.network, 0, member);
        }
    }

    /// Returns when the stranger has to go.
    pub async fn pushed_out(&self) {
        // This cannot fail, since `self` holds a sender.
        let _ = self.pushed.recv().await;
    }

    fn number(&self) -> MutexGuard<'_, Option<u64>> {
        self.number.lock()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.leave_crowd();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(network: u8) -> IpAddr {
        [192, 0, 2, network].into()
    }

    fn enter(crowd: &Crowd, network: u8) -> Stranger {
        let stranger = crowd.enter(ip(network), 0).unwrap();
        stranger.seat();
        stranger
    }

    fn was_pushed_out(stranger: &Stranger) -> bool {
        stranger.pushed.try_recv().is_ok()
    }

    #[test]
    fn the_oldest_of_the_largest_group_goes_first() {
        let crowd = Crowd::default();
        let single = enter(&crowd, 1);
        let of_three = [enter(&crowd, 2), enter(&crowd, 2), enter(&crowd, 2)];
        let of_two = [enter(&crowd, 3), enter(&crowd, 3)];
        // Of the groups of two, the one with the oldest member.
        for expected in [&of_three[0], &of_three[1], &of_two[0], &single, &of_three[2], &of_two[1]] {
            assert!(crowd.push_out(Among::All, None));
            assert!(was_pushed_out(expected));
        }
        assert!(!crowd.push_out(Among::All, None));
    }

    #[test]
    fn a_network_does_not_push_out_its_own_for_a_newcomer() {
        let crowd = Crowd::default();
        let _many = [enter(&crowd, 1), enter(&crowd, 1)];
        assert!(!crowd.push_out(Among::All, Some(ip(1))));
        assert!(crowd.push_out(Among::All, Some(ip(2))));
    }

    #[test]
    fn strangers_without_a_place_are_spared_when_a_place_is_wanted() {
        let crowd = Crowd::default();
        let _waiting = [crowd.enter(ip(1), 0).unwrap(), crowd.enter(ip(1), 0).unwrap()];
        let before = Instant::now();
        assert!(!crowd.push_out(Among::SeatedBy(before), None));
        let seated = enter(&crowd, 2);
        assert!(crowd.push_out(Among::SeatedBy(Instant::now()), None) && was_pushed_out(&seated));
    }

    #[test]
    fn a_connection_that_proved_itself_stays_and_can_become_a_stranger_again() {
        let crowd = Crowd::default();
        let user = enter(&crowd, 1);
        assert!(user.leave_crowd() && user.leave_crowd());
        assert!(!crowd.push_out(Among::All, None));
        user.rejoin_crowd();
        assert!(crowd.push_out(Among::All, None) && was_pushed_out(&user));
        assert!(!user.leave_crowd(), "it has to go");
    }

    #[test]
    fn hosts_of_one_ipv6_network_share_its_limit_and_leave_nothing_behind() {
        let crowd = Crowd::default();
        let of = |host: &str| crowd.enter(host.parse().unwrap(), 2);
        let (first, second) = (of("2001:db8::1").unwrap(), of("2001:db8::2").unwrap());
        assert!(of("2001:db8::3").is_none());
        assert!(of("2001:db8:0:1::3").is_some());
        drop(first);
        assert!(of("2001:db8::3").is_some());
        drop(second);
        assert!(crowd.lock().groups.is_empty());
    }
}
