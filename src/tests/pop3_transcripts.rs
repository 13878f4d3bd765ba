//! The dialogues of `testdata/pop3`, run against the bare session and a mailbox in memory (format:
//! [`super::transcript`]).
//!
//! Setup keys, beyond messages:
//!
//! | key | means |
//! | --- | --- |
//! | `mailbox`, `password` | default `bob@example.com` and `two words` |
//! | `plaintext: no` | passwords in clear are refused |
//! | `sparequired: 1`, `ntlmlevel: 0`, `expire: 30`, `logindelay: 60` | the settings of these names |
//! | `stls: yes`, `tls: yes` | STLS is offered; the connection began with TLS |
//! | `locked: yes`, `held: yes` | the mailbox is locked; another session holds the maildrop |
//! | `secrets: no` | the key that opens sealed passwords is missing |
//! | `unrecoverable: yes` | it does not open this mailbox's password |
//! | `seed: 7` | challenges are drawn from this; only a bare session lets it be chosen |
//! | `fault: login`, `list`, `text` or `commit` | this fails in the store |
//! | `gone: 2` | this message's text vanishes after it is listed |
//!
//! Values: `{octets N}` and `{uid N}` of the Nth message, `{octets all}` for all together, as the store has them. The
//! store may add header fields in front of a text, so `S*` precedes the first header line.
//!
//! `!` lines: `left 1 3`: the maildrop now holds exactly these messages; `again`: the client reconnects; `tls`: both
//! sides do the handshake that STLS began.

use super::transcript::{Action, Setup, Step, Transcript, Values, matches};
use crate::auth::ntlm::Level;
use crate::doubles::pop3_driver::{Conversation, Fault, Mailbox, Message, Stage, channel_binding};
use crate::pop3::{Channel, Policy};
use crate::verdict::Login;

pub fn transcripts() -> Vec<Transcript> {
    Transcript::all_in("testdata/pop3")
}

pub fn policy(setup: &Setup) -> Policy {
    let number = |key| setup.get(key).map(|value| value.parse().expect("a number"));
    Policy {
        hostname: "mail.example.com".to_owned(),
        channel: match (setup.get("tls"), setup.get("stls")) {
            (Some("yes"), _) => Channel::Tls(channel_binding()),
            (_, stls) => Channel::Clear { stls_offered: stls == Some("yes") },
        },
        spa_required: setup.get("sparequired") == Some("1"),
        secrets_available: setup.get("secrets") != Some("no"),
        passwords_wanted: setup.get("passwords") == Some("wanted"),
        verifiers_available: setup.get("verifiers") != Some("no"),
        ntlm_domain: setup.get("ntlmdomain").map(str::to_owned),
        ntlm_level: match setup.get("ntlmlevel") {
            Some("0") => Level::V1,
            Some("1") => Level::Session,
            _ => Level::V2,
        },
        plaintext_allowed: setup.get("plaintext") != Some("no"),
        expire_days: number("expire"),
        login_delay_seconds: number("logindelay").unwrap_or(0),
    }
}

pub fn mailbox(setup: &Setup) -> Mailbox {
    let is = |key| setup.get(key) == Some("yes");
    let refusal = match (is("locked"), is("held"), is("incomplete")) {
        (true, _, _) => Some(Login::Locked),
        (_, true, _) => Some(Login::InUse),
        (_, _, true) => Some(Login::Incomplete),
        _ => None,
    };
    let fault = setup.get("fault").map(|what| match what {
        "login" => Fault::Login,
        "list" => Fault::List,
        "text" => Fault::Text,
        "commit" => Fault::Commit,
        _ => panic!("no such fault: {what}"),
    });
    Mailbox {
        name: setup.get("mailbox").unwrap_or("bob@example.com").to_owned(),
        password: setup.get("password").unwrap_or("two words").to_owned(),
        messages: Message::sequence(setup.messages.iter().map(|content| stuff(content))),
        unrecoverable: setup.get("unrecoverable") == Some("yes"),
        refusal,
        fault,
        damaged: setup.get("damaged") == Some("yes"),
        gone: setup.get("gone").map(|number| number.parse::<usize>().unwrap() - 1).into_iter().collect(),
    }
}

fn open(transcript: &Transcript, mailbox: Mailbox) -> Conversation {
    let seed = transcript.setup.get("seed").map_or(0, |seed| seed.parse().expect("an octet"));
    Conversation::open(policy(&transcript.setup), [seed; 32], mailbox)
}

/// Contents to wire form: the first dot of a line is doubled (RFC 1939 section 3).
fn stuff(content: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in content.split_inclusive(|&b| b == b'\n') {
        if line.starts_with(b".") {
            text.push(b'.');
        }
        text.extend_from_slice(line);
    }
    text
}

