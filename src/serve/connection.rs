//! A connection: lines and octets in, replies and texts out.
//!
//! - Every wait on the client has a limit, the last one too: the idle timeout, the deadline of the login, or
//!   [`FAREWELL_MAX`].
//! - Nothing is awaited from the client while the server still holds octets for it. Under TLS that takes a flush:
//!   `write` reports octets as written while their ciphertext waits in the TLS layer for the socket.
//! - A connection that is dropped with octets unsent is reset (see [`super::socket`]), so that half a message never
//!   looks like a whole one.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use async_io::Timer;
use smol::future::FutureExt;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroize;

use super::Service;
use super::slots::Buffers;
use super::stream::Stream;
use super::tls::{HANDSHAKE_MAX, Protocol};
use crate::wire::{Line, Lines};

/// Replies and short texts are gathered up to this length before they are written, so that pipelined commands
/// share writes.
const GATHERED_OCTETS: usize = 16 << 10;
/// What is read at a time while a message comes in.
const MESSAGE_READ_OCTETS: usize = 64 << 10;
/// What is still read from a client that was told to go: octets left unread would make the kernel send a reset, which
/// can destroy our last words.
const FAREWELL_OCTETS_MAX: usize = 64 << 10;
/// How long a client that is told to go may take to read our last words, and for how long we then read what it still
/// sends.
pub const FAREWELL_MAX: Duration = Duration::from_secs(2);

pub struct Connection {
    stream: Stream,
    lines: Lines,
    /// Replies not yet written.
    pub out: Vec<u8>,
    read: Box<[u8]>,
    patience: Patience,
    idle_max: Duration,
    /// No wait goes past this moment.
    deadline: Option<Instant>,
}

impl Connection {
    pub fn new(stream: Stream, buffers: Buffers, idle_max: Duration) -> Self {
        Self {
            stream,
            lines: Lines::new(),
            out: buffers.out,
            read: buffers.read,
            patience: Patience::new(),
            idle_max,
            deadline: None,
        }
    }

