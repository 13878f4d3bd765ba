//! How little strangers can take from everybody else by connecting, staying silent or dawdling.

use std::fs;
use std::time::{Duration, Instant};

use super::client::{Client, Pop3};
use super::service::{Service, eventually};
use crate::harness::PASSWORD;
use crate::harness::site::Site;

const ANN: &str = "ann@example.com";
const BOB: &str = "bob@example.com";

fn line(number: usize) -> String {
    format!("{number} {}\r\n", "x".repeat(70))
}

/// A unique message of about this size.
fn message(number: usize, octets: usize) -> Vec<u8> {
    let line = line(number);
    format!("Subject: {number}\r\n\r\n{}", line.repeat(octets / line.len())).into_bytes()
}

/// Many connections at once take many descriptors.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
}

/// An SMTP client that has been told to send its text.
fn sending(service: &Service, recipient: &str) -> Client {
    told_to_send(service.smtp().unwrap(), recipient)
}

fn told_to_send(mut smtp: Client, recipient: &str) -> Client {
    smtp.line().unwrap();
    for command in ["HELO test.example", "MAIL FROM:<>", &format!("RCPT TO:<{recipient}>"), "DATA"] {
        let reply = smtp.ask(command).unwrap();
        assert!(reply.starts_with(['2', '3']), "{command}: {reply}");
    }
    smtp
}

/// Sends the end of a text and returns the reply.
fn end(smtp: &mut Client, text: &[u8]) -> String {
    smtp.send(text).unwrap();
    smtp.ask(".").unwrap()
}

#[test]
fn silent_senders_of_large_messages_hold_up_nobody() {
    const SILENT: usize = 12;
    let mut site = Site::new();
    site.add_mailbox(ANN);
    site.add_mailbox(BOB);
    let service = site.start();
    let mut silent: Vec<Client> = (0..SILENT).map(|_| sending(&service, ANN)).collect();
    for (number, smtp) in silent.iter_mut().enumerate() {
        smtp.send(&message(number, 2 << 20)).unwrap();
    }
    let mut other = sending(&service, BOB);
    let reply = end(&mut other, &message(100, 2 << 20));
    assert!(reply.starts_with("250"), "{reply}");
    let done = site.run_with_input(&["deliver", BOB], &message(101, 2 << 20));
    assert_eq!(done.exit_code, 0, "{done:?}");
    assert!(site.winpop(&["list"]).contains("example.com"));
    let names: Vec<_> =
        fs::read_dir(site.mailroot()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name.to_string_lossy().starts_with("winpop.")), "{names:?}");

    // Half of them vanish, the others finish their messages after all.
    silent.truncate(SILENT / 2);
    for smtp in &mut silent {
        let reply = end(smtp, b"the last line\r\n");
        assert!(reply.starts_with("250"), "{reply}");
    }
    let contents = service.log_in(ANN).contents().unwrap();
    assert_eq!(contents.len(), SILENT / 2);
    for number in 0..SILENT / 2 {
        let whole = [message(number, 2 << 20), b"the last line\r\n".to_vec()].concat();
        assert!(contents.contains(&whole), "message {number} is as it was sent");
    }
    service.stop();
    site.assert_clean();
}

#[test]
fn a_large_message_in_chunks_can_be_dropped_and_another_sent() {
    let mut site = Site::new();
    site.add_mailbox(ANN);
    let service = site.start();
    let mut smtp = service.smtp().unwrap();
    smtp.line().unwrap();
    smtp.ask("HELO test.example").unwrap();
    for (number, is_kept) in [(1, false), (2, true)] {
        for command in ["MAIL FROM:<>", &format!("RCPT TO:<{ANN}>")] {
            assert!(smtp.ask(command).unwrap().starts_with("250"));
        }
        let message = message(number, 1 << 20);
        for chunk in message.chunks(300_000) {
            let mut sent = format!("BDAT {}\r\n", chunk.len()).into_bytes();
            sent.extend_from_slice(chunk);
            smtp.send(&sent).unwrap();
            assert!(smtp.line().unwrap().starts_with("250"));
        }
        let reply = smtp.ask(if is_kept { "BDAT 0 LAST" } else { "RSET" }).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }
    assert!(service.log_in(ANN).contents().unwrap() == [message(2, 1 << 20)]);
    service.stop();
    site.assert_clean();
}

