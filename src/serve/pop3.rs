//! Drives a POP3 session: does what it asks for, on a connection and on the store.

use std::io;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_io::Timer;
use smol::future::FutureExt;

use super::Service;
use super::adoption;
use super::connection::Connection;
use super::crowd::Stranger;
use super::stream::Stream;
use super::tally::{End, Fetching, Tally};
use super::tls::Protocol;
use crate::address::{Address, LoginName};
use crate::auth::{ChannelBinding, ntlm};
use crate::log::{Quoted, Rarely};
use crate::message::{Totals, Uid};
use crate::pop3::{Channel, Credentials, Ending, Event, Next, Policy, Session, TERMINATOR, Transmission};
use crate::random;
use crate::settings::NtlmLevel;
use crate::store::{Fault, Maildrop, Revocation, StoredMessage, UnixTime};
use crate::verdict::Login;
use crate::wire::{self, Line, surrogate};

/// How long a client may take to log in.
const LOGIN_MAX: Duration = Duration::from_secs(180);
/// A longer text is searched off the executor: it may be all header, or have a line end at every other octet.
const SEARCHED_AT_ONCE_MAX: usize = 64 << 10;
/// While the directory is down, every login fails for the same reason; the log gets one line per interval.
static DIRECTORY_DOWN: Rarely = Rarely::new(Duration::from_secs(10));

/// Serves one client to the end, and notes in the tally how the session ended. With `tls_first` the handshake comes
/// before the greeting (POP3S). The client is the stranger until it logs in.
pub async fn serve(
    service: Arc<Service>,
    connection: Connection,
    tls_first: bool,
    stranger: &Stranger,
    tally: &mut Tally<Fetching>,
) {
    if let Err(e) = talk(service, connection, tls_first, stranger, tally).await {
        tally.broken(&e);
    }
}

async fn talk(
    service: Arc<Service>,
    mut connection: Connection,
    tls_first: bool,
    stranger: &Stranger,
    tally: &mut Tally<Fetching>,
) -> io::Result<()> {
    if tls_first {
        let secured = connection.start_tls(&service, Protocol::Pop3).await;
        connection = secured.inspect_err(|e| tally.tls_failed(e))?;
    }
    let peer = tally.work.peer;
    let at_first = policy(&service, connection.stream(), peer);
    let mut driver = Driver {
        session: Session::new(at_first, random::octets()?, SystemTime::now()),
        tls: connection.stream().tls_version(),
        service,
        peer,
        stranger,
        tally,
        stage: Stage::LoggedOut,
        is_cold: false,
    };
    connection.set_deadline(Some(Instant::now() + LOGIN_MAX));
    let mut next = driver.session.handle(Event::Connected, &mut connection.out);
    let ending = loop {
        match driver.run(next, &mut connection).await? {
            Pause::ForTls => {}
            Pause::Over(ending) => break ending,
        }
        let secured = connection.start_tls(&driver.service, Protocol::Pop3).await;
        connection = secured.inspect_err(|e| driver.tally.tls_failed(e))?;
        driver.tls = connection.stream().tls_version();
        let policy = policy(&driver.service, connection.stream(), peer);
        next = driver.session.handle(Event::Secured(policy), &mut connection.out);
    };
    driver.tally.end(End::Pop3(ending));
    // Release the maildrop before the client hears that its session is over: it may log in again at once.
    drop(driver);
    match ending {
        Ending::Quit | Ending::NotCommitted => connection.hang_up().await,
        _ => connection.dismiss().await,
    }
}

/// The policy for a session over this stream.
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
        spa_required: settings.sparequired.is_on(),
        ntlm_domain: service.accounts.ntlm_domain(),
        secrets_available: service.accounts.secrets_available(),
        passwords_wanted: adoption::is_on(&settings),
        verifiers_available: service.accounts.verifiers_available(),
        ntlm_level: match settings.ntlmlevel {
            NtlmLevel::V1 => ntlm::Level::V1,
            NtlmLevel::Session => ntlm::Level::Session,
            NtlmLevel::V2 => ntlm::Level::V2,
        },
        expire_days: Some(settings.expire.get()).filter(|days| *days > 0),
        login_delay_seconds: settings.logindelay.seconds() as u32,
    }
}

/// Why the session does not go on over this connection as it is.
enum Pause {
    ForTls,
    Over(Ending),
}

struct Driver<'a> {
    service: Arc<Service>,
    session: Session,
    peer: IpAddr,
    stranger: &'a Stranger,
    tally: &'a mut Tally<Fetching>,
    /// The TLS version, if TLS is on.
    tls: Option<&'static str>,
    stage: Stage,
    /// The last message sent had to be read from the disk.
    is_cold: bool,
}

