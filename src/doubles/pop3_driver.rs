//! A driver of POP3 sessions whose maildrop lives in memory and whose connection is a function call.

use std::time::{Duration, SystemTime};

use super::accounts;
use crate::auth::{Account, ChannelBinding, ntlm};
use crate::message::{Entry, Totals, Uid};
use crate::pop3::{Channel, Credentials, Event, Next, Policy, Session, TERMINATOR, Transmission};
use crate::verdict::Login;
use crate::wire::{self, surrogate};

/// When every conversation begins: 2003-04-24, the release of Windows Server 2003.
pub fn connected() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_051_142_400)
}

/// The channel binding of every TLS connection here.
pub fn channel_binding() -> ChannelBinding {
    ChannelBinding { exporter: Some([1; 32]), endpoint: vec![2; 32] }
}

/// The only mailbox, and how its store behaves.
#[derive(Clone, Debug, Default)]
pub struct Mailbox {
    pub name: String,
    pub password: String,
    /// The password cannot be recovered.
    pub unrecoverable: bool,
    pub messages: Vec<Message>,
    /// The answer to a login with the right name and password, if it is not `Welcome`.
    pub refusal: Option<Login<Totals>>,
    /// The operation that fails.
    pub fault: Option<Fault>,
    /// Whether it fails for good: the data is damaged.
    pub damaged: bool,
    /// Positions whose texts no longer exist.
    pub gone: Vec<usize>,
}

impl Mailbox {
    fn trouble(&self) -> Event<'static> {
        if self.damaged { Event::Damaged } else { Event::Unavailable }
    }
}

#[derive(Clone, Debug)]
pub struct Message {
    pub uid: Uid,
    /// In wire form: CRLF line ends, dot-stuffed.
    pub text: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Login,
    List,
    Text,
    /// Of several messages, the first is deleted before it.
    Commit,
}

/// A session and its driver, from the greeting on.
pub struct Conversation {
    session: Session,
    /// The policy at the start.
    policy: Policy,
    pub mailbox: Mailbox,
    out: Vec<u8>,
    /// Received octets of an incomplete line.
    pending: Vec<u8>,
    /// The current line is too long; the rest of it is dropped.
    skipping: bool,
    pub stage: Stage,
    pub logged_in: bool,
    /// The name of the account last looked up.
    asked: String,
    /// The names of failed proofs.
    pub denied: Vec<String>,
    /// The positions the commit deleted.
    pub deleted: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    Reading {
        octets_max: usize,
    },
    /// Input is discarded until [`Conversation::finish_handshake`].
    Handshake,
    Closed,
}

impl Conversation {
    /// The same seed gives the same conversation.
    pub fn open(policy: Policy, seed: [u8; 32], mailbox: Mailbox) -> Self {
        let mut conversation = Self {
            session: Session::new(policy.clone(), seed, connected()),
            policy,
            mailbox,
            out: Vec::new(),
            pending: Vec::new(),
            skipping: false,
            stage: Stage::Closed,
            logged_in: false,
            asked: String::new(),
            denied: Vec::new(),
            deleted: Vec::new(),
        };
        conversation.go_on(Event::Connected);
        conversation
    }

    /// Octets from the client, cut anywhere.
    pub fn receive(&mut self, octets: &[u8]) {
        for &octet in octets {
            let Stage::Reading { octets_max } = self.stage else { return };
            self.pending.push(octet);
            if octet == b'\n' {
                let line = std::mem::take(&mut self.pending);
                if std::mem::take(&mut self.skipping) || line.len() > octets_max {
                    self.go_on(Event::LineTooLong);
                } else {
                    let line = line.strip_suffix(b"\r\n").unwrap_or(&line[..line.len() - 1]);
                    self.go_on(Event::Line(line));
                }
            } else if self.pending.len() > octets_max {
                self.skipping = true;
                self.pending.clear();
            }
        }
    }

    /// Completes the handshake after STLS. Passwords in clear are then allowed, as they are by default.
    pub fn finish_handshake(&mut self) {
        assert_eq!(self.stage, Stage::Handshake, "a handshake is due");
        let channel = Channel::Tls(channel_binding());
        let policy = Policy { channel, plaintext_allowed: true, ..self.policy.clone() };
        self.go_on(Event::Secured(policy));
    }

