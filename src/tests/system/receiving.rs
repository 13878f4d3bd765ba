//! The dialogues of `testdata/smtp` and `testdata/lmtp` over a socket, with the service and its store. The delivered
//! messages must arrive in the mailboxes.
//!
//! A file is skipped if a test from outside cannot set up what it needs: mailboxes named after a fault or a full quota,
//! and a message limit of 200 octets, far below the least that `maxmessagesize` takes.

use super::client::{Client, without_trace};
use super::dialogue::play;
use super::service::Service;
use crate::harness::site::Site;
use crate::transcript::{Action, Step, Transcript, Values, escaped};

const BEYOND: [&str; 4] = ["<late-", "<full@", "<fault@", "Message too large"];
/// The least number of files that must be played.
const SMTP_HELD_MIN: usize = 40;
const LMTP_HELD_MIN: usize = 16;
const RECIPIENTS: [&str; 3] = ["ann@example.com", "bob@example.com", "postmaster@example.com"];

#[test]
fn smtp_transcripts_hold_over_a_socket() {
    hold_all("testdata/smtp", |service| service.ports().smtp, SMTP_HELD_MIN);
}

#[test]
fn lmtp_transcripts_hold_over_a_socket() {
    hold_all("testdata/lmtp", |service| service.ports().lmtp, LMTP_HELD_MIN);
}

#[test]
fn a_mailbox_named_with_a_thousand_details_answers_each_and_keeps_one_copy() {
    let mut site = Site::new();
    site.add_mailbox("ann@example.com");
    site.add_mailbox("bob@example.com");
    let service = site.start();
    let mut named: Vec<String> = (1..1000).map(|number| format!("ann+{number}@example.com")).collect();
    named.push("bob@example.com".to_owned());
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let replies = service.lmtp().deliver(&named, b"Subject: x\r\n\r\nhello\r\n").unwrap();
    assert_eq!(replies.len(), 1000);
    assert!(replies.iter().all(|reply| reply.starts_with("250 ")), "{replies:?}");
    for mailbox in ["ann@example.com", "bob@example.com"] {
        assert_eq!(service.log_in(mailbox).count().unwrap(), 1, "{mailbox}");
    }
    service.stop();
}

#[test]
fn a_mailbox_whose_name_has_a_plus_gets_its_mail_and_other_details_do_not() {
    let mut site = Site::new();
    site.add_mailbox("bob@example.com");
    site.add_mailbox("bob+x@example.com");
    let service = site.start();
    let named = ["bob+x@example.com", "BOB+X@example.com", "bob+y@example.com"];
    let replies = service.lmtp().deliver(&named, b"Subject: one\r\n\r\nhello\r\n").unwrap();
    assert!(replies.iter().all(|reply| reply.starts_with("250 ")), "{replies:?}");
    let replies = service.lmtp().deliver(&named[..1], b"Subject: two\r\n\r\nhello\r\n").unwrap();
    assert!(replies[0].starts_with("250 "), "{replies:?}");
    assert_eq!(service.log_in("bob+x@example.com").count().unwrap(), 2);
    assert_eq!(service.log_in("bob@example.com").count().unwrap(), 1);
    service.stop();
}

fn hold_all(folder: &str, port: fn(&Service) -> u16, held_min: usize) {
    let mut site = Site::new();
    site.winpop(&["set", "hostname", "mail.example.com"]);
    site.winpop(&["set", "maxmessagesize", "64KiB"]);
    RECIPIENTS.iter().for_each(|address| site.add_mailbox(address));
    let service = site.start();
    let mut transcripts = Transcript::all_in(folder);
    transcripts.iter_mut().flat_map(|transcript| &mut transcript.steps).for_each(at_least_size);
    let mut held = 0;
    for transcript in transcripts.iter().filter(|transcript| !is_beyond(transcript)) {
        hold(transcript, &service, port(&service));
        held += 1;
    }
    println!("{held} of {} transcripts held", transcripts.len());
    assert!(held >= held_min, "only {held} of {} transcripts can be held", transcripts.len());
    service.stop();
    site.assert_clean();
}

/// The in-memory session accepts 200 octets, but the setting's minimum is this.
fn at_least_size(step: &mut Step) {
    if step.action == Action::Server("250-SIZE 200".to_owned()) {
        step.action = Action::Server("250-SIZE 65536".to_owned());
    }
}

fn is_beyond(transcript: &Transcript) -> bool {
    transcript.steps.iter().any(|step| {
        let said = match &step.action {
            Action::Client(octets) => String::from_utf8_lossy(octets),
            Action::Server(line) => line.into(),
            _ => return false,
        };
        BEYOND.iter().any(|words| said.contains(words))
    })
}

fn hold(transcript: &Transcript, service: &Service, port: u16) {
    let name = &transcript.name;
    let client = Client::connect(port).unwrap();
    let mut handed_over = Vec::new();
    play(
        transcript,
        client,
        Values::new(),
        |_| false,
        |words, client, _, place| {
            let message = words.strip_prefix("delivered ");
            handed_over.push(message.unwrap_or_else(|| panic!("{place}: no such words: {words}")).to_owned());
            client
        },
    );
    for recipient in RECIPIENTS {
        let expected: Vec<String> = handed_over.iter().flat_map(|line| copies(line, recipient)).collect();
        assert_eq!(fetch(service, recipient), expected, "{name}, mail of {recipient}");
    }
}

/// One recipient's copies of a delivered message: reverse path, protocol and text.
fn copies(handed_over: &str, recipient: &str) -> Vec<String> {
    // The reverse path may contain spaces; what follows has none before the text.
    let (envelope, text) = handed_over.split_once(" \"").expect("a text in quotes");
    let mut words = envelope.rsplitn(3, ' ');
    let (protocol, recipients, from) = (words.next(), words.next(), words.next());
    let (Some(protocol), Some(recipients), Some(from)) = (protocol, recipients, from) else {
        panic!("no message handed over: {handed_over}")
    };
    let is_theirs = |typed: &&str| {
        let typed = typed.split_once('+').map_or(*typed, |(name, _)| name);
        recipient == typed || recipient == format!("{typed}@example.com")
    };
    // A mailbox gets one copy, however often and with whatever detail it is named.
    let is_named = recipients.split(',').any(|typed| is_theirs(&typed));
    is_named.then(|| format!("{from} {protocol} \"{text}")).into_iter().collect()
}

/// Takes all mail out of a mailbox, in the form of [`copies`].
fn fetch(service: &Service, recipient: &str) -> Vec<String> {
    let mut session = service.log_in(recipient);
    let mut found = Vec::new();
    for number in 1..=session.count().unwrap() {
        let (trace, text) = without_trace(&session.lines(&format!("RETR {number}")).unwrap());
        let between = |before: &str, after: &str| {
            let (_, rest) = trace.split_once(before).unwrap_or_else(|| panic!("no \"{before}\" in {trace}"));
            rest.split_once(after).unwrap_or_else(|| panic!("no \"{after}\" in {trace}")).0.to_owned()
        };
        let (from, protocol) = (between("Return-Path: ", "\r\n"), between(" with ", " id "));
        assert_eq!(between("for <", ">"), between("Delivered-To: ", "\r\n"));
        found.push(format!("{from} {protocol} \"{}\"", escaped(&text)));
        session.delete(number).unwrap();
    }
    session.quit().unwrap();
    found
}
