//! Drives an SMTP or LMTP session: does what it asks for, on a connection and on the store.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::Timer;
use smol::future::FutureExt;

use super::Service;
use super::connection::Connection;
use super::crowd::Stranger;
use super::tls::Protocol;
use crate::envelope::{Envelope, ForwardPath, Peer};
use crate::intake::{self, Scope, Spooling};
use crate::smtp::{Dialect, Event, Next, Policy, Session, Tls};
use crate::verdict::{Delivery, Recipient};
use crate::wire::{Receiver, Refusal, Text};

/// The rate at which a message has to come, once `idletimeout` has gone by since the greeting or the last message.
const LEAST_OCTETS_PER_SECOND: u64 = 1024;

/// Serves one client to its end, which comes between two messages when the service ends. An error is the client's going
/// without a word. `stranger` is what the client at this address counts as while it sends no text; none if
/// it is trusted.
pub async fn serve(
    service: Arc<Service>,
    mut connection: Connection,
    dialect: Dialect,
    peer: Peer,
    stranger: Option<(IpAddr, &Stranger)>,
) -> io::Result<()> {
    let settings = service.settings();
    let policy = Policy {
        dialect,
        is_trusted: stranger.is_none(),
        hostname: settings.hostname.as_str().to_owned(),
        message_octets_max: settings.maxmessagesize.octets(),
        tls: if dialect == Dialect::Smtp { Tls::Offered } else { Tls::NotOffered },
    };
    let mut session = Session::new(policy, peer);
    let mut driver = Driver {
        spooling: Spooling::new(service.mailroot.dir.clone()),
        pace: Pace::new(Instant::now(), settings.idletimeout.duration()),
        service,
        peer,
        stranger,
        hostname: settings.hostname.as_str(),
    };
    let mut next = session.handle(Event::Connected, &mut connection.out);
    loop {
        match driver.run(&mut session, next, &mut connection).await {
            Ok(Ended::ForTls) => {
                connection = connection.start_tls(&driver.service, Protocol::Smtp).await?;
                next = session.handle(Event::Secured, &mut connection.out);
                continue;
            }
            Ok(Ended::Closed) => return connection.hang_up().await,
            Err(e) if e.kind() == io::ErrorKind::TimedOut && connection.is_sent() => {
                session.handle(Event::TimedOut, &mut connection.out);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                session.handle(Event::ShuttingDown, &mut connection.out);
            }
            Err(e) => return Err(e),
        }
        return connection.dismiss().await;
    }
}

/// Why a session does not go on over the connection as it is.
enum Ended {
    ForTls,
    Closed,
}

struct Driver<'a> {
    service: Arc<Service>,
    peer: Peer,
    /// With its address; none where the client is trusted.
    stranger: Option<(IpAddr, &'a Stranger)>,
    hostname: &'a str,
    spooling: Spooling,
    pace: Pace,
}

