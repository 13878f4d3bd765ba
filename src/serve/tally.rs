//! What a session has done, for the one line that the log gets when it ends.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::address::Address;
use crate::envelope::Peer;
use crate::log::About;
use crate::pop3;
use crate::smtp::{self, Dialect};

/// Sessions since the start, of every protocol.
static SESSIONS: AtomicU64 = AtomicU64::new(0);

/// Numbers a session, and logs its last line when dropped.
pub struct Tally<W: Work> {
    /// In every line about this session.
    pub number: u64,
    pub work: W,
    /// The first reason given.
    end: Option<End>,
}

/// What a session is counted by.
pub trait Work {
    /// Who the client is.
    fn client(&self) -> String;
    fn totals(&self) -> String;
}

/// A POP3 session.
pub struct Fetching {
    pub peer: IpAddr,
    /// Once somebody has logged in.
    pub user: Option<Address>,
    /// Messages in the maildrop at login.
    pub messages: u64,
    /// Messages that went out, whole or, for TOP, in part.
    pub sent: u64,
    /// Of those messages, as they went out.
    pub octets: u64,
    /// Durably.
    pub deleted: u64,
}

/// An SMTP or LMTP session.
pub struct Receiving {
    pub dialect: Dialect,
    pub peer: Peer,
    /// Octets of the messages that came, accepted or not.
    pub octets: u64,
    pub counts: smtp::Counts,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Pop3(pop3::Ending),
    Smtp(smtp::Ending),
    /// The client went without a word.
    Vanished,
    /// The client was too slow to take what was sent.
    TimedOut,
    TlsFailed(String),
    /// A text turned out to be damaged after its first part had been sent.
    Damaged,
    /// The connection made room for another one.
    PushedOut,
    /// Anything else that the connection or the kernel reports.
    Failed(String),
}

impl End {
    /// The reason behind an error of the connection.
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => End::TimedOut,
            // Alerts and malformed records: the TLS layer wraps its own errors.
            io::ErrorKind::InvalidData => End::TlsFailed(error.to_string()),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected => End::Vanished,
            _ => End::Failed(error.to_string()),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Pop3(ending) => ending.fmt(f),
            End::Smtp(ending) => ending.fmt(f),
            End::Vanished => f.write_str("the client vanished"),
            End::TimedOut => f.write_str("timed out"),
            End::TlsFailed(why) => write!(f, "TLS failed ({why})"),
            End::Damaged => f.write_str("a damaged message"),
            End::PushedOut => f.write_str("made room for another connection"),
            End::Failed(why) => f.write_str(why),
        }
    }
}

impl<W: Work> Tally<W> {
    pub fn new(work: W) -> Self {
        Self { number: SESSIONS.fetch_add(1, Ordering::Relaxed) + 1, work, end: None }
    }

    /// The front of each line about this session.
    pub fn about(&self) -> About {
        About(Some(self.number))
    }

    /// Only the first reason counts: later ones follow from it.
    pub fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// The connection failed.
    pub fn broken(&mut self, error: &io::Error) {
        self.end(End::of(error));
    }

    /// The handshake failed, whatever the reason.
    pub fn tls_failed(&mut self, error: &io::Error) {
        self.end(End::TlsFailed(error.to_string()));
    }
}

impl<W: Work> fmt::Display for Tally<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} ended: ", self.about(), self.work.client())?;
        match &self.end {
            Some(end) => end.fmt(f)?,
            // The service dropped it, with its grace over.
            None => f.write_str("cut off when the service ended")?,
        }
        write!(f, "; {}", self.work.totals())
    }
}

impl<W: Work> Drop for Tally<W> {
    fn drop(&mut self) {
        log::info!("{self}");
    }
}

impl Fetching {
    pub fn new(peer: IpAddr) -> Self {
        Self { peer, user: None, messages: 0, sent: 0, octets: 0, deleted: 0 }
    }
}

