//! A directory that goes away, hangs, comes back, or is an impostor.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::super::client::Pop3;
use super::super::service::{Service, eventually};
use super::controller::{Controller, PASSWORD};
use super::logins::{log_in, log_in_from};
use crate::harness::site::Site;

const CLIENTS: usize = 6;

/// The outcomes of all clients' logins so far.
#[derive(Default)]
struct Outcomes {
    welcomed: AtomicUsize,
    refused: AtomicUsize,
    unanswered: AtomicUsize,
    over: AtomicBool,
}

impl Outcomes {
    /// Logs in with the right and a wrong password alternately, until told to stop.
    fn load(&self, service: &Service, name: &str) {
        while !self.over.load(Ordering::Relaxed) {
            for (password, is_right) in [(PASSWORD, true), ("Wrong-1-password", false)] {
                let reply = log_in_from(Ipv4Addr::LOCALHOST, service, name, password);
                let (counter, is_possible) = match () {
                    () if reply.starts_with("+OK") => (&self.welcomed, is_right),
                    () if reply.starts_with("-ERR [AUTH]") => (&self.refused, !is_right),
                    () => (&self.unanswered, reply.starts_with("-ERR [SYS/TEMP]")),
                };
                assert!(is_possible, "{name} with {password}: {reply}");
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits for this many more outcomes of a kind.
    fn wait_for_more(&self, of: &AtomicUsize, what: &str, count: usize) {
        let before = of.load(Ordering::Relaxed);
        eventually(what, || {
            self.over.load(Ordering::Relaxed) || of.load(Ordering::Relaxed) >= before + count
        });
    }
}

#[test]
fn a_directory_that_stops_and_starts_under_load_lets_nobody_in_by_mistake_and_counts_no_guess() {
    let Some(mut controller) = Controller::own(1) else { return };
    let mut site = controller.site("load.test");
    for client in 0..CLIENTS {
        site.winpop(&["add", &format!("client{client}@load.test"), "/createuser", PASSWORD]);
    }
    let service = site.start();
    let outcomes = Outcomes::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (outcomes, service) = (&outcomes, &service);
                scope.spawn(move || outcomes.load(service, &format!("client{client}@load.test")))
            })
            .collect();
        for _ in 0..2 {
            outcomes.wait_for_more(&outcomes.welcomed, "logins go well", 2 * CLIENTS);
            outcomes.wait_for_more(&outcomes.refused, "wrong passwords are refused", CLIENTS);
            controller.stop();
            outcomes.wait_for_more(&outcomes.unanswered, "logins are put off", 4 * CLIENTS);
            controller.start();
        }
        outcomes.wait_for_more(&outcomes.welcomed, "logins go well again", 2 * CLIENTS);
        let unanswered = outcomes.unanswered.load(Ordering::Relaxed);
        outcomes.wait_for_more(&outcomes.welcomed, "logins go on going well", 2 * CLIENTS);
        assert_eq!(outcomes.unanswered.load(Ordering::Relaxed), unanswered);
        outcomes.over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("nobody was let in, or refused, by mistake");
        }
    });
    let stat: serde_json::Value = serde_json::from_str(&site.winpop(&["stat", "/json"])).expect("it is JSON");
    let failures = &stat["statistics"]["connections"]["login_failures"];
    assert_eq!(failures.as_u64(), Some(outcomes.refused.load(Ordering::Relaxed) as u64), "{stat}");
    service.wait_for_log("the account directory is unavailable");
    end(service);
    site.assert_clean();
}

#[test]
fn what_an_administrator_does_while_the_directory_is_down_or_hangs_changes_nothing() {
    let Some(mut controller) = Controller::own(2) else { return };
    let mut site = controller.site("down.test");
    site.winpop(&["add", "ann@down.test", "/createuser", PASSWORD]);
    let service = site.start();
    assert!(log_in(&service, "ann@down.test", PASSWORD).starts_with("+OK"));
    controller.freeze(true);
    assert!(log_in(&service, "ann@down.test", PASSWORD).starts_with("-ERR [SYS/TEMP]"));
    let stat = site.winpop(&["stat"]);
    assert!(stat.contains("did not answer in time"), "{stat}");
    controller.freeze(false);
    eventually("the directory answers again", || {
        log_in(&service, "ann@down.test", PASSWORD).starts_with("+OK")
    });

    controller.stop();
    for words in [
        &["add", "bob@down.test", "/createuser", PASSWORD][..],
        &["add", "bob@down.test"],
        &["delete", "ann@down.test", "/deleteuser"],
        &["changepwd", "ann@down.test", "Another-1-password"],
    ] {
        let done = site.run(&[&["winpop"], words].concat());
        assert_eq!(done.exit_code, 1, "{words:?}: {done:?}");
        assert!(done.errors.contains("the account directory is unavailable"), "{words:?}: {done:?}");
    }
    // If the directory had been asked, the answer would be that it is unavailable.
    assert!(log_in(&service, "ann@down.test", PASSWORD).starts_with("-ERR [SYS/TEMP]"));
    assert!(log_in(&service, "ann@down.test", "").starts_with("-ERR"));
    let plain = "AUTH PLAIN AGFubkBkb3duLnRlc3QA";
    let mut pop3 = Pop3::connect(service.ports().pop3).expect("the service greets");
    let reply = pop3.ask(plain).expect("a reply");
    assert!(reply.starts_with("-ERR [AUTH]"), "{reply}");
    // Going back does not need the directory.
    site.winpop(&["set", "authentication", "3", "/force"]);
    site.winpop(&["changepwd", "ann@down.test", PASSWORD]);
    assert!(log_in(&service, "ann@down.test", PASSWORD).starts_with("+OK"));
    let done = site.run(&["winpop", "set", "authentication", "1"]);
    assert!(done.errors.contains("the account directory is unavailable"), "{done:?}");
    assert!(log_in(&service, "ann@down.test", PASSWORD).starts_with("+OK"));
    controller.start();
    site.winpop(&["set", "authentication", "1"]);
    assert!(log_in(&service, "ann@down.test", PASSWORD).starts_with("+OK"));
    let list = site.winpop(&["list", "down.test"]);
    assert!(!list.contains("bob@"), "{list}");
    end(service);
    site.assert_clean();
}

