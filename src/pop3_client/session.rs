//! The dialogue with a server.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_rustls::rustls::ClientConfig;
use zeroize::Zeroizing;

use super::connection::Connection;
use super::reply::{Capabilities, ErrorReply, Status, scan_listing, status, unique_id_listing};
use super::server::{Security, Server};

/// How long a reply may take. Servers delay the answer to a wrong password, and read long lists from disk.
const REPLY_MAX: Duration = Duration::from_secs(60);
/// A listing or a text may take longer at this rate or better.
const OCTETS_PER_SECOND_MIN: u64 = 2048;
/// Most messages per mailbox.
const MESSAGES_MAX: usize = 1_000_000;
/// How much longer than twice the announced size a text may be: some servers count a line end as one octet, or guess.
const OCTETS_UNANNOUNCED_MAX: u64 = 1 << 20;
/// Commands sent ahead to a server with PIPELINING (RFC 2449 section 6.8).
const AHEAD_MAX: usize = 32;

/// Why a server gives no mail.
#[derive(Debug)]
pub enum Trouble {
    /// It refuses name and password, with these words.
    Refused(String),
    /// It cannot be reached or breaks the protocol: a sentence.
    Unavailable(String),
    /// Its mail could not be stored here.
    Here(io::Error),
}

/// A message as LIST and UIDL show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub number: u32,
    pub octets: u64,
    /// `None` if the server has none, or one that POP3 could not send on.
    pub unique_id: Option<String>,
}

/// A session in the TRANSACTION state.
pub struct Session {
    connection: Connection,
    /// Its name in errors.
    server: String,
    ahead_max: usize,
    /// Messages RETR was sent for.
    asked: VecDeque<u32>,
}

impl Session {
    /// Connects and logs in. `tls` may be `None` only with `pop3+clear`.
    pub async fn open(
        server: &Server,
        tls: Option<&Arc<ClientConfig>>,
        login: &str,
        password: &str,
    ) -> Result<Self, Trouble> {
        let unavailable = |error: io::Error| Trouble::Unavailable(format!("{server}: {error}"));
        let mut connection = Connection::open(server, tls).await.map_err(unavailable)?;
        let mut opening = Opening { connection: &mut connection, server };
        opening.expect("the connection").await?;
        let mut capabilities = opening.capabilities().await?;
        if server.security == Security::Stls {
            if !capabilities.stls {
                return Err(Trouble::Unavailable(format!(
                    "{server}: it does not offer STLS, and without TLS no password is sent (pop3+clear would)"
                )));
            }
            opening.ask(b"STLS\r\n").await?;
            opening.expect("STLS").await?;
            connection = connection.start_tls(server, tls).await.map_err(unavailable)?;
            capabilities = Opening { connection: &mut connection, server }.capabilities().await?;
        }
        Opening { connection: &mut connection, server }.log_in(capabilities, login, password).await?;
        let ahead_max = if capabilities.pipelining { AHEAD_MAX } else { 1 };
        Ok(Self { connection, server: server.to_string(), ahead_max, asked: VecDeque::new() })
    }

    /// The messages in order. Without UIDL, none has an id.
    pub async fn list(&mut self) -> Result<Vec<Listed>, Trouble> {
        let mut listed = Vec::new();
        let count = self
            .listing("LIST", |line| {
                let (number, octets) = scan_listing(line)?;
                listed.push(Listed { number, octets, unique_id: None });
                Some(())
            })
            .await?;
        if let Err(refusal) = count {
            return Err(Trouble::Unavailable(format!("{}: it refuses LIST: {}", self.server, refusal.text)));
        }
        let mut ids = HashMap::new();
        // UIDL is optional (RFC 1939 section 7).
        let _without = self
            .listing("UIDL", |line| {
                let (number, id) = unique_id_listing(line)?;
                ids.insert(number, id);
                Some(())
            })
            .await?;
        for message in &mut listed {
            message.unique_id = ids.remove(&message.number).flatten();
        }
        Ok(listed)
    }

