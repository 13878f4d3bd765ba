//! One connection to a server, under TLS.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use futures_rustls::rustls::pki_types::ServerName;
use futures_rustls::rustls::{self, ClientConfig};
use smol::Timer;
use smol::future::{FutureExt as _, poll_once};
use smol::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use smol::net::TcpStream;

use super::message::{Entry, Outcome, Request, Response, decode, encode, frame_octets};
use super::server::{Security, Server};

/// How long connecting and the TLS handshake may take.
const OPENING_MAX: Duration = Duration::from_secs(3);
/// Entries accepted from one search. A server that sends more ignores the limit in the request.
const ENTRIES_MAX: usize = 1000;

/// A question that got no answer. `why` is a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub why: String,
    /// True if the question may have reached the server, and so may have changed something.
    pub may_be_done: bool,
}

impl Failure {
    pub fn before_asking(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), may_be_done: false }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// A server's answer.
#[derive(Debug)]
pub struct Answer {
    /// What a search found.
    pub entries: Vec<Entry>,
    pub outcome: Outcome,
}

/// A connection that takes one question at a time.
pub struct Connection {
    dialogue: Dialogue<TlsStream<TcpStream>>,
    pub server: Server,
}

impl Connection {
    /// Connects, starts TLS and verifies the certificate. An error is a sentence.
    pub async fn open(server: &Server, tls: &Arc<ClientConfig>) -> Result<Self, String> {
        let late = async {
            Timer::after(OPENING_MAX).await;
            Err(io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time"))
        };
        let opened = async { open(server, tls).await }.or(late).await;
        match opened {
            Ok(stream) => Ok(Self { dialogue: Dialogue::new(stream), server: server.clone() }),
            Err(error) => Err(format!("{server}: {error}")),
        }
    }

    pub async fn ask(&mut self, request: &Request<'_>) -> Result<Answer, Failure> {
        self.dialogue
            .ask(request)
            .await
            .map_err(|error| Failure { why: format!("{}: {error}", self.server), may_be_done: true })
    }

    /// True if the connection can be used again. The server owes us nothing now, so anything readable means that the
    /// connection is ending.
    pub async fn is_alive(&mut self) -> bool {
        let mut octet = [0];
        self.dialogue.received.is_empty() && poll_once(self.dialogue.stream.read(&mut octet)).await.is_none()
    }
}

async fn open(server: &Server, tls: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(server.host.clone()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
    stream.set_nodelay(true)?;
    if server.security == Security::StartTls {
        let mut dialogue = Dialogue::new(stream);
        let outcome = dialogue.ask(&Request::StartTls).await?.outcome;
        if !outcome.is_success() {
            return Err(io::Error::other(format!("it refused StartTLS: {outcome}")));
        }
        // Cleartext must not be taken for an answer under TLS.
        if !dialogue.received.is_empty() {
            return Err(io::Error::other("it sent something between StartTLS and the handshake"));
        }
        stream = dialogue.stream;
    }
    TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(told)
}

/// Explains a refused certificate in words that tell the administrator what to do.
fn told(error: io::Error) -> io::Error {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let Some(rustls::Error::InvalidCertificate(why)) = inner else { return error };
    io::Error::other(match why {
        Expired | ExpiredContext { .. } => "its certificate has expired",
        NotValidYet | NotValidYetContext { .. } => {
            "its certificate is not valid yet: check the clocks of both machines"
        }
        NotValidForName | NotValidForNameContext { .. } => {
            "its certificate is not for this name: set adserver to the name in the certificate"
        }
        UnknownIssuer => {
            "its certificate comes from an untrusted authority: set adca to the file of the right one"
        }
        _ => return error,
    })
}

/// Questions and answers on a stream.
struct Dialogue<S> {
    stream: S,
    received: Vec<u8>,
    last_id: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Dialogue<S> {
    fn new(stream: S) -> Self {
        Self { stream, received: Vec::new(), last_id: 0 }
    }

    async fn ask(&mut self, request: &Request<'_>) -> io::Result<Answer> {
        // Each id is used once; the connection ends long before 2^31 of them (RFC 4511 section 4.1.1.1).
        self.last_id += 1;
        self.stream.write_all(&encode(self.last_id, request)).await?;
        self.stream.flush().await?;
        let mut entries = Vec::new();
        loop {
            match self.response().await? {
                Response::Entry(entry) if entries.len() < ENTRIES_MAX => entries.push(entry),
                Response::Entry(_) => {
                    return Err(io::Error::other("it sent more entries than the request allows"));
                }
                Response::Reference => {}
                Response::Done(outcome) => return Ok(Answer { entries, outcome }),
            }
        }
    }

    async fn response(&mut self) -> io::Result<Response> {
        let malformed = |_| io::Error::other("it sent something that is not LDAP");
        loop {
            if let Some(octets) = frame_octets(&self.received).map_err(malformed)?
                && octets <= self.received.len()
            {
                let (id, response) = decode(&self.received[..octets]).map_err(malformed)?;
                self.received.drain(..octets);
                return match response {
                    _ if id == self.last_id => Ok(response),
                    Response::Done(outcome) if id == 0 => {
                        Err(io::Error::other(format!("it closed the connection: {outcome}")))
                    }
                    _ => Err(io::Error::other("it answered a question that was not asked")),
                };
            }
            let mut octets = [0; 8192];
            let count = self.stream.read(&mut octets).await?;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
            }
            self.received.extend_from_slice(&octets[..count]);
        }
    }
}
