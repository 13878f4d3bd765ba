//! The service: listens, admits clients, and drives their sessions on connections and on the store.
//!
//! ```text
//! listeners ─► accept ─► slots ─► connection + pop3 ──────┐
//!                  └────────────► connection + receiving ─┼─► Store
//! control socket ─► control ─► Request::run ──────────────┘
//! ```
//!
//! - Changed settings take effect here ([`Service`] is the `admin::Service` of the control socket).
//! - Work that waits for the disk or derives keys runs off the executor (`smol::unblock`).
//! - A POP3 session without QUIT, or a message without its 250, has changed nothing: to end the service, drop its
//!   sessions.
//!
//! # Threat model
//!
//! | who | reaches | we trust them |
//! | --- | --- | --- |
//! | strangers: anyone who can connect | POP3, POP3S and SMTP, until they log in or bring mail | with nothing |
//! | users, after a login | their own maildrop | not to read or delete other mail; not to spare our CPU |
//! | programs on this machine | SMTP from loopback, LMTP | to send mail and to verify recipients at any rate |
//! | hosts in `lmtpfrom` | LMTP | likewise |
//! | proxies in `proxyfrom` | POP3, POP3S, SMTP | to name the client they speak for |
//! | root and the service's own user | the control socket, the data file, the key file | with everything |
//!
//! A *network* is an IPv4 address or an IPv6 /64 (see [`network`]). What each limit protects:
//!
//! | limit | protects |
//! | --- | --- |
//! | `socketmax` slots, [`RECEIVING_MAX`] senders | memory and descriptors |
//! | `NOT_LOGGED_IN_MAX` and `SENDERS_PER_NETWORK_MAX` connections per network (`accept`) | everybody from a single network |
//! | push-out (`crowd`) | newcomers, when strangers from many networks hold all places; it never hits a logged-in user or a sender in the middle of a message |
//! | [`TRUSTED_RECEIVING_MAX`] places for LMTP and loopback | our own mail server from strangers on SMTP |
//! | `LOGIN_MAX`, `idletimeout`, handshake and PROXY header times | places, from silent clients |
//! | a least rate (`receiving::Pace`) | places, from slow senders |
//! | 128 KiB of a message in memory, the rest in a file (`intake::Spooling`) | memory, and senders of large messages from each other |
//! | growing waits after wrong passwords (`guard`) | passwords |
//! | growing waits after wrong recipients, and 20 per session (`harvest`, `smtp`) | the list of our mailboxes |
//! | half of the threads for checking passwords | everybody else from guessers |
//! | `COMMANDS_MAX`, apart from `DELIVERIES_MAX` (`control`) | administrators from slow deliveries |
//! | [`REFUSALS_MAX`]; a log line for refusals at most every 10 s | us, from being busy saying no |
//!
//! At the default settings strangers cost at most 200 MiB of memory, however many connect: for each of 256 senders
//! 256 KiB of text, 64 KiB to read into, 200 KiB of recipients and 80 KiB for TLS and the session; 150 KiB for each of
//! 50 POP3 slots and 10 waiting connections; 16 MiB for the tables of `guard`, `harvest` and `network`; a tenth for the
//! allocator. A system test floods the service and checks this.
//!
//! What we give up:
//! - Networks that send real text at the least rate to an existing mailbox hold all SMTP places for as long as a
//!   message of `maxmessagesize` takes: 256 networks, or 8 with all the connections they may have. Mail waits at its
//!   senders meanwhile.
//! - A stranger who connects faster than honest clients log in, from more networks than there are places, pushes them
//!   out before they have logged in. Use a firewall against that.
//! - Anyone who knows an address can fill its mailbox, and without quotas the disk. New mail then gets 452; readers go
//!   on.
//! - A proxy in `proxyfrom` that lies about its clients defeats every limit per network.
//! - The first few wrong recipients are refused at once, so that an honest sender can correct a typo.

