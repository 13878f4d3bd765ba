//! From an accepted connection to a session: who gets a place, who waits, who is turned away and how.
//!
//! A connection from a proxy is judged once its PROXY header has come, by the address in it; any other at once, so that
//! places are given in the order of arrival.

use std::io;
use std::net::{IpAddr, TcpListener, TcpStream};
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
use super::limits::{Counted, Rarely};
use super::listeners::Door;
use super::slots::{Admission, Buffers, Slot};
use super::socket::Socket;
use super::stream::Stream;
use super::tally::{End, Tally};
use super::tls::Protocol;
use super::{Service, pop3, proxy, receiving};
use crate::envelope::Peer;
use crate::smtp::{self, Dialect};

/// How long the service waits before it accepts again when it has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// POP3 connections of one network on which nobody has logged in yet; programs of this machine may have any number.
const NOT_LOGGED_IN_MAX: u32 = 20;
/// SMTP connections of one network.
const SENDERS_PER_NETWORK_MAX: u32 = 32;
/// How long a client is held before a connection makes place for it on which nobody has logged in for as long.
const HELD_MAX: Duration = Duration::from_secs(2);
/// How long a sender waits for the one that makes place for it to go.
const PLACE_MAX: Duration = Duration::from_secs(5);
/// How long a PROXY header may take to come.
const PROXY_HEADER_MAX: Duration = Duration::from_secs(5);
/// How long a refusal may take to be sent.
const REFUSAL_MAX: Duration = Duration::from_secs(5);
const TOO_MANY: &str = "too many connections";
/// A flood of refused connections is one line of the log in this time.
static REFUSED: Rarely = Rarely::new(Duration::from_secs(10));

/// Takes connections for as long as the task lives.
pub async fn accept(service: Arc<Service>, door: Door, listener: Async<TcpListener>) {
    loop {
        // Before, so that connections wait in the kernel, and administration has descriptors left.
        let descriptor = service.descriptors.acquire_arc().await;
        match listener.accept().await {
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
                        service.workers.serve(holding(descriptor, session));
                    }
                    continue;
                }
                let place = service.place(door, peer);
                let session = serve(service.clone(), door, place, socket, peer);
                service.workers.serve(holding(descriptor, session));
            }
            Err(e) => pause_after(&e).await,
        }
    }
}

async fn holding(_descriptor: SemaphoreGuardArc, session: impl Future<Output = ()>) {
    session.await;
}

/// The same for LMTP over the Unix socket.
pub async fn accept_here(service: Arc<Service>, listener: Async<UnixListener>) {
    loop {
        let descriptor = service.descriptors.acquire_arc().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                note_accepted();
                let seat = service.trusted_receiving.try_acquire_arc();
                let session = serve_here(service.clone(), seat, stream);
                service.workers.serve(holding(descriptor, session));
            }
            Err(e) => pause_after(&e).await,
        }
    }
}

async fn serve_here(service: Arc<Service>, seat: Option<SemaphoreGuardArc>, stream: Async<UnixStream>) {
    let Some(_token) = service.session_token() else { return };
    let outcome = async {
        let mut socket = Socket::of_unix(stream)?;
        match seat {
            Some(_seat) => receive(&service, Door::Lmtp, socket, Peer::Local, None).await,
            None => refuse(&mut socket, Door::Lmtp, TOO_MANY).await,
        }
    };
    if let Err(e) = outcome.await {
        log::info!("LMTP connection over the Unix socket ended: {e}");
    }
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
            let place = service.place(door, peer);
            serve(service, door, place, socket, peer).await;
        }
        Err(e) => note_refusal(proxy, &format!("its network is in proxyfrom, but {e}")),
    }
}

/// True from the first accept that failed for want of something to the next that went well.
static IN_WANT: AtomicBool = AtomicBool::new(false);

/// A failed accept is the client's fault, or something has run out: trying again at once would spin.
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

/// What a connection gets before a word is said on it.
enum Place {
    Pop3 { admission: Admission, counted: Counted, stranger: Stranger },
    Sender { seat: Option<SemaphoreGuardArc>, counted: [Counted; 2], stranger: Stranger },
    TrustedSender(SemaphoreGuardArc),
    TooMany,
    TooManyOfAddress,
}

impl Service {
    fn place(&self, door: Door, peer: IpAddr) -> Place {
        let is_here = peer.is_loopback();
        if door == Door::Lmtp || door == Door::Smtp && is_here {
            return self.trusted_receiving.try_acquire_arc().map_or(Place::TooMany, Place::TrustedSender);
        }
        let Some(counted) = self.per_address.count(peer, self.settings().connectionsperip.get()) else {
            return Place::TooManyOfAddress;
        };
        match door {
            Door::Pop3 | Door::Pop3s => {
                let most = if is_here { 0 } else { NOT_LOGGED_IN_MAX };
                let Some(stranger) = self.not_logged_in.enter(peer, most) else {
                    return Place::TooManyOfAddress;
                };
                let make_room = || self.not_logged_in.push_out(Among::All, Some(peer));
                Place::Pop3 { admission: self.slots.admit(make_room), counted, stranger }
            }
            Door::Smtp | Door::Lmtp => {
                let of_senders = self.senders_per_address.count(peer, SENDERS_PER_NETWORK_MAX);
                let (Some(of_senders), Some(stranger)) = (of_senders, self.idle_senders.enter(peer, 0))
                else {
                    return Place::TooManyOfAddress;
                };
                let seat = self.receiving.try_acquire_arc();
                if seat.is_none() && !self.idle_senders.push_out(Among::SeatedBy(Instant::now()), Some(peer))
                {
                    return Place::TooMany;
                }
                Place::Sender { seat, counted: [counted, of_senders], stranger }
            }
        }
    }