#[test]
fn the_second_server_answers_if_the_first_refuses_connections_or_is_silent() {
    let Some(controller) = Controller::shared() else { return };
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let silent = silent.local_addr().expect("it has one");
    for (domain, first) in [
        ("refusing.test", "ldaps://127.0.0.1:9".to_owned()),
        ("silent.tls.test", format!("ldaps://{silent}")),
        ("silent.starttls.test", format!("ldap://{silent}")),
    ] {
        let mut site = controller.site(domain);
        site.winpop(&["set", "adserver", &first, &controller.ip]);
        let (ursula, victor) = (format!("ursula@{domain}"), format!("victor@{domain}"));
        let is_all_well = |site: &Site, user: &str| {
            site.winpop(&["add", user, "/createuser", PASSWORD]);
            let list = site.winpop(&["list", domain, "/json"]);
            assert!(!list.contains("unknown") && list.contains(r#""account_state":"found""#), "{list}");
            assert!(site.winpop(&["test", user, PASSWORD]).contains("can log in"));
            let stat = site.winpop(&["stat"]);
            let answered = format!("Active Directory, last answered by {} at 2", controller.ip);
            assert!(stat.contains(&answered) && !stat.contains("last failed"), "{first}: {stat}");
        };
        is_all_well(&site, &ursula);
        let service = site.start();
        assert!(log_in(&service, &ursula, PASSWORD).starts_with("+OK"), "{first}");
        assert!(log_in(&service, &ursula, "Wrong-1-password").starts_with("-ERR [AUTH]"), "{first}");
        is_all_well(&site, &victor);
        site.winpop(&["delete", &ursula, "/deleteuser"]);
        service.stop();
        site.assert_clean();
    }
}

/// Stops a service that had to complain about the directory.
fn end(service: Service) {
    service.terminate();
    let (status, log) = service.wait();
    assert!(status.success() && !log.contains("panicked"), "{status}: {log}");
}

/// Passes connections on to a server, whose certificate does not name this address.
fn relay(to: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it has one").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = TcpStream::connect(&to).expect("it listens");
            let pass = |mut from: TcpStream, mut to: TcpStream| {
                thread::spawn(move || {
                    let mut octets = [0; 4096];
                    while let Ok(count @ 1..) = from.read(&mut octets) {
                        if to.write_all(&octets[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Both);
                });
            };
            pass(stream.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
            pass(server, stream);
        }
    });
    port
}

#[test]
fn a_server_without_a_trusted_certificate_gets_no_password() {
    let Some(mut controller) = Controller::own(3) else { return };
    let mut site = controller.site("trust.test");
    site.winpop(&["add", "ann@trust.test", "/createuser", PASSWORD]);
    let service = site.start();
    let right = controller.ip.clone();
    let is_refused = |why: &str| {
        let reply = log_in(&service, "ann@trust.test", PASSWORD);
        assert!(reply.starts_with("-ERR [SYS/TEMP]"), "{why}: {reply}");
        let stat = site.winpop(&["stat"]);
        assert!(stat.contains(why), "{why}: {stat}");
    };
    for scheme in ["ldaps", "ldap"] {
        site.winpop(&["set", "adserver", &format!("{scheme}://{right}")]);
        assert!(log_in(&service, "ann@trust.test", PASSWORD).starts_with("+OK"), "{scheme}");
        let port = relay(format!("{right}:{}", if scheme == "ldaps" { 636 } else { 389 }));
        site.winpop(&["set", "adserver", &format!("{scheme}://127.0.0.1:{port}")]);
        is_refused("its certificate is not for this name");
    }
    site.winpop(&["set", "adserver", &right]);
    site.winpop(&["set", "adca", another_authority(site.dir()).to_str().expect("a path in UTF-8")]);
    is_refused("its certificate comes from an untrusted authority");
    site.winpop(&["set", "adca", controller.dir.join("ca.pem").to_str().expect("a path in UTF-8")]);
    assert!(log_in(&service, "ann@trust.test", PASSWORD).starts_with("+OK"));
    controller.stop();
    controller.certify(-1);
    controller.start();
    is_refused("its certificate has expired");
    controller.stop();
    controller.certify(30);
    controller.start();
    eventually("it is trusted again", || log_in(&service, "ann@trust.test", PASSWORD).starts_with("+OK"));
    end(service);
}

fn another_authority(dir: &Path) -> PathBuf {
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out other.pem -subj /CN=other";
    let made =
        Command::new("openssl").args(words.split(' ')).current_dir(dir).output().expect("it can be run");
    assert!(made.status.success(), "{made:?}");
    dir.join("other.pem")
}