impl Driver<'_> {
    async fn run(
        &mut self,
        session: &mut Session,
        mut next: Next,
        connection: &mut Connection,
    ) -> io::Result<Ended> {
        loop {
            connection.set_deadline(Some(self.pace.deadline()));
            next = match next {
                Next::ReadLine { octets_max } => self.read_line(session, connection, octets_max).await?,
                Next::Recipient { path, octets } => {
                    let event = self.recipient(&path, octets).await;
                    session.handle(event, &mut connection.out)
                }
                Next::ReadData(receiver) => {
                    let receiver = self.read_text(connection, receiver, None).await?;
                    session.handle(Event::Data(receiver), &mut connection.out)
                }
                Next::ReadChunk { receiver, octets } => {
                    let receiver = self.read_text(connection, receiver, Some(octets)).await?;
                    session.handle(Event::Chunk(receiver), &mut connection.out)
                }
                Next::SkipChunk { octets } => {
                    skip(connection, octets).await?;
                    session.handle(Event::ChunkSkipped, &mut connection.out)
                }
                Next::Deliver { envelope, text } => {
                    let event = self.deliver(&envelope, text).await;
                    session.handle(event, &mut connection.out)
                }
                Next::StartTls => return Ok(Ended::ForTls),
                Next::Close => return Ok(Ended::Closed),
            }
        }
    }

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
            let _ = self.service.ending.recv().await;
            Err(io::ErrorKind::Interrupted.into())
        };
        line.or(ending).await
    }

    async fn recipient(&self, path: &ForwardPath, octets: u64) -> Event<'static> {
        let verdict = match intake::recipient(&self.service.store, path, octets) {
            Ok(verdict) => verdict,
            Err(fault) => return unavailable(fault),
        };
        let refused = |why| match self.peer {
            Peer::Ip(ip) => log::info!("recipient <{path}> refused: {why}, from {ip}"),
            Peer::Local => log::info!("recipient <{path}> refused: {why}, from this machine"),
        };
        match verdict {
            Recipient::Accepted => {}
            Recipient::NotLocal => refused("its domain is not served here"),
            Recipient::NoSuchMailbox => refused("no such mailbox"),
            Recipient::OverQuota => refused("over quota"),
        }
        if let Some((peer, _)) = self.stranger
            && verdict.is_wrong()
        {
            let wait = self.service.harvest.wrong(peer, Instant::now());
            if !wait.is_zero() {
                Timer::after(wait).await;
            }
        }
        Event::Recipient(verdict)
    }

    async fn deliver(&mut self, envelope: &Envelope, text: Text) -> Event<'static> {
        let text = match self.spooling.finish(text).await {
            Ok(text) => text,
            Err(Refusal::DiskFull) => {
                return Event::Delivered(vec![Delivery::DiskFull; envelope.recipients.len()]);
            }
            Err(_) => return Event::Unavailable,
        };
        match intake::deliver(&self.service.store, envelope, text, self.hostname, Scope::Each).await {
            Ok(verdicts) => {
                if verdicts.contains(&Delivery::Stored) {
                    self.pace = Pace::new(Instant::now(), self.pace.grace);
                }
                Event::Delivered(verdicts)
            }
            Err(fault) => unavailable(fault),
        }
    }

    /// Reads a text to its end (`octets` none) or a chunk of it.
    async fn read_text(
        &mut self,
        connection: &mut Connection,
        mut receiver: Receiver,
        octets: Option<u64>,
    ) -> io::Result<Receiver> {
        self.stranger.inspect(|(_, stranger)| {
            stranger.leave_crowd();
        });
        let mut left = octets;
        let mut ended = left == Some(0);
        while !ended {
            connection
                .octets(|given| {
                    let within = left.map_or(given.len(), |left| given.len().min(left as usize));
                    let end = receiver.push(&given[..within]);
                    if let Some(left) = &mut left {
                        *left -= within as u64;
                    }
                    ended = end.is_some() || left == Some(0);
                    let used = end.unwrap_or(within);
                    self.pace.octets += used as u64;
                    Some(used)
                })
                .await?;
            connection.set_deadline(Some(self.pace.deadline()));
            self.spooling.relieve(&mut receiver).await;
        }
        Ok(receiver)
    }
}

/// By when a client has to have brought a message: so that one who dawdles does not keep a place for ever.
struct Pace {
    /// The greeting, or the answer to the last message that was stored.
    since: Instant,
    grace: Duration,
    /// Octets of texts that have come since.
    octets: u64,
}

impl Pace {
    fn new(since: Instant, grace: Duration) -> Self {
        Self { since, grace, octets: 0 }
    }

    fn deadline(&self) -> Instant {
        self.since + self.grace + Duration::from_secs(self.octets / LEAST_OCTETS_PER_SECOND)
    }
}

async fn skip(connection: &mut Connection, octets: u64) -> io::Result<()> {
    let mut left = octets;
    while left > 0 {
        connection
            .octets(|given| {
                let within = given.len().min(left as usize);
                left -= within as u64;
                (left == 0).then_some(within)
            })
            .await?;
    }
    Ok(())
}

fn unavailable(fault: crate::store::Fault) -> Event<'static> {
    log::error!("{fault}");
    Event::Unavailable
}
