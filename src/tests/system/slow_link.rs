//! Clients behind a narrow link, and clients that read late: what was promised to them comes whole.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io;
use std::process::Command;
use std::thread;

use super::client::{Client, Pop3};
use super::harness::{PASSWORD, Service, Site, eventually, needs_root};

const ANN: &str = "ann@example.com";
/// Set for this test where it runs in a network of its own.
const INSIDE: &str = "POP3SVC_NARROW_LINK";

/// Fetches that go on at the same time.
const FETCHERS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Pop3s,
    Stls,
}

/// Secured, and not logged in.
fn connect(service: &Service, way: Way) -> io::Result<Pop3> {
    let ports = service.ports();
    match way {
        Way::Pop3s => Pop3::greeted(Client::connect(ports.pop3s)?.secured()?),
        Way::Stls => {
            let mut pop3 = Pop3::connect(ports.pop3)?;
            let reply = pop3.ask("STLS")?;
            assert!(reply.starts_with("+OK"), "{reply}");
            Ok(Pop3 { client: pop3.client.secured()? })
        }
    }
}

fn message(kilobytes: usize) -> Vec<u8> {
    let line = format!("{kilobytes:05} {}\r\n", "x".repeat(66));
    format!("Subject: {kilobytes}\r\n\r\n{}", line.repeat(kilobytes * 1000 / line.len())).into_bytes()
}

/// From 1 to 2,000 kilobytes: every one to 4, and dense where a socket's buffer and the TLS layer's fill for the first time.
fn sizes() -> Vec<usize> {
    let steps = [(1..=4, 1), (8..=300, 6), (325..=600, 25), (700..=2000, 100)];
    steps.into_iter().flat_map(|(range, step)| range.step_by(step)).collect()
}

/// Fetches these messages one by one, in as many sessions as it takes; the sizes of those that did not come whole.
fn fetch(service: &Service, way: Way, address: &str, kilobytes: &[usize]) -> Vec<(Way, usize)> {
    let mut cut = Vec::new();
    let mut session: Option<Pop3> = None;
    for (number, size) in kilobytes.iter().enumerate() {
        let mut pop3 = session.take().unwrap_or_else(|| {
            let mut pop3 = None;
            eventually("the maildrop is free", || {
                let mut secured = connect(service, way).expect("the service greets");
                let reply = secured.log_in(address, PASSWORD).expect("a reply to PASS");
                assert!(reply.starts_with("+OK") || reply.starts_with("-ERR [IN-USE]"), "{reply}");
                let is_in = reply.starts_with("+OK");
                pop3 = Some(secured);
                is_in
            });
            pop3.expect("it is there when the login went well")
        });
        match pop3.content(number + 1) {
            Ok(content) => {
                assert!(content == message(*size), "{size} KB by {way:?}");
                session = Some(pop3);
            }
            Err(_) => cut.push((way, *size)),
        }
    }
    if let Some(pop3) = session {
        pop3.quit().expect("a reply to QUIT");
    }
    cut
}

fn tool(program: &str, words: &[&str]) {
    let done = Command::new(program).args(words).status().expect("iproute2 is installed");
    assert!(done.success(), "{program} {words:?}");
}

/// 30 Mbit/s, shared by all connections and both directions.
fn all_sizes_come_whole() {
    // As on a real network. With loopback's own 64 KiB a socket's buffer would begin at megabytes.
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
    let fetched = 2 * sizes().len();
    assert!(cut.is_empty(), "{} of {fetched} fetches were cut short: {cut:?}", cut.len());
    service.stop();
}

#[test]
fn every_size_comes_whole_over_a_narrow_link() {
    if env::var_os(INSIDE).is_some() {
        return all_sizes_come_whole();
    }
    if !needs_root("a network namespace") {
        return;
    }
    let tried = Command::new("unshare").args(["--net", "tc", "-V"]).output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        assert!(
            env::var_os("CI").is_none(),
            "no network namespace can be made, or iproute2 is not installed"
        );
        eprintln!("skipped: no network namespace can be made, or iproute2 is not installed");
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

/// Waits until the service has written to the socket of this client all that it takes.
fn wait_until_stalled(server: u16, client: u16) {
    let waiting = || {
        let table = fs::read_to_string("/proc/net/tcp").expect("Linux");
        let ends = (format!(":{server:04X}"), format!(":{client:04X}"));
        table.lines().find_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (local, remote) = (words.next()?, words.next()?);
            let (sent, _) = words.nth(1)?.split_once(':')?;
            (local.ends_with(&ends.0) && remote.ends_with(&ends.1)).then(|| sent.to_owned())
        })
    };
    let (mut before, mut same) = (None, 0);
    eventually("the service writes no more", || {
        let now = waiting();
        same = if now == before && now.as_deref() != Some("00000000") { same + 1 } else { 0 };
        before = now;
        same > 10
    });
}

#[test]
fn who_reads_late_under_tls_gets_all_of_it() {
    const RETRIEVALS: usize = 40;
    let mut site = Site::new();
    site.add_mailbox(ANN);
    let service = site.start();
    service.lmtp().store(ANN, &message(200));
    for (way, port) in [(Way::Pop3s, service.ports().pop3s), (Way::Stls, service.ports().pop3)] {
        let mut pop3 = connect(&service, way).unwrap();
        assert!(pop3.log_in(ANN, PASSWORD).unwrap().starts_with("+OK"));
        pop3.client.send("RETR 1\r\n".repeat(RETRIEVALS).as_bytes()).unwrap();
        wait_until_stalled(port, pop3.client.port());
        let contents: io::Result<Vec<_>> = (0..RETRIEVALS).map(|_| pop3.next_content()).collect();
        assert!(contents.unwrap().iter().all(|content| *content == message(200)));
        pop3.quit().unwrap();
    }
    service.stop();
}

#[test]
fn who_reads_replies_late_after_starttls_gets_all_of_them() {
    const COMMANDS: usize = 20_000;
    let mut site = Site::new();
    let service = site.start();
    let mut smtp = service.smtp().unwrap();
    smtp.line().unwrap();
    assert!(smtp.ask("STARTTLS").unwrap().starts_with("220 "));
    let mut smtp = smtp.secured().unwrap();
    smtp.ask("HELO test.example").unwrap();
    smtp.send("NOOP\r\n".repeat(COMMANDS).as_bytes()).unwrap();
    for _ in 0..COMMANDS {
        assert!(smtp.line().unwrap().starts_with("250 "));
    }
    assert!(smtp.ask("QUIT").unwrap().starts_with("221 "));
    assert_eq!(smtp.read_to_end().unwrap(), "");
    service.stop();
}
