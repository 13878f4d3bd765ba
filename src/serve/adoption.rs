//! Adopts users of an old server at their first login here. A user without a password here logs in with the old one,
//! which we try at the old server. If that accepts it, we store a verifier, create the mailbox if its domain is ours,
//! and fetch the mail with its unique ids. After that we never ask the old server about this mailbox again.
//!
//! - The guard makes guesses wait before they come here, and a refusal by the old server counts as a guess. If the old
//!   server cannot be asked, that is no verdict either way.
//! - Password and mark are durable before the first message arrives, so the next login resumes an adoption that a crash
//!   interrupted. Nobody gets in before all mail is here.
//! - A login waits for the mail for [`PATIENCE`]. Then the client is told to come back later, and the work goes on.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_rustls::rustls::ClientConfig;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::FutureExt as _;
use smol::lock::Semaphore;
use zeroize::Zeroizing;

use super::Service;
use crate::address::Address;
use crate::admin::{Batch, Context, Refusal, Reply, Request};
use crate::auth::password::{Credential, Fresh, acceptable};
use crate::lock::Mutex;
use crate::moving::{Destination, Failure, Source, bring};
use crate::pop3::Credentials;
use crate::pop3_client::{Server, Session, Trouble};
use crate::settings::{Method, Settings};
use crate::store::{Adoption, Fault, Maildrop, Mover, Progress, Read as _, UnixTime, mover_of};
use crate::trust;
use crate::verdict::Login;

/// How long a login waits for its mail. Mail programs give up after a minute or more.
const PATIENCE: Duration = Duration::from_secs(30);
/// Passwords being tried at old servers at a time.
const QUESTIONS_MAX: usize = 32;
/// Mailboxes being fetched at a time. Each holds a batch in memory: 8 MiB, or a single longer message.
const MOVING_MAX: usize = 8;
/// How long before the file of certificate authorities is read again.
const AUTHORITIES_FOR: Duration = Duration::from_secs(60);

pub struct Adoptions {
    /// Mailboxes being fetched, or waiting for their turn.
    running: Mutex<HashSet<Address>>,
    questions: Semaphore,
    moving: Semaphore,
    tls: Mutex<Option<Authorities>>,
}

/// The certificate authorities we trust, and when we read them.
struct Authorities {
    read: Instant,
    file: Option<PathBuf>,
    config: Arc<ClientConfig>,
}

impl Default for Adoptions {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
            questions: Semaphore::new(QUESTIONS_MAX),
            moving: Semaphore::new(MOVING_MAX),
            tls: Mutex::default(),
        }
    }
}

/// Whether any users may come from an old server.
pub fn is_on(settings: &Settings) -> bool {
    !settings.adopt.is_empty() && settings.authentication == Method::PasswordFile
}

/// Decides a login that was refused here, if its user may come from an old server.
pub async fn log_in(
    service: &Arc<Service>,
    credentials: Credentials,
    so_far: Login<Maildrop>,
) -> Result<Login<Maildrop>, Fault> {
    let settings = service.settings();
    let Some(address) = credentials.login.address().cloned() else { return Ok(so_far) };
    let Some(server) = settings.adopt.of(&address.domain).cloned() else { return Ok(so_far) };
    // A password we could not store is not tried.
    let password = match std::str::from_utf8(credentials.password.as_bytes()) {
        Ok(password) if acceptable(password).is_ok() => Zeroizing::new(password.to_owned()),
        _ => return Ok(so_far),
    };
    let until = Instant::now() + PATIENCE;
    let begun = match (state_of(service, &address).await?, &so_far) {
        // Interrupted before. We have the password, and it was right.
        (State::Begun, Login::Incomplete) => {
            let source = source(service, &settings, server, &address, password).await?;
            begin(service, address.clone(), source, None)
        }
        (State::Adoptable, Login::WrongCredentials) => {
            let source = source(service, &settings, server, &address, password).await?;
            match ask(service, &source).await? {
                None => return Ok(Login::WrongCredentials),
                Some(session) => match adopt(service, &address, &source.password).await? {
                    Adoption::Begun => begin(service, address.clone(), source, Some(session)),
                    Adoption::NotAdoptable => {
                        session.quit().await;
                        // Another login was faster, or somebody set a new password.
                        let checking = service.clone();
                        return smol::unblock(move || checking.accounts.log_in(&credentials)).await;
                    }
                },
            }
        }
        (State::Importing, Login::WrongCredentials) => return Ok(Login::Incomplete),
        _ => return Ok(so_far),
    };
    let Some(over) = begun else { return Ok(Login::Incomplete) };
    let is_over = async {
        let _ = over.recv().await;
        true
    };
    let is_late = async {
        Timer::at(until).await;
        false
    };
    if !is_over.or(is_late).await {
        return Ok(Login::Incomplete);
    }
    let store = service.store.clone();
    smol::unblock(move || store.open_maildrop(&address)).await
}