impl Work for Fetching {
    fn client(&self) -> String {
        match &self.user {
            Some(user) => format!("{user} from {}", self.peer),
            None => format!("POP3 from {}", self.peer),
        }
    }

    fn totals(&self) -> String {
        let Self { messages, sent, octets, deleted, .. } = self;
        match &self.user {
            None => "nobody logged in".to_owned(),
            Some(_) => format!(
                "messages sent {sent}, octets sent {octets}, deleted {deleted}, left {}",
                messages.saturating_sub(*deleted)
            ),
        }
    }
}

impl Receiving {
    pub fn new(dialect: Dialect, peer: Peer) -> Self {
        Self { dialect, peer, octets: 0, counts: smtp::Counts::default() }
    }

    /// The client, as lines of the log name it.
    pub fn peer(&self) -> String {
        match self.peer {
            Peer::Ip(ip) => ip.to_string(),
            Peer::Local => "this machine".to_owned(),
        }
    }
}

impl Work for Receiving {
    fn client(&self) -> String {
        let protocol = match self.dialect {
            Dialect::Smtp => "SMTP",
            Dialect::Lmtp => "LMTP",
        };
        format!("{protocol} from {}", self.peer())
    }

    fn totals(&self) -> String {
        let smtp::Counts { messages_accepted, messages_refused, recipients_refused } = self.counts;
        format!(
            "messages accepted {messages_accepted}, refused {messages_refused}, octets received {}, recipients \
             refused {recipients_refused}",
            self.octets
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_pop3_session_tells_the_reason_and_the_totals() {
        let mut tally = Tally::new(Fetching::new([192, 0, 2, 1].into()));
        let front = format!("session {}: ", tally.number);
        assert_eq!(
            tally.to_string(),
            format!("{front}POP3 from 192.0.2.1 ended: cut off when the service ended; nobody logged in")
        );
        let user = Some("ann@example.com".parse().unwrap());
        tally.work = Fetching { peer: tally.work.peer, user, messages: 5, sent: 2, octets: 1234, deleted: 2 };
        tally.end(End::Pop3(pop3::Ending::Quit));
        assert_eq!(
            tally.to_string(),
            format!(
                "{front}ann@example.com from 192.0.2.1 ended: QUIT; messages sent 2, octets sent 1234, deleted 2, left 3"
            )
        );
    }

    #[test]
    fn the_last_line_of_an_smtp_session_tells_the_reason_and_the_totals() {
        let mut tally = Tally::new(Receiving::new(Dialect::Lmtp, Peer::Local));
        tally.work.octets = 99;
        tally.work.counts = smtp::Counts { messages_accepted: 3, messages_refused: 1, recipients_refused: 2 };
        tally.end(End::Smtp(smtp::Ending::TimedOut));
        assert_eq!(
            tally.to_string(),
            format!(
                "session {}: LMTP from this machine ended: timed out; messages accepted 3, refused 1, \
                 octets received 99, recipients refused 2",
                tally.number
            )
        );
    }

    #[test]
    fn the_first_reason_counts() {
        let mut tally = Tally::new(Fetching::new([192, 0, 2, 1].into()));
        tally.end(End::Damaged);
        tally.broken(&io::ErrorKind::ConnectionReset.into());
        assert_eq!(tally.end, Some(End::Damaged));
    }

    #[test]
    fn an_error_tells_how_the_session_ended() {
        let tls = io::Error::new(io::ErrorKind::InvalidData, "received fatal alert");
        for (error, end) in [
            (io::ErrorKind::UnexpectedEof.into(), End::Vanished),
            (io::ErrorKind::ConnectionReset.into(), End::Vanished),
            (io::ErrorKind::BrokenPipe.into(), End::Vanished),
            (io::ErrorKind::TimedOut.into(), End::TimedOut),
            (tls, End::TlsFailed("received fatal alert".to_owned())),
            (io::Error::other("no randomness"), End::Failed("no randomness".to_owned())),
        ] {
            assert_eq!(End::of(&error), end, "{error}");
        }
    }
}
