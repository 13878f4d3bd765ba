//! The session: the order of commands, and their replies.

use std::fmt;
use std::io::Write;
use std::mem;

use super::command::{self, Command, Hello};
use super::path::Path;
use super::reply::{self, Reply};
use crate::envelope::{Envelope, ForwardPath, Peer, Protocol};
use crate::verdict::{self, Delivery};
use crate::wire::{Line, LineEnds, Receiver, Text};

/// Longest command line in octets, line end included. RFC 5321 section 4.5.3.1.4 requires 512, plus room for
/// parameters.
const COMMAND_OCTETS_MAX: usize = 2048;
/// Most recipients per message. RFC 5321 section 4.5.3.1.8 requires at least 100.
const RECIPIENTS_MAX: usize = 1000;
/// Invalid commands before the session is closed.
const ERRORS_MAX: u32 = 20;
/// Unknown recipients since the last message before an untrusted client is disconnected.
const WRONG_RECIPIENTS_MAX: u32 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// One reply for all recipients. Bare CR or LF in a message is refused.
    Smtp,
    /// One reply per recipient. Bare CR or LF is normalised, since the peer is a program of ours.
    Lmtp,
}

/// What a session knows from the start.
#[derive(Clone, Debug)]
pub struct Policy {
    pub dialect: Dialect,
    /// Whether the client may name any number of unknown recipients: our own mail server, asking who exists.
    pub is_trusted: bool,
    /// Our name in the greeting.
    pub hostname: String,
    /// Largest message, in octets of content.
    pub message_octets_max: u64,
    /// Whether TLS is offered, or already on.
    pub tls: TlsState,
}

/// The state of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsState {
    NotOffered,
    Offered,
    On,
}

/// What the driver reports. [`Next`] says which event the session waits for.
#[derive(Debug)]
pub enum Event<'a> {
    Connected,
    /// Answers [`Next::ReadLine`].
    Line(Line<'a>),
    /// Answers [`Next::Recipient`].
    Recipient(verdict::Recipient),
    /// Answers [`Next::ReadData`]: the receiver has seen the end of data.
    Data(Receiver),
    /// Answers [`Next::ReadChunk`]: the receiver has seen every octet of the chunk.
    Chunk(Receiver),
    /// Answers [`Next::SkipChunk`].
    ChunkSkipped,
    /// Answers [`Next::Deliver`]: one verdict per recipient, in the order of the envelope.
    Delivered(Vec<Delivery>),
    /// Answers [`Next::StartTls`]: the handshake is done, and earlier input is gone.
    Secured,
    /// Answers `Recipient` or `Deliver`: a fault prevented an answer.
    Unavailable,
    /// At any time: the peer was silent for too long.
    TimedOut,
    /// At any time: the service is shutting down.
    ShuttingDown,
}

/// What the driver does next, after sending `out`.
#[derive(Debug)]
pub enum Next {
    /// Read a line of at most `octets_max` octets, line end included.
    ReadLine { octets_max: usize },
    /// Find out whether `path` can receive mail. `octets` is the announced size, 0 if none.
    Recipient { path: ForwardPath, octets: u64 },
    /// Feed the receiver until it sees the end of data.
    ReadData(Receiver),
    /// Feed the receiver exactly the next `octets` octets, even if that exceeds the largest message: it drops the
    /// excess.
    ReadChunk { receiver: Receiver, octets: u64 },
    /// Read and discard the next `octets` octets.
    SkipChunk { octets: u64 },
    /// Deliver the text durably to every recipient.
    Deliver { envelope: Envelope, text: Text },
    /// Do the TLS handshake. Discard earlier input (RFC 3207 section 4.2).
    StartTls,
    /// Close the connection.
    Close(Ending),
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Quit,
    TooManyErrors,
    TooManyWrongRecipients,
    /// A command line ended with LF alone (SMTP only).
    BareLf,
    /// BDAT without a size: where the chunk ends is unknown.
    ChunkSyntax,
    TimedOut,
    ShuttingDown,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::Quit => "QUIT",
            Ending::TooManyErrors => "too many errors",
            Ending::TooManyWrongRecipients => "too many unknown recipients",
            Ending::BareLf => "a command line without CR",
            Ending::ChunkSyntax => "BDAT without a size",
            Ending::TimedOut => "timed out",
            Ending::ShuttingDown => "the service is shutting down",
        })
    }
}