    /// Sends RETR for the first of these messages, before [`Session::retrieve`] is called for them in the same order.
    /// Returns for how many.
    pub async fn ask_ahead(&mut self, messages: &[Listed]) -> Result<usize, Trouble> {
        let free = self.ahead_max - self.asked.len().min(self.ahead_max);
        let messages = &messages[..messages.len().min(free)];
        let mut commands = String::new();
        for message in messages {
            let _ = write!(commands, "RETR {}\r\n", message.number);
            self.asked.push_back(message.number);
        }
        let sent = self.connection.send(commands.as_bytes(), Instant::now() + REPLY_MAX).await;
        sent.map_err(|error| self.broken(error))?;
        Ok(messages.len())
    }

    /// Passes the text of the message asked for first to `sink`, and returns its octets. If the server refuses, returns
    /// what it says; nothing has then gone to `sink`.
    pub async fn retrieve(
        &mut self,
        message: &Listed,
        sink: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    ) -> Result<Result<u64, String>, Trouble> {
        assert_eq!(
            self.asked.pop_front(),
            Some(message.number),
            "messages come in the order in which they were asked for"
        );
        let deadline =
            Instant::now() + REPLY_MAX + Duration::from_secs(message.octets / OCTETS_PER_SECOND_MIN);
        let line = self.connection.line(deadline).await.map_err(|error| self.broken(error))?;
        match status(&line) {
            Some(Status::Ok) => {}
            Some(Status::Refused(refusal)) => return Ok(Err(refusal.text)),
            Some(Status::Continue) | None => return Err(self.broken(no_reply(&line))),
        }
        let octets_max = message.octets.saturating_mul(2).saturating_add(OCTETS_UNANNOUNCED_MAX);
        let mut failed = None;
        let mut kept = |octets: &[u8]| match sink(octets) {
            Ok(()) => Ok(()),
            Err(error) => {
                failed = Some(error);
                Err(io::ErrorKind::Other.into())
            }
        };
        let octets = self.connection.text(octets_max, deadline, &mut kept).await;
        match (octets, failed) {
            (Ok(octets), _) => Ok(Ok(octets)),
            (Err(_), Some(failed)) => Err(Trouble::Here(failed)),
            (Err(error), None) => Err(self.broken(error)),
        }
    }

    /// Says QUIT, so that the server need not wait. Nothing depends on it.
    pub async fn quit(mut self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        if self.connection.send(b"QUIT\r\n", deadline).await.is_ok() {
            let _ = self.connection.line(deadline).await;
        }
    }

    /// A multi-line reply.
    async fn listing(
        &mut self,
        command: &str,
        mut take: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<Result<(), ErrorReply>, Trouble> {
        let listed = listing(&mut self.connection, command, &mut take).await;
        listed.map_err(|error| self.broken(error))
    }

    fn broken(&self, error: io::Error) -> Trouble {
        Trouble::Unavailable(format!("{}: {error}", self.server))
    }
}

/// A connection before the login.
struct Opening<'a> {
    connection: &'a mut Connection,
    server: &'a Server,
}