enum State {
    /// No password here, and nothing against adopting one.
    Adoptable,
    /// An administrator's import is filling the mailbox, which has no password.
    Importing,
    /// The password is here, but not all of the mail.
    Begun,
    Other,
}

async fn state_of(service: &Arc<Service>, address: &Address) -> Result<State, Fault> {
    let (store, address) = (service.store.clone(), address.clone());
    smol::unblock(move || {
        let view = store.read()?;
        let Some(domain) = view.domain(&address.domain)? else { return Ok(State::Other) };
        let Some(mailbox) = view.mailbox(&address)? else {
            return Ok(if domain.locked { State::Other } else { State::Adoptable });
        };
        Ok(match (mailbox.credential.is_of_nobody(), mover_of(&*view, mailbox.id)?) {
            _ if domain.locked || mailbox.locked => State::Other,
            (true, Some(Mover::Import)) => State::Importing,
            (true, _) => State::Adoptable,
            (false, Some(Mover::Adoption)) => State::Begun,
            (false, _) => State::Other,
        })
    })
    .await
}

async fn source(
    service: &Arc<Service>,
    settings: &Settings,
    server: Server,
    address: &Address,
    password: Zeroizing<String>,
) -> Result<Source, Fault> {
    let tls = match server.is_clear() {
        true => None,
        false => {
            let (service, file) = (service.clone(), settings.adoptca.get().map(std::path::Path::to_owned));
            let tls = smol::unblock(move || service.adoptions.tls(file)).await;
            Some(tls.map_err(Fault::Elsewhere)?)
        }
    };
    Ok(Source { login: server.login_of(address), server, tls, password })
}

/// Tries the password at the old server: a session, or `None` if it is refused.
async fn ask(service: &Service, source: &Source) -> Result<Option<Session>, Fault> {
    let _question = service.adoptions.questions.acquire().await;
    let late = async {
        Timer::after(PATIENCE).await;
        Err(Trouble::Unavailable(format!("{}: it did not answer in time", source.server)))
    };
    match source.open().or(late).await {
        Ok(session) => Ok(Some(session)),
        Err(Trouble::Refused(_)) => Ok(None),
        Err(Trouble::Unavailable(why)) => Err(Fault::Elsewhere(why)),
        Err(Trouble::Here(error)) => Err(error.into()),
    }
}

/// Stores a verifier of the password, and creates the mailbox if needed.
async fn adopt(service: &Arc<Service>, address: &Address, password: &str) -> Result<Adoption, Fault> {
    let (service, address, password) =
        (service.clone(), address.clone(), Zeroizing::new(password.to_owned()));
    smol::unblock(move || {
        let fresh = Fresh::draw()?;
        let sealing = service.accounts.keyring.sealing();
        let credential = Credential::new(&password, &address, fresh, sealing.key().ok());
        let now = UnixTime::now();
        service.store.write(move |tx| tx.begin_adoption(&address, credential.clone(), now)).wait()
    })
    .await
}

