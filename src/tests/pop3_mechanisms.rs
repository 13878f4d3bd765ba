//! Every login mechanism, with clients that speak it: with the right password and wrong ones, for known and unknown
//! names.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::pop3_transcripts::{mailbox, policy};
use super::transcript::Setup;
use crate::auth::hash::{hmac_md5, md5, work};
use crate::auth::ntlm::{self, channel_hash};
use crate::doubles::pop3_driver::{Conversation, Stage, channel_binding};
use crate::doubles::{ntlm_client, scram_client};
use crate::pop3::{Channel, Policy};

const NAME: &str = "bob@example.com";
const PASSWORD: &str = "two words";
const WRONG: &str = "-ERR [AUTH] wrong name or password";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    UserPass,
    Plain,
    Login,
    Apop,
    CramMd5,
    Scram,
    ScramPlus,
    Ntlm,
    NtlmSession,
}

/// The mechanisms that prove a password without sending it.
const PROOFS: [Way; 6] = [Way::Apop, Way::CramMd5, Way::Scram, Way::ScramPlus, Way::Ntlm, Way::NtlmSession];
const SENDERS: [Way; 3] = [Way::UserPass, Way::Plain, Way::Login];

/// What both sides said, beginning with the greeting.
struct Dialogue {
    conversation: Conversation,
    said: Vec<String>,
    replies: Vec<String>,
}

fn service(seed: u8) -> Dialogue {
    let setup = Setup::default();
    let policy = Policy {
        channel: Channel::Tls(channel_binding()),
        ntlm_level: ntlm::Level::Session,
        ..policy(&setup)
    };
    let mut conversation = Conversation::open(policy, [seed; 32], mailbox(&setup));
    let greeting = String::from_utf8(conversation.take_output()).unwrap();
    Dialogue { conversation, said: Vec::new(), replies: vec![greeting] }
}

impl Dialogue {
    fn say(&mut self, line: &str) -> String {
        self.said.push(line.to_owned());
        self.conversation.receive(format!("{line}\r\n").as_bytes());
        let reply = String::from_utf8(self.conversation.take_output()).unwrap();
        let reply = reply.strip_suffix("\r\n").expect("a reply is a line").to_owned();
        self.replies.push(reply.clone());
        reply
    }

    /// Answers the challenge in the last reply.
    fn answer(&mut self, answer: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        match self.replies.last().and_then(|reply| reply.strip_prefix("+ ")) {
            Some(challenge) => {
                let answer = answer(&STANDARD.decode(challenge).unwrap());
                self.say(&STANDARD.encode(answer))
            }
            None => self.replies.last().cloned().unwrap_or_default(),
        }
    }

    /// The last reply to a client that logs in this way.
    fn log_in(&mut self, way: Way, name: &str, password: &str) -> String {
        match way {
            Way::UserPass => {
                self.say(&format!("USER {name}"));
                self.say(&format!("PASS {password}"))
            }
            Way::Plain => {
                self.say("AUTH PLAIN");
                self.answer(|_| format!("\0{name}\0{password}").into_bytes())
            }
            Way::Login => {
                self.say("AUTH LOGIN");
                self.answer(|_| name.as_bytes().to_vec());
                self.answer(|_| password.as_bytes().to_vec())
            }
            Way::Apop => {
                let greeting = self.replies[0].clone();
                let stamp = &greeting[greeting.find('<').unwrap()..=greeting.find('>').unwrap()];
                let digest = hexadecimal(md5(&[stamp.as_bytes(), password.as_bytes()]));
                self.say(&format!("APOP {name} {digest}"))
            }
            Way::CramMd5 => {
                self.say("AUTH CRAM-MD5");
                self.answer(|challenge| {
                    let digest = hexadecimal(hmac_md5(password.as_bytes(), &[challenge]));
                    format!("{name} {digest}").into_bytes()
                })
            }
            Way::Scram => {
                self.say("AUTH SCRAM-SHA-256");
                self.scram(&scram_client::Client::new(name, password))
            }
            Way::ScramPlus => {
                self.say("AUTH SCRAM-SHA-256-PLUS");
                let client = scram_client::Client::new(name, password);
                let gs2_header = "p=tls-exporter,,".to_owned();
                let channel_data = channel_binding().exporter.unwrap().to_vec();
                self.scram(&scram_client::Client { gs2_header, channel_data, ..client })
            }
            Way::Ntlm => {
                let client = ntlm_client::Client::new(name, password);
                let channel_hash = Some(channel_hash(&channel_binding()));
                self.ntlm(&ntlm_client::Client { channel_hash, ..client })
            }
            Way::NtlmSession => {
                let client = ntlm_client::Client::new(name, password);
                let level = ntlm::Level::Session;
                self.ntlm(&ntlm_client::Client { level, states_code: false, has_code: false, ..client })
            }
        }
    }

