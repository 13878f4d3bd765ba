//! The sockets the service listens on: which ones the settings ask for, and how they change while it runs.
//!
//! A change is made whole or not at all: if one address can't be bound, the old ones are bound again.
//!
//! Whoever changes them waits for the executor to drop a task, so nothing on the executor's thread waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_io::Async;
use rustix::net::sockopt::set_tcp_nodelay;
use smol::Task;

use super::Service;
use super::accept::{accept, accept_here};
use super::door::{DOORS, Door};
use super::unix;
use crate::settings::{Listen, Settings};

impl Door {
    /// Whether the port is free now, at every address the settings ask for.
    pub fn is_free(self, settings: &Settings) -> bool {
        let port = self.port(settings);
        self.addresses(settings).into_iter().all(|ip| bind(self, SocketAddr::new(ip, port)).is_ok())
    }

    fn addresses(self, settings: &Settings) -> Vec<IpAddr> {
        match (self, &settings.listen) {
            // LMTP trusts its clients, so other machines reach it only if `lmtpfrom` names them.
            (Door::Lmtp, _) if settings.lmtpfrom.is_empty() => HERE.to_vec(),
            (_, Listen::All) => vec![Ipv6Addr::UNSPECIFIED.into()],
            (Door::Lmtp, Listen::Only(addresses)) => addresses
                .iter()
                .copied()
                .chain(HERE.into_iter().filter(|ip| !addresses.contains(ip)))
                .collect(),
            (_, Listen::Only(addresses)) => addresses.clone(),
        }
    }
}

/// Loopback.
const HERE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Where a door opens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Tcp(SocketAddr),
    /// LMTP only.
    Unix(PathBuf),
}

type Key = (Door, At);

/// The open sockets. Dropping a task closes its socket.
#[derive(Default)]
pub struct Listeners {
    open: BTreeMap<Key, Open>,
    /// The service is ending, and opens no door again.
    are_closed: bool,
}

struct Open {
    /// The address clients connect to.
    local: At,
    accepting: Task<()>,
}

impl Listeners {
    /// Listens where these settings say. An error changes nothing; it is a sentence that names the setting to change.
    /// Does nothing while the service is ending: the next start listens there.
    pub fn change_to(&mut self, service: &Arc<Service>, settings: &Settings) -> Result<(), String> {
        if self.are_closed {
            return Ok(());
        }
        let wanted = wanted(settings);
        // Close first: the same port at another address may be in the way.
        let closed: Vec<Key> = self.open.keys().filter(|key| !wanted.contains(key)).cloned().collect();
        closed.iter().for_each(|key| self.close(key));
        let added: Vec<Key> = wanted.into_iter().filter(|key| !self.open.contains_key(key)).collect();
        // Bind all before accepting on any. Otherwise an error would leave tasks to wait for, which nobody runs before
        // the start.
        let bound: Result<Vec<Bound>, String> = added.into_iter().map(Bound::new).collect();
        match bound {
            Ok(bound) => {
                bound.into_iter().for_each(|bound| self.accept(service, bound));
                Ok(())
            }
            Err(sentence) => {
                for key in closed {
                    match Bound::new(key) {
                        Ok(bound) => self.accept(service, bound),
                        Err(e) => log::error!("listening again on the old address failed: {e}"),
                    }
                }
                Err(sentence)
            }
        }
    }

    /// Hands over the accepting tasks for good. Cancelling them stops the service from taking connections.
    pub fn take_all(&mut self) -> Vec<Task<()>> {
        self.are_closed = true;
        let accepting = |open: Open| {
            if let At::Unix(path) = &open.local {
                unix::remove(path);
            }
            open.accepting
        };
        mem::take(&mut self.open).into_values().map(accepting).collect()
    }

    /// The TCP addresses of this door.
    pub fn addresses(&self, door: Door) -> Vec<SocketAddr> {
        let of_door = self.open.iter().filter(|((of, _), _)| *of == door);
        let tcp = |(_, open): (&Key, &Open)| match open.local {
            At::Tcp(local) => Some(local),
            At::Unix(_) => None,
        };
        of_door.filter_map(tcp).collect()
    }

    /// True once the service is ending.
    pub fn are_closed(&self) -> bool {
        self.are_closed
    }

