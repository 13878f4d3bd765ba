//! Drives a POP3 session: does what it asks for, on a connection and on the store.

use super::Service;
use super::connection::Connection;
use crate::address::Address;
use crate::auth::password::Verifier;
use crate::auth::{Account, ntlm};
use crate::message::Uid;
use crate::pop3::{Channel, Credentials, Event, Next, Policy, Send, Session, TERMINATOR};
use crate::store::{Fault, Maildrop, Read, Store};
use crate::verdict::Login;
use crate::wire::{self, Line};
use smol::future::FutureExt;
use smol::io::{AsyncRead, AsyncWrite};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Serves one client to its end. An error is the client's going without a word, or its silence.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    service: Arc<Service>,
    mut connection: Connection<S>,
    peer: IpAddr,
) -> io::Result<()> {
    let settings = service.settings();
    let policy = Policy {
        hostname: settings.hostname.as_str().to_owned(),
        channel: Channel::Clear { stls_offered: false },
        spa_required: false,
        secrets_available: false,
        ntlm_level: ntlm::Level::V2,
        plaintext_allowed: settings.plaintext.allows(peer),
        expire_days: Some(settings.expire.get()).filter(|days| *days > 0),
        login_delay_seconds: settings.logindelay.seconds() as u32,
    };
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    let session = Session::new(policy, seed, SystemTime::now());
    let mut driver = Driver { service, session, peer, maildrop: None, uids: Vec::new() };
    driver.run(&mut connection).await?;
    connection.hang_up().await
}

struct Driver {
    service: Arc<Service>,
    session: Session,
    peer: IpAddr,
    /// From login on.
    maildrop: Option<Arc<Maildrop>>,
    /// The list's, in its order.
    uids: Vec<Uid>,
}