    fn scram(&mut self, client: &scram_client::Client) -> String {
        self.answer(|_| client.first().into_bytes());
        let mut expected = String::new();
        self.answer(|server_first| {
            let (last, server_final) = client.last(str::from_utf8(server_first).unwrap());
            expected = server_final;
            last.into_bytes()
        });
        self.answer(|server_final| {
            assert_eq!(server_final, expected.as_bytes(), "the client knows us by it");
            Vec::new()
        })
    }

    fn ntlm(&mut self, client: &ntlm_client::Client) -> String {
        self.say("AUTH NTLM");
        self.answer(|_| client.negotiate());
        self.answer(|challenge| client.authenticate(challenge))
    }

    fn is_closed(&self) -> bool {
        self.conversation.stage == Stage::Closed
    }
}

fn hexadecimal(digest: [u8; 16]) -> String {
    digest.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn every_mechanism_accepts_the_right_password_and_no_other() {
    for way in PROOFS.into_iter().chain(SENDERS) {
        let mut dialogue = service(1);
        assert_eq!(dialogue.log_in(way, NAME, "two words "), WRONG, "{way:?}");
        assert_eq!(dialogue.log_in(way, NAME, ""), WRONG, "{way:?}");
        assert_eq!(dialogue.log_in(way, "eve@example.com", PASSWORD), WRONG, "{way:?}");
        assert!(!dialogue.conversation.logged_in);
        if PROOFS.contains(&way) {
            assert_eq!(dialogue.conversation.denied, [NAME, NAME, "eve@example.com"], "{way:?}");
        }
        assert!(dialogue.log_in(way, NAME, PASSWORD).starts_with("+OK maildrop has"), "{way:?}");
        assert!(dialogue.conversation.logged_in);
    }
}

/// Instead of time, this compares what takes time: the hashes computed, the lines and their lengths.
#[test]
fn an_unknown_name_costs_the_same_work_and_lines_as_a_wrong_password() {
    for way in PROOFS {
        let observe = |name| {
            let mut dialogue = service(1);
            work::take();
            dialogue.log_in(way, name, "wrong");
            let lengths: Vec<usize> = dialogue.replies.iter().map(String::len).collect();
            (work::take(), lengths)
        };
        assert_eq!(observe("eve@example.com"), observe(NAME), "{way:?}");
    }
}

#[test]
fn a_response_to_one_challenge_does_not_answer_another() {
    for way in PROOFS {
        let mut seen = service(1);
        seen.log_in(way, NAME, PASSWORD);
        assert!(seen.conversation.logged_in);
        let mut replayed = service(2);
        let replies: Vec<String> = seen.said.iter().map(|line| replayed.say(line)).collect();
        assert!(replies.iter().any(|reply| reply == WRONG), "{way:?}: {replies:?}");
        assert!(!replayed.conversation.logged_in, "{way:?}");
    }
}

#[test]
fn our_own_challenges_sent_back_are_refused() {
    for mechanism in ["CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "NTLM"] {
        let mut dialogue = service(1);
        dialogue.say(&format!("AUTH {mechanism}"));
        dialogue.answer(<[u8]>::to_vec);
        assert!(dialogue.replies.last().is_some_and(|reply| reply.starts_with("-ERR ")), "{mechanism}");
    }
    let client = scram_client::Client::new(NAME, PASSWORD);
    let mut dialogue = service(1);
    dialogue.say("AUTH SCRAM-SHA-256");
    dialogue.answer(|_| client.first().into_bytes());
    assert_eq!(dialogue.answer(<[u8]>::to_vec), "-ERR the response to AUTH is malformed");
    let client = ntlm_client::Client::new(NAME, PASSWORD);
    dialogue.say("AUTH NTLM");
    dialogue.answer(|_| client.negotiate());
    assert_eq!(dialogue.answer(<[u8]>::to_vec), "-ERR the response to AUTH is malformed");
}

#[test]
fn responses_that_are_cut_or_too_long_are_refused() {
    for way in PROOFS {
        let mut whole = service(1);
        whole.log_in(way, NAME, PASSWORD);
        // The last line before the login is the proof; SCRAM sends an empty one after it.
        let at = whole.said.iter().rposition(|line| !line.is_empty()).unwrap();
        let proof = whole.said[at].clone();
        for changed in [&proof[..proof.len() / 2], &proof[..proof.len() - 4], &format!("{proof}AAAA"), "*"] {
            let mut dialogue = service(1);
            for line in &whole.said[..at] {
                dialogue.say(line);
            }
            let reply = dialogue.say(changed);
            assert!(reply.starts_with("-ERR "), "{way:?}: {changed}: {reply}");
            assert_eq!(dialogue.say("STAT"), "-ERR log in first", "{way:?}: {changed}");
        }
        let mut dialogue = service(1);
        for line in &whole.said[..at] {
            dialogue.say(line);
        }
        assert!(dialogue.say(&"A".repeat(20_000)).starts_with("-ERR "), "{way:?}");
        assert!(!dialogue.is_closed());
    }
}

#[test]
fn the_first_answer_may_come_with_auth_unless_there_is_nothing_to_answer_yet() {
    let client = scram_client::Client::new(NAME, PASSWORD);
    let mut dialogue = service(1);
    dialogue.say(&format!("AUTH SCRAM-SHA-256 {}", STANDARD.encode(client.first())));
    dialogue.answer(|first| client.last(str::from_utf8(first).unwrap()).0.into_bytes());
    // curl writes an empty response like this.
    assert!(dialogue.say("=").starts_with("+OK "));

    let client = ntlm_client::Client::new(NAME, PASSWORD);
    let mut dialogue = service(1);
    dialogue.say(&format!("AUTH NTLM {}", STANDARD.encode(client.negotiate())));
    assert!(dialogue.answer(|challenge| client.authenticate(challenge)).starts_with("+OK "));

    let response = STANDARD.encode(format!("{NAME} 00000000000000000000000000000000"));
    for initial in ["=", &response] {
        let reply = service(1).say(&format!("AUTH CRAM-MD5 {initial}"));
        assert_eq!(reply, "-ERR the response to AUTH is malformed");
    }
}

#[test]
fn scram_is_for_oneself_and_through_the_channel_that_it_names() {
    let with_header = |gs2_header: &str, mechanism: &str| {
        let mut dialogue = service(1);
        dialogue.say(&format!("AUTH {mechanism}"));
        let client = scram_client::Client::new(NAME, PASSWORD);
        dialogue.scram(&scram_client::Client { gs2_header: gs2_header.to_owned(), ..client })
    };
    assert!(with_header("n,a=BOB%example.com,", "SCRAM-SHA-256").starts_with("+OK "));
    assert_eq!(with_header("n,a=eve@example.com,", "SCRAM-SHA-256"), WRONG);
    assert!(with_header("y,,", "SCRAM-SHA-256").starts_with("-ERR [AUTH] channel binding mismatch"));
    let other_channel = with_header("p=tls-exporter,,", "SCRAM-SHA-256-PLUS");
    assert!(other_channel.starts_with("-ERR [AUTH] channel binding mismatch"));
}

#[test]
fn random_messages_and_random_changes_prove_nothing() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut octets: Vec<u8> = (0..random.usize(0..120)).map(|_| random.u8(..)).collect();
        crate::fuzz::scram(&octets);
        crate::fuzz::ntlm(&octets);
        // Few changes, so that the first fields stay readable.
        octets.iter_mut().skip(2).filter(|_| random.u8(0..20) > 0).for_each(|octet| *octet = 0);
        crate::fuzz::ntlm(&octets);
        let first = scram_client::Client::new(NAME, PASSWORD).first();
        crate::fuzz::scram(&[&octets[..octets.len().min(1)], first.as_bytes(), b"\n", &octets].concat());
    }
}
