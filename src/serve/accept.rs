//! From an accepted connection to a session: who gets a place, who waits for one, and who is turned away.
//!
//! A connection from a proxy is judged by the address in its PROXY header, when that has come; any other at once, so
//! that places are given in order of arrival.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_io::{Async, Timer};
use smol::channel::Receiver;
use smol::future::FutureExt;
use smol::io::AsyncWriteExt;
use smol::lock::SemaphoreGuardArc;

use super::connection::{Connection, within};
use super::crowd::{Among, Stranger};
use super::door::Door;
use super::network::Counted;
use super::slots::{Admission, Buffers, Slot};
use super::socket::Socket;
use super::stream::Stream;
use super::tally::{End, Fetching, Receiving, Tally};
use super::workers::Priority;
use super::{Service, pop3, proxy, receiving};
use crate::envelope::Peer;
use crate::log::Rarely;
use crate::smtp::{self, Dialect};

/// How long to wait before accepting again when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// POP3 connections per network on which nobody has logged in; programs of this machine may have any number.
const NOT_LOGGED_IN_MAX: u32 = 20;
/// SMTP connections per network.
const SENDERS_PER_NETWORK_MAX: u32 = 32;
/// How long a client is held before it pushes out a connection on which nobody has logged in for as long.
const HELD_MAX: Duration = Duration::from_secs(2);
/// How long a sender waits for the connection it pushed out to go.
const PLACE_MAX: Duration = Duration::from_secs(5);
/// How long a PROXY header may take to arrive.
const PROXY_HEADER_MAX: Duration = Duration::from_secs(5);
/// How long a client may take to read its refusal.
const REFUSAL_MAX: Duration = Duration::from_secs(5);
const TOO_MANY: &str = "too many connections";
const TOO_MANY_OF_NETWORK: &str = "too many connections from your address";
static REFUSED: Rarely = Rarely::new(Duration::from_secs(10));

/// Accepts connections for as long as the task lives.
pub async fn accept(service: Arc<Service>, door: Door, listener: Async<TcpListener>) {
    let priority = match door {
        Door::Pop3 | Door::Pop3s => Priority::High,
        Door::Smtp | Door::Lmtp => Priority::Low,
    };
    loop {
        // Taken first: connections then wait in the kernel, and administration keeps its descriptors.
        let descriptor = service.descriptors.acquire_arc().await;
        match next(&listener, listener.accept()).await {
            Ok((stream, peer)) => {
                note_accepted();
                let (socket, peer) = (Socket::new(stream), peer.ip().to_canonical());
                if door == Door::Lmtp && !peer.is_loopback() && !service.settings().lmtpfrom.contain(peer) {
                    note_refusal(peer, "its network is not in lmtpfrom");
                    continue;
                }
                // A program that delivers by LMTP speaks for itself.
                if door != Door::Lmtp && service.settings().proxyfrom.contain(peer) {
                    if let Some(turn) = service.proxy_headers.try_acquire_arc() {
                        let session = behind_proxy(service.clone(), door, socket, peer, turn);
                        service.workers.serve(priority, descriptor, session);
                    }
                    continue;
                }
                let reception = service.receive(door, peer);
                let session = serve(service.clone(), door, reception, socket, peer);
                service.workers.serve(priority, descriptor, session);
            }
            Err(e) => pause_after(&e).await,
        }
    }
}

/// The same for LMTP over the Unix socket.
pub async fn accept_here(service: Arc<Service>, listener: Async<UnixListener>) {
    loop {
        let descriptor = service.descriptors.acquire_arc().await;
        match next(&listener, listener.accept()).await {
            Ok((stream, _)) => {
                note_accepted();
                let seat = service.trusted_receiving.try_acquire_arc();
                let session = serve_here(service.clone(), seat, stream);
                service.workers.serve(Priority::Low, descriptor, session);
            }
            Err(e) => pause_after(&e).await,
        }
    }
}

/// Waits for a connection before it asks the kernel for one. Others have their turn between two, however many come.
async fn next<L: AsFd, T>(
    listener: &Async<L>,
    accepted: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    listener.readable().await?;
    accepted.await
}

async fn serve_here(service: Arc<Service>, seat: Option<SemaphoreGuardArc>, stream: Async<UnixStream>) {
    let Some(_pass) = service.sessions.enter() else { return };
    let socket = match Socket::of_unix(stream) {
        Ok(socket) => socket,
        Err(e) => return log::error!("LMTP over the Unix socket: {e}"),
    };
    let served = async {
        match seat {
            Some(_seat) => receive(&service, Dialect::Lmtp, socket, Peer::Local, None).await,
            None => service.refuse(socket, Door::Lmtp, "this machine", TOO_MANY).await,
        }
    };
    served.or(service.grace_over.begun()).await;
}

