//! Drives a POP3 session: does what it asks for, on a connection and on the store.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_io::Timer;
use smol::future::FutureExt;

use super::Service;
use super::adoption;
use super::connection::Connection;
use super::crowd::Stranger;
use super::limits::Rarely;
use super::stream::Stream;
use super::tally::{End, Tally};
use super::tls::Protocol;
use crate::address::Address;
use crate::auth::{ChannelBinding, ntlm};
use crate::log::Quoted;
use crate::message::Uid;
use crate::pop3::{Channel, Credentials, Ending, Event, Next, Policy, Session, TERMINATOR, Transmission};
use crate::random;
use crate::store::{Fault, Maildrop, Revocation, StoredMessage, UnixTime};
use crate::verdict::Login;
use crate::wire::{self, Line, surrogate};

/// How long a client may take to log in.
const LOGIN_MAX: Duration = Duration::from_secs(180);

/// Serves one client to its end. An error is the client's going without a word, or its silence. `stranger` is
/// what the connection counts as until somebody has logged in on it.
pub async fn serve(
    service: Arc<Service>,
    mut connection: Connection,
    peer: IpAddr,
    stranger: Arc<Stranger>,
    tally: Tally,
) -> io::Result<()> {
    let at_first = policy(&service, connection.stream(), peer);
    let seed = random::octets()?;
    let mut driver = Driver {
        session: Session::new(at_first, seed, SystemTime::now()),
        tls: connection.stream().tls_version(),
        service,
        peer,
        tally,
        name: String::new(),
        account: None,
        version: 0,
        stranger,
        maildrop: None,
        revocation: None,
    };
    connection.set_deadline(Some(Instant::now() + LOGIN_MAX));
    let mut next = driver.session.handle(Event::Connected, &mut connection.out);
    let ending = loop {
        match driver.run(next, &mut connection).await {
            Ok(Ended::ForTls) => {}
            Ok(Ended::Closed(ending)) => break ending,
            Err(e) => {
                driver.tally.end(End::of(&e, false));
                return Err(e);
            }
        }
        let begun = connection.start_tls(&driver.service, Protocol::Pop3).await;
        connection = begun.inspect_err(|e| driver.tally.end(End::of(e, true)))?;
        driver.tls = connection.stream().tls_version();
        let secured = policy(&driver.service, connection.stream(), peer);
        next = driver.session.handle(Event::Secured(secured), &mut connection.out);
    };
    driver.tally.end(End::Session(ending));
    // The maildrop is free before the client hears that its session is over: it may log in again at once.
    drop(driver);
    match ending {
        Ending::Quit | Ending::NotCommitted => connection.hang_up().await,
        _ => connection.dismiss().await,
    }
}

/// What holds for a session over this connection.
fn policy(service: &Service, stream: &Stream, peer: IpAddr) -> Policy {
    let settings = service.settings();
    let channel = match stream {
        Stream::Clear(_) => Channel::Clear { stls_offered: true },
        Stream::Tls { endpoint, .. } => {
            Channel::Tls(ChannelBinding { exporter: stream.exporter(), endpoint: endpoint.clone() })
        }
    };
    Policy {
        hostname: settings.hostname.as_str().to_owned(),
        plaintext_allowed: matches!(channel, Channel::Tls(_)) || settings.plaintext.allows(peer),
        channel,
        spa_required: settings.sparequired.get() == 1,
        ntlm_domain: service.accounts.ntlm_domain(),
        secrets_available: service.accounts.secrets_available(),
        passwords_wanted: adoption::is_on(&settings),
        verifiers_available: service.accounts.verifiers_available(),
        ntlm_level: match settings.ntlmlevel.get() {
            0 => ntlm::Level::V1,
            1 => ntlm::Level::Session,
            _ => ntlm::Level::V2,
        },
        expire_days: Some(settings.expire.get()).filter(|days| *days > 0),
        login_delay_seconds: settings.logindelay.seconds() as u32,
    }
}

/// Why a session does not go on over the connection as it is.
enum Ended {
    ForTls,
    Closed(Ending),
}