mod accept;
mod accounts;
mod adoption;
mod connection;
mod control;
mod crowd;
mod descriptors;
mod door;
mod expiry;
mod gate;
mod guard;
mod harvest;
mod listeners;
mod login_delay;
mod network;
mod ntlm;
mod pop3;
mod proxy;
mod receiving;
mod remembered;
mod signals;
mod slots;
mod socket;
mod stream;
mod systemd;
mod tally;
mod tls;
mod unix;
mod workers;

pub use door::{DOORS, Door};

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use async_io::Timer;
use async_signal::{Signal, Signals};
use smol::channel::Receiver;
use smol::future::FutureExt;
use smol::lock::Semaphore;

use crate::admin::{
    self,
    reply::{Connections, DirectoryLine, ServiceState},
};
use crate::auth::directory::Directory;
use crate::directory;
use crate::keyring::Keyring;
use crate::lock::Mutex;
use crate::log::NOTICE;
use crate::mailroot::MailRoot;
use crate::settings::Settings;
use crate::store::Store;
use accounts::Accounts;
use adoption::Adoptions;
use connection::within;
use crowd::Crowd;
use gate::{Gate, Phase};
use guard::Guard;
use harvest::Harvest;
use listeners::Listeners;
use login_delay::Logins;
use network::PerNetwork;
use signals::News;
use slots::{Limits, Slots};
use socket::Socket;
use stream::Stream;
use tls::Tls;
use workers::Workers;

/// SMTP connections from other machines. One more pushes out the oldest idle one, or is told to come back later.
const RECEIVING_MAX: usize = 256;
/// Connections of trusted senders: LMTP, and SMTP from this machine.
const TRUSTED_RECEIVING_MAX: usize = 256;
/// Connections being told why they are refused; more are closed without a word.
const REFUSALS_MAX: usize = 64;
/// Connections whose PROXY header has not arrived; more are closed.
const PROXY_HEADERS_MAX: usize = 256;
/// Logins the account directory is asked about at a time; each holds a thread while it waits.
const DIRECTORY_QUESTIONS_MAX: usize = 32;

/// What every connection of the service needs.
pub struct Service {
    store: Store,
    mailroot: MailRoot,
    accounts: Accounts,
    adoptions: Adoptions,
    guard: Guard,
    /// In effect now. They differ from the stored ones if this run was given other ports.
    settings: Mutex<Arc<Settings>>,
    /// Held by the command that changes them; others wait on their own threads.
    changing_settings: Mutex<()>,
    tls: Arc<Tls>,
    started_unix_seconds: u64,
    slots: Slots,
    per_network: PerNetwork,
    /// POP3 connections on which nobody has logged in.
    not_logged_in: Crowd,
    /// SMTP connections of other machines, by network.
    senders_per_network: PerNetwork,
    /// Those of them that are not sending a message.
    idle_senders: Crowd,
    harvest: Harvest,
    logins: Logins,
    receiving: Arc<Semaphore>,
    trusted_receiving: Arc<Semaphore>,
    refusals: Semaphore,
    /// Connections of all kinds: see [`descriptors`].
    descriptors: Arc<Semaphore>,
    proxy_headers: Arc<Semaphore>,
    /// Passwords being checked, which takes a processor for milliseconds each: half of the threads at most, so that
    /// guessers leave the other half to everybody else.
    password_checks: Semaphore,
    /// Logins waiting for the account directory.
    directory_questions: Semaphore,
    listeners: Mutex<Listeners>,
    workers: Arc<Workers>,
    /// Closed when the service begins to end.
    sessions: Gate,
    /// Closed when the sessions are over or cut off: until then administrators are heard.
    commands: Gate,
    ending: Phase,
    /// Cuts off what is left of the sessions.
    grace_over: Phase,
}

/// A service that listens.
pub struct Running {
    service: Arc<Service>,
    /// What runs besides the connections.
    tasks: Vec<smol::Task<()>>,
    /// A thread takes them over once the service runs.
    signals: Option<Signals>,
}