async fn behind_proxy(
    service: Arc<Service>,
    door: Door,
    mut socket: Socket,
    proxy: IpAddr,
    turn: SemaphoreGuardArc,
) {
    let header = within(PROXY_HEADER_MAX, proxy::read_header(&mut socket)).await;
    drop(turn);
    match header {
        Ok(client) => {
            let peer = client.unwrap_or(proxy);
            let reception = service.receive(door, peer);
            serve(service, door, reception, socket, peer).await;
        }
        Err(e) => note_refusal(proxy, &format!("its network is in proxyfrom, but {e}")),
    }
}

/// True from an accept that failed because something ran out until the next one that succeeds.
static IN_WANT: AtomicBool = AtomicBool::new(false);

/// After a failed accept. Unless it is the client's fault something has run out, and trying again at once would spin.
pub async fn pause_after(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        if !IN_WANT.swap(true, Ordering::Relaxed) {
            log::error!("connections cannot be accepted now: {error}");
        }
        Timer::after(ACCEPT_PAUSE).await;
    }
}

pub fn note_accepted() {
    if IN_WANT.load(Ordering::Relaxed) && IN_WANT.swap(false, Ordering::Relaxed) {
        log::warn!("connections are accepted again");
    }
}

/// How a connection is received. Decided when it is accepted, before anything is sent.
enum Reception {
    Pop3 {
        admission: Admission,
        counted: Counted,
        stranger: Stranger,
    },
    Sender {
        /// `None` until the connection that was pushed out for it has gone.
        seat: Option<SemaphoreGuardArc>,
        counted: [Counted; 2],
        stranger: Stranger,
    },
    TrustedSender(Dialect, SemaphoreGuardArc),
    /// With the reason.
    Refused(&'static str),
}

impl Service {
    fn receive(&self, door: Door, peer: IpAddr) -> Reception {
        match door {
            Door::Lmtp => self.receive_trusted(Dialect::Lmtp),
            Door::Smtp if peer.is_loopback() => self.receive_trusted(Dialect::Smtp),
            Door::Smtp => self.receive_sender(peer),
            Door::Pop3 | Door::Pop3s => self.receive_pop3(peer),
        }
    }

    fn receive_trusted(&self, dialect: Dialect) -> Reception {
        match self.trusted_receiving.try_acquire_arc() {
            Some(seat) => Reception::TrustedSender(dialect, seat),
            None => Reception::Refused(TOO_MANY),
        }
    }

    fn receive_pop3(&self, peer: IpAddr) -> Reception {
        let most = if peer.is_loopback() { 0 } else { NOT_LOGGED_IN_MAX };
        let counted = self.per_network.count(peer, self.settings().connectionsperip.get());
        let (Some(counted), Some(stranger)) = (counted, self.not_logged_in.enter(peer, most)) else {
            return Reception::Refused(TOO_MANY_OF_NETWORK);
        };
        let make_room = || self.not_logged_in.push_out(Among::All, Some(peer));
        Reception::Pop3 { admission: self.slots.admit(make_room), counted, stranger }
    }

    fn receive_sender(&self, peer: IpAddr) -> Reception {
        let counted = self.per_network.count(peer, self.settings().connectionsperip.get());
        let of_senders = self.senders_per_network.count(peer, SENDERS_PER_NETWORK_MAX);
        let (Some(counted), Some(of_senders), Some(stranger)) =
            (counted, of_senders, self.idle_senders.enter(peer, 0))
        else {
            return Reception::Refused(TOO_MANY_OF_NETWORK);
        };
        let seat = self.receiving.try_acquire_arc();
        if seat.is_none() && !self.idle_senders.push_out(Among::SeatedBy(Instant::now()), Some(peer)) {
            return Reception::Refused(TOO_MANY);
        }
        Reception::Sender { seat, counted: [counted, of_senders], stranger }
    }

