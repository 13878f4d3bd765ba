//! TLS for connections: the certificate that is shown, and when it is read again.
//!
//! Files are looked at once a second at most, when a client comes, and read again when they have changed; SIGHUP reads
//! them at once. A pair that cannot be used is complained of, and the one before stays in use.
//!
//! POP3 clients come back every few minutes, so they get tickets to resume a session with (RFC 8446 section 2.2, RFC
//! 5077). The state is in the ticket, sealed under a key that this process alone has and changes every few hours:
//! resumption costs no memory. A new certificate brings new keys, so no session outlives the certificate it was begun
//! with, and the channel binding of a resumed session is right. SMTP clients get no tickets: Microsoft's senders have
//! failed on them.
//!
//! POP3 is named in the handshake (ALPN `pop3`, RFC 7301). A client that offers names but not that one is refused with
//! the alert `no_application_protocol`, as section 3.2 asks and nginx does: a browser that was led here must not get an
//! answer (ALPACA). A client that offers none, like most, is welcome. SMTP has no name that could be chosen.

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

use super::socket::Socket;
use super::stream::Stream;
use crate::certificate;
use crate::keyring::Keyring;
use crate::lock::{Mutex, RwLock};
use crate::settings::Settings;
use crate::store::Store;

/// How long a handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Tickets that a client gets in TLS 1.3, per connection: it uses one, and gets another then.
const TICKETS: usize = 1;
/// The name of POP3 in ALPN (IANA's registry, RFC 2595).
const ALPN_POP3: &[u8] = b"pop3";

/// What is spoken under TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Pop3,
    Smtp,
}

pub struct Tls {
    shown: Mutex<Arc<Shown>>,
    files: Mutex<Files>,
}

/// The certificate that clients are shown now, and the handshakes that show it.
struct Shown {
    certificate: Arc<CertifiedKey>,
    pop3: TlsAcceptor,
    smtp: TlsAcceptor,
}

/// The files of the certificate as they were when it was read.
#[derive(Default)]
struct Files {
    state: Vec<FileState>,
    looked: Option<Instant>,
}

/// A file's path, and what changes when it is written or replaced, or becomes readable.
#[derive(PartialEq, Eq)]
struct FileState {
    path: PathBuf,
    /// Inode, and when it or its contents last changed, in seconds and nanoseconds.
    changed: Option<(u64, i64, i64)>,
}

impl Tls {
    /// With the certificate that the settings name, or one of our own where that cannot be used.
    pub fn new(store: &Store, keyring: &Keyring, settings: &Settings) -> Result<Self, String> {
        let shown = Arc::new(Shown::new(certificate::at_start(store, keyring, settings)?)?);
        let files = Files { state: states(settings), looked: Some(Instant::now()) };
        Ok(Self { shown: Mutex::new(shown), files: Mutex::new(files) })
    }

    /// Reads the certificate that these settings name and shows it from now on; a sentence where it cannot be used.
    pub fn change_to(&self, store: &Store, keyring: &Keyring, settings: &Settings) -> Result<(), String> {
        let state = states(settings);
        let shown = Shown::new(certificate::in_effect(store, keyring, settings)?)?;
        *self.shown.lock() = Arc::new(shown);
        *self.lock() = Files { state, looked: Some(Instant::now()) };
        Ok(())
    }

    /// Reads the files again if they have changed since.
    pub fn look_at_files(&self, store: &Store, keyring: &RwLock<Keyring>, settings: &Settings, now: Instant) {
        {
            let mut files = self.lock();
            let is_due =
                files.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_EVERY);
            if settings.tlscert.get().is_none() || !is_due {
                return;
            }
            files.looked = Some(now);
            let state = states(settings);
            if files.state == state {
                return;
            }
            files.state = state;
        }
        self.read_again(store, keyring, settings);
    }

    pub fn read_again(&self, store: &Store, keyring: &RwLock<Keyring>, settings: &Settings) {
        let keyring = keyring.read();
        match self.change_to(store, &keyring, settings) {
            Ok(()) => log::info!("the TLS certificate was read again"),
            Err(why) => log::error!("the TLS certificate from before stays in use: {why}"),
        }
    }

    /// When the certificate that is shown now ends.
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

/// With this certificate and without resumption.
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
