//! Random sessions compared with the model in `crate::fuzz`, and properties too large for a transcript.

use super::pop3_transcripts::{policy, transcripts};
use super::transcript::{Action, Setup};
use crate::doubles::pop3_driver::connected;
use crate::fuzz;
use crate::message::{Entry, Totals, Uid};
use crate::pop3::{Ending, Event, Next, SLICE_OCTETS, Session, Transmission};
use crate::verdict::Login;

/// A command that a session in TRANSACTION knows, with a number on the list or not, or some other line.
fn random_line(random: &mut fastrand::Rng) -> String {
    let number = match random.u8(0..10) {
        0 => "0".to_owned(),
        1 => "4294967297".to_owned(),
        2 => "+1".to_owned(),
        _ => random.u8(1..6).to_string(),
    };
    match random.u8(0..40) {
        0..8 => format!("DELE {number}"),
        8..13 => format!("RETR {number}"),
        13..17 => format!("TOP {number} {}", random.u8(0..3)),
        17..21 => format!("LIST {number}"),
        21..24 => format!("uidl {number}"),
        24..27 => "LIST".to_owned(),
        27..30 => "Uidl".to_owned(),
        30..33 => "STAT".to_owned(),
        33 => "RSET".to_owned(),
        34 => "QUIT".to_owned(),
        35 => "NOOP".to_owned(),
        36 => "CAPA".to_owned(),
        37 => format!("DELE {}", "9".repeat(random.usize(1..300))),
        38 => "LANG *".to_owned(),
        _ => (0..random.usize(0..20)).map(|_| random.char(' '..='~')).collect(),
    }
}

#[test]
fn random_sessions_do_what_the_model_says() {
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut input = String::from("+");
        for _ in 0..random.usize(1..60) {
            input += &random_line(&mut random);
            input += "\r\n";
        }
        fuzz::pop3(input.as_bytes());
    }
}

#[test]
fn random_octets_between_known_lines_break_no_invariant() {
    let seeds: Vec<Vec<u8>> = transcripts()
        .iter()
        .flat_map(|transcript| &transcript.steps)
        .filter_map(|step| match &step.action {
            Action::Client(octets) if octets.len() < 1000 => Some(octets.clone()),
            _ => None,
        })
        .collect();
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut input = vec![random.u8(..)];
        for _ in 0..random.usize(1..40) {
            input.extend_from_slice(random.choice(&seeds).expect("the transcripts have client lines"));
            if random.u8(0..4) == 0 {
                let at = random.usize(0..input.len());
                input[at] = random.u8(..);
            }
        }
        fuzz::pop3(&input);
    }
}

/// A session in TRANSACTION whose maildrop has this many messages and has not been listed yet.
fn logged_in(messages: u64) -> Session {
    let mut session = Session::new(policy(&Setup::default()), [0; 32], connected());
    let mut out = Vec::new();
    session.handle(Event::Connected, &mut out);
    session.handle(Event::Line(b"USER bob@example.com"), &mut out);
    session.handle(Event::Line(b"PASS secret"), &mut out);
    session.handle(Event::LoggedIn(Login::Welcome(Totals { messages, octets: 1000 * messages })), &mut out);
    session
}

fn entries(messages: u64) -> Vec<Entry> {
    (0..messages).map(|seq| Entry { octets: 1000, uid: Uid { seq, tag: 1 }, foreign_id: None }).collect()
}

#[test]
fn a_long_listing_is_written_in_slices() {
    const MESSAGES: u64 = 100_000;
    for command in ["LIST", "UIDL"] {
        let mut session = logged_in(MESSAGES);
        let mut out = Vec::new();
        assert_eq!(session.handle(Event::Line(command.as_bytes()), &mut out), Next::List);
        let mut next = session.handle(Event::Listed(entries(MESSAGES)), &mut out);
        let mut lines = 0;
        while next == Next::Flush {
            assert!((SLICE_OCTETS..SLICE_OCTETS + 512).contains(&out.len()), "{} octets in out", out.len());
            lines += out.iter().filter(|&&b| b == b'\n').count() as u64;
            out.clear();
            next = session.handle(Event::Flushed, &mut out);
        }
        lines += out.iter().filter(|&&b| b == b'\n').count() as u64;
        assert_eq!(lines, 1 + MESSAGES + 1, "status line, messages, terminator of {command}");
        assert!(out.ends_with(b"\r\n.\r\n"));
    }
}