struct Driver {
    service: Arc<Service>,
    session: Session,
    peer: IpAddr,
    tally: Tally,
    /// Its version, if the client speaks TLS.
    tls: Option<&'static str>,
    /// The last name under which somebody wanted to log in, and what guesses at it count under.
    name: String,
    account: Option<String>,
    /// The version of the credential that was last handed out for a proof.
    version: u64,
    stranger: Arc<Stranger>,
    /// Once somebody has logged in.
    maildrop: Option<Arc<Maildrop>>,
    revocation: Option<Revocation>,
}

impl Driver {
    async fn run(&mut self, mut next: Next, connection: &mut Connection) -> io::Result<Ended> {
        loop {
            let event = match next {
                Next::ReadLine { octets_max } => {
                    next = self.read_line(connection, octets_max).await?;
                    continue;
                }
                Next::Login(credentials) => self.log_in(credentials).await,
                Next::Account { name } => self.find(name).await,
                Next::Open { name } => self.open(&name).await,
                Next::Prove(claim) => self.prove(claim).await,
                Next::Deny { .. } => self.welcome(Ok(Login::WrongCredentials)),
                Next::StartTls => return Ok(Ended::ForTls),
                Next::List => self.list().await,
                Next::Send(transmission) => self.send(connection, transmission).await?,
                Next::Flush => {
                    connection.flush().await?;
                    Event::Flushed
                }
                Next::Commit { deleted } => {
                    // A client that pipelines its commands gets its messages before they go.
                    connection.flush().await?;
                    self.commit(&deleted).await
                }
                Next::Close(ending) => return Ok(Ended::Closed(ending)),
            };
            if let Event::LoggedIn(Login::Welcome(_)) = event {
                connection.set_deadline(None);
            }
            next = self.session.handle(event, &mut connection.out);
        }
    }

    /// The step after the client's next line, or after the end of its wait: the mailbox was locked or deleted, the
    /// client is silent for too long, or the service stops before a login.
    async fn read_line(&mut self, connection: &mut Connection, octets_max: usize) -> io::Result<Next> {
        let session = &mut self.session;
        let line = connection.line(octets_max, |line, out| match line {
            Line::Whole(line) | Line::BareLf(line) => session.handle(Event::Line(line), out),
            Line::TooLong => session.handle(Event::LineTooLong, out),
        });
        let interrupted = async {
            match &mut self.revocation {
                Some(revocation) => {
                    revocation.happened().await;
                    Event::Revoked
                }
                None => {
                    let _ = self.service.ending.recv().await;
                    Event::ShuttingDown
                }
            }
        };
        let event = match async { Err(interrupted.await) }.or(async { Ok(line.await) }).await {
            Ok(Err(e)) if e.kind() == io::ErrorKind::TimedOut && connection.is_sent() => Event::TimedOut,
            Ok(outcome) => return outcome,
            Err(event) => event,
        };
        Ok(self.session.handle(event, &mut connection.out))
    }

    /// Whoever got a password wrong before waits before the next attempt.
    async fn wait_as_guesser(&mut self, name: String) -> Result<(), Fault> {
        self.account = match Address::from_login(&name) {
            Ok(address) => Some(address.to_string()),
            // A look through the domains.
            Err(_) => {
                let (service, name) = (self.service.clone(), name.clone());
                smol::unblock(move || service.accounts.guarded_name(&name)).await?
            }
        };
        self.name = name;
        let wait = self.service.guard.wait(self.peer, self.account.as_deref(), Instant::now());
        if !wait.is_zero() {
            Timer::after(wait).await;
        }
        Ok(())
    }

