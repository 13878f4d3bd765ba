//! The client's end of TLS, for a server with a new self-signed certificate.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use futures_rustls::rustls::pki_types::ServerName;
use futures_rustls::rustls::{ClientConnection, StreamOwned};

use crate::any_certificate::client_config;

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Does the handshake.
pub fn begin(mut socket: TcpStream) -> io::Result<TlsStream> {
    let name = ServerName::try_from("mail.example.com").expect("a name");
    let mut connection = ClientConnection::new(Arc::new(client_config()), name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(connection, socket))
}
