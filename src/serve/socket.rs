//! A TCP connection whose client can tell a proper end from a broken one.
//!
//! - `close` sends a FIN. (The `close` of `Async` only flushes, so a client that waits for the end of the connection
//!   after its QUIT would wait until we drop it.)
//! - Dropping a socket that still owes the client octets sends a RST. Otherwise a program that takes the end of the
//!   connection for the end of a message, as curl does, would not notice the loss.

use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::Async;
use rustix::net::sockopt::set_socket_linger;
use smol::io::{AsyncRead, AsyncWrite};

pub struct Socket {
    stream: Async<TcpStream>,
    owes: bool,
    /// The last read got all there was, so the next one waits before it asks the kernel.
    is_drained: bool,
}

impl Socket {
    pub fn new(stream: Async<TcpStream>) -> Self {
        Self { stream, owes: false, is_drained: true }
    }

    /// Wraps a Unix socket. We only read, write and shut down, which are the same system calls as for TCP.
    pub fn of_unix(stream: Async<UnixStream>) -> io::Result<Self> {
        let descriptor = OwnedFd::from(stream.into_inner()?);
        Async::new(TcpStream::from(descriptor)).map(Self::new)
    }

    pub fn stream(&self) -> &Async<TcpStream> {
        &self.stream
    }

    /// Whether nothing of the client's waits in the kernel, neither octets nor its end of the connection.
    pub fn has_nothing_unread(&self) -> bool {
        let outcome = self.stream.get_ref().peek(&mut [0]);
        outcome.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the kernel still lacks part of what was promised to the client.
    pub fn owes(&self) -> bool {
        self.owes
    }

    pub fn set_owes(&mut self, owes: bool) {
        self.owes = owes;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.owes {
            // With a linger time of zero, closing resets the connection (socket(7)). If that fails, a FIN must do.
            let _ = set_socket_linger(self.stream.get_ref(), Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_drained {
            ready!(self.stream.poll_readable(context))?;
        }
        let outcome = Pin::new(&mut self.stream).poll_read(context, out);
        if let Poll::Ready(Ok(count)) = outcome {
            self.is_drained = count < out.len();
        }
        outcome
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.stream.get_ref().shutdown(Shutdown::Write) {
            // The client has closed already.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{Ipv4Addr, TcpListener};

    use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        (Socket::new(Async::new(listener.accept().unwrap().0).unwrap()), peer)
    }

    #[test]
    fn a_closed_socket_tells_the_peer_and_can_still_be_read() {
        let (mut socket, mut peer) = pair();
        smol::block_on(async {
            socket.write_all(b"bye").await.unwrap();
            socket.close().await.unwrap();
            let mut said = String::new();
            assert_eq!(peer.read_to_string(&mut said).unwrap(), 3);
            io::Write::write_all(&mut peer, b"?").unwrap();
            assert_eq!(socket.read(&mut [0; 8]).await.unwrap(), 1);
        });
    }

    #[test]
    fn a_socket_that_still_owes_octets_is_reset() {
        for owes in [false, true] {
            let (mut socket, mut peer) = pair();
            smol::block_on(socket.write_all(b"half a mess")).unwrap();
            socket.set_owes(owes);
            drop(socket);
            let mut said = Vec::new();
            let outcome = peer.read_to_end(&mut said);
            assert_eq!(outcome.map_err(|e| e.kind()).err(), owes.then_some(io::ErrorKind::ConnectionReset));
            assert_eq!(said, b"half a mess");
        }
    }
}