fn values(mailbox: &Mailbox) -> Values {
    let mut values = Values::new();
    for (number, entry) in (1..).zip(mailbox.entries(false)) {
        values.insert(format!("octets {number}"), entry.octets.to_string());
        values.insert(format!("uid {number}"), entry.uid.to_string());
    }
    values.insert("octets all".to_owned(), mailbox.totals(false).octets.to_string());
    values
}

#[test]
fn every_transcript_holds_exactly() {
    let transcripts = transcripts();
    assert!(transcripts.len() >= 20, "the transcripts are where they are looked for");
    for transcript in &transcripts {
        hold(transcript);
    }
}

fn hold(transcript: &Transcript) {
    let mailbox = mailbox(&transcript.setup);
    let mut values = values(&mailbox);
    let mut conversation = open(transcript, mailbox);
    let mut received = Vec::new();
    let mut any = false;
    for Step { line_number, action } in &transcript.steps {
        let place = format!("{}:{line_number}", transcript.name);
        received.extend(conversation.take_output());
        match action {
            Action::Client(octets) => conversation.receive(octets),
            Action::ServerAny => any = true,
            Action::Server(pattern) => {
                while !expect_line(&mut received, pattern, &mut values, any, &place) {}
                any = false;
            }
            Action::Other(words) => {
                // Show unexpected lines in the failure.
                let unread = String::from_utf8_lossy(&received);
                assert_eq!(unread, "", "{place}: the server had more to say");
                check(words, &mut conversation, transcript, &values, &place);
            }
        }
    }
    received.extend(conversation.take_output());
    let unread = String::from_utf8_lossy(&received);
    assert_eq!(unread, "", "{}: the server had more to say at the end", transcript.name);
}

/// Takes a line. Returns whether it matches the pattern; if not, panics unless `any` line will do.
fn expect_line(received: &mut Vec<u8>, pattern: &str, values: &mut Values, any: bool, place: &str) -> bool {
    let end = received.windows(2).position(|pair| pair == b"\r\n");
    let end = end.unwrap_or_else(|| panic!("{place}: the server says nothing more, expected {pattern}"));
    let line: Vec<u8> = received.drain(..end + 2).take(end).collect();
    let matched = matches(pattern, &line, values);
    assert!(matched || any, "{place}: expected {pattern}, got {}", String::from_utf8_lossy(&line));
    matched
}

fn check(
    words: &str,
    conversation: &mut Conversation,
    transcript: &Transcript,
    values: &Values,
    place: &str,
) {
    match words.split_once(' ').unwrap_or((words, "")) {
        ("closed", "") => assert_eq!(conversation.stage, Stage::Closed, "{place}"),
        ("hang", "up") => conversation.stage = Stage::Closed,
        ("left", numbers) => {
            let expected: Vec<&String> =
                numbers.split_whitespace().map(|number| &values[&format!("uid {number}")]).collect();
            let left: Vec<String> =
                conversation.mailbox.entries(false).iter().map(|entry| entry.uid.to_string()).collect();
            assert_eq!(left.iter().collect::<Vec<_>>(), expected, "{place}");
        }
        ("tls", "") => conversation.finish_handshake(),
        ("again", "") => {
            *conversation = open(transcript, conversation.mailbox.clone());
        }
        _ => panic!("{place}: no such words: {words}"),
    }
}

#[test]
fn any_cut_of_the_input_gives_the_same_output() {
    let mut random = fastrand::Rng::with_seed(1939);
    for transcript in transcripts() {
        let mut input = Vec::new();
        for step in &transcript.steps {
            if let Action::Client(octets) = &step.action {
                input.extend_from_slice(octets);
            }
        }
        let talk = |pieces: &[usize]| {
            let mut conversation = open(&transcript, mailbox(&transcript.setup));
            let mut output = Vec::new();
            let mut rest = &input[..];
            for &octets in pieces {
                let (piece, after) = rest.split_at(octets.min(rest.len()));
                conversation.receive(piece);
                output.extend(conversation.take_output());
                rest = after;
            }
            assert!(rest.is_empty(), "the pieces are the whole input");
            (output, conversation.deleted)
        };
        let whole = talk(&[input.len()]);
        assert_eq!(talk(&vec![1; input.len()]), whole, "{} octet by octet", transcript.name);
        for _ in 0..20 {
            let pieces: Vec<usize> = (0..input.len()).map(|_| random.usize(1..40)).collect();
            assert_eq!(talk(&pieces), whole, "{} cut into {pieces:?}", transcript.name);
        }
    }
}