/// Starts fetching the mail. The channel returned closes when that is over, complete or not; `None` if it is under way
/// already.
fn begin(
    service: &Arc<Service>,
    address: Address,
    source: Source,
    session: Option<Session>,
) -> Option<Receiver<Infallible>> {
    if !service.adoptions.running().insert(address.clone()) {
        return None;
    }
    let (held, over) = bounded(1);
    let work = run(service.clone(), address, source, session, held);
    service.workers.spawn(work).detach();
    Some(over)
}

async fn run(
    service: Arc<Service>,
    address: Address,
    source: Source,
    session: Option<Session>,
    held: Sender<Infallible>,
) {
    // The service waits for it as for a session, but it stops as soon as the service begins to end.
    if let Some(_pass) = service.sessions.enter() {
        let ending = async {
            service.ending.begun().await;
            Ok(None)
        };
        let brought = ending.or(async { fetch(&service, &address, &source, session).await.map(Some) }).await;
        let server = &source.server;
        match brought {
            Ok(Some(messages)) => log::info!("{address} has moved here from {server}: {messages} messages"),
            Ok(None) => {
                log::warn!("not all mail of {address} has moved here from {server}: the service is ending")
            }
            Err(why) => {
                log::error!("not all mail of {address} has moved here: {why}; the next login resumes it")
            }
        }
    }
    service.adoptions.running().remove(&address);
    drop(held);
}

/// Fetches all mail and opens the mailbox. An error is a sentence.
async fn fetch(
    service: &Arc<Service>,
    address: &Address,
    source: &Source,
    session: Option<Session>,
) -> Result<u64, String> {
    let (_turn, session) = match service.adoptions.moving.try_acquire() {
        Some(turn) => (turn, session),
        None => {
            // Don't occupy the old server while waiting for our turn.
            if let Some(session) = session {
                session.quit().await;
            }
            (service.adoptions.moving.acquire().await, None)
        }
    };
    let (reading, name) = (service.store.clone(), address.clone());
    let known = smol::unblock(move || {
        let view = reading.read()?;
        let mailbox = view.mailbox(&name)?;
        mailbox.map_or(Ok(Vec::new()), |mailbox| view.foreign_ids(mailbox.id))
    });
    let known: HashSet<String> = known.await.map_err(|fault| fault.to_string())?.into_iter().collect();
    let destination = Arc::new(Here(service.clone()));
    let brought = bring(source, session, address, known, destination, &|_, _| {}).await.map_err(
        |failure| match failure {
            Failure::Refused(said) => format!(
                "{} now refuses the password ({said}); winpop unlock {address} opens it as it is",
                source.server
            ),
            Failure::Unavailable(why) => why,
            Failure::Here(refusal) => refusal.message,
        },
    )?;
    for passed_over in &brought.skipped {
        log::error!("{} was not moved here: {}", passed_over.file, passed_over.why);
    }
    let name = address.clone();
    let ended = service.store.write(move |tx| tx.end_move(&name));
    ended.await.map_err(|fault| fault.to_string())?;
    Ok(brought.messages)
}

struct Here(Arc<Service>);

impl Destination for Here {
    fn take(&self, batch: Batch, texts: File) -> Result<Reply, Refusal> {
        let Self(service) = self;
        let context = Context::of_now(&service.mailroot, &service.accounts.keyring, Some(service))?;
        Request::Import(batch).run(&service.store, &context, Some(texts), &Progress::default())
    }
}

impl Adoptions {
    fn running(&self) -> MutexGuard<'_, HashSet<Address>> {
        self.running.lock()
    }

    /// An error is a sentence.
    fn tls(&self, file: Option<PathBuf>) -> Result<Arc<ClientConfig>, String> {
        let mut held = self.tls.lock();
        if let Some(held) = &*held
            && held.file == file
            && held.read.elapsed() < AUTHORITIES_FOR
        {
            return Ok(held.config.clone());
        }
        let config = Arc::new(trust::client_config(file.as_deref(), "adoptca")?);
        *held = Some(Authorities { read: Instant::now(), file, config: config.clone() });
        Ok(config)
    }
}