    /// Output since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Carries out what the session asks for, until it asks for a line.
    fn go_on(&mut self, event: Event<'_>) {
        // `replies` is the session's buffer, `out` the connection.
        let mut replies = Vec::new();
        let mut next = self.session.handle(event, &mut replies);
        loop {
            self.out.append(&mut replies);
            let answer = match next {
                Next::ReadLine { octets_max } => return self.stage = Stage::Reading { octets_max },
                Next::Deny => {
                    self.denied.push(self.asked.clone());
                    Event::LoggedIn(Login::WrongCredentials)
                }
                Next::StartTls => return self.stage = Stage::Handshake,
                Next::Close(_) => return self.stage = Stage::Closed,
                Next::Login(credentials) => self.log_in(&credentials),
                Next::Account { .. } if self.mailbox.fault == Some(Fault::Login) => self.mailbox.trouble(),
                Next::Account { login } => {
                    self.asked = login.typed().to_owned();
                    Event::Account(self.mailbox.account(&self.asked))
                }
                Next::Prove(proof) => self.prove(&proof),
                Next::Open => {
                    assert_eq!(self.asked, self.mailbox.name, "only one account exists");
                    self.welcome()
                }
                Next::List if self.mailbox.fault == Some(Fault::List) => self.mailbox.trouble(),
                Next::List => Event::Listed(self.mailbox.entries(self.session.takes_utf8())),
                Next::Send(transmission) => self.send(&transmission),
                Next::Flush => Event::Flushed,
                Next::Commit { deleted } if self.mailbox.fault == Some(Fault::Commit) => {
                    if let [first, _, ..] = deleted[..] {
                        self.mailbox.messages.retain(|message| message.uid != first);
                    }
                    self.mailbox.trouble()
                }
                Next::Commit { deleted } => {
                    let index_of = |uid: &Uid| self.mailbox.index_of(*uid);
                    self.deleted = deleted.iter().map(index_of).collect();
                    self.mailbox.messages.retain(|message| !deleted.contains(&message.uid));
                    Event::Committed
                }
            };
            next = self.session.handle(answer, &mut replies);
        }
    }

    fn log_in(&mut self, credentials: &Credentials) -> Event<'static> {
        if self.mailbox.fault == Some(Fault::Login) {
            return self.mailbox.trouble();
        }
        let known = credentials.login.typed() == self.mailbox.name
            && credentials.password.as_bytes() == self.mailbox.password.as_bytes();
        if known { self.welcome() } else { Event::LoggedIn(Login::WrongCredentials) }
    }

    /// Like a directory that knows the account by the bare user name.
    fn prove(&mut self, proof: &ntlm::Proof) -> Event<'static> {
        match proof.check(&self.mailbox.account(&proof.user)) {
            _ if self.mailbox.fault == Some(Fault::Login) => self.mailbox.trouble(),
            Ok(()) => self.welcome(),
            Err(_) => Event::LoggedIn(Login::WrongCredentials),
        }
    }

    fn welcome(&mut self) -> Event<'static> {
        Event::LoggedIn(match &self.mailbox.refusal {
            Some(refusal) => refusal.clone(),
            None => {
                self.logged_in = true;
                Login::Welcome(self.mailbox.totals(self.session.takes_utf8()))
            }
        })
    }

    fn send(&mut self, transmission: &Transmission) -> Event<'static> {
        if self.mailbox.fault == Some(Fault::Text) {
            return self.mailbox.trouble();
        }
        let index = self.mailbox.index_of(transmission.uid);
        if self.mailbox.gone.contains(&index) {
            return Event::Gone;
        }
        let text = &self.mailbox.messages[index].text;
        let text = &self.mailbox.given(text, self.session.takes_utf8());
        self.out.extend_from_slice(transmission.status.as_bytes());
        match transmission.body_lines {
            None => self.out.extend_from_slice(text),
            Some(lines) => self.out.extend_from_slice(top_of(text, lines)),
        }
        self.out.extend_from_slice(TERMINATOR);
        Event::Sent
    }
}

impl Mailbox {
    fn index_of(&self, uid: Uid) -> usize {
        self.messages.iter().position(|message| message.uid == uid).expect("it was listed")
    }

    /// A text as the client gets it.
    fn given(&self, text: &[u8], utf8: bool) -> Vec<u8> {
        let (header, body) = text.split_at(wire::body_start(text));
        match utf8 {
            true => text.to_vec(),
            false => [&surrogate::header(header), body].concat(),
        }
    }

    fn account(&self, name: &str) -> Account {
        if name != self.name {
            return accounts::nobody();
        }
        let account = accounts::account(&self.password);
        if self.unrecoverable { Account { password: None, ..account } } else { account }
    }

    pub fn entries(&self, utf8: bool) -> Vec<Entry> {
        let octets = |message: &Message| octets_of(&self.given(&message.text, utf8));
        let entry = |message| Entry { octets: octets(message), uid: message.uid, foreign_id: None };
        self.messages.iter().map(entry).collect()
    }

    pub fn totals(&self, utf8: bool) -> Totals {
        let octets = self.entries(utf8).iter().map(|entry| entry.octets).sum();
        Totals { messages: self.messages.len() as u64, octets }
    }
}

impl Message {
    /// Messages with these texts, in order of delivery.
    pub fn sequence(texts: impl IntoIterator<Item = Vec<u8>>) -> Vec<Message> {
        (1..).zip(texts).map(|(seq, text)| Message { uid: Uid { seq, tag: 7 }, text }).collect()
    }
}

/// The length of a text in wire form, without the dot-stuffing.
fn octets_of(text: &[u8]) -> u64 {
    let stuffed = text.split_inclusive(|&b| b == b'\n').filter(|line| line.starts_with(b"."));
    (text.len() - stuffed.count()) as u64
}

/// The header, the empty line and at most `lines` lines of the body.
fn top_of(text: &[u8], lines: u64) -> &[u8] {
    let mut end = 0;
    let mut left = None;
    for line in text.split_inclusive(|&b| b == b'\n') {
        match &mut left {
            None if line == b"\r\n" => left = Some(lines),
            None => {}
            Some(0) => break,
            Some(left) => *left -= 1,
        }
        end += line.len();
    }
    &text[..end]
}
