//! Drives an SMTP or LMTP session: does what it asks for, on a connection and on the store.

use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::Timer;
use smol::future::FutureExt;

use super::Service;
use super::connection::Connection;
use super::crowd::Stranger;
use super::tally::{End, Receiving, Tally};
use super::tls::Protocol;
use crate::envelope::{Envelope, ForwardPath};
use crate::intake::{self, Scope, Spooling};
use crate::smtp::{Dialect, Ending, Event, Next, Policy, Session, TlsState};
use crate::store::Fault;
use crate::verdict::{Delivery, Recipient};
use crate::wire::{Receiver, Rejection, Text};

/// The least rate of a message, once `idletimeout` has passed since the greeting or the last stored message.
const LEAST_OCTETS_PER_SECOND: u64 = 1024;
/// Refused recipients that get a line in the log, per session; the others only count.
const REFUSED_LOGGED_MAX: u64 = 20;

/// Serves one client to the end, and notes in the tally how the session ended. When the service ends, the session ends
/// after the message under way. `stranger` is the client while it sends no message, with its address; `None` for a
/// trusted client.
pub async fn serve(
    service: Arc<Service>,
    connection: Connection,
    stranger: Option<(IpAddr, &Stranger)>,
    tally: &mut Tally<Receiving>,
) {
    if let Err(e) = talk(service, connection, stranger, tally).await {
        tally.broken(&e);
    }
}

async fn talk(
    service: Arc<Service>,
    mut connection: Connection,
    stranger: Option<(IpAddr, &Stranger)>,
    tally: &mut Tally<Receiving>,
) -> io::Result<()> {
    let settings = service.settings();
    let Receiving { dialect, peer, .. } = tally.work;
    let policy = Policy {
        dialect,
        is_trusted: stranger.is_none(),
        hostname: settings.hostname.as_str().to_owned(),
        message_octets_max: settings.maxmessagesize.octets(),
        tls: if dialect == Dialect::Smtp { TlsState::Offered } else { TlsState::NotOffered },
    };
    let mut driver = Driver {
        spooling: Spooling::new(service.mailroot.dir.clone(), tally.about()),
        pace: Pace {
            since: Instant::now(),
            grace: settings.idletimeout.duration(),
            octets: 0,
            octets_max: policy.message_octets_max,
        },
        service,
        stranger,
        hostname: settings.hostname.as_str(),
        tally,
    };
    let mut session = Session::new(policy, peer);
    let mut next = session.handle(Event::Connected, &mut connection.out);
    let ending = loop {
        match driver.run(&mut session, next, &mut connection).await? {
            Pause::ForTls => {}
            Pause::Over(ending) => break ending,
        }
        let secured = connection.start_tls(&driver.service, Protocol::Smtp).await;
        connection = secured.inspect_err(|e| driver.tally.tls_failed(e))?;
        next = session.handle(Event::Secured, &mut connection.out);
    };
    driver.tally.end(End::Smtp(ending));
    match ending {
        Ending::Quit => connection.hang_up().await,
        _ => connection.dismiss().await,
    }
}

/// Why the session does not go on over this connection as it is.
enum Pause {
    ForTls,
    Over(Ending),
}

struct Driver<'a> {
    service: Arc<Service>,
    stranger: Option<(IpAddr, &'a Stranger)>,
    hostname: &'a str,
    spooling: Spooling,
    pace: Pace,
    tally: &'a mut Tally<Receiving>,
}

