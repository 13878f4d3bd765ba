//! A client's byte stream: in clear or under TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_rustls::rustls::ProtocolVersion;
use futures_rustls::server::TlsStream;
use smol::io::{AsyncRead, AsyncWrite};

use super::socket::Socket;

pub enum Stream {
    Clear(Socket),
    Tls {
        stream: Box<TlsStream<Socket>>,
        /// Channel binding `tls-server-end-point` (RFC 5929 section 4.1) of the certificate shown.
        endpoint: Vec<u8>,
    },
}

/// The label of the exporter of RFC 9266 (channel binding `tls-exporter`).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

impl Stream {
    /// Channel binding `tls-exporter`. `None` in clear, and below TLS 1.3, where it might not be unique (RFC 9266
    /// section 4.2).
    pub fn exporter(&self) -> Option<[u8; 32]> {
        let Stream::Tls { stream, .. } = self else { return None };
        let connection = stream.get_ref().1;
        if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        connection.export_keying_material([0; 32], EXPORTER_LABEL, Some(b"")).ok()
    }

    /// `TLSv1.3` or `TLSv1.2`, for the log; `None` in clear.
    pub fn tls_version(&self) -> Option<&'static str> {
        let Stream::Tls { stream, .. } = self else { return None };
        match stream.get_ref().1.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Some("TLSv1.3"),
            _ => Some("TLSv1.2"),
        }
    }

    pub fn owes(&self) -> bool {
        match self {
            Stream::Clear(socket) => socket.owes(),
            Stream::Tls { stream, .. } => stream.get_ref().0.owes(),
        }
    }

    pub fn set_owes(&mut self, owes: bool) {
        match self {
            Stream::Clear(socket) => socket.set_owes(owes),
            Stream::Tls { stream, .. } => stream.get_mut().0.set_owes(owes),
        }
    }
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Clear($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Stream::Tls { stream: $stream, .. } => {
                let $stream = Pin::new($stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_read(context, out))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(context, octets))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(context, parts))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(context))
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_close(context))
    }
}
