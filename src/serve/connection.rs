//! A connection: lines and octets in, replies and texts out.
//!
//! - Every wait on the client has a limit, even the last: the idle timeout, the login deadline, or [`FAREWELL_MAX`].
//! - We read from the client only when it has been sent everything we owe it. Under TLS that takes a flush: `write`
//!   counts octets as written while their ciphertext still waits in the TLS layer for the socket.
//! - Dropping a connection with octets unsent resets it (see [`super::socket`]), so half a message never looks like a
//!   whole one.

mod deadline;

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use smol::future::{FutureExt, yield_now};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroize;

use super::Service;
use super::slots::Buffers;
use super::stream::Stream;
use super::tls::{HANDSHAKE_MAX, Protocol};
use crate::wire::{Line, Lines};
use deadline::Deadline;

/// Replies and short texts are gathered up to this length, so that pipelined commands share writes.
const GATHERED_OCTETS: usize = 16 << 10;
/// Read size while a message comes in that is longer than what commands are read with.
const MESSAGE_READ_OCTETS: usize = 64 << 10;
/// What one connection reads and writes before the others have their turn.
const TURN_OCTETS: usize = 64 << 10;
/// What a read or write costs besides, in octets.
const CALL_OCTETS: usize = 4 << 10;
/// What a line costs.
const LINE_OCTETS: usize = 1 << 10;
/// Octets we still read from a client we have dismissed. Unread ones would make the kernel send a reset, which can
/// destroy our last words.
const FAREWELL_OCTETS_MAX: usize = 64 << 10;
/// How long a dismissed client may take to read our last words, and for how long we then read what it still sends.
pub const FAREWELL_MAX: Duration = Duration::from_secs(2);

pub struct Connection {
    stream: Stream,
    lines: Lines,
    /// Replies not yet written.
    pub out: Vec<u8>,
    read: Box<[u8]>,
    /// Takes the place of `read` while a message comes in that is longer; else empty.
    large: Vec<u8>,
    idle_max: Duration,
    /// No wait goes past this.
    deadline: Option<Instant>,
    turn: Turn,
}

impl Connection {
    pub fn new(stream: Stream, buffers: Buffers, idle_max: Duration) -> Self {
        Self {
            stream,
            lines: Lines::new(),
            out: buffers.out,
            read: buffers.read,
            large: Vec::new(),
            idle_max,
            deadline: None,
            turn: Turn::default(),
        }
    }

