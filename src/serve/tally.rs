//! What a POP3 session has done, for the one line that the log gets when it ends.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::address::Address;
use crate::pop3::Ending;

/// Sessions since the start.
static SESSIONS: AtomicU64 = AtomicU64::new(0);

/// Counts a session, and writes its last line to the log when dropped.
pub struct Tally {
    /// Stands in every line about this session.
    pub number: u64,
    peer: IpAddr,
    user: Option<Address>,
    /// Messages in the maildrop at login.
    messages: u64,
    sent: u64,
    octets: u64,
    deleted: u64,
    end: End,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The session itself came to its end.
    Session(Ending),
    Vanished,
    TlsFailed,
    /// A text turned out to be damaged after its first part had been sent.
    Damaged,
    /// The service dropped the session: it stops, or the connection made room for another one.
    Dropped,
}

impl End {
    /// Of an error that ended the connection.
    pub fn of(error: &io::Error, in_handshake: bool) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => End::Session(Ending::TimedOut),
            io::ErrorKind::InvalidData if !in_handshake => End::Damaged,
            _ if in_handshake => End::TlsFailed,
            _ => End::Vanished,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Session(ending) => return ending.fmt(f),
            End::Vanished => "the client vanished",
            End::TlsFailed => "TLS failed",
            End::Damaged => "a damaged message",
            End::Dropped => "dropped by the service",
        })
    }
}

impl Tally {
    pub fn new(peer: IpAddr) -> Self {
        Self {
            number: SESSIONS.fetch_add(1, Ordering::Relaxed) + 1,
            peer,
            user: None,
            messages: 0,
            sent: 0,
            octets: 0,
            deleted: 0,
            end: End::Dropped,
        }
    }

    pub fn logged_in(&mut self, user: &Address, messages: u64) {
        self.user = Some(user.clone());
        self.messages = messages;
    }

    /// A message went out, whole or, for TOP, in part; `octets` as they were sent.
    pub fn sent(&mut self, octets: usize) {
        self.sent += 1;
        self.octets += octets as u64;
    }

    /// The deletions are durable.
    pub fn deleted(&mut self, messages: usize) {
        self.deleted += messages as u64;
    }

    pub fn end(&mut self, end: End) {
        self.end = end;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, peer, user, messages, sent, octets, deleted, end } = self;
        match user {
            None => write!(f, "session {number}: {peer} ended without a login: {end}"),
            Some(user) => write!(
                f,
                "session {number}: {user} from {peer} ended: {end}; messages sent {sent}, octets sent {octets}, \
                 deleted {deleted}, left {}",
                messages.saturating_sub(*deleted)
            ),
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        log::info!("{self}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_tells_the_reason_and_the_totals() {
        let mut tally = Tally::new([192, 0, 2, 1].into());
        let number = tally.number;
        tally.end(End::of(&io::ErrorKind::ConnectionReset.into(), true));
        assert_eq!(
            tally.to_string(),
            format!("session {number}: 192.0.2.1 ended without a login: TLS failed")
        );
        tally.logged_in(&"ann@example.com".parse().unwrap(), 5);
        tally.sent(1200);
        tally.sent(34);
        tally.deleted(2);
        tally.end(End::Session(Ending::Quit));
        let line = "ann@example.com from 192.0.2.1 ended: QUIT; messages sent 2, octets sent 1234, deleted 2, left 3";
        assert_eq!(tally.to_string(), format!("session {number}: {line}"));
    }

    #[test]
    fn an_error_tells_how_the_session_ended() {
        for (kind, in_handshake, end) in [
            (io::ErrorKind::UnexpectedEof, false, End::Vanished),
            (io::ErrorKind::BrokenPipe, false, End::Vanished),
            (io::ErrorKind::TimedOut, false, End::Session(Ending::TimedOut)),
            (io::ErrorKind::TimedOut, true, End::Session(Ending::TimedOut)),
            (io::ErrorKind::InvalidData, false, End::Damaged),
            (io::ErrorKind::InvalidData, true, End::TlsFailed),
            (io::ErrorKind::UnexpectedEof, true, End::TlsFailed),
        ] {
            assert_eq!(End::of(&kind.into(), in_handshake), end, "{kind:?}");
        }
    }
}