/// How far the client has come.
enum Stage {
    LoggedOut,
    /// The session checks a proof for the account it has looked up.
    Proving {
        attempt: Attempt,
        /// The version of the credential the proof is checked against.
        version: u64,
    },
    LoggedIn {
        maildrop: Arc<Maildrop>,
        revocation: Revocation,
    },
}

/// An attempt to log in.
struct Attempt {
    login: LoginName,
    /// What failures count under: the same for every spelling of the name, `None` for a name that can't be an account.
    account: Option<String>,
}

impl Driver<'_> {
    async fn run(&mut self, mut next: Next, connection: &mut Connection) -> io::Result<Pause> {
        loop {
            if let Next::Login(_) | Next::Account { .. } | Next::Prove(_) | Next::Commit { .. } = next {
                // It may take long. A client that pipelines gets its replies and messages before.
                connection.flush().await?;
            }
            let event = match next {
                Next::ReadLine { octets_max } => {
                    next = self.read_line(connection, octets_max).await?;
                    continue;
                }
                Next::Login(credentials) => self.log_in(credentials).await,
                Next::Account { login } => self.find(login).await,
                Next::Open => self.open().await,
                Next::Prove(proof) => self.prove(proof).await,
                Next::Deny => {
                    let (attempt, _) = self.proven();
                    Ok(self.conclude(&attempt, Login::WrongCredentials))
                }
                Next::StartTls => return Ok(Pause::ForTls),
                Next::List => self.list().await,
                Next::Send(transmission) => Ok(self.send(connection, transmission).await?),
                Next::Flush => {
                    connection.flush().await?;
                    Ok(Event::Flushed)
                }
                Next::Commit { deleted } => self.commit(&deleted).await,
                Next::Close(ending) => return Ok(Pause::Over(ending)),
            };
            let event = event.unwrap_or_else(|fault| self.unavailable(&fault));
            if let Event::LoggedIn(Login::Welcome(_)) = event {
                connection.set_deadline(None);
            }
            next = self.session.handle(event, &mut connection.out);
        }
    }

    /// Waits for the client's next line, or for what ends the session instead: a lock or deletion of the mailbox, the
    /// client's silence, the end of the service before a login.
    async fn read_line(&mut self, connection: &mut Connection, octets_max: usize) -> io::Result<Next> {
        let session = &mut self.session;
        let line = connection.line(octets_max, |line, out| match line {
            Line::Whole(line) | Line::BareLf(line) => session.handle(Event::Line(line), out),
            Line::TooLong => session.handle(Event::LineTooLong, out),
        });
        let interrupted = async {
            match &mut self.stage {
                Stage::LoggedIn { revocation, .. } => {
                    revocation.happened().await;
                    Event::Revoked
                }
                Stage::LoggedOut | Stage::Proving { .. } => {
                    self.service.ending.begun().await;
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

    /// Begins an attempt to log in, after the wait that earlier wrong passwords have earned.
    async fn attempt(&self, login: LoginName) -> Result<Attempt, Fault> {
        let account = match login.address() {
            Some(address) => Some(address.to_string()),
            // Looks through the domains.
            None => {
                let (service, login) = (self.service.clone(), login.clone());
                smol::unblock(move || service.accounts.guarded_name(login.typed())).await?
            }
        };
        let wait = self.service.guard.wait(self.peer, account.as_deref(), Instant::now());
        if !wait.is_zero() {
            Timer::after(wait).await;
        }
        Ok(Attempt { login, account })
    }

    async fn log_in(&mut self, credentials: Credentials) -> Result<Event<'static>, Fault> {
        let attempt = self.attempt(credentials.login.clone()).await?;
        let service = &self.service;
        // On this thread: handing it over would cost more than recalling does, and a user who has logged in lately must
        // not queue with guessers.
        let so_far = match service.accounts.recall(&credentials)? {
            Some(recalled) => recalled,
            None => self.check(credentials.clone()).await?,
        };
        let may_be_elsewhere = matches!(so_far, Login::WrongCredentials | Login::Incomplete);
        let outcome = match may_be_elsewhere && adoption::is_on(&service.settings()) {
            // Boxed: else the room for it would be part of every session.
            true => Box::pin(adoption::log_in(service, credentials, so_far)).await?,
            false => so_far,
        };
        Ok(self.conclude(&attempt, outcome))
    }

    async fn check(&self, credentials: Credentials) -> Result<Login<Maildrop>, Fault> {
        let service = &self.service;
        let turns = match service.accounts.is_network_asked() {
            // Slow without using our processors, so it must not hold up logins that need them.
            true => &service.directory_questions,
            false => &service.password_checks,
        };
        let _turn = turns.acquire().await;
        let service = service.clone();
        smol::unblock(move || service.accounts.log_in(&credentials)).await
    }

    async fn prove(&mut self, proof: ntlm::Proof) -> Result<Event<'static>, Fault> {
        let attempt = self.attempt(proof.logon_name().into()).await?;
        let service = self.service.clone();
        let _turn = service.directory_questions.acquire().await;
        let proving = service.clone();
        let outcome = smol::unblock(move || proving.accounts.prove(&proof)).await?;
        Ok(self.conclude(&attempt, outcome))
    }

    async fn find(&mut self, login: LoginName) -> Result<Event<'static>, Fault> {
        let attempt = self.attempt(login.clone()).await?;
        let service = self.service.clone();
        let (account, version) = smol::unblock(move || service.accounts.find(&login)).await?;
        self.stage = Stage::Proving { attempt, version };
        Ok(Event::Account(account))
    }

    async fn open(&mut self) -> Result<Event<'static>, Fault> {
        let (attempt, version) = self.proven();
        let (service, login) = (self.service.clone(), attempt.login.clone());
        let outcome = smol::unblock(move || service.accounts.open(&login, version)).await?;
        Ok(self.conclude(&attempt, outcome))
    }

    fn proven(&mut self) -> (Attempt, u64) {
        match mem::replace(&mut self.stage, Stage::LoggedOut) {
            Stage::Proving { attempt, version } => (attempt, version),
            _ => panic!("the session looks an account up before it judges a proof"),
        }
    }

    /// Logs the outcome, tells the guard, and opens the maildrop to the session.
    fn conclude(&mut self, attempt: &Attempt, outcome: Login<Maildrop>) -> Event<'static> {
        let outcome = match outcome {
            Login::Welcome(maildrop) if !self.may_log_in(maildrop.address()) => Login::TooSoon,
            outcome => outcome,
        };
        let (about, peer, name) = (self.tally.about(), self.peer, Quoted(attempt.login.typed()));
        let (guard, account, now) = (&self.service.guard, attempt.account.as_deref(), Instant::now());
        let refused = |why: &str| log::warn!("{about}login refused: {name} {why}, from {peer}");
        match &outcome {
            Login::Welcome(_) => guard.succeeded(peer, account, now),
            Login::WrongCredentials => {
                log::warn!("{about}login refused: wrong name or password for {name} from {peer}");
                guard.failed(peer, account, now);
            }
            Login::Barred { why, is_proven } => {
                refused(why);
                match is_proven {
                    true => guard.barred(peer, account, now),
                    false => guard.failed(peer, account, now),
                }
            }
            Login::Locked => refused("is locked"),
            Login::InUse => refused("already has its maildrop open"),
            Login::Incomplete => refused("waits for the rest of its mail"),
            Login::TooSoon => refused("logs in too soon after the last login"),
        }
        Event::LoggedIn(outcome.map(|maildrop| self.welcome(maildrop)))
    }

    fn may_log_in(&self, user: &Address) -> bool {
        let delay = self.service.settings().logindelay.duration();
        self.service.logins.may_log_in(user, delay, Instant::now())
    }

    fn welcome(&mut self, maildrop: Maildrop) -> Totals {
        let maildrop = match self.session.takes_utf8() {
            true => maildrop,
            false => maildrop.with_surrogates(),
        };
        let (totals, user) = (maildrop.totals(), maildrop.address());
        log::info!(
            "{}{user} logged in from {} by {} over {}: {} messages",
            self.tally.about(),
            self.peer,
            self.session.mechanism(),
            self.tls.unwrap_or("TCP"),
            totals.messages
        );
        self.tally.work.user = Some(user.clone());
        self.tally.work.messages = totals.messages;
        maildrop.note_login(UnixTime::now());
        self.stranger.leave_crowd();
        self.stage = Stage::LoggedIn { revocation: maildrop.revocation(), maildrop: Arc::new(maildrop) };
        totals
    }

    fn maildrop(&self) -> &Arc<Maildrop> {
        match &self.stage {
            Stage::LoggedIn { maildrop, .. } => maildrop,
            _ => panic!("the session asks for messages only after a login"),
        }
    }

    async fn list(&mut self) -> Result<Event<'static>, Fault> {
        let maildrop = self.maildrop().clone();
        Ok(Event::Listed(smol::unblock(move || maildrop.list()).await?))
    }

    /// A message whose text is in memory and undamaged; `None` if it is gone.
    ///
    /// Reading a page from disk, or hashing a long text, would stop every session. So that is done elsewhere, and
    /// after a text that lay on the disk alone, so is the search for the next one, whose row may lie there too.
    async fn message(&mut self, uid: Uid) -> Result<Option<StoredMessage>, Fault> {
        if self.is_cold {
            let maildrop = self.maildrop().clone();
            let find = move || {
                let Some(message) = maildrop.message(uid)? else { return Ok((None, false)) };
                let is_cold = !message.is_ready();
                if is_cold {
                    message.verify()?;
                }
                Ok::<_, Fault>((Some(message), is_cold))
            };
            let found;
            (found, self.is_cold) = smol::unblock(find).await?;
            return Ok(found);
        }
        let Some(mut message) = self.maildrop().message(uid)? else { return Ok(None) };
        if !message.is_ready() {
            self.is_cold = true;
            let verified;
            (message, verified) = apart(message, StoredMessage::verify).await;
            verified?;
        }
        Ok(Some(message))
    }

    async fn send(
        &mut self,
        connection: &mut Connection,
        transmission: Transmission,
    ) -> io::Result<Event<'static>> {
        let Transmission { uid, body_lines, status } = transmission;
        let mut message = match self.message(uid).await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(Event::Gone),
            Err(fault) => return Ok(self.cannot_send(uid, &fault)),
        };
        let is_searched = body_lines.is_some() || message.needs_surrogate;
        let excerpt;
        (message, excerpt) = match is_searched && message.text.len() > SEARCHED_AT_ONCE_MAX {
            true => apart(message, move |message| Excerpt::of(message, body_lines)).await,
            false => {
                let excerpt = Excerpt::of(&message, body_lines);
                (message, excerpt)
            }
        };
        let Excerpt { surrogate, header_end, end } = excerpt;
        let mut prefix = surrogate.unwrap_or_else(|| mem::take(&mut message.prefix));
        let (mut status, mut octets) = (status.as_bytes(), 0);
        for piece in message.pieces(end) {
            // A long text may take so long that pages are gone again by their turn.
            if piece.start > 0 && !message.is_piece_ready(piece.clone()) {
                let verified;
                let again = piece.clone();
                (message, verified) = apart(message, |message| message.verify_piece(again)).await;
                if let Err(fault) = verified {
                    // The client has +OK already. Cut off in the middle, it knows that this is not the message.
                    self.cannot_send(uid, &fault);
                    self.tally.end(End::Damaged);
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
        self.tally.work.sent += 1;
        self.tally.work.octets += octets as u64;
        Ok(Event::Sent)
    }

    fn cannot_send(&self, uid: Uid, fault: &Fault) -> Event<'static> {
        let (about, address) = (self.tally.about(), self.maildrop().address());
        log::error!("{about}message {} of {address} cannot be sent: {fault}", uid.seq);
        answer_to(fault)
    }

    async fn commit(&mut self, deleted: &[Uid]) -> Result<Event<'static>, Fault> {
        match self.maildrop().delete(deleted).await? {
            true => {
                self.tally.work.deleted += deleted.len() as u64;
                Ok(Event::Committed)
            }
            false => Ok(Event::Revoked),
        }
    }

    fn unavailable(&self, fault: &Fault) -> Event<'static> {
        let about = self.tally.about();
        match fault {
            Fault::Elsewhere(why) => match DIRECTORY_DOWN.happened(Instant::now()) {
                None => {}
                Some(1) => log::error!("{about}{why}"),
                Some(logins) => {
                    log::error!("{about}{logins} logins could not be checked; the last one: {why}")
                }
            },
            fault => log::error!("{about}{fault}"),
        }
        answer_to(fault)
    }
}

/// What a client gets of a message.
struct Excerpt {
    /// The header, if it is not the message's own.
    surrogate: Option<Vec<u8>>,
    /// Where the text begins that follows the surrogate.
    header_end: usize,
    /// Where it ends.
    end: usize,
}

impl Excerpt {
    /// With `body_lines`, only as many lines of the body.
    fn of(message: &StoredMessage, body_lines: Option<u64>) -> Self {
        let text = &message.text[..];
        let end = body_lines.map_or(text.len(), |lines| wire::top_end(text, lines));
        if !message.needs_surrogate {
            return Self { surrogate: None, header_end: 0, end };
        }
        let header_end = wire::body_start(text);
        let mut surrogate = surrogate::header(&message.prefix);
        surrogate.append(&mut surrogate::header(&text[..header_end]));
        Self { surrogate: Some(surrogate), header_end, end }
    }
}

/// Does slow work on a message off the executor.
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

fn answer_to(fault: &Fault) -> Event<'static> {
    match fault {
        Fault::Damaged(_) => Event::Damaged,
        _ => Event::Unavailable,
    }
}