impl Driver<'_> {
    async fn run(
        &mut self,
        session: &mut Session,
        mut next: Next,
        connection: &mut Connection,
    ) -> io::Result<Pause> {
        loop {
            connection.set_deadline(Some(self.pace.deadline()));
            next = match self.carry_out(session, next, connection).await {
                Ok(Continue(next)) => next,
                Ok(Break(pause)) => return Ok(pause),
                Err(e) if e.kind() == io::ErrorKind::TimedOut && connection.is_sent() => {
                    session.handle(Event::TimedOut, &mut connection.out)
                }
                Err(e) => return Err(e),
            };
            self.tally.work.counts = session.counts();
        }
    }

    async fn carry_out(
        &mut self,
        session: &mut Session,
        next: Next,
        connection: &mut Connection,
    ) -> io::Result<ControlFlow<Pause, Next>> {
        let event = match next {
            Next::ReadLine { octets_max } => {
                return self.read_line(session, connection, octets_max).await.map(Continue);
            }
            Next::Recipient { path, octets } => self.recipient(connection, &path, octets).await?,
            Next::ReadData(receiver) => Event::Data(self.read_text(connection, receiver, None).await?),
            Next::ReadChunk { receiver, octets } => {
                Event::Chunk(self.read_text(connection, receiver, Some(octets)).await?)
            }
            Next::SkipChunk { octets } => {
                self.skip(connection, octets).await?;
                Event::ChunkSkipped
            }
            Next::Deliver { envelope, text } => self.deliver(&envelope, text).await,
            Next::StartTls => return Ok(Break(Pause::ForTls)),
            Next::Close(ending) => return Ok(Break(Pause::Over(ending))),
        };
        Ok(Continue(session.handle(event, &mut connection.out)))
    }

    /// Waits for the client's next line or, between messages, for the end of the service.
    async fn read_line(
        &mut self,
        session: &mut Session,
        connection: &mut Connection,
        octets_max: usize,
    ) -> io::Result<Next> {
        let is_idle = session.is_between_messages();
        if is_idle {
            // RSET drops a message that came in chunks.
            self.spooling.clear();
            self.stranger.inspect(|(_, stranger)| stranger.rejoin_crowd());
        }
        let line = connection.line(octets_max, |line, out| session.handle(Event::Line(line), out));
        let ending = async {
            if !is_idle {
                return std::future::pending().await;
            }
            self.service.ending.begun().await;
            None
        };
        let outcome = async { Some(line.await) }.or(ending).await;
        outcome.unwrap_or_else(|| Ok(session.handle(Event::ShuttingDown, &mut connection.out)))
    }

    async fn recipient(
        &self,
        connection: &mut Connection,
        path: &ForwardPath,
        octets: u64,
    ) -> io::Result<Event<'static>> {
        let verdict = match intake::recipient(&self.service.store, path, octets) {
            Ok(verdict) => verdict,
            Err(fault) => return Ok(self.unavailable(&fault)),
        };
        match verdict {
            Recipient::Accepted => {}
            Recipient::NotLocal => self.note_refused(path, "its domain is not served here"),
            Recipient::NoSuchMailbox => self.note_refused(path, "no such mailbox"),
            Recipient::OverQuota => self.note_refused(path, "over quota"),
        }
        if let Some((peer, _)) = self.stranger
            && verdict.is_wrong()
        {
            let wait = self.service.harvest.wrong(peer, Instant::now());
            if !wait.is_zero() {
                // A client that pipelines gets the replies that it need not wait for.
                connection.flush().await?;
                Timer::after(wait).await;
            }
        }
        Ok(Event::Recipient(verdict))
    }

    fn note_refused(&self, path: &ForwardPath, why: &str) {
        let Tally { work, .. } = &*self.tally;
        if work.counts.recipients_refused < REFUSED_LOGGED_MAX {
            log::info!("{}recipient <{path}> refused: {why}, from {}", self.tally.about(), work.peer());
        }
    }

    async fn deliver(&mut self, envelope: &Envelope, text: Text) -> Event<'static> {
        let text = match self.spooling.finish(text).await {
            Ok(text) => text,
            Err(Rejection::DiskFull) => {
                return Event::Delivered(vec![Delivery::DiskFull; envelope.recipients.len()]);
            }
            // Logged where it happened.
            Err(_) => return Event::Unavailable,
        };
        let (store, about) = (&self.service.store, self.tally.about());
        match intake::deliver(store, envelope, text, self.hostname, Scope::Each, about).await {
            Ok(verdicts) => {
                if verdicts.contains(&Delivery::Stored) {
                    self.pace.begin_again();
                }
                Event::Delivered(verdicts)
            }
            Err(fault) => self.unavailable(&fault),
        }
    }

    /// Reads a chunk of this many octets, or with `None` a text to its end.
    async fn read_text(
        &mut self,
        connection: &mut Connection,
        mut receiver: Receiver,
        octets: Option<u64>,
    ) -> io::Result<Receiver> {
        self.stranger.inspect(|(_, stranger)| {
            stranger.leave_crowd();
        });
        let mut left = octets.unwrap_or(u64::MAX);
        let mut has_ended = false;
        while left > 0 && !has_ended {
            let taken = self.pace.receive(connection, left, |given| {
                let end = receiver.push(given);
                has_ended = end.is_some();
                end.unwrap_or(given.len())
            });
            let taken = taken.await?;
            left -= taken;
            self.tally.work.octets += taken;
            self.spooling.relieve(&mut receiver).await;
        }
        Ok(receiver)
    }

    /// Reads a chunk that nobody wants, at the same pace.
    async fn skip(&mut self, connection: &mut Connection, octets: u64) -> io::Result<()> {
        let mut left = octets;
        while left > 0 {
            left -= self.pace.receive(connection, left, <[u8]>::len).await?;
        }
        Ok(())
    }

    fn unavailable(&self, fault: &Fault) -> Event<'static> {
        log::error!("{}{fault}", self.tally.about());
        Event::Unavailable
    }
}

/// Keeps a slow client from holding a place for ever: sets the deadline for its next message.
struct Pace {
    /// The greeting, or the answer to the last stored message.
    since: Instant,
    grace: Duration,
    /// Octets of messages received since.
    octets: u64,
    /// More octets than one message may have earn no more time.
    octets_max: u64,
}

impl Pace {
    fn begin_again(&mut self) {
        (self.since, self.octets) = (Instant::now(), 0);
    }

    /// Waits for octets of a message and gives `take` up to `octets_max` of them; it returns how many it used. They
    /// move the deadline. Returns their number.
    async fn receive(
        &mut self,
        connection: &mut Connection,
        octets_max: u64,
        take: impl FnOnce(&[u8]) -> usize,
    ) -> io::Result<u64> {
        let octets_max = usize::try_from(octets_max).unwrap_or(usize::MAX);
        let mut taken = 0;
        let received = connection.octets(|given| {
            let used = take(&given[..given.len().min(octets_max)]);
            taken = used as u64;
            used
        });
        received.await?;
        self.octets += taken;
        connection.set_deadline(Some(self.deadline()));
        Ok(taken)
    }

    fn deadline(&self) -> Instant {
        let octets = self.octets.min(self.octets_max);
        self.since + self.grace + Duration::from_secs(octets / LEAST_OCTETS_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_end_earns_no_more_time_than_the_largest_one() {
        let (since, grace) = (Instant::now(), Duration::from_secs(10));
        let mut pace = Pace { since, grace, octets: 0, octets_max: 100 * LEAST_OCTETS_PER_SECOND };
        for (octets, seconds) in [(0, 10), (50, 60), (100, 110), (100_000, 110)] {
            pace.octets = octets * LEAST_OCTETS_PER_SECOND;
            assert_eq!(pace.deadline(), since + Duration::from_secs(seconds), "{octets} KiB");
        }
        pace.begin_again();
        assert!(pace.deadline() >= since + grace && pace.octets == 0);
    }
}
