//! The service: listens, admits, and drives sessions on connections and on the store.
//!
//! ```text
//! listeners ─► accept ─► slots ─► connection + pop3 ─┐
//!                  └────────────► connection + receiving ─┼─► Store
//! control socket ─► control ─► Op::run ──────────────┘
//! ```
//!
//! - A setting that changes takes effect here ([`Service`] is the `admin::Service` of the control socket).
//! - What waits for a disk or derives keys runs beside the executor (`smol::unblock`).
//! - A session that ends without QUIT has changed nothing: so ending the service needs no more than letting go.

mod connection;
mod control;
mod listeners;
mod pop3;
mod receiving;
mod slots;
mod socket;

pub use listeners::Door;

use crate::admin;
use crate::envelope::Peer;
use crate::mailroot::MailRoot;
use crate::settings::Settings;
use crate::smtp::Dialect;
use crate::store::{Read, Store};
use async_io::{Async, Timer};
use async_signal::{Signal, Signals};
use connection::Connection;
use listeners::Listeners;
use slots::{Admission, Buffers, Limits, Slot, Slots};
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;
use smol::io::AsyncWriteExt;
use smol::lock::Semaphore;
use smol::stream::StreamExt;
use socket::Socket;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Connections that bring mail, by SMTP and LMTP together; one more is told to come back.
const RECEIVING_MAX: usize = 256;
/// A message that grows past this on its way in needs one of the places for large messages.
const SMALL_MESSAGE_OCTETS_MAX: u64 = 1 << 20;
/// Places for large messages; who finds none waits. They bound the memory that messages on their way in take.
const LARGE_MESSAGES_MAX: usize = 8;
/// How long the service waits before it accepts again when it has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a refusal may take to be sent.
const REFUSAL_MAX: Duration = Duration::from_secs(5);

/// What every connection of the service needs.
pub struct Service {
    store: Store,
    mailroot: MailRoot,
    /// In effect now. They differ from the stored ones where this run was given other ports.
    settings: Mutex<Arc<Settings>>,
    slots: Slots,
    receiving: Arc<Semaphore>,
    large_messages: Arc<Semaphore>,
    /// Passwords being checked: each takes a processor for milliseconds.
    password_checks: Semaphore,
    listeners: Mutex<Listeners>,
    executor: Arc<smol::Executor<'static>>,
    /// Held by each session; when all are dropped the service has come to rest.
    session: Mutex<Option<Sender<Infallible>>>,
    sessions: Receiver<Infallible>,
}

/// A service that listens.
pub struct Running {
    service: Arc<Service>,
    control: smol::Task<()>,
    signals: Signals,
}

/// Begins to serve a store. The error is a sentence with its mend.
pub fn start(store: Store, mailroot: MailRoot, settings: Settings) -> Result<Running, String> {
    let signals = Signals::new([Signal::Term, Signal::Int])
        .map_err(|e| format!("signals cannot be waited for: {e}"))?;
    let socket = mailroot.socket();
    let control_listener = control::bind(&socket)
        .map_err(|e| format!("the control socket {} cannot be made: {e}", socket.display()))?;
    let (session, sessions) = smol::channel::bounded(1);
    let service = Arc::new(Service {
        store,
        mailroot,
        slots: Slots::new(limits(&settings)),
        settings: Mutex::new(Arc::new(settings.clone())),
        receiving: Arc::new(Semaphore::new(RECEIVING_MAX)),
        large_messages: Arc::new(Semaphore::new(LARGE_MESSAGES_MAX)),
        password_checks: Semaphore::new(settings.threadcount.get() as usize),
        listeners: Mutex::default(),
        executor: Arc::new(smol::Executor::new()),
        session: Mutex::new(Some(session)),
        sessions,
    });
    if let Err(sentence) = service.listeners().change_to(&service, &settings) {
        // Nobody was told of this socket yet; what is left of it would only mislead.
        let _ = std::fs::remove_file(&socket);
        return Err(sentence);
    }
    let control = service.executor.spawn(control::listen(service.clone(), control_listener));
    Ok(Running { service, control, signals })
}

impl Running {
    /// Where clients of this protocol can connect.
    pub fn addresses(&self, door: Door) -> Vec<SocketAddr> {
        self.service.listeners().addresses(door)
    }

    /// Serves until SIGTERM or SIGINT, then lets sessions end for the time of `shutdowngrace`. A second signal ends the
    /// wait.
    pub fn run(mut self) {
        let executor = self.service.executor.clone();
        let threads = self.service.settings().threadcount.get();
        let (stop, stopped) = smol::channel::bounded::<Infallible>(1);
        std::thread::scope(|scope| {
            for number in 1..threads {
                let (executor, stopped) = (executor.clone(), stopped.clone());
                let thread = std::thread::Builder::new().name(format!("service {number}"));
                let run = move || {
                    let _ = smol::block_on(executor.run(stopped.recv()));
                };
                if let Err(e) = thread.spawn_scoped(scope, run) {
                    log::warn!("only {number} of {threads} threads could be started: {e}");
                    break;
                }
            }
            smol::block_on(executor.run(self.until_ended()));
            drop(stop);
        });
        let _ = std::fs::remove_file(self.service.mailroot.socket());
    }

