//! The dialogues of `testdata/pop3` over a socket, with the service and its store (setup keys:
//! `src/tests/pop3_transcripts.rs`).
//!
//! A file is skipped if a test from outside cannot set up what it needs: a fault of the store (`fault:`, `gone:`),
//! known challenges (`seed:`), lost keys (`secrets:`, `unrecoverable:`), a service without a certificate; or, on a
//! machine that has only loopback addresses, a client from elsewhere (`plaintext: no`). The service always offers STLS;
//! the line that says so is ignored if the setup does not mention it.

use std::net::{IpAddr, UdpSocket};

use super::client::{Client, Pop3};
use super::dialogue::play;
use super::service::{Service, eventually};
use crate::harness::PASSWORD;
use crate::harness::site::Site;
use crate::transcript::{Action, Setup, Transcript, Values};

/// The least number of files that must be played. When more can be, raise it.
const HELD_MIN: usize = 35;
/// Setup keys that cannot be set up here.
const BEYOND: [&str; 7] = ["fault", "gone", "incomplete", "passwords", "seed", "secrets", "unrecoverable"];
/// Setup keys that are settings of the service.
const POLICY: [&str; 2] = ["expire", "logindelay"];

#[test]
fn the_transcripts_hold_over_a_socket() {
    let transcripts = Transcript::all_in("testdata/pop3");
    let mut site = Site::new();
    let elsewhere = address_of_this_machine();
    if let Some(ip) = elsewhere {
        site.winpop(&["set", "listen", "127.0.0.1", &ip.to_string()]);
    }
    site.winpop(&["add", "example.com"]);
    let service = site.start();
    let mut held = 0;
    for transcript in &transcripts {
        let setup = &transcript.setup;
        let ip = if setup.get("plaintext") == Some("no") { elsewhere } else { Some([127, 0, 0, 1].into()) };
        let is_beyond = BEYOND.iter().any(|key| setup.get(key).is_some()) || is_without_tls(transcript);
        if let (Some(ip), false) = (ip, is_beyond) {
            let stage = Stage::set(&site, &service, setup);
            hold(transcript, &stage, ip);
            stage.clear();
            held += 1;
        }
    }
    println!("{held} of {} transcripts held", transcripts.len());
    assert!(held >= HELD_MIN, "only {held} of {} transcripts can be held", transcripts.len());
    service.stop();
    site.assert_clean();
}

fn is_without_tls(transcript: &Transcript) -> bool {
    let refused = Action::Server("-ERR TLS is not offered here".to_owned());
    transcript.steps.iter().any(|step| step.action == refused)
}

/// The address from which this machine reaches others. No packet is sent.
pub fn address_of_this_machine() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // An address for documentation (RFC 5737).
    socket.connect("198.51.100.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// The mailbox that a transcript's setup asks for.
struct Stage<'a> {
    site: &'a Site,
    service: &'a Service,
    mailbox: &'a str,
    password: &'a str,
    is_locked: bool,
    /// The session that holds the maildrop.
    holder: std::cell::Cell<Option<Pop3>>,
    values: Values,
}

impl<'a> Stage<'a> {
    fn set(site: &'a Site, service: &'a Service, setup: &'a Setup) -> Self {
        let mailbox = setup.get("mailbox").unwrap_or("bob@example.com");
        let password = setup.get("password").unwrap_or("two words");
        site.winpop(&["add", mailbox, "/createuser", password]);
        if !setup.messages.is_empty() {
            let mut lmtp = service.lmtp();
            setup.messages.iter().for_each(|content| lmtp.store(mailbox, content));
        }
        let is_locked = setup.get("locked") == Some("yes");
        let mut stage =
            Self { site, service, mailbox, password, is_locked, holder: None.into(), values: Values::new() };
        let mut session = stage.log_in();
        let (uids, octets) = (session.uids().unwrap(), session.octets().unwrap());
        for (number, (uid, octets)) in (1..).zip(uids.into_iter().zip(&octets)) {
            stage.values.insert(format!("uid {number}"), uid);
            stage.values.insert(format!("octets {number}"), octets.clone());
        }
        let all: u64 = octets.iter().map(|octets| octets.parse::<u64>().unwrap()).sum();
        stage.values.insert("octets all".to_owned(), all.to_string());
        if setup.get("held") == Some("yes") {
            stage.holder.set(Some(session));
        } else {
            session.quit().unwrap();
        }
        if is_locked {
            site.winpop(&["lock", mailbox]);
        }
        // Last, because they would affect the session above, too.
        for key in POLICY {
            setup.get(key).map(|value| site.winpop(&["set", key, value]));
        }
        stage
    }

    fn log_in(&self) -> Pop3 {
        let mut session = None;
        // The dialogue's session may have hung up only just now.
        eventually("the maildrop is free", || {
            let mut pop3 = Pop3::connect(self.service.ports().pop3).unwrap();
            let reply = pop3.log_in(self.mailbox, self.password).unwrap();
            session = reply.starts_with("+OK").then_some(pop3);
            assert!(session.is_some() || reply.starts_with("-ERR [IN-USE]"), "{reply}");
            session.is_some()
        });
        session.expect("it is there when the login went well")
    }

    /// The unique ids of the messages in the maildrop now.
    fn left(&self) -> Vec<String> {
        self.holder.take();
        if self.is_locked {
            self.site.winpop(&["unlock", self.mailbox]);
        }
        let mut session = self.log_in();
        let left = session.uids().unwrap();
        session.quit().unwrap();
        left
    }

    fn clear(self) {
        POLICY.iter().for_each(|key| drop(self.site.winpop(&["set", key, "default"])));
        self.site.winpop(&["delete", self.mailbox]);
    }
}

fn hold(transcript: &Transcript, stage: &Stage<'_>, ip: IpAddr) {
    let setup = &transcript.setup;
    let ports = stage.service.ports();
    let connect = || match setup.get("tls") {
        Some("yes") => Client::connect_to(ip, ports.pop3s).unwrap().secured().unwrap(),
        _ => Client::connect_to(ip, ports.pop3).unwrap(),
    };
    let is_extra = |line: &[u8]| line == b"STLS" && setup.get("stls").is_none();
    play(transcript, connect(), stage.values.clone(), is_extra, |words, client, values, place| {
        match words.split_once(' ').unwrap_or((words, "")) {
            ("left", numbers) => {
                let uid = |number| values[&format!("uid {number}")].clone();
                let expected: Vec<String> = numbers.split_whitespace().map(uid).collect();
                assert_eq!(stage.left(), expected, "{place}");
                client
            }
            ("tls", "") => client.map(|client| client.secured().unwrap()),
            ("again", "") => Some(connect()),
            _ => panic!("{place}: no such words: {words}"),
        }
    });
}

#[test]
fn a_greeting_is_never_the_same_twice() {
    let mut site = Site::new();
    site.add_mailbox("bob@example.com");
    let service = site.start();
    let greeting = || Client::connect(service.ports().pop3).unwrap().line().unwrap();
    let (first, second) = (greeting(), greeting());
    assert!(first.starts_with("+OK POP3 service ready <") && first.ends_with('>'), "{first}");
    assert_ne!(first, second);
    let mut pop3 = Pop3::connect(service.ports().pop3).unwrap();
    assert!(pop3.log_in("bob%example.com", PASSWORD).unwrap().starts_with("+OK"), "% stands for @");
    service.stop();
}
