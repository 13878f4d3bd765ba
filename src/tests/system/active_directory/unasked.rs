//! What does not need the directory does not wait for it. No domain controller is needed: none would be asked.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::client::Pop3;
use super::super::service::eventually;
use super::super::terminal::typed;
use super::controller::BASE;
use crate::harness::site::Site;

/// Logins at a time; fewer than may come from one network.
const LOGINS: usize = 8;

/// A mail store with this domain and two mailboxes, whose directory accepts connections and never says a word.
fn site(domain: &str) -> (Site, TcpListener) {
    let site = Site::new();
    for mailbox in ["ann", "bob"] {
        site.add_mailbox(&format!("{mailbox}@{domain}"));
    }
    let directory = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    directory.set_nonblocking(true).expect("it is a socket");
    let authority = rcgen::generate_simple_self_signed(["dc".to_owned()]).expect("it can be made");
    let ca = site.path("ca.pem");
    let text = STANDARD.encode(authority.cert.der());
    let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    fs::write(&ca, pem).expect("it can be written");
    for (key, value) in [
        ("domainrole", "member"),
        ("adserver", &format!("ldaps://{}", directory.local_addr().expect("it has one"))),
        ("adbasedn", BASE),
        ("adbinduser", "service@corp.example.test"),
        ("adbindpassword", "secret"),
        ("adca", ca.to_str().expect("a path in UTF-8")),
    ] {
        site.winpop(&["set", key, value]);
    }
    site.winpop(&["set", "authentication", "1", "/force"]);
    (site, directory)
}

/// Whether somebody has connected since the last time this was asked.
fn was_asked(directory: &TcpListener) -> bool {
    match directory.accept() {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn export_and_the_question_before_a_domain_is_deleted_do_not_wait_for_the_directory() {
    let (site, directory) = site("unasked.test");
    let copies = site.path("copies");
    site.succeed(&["export", "maildir", copies.to_str().expect("a path in UTF-8")]);
    assert!(copies.join("unasked.test/ann").exists());
    let done = typed(&site, &["delete", "unasked.test"], "n\n");
    assert!(
        done.errors.starts_with("Delete unasked.test with its mailboxes (2) and messages (0, "),
        "{done:?}"
    );
    assert!(done.errors.ends_with("nothing was deleted\n"), "{done:?}");
    assert!(!was_asked(&directory));
}

#[test]
fn a_list_comes_without_accounts_if_the_directory_is_silent_and_says_so() {
    let (mut site, directory) = site("silent.test");
    let is_told = |site: &Site| {
        let list = site.winpop(&["list", "silent.test"]);
        assert!(list.contains("  ann@silent.test\n") && list.contains("  bob@silent.test\n"), "{list}");
        let why = "Note: accounts are not shown: the account directory is unavailable: ";
        assert!(list.contains(why) && list.contains("did not answer in time"), "{list}");
        for words in [&["list", "/all", "/json"][..], &["stat", "silent.test", "/json"]] {
            let reply: serde_json::Value = serde_json::from_str(&site.winpop(words)).expect("it is JSON");
            assert_eq!(reply["mailboxes"][0]["account_state"], "unknown", "{reply}");
            assert!(reply["accounts_error"].as_str().expect("a text").contains("in time"), "{reply}");
        }
        assert!(was_asked(&directory));
    };
    is_told(&site);
    let service = site.start();
    is_told(&site);
    service.terminate();
    assert!(service.wait().0.success());
}

#[test]
fn while_logins_wait_for_a_silent_directory_everybody_else_is_served() {
    let (mut site, directory) = site("waiting.test");
    // A login that kept it would keep all.
    site.winpop(&["set", "threadcount", "1"]);
    let service = site.start();
    let mut replies = Vec::new();
    eventually("others are served while logins wait", || {
        let mut waiting: Vec<Pop3> =
            (0..LOGINS).map(|_| Pop3::connect(service.ports().pop3).unwrap()).collect();
        for pop3 in &mut waiting {
            assert!(pop3.ask("USER ann@waiting.test").unwrap().starts_with("+OK"));
            pop3.client.send(b"PASS secret\r\n").unwrap();
        }
        let mut connected = Vec::new();
        // Right after it has failed it is not asked at all; then the next attempt tells.
        eventually("the directory is asked, or known to be down", || {
            // Closed, it would not be silent.
            connected.extend(directory.accept());
            !connected.is_empty() || waiting.iter_mut().any(|pop3| !pop3.client.is_silent())
        });
        service.lmtp().store("bob@waiting.test", b"Subject: x\r\n\r\nhello\r\n");
        site.winpop(&["list"]);
        assert!(Pop3::connect(service.ports().pop3).unwrap().ask("NOOP").is_ok());
        let still_waiting = waiting.iter_mut().all(|pop3| pop3.client.is_silent());
        replies.extend(waiting.iter_mut().map(|pop3| pop3.client.line().unwrap()));
        still_waiting
    });
    for reply in replies {
        assert!(reply.starts_with("-ERR [SYS/TEMP]"), "{reply}");
    }
    service.terminate();
    assert!(service.wait().0.success());
}
