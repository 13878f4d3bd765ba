//! Clients behind a narrow link get what they were promised, whole.

use std::collections::BTreeSet;
use std::env;
use std::io;
use std::process::Command;
use std::thread;

use super::client::{Client, Pop3};
use super::service::{Service, eventually};
use crate::harness::PASSWORD;
use crate::harness::programs::{have, have_namespaces};
use crate::harness::site::Site;
use crate::harness::skip::needs_root;

/// Set for this test when it runs in its own network namespace.
const INSIDE: &str = "POP3SVC_NARROW_LINK";

/// Concurrent fetches.
const FETCHERS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Pop3s,
    Stls,
}

/// Does the handshake, but does not log in.
fn secured(mut client: Client, way: Way) -> io::Result<Pop3> {
    if way == Way::Pop3s {
        return Pop3::greeted(client.secured()?);
    }
    client.line()?;
    assert!(client.ask("STLS")?.starts_with("+OK"));
    Ok(Pop3 { client: client.secured()? })
}

fn connect(service: &Service, way: Way) -> io::Result<Pop3> {
    let ports = service.ports();
    let port = if way == Way::Pop3s { ports.pop3s } else { ports.pop3 };
    secured(Client::connect(port)?, way)
}

fn message(kilobytes: usize) -> Vec<u8> {
    let line = format!("{kilobytes:05} {}\r\n", "x".repeat(66));
    format!("Subject: {kilobytes}\r\n\r\n{}", line.repeat(kilobytes * 1000 / line.len())).into_bytes()
}

/// Sizes from 1 to 2,000 kilobytes, densest where the buffers of socket and TLS layer fill for the first time.
fn sizes() -> Vec<usize> {
    let steps = [(1..=4, 1), (8..=300, 6), (325..=600, 25), (700..=2000, 100)];
    steps.into_iter().flat_map(|(range, step)| range.step_by(step)).collect()
}

/// Fetches each of these messages in a new session, because a socket's buffer is small at first. Returns the sizes of
/// those that did not come whole.
fn fetch(service: &Service, way: Way, address: &str, kilobytes: &[usize]) -> Vec<(Way, usize)> {
    let mut cut = Vec::new();
    for (number, size) in kilobytes.iter().enumerate() {
        let mut session = None;
        eventually("the maildrop is free", || {
            let mut pop3 = connect(service, way).expect("the service greets");
            let reply = pop3.log_in(address, PASSWORD).expect("a reply to PASS");
            assert!(reply.starts_with("+OK") || reply.starts_with("-ERR [IN-USE]"), "{reply}");
            let is_in = reply.starts_with("+OK");
            session = Some(pop3);
            is_in
        });
        let mut pop3 = session.expect("it is there when the login went well");
        match pop3.content(number + 1) {
            Ok(content) => {
                assert!(content == message(*size), "{size} KB by {way:?}");
                pop3.quit().expect("a reply to QUIT");
            }
            Err(_) => cut.push((way, *size)),
        }
    }
    cut
}

/// The replies to many commands at once, about 90 octets each, after STARTTLS.
fn replies_come_whole(service: &Service) {
    for commands in (900..3000).step_by(300) {
        let mut smtp = service.smtp().expect("the service listens");
        smtp.line().expect("a greeting");
        assert!(smtp.ask("STARTTLS").expect("a reply").starts_with("220 "));
        let mut smtp = smtp.secured().expect("a handshake");
        smtp.send("HELP\r\n".repeat(commands).as_bytes()).expect("they are sent");
        for number in 0..commands {
            let reply = smtp.line().unwrap_or_else(|e| panic!("reply {number} of {commands}: {e}"));
            assert!(reply.starts_with("214 "), "{reply}");
        }
    }
}

fn tool(program: &str, words: &[&str]) {
    let done = Command::new(program).args(words).status().expect("iproute2 is installed");
    assert!(done.success(), "{program} {words:?}");
}

/// 30 Mbit/s, shared by all connections and both directions.
fn all_sizes_come_whole() {
    // As on a real network. With loopback's usual 64 KiB, a socket's buffer would begin at megabytes.
    tool("ip", &["link", "set", "lo", "mtu", "1500", "up"]);
    let mut site = Site::new();
    site.winpop(&["set", "idletimeout", "10"]);
    let addresses: Vec<String> = (0..FETCHERS).map(|number| format!("u{number}@example.com")).collect();
    let mut sizes_of = vec![Vec::new(); FETCHERS];
    for (number, size) in sizes().into_iter().enumerate() {
        sizes_of[number % FETCHERS].push(size);
    }
    addresses.iter().for_each(|address| site.add_mailbox(address));
    let service = site.start();
    let mut lmtp = service.lmtp();
    for (address, sizes) in addresses.iter().zip(&sizes_of) {
        sizes.iter().for_each(|size| lmtp.store(address, &message(*size)));
    }
    drop(lmtp);
    let link = "rate 30mbit burst 128kb latency 60ms";
    tool(
        "tc",
        &[&["qdisc", "add", "dev", "lo", "root", "tbf"], &link.split(' ').collect::<Vec<_>>()[..]].concat(),
    );
    let mut cut = BTreeSet::new();
    for way in [Way::Pop3s, Way::Stls] {
        thread::scope(|scope| {
            let fetches: Vec<_> = addresses
                .iter()
                .zip(&sizes_of)
                .map(|(address, sizes)| scope.spawn(|| fetch(&service, way, address, sizes)))
                .collect();
            fetches.into_iter().for_each(|fetch| cut.extend(fetch.join().expect("no fetch panics")));
        });
    }
    replies_come_whole(&service);
    let fetched = 2 * sizes().len();
    assert!(cut.is_empty(), "{} of {fetched} fetches were cut short: {cut:?}", cut.len());
    service.stop();
}

#[test]
fn every_size_comes_whole_over_a_narrow_link() {
    if env::var_os(INSIDE).is_some() {
        return all_sizes_come_whole();
    }
    if !needs_root("a network namespace") || !have(&["ip", "tc"]) || !have_namespaces(&["--net"]) {
        return;
    }
    let this_test = concat!(module_path!(), "::every_size_comes_whole_over_a_narrow_link");
    let (_, this_test) = this_test.split_once("::").expect("the crate's name is in front");
    let inside = Command::new("unshare")
        .arg("--net")
        .arg(env::current_exe().expect("its path is known"))
        .args(["--exact", this_test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare ran a moment ago");
    let said = String::from_utf8_lossy(&inside.stdout);
    assert!(
        inside.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&inside.stderr)
    );
}
