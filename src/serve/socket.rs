//! A TCP connection whose `close` tells the client that nothing more comes. (That of `Async` only flushes, and a client
//! that waits for the end of the connection after its QUIT would wait until we let go of it.)

use async_io::Async;
use smol::io::{AsyncRead, AsyncWrite};
use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};

pub struct Socket(Async<TcpStream>);

impl Socket {
    pub fn new(stream: Async<TcpStream>) -> Self {
        Self(stream)
    }

    /// A Unix socket. Reading, writing and shutting down are the same system calls as for TCP, and nothing else is asked of it.
    pub fn of_unix(stream: Async<UnixStream>) -> io::Result<Self> {
        let descriptor = OwnedFd::from(stream.into_inner()?);
        Async::new(TcpStream::from(descriptor)).map(Self)
    }

    pub fn stream(&self) -> &Async<TcpStream> {
        &self.0
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(context, out)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.get_ref().shutdown(Shutdown::Write) {
            // The client was faster.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use std::io::Read as _;
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Duration;

    #[test]
    fn a_closed_socket_tells_the_peer_and_can_still_be_read() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut socket = Socket::new(Async::new(listener.accept().unwrap().0).unwrap());
        smol::block_on(async {
            socket.write_all(b"bye").await.unwrap();
            socket.close().await.unwrap();
            let mut said = String::new();
            assert_eq!(peer.read_to_string(&mut said).unwrap(), 3);
            io::Write::write_all(&mut peer, b"?").unwrap();
            assert_eq!(socket.read(&mut [0; 8]).await.unwrap(), 1);
        });
    }
}
