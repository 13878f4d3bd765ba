//! Drives an SMTP or LMTP session: does what it asks for, on a connection and on the store.

use super::Service;
use super::connection::Connection;
use super::tls::Protocol;
use crate::envelope::{Envelope, Peer};
use crate::intake::{self, Spooling};
use crate::smtp::{Dialect, Event, Next, Policy, Session, Tls};
use crate::store::Incoming;
use crate::verdict::Delivery;
use crate::wire::{Receiver, Refusal};
use smol::future::FutureExt;
use std::io;
use std::sync::Arc;

/// Serves one client to its end, which comes between two messages when the service ends. An error is the client's going
/// without a word.
pub async fn serve(
    service: Arc<Service>,
    mut connection: Connection,
    dialect: Dialect,
    peer: Peer,
) -> io::Result<()> {
    let settings = service.settings();
    let policy = Policy {
        dialect,
        hostname: settings.hostname.as_str().to_owned(),
        message_octets_max: settings.maxmessagesize.octets(),
        tls: if dialect == Dialect::Smtp { Tls::Offered } else { Tls::NotOffered },
    };
    let mut session = Session::new(policy, peer);
    let mut next = session.handle(Event::Connected, &mut connection.out);
    loop {
        let ended = run(&service, &mut session, next, &mut connection, settings.hostname.as_str()).await;
        match ended {
            Ok(Ended::ForTls) => {
                connection = connection.start_tls(&service, Protocol::Smtp).await?;
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

async fn run(
    service: &Arc<Service>,
    session: &mut Session,
    mut next: Next,
    connection: &mut Connection,
    hostname: &str,
) -> io::Result<Ended> {
    let mut spooling = Spooling::new(service.mailroot.dir.clone());
    loop {
        next = match next {
            Next::ReadLine { octets_max } => {
                let is_idle = session.is_between_messages();
                if is_idle {
                    // RSET drops a message that came in chunks.
                    spooling.clear();
                }
                let line = connection.line(octets_max, |line, out| session.handle(Event::Line(line), out));
                let ending = async {
                    if !is_idle {
                        return std::future::pending().await;
                    }
                    let _ = service.ending.recv().await;
                    Err(io::ErrorKind::Interrupted.into())
                };
                line.or(ending).await?
            }
            Next::Recipient { path, octets } => {
                let event = match intake::recipient(&service.store, &path, octets) {
                    Ok(verdict) => Event::Recipient(verdict),
                    Err(fault) => unavailable(fault),
                };
                session.handle(event, &mut connection.out)
            }
            Next::ReadData(receiver) => {
                let receiver = read_text(connection, receiver, None, &mut spooling).await?;
                session.handle(Event::Data(receiver), &mut connection.out)
            }
            Next::ReadChunk { receiver, octets } => {
                let receiver = read_text(connection, receiver, Some(octets), &mut spooling).await?;
                session.handle(Event::Chunk(receiver), &mut connection.out)
            }
            Next::SkipChunk { octets } => {
                skip(connection, octets).await?;
                session.handle(Event::ChunkSkipped, &mut connection.out)
            }
            Next::Deliver { envelope, text } => {
                let event = deliver(service, &envelope, spooling.finish(text).await, hostname).await;
                session.handle(event, &mut connection.out)
            }
            Next::StartTls => return Ok(Ended::ForTls),
            Next::Close => return Ok(Ended::Closed),
        }
    }
}

async fn deliver(
    service: &Service,
    envelope: &Envelope,
    text: Result<Incoming, Refusal>,
    hostname: &str,
) -> Event<'static> {
    let text = match text {
        Ok(text) => text,
        Err(Refusal::DiskFull) => {
            return Event::Delivered(vec![Delivery::DiskFull; envelope.recipients.len()]);
        }
        Err(_) => return Event::Unavailable,
    };
    match intake::deliver(&service.store, envelope, text, hostname).await {
        Ok(verdicts) => Event::Delivered(verdicts),
        Err(fault) => unavailable(fault),
    }
}

/// Reads a text to its end (`octets` none) or a chunk of it.
async fn read_text(
    connection: &mut Connection,
    mut receiver: Receiver,
    octets: Option<u64>,
    spooling: &mut Spooling,
) -> io::Result<Receiver> {
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
                Some(end.unwrap_or(within))
            })
            .await?;
        spooling.relieve(&mut receiver).await;
    }
    Ok(receiver)
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
