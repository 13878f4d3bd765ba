//! The network that counts as one client, and the connections of each.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::lock::Mutex;

/// The network of an address: for IPv4 the address itself, for IPv6 its /64, because a host there has as many addresses
/// as it likes.
pub fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

/// Open connections by network.
#[derive(Clone, Default)]
pub struct PerNetwork(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// Held by a connection for as long as it counts.
pub struct Counted {
    connections: PerNetwork,
    network: IpAddr,
}

impl PerNetwork {
    /// Counts one more, unless its network has `most` already (0 = any number).
    pub fn count(&self, peer: IpAddr, most: u32) -> Option<Counted> {
        let network = network_of(peer);
        let mut counts = self.0.lock();
        let count = counts.entry(network).or_default();
        if most > 0 && *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted { connections: self.clone(), network })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.connections.0.lock();
        let count = counts.get_mut(&self.network).expect("this connection is counted");
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_address_and_forgotten_when_they_end() {
        let connections = PerNetwork::default();
        let (ann, bob) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let first = connections.count(ann, 2).unwrap();
        let second = connections.count(ann, 2).unwrap();
        assert!(connections.count(ann, 2).is_none());
        assert!(connections.count(bob, 2).is_some());
        assert!(connections.count(ann, 0).is_some(), "0 is no limit");
        drop(first);
        let third = connections.count(ann, 2).unwrap();
        drop((second, third));
        assert!(connections.0.lock().is_empty());
    }

    #[test]
    fn hosts_of_one_ipv6_network_are_counted_together() {
        let connections = PerNetwork::default();
        let count = |peer: &str| connections.count(peer.parse().unwrap(), 1);
        let _first = count("2001:db8::1").unwrap();
        assert!(count("2001:db8::2").is_none() && count("2001:db8:0:1::1").is_some());
        let _mapped = count("::ffff:192.0.2.7").unwrap();
        assert!(count("192.0.2.7").is_none() && count("192.0.2.8").is_some());
    }
}