/// What a session has answered so far, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages stored for at least one recipient.
    pub messages_accepted: u64,
    /// Messages that arrived at least in part and that nobody got.
    pub messages_refused: u64,
    /// RCPT commands with a well-formed address that were not answered with 250.
    pub recipients_refused: u64,
}

/// One session, from greeting to close.
#[derive(Debug)]
pub struct Session {
    policy: Policy,
    peer: Peer,
    hello: Option<Introduction>,
    /// Begun by MAIL; moved into `awaited` while the driver works on it.
    transaction: Option<Transaction>,
    awaited: Awaited,
    errors: u32,
    /// Since the last message that was stored.
    wrong_recipients: u32,
    counts: Counts,
}

#[derive(Debug)]
struct Introduction {
    name: String,
    /// Whether the client said EHLO or LHLO.
    extended: bool,
}

#[derive(Debug)]
struct Transaction {
    reverse_path: String,
    octets_announced: u64,
    smtputf8: bool,
    recipients: Vec<ForwardPath>,
    /// The session's count when it began.
    refused_before: u64,
    /// The message so far, if it comes by BDAT.
    chunks: Option<Receiver>,
}

/// What the driver was asked for.
#[derive(Debug)]
enum Awaited {
    Connection,
    Line,
    Recipient(Transaction, ForwardPath),
    Data(Transaction),
    Chunk {
        transaction: Transaction,
        last: bool,
    },
    /// The reply that refuses the chunk, once it has been skipped.
    ChunkSkipped(Reply),
    Delivery {
        recipients: Vec<ForwardPath>,
    },
    Handshake,
    Nothing,
}

impl Session {
    pub fn new(policy: Policy, peer: Peer) -> Self {
        Self {
            policy,
            peer,
            hello: None,
            transaction: None,
            awaited: Awaited::Connection,
            errors: 0,
            wrong_recipients: 0,
            counts: Counts::default(),
        }
    }

