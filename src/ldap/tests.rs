//! A pool against servers that answer, refuse, hang or send too little, on loopback.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::{
    ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned, crypto,
};
use smol::future::block_on;
use yasna::{DERWriter, Tag, parse_ber};
use zeroize::Zeroizing;

use super::message::frame_octets;
use super::server::Security;
use super::*;

/// A server under TLS, with a certificate for its address, which is its own authority.
pub struct Double {
    pub server: Server,
    pub certificate: CertificateDer<'static>,
    /// How many requests it has got.
    pub asked: Arc<AtomicUsize>,
    /// While true, it takes requests and answers none.
    pub is_silent: Arc<AtomicBool>,
}

/// A response to a request. A list of them ends with `Done`.
pub enum Says {
    Entry {
        name: &'static str,
        principal: &'static str,
        mail: &'static str,
    },
    /// The code of the result.
    Done(u32),
    /// The end of the connection, with no answer.
    HangUp,
}

impl Double {
    /// Answers each request, which the closure gets as it was sent. Binds always succeed.
    pub fn answering(answer: impl Fn(&[u8]) -> Vec<Says> + Send + Sync + 'static) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key);
        let config = Arc::new(config.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let double = Self {
            server: server_at(&listener),
            certificate,
            asked: Arc::default(),
            is_silent: Arc::default(),
        };
        let (asked, is_silent, answer) = (double.asked.clone(), double.is_silent.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
                let (asked, is_silent, answer) = (asked.clone(), is_silent.clone(), answer.clone());
                thread::spawn(move || converse(tls, &asked, &is_silent, &*answer));
            }
        });
        double
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn be_silent(&self, silent: bool) {
        self.is_silent.store(silent, Ordering::Relaxed);
    }
}

/// Until the client hangs up.
fn converse(
    mut tls: StreamOwned<ServerConnection, TcpStream>,
    asked: &AtomicUsize,
    is_silent: &AtomicBool,
    answer: &dyn Fn(&[u8]) -> Vec<Says>,
) {
    let mut received = Vec::new();
    let mut octets = [0; 4096];
    while let Ok(count @ 1..) = tls.read(&mut octets) {
        received.extend_from_slice(&octets[..count]);
        while let Some(end) = frame_octets(&received).unwrap()
            && end <= received.len()
        {
            let request: Vec<u8> = received.drain(..end).collect();
            asked.fetch_add(1, Ordering::Relaxed);
            if is_silent.load(Ordering::Relaxed) {
                continue;
            }
            let (id, tag) = head(&request);
            let answers = if tag == BIND { vec![Says::Done(0)] } else { answer(&request) };
            for says in answers {
                if let Says::HangUp = says {
                    return;
                }
                let message = yasna::construct_der(|writer| {
                    writer.write_sequence(|writer| {
                        writer.next().write_u32(id);
                        says.write(writer.next(), tag);
                    });
                });
                // The client may be gone.
                let _ = tls.write_all(&message);
            }
            let _ = tls.flush();
        }
    }
}

const BIND: u64 = 0;
const SEARCH: u64 = 3;

/// The id of a request, and the number of its tag.
fn head(request: &[u8]) -> (u32, u64) {
    let head = parse_ber(request, |reader| {
        reader.read_sequence(|reader| {
            let id = reader.next().read_u32()?;
            let operation = reader.next();
            let tag = operation.lookahead_tag()?;
            operation.read_der()?;
            Ok((id, tag.tag_number))
        })
    });
    head.unwrap()
}

impl Says {
    fn write(&self, writer: DERWriter, request: u64) {
        match self {
            Self::Entry { name, principal, mail } => {
                writer.write_tagged_implicit(Tag::application(4), |writer| {
                    writer.write_sequence(|writer| {
                        writer.next().write_bytes(format!("CN={name},DC=x,DC=test").as_bytes());
                        writer.next().write_sequence_of(|writer| {
                            for (attribute, value) in
                                [("sAMAccountName", name), ("userPrincipalName", principal), ("mail", mail)]
                            {
                                writer.next().write_sequence(|writer| {
                                    writer.next().write_bytes(attribute.as_bytes());
                                    writer
                                        .next()
                                        .write_set_of(|writer| writer.next().write_bytes(value.as_bytes()));
                                });
                            }
                        });
                    });
                });
            }
            Self::HangUp => unreachable!("it is said by hanging up"),
            Self::Done(code) => {
                // The response to a search is after those of its entries.
                let tag = if request == SEARCH { 5 } else { request + 1 };
                writer.write_tagged_implicit(Tag::application(tag), |writer| {
                    writer.write_sequence(|writer| {
                        writer.next().write_enum(i64::from(*code));
                        writer.next().write_bytes(b"");
                        writer.next().write_bytes(b"");
                    });
                });
            }
        }
    }
}

fn server_at(listener: &TcpListener) -> Server {
    let port = listener.local_addr().unwrap().port();
    Server { host: "127.0.0.1".to_owned(), port, security: Security::Ldaps }
}