impl Driver {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        connection: &mut Connection<S>,
    ) -> io::Result<()> {
        let mut next = self.session.handle(Event::Connected, &mut connection.out);
        loop {
            next = match next {
                Next::ReadLine { octets_max } => match self.read_line(connection, octets_max).await? {
                    Some(next) => next,
                    None => return Ok(()),
                },
                Next::Login(credentials) => {
                    let event = self.log_in(credentials).await;
                    self.session.handle(event, &mut connection.out)
                }
                Next::Account { name } => {
                    let event = self.find(&name);
                    self.session.handle(event, &mut connection.out)
                }
                Next::Open { name } => {
                    let event = self.open(&name);
                    self.session.handle(event, &mut connection.out)
                }
                Next::Deny { name } => {
                    let event = self.welcome(&name, Ok(Login::WrongCredentials));
                    self.session.handle(event, &mut connection.out)
                }
                Next::StartTls => return Ok(()),
                Next::List => {
                    let event = self.list().await;
                    self.session.handle(event, &mut connection.out)
                }
                Next::Send(send) => {
                    let event = self.send(connection, send).await?;
                    self.session.handle(event, &mut connection.out)
                }
                Next::Flush => {
                    connection.flush().await?;
                    self.session.handle(Event::Flushed, &mut connection.out)
                }
                Next::Commit { deleted } => {
                    let event = self.commit(&deleted).await;
                    self.session.handle(event, &mut connection.out)
                }
                Next::Close => return Ok(()),
            }
        }
    }

    /// The step after the client's next line; none where the session is ended under it, because its mailbox was
    /// locked or deleted.
    async fn read_line<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        connection: &mut Connection<S>,
        octets_max: usize,
    ) -> io::Result<Option<Next>> {
        let session = &mut self.session;
        let maildrop = self.maildrop.clone();
        let line = connection.line(octets_max, |line, out| match line {
            Line::Whole(line) | Line::BareLf(line) => session.handle(Event::Line(line), out),
            Line::TooLong => session.handle(Event::LineTooLong, out),
        });
        let Some(maildrop) = maildrop else { return line.await.map(Some) };
        let revoked = async {
            maildrop.revoked().await;
            Ok(None)
        };
        let outcome = revoked.or(async { line.await.map(Some) }).await;
        if let Ok(None) = outcome {
            log::info!("session of {} ended: the mailbox was locked or deleted", maildrop.address());
            connection.out.extend_from_slice(b"-ERR [SYS/PERM] the mailbox was locked or deleted\r\n");
        }
        outcome
    }

    async fn log_in(&mut self, credentials: Credentials) -> Event<'static> {
        let service = self.service.clone();
        let _turn = service.password_checks.acquire().await;
        let store = self.service.store.clone();
        let name = credentials.name.clone();
        let outcome = smol::unblock(move || check_password(&store, &credentials)).await;
        self.welcome(&name, outcome)
    }

    fn find(&self, name: &str) -> Event<'static> {
        let mailbox = match Address::from_login(name) {
            Ok(address) => self.service.store.read().and_then(|snapshot| snapshot.mailbox(&address)),
            Err(_) => Ok(None),
        };
        match mailbox {
            Ok(Some(mailbox)) => Event::Account(Account {
                exists: true,
                verifier: mailbox.credential.verifier,
                password: None,
            }),
            Ok(None) => {
                Event::Account(Account { exists: false, verifier: Verifier::of_nobody(), password: None })
            }
            Err(fault) => unavailable(fault),
        }
    }

    fn open(&mut self, name: &str) -> Event<'static> {
        let outcome = match Address::from_login(name) {
            Ok(address) => self.service.store.open_maildrop(&address),
            Err(_) => Ok(Login::WrongCredentials),
        };
        self.welcome(name, outcome)
    }

    fn welcome(&mut self, name: &str, outcome: Result<Login<Maildrop>, Fault>) -> Event<'static> {
        match outcome {
            Ok(Login::Welcome(maildrop)) if !self.may_log_in(maildrop.address()) => {
                Event::LoggedIn(Login::TooSoon)
            }
            Ok(Login::Welcome(maildrop)) => {
                let totals = maildrop.totals();
                log::info!(
                    "{} logged in from {}: {} messages",
                    maildrop.address(),
                    self.peer,
                    totals.messages
                );
                self.maildrop = Some(Arc::new(maildrop));
                Event::LoggedIn(Login::Welcome(totals))
            }
            Ok(Login::WrongCredentials) => {
                log::warn!("login refused: wrong name or password for \"{name}\" from {}", self.peer);
                Event::LoggedIn(Login::WrongCredentials)
            }
            Ok(Login::Locked) => {
                log::warn!("login refused: \"{name}\" is locked, from {}", self.peer);
                Event::LoggedIn(Login::Locked)
            }
            Ok(Login::InUse) => Event::LoggedIn(Login::InUse),
            Ok(Login::TooSoon) => Event::LoggedIn(Login::TooSoon),
            Err(fault) => unavailable(fault),
        }
    }

    fn may_log_in(&self, user: &Address) -> bool {
        let delay = self.service.settings().logindelay.duration();
        self.service.logins.may_log_in(user, delay, Instant::now())
    }

    fn maildrop(&self) -> &Arc<Maildrop> {
        self.maildrop.as_ref().expect("the session asks for messages only after a login")
    }

    async fn list(&mut self) -> Event<'static> {
        let maildrop = self.maildrop().clone();
        match smol::unblock(move || maildrop.list()).await {
            Ok(entries) => {
                self.uids = entries.iter().map(|entry| entry.uid).collect();
                Event::Listed(entries)
            }
            Err(fault) => unavailable(fault),
        }
    }

    async fn send<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        connection: &mut Connection<S>,
        send: Send,
    ) -> io::Result<Event<'static>> {
        let message = match self.maildrop().message(self.uids[send.index]) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(Event::Gone),
            Err(fault) => return Ok(unavailable(fault)),
        };
        // A page that is not in memory would stop every session of this thread until the disk has brought it.
        let message = match message.text.is_resident() {
            true => message,
            false => {
                let (message, fetched) = smol::unblock(move || {
                    let fetched = message.text.fetch();
                    (message, fetched)
                })
                .await;
                if let Err(e) = fetched {
                    return Ok(unavailable(e.into()));
                }
                message
            }
        };
        let text = match send.body_lines {
            None => &message.text[..],
            Some(lines) => &message.text[..wire::top_end(&message.text, lines)],
        };
        connection.send(&[send.status.as_bytes(), &message.prefix, text, TERMINATOR]).await?;
        Ok(Event::Sent)
    }

    async fn commit(&mut self, deleted: &[usize]) -> Event<'static> {
        let uids: Vec<Uid> = deleted.iter().map(|index| self.uids[*index]).collect();
        match self.maildrop().delete(&uids).await {
            Ok(true) => {
                log::info!("{} deleted {} messages", self.maildrop().address(), uids.len());
                Event::Committed
            }
            Ok(false) => Event::Unavailable,
            Err(fault) => unavailable(fault),
        }
    }
}

fn unavailable(fault: Fault) -> Event<'static> {
    log::error!("{fault}");
    Event::Unavailable
}

/// Checks name and password, and opens the maildrop. Takes milliseconds, and as many for an unknown name as for a known
/// one with a wrong password.
fn check_password(store: &Store, credentials: &Credentials) -> Result<Login<Maildrop>, Fault> {
    let address = Address::from_login(&credentials.name).ok();
    let mailbox = match &address {
        Some(address) => store.read()?.mailbox(address)?,
        None => None,
    };
    let verifier = mailbox.map_or_else(Verifier::of_nobody, |mailbox| mailbox.credential.verifier);
    let password = std::str::from_utf8(credentials.password.as_bytes()).unwrap_or_default();
    match (verifier.accepts(password), address) {
        (true, Some(address)) => store.open_maildrop(&address),
        _ => Ok(Login::WrongCredentials),
    }
}