    /// Says why, if not too many are told already, and closes.
    async fn refuse(&self, mut socket: Socket, door: Door, peer: IpAddr, why: &str) -> io::Result<()> {
        note_refusal(peer, why);
        match self.refusals.try_acquire() {
            Some(_turn) => refuse(&mut socket, door, why).await,
            None => Ok(()),
        }
    }
}

fn note_refusal(peer: IpAddr, why: &str) {
    match REFUSED.happened(Instant::now()) {
        None => {}
        Some(1) => log::warn!("connection from {peer} refused: {why}"),
        Some(count) => log::warn!("{count} connections refused; the last was from {peer}: {why}"),
    }
}

async fn serve(service: Arc<Service>, door: Door, place: Place, socket: Socket, peer: IpAddr) {
    let Some(_token) = service.session_token() else { return };
    // Replies are written whole, so there is nothing to wait for before they are sent.
    let _ = socket.stream().get_ref().set_nodelay(true);
    let outcome = match place {
        Place::Pop3 { admission, counted: _counted, stranger } => {
            let stranger = Arc::new(stranger);
            serve_pop3(service, door, admission, socket, peer, stranger.clone())
                .or(pushed_out(&stranger))
                .await
        }
        Place::Sender { seat, counted: _counted, stranger } => {
            serve_sender(&service, seat, socket, peer, &stranger).or(pushed_out(&stranger)).await
        }
        Place::TrustedSender(_seat) => receive(&service, door, socket, Peer::Ip(peer), None).await,
        Place::TooMany => service.refuse(socket, door, peer, TOO_MANY).await,
        Place::TooManyOfAddress => {
            service.refuse(socket, door, peer, "too many connections from your address").await
        }
    };
    if let Err(e) = outcome {
        log::info!("{} connection from {peer} ended: {e}", door.protocol());
    }
}

async fn pushed_out(stranger: &Stranger) -> io::Result<()> {
    stranger.pushed_out().await;
    Err(io::Error::other("it made place for another one"))
}

async fn serve_pop3(
    service: Arc<Service>,
    door: Door,
    admission: Admission,
    socket: Socket,
    peer: IpAddr,
    stranger: Arc<Stranger>,
) -> io::Result<()> {
    let mut slot = match admission {
        Admission::Slot(slot) => slot,
        Admission::Wait(turn) => {
            let too_long = async {
                loop {
                    let since = Instant::now();
                    Timer::after(HELD_MAX).await;
                    service.not_logged_in.push_out(Among::SeatedBy(since), None);
                }
            };
            match wait_for(turn, socket.stream()).or(too_long).await? {
                Some(slot) => slot,
                None => return Ok(()),
            }
        }
        Admission::Refused => return service.refuse(socket, door, peer, TOO_MANY).await,
    };
    stranger.seat();
    let idle_max = service.settings().idletimeout.duration();
    let mut connection = Connection::new(Stream::Clear(socket), slot.take_buffers(), idle_max);
    let mut tally = Tally::new(peer);
    if door == Door::Pop3s {
        let begun = connection.start_tls(&service, Protocol::Pop3).await;
        connection = begun.inspect_err(|e| tally.end(End::of(e, true)))?;
    }
    pop3::serve(service, connection, peer, stranger, tally).await
}

async fn serve_sender(
    service: &Arc<Service>,
    seat: Option<SemaphoreGuardArc>,
    socket: Socket,
    peer: IpAddr,
    stranger: &Stranger,
) -> io::Result<()> {
    let _seat = match seat {
        Some(seat) => seat,
        None => {
            let too_long = async {
                Timer::after(PLACE_MAX).await;
                None
            };
            let seat = async { Some(service.receiving.acquire_arc().await) };
            match seat.or(too_long).await {
                Some(seat) => seat,
                None => return service.refuse(socket, Door::Smtp, peer, TOO_MANY).await,
            }
        }
    };
    stranger.seat();
    receive(service, Door::Smtp, socket, Peer::Ip(peer), Some((peer, stranger))).await
}

async fn receive(
    service: &Arc<Service>,
    door: Door,
    socket: Socket,
    peer: Peer,
    stranger: Option<(IpAddr, &Stranger)>,
) -> io::Result<()> {
    let dialect = if door == Door::Lmtp { Dialect::Lmtp } else { Dialect::Smtp };
    let idle_max = service.settings().idletimeout.duration();
    let connection = Connection::new(Stream::Clear(socket), Buffers::new(), idle_max);
    receiving::serve(service.clone(), connection, dialect, peer, stranger).await
}

/// Holds a connection, without a word, until a slot is free; none where the client has gone meanwhile.
async fn wait_for(turn: Receiver<Slot>, stream: &Async<TcpStream>) -> io::Result<Option<Slot>> {
    let slot = async { Ok(turn.recv().await.ok()) };
    let gone = async {
        stream.readable().await?;
        let mut octet = [0];
        match stream.get_ref().peek(&mut octet) {
            Ok(0) => Ok(None),
            // A client that speaks before it is greeted waits all the same.
            Ok(_) => std::future::pending().await,
            Err(e) => Err(e),
        }
    };
    slot.or(gone).await
}

/// Says why and closes. Under POP3S nothing is said: words in clear make no sense to who waits for a handshake.
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