/// Opens the doors of a store; [`Running::run`] serves. An error is a sentence with a hint.
pub fn start(store: Store, mailroot: MailRoot, settings: Settings) -> Result<Running, String> {
    let signals = Signals::new([Signal::Term, Signal::Int, Signal::Hup])
        .map_err(|e| format!("signals cannot be waited for: {e}"))?;
    descriptors::raise();
    if let Err(sentence) = descriptors::suffice_for(&settings) {
        log::warn!("{sentence}");
    }
    let service = Arc::new(Service::without_doors(store, mailroot, settings)?);
    let socket = service.mailroot.socket();
    let control_listener = control::bind(&socket)
        .map_err(|e| format!("the control socket {} cannot be created: {e}", socket.display()))?;
    if let Err(sentence) = service.listeners().change_to(&service, &service.settings()) {
        // Nobody knows of this socket yet, and a leftover would mislead.
        let _ = std::fs::remove_file(&socket);
        return Err(sentence);
    }
    let tasks = vec![
        service.workers.spawn(control::listen(service.clone(), control_listener)),
        service.workers.spawn(expiry::run(service.clone())),
        service.workers.spawn(ntlm::watch(service.clone())),
    ];
    Ok(Running { service, tasks, signals: Some(signals) })
}

impl Running {
    /// The TCP addresses of this door.
    pub fn addresses(&self, door: Door) -> Vec<SocketAddr> {
        self.service.listeners().addresses(door)
    }

    /// Serves until SIGTERM or SIGINT, then gives sessions `shutdowngrace` to end; a second signal cuts that short.
    /// [`signals`] says what bounds the end.
    pub fn run(mut self) {
        // Weak: the thread outlives the service, whose end closes the store.
        let hearing = Arc::downgrade(&self.service);
        let grace = move || {
            hearing
                .upgrade()
                .map_or(std::time::Duration::ZERO, |service| service.settings().shutdowngrace.duration())
        };
        let socket = self.service.mailroot.socket();
        let signals = self.signals.take().expect("a service runs once");
        let news = signals::hear(signals, grace, socket).expect("a thread for the signals can be started");
        self.say_that_it_serves();
        let workers = self.service.workers.clone();
        let threads = self.service.settings().threadcount.get();
        std::thread::scope(|scope| {
            for number in 1..threads {
                let thread = std::thread::Builder::new().name(format!("service {number}"));
                if let Err(e) = thread.spawn_scoped(scope, || workers.help()) {
                    log::warn!("only {number} of {threads} threads could be started: {e}");
                    break;
                }
            }
            workers.run(self.until_ended(news));
        });
        let _ = std::fs::remove_file(self.service.mailroot.socket());
    }

    fn say_that_it_serves(&self) {
        let service = &self.service;
        let doors = service.listeners().doors();
        log::warn!(
            target: NOTICE,
            "pop3svc {} serves {}: {doors}; the certificate is valid until {}",
            env!("CARGO_PKG_VERSION"),
            service.mailroot.data_file().display(),
            service.tls.ends().map_or("an unknown date".to_owned(), |ends| ends.date().to_string()),
        );
        systemd::ready(&doors);
    }

    async fn until_ended(&mut self, news: Receiver<News>) {
        let service = &self.service;
        service.until(News::End, &news).await;
        let grace = service.settings().shutdowngrace.duration();
        log::warn!(
            target: NOTICE,
            "stopping: no new connections; open sessions have {} s to end",
            grace.as_secs()
        );
        systemd::stopping(grace);
        // Elsewhere: a command that holds them waits for a task that this thread has to drop.
        let closing = service.clone();
        for task in smol::unblock(move || closing.listeners().take_all()).await {
            task.cancel().await;
        }
        service.sessions.close();
        service.ending.begin();
        let at_rest = async {
            service.sessions.emptied().await;
            false
        };
        let over = async {
            service.until(News::GraceOver, &news).await;
            true
        };
        let is_grace_over = at_rest.or(over).await;
        // Sessions that are left are dropped, and log how they ended. Commands under way may still end; later ones wait
        // until the data file is free.
        service.grace_over.begin();
        service.commands.close();
        let left = async {
            service.sessions.emptied().await;
            service.commands.emptied().await;
        };
        let too_long = async {
            if !is_grace_over {
                service.until(News::GraceOver, &news).await;
            }
            Timer::after(signals::COMMANDS_MAX).await;
            log::warn!("work still under way is cut off");
        };
        left.or(too_long).await;
        for task in self.tasks.drain(..) {
            task.cancel().await;
        }
        log::warn!(target: NOTICE, "ended");
    }
}

