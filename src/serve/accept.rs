//! From an accepted connection to a session: who gets a place, who waits, who is turned away and how.

use super::connection::Connection;
use super::limits::Counted;
use super::listeners::Door;
use super::slots::{Admission, Buffers, Slot};
use super::socket::Socket;
use super::stream::Stream;
use super::tls::Protocol;
use super::{Service, pop3, receiving};
use crate::envelope::Peer;
use crate::smtp::Dialect;
use async_io::{Async, Timer};
use smol::channel::Receiver;
use smol::future::FutureExt;
use smol::io::AsyncWriteExt;
use smol::lock::SemaphoreGuardArc;
use std::io;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// How long the service waits before it accepts again when it has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// POP3 connections of one address on which nobody has logged in yet; programs of this machine may have any number.
const UNAUTHENTICATED_MAX: u32 = 20;
/// How long a refusal may take to be sent.
const REFUSAL_MAX: Duration = Duration::from_secs(5);

/// Takes connections for as long as the task lives.
pub async fn accept(service: Arc<Service>, door: Door, listener: Async<TcpListener>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let peer = peer.ip().to_canonical();
                // Not left to the session's task, so that places are given in the order of arrival.
                let place = service.place(door, peer);
                let session = serve(service.clone(), door, place, Socket::new(stream), peer);
                service.executor.spawn(session).detach();
            }
            Err(e) => pause_after(&e).await,
        }
    }
}

/// A failed accept is the client's fault, or the end of some resource: trying again at once would spin.
pub async fn pause_after(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        log::error!("a connection could not be accepted: {error}");
        Timer::after(ACCEPT_PAUSE).await;
    }
}

/// What a connection gets before a word is said on it.
enum Place {
    Pop3 { admission: Admission, counted: Counted, unauthenticated: Counted },
    Receiving(SemaphoreGuardArc, Counted),
    TooManyReceiving,
    TooManyOfAddress,
}

impl Service {
    fn place(&self, door: Door, peer: IpAddr) -> Place {
        let Some(counted) = self.per_address.count(peer, self.settings().connectionsperip.get()) else {
            return Place::TooManyOfAddress;
        };
        match door {
            Door::Pop3 | Door::Pop3s => {
                let most = if peer.is_loopback() { 0 } else { UNAUTHENTICATED_MAX };
                match self.unauthenticated.count(peer, most) {
                    Some(unauthenticated) => {
                        Place::Pop3 { admission: self.slots.admit(), counted, unauthenticated }
                    }
                    None => Place::TooManyOfAddress,
                }
            }
            Door::Smtp | Door::Lmtp => match self.receiving.try_acquire_arc() {
                Some(place) => Place::Receiving(place, counted),
                None => Place::TooManyReceiving,
            },
        }
    }
}

async fn serve(service: Arc<Service>, door: Door, place: Place, mut socket: Socket, peer: IpAddr) {
    let Some(_token) = service.session_token() else { return };
    // Replies are written whole, so there is nothing to wait for before they are sent.
    let _ = socket.stream().get_ref().set_nodelay(true);
    let outcome = match place {
        Place::Pop3 { admission, counted: _counted, unauthenticated } => {
            serve_pop3(service, door, admission, socket, peer, unauthenticated).await
        }
        Place::Receiving(_place, _counted) => receive(service, door, socket, peer).await,
        Place::TooManyReceiving => refuse(&mut socket, door, "too many connections").await,
        Place::TooManyOfAddress => {
            log::warn!("a connection from {peer} was refused: that address has too many");
            refuse(&mut socket, door, "too many connections from your address").await
        }
    };
    if let Err(e) = outcome {
        log::debug!("{} connection from {peer} ended: {e}", door.protocol());
    }
}

async fn serve_pop3(
    service: Arc<Service>,
    door: Door,
    admission: Admission,
    mut socket: Socket,
    peer: IpAddr,
    unauthenticated: Counted,
) -> io::Result<()> {
    let mut slot = match admission {
        Admission::Slot(slot) => slot,
        Admission::Wait(turn) => match wait_for(turn, socket.stream()).await? {
            Some(slot) => slot,
            None => return Ok(()),
        },
        Admission::Refused => {
            log::warn!("a connection from {peer} was refused: socketmax and socketbacklog are used up");
            return refuse(&mut socket, door, "too many connections").await;
        }
    };
    let idle_max = service.settings().idletimeout.duration();
    let mut connection = Connection::new(Stream::Clear(socket), slot.take_buffers(), idle_max);
    if door == Door::Pop3s {
        connection = connection.start_tls(&service, Protocol::Pop3).await?;
    }
    pop3::serve(service, connection, peer, unauthenticated).await
}

async fn receive(service: Arc<Service>, door: Door, socket: Socket, peer: IpAddr) -> io::Result<()> {
    let dialect = if door == Door::Lmtp { Dialect::Lmtp } else { Dialect::Smtp };
    let idle_max = service.settings().idletimeout.duration();
    let connection = Connection::new(Stream::Clear(socket), Buffers::new(), idle_max);
    receiving::serve(service, connection, dialect, Peer::Ip(peer)).await
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
        Door::Pop3 => format!("-ERR [SYS/TEMP] {why}, try again later\r\n"),
        Door::Pop3s => return Ok(()),
        Door::Smtp | Door::Lmtp => format!("421 4.3.2 {why}, try again later\r\n"),
    };
    let said = async {
        socket.write_all(words.as_bytes()).await?;
        socket.close().await
    };
    let too_long = async {
        Timer::after(REFUSAL_MAX).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    said.or(too_long).await
}
