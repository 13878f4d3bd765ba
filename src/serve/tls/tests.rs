//! Handshakes within this process: resumption, ALPN, and certificate files that hang.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use futures_rustls::rustls::version::{TLS12, TLS13};
use futures_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use smol::Async;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::Service;
use super::*;
use crate::tests::bench::Bench;

const NAME: &str = "mail.example.com";

/// A server's TLS with a new certificate, and the certificate.
pub fn tls() -> (Tls, CertificateDer<'static>) {
    let (shown, certificate) = shown();
    (
        Tls { shown: Mutex::new(Arc::new(shown)), files: Mutex::default(), looking: Arc::default() },
        certificate,
    )
}

fn shown() -> (Shown, CertificateDer<'static>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap();
    let certificate = parameters.self_signed(&key).unwrap().der().clone();
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let pair = CertifiedKey::from_der(vec![certificate.clone()], private, &certificate::provider()).unwrap();
    (Shown::new(pair).unwrap(), certificate)
}

/// A client that trusts these certificates.
pub fn client(
    version: &'static SupportedProtocolVersion,
    trusted: &[&CertificateDer<'static>],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    trusted.iter().for_each(|certificate| roots.add((*certificate).clone()).unwrap());
    ClientConfig::builder_with_provider(certificate::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Both ends of a TCP connection.
pub fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, client)
}

/// Does a handshake: both ends.
pub async fn connect(
    tls: &Tls,
    protocol: Protocol,
    config: &Arc<ClientConfig>,
    (server, client): (TcpStream, TcpStream),
) -> io::Result<(Stream, TlsStream<Async<TcpStream>>)> {
    let accepting = tls.accept(Socket::new(Async::new(server).unwrap()), protocol);
    let connector = TlsConnector::from(config.clone());
    let connecting = connector.connect(ServerName::try_from(NAME).unwrap(), Async::new(client).unwrap());
    let (server, client) = smol::future::zip(accepting, connecting).await;
    Ok((server?, client?))
}

/// The kind of handshake. The client reads a greeting, because the ticket precedes it.
fn kind(tls: &Tls, protocol: Protocol, config: &Arc<ClientConfig>) -> HandshakeKind {
    smol::block_on(async {
        let (mut server, mut client) = connect(tls, protocol, config, sockets()).await.unwrap();
        server.write_all(b"hello").await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut [0; 5]).await.unwrap();
        client.get_ref().1.handshake_kind().unwrap()
    })
}

#[test]
fn a_pop3_client_resumes_its_session_until_the_certificate_changes() {
    for version in [&TLS12, &TLS13] {
        let (tls, first) = tls();
        let (next, second) = shown();
        let config = Arc::new(client(version, &[&first, &second]));
        assert_eq!(kind(&tls, Protocol::Pop3, &config), HandshakeKind::Full, "{version:?}");
        for _ in 0..3 {
            assert_eq!(kind(&tls, Protocol::Pop3, &config), HandshakeKind::Resumed, "{version:?}");
        }
        *tls.shown.lock() = Arc::new(next);
        assert_eq!(kind(&tls, Protocol::Pop3, &config), HandshakeKind::Full, "{version:?}");
    }
}

#[test]
fn an_smtp_client_gets_no_ticket() {
    for version in [&TLS12, &TLS13] {
        let (tls, certificate) = tls();
        let config = Arc::new(client(version, &[&certificate]));
        for _ in 0..2 {
            assert_eq!(kind(&tls, Protocol::Smtp, &config), HandshakeKind::Full, "{version:?}");
        }
    }
}

#[test]
fn pop3_is_chosen_among_the_names_that_a_client_offers() {
    let (tls, certificate) = tls();
    let chosen = |protocol, offered: &[&str]| {
        let mut config = client(&TLS13, &[&certificate]);
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let (_, client) = smol::block_on(connect(&tls, protocol, &Arc::new(config), sockets())).ok()?;
        let name = client.get_ref().1.alpn_protocol().unwrap_or(b"none");
        Some(String::from_utf8(name.to_vec()).unwrap())
    };
    assert_eq!(chosen(Protocol::Pop3, &["pop3"]).as_deref(), Some("pop3"));
    assert_eq!(chosen(Protocol::Pop3, &["imap", "pop3"]).as_deref(), Some("pop3"));
    assert_eq!(chosen(Protocol::Pop3, &[]).as_deref(), Some("none"));
    assert_eq!(chosen(Protocol::Pop3, &["http/1.1", "h2"]), None, "the handshake is refused");
    assert_eq!(chosen(Protocol::Smtp, &["smtp"]).as_deref(), Some("none"));
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A service that shows the certificate in these files.
fn service_with(bench: &Bench, certificate: &Path, key: &Path) -> Service {
    let tlscert = crate::settings::find("tlscert").ok().unwrap();
    let files = [certificate, key].map(|path| path.display().to_string());
    let settings = Settings::default().with(tlscert, &files).ok().unwrap();
    Service::without_doors(bench.store.clone(), bench.mailroot.clone(), settings).unwrap()
}

/// The certificate that a client of the service sees.
fn seen(service: &Service, config: &Arc<ClientConfig>) -> CertificateDer<'static> {
    let (server, client) = sockets();
    let accepting = service.accept_tls(Socket::new(Async::new(server).unwrap()), Protocol::Pop3);
    let connector = TlsConnector::from(config.clone());
    let connecting = connector.connect(ServerName::try_from(NAME).unwrap(), Async::new(client).unwrap());
    let (accepted, client) = smol::block_on(smol::future::zip(accepting, connecting));
    accepted.unwrap();
    client.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[test]
fn a_certificate_file_that_hangs_holds_up_nobody_and_is_shown_once_it_can_be_read() {
    let bench = Bench::new();
    let [file, key_file] = ["cert.pem", "key.pem"].map(|name| bench.home.join(name));
    let key = rcgen::KeyPair::generate().unwrap();
    let [old, new] = [(), ()].map(|()| {
        let parameters = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap().der().clone()
    });
    assert_ne!(old, new);
    fs::write(&file, pem("CERTIFICATE", &old)).unwrap();
    fs::write(&key_file, pem("PRIVATE KEY", key.serialized_der())).unwrap();
    let service = service_with(&bench, &file, &key_file);
    let config = Arc::new(client(&TLS13, &[&old, &new]));
    let look_is_due = || service.tls.lock().looked = None;

    // Opening it waits until somebody writes.
    fs::remove_file(&file).unwrap();
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for _ in 0..3 {
        look_is_due();
        assert_eq!(seen(&service, &config), old);
    }
    assert!(service.tls.look_due(Instant::now()).is_none(), "one look is under way");
    fs::write(&file, pem("CERTIFICATE", &new)).unwrap();
    drop(service.tls.looking.lock_blocking());
    assert_eq!(service.tls.shown().certificate.cert[0], new);
}