    async fn until_ended(&mut self) {
        self.signals.next().await;
        let service = &self.service;
        let grace = service.settings().shutdowngrace.duration();
        log::info!("ending: no new connections; sessions may end within {} s", grace.as_secs());
        let closing = service.clone();
        smol::unblock(move || closing.listeners().close_all()).await;
        service.session.lock().expect("no holder of this lock panics").take();
        let at_rest = async {
            // Nothing is ever sent: this returns when the last session has gone.
            let _ = service.sessions.recv().await;
        };
        let too_long = async {
            Timer::after(grace).await;
        };
        let again = async {
            self.signals.next().await;
        };
        at_rest.or(too_long).or(again).await;
        log::info!("ended");
    }
}

impl Service {
    fn settings(&self) -> Arc<Settings> {
        self.settings.lock().expect("no holder of this lock panics").clone()
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().expect("no holder of this lock panics")
    }

    /// Held by a session for as long as it lasts; none when the service is ending.
    fn session_token(&self) -> Option<Sender<Infallible>> {
        self.session.lock().expect("no holder of this lock panics").clone()
    }
}

impl admin::Service for Arc<Service> {
    fn apply(&self, before: &Settings, after: &Settings) -> Result<(), String> {
        let mut effective = Settings::clone(&self.settings());
        // A port that this run was given instead of the stored one stays until the stored one changes.
        let ports = (effective.port, effective.smtpport, effective.lmtpport);
        effective.clone_from(after);
        if before.port == after.port {
            effective.port = ports.0;
        }
        if before.smtpport == after.smtpport {
            effective.smtpport = ports.1;
        }
        if before.lmtpport == after.lmtpport {
            effective.lmtpport = ports.2;
        }
        self.listeners().change_to(self, &effective)?;
        self.slots.set_limits(limits(&effective));
        crate::log::set_level(effective.logging);
        *self.settings.lock().expect("no holder of this lock panics") = Arc::new(effective);
        Ok(())
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        backlog: settings.socketbacklog.get() as usize,
        max: settings.socketmax.get() as usize,
        min: settings.socketmin.get() as usize,
        threshold: settings.socketthreshold.get() as usize,
    }
}

/// The settings that a store holds; what cannot be used of them goes into the log.
pub fn settings_of(store: &Store) -> Result<Settings, crate::store::Fault> {
    let rows = store.read()?.settings()?;
    let (settings, complaints) =
        Settings::from_rows(rows.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    complaints.iter().for_each(|complaint| log::warn!("{complaint}"));
    Ok(settings)
}

/// What a connection gets before a word is said on it.
enum Place {
    Pop3(Admission),
    Receiving(Dialect),
}

/// Takes connections for as long as the task lives.
async fn accept(service: Arc<Service>, door: Door, listener: Async<TcpListener>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Not left to the session's task, so that places are given in the order of arrival.
                let place = match door {
                    Door::Pop3 => Place::Pop3(service.slots.admit()),
                    Door::Smtp => Place::Receiving(Dialect::Smtp),
                    Door::Lmtp => Place::Receiving(Dialect::Lmtp),
                };
                let session = serve(service.clone(), place, stream, peer.ip().to_canonical());
                service.executor.spawn(session).detach();
            }
            Err(e) => pause_after(&e).await,
        }
    }
}

/// A failed accept is the client's fault, or the end of some resource: trying again at once would spin.
async fn pause_after(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        log::error!("a connection could not be accepted: {error}");
        Timer::after(ACCEPT_PAUSE).await;
    }
}

async fn serve(service: Arc<Service>, place: Place, stream: Async<TcpStream>, peer: IpAddr) {
    let Some(_token) = service.session_token() else { return };
    // Replies are written whole, so there is nothing to wait for before they are sent.
    let _ = stream.get_ref().set_nodelay(true);
    let stream = Socket::new(stream);
    let outcome = match place {
        Place::Pop3(admission) => serve_pop3(service, admission, stream, peer).await,
        Place::Receiving(dialect) => receive(service, stream, dialect, peer).await,
    };
    if let Err(e) = outcome {
        log::debug!("connection from {peer} ended: {e}");
    }
}

async fn serve_pop3(
    service: Arc<Service>,
    admission: Admission,
    mut stream: Socket,
    peer: IpAddr,
) -> io::Result<()> {
    let mut slot = match admission {
        Admission::Slot(slot) => slot,
        Admission::Wait(turn) => match wait_for(turn, stream.stream()).await? {
            Some(slot) => slot,
            None => return Ok(()),
        },
        Admission::Refused => {
            log::warn!("a connection from {peer} was refused: socketmax and socketbacklog are used up");
            return refuse(&mut stream, b"-ERR [SYS/TEMP] too many connections, try again later\r\n").await;
        }
    };
    let idle_max = service.settings().idletimeout.duration();
    let connection = Connection::new(stream, slot.take_buffers(), idle_max);
    pop3::serve(service, connection, peer).await
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

async fn receive(
    service: Arc<Service>,
    mut stream: Socket,
    dialect: Dialect,
    peer: IpAddr,
) -> io::Result<()> {
    let Some(_place) = service.receiving.try_acquire_arc() else {
        return refuse(&mut stream, b"421 4.3.2 too many connections, try again later\r\n").await;
    };
    let idle_max = service.settings().idletimeout.duration();
    let connection = Connection::new(stream, Buffers::new(), idle_max);
    receiving::serve(service, connection, dialect, Peer::Ip(peer)).await
}

async fn refuse(stream: &mut Socket, words: &[u8]) -> io::Result<()> {
    let said = async {
        stream.write_all(words).await?;
        stream.close().await
    };
    let too_long = async {
        Timer::after(REFUSAL_MAX).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    said.or(too_long).await
}
