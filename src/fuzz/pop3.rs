//! POP3 dialogues compared with a small model.

use std::collections::BTreeSet;

use crate::auth::ntlm::Level;
use crate::doubles::pop3_driver::{Conversation, Mailbox, Message, Stage};
use crate::pop3::{Channel, Policy};

/// Sends the octets to a mailbox of four messages and compares the replies with a model that knows only which messages
/// are marked. If the first octet is below 128, a login comes first, so that both states are reached.
pub fn pop3(data: &[u8]) {
    let mut conversation = Conversation::open(policy(), [0; 32], mailbox());
    let greeting = conversation.take_output();
    assert_replies(&greeting);
    if data.first().is_some_and(|&first| first < 128) {
        conversation.receive(b"USER bob@example.com\r\nPASS secret\r\n");
        assert_replies(&conversation.take_output());
        assert!(conversation.logged_in);
    }
    let mut model = Model::default();
    for line in data.get(1..).unwrap_or_default().split_inclusive(|&b| b == b'\n') {
        let was_in_transaction = conversation.logged_in && conversation.stage != Stage::Closed;
        conversation.receive(line);
        let output = conversation.take_output();
        assert_replies(&output);
        if was_in_transaction && line.ends_with(b"\n") {
            model.hold(line, &output);
        }
    }
    if conversation.stage == Stage::Handshake {
        conversation.finish_handshake();
        conversation.receive(data);
        assert_replies(&conversation.take_output());
    }
    assert!(conversation.deleted.is_empty() || conversation.stage == Stage::Closed);
    assert_eq!(conversation.deleted, model.committed, "QUIT commits what is marked, and nothing else");
}

fn policy() -> Policy {
    Policy {
        hostname: "mail.example.com".to_owned(),
        channel: Channel::Clear { stls_offered: true },
        plaintext_allowed: true,
        spa_required: false,
        secrets_available: true,
        verifiers_available: true,
        ntlm_domain: None,
        passwords_wanted: false,
        ntlm_level: Level::V1,
        expire_days: None,
        login_delay_seconds: 0,
    }
}

/// Texts of different lengths, so that no sum is right by chance. One has stuffed dots.
fn mailbox() -> Mailbox {
    let text = |number: usize| format!("Subject: {number}\r\n\r\n..\r\n{}\r\n", "x".repeat(1 << number));
    Mailbox {
        name: "bob@example.com".to_owned(),
        password: "secret".to_owned(),
        messages: Message::sequence((0..4).map(|number| text(number).into_bytes())),
        ..Mailbox::default()
    }
}

/// Replies are whole lines of at most 512 octets (RFC 2449 section 4), except challenges. The texts above keep to that
/// too.
fn assert_replies(output: &[u8]) {
    assert!(output.is_empty() || output.ends_with(b"\r\n"), "replies are whole lines");
    for line in output.split_inclusive(|&b| b == b'\n') {
        assert!(line.ends_with(b"\r\n") && !line[..line.len() - 2].contains(&b'\r'));
        assert!(line.len() <= 512 || line.starts_with(b"+ "), "a reply line of {} octets", line.len());
    }
}

/// Which messages a session in TRANSACTION has marked, according to its commands and replies.
#[derive(Default)]
struct Model {
    marked: BTreeSet<usize>,
    committed: Vec<usize>,
}

impl Model {
    fn hold(&mut self, line: &[u8], output: &[u8]) {
        let line = String::from_utf8_lossy(line).to_ascii_uppercase();
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let output = std::str::from_utf8(output).expect("our replies and our texts are ASCII");
        let replies: Vec<&str> = output.lines().collect();
        assert!(!replies.is_empty(), "every line is answered");
        let accepted = replies[0].starts_with("+OK");
        assert!(accepted || (replies[0].starts_with("-ERR ") && replies.len() == 1), "{replies:?}");
        if !accepted {
            return;
        }
        let entries = mailbox().entries(false);
        let listed: Vec<usize> = (0..entries.len()).filter(|index| !self.marked.contains(index)).collect();
        match words[..] {
            ["STAT"] => {
                let octets: u64 = listed.iter().map(|&index| entries[index].octets).sum();
                assert_eq!(replies, [format!("+OK {} {octets}", listed.len())]);
            }
            ["LIST"] => {
                let line = |&index: &usize| format!("{} {}", index + 1, entries[index].octets);
                assert_listing(&replies, listed.iter().map(line).collect());
            }
            ["UIDL"] => {
                let line = |&index: &usize| format!("{} {}", index + 1, entries[index].uid);
                assert_listing(&replies, listed.iter().map(line).collect());
            }
            ["LIST", number] => {
                let index = self.unmarked(number);
                assert_eq!(replies, [format!("+OK {} {}", index + 1, entries[index].octets)]);
            }
            ["UIDL", number] => {
                let index = self.unmarked(number);
                assert_eq!(replies, [format!("+OK {} {}", index + 1, entries[index].uid)]);
            }
            ["RETR", number] => {
                let text = mailbox().messages[self.unmarked(number)].text.clone();
                let text = String::from_utf8(text).expect("our texts are ASCII");
                assert_listing(&replies, text.lines().map(str::to_owned).collect());
            }
            ["TOP", number, _] => assert_eq!(replies[1], format!("Subject: {}", self.unmarked(number))),
            ["DELE", number] => {
                let index = self.unmarked(number);
                self.marked.insert(index);
            }
            ["RSET"] => self.marked.clear(),
            ["QUIT"] => self.committed = self.marked.iter().copied().collect(),
            ["NOOP"] | ["CAPA"] | ["LANG", ..] => {}
            _ => panic!("accepted, though it is no command: {line}"),
        }
    }

    /// The position of a message that a command was accepted for.
    fn unmarked(&self, number: &str) -> usize {
        let number: usize = number.parse().expect("a number that was accepted is one");
        assert!((1..=mailbox().messages.len()).contains(&number), "message {number} is in the list");
        assert!(!self.marked.contains(&(number - 1)), "message {number} is marked as deleted");
        number - 1
    }
}

fn assert_listing(replies: &[&str], expected: Vec<String>) {
    let (Some(&"."), listed) = (replies.last(), &replies[1..replies.len() - 1]) else {
        panic!("a listing ends with a dot: {replies:?}");
    };
    assert_eq!(listed, expected);
}