/// A connection as a proxy makes it for a client at this address. The service must accept headers from here.
fn proxied(port: u16, peer: &str) -> Client {
    let mut client = Client::connect(port).unwrap();
    let family = if peer.contains(':') { "TCP6" } else { "TCP4" };
    let us = if peer.contains(':') { "::1" } else { "127.0.0.1" };
    client.send(format!("PROXY {family} {peer} {us} 1024 {port}\r\n").as_bytes()).unwrap();
    client
}

fn take_headers_from_here(site: &Site) {
    site.winpop(&["set", "proxyfrom", "127.0.0.0/8"]);
}

/// Asks for mailboxes by SMTP, one after the other, and returns the replies.
fn ask_for(smtp: &mut Client, names: impl IntoIterator<Item = String>) -> Vec<String> {
    for command in ["HELO test.example", "MAIL FROM:<>"] {
        assert!(smtp.ask(command).unwrap().starts_with("250"));
    }
    names.into_iter().map_while(|name| smtp.ask(&format!("RCPT TO:<{name}>")).ok()).collect()
}

#[test]
fn strangers_in_all_places_do_not_shut_out_a_user() {
    raise_descriptor_limit();
    let mut site = Site::new();
    site.add_mailbox(ANN);
    site.add_mailbox(BOB);
    // With one thread, headers are read in order of arrival, so the 21st is the one too many.
    site.winpop(&["set", "threadcount", "1"]);
    let service = site.start();
    let port = service.ports().pop3;
    let mut ann = service.log_in(ANN);
    take_headers_from_here(&site);
    // A /64 network may have 20 connections without a login; the 21st is refused. Eight such networks would fill all
    // slots and waiting places twice over.
    let mut silent = Vec::new();
    for network in 0..8 {
        for host in 0..20 {
            silent.push(proxied(port, &format!("2001:db8:0:{network}::{host}")));
        }
    }
    let refused = proxied(port, "2001:db8:0:7::ffff").read_to_end().unwrap();
    assert!(refused.contains("too many connections"), "{refused}");
    let mut bob = Pop3::greeted(proxied(port, "192.0.2.7")).unwrap();
    // Many more come from elsewhere, so that it is not among the oldest without a login.
    silent.extend((0..40).map(|host| proxied(port, &format!("2001:db8:1:{host}::1"))));
    site.winpop(&["set", "plaintext", "always"]);
    assert!(bob.ask("NOOP").is_ok(), "the largest groups go first");
    bob.quit().unwrap();
    let mut bob = Pop3::greeted(proxied(port, "192.0.2.8")).unwrap();
    let reply = bob.log_in(BOB, PASSWORD).unwrap();
    assert!(reply.starts_with("+OK"), "{reply}");
    silent.extend((0..80).map(|host| proxied(port, &format!("2001:db8:2:{host}::1"))));
    for session in [&mut ann, &mut bob] {
        assert_eq!(session.count().unwrap(), 0, "who is logged in stays");
    }
    drop(silent);
    site.winpop(&["set", "proxyfrom", "none"]);
    service.stop();
}

#[test]
fn idle_senders_starve_neither_smtp_nor_lmtp() {
    raise_descriptor_limit();
    let mut site = Site::new();
    site.add_mailbox(ANN);
    let service = site.start();
    let port = service.ports().smtp;
    take_headers_from_here(&site);
    let mut idle: Vec<Client> = (0..32).map(|_| proxied(port, "192.0.2.1")).collect();
    for client in &mut idle {
        assert!(client.line().unwrap().starts_with("220"));
    }
    let refused = proxied(port, "192.0.2.1").line().unwrap();
    assert!(refused.starts_with("421 4.3.2 too many connections from your address"), "{refused}");
    // As many connections as there are places, from many networks.
    let rest: Vec<Client> =
        (0..256 - 32).map(|n| proxied(port, &format!("2001:db8:0:{}::{n}", n / 28))).collect();
    let mut newcomer = proxied(port, "192.0.2.99");
    assert!(newcomer.line().unwrap().starts_with("220"), "the oldest of the largest group makes place");
    assert!(idle[0].line().is_err());
    service.wait_for_log("SMTP from 192.0.2.1 ended: made room for another connection; messages accepted 0");
    assert!(idle[31].ask("NOOP").unwrap().starts_with("250"));
    service.lmtp().store(ANN, b"Subject: by LMTP\r\n\r\n");
    for command in ["HELO test.example", "MAIL FROM:<>", &format!("RCPT TO:<{ANN}>"), "DATA"] {
        assert!(newcomer.ask(command).unwrap().starts_with(['2', '3']));
    }
    // Newcomers do not push out a client that is sending a message.
    let more: Vec<Client> = (0..300).map(|n| proxied(port, &format!("2001:db8:1:{n:x}::1"))).collect();
    assert!(end(&mut newcomer, b"Subject: by SMTP\r\n").starts_with("250"));
    drop((idle, rest, more));
    site.winpop(&["set", "proxyfrom", "none"]);
    assert_eq!(service.log_in(ANN).count().unwrap(), 2);
    service.stop();
}