impl Opening<'_> {
    async fn ask(&mut self, command: &[u8]) -> Result<(), Trouble> {
        let sent = self.connection.send(command, Instant::now() + REPLY_MAX).await;
        sent.map_err(|error| self.broken(error))
    }

    async fn status(&mut self) -> Result<Status, Trouble> {
        let line = self.connection.line(Instant::now() + REPLY_MAX).await;
        let line = line.map_err(|error| self.broken(error))?;
        status(&line).ok_or_else(|| self.broken(no_reply(&line)))
    }

    async fn expect(&mut self, what: &str) -> Result<(), Trouble> {
        match self.status().await? {
            Status::Ok => Ok(()),
            Status::Refused(refusal) => {
                Err(Trouble::Unavailable(format!("{}: it refuses {what}: {}", self.server, refusal.text)))
            }
            Status::Continue => Err(self.broken(no_reply(b"+"))),
        }
    }

    /// A server that does not know CAPA counts as having USER only.
    async fn capabilities(&mut self) -> Result<Capabilities, Trouble> {
        let mut capabilities = Capabilities::default();
        let mut take = |line: &[u8]| {
            capabilities.add(line);
            Some(())
        };
        let listed = listing(self.connection, "CAPA", &mut take).await.map_err(|error| self.broken(error))?;
        if listed.is_err() {
            capabilities = Capabilities { user: true, ..Capabilities::default() };
        }
        Ok(capabilities)
    }

    /// Uses USER and PASS, which every old server has, or AUTH PLAIN if only that is offered.
    async fn log_in(
        &mut self,
        capabilities: Capabilities,
        login: &str,
        password: &str,
    ) -> Result<(), Trouble> {
        let has_control = |text: &str| text.chars().any(char::is_control);
        if has_control(login) || has_control(password) {
            return Err(Trouble::Refused("the name or the password contains a control character".to_owned()));
        }
        if capabilities.plain && !capabilities.user {
            self.ask(b"AUTH PLAIN\r\n").await?;
            match self.status().await? {
                Status::Continue => {}
                Status::Ok => return Err(self.broken(no_reply(b"+OK"))),
                Status::Refused(refusal) => return Err(self.refused(refusal)),
            }
            let message = Zeroizing::new(format!("\0{login}\0{password}"));
            let response = Zeroizing::new(STANDARD.encode(message.as_bytes()) + "\r\n");
            self.ask(response.as_bytes()).await?;
        } else {
            self.ask(format!("USER {login}\r\n").as_bytes()).await?;
            match self.status().await? {
                Status::Refused(refusal) => return Err(self.refused(refusal)),
                Status::Ok | Status::Continue => {}
            }
            self.ask(Zeroizing::new(format!("PASS {password}\r\n")).as_bytes()).await?;
        }
        match self.status().await? {
            Status::Ok => Ok(()),
            Status::Refused(refusal) => Err(self.refused(refusal)),
            Status::Continue => Err(self.broken(no_reply(b"+"))),
        }
    }

    fn refused(&self, refusal: ErrorReply) -> Trouble {
        match refusal.is_of_credentials() {
            true => Trouble::Refused(refusal.text),
            false => Trouble::Unavailable(format!("{}: {}", self.server, refusal.text)),
        }
    }

    fn broken(&self, error: io::Error) -> Trouble {
        Trouble::Unavailable(format!("{}: {error}", self.server))
    }
}

async fn listing(
    connection: &mut Connection,
    command: &str,
    take: &mut impl FnMut(&[u8]) -> Option<()>,
) -> io::Result<Result<(), ErrorReply>> {
    let mut deadline = Instant::now() + REPLY_MAX;
    connection.send(format!("{command}\r\n").as_bytes(), deadline).await?;
    let line = connection.line(deadline).await?;
    match status(&line) {
        Some(Status::Ok) => {}
        Some(Status::Refused(refusal)) => return Ok(Err(refusal)),
        Some(Status::Continue) | None => return Err(no_reply(&line)),
    }
    let (mut lines, mut octets) = (0, 0);
    loop {
        let line = connection.line(deadline).await?;
        if line == b"." {
            return Ok(Ok(()));
        }
        // No line of these listings begins with a dot.
        lines += 1;
        octets += line.len() as u64;
        if lines > MESSAGES_MAX {
            return Err(io::Error::other(format!("it listed more than {MESSAGES_MAX} lines")));
        }
        if octets >= OCTETS_PER_SECOND_MIN {
            deadline += Duration::from_secs(octets / OCTETS_PER_SECOND_MIN);
            octets %= OCTETS_PER_SECOND_MIN;
        }
        if take(&line).is_none() {
            return Err(no_reply(&line));
        }
    }
}

/// The error for something that is not a reply; cut, because it goes into the log.
fn no_reply(line: &[u8]) -> io::Error {
    let said: String = String::from_utf8_lossy(line).chars().take(60).collect();
    io::Error::other(format!("it sent {said:?}, which is not a reply"))
}