    /// Tells the client why and closes; without a word if too many are being told already.
    async fn refuse(&self, mut socket: Socket, door: Door, peer: impl Display, why: &str) {
        note_refusal(peer, why);
        if let Some(_turn) = self.refusals.try_acquire() {
            // The client may have gone already.
            let _ = refuse(&mut socket, door, why).await;
        }
    }
}

fn note_refusal(peer: impl Display, why: &str) {
    match REFUSED.happened(Instant::now()) {
        None => {}
        Some(1) => log::warn!("connection from {peer} refused: {why}"),
        Some(count) => log::warn!("{count} connections refused; the last was from {peer}: {why}"),
    }
}

async fn serve(service: Arc<Service>, door: Door, reception: Reception, socket: Socket, peer: IpAddr) {
    let Some(_pass) = service.sessions.enter() else { return };
    let served = async {
        match reception {
            Reception::Pop3 { admission, counted: _counted, stranger } => {
                serve_pop3(&service, door, admission, socket, peer, &stranger).await;
            }
            Reception::Sender { seat, counted: _counted, stranger } => {
                serve_sender(&service, seat, socket, peer, &stranger).await;
            }
            Reception::TrustedSender(dialect, _seat) => {
                receive(&service, dialect, socket, Peer::Ip(peer), None).await;
            }
            Reception::Refused(why) => service.refuse(socket, door, peer, why).await,
        }
    };
    served.or(service.grace_over.begun()).await;
}

/// Does the work; `None` if the stranger is pushed out first.
async fn unless_pushed_out<T>(stranger: &Stranger, work: impl Future<Output = T>) -> Option<T> {
    let pushed_out = async {
        stranger.pushed_out().await;
        None
    };
    async { Some(work.await) }.or(pushed_out).await
}

async fn serve_pop3(
    service: &Arc<Service>,
    door: Door,
    admission: Admission,
    socket: Socket,
    peer: IpAddr,
    stranger: &Stranger,
) {
    let slot = match admission {
        Admission::Slot(slot) => Some(slot),
        Admission::Wait(turn) => {
            let waiting = wait_for(turn, socket.stream()).or(pushing_out(service));
            unless_pushed_out(stranger, waiting).await.flatten()
        }
        Admission::Refused => return service.refuse(socket, door, peer, TOO_MANY).await,
    };
    let Some(mut slot) = slot else { return };
    stranger.seat();
    let idle_max = service.settings().idletimeout.duration();
    let connection = Connection::new(Stream::Clear(socket), slot.take_buffers(), idle_max);
    let mut tally = Tally::new(Fetching::new(peer));
    let tls_first = door == Door::Pop3s;
    // Boxed: each future around this one holds it twice, as what it is given and as what it awaits.
    let session = Box::pin(pop3::serve(service.clone(), connection, tls_first, stranger, &mut tally));
    if unless_pushed_out(stranger, session).await.is_none() {
        tally.end(End::PushedOut);
    }
}

/// While a client is held, pushes out those on which nobody logs in.
async fn pushing_out<T>(service: &Service) -> T {
    loop {
        let since = Instant::now();
        Timer::after(HELD_MAX).await;
        service.not_logged_in.push_out(Among::SeatedBy(since), None);
    }
}

async fn serve_sender(
    service: &Arc<Service>,
    seat: Option<SemaphoreGuardArc>,
    socket: Socket,
    peer: IpAddr,
    stranger: &Stranger,
) {
    let seat = match seat {
        Some(seat) => Some(seat),
        None => {
            let too_long = async {
                Timer::after(PLACE_MAX).await;
                None
            };
            async { Some(service.receiving.acquire_arc().await) }.or(too_long).await
        }
    };
    let Some(_seat) = seat else {
        return service.refuse(socket, Door::Smtp, peer, TOO_MANY).await;
    };
    stranger.seat();
    receive(service, Dialect::Smtp, socket, Peer::Ip(peer), Some((peer, stranger))).await;
}

/// `stranger` is `None` for a trusted client.
async fn receive(
    service: &Arc<Service>,
    dialect: Dialect,
    socket: Socket,
    peer: Peer,
    stranger: Option<(IpAddr, &Stranger)>,
) {
    let idle_max = service.settings().idletimeout.duration();
    let connection = Connection::new(Stream::Clear(socket), Buffers::new(), idle_max);
    let mut tally = Tally::new(Receiving::new(dialect, peer));
    let session = Box::pin(receiving::serve(service.clone(), connection, stranger, &mut tally));
    match stranger {
        None => session.await,
        Some((_, stranger)) => {
            if unless_pushed_out(stranger, session).await.is_none() {
                tally.end(End::PushedOut);
            }
        }
    }
}

/// Holds a connection without a word until a slot is free; `None` if the client goes first.
async fn wait_for(turn: Receiver<Slot>, stream: &Async<TcpStream>) -> Option<Slot> {
    let gone = async {
        stream.readable().await.ok()?;
        match stream.get_ref().peek(&mut [0]) {
            // A client that speaks before the greeting waits anyway.
            Ok(1..) => std::future::pending().await,
            Ok(0) | Err(_) => None,
        }
    };
    async { turn.recv().await.ok() }.or(gone).await
}

/// Under POP3S nothing is said: the client waits for a handshake.
async fn refuse(socket: &mut Socket, door: Door, why: &str) -> io::Result<()> {
    let words = match door {
        Door::Pop3 => crate::pop3::turn_away(why),
        Door::Pop3s => return Ok(()),
        Door::Smtp | Door::Lmtp => smtp::turn_away(why),
    };
    let said = async {
        socket.write_all(words.as_bytes()).await?;
        socket.close().await
    };
    within(REFUSAL_MAX, said).await
}