#[test]
fn a_proxy_speaks_for_its_clients_and_nobody_else_does() {
    let mut site = Site::new();
    site.add_mailbox(ANN);
    let service = site.start();
    let ports = service.ports();
    let mut not_a_proxy = Pop3::connect(ports.pop3).unwrap();
    let reply = not_a_proxy.ask("PROXY TCP4 192.0.2.7 127.0.0.1 1024 110").unwrap();
    assert!(reply.starts_with("-ERR"), "{reply}");
    let reply = not_a_proxy.log_in(ANN, PASSWORD).unwrap();
    assert!(reply.starts_with("+OK"), "it is judged by its own address, loopback: {reply}");
    not_a_proxy.quit().unwrap();

    take_headers_from_here(&site);
    let mut elsewhere = Pop3::greeted(proxied(ports.pop3, "192.0.2.7")).unwrap();
    let reply = elsewhere.ask(&format!("USER {ANN}")).unwrap();
    assert!(reply.starts_with("-ERR"), "a password in clear is for loopback: {reply}");
    let mut elsewhere = Pop3::greeted(proxied(ports.pop3s, "192.0.2.7").secured().unwrap()).unwrap();
    let reply = elsewhere.log_in(ANN, "wrong").unwrap();
    assert!(reply.starts_with("-ERR [AUTH]"), "{reply}");
    service.wait_for_log("from 192.0.2.7");
    // In a health check the proxy speaks for itself.
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"] {
        let mut check = Client::connect(ports.pop3).unwrap();
        check.send(header).unwrap();
        let mut check = Pop3::greeted(check).unwrap();
        assert!(check.ask(&format!("USER {ANN}")).unwrap().starts_with("+OK"));
    }
    let mut smtp = proxied(ports.smtp, "2001:db8::7");
    assert!(smtp.line().unwrap().starts_with("220"));
    ask_for(&mut smtp, [ANN.to_owned()]);
    smtp.ask("DATA").unwrap();
    assert!(end(&mut smtp, b"Subject: x\r\n").starts_with("250"));
    // Without a header, or with a broken one, the connection is closed silently.
    for sent in ["USER ann@example.com\r\n", "PROXY TCP4 192.0.2.7\r\n"] {
        let mut client = Client::connect(ports.pop3).unwrap();
        client.send(sent.as_bytes()).unwrap();
        let said = client.read_to_end();
        assert!(said.is_err() || said.is_ok_and(|said| said.is_empty()));
    }
    service.lmtp();
    site.winpop(&["set", "proxyfrom", "none"]);
    let mut session = service.log_in(ANN);
    let header = session.lines("TOP 1 0").unwrap().concat();
    assert!(String::from_utf8_lossy(&header).contains("([IPv6:2001:db8::7])"));
    drop(session);
    service.stop();
}