#[test]
fn the_list_is_read_when_first_needed_and_once() {
    let mut session = logged_in(2);
    let mut out = Vec::new();
    for line in ["STAT", "RSET", "NOOP", "CAPA"] {
        let next = session.handle(Event::Line(line.as_bytes()), &mut out);
        assert!(matches!(next, Next::ReadLine { .. }), "{line} needs no list");
    }
    assert_eq!(session.handle(Event::Line(b"DELE 2"), &mut out), Next::List);
    session.handle(Event::Listed(entries(2)), &mut out);
    for line in ["LIST", "UIDL 1", "STAT", "RSET", "DELE 1"] {
        let next = session.handle(Event::Line(line.as_bytes()), &mut out);
        assert!(matches!(next, Next::ReadLine { .. }), "{line} has the list");
    }
    assert_eq!(
        session.handle(Event::Line(b"QUIT"), &mut out),
        Next::Commit { deleted: vec![entries(2)[0].uid] }
    );
}

#[test]
fn quit_is_answered_after_the_commit_and_not_before() {
    let mut session = logged_in(1);
    let mut out = Vec::new();
    session.handle(Event::Line(b"DELE 1"), &mut out);
    session.handle(Event::Listed(entries(1)), &mut out);
    out.clear();
    session.handle(Event::Line(b"QUIT"), &mut out);
    assert_eq!(out, b"");
    assert_eq!(session.handle(Event::Committed, &mut out), Next::Close(Ending::Quit));
    assert!(out.starts_with(b"+OK"));
}

#[test]
fn a_lock_during_the_commit_is_no_reason_to_say_that_nothing_is_deleted() {
    let mut session = logged_in(1);
    let mut out = Vec::new();
    session.handle(Event::Line(b"DELE 1"), &mut out);
    session.handle(Event::Listed(entries(1)), &mut out);
    session.handle(Event::Line(b"QUIT"), &mut out);
    out.clear();
    assert_eq!(session.handle(Event::Revoked, &mut out), Next::Close(Ending::Revoked));
    assert!(out.starts_with(b"-ERR [SYS/PERM] some deleted messages not removed"));
}

#[test]
fn no_ok_is_written_for_a_text_that_is_not_there_yet() {
    let mut session = logged_in(1);
    let mut out = Vec::new();
    session.handle(Event::Line(b"LIST 1"), &mut out);
    session.handle(Event::Listed(entries(1)), &mut out);
    out.clear();
    let Next::Send(transmission) = session.handle(Event::Line(b"RETR 1"), &mut out) else {
        panic!("RETR asks for the text");
    };
    let Transmission { uid, body_lines, status } = transmission;
    assert_eq!((uid, body_lines, status.as_str()), (entries(1)[0].uid, None, "+OK 1000 octets\r\n"));
    assert_eq!(out, b"");
    session.handle(Event::Gone, &mut out);
    assert!(out.starts_with(b"-ERR"));
}

#[test]
fn what_ends_a_session_from_outside_gets_a_last_word_but_silence_does_not() {
    for (event, ending, word) in [
        (Event::Revoked, Ending::Revoked, "-ERR [SYS/PERM] "),
        (Event::ShuttingDown, Ending::ShuttingDown, "-ERR [SYS/TEMP] "),
        (Event::TimedOut, Ending::TimedOut, ""),
    ] {
        let mut session = logged_in(1);
        let mut out = Vec::new();
        session.handle(Event::Line(b"DELE 1"), &mut out);
        session.handle(Event::Listed(entries(1)), &mut out);
        out.clear();
        assert_eq!(session.handle(event, &mut out), Next::Close(ending));
        let said = String::from_utf8(out).unwrap();
        assert!(said.starts_with(word) && said.is_empty() == word.is_empty(), "{said:?}");
    }
}
