//! Clients that read late or never. The socket buffers are small, so that they fill up soon.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

use futures_rustls::rustls::version::{TLS12, TLS13};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustix::net::{AddressFamily, SocketType};
use smol::Async;
use smol::io::AsyncRead;

use super::super::socket::Socket;
use super::super::tls::Protocol;
use super::super::tls::tests as handshake;
use super::*;

/// More than the sockets hold, and less than the TLS layer does (64 KiB).
const TEXT_OCTETS: usize = 60_000;
const SOCKET_OCTETS: usize = 12 << 10;
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

type Client = Box<dyn Wire>;
trait Wire: AsyncRead + smol::io::AsyncWrite + Unpin {}
impl<W: AsyncRead + smol::io::AsyncWrite + Unpin> Wire for W {}

/// A server's connection and its client, in clear and over both versions of TLS.
async fn connections(idle_max: Duration) -> Vec<(Connection, Client)> {
    let mut connections: Vec<(Connection, Client)> = Vec::new();
    let (server, client) = sockets();
    let clear = Stream::Clear(Socket::new(Async::new(server).unwrap()));
    connections
        .push((Connection::new(clear, Buffers::new(), idle_max), Box::new(Async::new(client).unwrap())));
    for version in [&TLS12, &TLS13] {
        let (tls, certificate) = handshake::tls();
        let config = Arc::new(handshake::client(version, &[&certificate]));
        let (stream, client) = handshake::connect(&tls, Protocol::Pop3, &config, sockets()).await.unwrap();
        connections.push((Connection::new(stream, Buffers::new(), idle_max), Box::new(client)));
    }
    connections
}

/// A server's end and its client's.
fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    // Before connecting: a window once offered does not shrink.
    set_socket_recv_buffer_size(&client, SOCKET_OCTETS).unwrap();
    rustix::net::connect(&client, &listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    set_socket_send_buffer_size(&server, SOCKET_OCTETS).unwrap();
    (server, client.into())
}

/// Numbered, so that a missing or repeated piece shows.
fn text() -> Vec<u8> {
    (0..TEXT_OCTETS / 8).flat_map(|number| format!("{number:06}\r\n").into_bytes()).collect()
}

#[test]
fn a_client_that_reads_late_gets_the_whole_text_before_anything_is_asked_of_it() {
    smol::block_on(async {
        for (mut connection, mut client) in connections(LONG).await {
            let text = text();
            let (written, begin) = smol::channel::bounded(1);
            let serving = async {
                // In clear the socket holds no more than its buffer, so the client must begin to read at once.
                if connection.stream.tls_version().is_none() {
                    written.send(()).await.unwrap();
                }
                connection.send(&[&text]).await.unwrap();
                let _ = written.try_send(());
                connection.line(100, |line, _| assert!(matches!(line, Line::Whole(b"thanks")))).await
            };
            let fetching = async {
                begin.recv().await.unwrap();
                let mut got = vec![0; TEXT_OCTETS];
                client.read_exact(&mut got).await.unwrap();
                assert!(got == text);
                client.write_all(b"thanks\r\n").await.unwrap();
                client.flush().await.unwrap();
            };
            smol::future::zip(serving, fetching).await.0.unwrap();
            assert!(connection.is_sent());
        }
    });
}

#[test]
fn a_client_that_never_reads_is_given_up_and_reset() {
    smol::block_on(async {
        for (mut connection, mut client) in connections(SHORT).await {
            connection.out.extend_from_slice(&text());
            let outcome = connection.line(100, |_, _| ()).await;
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert!(!connection.is_sent());
            drop(connection);
            let mut got = Vec::new();
            let outcome = client.read_to_end(&mut got).await;
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            assert!(got.len() < TEXT_OCTETS && text().starts_with(&got));
        }
    });
}