    /// Waits until a whole line is here, or one that is too long, for `use_line` to take: that is called exactly once,
    /// with the line and the buffer for replies. Replies are written before the wait. An error of kind `UnexpectedEof`
    /// is the client hanging up, one of kind `TimedOut` its silence.
    pub async fn line<T>(
        &mut self,
        octets_max: usize,
        use_line: impl FnOnce(Line<'_>, &mut Vec<u8>) -> T,
    ) -> io::Result<T> {
        loop {
            if let Some(line) = self.lines.next(octets_max) {
                let value = use_line(line, &mut self.out);
                if self.out.len() > GATHERED_OCTETS {
                    self.flush().await?;
                }
                return Ok(value);
            }
            self.flush().await?;
            self.read_more().await?;
        }
    }

    /// Feeds what the client sends to `take` until that says how many octets of what it was given it used last;
    /// what it did not use stays for the next line.
    pub async fn octets(&mut self, mut take: impl FnMut(&[u8]) -> Option<usize>) -> io::Result<()> {
        self.flush().await?;
        let mut large = Vec::new();
        loop {
            let rest = self.lines.rest();
            if !rest.is_empty() {
                let (given, used) = (rest.len(), take(rest));
                self.lines.consume(used.unwrap_or(given));
                if used.is_some() {
                    return Ok(());
                }
            }
            large.resize(MESSAGE_READ_OCTETS, 0);
            let wait_max = wait_max(self.idle_max, self.deadline);
            let count = self.patience.bound(wait_max, self.stream.read(&mut large)).await?;
            match &large[..count] {
                [] => return Err(io::ErrorKind::UnexpectedEof.into()),
                octets => match take(octets) {
                    Some(used) => {
                        self.lines.push(&octets[used..]);
                        return Ok(());
                    }
                    None => continue,
                },
            }
        }
    }

    async fn read_more(&mut self) -> io::Result<()> {
        let wait_max = wait_max(self.idle_max, self.deadline);
        let count = self.patience.bound(wait_max, self.stream.read(&mut self.read)).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.lines.push(&self.read[..count]);
        // There may be a password in it, which is wiped there when it has been used, and here now.
        self.read[..count].zeroize();
        Ok(())
    }

    /// Sends the parts after what is waiting to be written: short ones wait too, long ones go out now, without
    /// being copied. To be cancelled only by dropping the connection.
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
            let count = self.patience.bound(wait_max, self.stream.write_vectored(left)).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut left, count);
        }
        self.out.clear();
        Ok(())
    }

    /// Writes what is waiting to be written, until the kernel has it all. May be cancelled, and called again.
    pub async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() && !self.stream.owes() {
            return Ok(());
        }
        self.stream.set_owes(true);
        while !self.out.is_empty() {
            let wait_max = wait_max(self.idle_max, self.deadline);
            match self.patience.bound(wait_max, self.stream.write(&self.out)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => drop(self.out.drain(..count)),
            }
        }
        let wait_max = wait_max(self.idle_max, self.deadline);
        self.patience.bound(wait_max, self.stream.flush()).await?;
        self.stream.set_owes(false);
        Ok(())
    }

    /// Begins TLS, after what is waiting to be written. What the client has sent before the handshake is thrown away:
    /// it may be a stranger's (RFC 2595 section 4, RFC 3207 section 4.2).
    pub async fn start_tls(mut self, service: &Service, protocol: Protocol) -> io::Result<Self> {
        self.flush().await?;
        let Stream::Clear(socket) = self.stream else {
            return Err(io::Error::other("TLS is on already"));
        };
        let wait_max = wait_max(HANDSHAKE_MAX, self.deadline);
        self.stream = self.patience.bound(wait_max, service.accept_tls(socket, protocol)).await?;
        self.lines = Lines::new();
        Ok(self)
    }

    /// The client has to come to an end by then; none: it may go on for as long as it is not idle.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// True if the client has been silent rather than slow to read: everything for it is on its way.
    pub fn is_sent(&self) -> bool {
        self.out.is_empty() && !self.stream.owes()
    }

    /// Closes after the client's own good-bye. What was promised, and TLS's close_notify, go out within the usual
    /// limits.
    pub async fn hang_up(mut self) -> io::Result<()> {
        self.flush().await?;
        let wait_max = wait_max(self.idle_max, self.deadline);
        self.patience.bound(wait_max, self.stream.close()).await?;
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
        // The session is over, however the client takes it.
        let _ = self.patience.bound(FAREWELL_MAX, drain).await;
        Ok(())
    }

    /// Closes on a client that did not ask for it. It has [`FAREWELL_MAX`] to take the last words.
    pub async fn dismiss(mut self) -> io::Result<()> {
        self.deadline = Some(Instant::now() + FAREWELL_MAX);
        self.hang_up().await
    }
}

/// The outcome of `operation`, or `TimedOut` after `wait_max`: for a single wait, which [`Patience`] is not worth.
pub async fn within<T>(wait_max: Duration, operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let too_long = async {
        Timer::after(wait_max).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    operation.or(too_long).await
}

fn wait_max(idle_max: Duration, deadline: Option<Instant>) -> Duration {
    deadline.map_or(idle_max, |deadline| idle_max.min(deadline.saturating_duration_since(Instant::now())))
}

/// Bounds the waits of a connection with one timer. The timer is armed by the first operation that has to wait, and
/// when it fires early it is armed again for what is left: setting it for each operation would wake the reactor several
/// times a session.
struct Patience {
    timer: Timer,
    /// When the timer fires, if it is armed.
    fires: Option<Instant>,
}

impl Patience {
    fn new() -> Self {
        Self { timer: Timer::never(), fires: None }
    }

    /// The outcome of `operation`, or `TimedOut` after `wait_max`.
    async fn bound<T>(
        &mut self,
        wait_max: Duration,
        operation: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let begin = Instant::now();
        let too_long = async {
            // Not reached where the operation is ready at once.
            self.until(begin + wait_max).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        operation.or(too_long).await
    }

    async fn until(&mut self, end: Instant) {
        while Instant::now() < end {
            if self.fires.is_none_or(|fires| end < fires) {
                self.timer.set_at(end);
                self.fires = Some(end);
            }
            (&mut self.timer).await;
            self.fires = None;
        }
    }
}

#[cfg(test)]
mod tests;
