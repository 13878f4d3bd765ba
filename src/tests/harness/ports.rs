//! Ports for a test, which nobody else listens on.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::ops::Range;
use std::sync::Mutex;

/// Below those that the kernel gives to outgoing connections, so that no client takes one meanwhile.
const RANGE: Range<u16> = 10_000..32_000;

#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub pop3: u16,
    pub pop3s: u16,
    pub smtp: u16,
    pub lmtp: u16,
}

impl Ports {
    pub fn free() -> Self {
        Self { pop3: free_port(), pop3s: free_port(), smtp: free_port(), lmtp: free_port() }
    }
}

/// Nobody listens on it now, and no other test of this process gets it.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    // Asked by connecting: a socket bound here could live on for a moment in a process that another test is just
    // starting, and be in the way itself.
    let is_free = |port| {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        loopback.into_iter().all(|ip| TcpStream::connect((ip, port)).is_err())
    };
    loop {
        let port = fastrand::u16(RANGE);
        if GIVEN.lock().unwrap().insert(port) && is_free(port) {
            return port;
        }
    }
}