    async fn log_in(&mut self, credentials: Credentials) -> Event<'static> {
        if let Err(fault) = self.wait_as_guesser(credentials.name.clone()).await {
            return unavailable(fault);
        }
        let service = self.service.clone();
        // Another thread would cost more than recalling does, and nobody who has logged in lately is to stand in line
        // with those who guess.
        let recalled = service.accounts.recall(&credentials).transpose();
        let outcome = match recalled {
            Some(outcome) => outcome,
            None => self.check(&credentials).await,
        };
        let outcome = match outcome {
            Ok(so_far @ (Login::WrongCredentials | Login::Incomplete))
                if adoption::is_on(&service.settings()) =>
            {
                adoption::log_in(&service, credentials, so_far).await
            }
            outcome => outcome,
        };
        self.welcome(outcome)
    }

    async fn check(&self, credentials: &Credentials) -> Result<Login<Maildrop>, Fault> {
        let service = self.service.clone();
        let credentials =
            Credentials { name: credentials.name.clone(), password: credentials.password.clone() };
        let waiting = match service.accounts.is_network_asked() {
            // It takes no processor, but may take its time: whoever waits for it must not stand in the way of the
            // others.
            true => service.directory_questions.acquire(),
            false => service.password_checks.acquire(),
        };
        let _turn = waiting.await;
        let checking = service.clone();
        smol::unblock(move || checking.accounts.log_in(&credentials)).await
    }

    async fn prove(&mut self, claim: ntlm::Claim) -> Event<'static> {
        if let Err(fault) = self.wait_as_guesser(claim.logon_name()).await {
            return unavailable(fault);
        }
        let service = self.service.clone();
        let _turn = service.directory_questions.acquire().await;
        let proving = service.clone();
        let outcome = smol::unblock(move || proving.accounts.prove(&claim)).await;
        self.welcome(outcome)
    }

    async fn find(&mut self, name: String) -> Event<'static> {
        if let Err(fault) = self.wait_as_guesser(name.clone()).await {
            return unavailable(fault);
        }
        let service = self.service.clone();
        match smol::unblock(move || service.accounts.find(&name)).await {
            Ok((account, version)) => {
                self.version = version;
                Event::Account(account)
            }
            Err(fault) => unavailable(fault),
        }
    }

    async fn open(&mut self, name: &str) -> Event<'static> {
        let (service, name, version) = (self.service.clone(), name.to_owned(), self.version);
        let outcome = smol::unblock(move || service.accounts.open(&name, version)).await;
        self.welcome(outcome)
    }

    fn welcome(&mut self, outcome: Result<Login<Maildrop>, Fault>) -> Event<'static> {
        let number = self.tally.number;
        let refused = |why: &str| {
            log::warn!("session {number}: login refused: {} {why}, from {}", Quoted(&self.name), self.peer);
        };
        match outcome {
            Ok(Login::Welcome(maildrop)) if !self.may_log_in(maildrop.address()) => {
                refused("comes too soon after the last time");
                Event::LoggedIn(Login::TooSoon)
            }
            Ok(Login::Welcome(maildrop)) => {
                let maildrop = match self.session.takes_utf8() {
                    true => maildrop,
                    false => maildrop.with_surrogates(),
                };
                let totals = maildrop.totals();
                log::info!(
                    "session {number}: {} logged in from {} by {} over {}: {} messages",
                    maildrop.address(),
                    self.peer,
                    self.session.mechanism(),
                    self.tls.unwrap_or("TCP"),
                    totals.messages
                );
                self.tally.logged_in(maildrop.address(), totals.messages);
                maildrop.note_login(UnixTime::now());
                self.service.guard.succeeded(self.peer, self.account.as_deref(), Instant::now());
                self.stranger.leave_crowd();
                self.revocation = Some(maildrop.revocation());
                self.maildrop = Some(Arc::new(maildrop));
                Event::LoggedIn(Login::Welcome(totals))
            }
            Ok(Login::WrongCredentials) => {
                let name = Quoted(&self.name);
                log::warn!(
                    "session {number}: login refused: wrong name or password for {name} from {}",
                    self.peer
                );
                self.service.guard.failed(self.peer, self.account.as_deref(), Instant::now());
                Event::LoggedIn(Login::WrongCredentials)
            }
            Ok(Login::Barred { why, is_proven }) => {
                refused(&why);
                let (guard, account) = (&self.service.guard, self.account.as_deref());
                match is_proven {
                    true => guard.barred(self.peer, account, Instant::now()),
                    false => guard.failed(self.peer, account, Instant::now()),
                }
                Event::LoggedIn(Login::Barred { why, is_proven })
            }
            Ok(Login::Locked) => {
                refused("is locked");
                Event::LoggedIn(Login::Locked)
            }
            Ok(Login::InUse) => {
                refused("has its maildrop open already");
                Event::LoggedIn(Login::InUse)
            }
            Ok(Login::Incomplete) => {
                refused("waits for the rest of its mail");
                Event::LoggedIn(Login::Incomplete)
            }
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
            Ok(entries) => Event::Listed(entries),
            Err(fault) => unavailable(fault),
        }
    }

    async fn send(
        &mut self,
        connection: &mut Connection,
        transmission: Transmission,
    ) -> io::Result<Event<'static>> {
        let Transmission { uid, body_lines, status } = transmission;
        let mut message = match self.maildrop().message(uid) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(Event::Gone),
            Err(fault) => return Ok(self.cannot_send(uid, fault)),
        };
        // A page that is not in memory would stop every session of this thread until the disk has brought it; so would
        // the hash of a long text.
        if !message.is_ready() {
            let verified;
            (message, verified) = apart(message, StoredMessage::verify).await;
            if let Err(fault) = verified {
                return Ok(self.cannot_send(uid, fault));
            }
        }
        let end = match body_lines {
            None => message.text.len(),
            Some(lines) => wire::top_end(&message.text, lines),
        };
        let (mut status, mut prefix) = (status.as_bytes(), std::mem::take(&mut message.prefix));
        let (mut header_end, mut octets) = (0, 0);
        if message.needs_surrogate {
            header_end = wire::body_start(&message.text);
            prefix = [surrogate::header(&prefix), surrogate::header(&message.text[..header_end])].concat();
        }
        for piece in message.pieces(end) {
            // Only a long text takes so long that its pages may be gone when their turn comes.
            if piece.start > 0 && !message.is_piece_ready(piece.clone()) {
                let verified;
                let again = piece.clone();
                (message, verified) = apart(message, |message| message.verify_piece(again)).await;
                if let Err(fault) = verified {
                    // The client has +OK already: cut off in the middle, it knows that this is not the message.
                    self.cannot_send(uid, fault);
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
            let terminator = if piece.end == end { TERMINATOR } else { b"" };
            let text = &message.text[piece.start.max(header_end).min(piece.end)..piece.end];
            connection.send(&[status, &prefix, text, terminator]).await?;
            octets += prefix.len() + text.len();
            status = b"";
            prefix.clear();
        }
        self.tally.sent(octets);
        Ok(Event::Sent)
    }

    fn cannot_send(&self, uid: Uid, fault: Fault) -> Event<'static> {
        let (number, address) = (self.tally.number, self.maildrop().address());
        log::error!("session {number}: message {} of {address} cannot be sent: {fault}", uid.seq);
        answer_to(&fault)
    }

    async fn commit(&mut self, deleted: &[Uid]) -> Event<'static> {
        match self.maildrop().delete(deleted).await {
            Ok(true) => {
                self.tally.deleted(deleted.len());
                Event::Committed
            }
            Ok(false) => Event::Unavailable,
            Err(fault) => unavailable(fault),
        }
    }
}

/// Does what takes long away from the executor.
async fn apart<T: Send + 'static>(
    message: StoredMessage,
    work: impl FnOnce(&StoredMessage) -> T + Send + 'static,
) -> (StoredMessage, T) {
    smol::unblock(move || {
        let outcome = work(&message);
        (message, outcome)
    })
    .await
}

/// While a directory is down every login meets that; once in this time it is told.
static DIRECTORY_DOWN: Rarely = Rarely::new(Duration::from_secs(10));

fn unavailable(fault: Fault) -> Event<'static> {
    match &fault {
        Fault::Elsewhere(why) => match DIRECTORY_DOWN.happened(Instant::now()) {
            None => {}
            Some(1) => log::error!("{why}"),
            Some(logins) => log::error!("{logins} logins could not be checked; the last one: {why}"),
        },
        fault => log::error!("{fault}"),
    }
    answer_to(&fault)
}

fn answer_to(fault: &Fault) -> Event<'static> {
    match fault {
        Fault::Damaged(_) => Event::Damaged,
        _ => Event::Unavailable,
    }
}