    /// Writes the waiting replies, waits for a line, whole or too long, and calls `use_line` once with it and the
    /// buffer for replies. Fails with `UnexpectedEof` if the client hangs up, with `TimedOut` if no whole line has come
    /// when the idle timeout is over: single octets, however often they come, are no sign of life.
    pub async fn line<T>(
        &mut self,
        octets_max: usize,
        use_line: impl FnOnce(Line<'_>, &mut Vec<u8>) -> T,
    ) -> io::Result<T> {
        let mut idle_until = None;
        loop {
            // Not only reads and writes: a client can send a thousand commands at once.
            self.turn.give_way(LINE_OCTETS).await;
            if let Some(line) = self.lines.next(octets_max) {
                let value = use_line(line, &mut self.out);
                if self.out.len() > GATHERED_OCTETS {
                    self.flush().await?;
                }
                return Ok(value);
            }
            self.flush().await?;
            // Not before the flush: a client that is slow to read is not idle.
            let idle_until = *idle_until.get_or_insert_with(|| Instant::now() + self.idle_max);
            self.read_more(idle_until).await?;
        }
    }

    /// Waits for octets of a message and gives them to `take`, which returns how many it used. The rest belong to the
    /// next line.
    pub async fn octets(&mut self, take: impl FnOnce(&[u8]) -> usize) -> io::Result<()> {
        self.flush().await?;
        let rest = self.lines.rest();
        if !rest.is_empty() {
            let used = take(rest);
            self.lines.consume(used);
            return Ok(());
        }
        let wait_max = wait_max_of_read(self.idle_max, self.deadline)?;
        let buffer = if self.large.is_empty() { &mut self.read[..] } else { &mut self.large[..] };
        let count = within(wait_max, self.stream.read(buffer)).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let used = take(&buffer[..count]);
        self.lines.push(&buffer[used..count]);
        if count == self.read.len() {
            self.large.resize(MESSAGE_READ_OCTETS, 0);
        }
        self.turn.give_way(count + CALL_OCTETS).await;
        Ok(())
    }

    async fn read_more(&mut self, idle_until: Instant) -> io::Result<()> {
        self.large = Vec::new();
        let until = self.deadline.map_or(idle_until, |deadline| deadline.min(idle_until));
        let wait_max = wait_max_of_read(self.idle_max, Some(until))?;
        let count = within(wait_max, self.stream.read(&mut self.read)).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.lines.push(&self.read[..count]);
        // It may contain a password. `lines` wipes its copy after use; this one goes now.
        self.read[..count].zeroize();
        self.turn.give_way(count + CALL_OCTETS).await;
        Ok(())
    }

    /// Sends the parts after the waiting replies: short ones wait too, long ones go out now, uncopied. Cancel it only
    /// by dropping the connection.
    pub async fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.stream.set_owes(true);
        let octets: usize = parts.iter().map(|part| part.len()).sum();
        if self.out.len() + octets <= GATHERED_OCTETS {
            parts.iter().for_each(|part| self.out.extend_from_slice(part));
            return Ok(());
        }
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(parts.len() + 1);
        slices.push(IoSlice::new(&self.out));
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let wait_max = wait_max(self.idle_max, self.deadline);
            let count = within(wait_max, self.stream.write_vectored(left)).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut left, count);
            self.turn.give_way(count + CALL_OCTETS).await;
        }
        self.out.clear();
        Ok(())
    }

    /// Hands everything that waits to the kernel. May be cancelled and called again.
    pub async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() && !self.stream.owes() {
            return Ok(());
        }
        self.stream.set_owes(true);
        while !self.out.is_empty() {
            let wait_max = wait_max(self.idle_max, self.deadline);
            match within(wait_max, self.stream.write(&self.out)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => {
                    self.out.drain(..count);
                    self.turn.give_way(count + CALL_OCTETS).await;
                }
            }
        }
        let wait_max = wait_max(self.idle_max, self.deadline);
        within(wait_max, self.stream.flush()).await?;
        self.stream.set_owes(false);
        Ok(())
    }

    /// Flushes and begins TLS. Discards what the client sent before the handshake: it may be an attacker's (RFC 2595
    /// section 4, RFC 3207 section 4.2).
    pub async fn start_tls(mut self, service: &Service, protocol: Protocol) -> io::Result<Self> {
        self.flush().await?;
        let Stream::Clear(socket) = self.stream else {
            return Err(io::Error::other("TLS is on already"));
        };
        let wait_max = wait_max(HANDSHAKE_MAX, self.deadline);
        // Boxed: else the room for a handshake would be part of every session.
        self.stream = within(wait_max, Box::pin(service.accept_tls(socket, protocol))).await?;
        self.lines = Lines::new();
        Ok(self)
    }

    /// Sets when the client must be done; `None` = it may go on while it is not idle.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether the kernel has everything meant for the client. A client that timed out was then silent, not slow to
    /// read.
    pub fn is_sent(&self) -> bool {
        self.out.is_empty() && !self.stream.owes()
    }

    /// Closes after the client's QUIT. Waiting replies and TLS's close_notify go out within the usual limits.
    pub async fn hang_up(mut self) -> io::Result<()> {
        self.flush().await?;
        match &self.stream {
            // Nothing can come after QUIT, so there is nothing to wait for.
            Stream::Clear(socket) if socket.has_nothing_unread() => Ok(()),
            _ => self.linger().await,
        }
    }

    async fn linger(mut self) -> io::Result<()> {
        let wait_max = wait_max(self.idle_max, self.deadline);
        within(wait_max, self.stream.close()).await?;
        let drain = async {
            let mut drained = 0;
            while drained < FAREWELL_OCTETS_MAX {
                match self.stream.read(&mut self.read).await? {
                    0 => break,
                    count => drained += count,
                }
            }
            Ok(())
        };
        // The session is over whether or not the client closes too.
        let _ = within(FAREWELL_MAX, drain).await;
        Ok(())
    }

    /// Closes on a client that did not ask for it, which has [`FAREWELL_MAX`] to read the last words.
    pub async fn dismiss(mut self) -> io::Result<()> {
        self.deadline = Some(Instant::now() + FAREWELL_MAX);
        self.flush().await?;
        self.linger().await
    }
}

/// What a connection has cost since it last let others have their turn.
#[derive(Default)]
struct Turn {
    octets: usize,
}

impl Turn {
    /// A client that never makes us wait would otherwise have this thread to itself.
    async fn give_way(&mut self, octets: usize) {
        self.octets += octets;
        if self.octets >= TURN_OCTETS {
            self.octets = 0;
            yield_now().await;
        }
    }
}

/// The outcome of `operation`, or `TimedOut` after `wait_max`.
pub async fn within<T>(wait_max: Duration, operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let too_long = async {
        // Not reached if the operation is ready at once.
        Deadline::at(Instant::now() + wait_max).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    operation.or(too_long).await
}

/// The same for a read, which must not begin after the deadline: to a client that always has something to say it is
/// ready at once.
fn wait_max_of_read(idle_max: Duration, deadline: Option<Instant>) -> io::Result<Duration> {
    let wait_max = wait_max(idle_max, deadline);
    if wait_max.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(wait_max) }
}

fn wait_max(idle_max: Duration, deadline: Option<Instant>) -> Duration {
    deadline.map_or(idle_max, |deadline| idle_max.min(deadline.saturating_duration_since(Instant::now())))
}

#[cfg(test)]
mod tests;