#[test]
fn the_last_wait_has_a_limit_too() {
    smol::block_on(async {
        for (mut connection, _client) in connections(SHORT).await {
            connection.out.extend_from_slice(&text());
            assert_eq!(connection.hang_up().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        for (mut connection, _client) in connections(LONG).await {
            connection.out.extend_from_slice(&text());
            assert_eq!(connection.dismiss().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
    });
}

#[test]
fn after_quit_we_wait_only_for_a_client_that_has_more_to_say() {
    smol::block_on(async {
        for talks_on in [false, true] {
            let (mut connection, mut client) = connections(LONG).await.swap_remove(0);
            if talks_on {
                client.write_all(b"RSET\r\n").await.unwrap();
            }
            connection.out.extend_from_slice(b"good bye\r\n");
            let mut closing = Box::pin(connection.hang_up());
            assert_eq!(smol::future::poll_once(&mut closing).await.is_some(), !talks_on);
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"good bye\r\n");
        }
    });
}

#[test]
fn a_client_that_is_dismissed_while_it_talks_reads_our_last_words() {
    smol::block_on(async {
        for (mut connection, mut client) in connections(LONG).await {
            connection.out.extend_from_slice(b"good bye\r\n");
            let talking = async {
                let mut first = [0];
                client.read_exact(&mut first).await.unwrap();
                client.write_all(b"RSET\r\n").await.unwrap();
                let mut rest = Vec::new();
                client.read_to_end(&mut rest).await.unwrap();
                assert_eq!([&first[..], &rest].concat(), b"good bye\r\n");
                drop(client);
            };
            smol::future::zip(connection.dismiss(), talking).await.0.unwrap();
        }
    });
}

#[test]
fn an_interrupted_write_continues_where_it_stopped() {
    smol::block_on(async {
        for (mut connection, mut client) in connections(LONG).await {
            connection.out.extend_from_slice(&text());
            assert!(smol::future::poll_once(connection.flush()).await.is_none());
            assert!(!connection.is_sent());
            connection.out.extend_from_slice(b"good bye\r\n");
            let fetching = async {
                let mut got = Vec::new();
                client.read_to_end(&mut got).await.unwrap();
                assert!(got == [&text()[..], b"good bye\r\n"].concat());
                drop(client);
            };
            smol::future::zip(connection.hang_up(), fetching).await.0.unwrap();
        }
    });
}

#[test]
fn a_client_that_never_makes_us_wait_lets_others_have_their_turn() {
    smol::block_on(async {
        let (mut connection, mut client) = connections(LONG).await.swap_remove(0);
        client.write_all(&text()).await.unwrap();
        let octets = std::cell::Cell::new(0);
        let mut read_all = Box::pin(async {
            while octets.get() < TEXT_OCTETS {
                connection.line(8, |_, _| octets.set(octets.get() + 8)).await.unwrap();
            }
        });
        // The first line may have to be waited for.
        while octets.get() == 0 {
            let polled = smol::future::poll_once(&mut read_all).await;
            let lines_max = TURN_OCTETS / LINE_OCTETS;
            assert!(polled.is_none() && octets.get() <= 8 * lines_max, "{} octets at once", octets.get());
            yield_now().await;
        }
        read_all.await;
    });
}

#[test]
fn a_client_that_always_has_something_to_say_does_not_outlast_its_deadline() {
    smol::block_on(async {
        for (mut connection, mut client) in connections(LONG).await {
            client.write_all(&b"NOOP\r\n".repeat(1500)).await.unwrap();
            client.flush().await.unwrap();
            connection.line(100, |_, _| ()).await.unwrap();
            connection.set_deadline(Some(Instant::now()));
            let mut lines = 1;
            let outcome = loop {
                match connection.line(100, |_, _| ()).await {
                    Ok(()) => lines += 1,
                    Err(e) => break e,
                }
            };
            assert_eq!(outcome.kind(), io::ErrorKind::TimedOut);
            assert!(lines < 1500, "what was read before the deadline is answered, and no more: {lines}");
        }
    });
}

#[test]
fn a_client_that_sends_octets_but_no_line_is_idle() {
    smol::block_on(async {
        for (mut connection, mut client) in connections(SHORT).await {
            let talking = async {
                // Far more than it can send in that time.
                for octet in [b"N"].into_iter().cycle().take(1_000_000).chain([b"\n"]) {
                    if client.write_all(octet).await.is_err() || client.flush().await.is_err() {
                        break;
                    }
                    yield_now().await;
                }
            };
            let listening = async {
                let outcome = connection.line(1 << 30, |_, _| ()).await;
                assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
                drop(connection);
            };
            smol::future::zip(talking, listening).await;
        }
    });
}

#[test]
fn a_long_message_is_read_in_larger_parts_than_commands_are() {
    smol::block_on(async {
        let (mut connection, mut client) = connections(LONG).await.swap_remove(0);
        let text = text();
        let sending = async {
            client.write_all(&text).await.unwrap();
            client.write_all(b"and a line\r\n").await.unwrap();
        };
        let receiving = async {
            let (mut got, mut most) = (Vec::new(), 0);
            while got.len() < TEXT_OCTETS {
                let take = |given: &[u8]| {
                    let used = given.len().min(TEXT_OCTETS - got.len());
                    got.extend_from_slice(&given[..used]);
                    most = most.max(given.len());
                    used
                };
                connection.octets(take).await.unwrap();
            }
            assert!(got == text);
            assert!(most > connection.read.len(), "{most}");
            connection
                .line(100, |line, _| assert!(matches!(line, Line::Whole(b"and a line"))))
                .await
                .unwrap();
        };
        smol::future::zip(sending, receiving).await;
    });
}
