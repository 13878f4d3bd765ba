//! A connection to a server: lines and texts, with a limit on every wait.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_rustls::TlsConnector;
use futures_rustls::rustls::ClientConfig;
use futures_rustls::rustls::pki_types::ServerName;
use smol::Timer;
use smol::future::FutureExt as _;
use smol::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use smol::net::TcpStream;

use super::reply::Text;
use super::server::{Security, Server};

/// How long connecting and the TLS handshake may take.
const OPENING_MAX: Duration = Duration::from_secs(15);
/// Longest line accepted, line end included. RFC 2449 section 4 allows replies of 512 octets.
const LINE_OCTETS_MAX: usize = 4096;
/// Read size.
const READ_OCTETS: usize = 64 << 10;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub struct Connection {
    stream: Box<dyn Stream>,
    /// Octets received; those from `used` on are still to be used.
    received: Vec<u8>,
    used: usize,
}

impl Connection {
    /// Connects, and does the handshake if TLS comes first.
    pub async fn open(server: &Server, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let opened = async {
            let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
            stream.set_nodelay(true)?;
            match server.security {
                Security::Tls => secure(Box::new(stream), server, tls).await,
                Security::Stls | Security::Clear => Ok(Box::new(stream) as Box<dyn Stream>),
            }
        };
        let stream = until(Instant::now() + OPENING_MAX, opened).await?;
        Ok(Self { stream, received: Vec::new(), used: 0 })
    }

    /// Does the handshake after the reply to STLS. Octets already received in clear are an error: they must not pass
    /// for an answer under TLS.
    pub async fn start_tls(self, server: &Server, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        if self.used < self.received.len() {
            return Err(io::Error::other("it sent something between STLS and the handshake"));
        }
        let secured = secure(self.stream, server, tls);
        let stream = until(Instant::now() + OPENING_MAX, secured).await?;
        Ok(Self { stream, received: Vec::new(), used: 0 })
    }

    pub async fn send(&mut self, octets: &[u8], deadline: Instant) -> io::Result<()> {
        let stream = &mut self.stream;
        let sent = async {
            stream.write_all(octets).await?;
            stream.flush().await
        };
        until(deadline, sent).await
    }

    /// A line without its line end.
    pub async fn line(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut looked_at = 0;
        loop {
            let waiting = &self.received[self.used..];
            if let Some(at) = memchr::memchr(b'\n', &waiting[looked_at..]) {
                let line = &waiting[..looked_at + at];
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.used += looked_at + at + 1;
                return Ok(line);
            }
            looked_at = waiting.len();
            if looked_at > LINE_OCTETS_MAX {
                return Err(io::Error::other("it sent an endless line"));
            }
            self.read(deadline).await?;
        }
    }

    /// Passes a text to `sink` up to its end and returns its octets, at most `octets_max`.
    pub async fn text(
        &mut self,
        octets_max: u64,
        deadline: Instant,
        sink: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    ) -> io::Result<u64> {
        let (mut text, mut octets) = (Text::default(), 0);
        loop {
            let mut counted = |piece: &[u8]| {
                octets += piece.len() as u64;
                if octets > octets_max {
                    return Err(io::Error::other("it sent a longer message than it announced"));
                }
                sink(piece)
            };
            if let Some(count) = text.push(&self.received[self.used..], &mut counted)? {
                self.used += count;
                return Ok(octets);
            }
            self.used = self.received.len();
            self.read(deadline).await?;
        }
    }

    /// Waits for more octets.
    async fn read(&mut self, deadline: Instant) -> io::Result<()> {
        self.received.drain(..self.used);
        self.used = 0;
        let begin = self.received.len();
        self.received.resize(begin + READ_OCTETS, 0);
        let read = until(deadline, self.stream.read(&mut self.received[begin..])).await;
        self.received.truncate(begin + read.as_ref().map_or(0, |count| *count));
        match read? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
            _ => Ok(()),
        }
    }
}

async fn secure(
    stream: Box<dyn Stream>,
    server: &Server,
    tls: Option<&Arc<ClientConfig>>,
) -> io::Result<Box<dyn Stream>> {
    let Some(tls) = tls else { return Err(io::Error::other("no certificate authorities to verify it by")) };
    let name = match server.host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(server.host.clone()).map_err(io::Error::other)?,
    };
    Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await?))
}

async fn until<T>(deadline: Instant, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = async {
        Timer::at(deadline).await;
        Err(io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time"))
    };
    work.or(late).await
}