/// A server that accepts connections and never says a word on them.
pub fn mute() -> (Server, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (server_at(&listener), listener)
}

/// Nothing listens there.
fn refusing() -> Server {
    mute().0
}

fn pool(servers: &[&Server], doubles: &[&Double]) -> Pool {
    let mut roots = RootCertStore::empty();
    for double in doubles {
        roots.add(double.certificate.clone()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let binding = Binding { name: "service".to_owned(), password: Zeroizing::new("secret".to_owned()) };
    Pool::new(servers.iter().map(|server| (*server).clone()).collect(), None, config, binding)
}

fn search(pool: &Pool) -> Result<Matches, Failure> {
    block_on(pool.search("DC=x", &Filter::Present("mail"), &["mail"], 2))
}

#[track_caller]
fn assert_found(pool: &Pool, by: &Double) {
    let matches = search(pool).unwrap();
    assert!(matches!(&matches, Matches::All(entries) if entries.len() == 1), "{matches:?}");
    assert_eq!(pool.reachability().last_contact.unwrap().1, by.server.to_string());
}

fn ann() -> Says {
    Says::Entry { name: "ann", principal: "ann@x.test", mail: "ann@x.test" }
}

#[test]
fn a_part_of_what_a_search_finds_is_no_answer() {
    const SIZE_LIMIT_EXCEEDED: u32 = 4;
    const TIME_LIMIT_EXCEEDED: u32 = 3;
    for (code, is_answer) in [(0, true), (SIZE_LIMIT_EXCEEDED, false)] {
        let double = Double::answering(move |_| vec![ann(), Says::Done(code)]);
        let matches = search(&pool(&[&double.server], &[&double])).unwrap();
        assert_eq!(matches!(matches, Matches::All(_)), is_answer, "{code}: {matches:?}");
    }
    let double = Double::answering(|_| vec![ann(), Says::Done(TIME_LIMIT_EXCEEDED)]);
    let failure = search(&pool(&[&double.server], &[&double])).unwrap_err();
    assert!(failure.why.contains("LDAP result 3"), "{failure}");
}

#[test]
fn the_next_server_answers_for_one_that_refuses_or_does_not_speak() {
    let double = Double::answering(|_| vec![ann(), Says::Done(0)]);
    let (mute, _listening) = mute();
    for first in [&refusing(), &mute] {
        let pool = pool(&[first, &double.server], &[&double]);
        for _ in 0..2 {
            assert_found(&pool, &double);
        }
        assert_eq!(pool.reachability().last_error, None);
    }
}

/// As many as a setting can name.
#[test]
fn the_last_of_five_servers_is_reached_within_the_time_of_one_question() {
    let double = Double::answering(|_| vec![ann(), Says::Done(0)]);
    let mutes: Vec<_> = (0..4).map(|_| mute()).collect();
    let servers: Vec<&Server> = mutes.iter().map(|(server, _)| server).chain([&double.server]).collect();
    assert_found(&pool(&servers, &[&double]), &double);
}

#[test]
fn why_each_server_cannot_be_asked_is_told_if_none_answers() {
    let (first, second) = (refusing(), refusing());
    let failure = search(&pool(&[&first, &second], &[])).unwrap_err();
    for server in [first, second] {
        assert!(failure.why.contains(&format!("{server}: ")), "{failure}");
    }
    assert!(!failure.may_be_done);
}

#[test]
fn a_server_that_falls_silent_is_left_for_the_next_one_until_it_is_needed() {
    let [first, second] =
        std::array::from_fn(|_| Double::answering(|_| vec![ann(), Says::Done(Outcome::SUCCESS)]));
    let pool = pool(&[&first.server, &second.server], &[&first, &second]);
    assert_found(&pool, &first);
    first.be_silent(true);
    // The same question, put to the other one within its time.
    assert_found(&pool, &second);
    let asked = first.asked();
    for _ in 0..3 {
        assert_found(&pool, &second);
    }
    assert_eq!(first.asked(), asked);

    // A change is not repeated: it may have been made.
    second.be_silent(true);
    let failure = block_on(pool.delete("CN=ann")).unwrap_err();
    assert!(failure.may_be_done && failure.why.contains("did not answer in time"), "{failure}");
    let asked = second.asked();
    first.be_silent(false);
    assert_found(&pool, &first);
    assert_eq!(second.asked(), asked);
}

#[test]
fn a_password_is_checked_by_the_next_server_if_the_first_falls_silent() {
    let [first, second] = std::array::from_fn(|_| Double::answering(|_| vec![]));
    let pool = pool(&[&first.server, &second.server], &[&first, &second]);
    assert!(block_on(pool.bind("CN=ann", "secret")).unwrap().is_success());
    first.be_silent(true);
    assert!(block_on(pool.bind("CN=ann", "secret")).unwrap().is_success());
    assert_eq!(pool.reachability().last_contact.unwrap().1, second.server.to_string());
}
