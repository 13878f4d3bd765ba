//! TLS for connections: which certificate they show, and when it is read again.
//!
//! When a client comes, and at most once a second, the certificate files are checked and reread if they have changed;
//! SIGHUP rereads them at once. If the new ones are unusable, that is logged and the old certificate stays.
//!
//! The files may lie on a file system that hangs. So the look at them runs off the executor, one at a time, and only
//! the client that began it waits for it, [`LOOK_WAIT_MAX`] at most.
//!
//! **Resumption.** POP3 clients come back every few minutes, so they get session tickets (RFC 8446 section 2.2, RFC
//! 5077). The state is in the ticket, encrypted under a key that only this process has and changes every few hours, so
//! resumption costs no memory. A new certificate brings new keys: no session outlives its certificate, and the channel
//! binding of a resumed session is right. SMTP clients get no tickets, because Microsoft's senders have failed on them.
//!
//! **ALPN.** POP3's name is `pop3` (RFC 7301). A client that offers names, but not that one, gets the alert
//! `no_application_protocol` (section 3.2), so that a browser tricked into connecting gets no answer (ALPACA). Most
//! clients offer none and are welcome. SMTP has no registered name.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::crypto::ring::Ticketer;
use futures_rustls::rustls::server::NoServerSessionStorage;
use futures_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use futures_rustls::rustls::{self, ServerConfig};
use smol::lock::MutexGuardArc;

use super::socket::Socket;
use super::stream::Stream;
use crate::certificate;
use crate::keyring::Keyring;
use crate::lock::Mutex;
use crate::settings::Settings;
use crate::store::Store;

/// How long a handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// How often the files are checked at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a client waits for a look at the files, to see a certificate that was renewed just now.
pub const LOOK_WAIT_MAX: Duration = Duration::from_secs(1);
/// Tickets per TLS 1.3 connection. A client uses one and gets the next.
const TICKETS: usize = 1;
/// POP3's name in ALPN (IANA's registry, RFC 2595).
const ALPN_POP3: &[u8] = b"pop3";

/// The protocol spoken under TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Pop3,
    Smtp,
}

pub struct Tls {
    shown: Mutex<Arc<Shown>>,
    files: Mutex<Files>,
    looking: Arc<smol::lock::Mutex<()>>,
}

/// The right to look at the files, which one has at a time.
pub struct Look {
    _alone: MutexGuardArc<()>,
}

/// The certificate in use, and the acceptors that show it.
struct Shown {
    certificate: Arc<CertifiedKey>,
    pop3: TlsAcceptor,
    smtp: TlsAcceptor,
}

/// The certificate's files as they were when it was read. Locked for moments only.
#[derive(Default)]
struct Files {
    /// Those that name them.
    settings: Arc<Settings>,
    state: Vec<FileState>,
    looked: Option<Instant>,
}

/// A file's path, and what changes when the file is written, replaced or made readable.
#[derive(PartialEq, Eq)]
struct FileState {
    path: PathBuf,
    /// Inode and time of the last change, in seconds and nanoseconds.
    changed: Option<(u64, i64, i64)>,
}

impl Tls {
    /// Uses the certificate in the settings, or a self-signed one if that is unusable.
    pub fn new(store: &Store, keyring: &Keyring, settings: &Settings) -> Result<Self, String> {
        let shown = Arc::new(Shown::new(certificate::at_start(store, keyring, settings)?)?);
        let files = Files::now(settings);
        Ok(Self { shown: Mutex::new(shown), files: Mutex::new(files), looking: Arc::default() })
    }

    /// Reads the certificate in these settings and shows it from now on. If it is unusable, changes nothing and returns
    /// a sentence.
    pub fn change_to(&self, store: &Store, keyring: &Keyring, settings: &Settings) -> Result<(), String> {
        let now = Files::now(settings);
        let shown = Shown::new(certificate::in_effect(store, keyring, settings)?)?;
        let mut files = self.lock();
        *self.shown.lock() = Arc::new(shown);
        *files = now;
        Ok(())
    }

    /// The right to look at the files, if it is time for that and nobody has it.
    pub fn look_due(&self, now: Instant) -> Option<Look> {
        let mut files = self.lock();
        let is_due = files.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_EVERY);
        if files.settings.tlscert.get().is_none() || !is_due {
            return None;
        }
        let alone = self.looking.try_lock_arc()?;
        files.looked = Some(now);
        Some(Look { _alone: alone })
    }

    /// Rereads the files if they have changed. Waits for their file system.
    pub fn look_at_files(&self, _look: Look, store: &Store, keyring: &Keyring) {
        let settings = self.lock().settings.clone();
        let state = states(&settings);
        if self.lock().state != state {
            self.read_again(store, keyring);
        }
    }

    /// Rereads the files, unless others are named meanwhile. Waits for their file system.
    pub fn read_again(&self, store: &Store, keyring: &Keyring) {
        let settings = self.lock().settings.clone();
        let state = states(&settings);
        let read = certificate::in_effect(store, keyring, &settings).and_then(Shown::new);
        let mut files = self.lock();
        if !Arc::ptr_eq(&files.settings, &settings) {
            return;
        }
        files.state = state;
        match read {
            Ok(shown) => {
                *self.shown.lock() = Arc::new(shown);
                log::info!("the TLS certificate was reloaded");
            }
            Err(why) => log::error!("the old TLS certificate stays in use: {why}"),
        }
    }

    /// When the certificate in use expires.
    pub fn ends(&self) -> Option<time::OffsetDateTime> {
        certificate::ends(&self.shown().certificate.cert[0])
    }

    /// Does the handshake. The caller bounds the time.
    pub async fn accept(&self, socket: Socket, protocol: Protocol) -> io::Result<Stream> {
        let shown = self.shown();
        let acceptor = match protocol {
            Protocol::Pop3 => &shown.pop3,
            Protocol::Smtp => &shown.smtp,
        };
        let endpoint = certificate::endpoint_binding(&shown.certificate.cert[0]);
        let stream = Box::new(acceptor.accept(socket).await?);
        Ok(Stream::Tls { stream, endpoint })
    }

    fn shown(&self) -> Arc<Shown> {
        self.shown.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock()
    }
}

impl Files {
    fn now(settings: &Settings) -> Self {
        let state = states(settings);
        Self { settings: Arc::new(settings.clone()), state, looked: Some(Instant::now()) }
    }
}

fn states(settings: &Settings) -> Vec<FileState> {
    let state = |path: &std::path::Path| FileState {
        changed: fs::metadata(path).ok().map(|meta| (meta.ino(), meta.ctime(), meta.ctime_nsec())),
        path: path.to_owned(),
    };
    [settings.tlscert.get(), settings.tlskey.get()].into_iter().flatten().map(state).collect()
}

impl Shown {
    fn new(certificate: CertifiedKey) -> Result<Self, String> {
        let certificate = Arc::new(certificate);
        let impossible = |e: rustls::Error| format!("TLS cannot be set up: {e}");
        let mut pop3 = config(&certificate).map_err(impossible)?;
        pop3.ticketer = Ticketer::new().map_err(impossible)?;
        pop3.send_tls13_tickets = TICKETS;
        pop3.alpn_protocols = vec![ALPN_POP3.to_vec()];
        let smtp = config(&certificate).map_err(impossible)?;
        Ok(Self { certificate, pop3: Arc::new(pop3).into(), smtp: Arc::new(smtp).into() })
    }
}

/// A configuration with this certificate and without resumption.
fn config(certificate: &Arc<CertifiedKey>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(certificate::provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.clone())));
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

#[cfg(test)]
pub mod tests;
