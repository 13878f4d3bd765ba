//! TLS for connections: the certificate that is shown, and when it is read again.
//!
//! Files are looked at once a second at most, when a client comes, and read again when they have changed; SIGHUP reads them at
//! once. A pair that cannot be used is complained of, and the one before stays in use.

use super::socket::Socket;
use super::stream::Stream;
use crate::certificate;
use crate::keyring::Keyring;
use crate::settings::Settings;
use crate::store::Store;
use async_io::Timer;
use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use futures_rustls::rustls::sign::CertifiedKey;
use futures_rustls::rustls::{self, ServerConfig};
use smol::future::FutureExt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub struct Tls {
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
    files: Mutex<Files>,
}

/// The certificate that clients are shown now.
#[derive(Debug)]
struct Shown(Mutex<Arc<CertifiedKey>>);

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
        let certificate = certificate::at_start(store, keyring, settings)?;
        let shown = Arc::new(Shown(Mutex::new(Arc::new(certificate))));
        let mut config = ServerConfig::builder_with_provider(certificate::provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|e| format!("TLS cannot be set up: {e}"))?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        // Mail clients come for one connection now and then: resumption would cost memory for nothing.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let files = Files { state: states(settings), looked: Some(Instant::now()) };
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), shown, files: Mutex::new(files) })
    }

    /// Reads the certificate that these settings name and shows it from now on; a sentence where it cannot be used.
    pub fn change_to(&self, store: &Store, keyring: &Keyring, settings: &Settings) -> Result<(), String> {
        let state = states(settings);
        let certificate = certificate::in_effect(store, keyring, settings)?;
        *self.shown.lock() = Arc::new(certificate);
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
        let keyring = keyring.read().expect("no holder of this lock panics");
        match self.change_to(store, &keyring, settings) {
            Ok(()) => log::info!("the TLS certificate was read again"),
            Err(why) => log::error!("the TLS certificate from before stays in use: {why}"),
        }
    }

    /// When the certificate that is shown now ends.
    pub fn ends(&self) -> Option<time::OffsetDateTime> {
        certificate::ends(&self.shown.lock().cert[0])
    }

    pub async fn accept(&self, socket: Socket) -> io::Result<Stream> {
        let late = async {
            Timer::after(HANDSHAKE_MAX).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        // The certificate is as good as never changed between here and the handshake; if it is, a client that binds its
        // login to it is refused once and comes again.
        let endpoint = certificate::endpoint_binding(&self.shown.lock().cert[0]);
        let stream = Box::new(self.acceptor.accept(socket).or(late).await?);
        Ok(Stream::Tls { stream, endpoint })
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().expect("no holder of this lock panics")
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
    fn lock(&self) -> MutexGuard<'_, Arc<CertifiedKey>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.lock().clone())
    }
}