#[test]
fn guessers_of_names_are_slowed_and_cut_off_but_postfix_is_not() {
    let mut site = Site::new();
    site.add_mailbox(ANN);
    let service = site.start();
    let names = |count| (0..count).map(|number| format!("nobody{number}@example.com"));
    take_headers_from_here(&site);
    let mut stranger = proxied(service.ports().smtp, "192.0.2.7");
    stranger.line().unwrap();
    let begun = Instant::now();
    let replies = ask_for(&mut stranger, names(7));
    assert!(replies.iter().all(|reply| reply.starts_with("550 5.1.1")), "{replies:?}");
    assert!(begun.elapsed() >= Duration::from_millis(750), "two answers were slow");
    assert!(stranger.ask(&format!("RCPT TO:<{ANN}>")).unwrap().starts_with("250"));
    let stat = site.winpop(&["stat"]);
    assert!(stat.contains("Unknown    7 recipients"), "{stat}");

    // Our own mail server may ask for as many as it likes.
    let mut lmtp = Client::connect(service.ports().lmtp).unwrap();
    lmtp.line().unwrap();
    lmtp.send(b"LHLO x\r\n").unwrap();
    while lmtp.line().unwrap().starts_with("250-") {}
    assert!(lmtp.ask("MAIL FROM:<>").unwrap().starts_with("250"));
    for name in names(200) {
        assert!(lmtp.ask(&format!("RCPT TO:<{name}>")).unwrap().starts_with("550 5.1.1"));
    }
    assert!(site.winpop(&["stat"]).contains("Unknown    7 recipients"));
    site.winpop(&["set", "proxyfrom", "none"]);
    service.stop();
}

#[test]
fn a_slow_sender_is_disconnected_however_busy_it_looks() {
    let mut site = Site::new();
    site.add_mailbox(ANN);
    site.winpop(&["set", "idletimeout", "10"]);
    let service = site.start();
    // One sends commands without a message, one a message octet by octet.
    let mut talker = service.smtp().unwrap();
    talker.line().unwrap();
    let mut dripper = sending(&service, ANN);
    let mut said = None;
    eventually("the talker is sent away", || {
        let _ = dripper.send(b"x");
        match talker.ask("NOOP") {
            Ok(reply) if reply.starts_with("250") => false,
            other => {
                said = other.ok();
                true
            }
        }
    });
    assert!(said.is_none_or(|said| said.starts_with("421 4.4.2")));
    let said = dripper.line().unwrap();
    assert!(said.starts_with("421 4.4.2"), "{said}");
    service.wait_for_log(
        "SMTP from 127.0.0.1 ended: timed out; messages accepted 0, refused 0, octets received 0",
    );
    service.stop();
}

#[test]
fn a_flood_of_strangers_costs_no_more_memory_than_documented() {
    /// The bound stated at the head of `serve`, here for the whole service.
    const OCTETS_MAX: u64 = 200 << 20;
    const FLOOD: usize = 5000;
    raise_descriptor_limit();
    let mut site = Site::new();
    site.add_mailbox(ANN);
    site.winpop(&["set", "plaintext", "always"]);
    let service = site.start();
    let ports = service.ports();
    take_headers_from_here(&site);
    let peer = |number: usize| format!("2001:db8:{:x}:{:x}::1", number >> 8, number & 0xff);
    let mut senders: Vec<Client> =
        (0..256).map(|number| told_to_send(proxied(ports.smtp, &peer(number % 8)), ANN)).collect();
    for (number, sender) in senders.iter_mut().enumerate() {
        sender.send(&message(number, 300 << 10)).unwrap();
    }
    let mut latest = std::collections::VecDeque::new();
    for number in 0..FLOOD {
        let port = if number % 2 == 0 { ports.pop3 } else { ports.smtp };
        latest.push_back(proxied(port, &peer(number + 1000)));
        if latest.len() > 200 {
            latest.pop_front();
        }
    }
    // The last connections of the flood may still be waiting.
    eventually("a user gets in", || {
        let user = Pop3::greeted(proxied(ports.pop3, "192.0.2.7"));
        user.is_ok_and(|mut user| user.log_in(ANN, PASSWORD).is_ok_and(|reply| reply.starts_with("+OK")))
    });
    for sender in &mut senders {
        assert!(end(sender, b"the last line\r\n").starts_with("250"));
    }
    let peak = service.peak_memory();
    assert!(peak <= OCTETS_MAX, "{} MiB", peak >> 20);
    println!("{FLOOD} strangers: {} MiB", peak >> 20);
    drop((latest, senders));
    site.winpop(&["set", "proxyfrom", "none"]);
    assert_eq!(service.log_in(ANN).count().unwrap(), 256);
    service.stop();
}
