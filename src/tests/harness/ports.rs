//! Free ports for tests.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::ops::Range;
use std::sync::Mutex;

/// Below the ports that the kernel gives to outgoing connections, so that no client takes one meanwhile.
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

/// A port on which nobody listens, and which no other test of this process gets.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    // Try by connecting: a socket bound here could live on briefly in a process that another test is just starting, and
    // block the port itself.
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