impl Service {
    /// A service that serves nobody yet. An error is a sentence.
    fn without_doors(store: Store, mailroot: MailRoot, settings: Settings) -> Result<Self, String> {
        let keyring = Keyring::open(&store, &mailroot).map_err(|fault| fault.to_string())?;
        if let Err(trouble) = keyring.key() {
            log::warn!("{trouble}: APOP, CRAM-MD5 and NTLM are not offered");
        }
        let accounts = Accounts::new(store.clone(), keyring, &settings).map_err(|e| e.to_string())?;
        let tls = Tls::new(&store, &accounts.keyring, &settings)?.into();
        Ok(Self {
            accounts,
            adoptions: Adoptions::default(),
            guard: Guard::default(),
            tls,
            store,
            mailroot,
            started_unix_seconds: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            slots: Slots::new(limits(&settings)),
            per_network: PerNetwork::default(),
            not_logged_in: Crowd::default(),
            senders_per_network: PerNetwork::default(),
            idle_senders: Crowd::default(),
            harvest: Harvest::default(),
            logins: Logins::default(),
            receiving: Arc::new(Semaphore::new(RECEIVING_MAX)),
            trusted_receiving: Arc::new(Semaphore::new(TRUSTED_RECEIVING_MAX)),
            refusals: Semaphore::new(REFUSALS_MAX),
            descriptors: Arc::new(Semaphore::new(descriptors::connections_max())),
            proxy_headers: Arc::new(Semaphore::new(PROXY_HEADERS_MAX)),
            password_checks: Semaphore::new((settings.threadcount.get() as usize / 2).max(1)),
            settings: Mutex::new(Arc::new(settings)),
            changing_settings: Mutex::default(),
            directory_questions: Semaphore::new(DIRECTORY_QUESTIONS_MAX),
            listeners: Mutex::default(),
            workers: Workers::new().into(),
            sessions: Gate::new(),
            commands: Gate::new(),
            ending: Phase::new(),
            grace_over: Phase::new(),
        })
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings.lock().clone()
    }

    /// Waits for this news, and does what other news asks for meanwhile.
    async fn until(self: &Arc<Self>, wanted: News, news: &Receiver<News>) {
        while let Ok(heard) = news.recv().await
            && heard != wanted
        {
            if heard == News::ReadAgain {
                let service = self.clone();
                let reading =
                    smol::unblock(move || service.tls.read_again(&service.store, &service.accounts.keyring));
                reading.detach();
            }
        }
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock()
    }

    /// Does the handshake, with the certificate files as they are now if they can be read.
    async fn accept_tls(&self, socket: Socket, protocol: tls::Protocol) -> io::Result<Stream> {
        if let Some(look) = self.tls.look_due(Instant::now()) {
            let (tls, store, keyring) = (self.tls.clone(), self.store.clone(), self.accounts.keyring.clone());
            let looking = smol::unblock(move || {
                tls.look_at_files(look, &store, &keyring);
                Ok(())
            });
            // If it takes longer, it goes on without this client.
            let _ = within(tls::LOOK_WAIT_MAX, looking).await;
        }
        self.tls.accept(socket, protocol).await
    }
}

