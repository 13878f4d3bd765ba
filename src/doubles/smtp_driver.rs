//! A driver of SMTP and LMTP sessions that keeps everything in memory. It carries out every [`Next`] as the real driver
//! does.

use std::mem;

use crate::envelope::{Envelope, ForwardPath, Peer};
#[cfg(test)]
use crate::smtp::Counts;
use crate::smtp::{Dialect, Ending, Event, Next, Policy, Session, TlsState};
use crate::verdict::{Delivery, Recipient};
use crate::wire::{Lines, Text};

/// Largest message, in octets.
pub const MESSAGE_OCTETS_MAX: u64 = 200;
/// From this announced size on, the mailbox `small` is over quota.
pub const SMALL_OCTETS: u64 = 100;

/// Takes the place of a step whose contents move on.
const DONE: Next = Next::Close(Ending::Quit);

pub struct Server {
    session: Session,
    lines: Lines,
    next: Next,
    out: Vec<u8>,
    /// Every message handed over, whatever the verdict.
    pub handed_over: Vec<(Envelope, Text)>,
}

impl Server {
    /// A connection whose greeting is ready to be read.
    pub fn connect(dialect: Dialect) -> Self {
        let policy = Policy {
            dialect,
            is_trusted: dialect == Dialect::Lmtp,
            hostname: "mail.example.com".to_owned(),
            message_octets_max: MESSAGE_OCTETS_MAX,
            tls: if dialect == Dialect::Smtp { TlsState::Offered } else { TlsState::NotOffered },
        };
        let peer = Peer::Ip([192, 0, 2, 7].into());
        let mut session = Session::new(policy, peer);
        let mut out = Vec::new();
        let next = session.handle(Event::Connected, &mut out);
        Self { session, lines: Lines::new(), next, out, handed_over: Vec::new() }
    }

    /// Takes octets from the peer and goes as far as they allow.
    pub fn push(&mut self, octets: &[u8]) {
        self.lines.push(octets);
        while let Some(next) = self.step() {
            self.next = next;
        }
    }

    /// Output since the last call.
    pub fn said(&mut self) -> Vec<u8> {
        mem::take(&mut self.out)
    }

    /// Why the session is over, if it is.
    #[cfg(test)]
    pub fn ending(&self) -> Option<Ending> {
        match self.next {
            Next::Close(ending) => Some(ending),
            _ => None,
        }
    }

    #[cfg(test)]
    pub fn counts(&self) -> Counts {
        self.session.counts()
    }

    /// An event that may come at any time.
    #[cfg(test)]
    pub fn interrupt(&mut self, event: Event<'_>) {
        self.next = self.session.handle(event, &mut self.out);
    }

    /// The step after the current one; `None` if that needs more octets or was the last.
    fn step(&mut self) -> Option<Next> {
        let event = match &mut self.next {
            Next::ReadLine { octets_max } => Event::Line(self.lines.next(*octets_max)?),
            Next::ReadData(receiver) => {
                let end = receiver.push(self.lines.rest());
                self.lines.consume(end.unwrap_or(self.lines.rest().len()));
                end?;
                let Next::ReadData(receiver) = mem::replace(&mut self.next, DONE) else { return None };
                Event::Data(receiver)
            }
            Next::ReadChunk { receiver, octets } => {
                let here = self.lines.rest().len().min(usize::try_from(*octets).unwrap_or(usize::MAX));
                receiver.push(&self.lines.rest()[..here]);
                self.lines.consume(here);
                *octets -= here as u64;
                if *octets > 0 {
                    return None;
                }
                let Next::ReadChunk { receiver, .. } = mem::replace(&mut self.next, DONE) else {
                    return None;
                };
                Event::Chunk(receiver)
            }
            Next::SkipChunk { octets } => {
                let here = self.lines.rest().len().min(usize::try_from(*octets).unwrap_or(usize::MAX));
                self.lines.consume(here);
                *octets -= here as u64;
                if *octets > 0 {
                    return None;
                }
                Event::ChunkSkipped
            }
            Next::Recipient { path, octets } => {
                known(path, *octets).map_or(Event::Unavailable, Event::Recipient)
            }
            Next::Deliver { envelope, text } => {
                let verdicts = envelope.recipients.iter().map(stored).collect::<Option<_>>();
                self.handed_over.push((envelope.clone(), text.clone()));
                verdicts.map_or(Event::Unavailable, Event::Delivered)
            }
            // The handshake takes no octets here.
            Next::StartTls => {
                self.lines.clear();
                Event::Secured
            }
            Next::Close(_) => return None,
        };
        Some(self.session.handle(event, &mut self.out))
    }
}

/// The mailboxes of `example.com` are named after what happens to their mail. `None` is a fault.
fn known(path: &ForwardPath, octets: u64) -> Option<Recipient> {
    let ForwardPath::Mailbox(address) = path else { return Some(Recipient::Accepted) };
    if address.domain.as_str() != "example.com" {
        return Some(Recipient::NotLocal);
    }
    Some(match address.local.without_detail().as_str() {
        "ann" | "bob" | "late-quota" | "late-gone" | "late-loop" | "late-disk" | "late-fault" => {
            Recipient::Accepted
        }
        "small" if octets < SMALL_OCTETS => Recipient::Accepted,
        "small" | "full" => Recipient::OverQuota,
        "fault" => return None,
        _ => Recipient::NoSuchMailbox,
    })
}

fn stored(path: &ForwardPath) -> Option<Delivery> {
    let ForwardPath::Mailbox(address) = path else { return Some(Delivery::Stored) };
    Some(match address.local.as_str() {
        "late-quota" => Delivery::OverQuota,
        "late-gone" => Delivery::NoSuchMailbox,
        "late-loop" => Delivery::Loop,
        "late-disk" => Delivery::DiskFull,
        "late-fault" => return None,
        _ => Delivery::Stored,
    })
}
