//! The client's end of TLS, for servers with self-signed certificates.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use async_io::Async;
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use futures_rustls::rustls::client::Resumption;
use futures_rustls::rustls::pki_types::ServerName;

use super::any_certificate::client_config;

pub struct Connector(TlsConnector);

impl Connector {
    /// `resumes`: whether later connections resume the session of an earlier one.
    pub fn new(resumes: bool) -> Self {
        let mut config = client_config();
        if !resumes {
            config.resumption = Resumption::disabled();
        }
        Self(TlsConnector::from(Arc::new(config)))
    }

    pub async fn connect(&self, socket: Async<TcpStream>) -> io::Result<TlsStream<Async<TcpStream>>> {
        let name = ServerName::try_from("localhost").expect("it is a name");
        self.0.connect(name, socket).await
    }
}