impl admin::Service for Arc<Service> {
    fn state(&self) -> ServiceState {
        ServiceState {
            running: true,
            pid: Some(std::process::id()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            since_unix_seconds: Some(self.started_unix_seconds),
        }
    }

    fn accounts(&self) -> Result<Option<Arc<dyn Directory>>, String> {
        self.accounts.directory()
    }

    fn directory(&self) -> Option<DirectoryLine> {
        let reachability = self.accounts.reachability()?;
        Some(DirectoryLine::new(self.settings().authentication, reachability))
    }

    fn connections(&self) -> Connections {
        let slots = self.slots.occupancy();
        let (login_failures, last) = self.guard.failures(Instant::now());
        Connections {
            open: slots.in_use as u64,
            waiting: slots.waiting as u64,
            refused: slots.refused,
            login_failures,
            last_login_failure_seconds_ago: last.map(|ago| ago.as_secs()),
            wrong_recipients: self.harvest.total(),
        }
    }

    fn turn_to_change_settings(&self) -> MutexGuard<'_, ()> {
        self.changing_settings.lock()
    }

    fn apply(&self, before: &Settings, after: &Settings) -> Result<(), String> {
        let mut effective = after.clone();
        // A value given to this run instead of the stored one stays until the stored one changes.
        let now = self.settings();
        for door in DOORS {
            if door.port(before) == door.port(after) {
                door.set_port(&mut effective, door.port(&now));
            }
        }
        if before.listen == after.listen {
            effective.listen = now.listen.clone();
        }
        // The host name matters to our own certificate only.
        let names_certificate = |settings: &Settings| {
            let hostname = settings.tlscert.get().is_none().then(|| settings.hostname.clone());
            (settings.tlscert.clone(), settings.tlskey.clone(), hostname)
        };
        // Only if it changed: files that have gone bad must not block other changes.
        let is_another_certificate = names_certificate(before) != names_certificate(after);
        if is_another_certificate {
            self.tls.change_to(&self.store, &self.accounts.keyring, &effective)?;
        }
        let another_directory = match directory::is_another(before, after) {
            true => Some(self.accounts.directory_of(after)?),
            false => None,
        };
        if before.socketmax.get() < after.socketmax.get() {
            descriptors::suffice_for(after)?;
        }
        if let Err(sentence) = self.listeners().change_to(self, &effective) {
            if is_another_certificate
                && let Err(why) = self.tls.change_to(&self.store, &self.accounts.keyring, &now)
            {
                log::error!("the old TLS certificate cannot be shown again: {why}");
            }
            return Err(sentence);
        }
        if let Some(directory) = another_directory {
            self.accounts.change_directory_to(directory);
        }
        let listeners = self.listeners();
        if !listeners.are_closed() {
            systemd::status(&listeners.doors());
        }
        drop(listeners);
        self.slots.set_limits(limits(&effective));
        crate::log::set_level(effective.logging);
        *self.settings.lock() = Arc::new(effective);
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

/// The stored settings. Unusable ones are logged and keep their default.
pub fn settings_of(store: &Store) -> Result<Settings, crate::store::Fault> {
    let (settings, complaints) = crate::admin::read_settings(&*store.read()?)?;
    complaints.iter().for_each(|complaint| log::warn!("{complaint}"));
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use smol::future::{block_on, poll_once};

    use super::*;
    use crate::tests::bench::Bench;

    #[test]
    fn the_end_waits_for_a_command_that_changes_doors_without_holding_up_the_thread_that_it_needs() {
        let bench = Bench::new();
        let service =
            Service::without_doors(bench.store.clone(), bench.mailroot.clone(), Settings::default()).unwrap();
        let service = Arc::new(service);
        let mut running = Running { service: service.clone(), tasks: Vec::new(), signals: None };
        let (say, news) = smol::channel::bounded(1);
        say.try_send(News::End).unwrap();
        let mut ending = pin!(running.until_ended(news));
        let changing = service.listeners();
        // Should this wait for the lock, the test hangs.
        assert!(block_on(poll_once(&mut ending)).is_none());
        drop(changing);
        service.workers.run(ending);
    }
}