    /// The open doors in words: `POP3 110, LMTP 127.0.0.1:24`. A port alone is open at every address.
    pub fn doors(&self) -> String {
        let words = self.open.iter().map(|((door, _), open)| match &open.local {
            At::Tcp(local) if local.ip().is_unspecified() => format!("{} {}", door.protocol(), local.port()),
            local => format!("{} {local}", door.protocol()),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    fn accept(&mut self, service: &Arc<Service>, bound: Bound) {
        let Bound { key, listener } = bound;
        let (local, accepting) = match listener {
            Listener::None => return,
            Listener::Tcp(listener, local) => {
                (At::Tcp(local), service.workers.spawn(accept(service.clone(), key.0, listener)))
            }
            Listener::Unix(listener) => {
                (key.1.clone(), service.workers.spawn(accept_here(service.clone(), listener)))
            }
        };
        log::info!("{} on {local}", key.0.protocol());
        self.open.insert(key, Open { local, accepting });
    }

    fn close(&mut self, key: &Key) {
        if let Some(open) = self.open.remove(key) {
            // The port is free only when the task has dropped the socket.
            smol::block_on(open.accepting.cancel());
            if let At::Unix(path) = &open.local {
                unix::remove(path);
            }
        }
    }
}

/// A listening socket that nobody accepts on yet.
struct Bound {
    key: Key,
    listener: Listener,
}

enum Listener {
    /// With the address clients connect to.
    Tcp(Async<TcpListener>, SocketAddr),
    Unix(Async<UnixListener>),
    /// This machine lacks the address, and can do without.
    None,
}

impl Bound {
    fn new(key: Key) -> Result<Self, String> {
        let (door, at) = &key;
        let listener = match at {
            At::Tcp(address) => {
                let sentence = |e: io::Error| sentence(*door, *address, &e);
                match bind(*door, *address).map_err(sentence)? {
                    Some(listener) => {
                        let local = listener.get_ref().local_addr().map_err(sentence)?;
                        Listener::Tcp(listener, local)
                    }
                    None => Listener::None,
                }
            }
            At::Unix(path) => Listener::Unix(unix::bind(path).map_err(|e| unix_sentence(path, &e))?),
        };
        Ok(Self { key, listener })
    }
}

fn wanted(settings: &Settings) -> BTreeSet<Key> {
    let mut wanted = BTreeSet::new();
    for door in DOORS {
        let port = door.port(settings);
        if port != 0 {
            let addresses = door.addresses(settings);
            wanted.extend(addresses.into_iter().map(|ip| (door, At::Tcp(SocketAddr::new(ip, port)))));
        }
    }
    wanted.extend(settings.lmtpsocket.get().map(|path| (Door::Lmtp, At::Unix(path.to_owned()))));
    wanted
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A listening socket. `None` for LMTP's IPv6 loopback on a machine without IPv6, which has IPv4's.
fn bind(door: Door, address: SocketAddr) -> io::Result<Option<Async<TcpListener>>> {
    let without_ipv6 = |e: &io::Error| {
        matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) && address.is_ipv6()
    };
    let bind = |address: SocketAddr| {
        let listener = Async::<TcpListener>::bind(address)?;
        // Replies are written whole, so delaying them gains nothing. The connections inherit this.
        set_tcp_nodelay(&listener, true)?;
        Ok(listener)
    };
    match bind(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(e) if without_ipv6(&e) && address.ip().is_unspecified() => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into()).map(Some)
        }
        Err(e) if without_ipv6(&e) && door == Door::Lmtp => Ok(None),
        Err(e) => Err(e),
    }
}

fn sentence(door: Door, address: SocketAddr, error: &io::Error) -> String {
    let (protocol, key, port) = (door.protocol(), door.key(), address.port());
    let off = if door == Door::Pop3 { "" } else { ", or 0 for none" };
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {port} for {protocol} is taken by another program. Stop that, or choose another port{off}: \
             winpop set {key} PORT"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "port {port} for {protocol} needs root, or the capability CAP_NET_BIND_SERVICE. Choose a port above \
             1023{off}: winpop set {key} PORT"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{} is not an address of this machine. Change it with: winpop set listen", address.ip())
        }
        _ => format!("{protocol} cannot listen on {address}: {error}"),
    }
}

fn unix_sentence(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another program listens on {path}. Choose another path: winpop set lmtpsocket PATH")
        }
        io::ErrorKind::AlreadyExists => {
            format!("{path} is a file, which is left alone. Choose another path: winpop set lmtpsocket PATH")
        }
        _ => format!(
            "LMTP cannot listen on {path}: {error}. The service's user must be able to write to its directory. To do \
             without the socket: winpop set lmtpsocket default"
        ),
    }
}