    /// Handles an event: appends replies to `out` and returns the next step.
    ///
    /// # Panics
    /// If the event does not answer the last [`Next`].
    pub fn handle(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Next {
        match (mem::replace(&mut self.awaited, Awaited::Nothing), event) {
            (_, Event::TimedOut) => self.close(Ending::TimedOut, out),
            (_, Event::ShuttingDown) => self.close(Ending::ShuttingDown, out),
            (Awaited::Connection, Event::Connected) => self.greet(out),
            (Awaited::Line, Event::Line(line)) => self.line(line, out),
            (Awaited::Recipient(transaction, path), Event::Recipient(verdict)) => {
                self.recipient(transaction, path, verdict, out)
            }
            (Awaited::Recipient(transaction, _), Event::Unavailable) => {
                self.transaction = Some(transaction);
                self.counts.recipients_refused += 1;
                self.answer(reply::FAULT, out)
            }
            (Awaited::Data(transaction), Event::Data(receiver)) => {
                self.end_of_text(transaction, receiver, out)
            }
            (Awaited::Chunk { transaction, last: true }, Event::Chunk(receiver)) => {
                self.end_of_text(transaction, receiver, out)
            }
            (Awaited::Chunk { transaction, last: false }, Event::Chunk(receiver)) => {
                // Refused now rather than after the last chunk, so the peer can stop sending.
                if let Some(rejection) = receiver.rejection() {
                    self.counts.messages_refused += 1;
                    return self.answer(rejection.into(), out);
                }
                self.transaction = Some(Transaction { chunks: Some(receiver), ..transaction });
                self.answer(reply::CHUNK_OK, out)
            }
            (Awaited::ChunkSkipped(reply), Event::ChunkSkipped) => self.refuse_text(reply, out),
            (Awaited::Delivery { recipients }, Event::Delivered(verdicts)) => {
                if verdicts.contains(&Delivery::Stored) {
                    self.wrong_recipients = 0;
                }
                let replies: Vec<Reply> = verdicts.into_iter().map(Reply::from).collect();
                self.answer_text(&recipients, &replies, out)
            }
            (Awaited::Delivery { recipients }, Event::Unavailable) => {
                self.answer_text(&recipients, &vec![reply::FAULT; recipients.len()], out)
            }
            (Awaited::Handshake, Event::Secured) => {
                self.policy.tls = TlsState::On;
                self.hello = None;
                self.transaction = None;
                self.read_line()
            }
            (awaited, _) => panic!("the session waits for {awaited:?} and is told something else"),
        }
    }

    /// Whether the session could end now without losing a message.
    pub fn is_between_messages(&self) -> bool {
        self.transaction.is_none()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn greet(&mut self, out: &mut Vec<u8>) -> Next {
        let Policy { hostname, dialect, .. } = &self.policy;
        let protocol = match dialect {
            Dialect::Smtp => "ESMTP",
            Dialect::Lmtp => "LMTP",
        };
        print(out, format_args!("220 {hostname} {protocol} ready\r\n"));
        self.read_line()
    }

    fn line(&mut self, line: Line<'_>, out: &mut Vec<u8>) -> Next {
        let line = match line {
            Line::Whole(line) => line,
            Line::BareLf(line) if self.policy.dialect == Dialect::Lmtp => line,
            // A relay that passes on bare line ends may also pass on smuggled commands.
            Line::BareLf(_) => return self.close(Ending::BareLf, out),
            Line::TooLong => return self.refuse(reply::LINE_TOO_LONG, out),
        };
        match command::parse(line) {
            Ok(command) => self.command(command, out),
            Err(reply) => self.refuse(reply, out),
        }
    }

    fn command(&mut self, command: Command, out: &mut Vec<u8>) -> Next {
        match command {
            Command::Hello { verb, name } => self.hello(verb, name, out),
            Command::Mail { reverse_path, octets, smtputf8 } => {
                self.mail(reverse_path, octets, smtputf8, out)
            }
            Command::Rcpt { forward_path } => self.rcpt(forward_path, out),
            Command::Data => self.data(out),
            Command::Bdat { octets, last } => self.bdat(octets, last),
            Command::BdatOfUnknownSize => self.close(Ending::ChunkSyntax, out),
            Command::Rset => {
                self.transaction = None;
                self.answer(reply::DONE, out)
            }
            Command::Noop => self.answer(reply::DONE, out),
            Command::Vrfy => self.answer(reply::NOT_VERIFIED, out),
            Command::Help => self.answer(reply::HELP, out),
            Command::StartTls => self.start_tls(out),
            Command::Quit => self.close(Ending::Quit, out),
        }
    }

    fn hello(&mut self, verb: Hello, name: String, out: &mut Vec<u8>) -> Next {
        let extended = match (self.policy.dialect, verb) {
            (Dialect::Smtp, Hello::Ehlo) | (Dialect::Lmtp, Hello::Lhlo) => true,
            (Dialect::Smtp, Hello::Helo) => false,
            (Dialect::Smtp, Hello::Lhlo) | (Dialect::Lmtp, Hello::Ehlo | Hello::Helo) => {
                return self.refuse(reply::NOT_THIS_DIALECT, out);
            }
        };
        let Policy { hostname, message_octets_max, tls, .. } = &self.policy;
        let starttls = if *tls == TlsState::Offered { "250-STARTTLS\r\n" } else { "" };
        if extended {
            print(
                out,
                format_args!(
                    "250-{hostname}\r\n250-PIPELINING\r\n250-SIZE {message_octets_max}\r\n250-8BITMIME\r\n\
                     250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n{starttls}250 CHUNKING\r\n"
                ),
            );
        } else {
            print(out, format_args!("250 {hostname}\r\n"));
        }
        self.hello = Some(Introduction { name, extended });
        self.transaction = None;
        self.read_line()
    }

    fn start_tls(&mut self, out: &mut Vec<u8>) -> Next {
        match self.policy.tls {
            TlsState::NotOffered => self.refuse(reply::NOT_IMPLEMENTED, out),
            TlsState::On => self.refuse(reply::TLS_ALREADY, out),
            TlsState::Offered => {
                reply::BEGIN_TLS.write(out);
                self.awaited = Awaited::Handshake;
                Next::StartTls
            }
        }
    }

    fn mail(&mut self, reverse_path: Path, octets: u64, smtputf8: bool, out: &mut Vec<u8>) -> Next {
        if self.hello.is_none() {
            return self.refuse(reply::HELLO_FIRST, out);
        }
        if self.transaction.is_some() {
            return self.refuse(reply::MAIL_ALREADY, out);
        }
        if octets > self.policy.message_octets_max {
            return self.answer(reply::TOO_LARGE, out);
        }
        self.transaction = Some(Transaction {
            reverse_path: reverse_path.into_text(),
            octets_announced: octets,
            smtputf8,
            recipients: Vec::new(),
            refused_before: self.counts.recipients_refused,
            chunks: None,
        });
        self.answer(reply::SENDER_OK, out)
    }

    fn rcpt(&mut self, path: Path, out: &mut Vec<u8>) -> Next {
        let Some(transaction) = self.transaction.take_if(|transaction| transaction.chunks.is_none()) else {
            return self.refuse(self.out_of_order(), out);
        };
        let forward_path = match transaction.recipients.len() >= RECIPIENTS_MAX {
            true => Err(reply::TOO_MANY_RECIPIENTS),
            false => forward_path(path, transaction.smtputf8),
        };
        match forward_path {
            Ok(path) => {
                let octets = transaction.octets_announced;
                self.awaited = Awaited::Recipient(transaction, path.clone());
                Next::Recipient { path, octets }
            }
            Err(reply) => {
                self.transaction = Some(transaction);
                self.counts.recipients_refused += 1;
                match reply {
                    reply::NOT_LOCAL | reply::NO_SUCH_MAILBOX => self.refuse_recipient(reply, out),
                    _ => self.answer(reply, out),
                }
            }
        }
    }

    fn recipient(
        &mut self,
        mut transaction: Transaction,
        path: ForwardPath,
        verdict: verdict::Recipient,
        out: &mut Vec<u8>,
    ) -> Next {
        match verdict {
            verdict::Recipient::Accepted => transaction.recipients.push(path),
            _ => self.counts.recipients_refused += 1,
        }
        self.transaction = Some(transaction);
        if verdict.is_wrong() {
            return self.refuse_recipient(verdict.into(), out);
        }
        self.answer(verdict.into(), out)
    }

    fn refuse_recipient(&mut self, reply: Reply, out: &mut Vec<u8>) -> Next {
        self.wrong_recipients += 1;
        if self.wrong_recipients > WRONG_RECIPIENTS_MAX && !self.policy.is_trusted {
            return self.close(Ending::TooManyWrongRecipients, out);
        }
        self.answer(reply, out)
    }

    fn data(&mut self, out: &mut Vec<u8>) -> Next {
        let ready = |transaction: &mut Transaction| {
            !transaction.recipients.is_empty() && transaction.chunks.is_none()
        };
        let Some(transaction) = self.transaction.take_if(ready) else {
            return self.refuse_text(self.out_of_order(), out);
        };
        out.extend_from_slice(reply::SEND_DATA);
        self.awaited = Awaited::Data(transaction);
        Next::ReadData(Receiver::data(self.line_ends(), self.policy.message_octets_max))
    }

    /// RFC 3030 section 2. The chunk follows at once, wanted or not.
    fn bdat(&mut self, octets: u64, last: bool) -> Next {
        let Some(mut transaction) =
            self.transaction.take_if(|transaction| !transaction.recipients.is_empty())
        else {
            self.awaited = Awaited::ChunkSkipped(self.out_of_order());
            return Next::SkipChunk { octets };
        };
        let begun = transaction.chunks.take();
        let receiver =
            begun.unwrap_or_else(|| Receiver::content(self.line_ends(), self.policy.message_octets_max));
        self.awaited = Awaited::Chunk { transaction, last };
        Next::ReadChunk { receiver, octets }
    }

    fn end_of_text(&mut self, transaction: Transaction, receiver: Receiver, out: &mut Vec<u8>) -> Next {
        let text = match receiver.finish() {
            Ok(text) => text,
            Err(rejection) => {
                let replies = vec![rejection.into(); transaction.recipients.len()];
                return self.answer_text(&transaction.recipients, &replies, out);
            }
        };
        self.awaited = Awaited::Delivery { recipients: transaction.recipients.clone() };
        Next::Deliver { envelope: self.envelope(transaction), text }
    }

    fn envelope(&self, transaction: Transaction) -> Envelope {
        let extended = self.hello.as_ref().is_some_and(|hello| hello.extended);
        let secure = self.policy.tls == TlsState::On;
        let protocol = match (self.policy.dialect, transaction.smtputf8) {
            (Dialect::Smtp, true) if secure => Protocol::Utf8Smtps,
            (Dialect::Smtp, true) => Protocol::Utf8Smtp,
            (Dialect::Smtp, false) if extended && secure => Protocol::Esmtps,
            (Dialect::Smtp, false) if extended => Protocol::Esmtp,
            (Dialect::Smtp, false) => Protocol::Smtp,
            (Dialect::Lmtp, true) => Protocol::Utf8Lmtp,
            (Dialect::Lmtp, false) => Protocol::Lmtp,
        };
        Envelope {
            reverse_path: transaction.reverse_path,
            recipients: transaction.recipients,
            helo: self.hello.as_ref().map(|hello| hello.name.clone()).unwrap_or_default(),
            peer: self.peer,
            protocol,
        }
    }

    /// Answers a whole message, given one verdict per recipient.
    ///
    /// SMTP has one reply for all recipients, so it reports the worst verdict: permanent before temporary before
    /// stored. That way no sender believes undelivered mail delivered. The price, if verdicts differ: recipients who
    /// have the message are reported as failed, or get it again on a retry. A permanent failure is reported as such
    /// even though others have the message, because every retry would fail again and give them another copy.
    fn answer_text(&mut self, recipients: &[ForwardPath], replies: &[Reply], out: &mut Vec<u8>) -> Next {
        assert_eq!(recipients.len(), replies.len(), "every recipient has a verdict");
        match replies.contains(&reply::STORED) {
            true => self.counts.messages_accepted += 1,
            false => self.counts.messages_refused += 1,
        }
        match self.policy.dialect {
            Dialect::Lmtp => {
                recipients.iter().zip(replies).for_each(|(recipient, reply)| reply.write_for(recipient, out))
            }
            Dialect::Smtp => {
                let worst = replies.iter().max_by_key(|reply| reply.code);
                worst.expect("a message has recipients").write(out);
            }
        }
        self.read_line()
    }

    fn line_ends(&self) -> LineEnds {
        match self.policy.dialect {
            Dialect::Smtp => LineEnds::Strict,
            Dialect::Lmtp => LineEnds::Normalise,
        }
    }

    /// Why RCPT, DATA or BDAT is out of sequence, if it is.
    fn out_of_order(&self) -> Reply {
        match &self.transaction {
            None => reply::MAIL_FIRST,
            Some(transaction) if transaction.chunks.is_some() => reply::CHUNKS_BEGUN,
            Some(_) => reply::NO_RECIPIENTS,
        }
    }

    /// Answers DATA or BDAT out of sequence. It is no error of a client that sends everything at once (RFC 2920) and
    /// does not know yet that its recipients were refused.
    fn refuse_text(&mut self, reply: Reply, out: &mut Vec<u8>) -> Next {
        let refused = self.counts.recipients_refused;
        let all_refused = |transaction: &Transaction| {
            transaction.recipients.is_empty() && refused > transaction.refused_before
        };
        match self.transaction.as_ref().is_some_and(all_refused) {
            true => self.answer(reply, out),
            false => self.refuse(reply, out),
        }
    }

    fn answer(&mut self, reply: Reply, out: &mut Vec<u8>) -> Next {
        reply.write(out);
        self.read_line()
    }

    /// Answers and counts an error.
    fn refuse(&mut self, reply: Reply, out: &mut Vec<u8>) -> Next {
        self.errors += 1;
        if self.errors > ERRORS_MAX {
            return self.close(Ending::TooManyErrors, out);
        }
        self.answer(reply, out)
    }

    fn read_line(&mut self) -> Next {
        self.awaited = Awaited::Line;
        Next::ReadLine { octets_max: COMMAND_OCTETS_MAX }
    }

    fn close(&mut self, ending: Ending, out: &mut Vec<u8>) -> Next {
        Reply::from(ending).write(out);
        Next::Close(ending)
    }
}

/// The recipient a path names. A name no mailbox here can have is answered like any unknown one.
fn forward_path(path: Path, smtputf8: bool) -> Result<ForwardPath, Reply> {
    if !smtputf8 && !path.is_ascii() {
        return Err(reply::NEEDS_SMTPUTF8);
    }
    match path {
        Path::LocalOnly(name) if name.eq_ignore_ascii_case("postmaster") => Ok(ForwardPath::Postmaster),
        Path::LocalOnly(_) | Path::Null => Err(reply::BAD_RECIPIENT),
        Path::Mailbox { local, domain, .. } => {
            let domain = domain.parse().map_err(|_| reply::NOT_LOCAL)?;
            let local = local.parse().map_err(|_| reply::NO_SUCH_MAILBOX)?;
            Ok(ForwardPath::Mailbox(crate::address::Address { local, domain }))
        }
    }
}

fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every write");
}
