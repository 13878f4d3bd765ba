//! The dialogues of `testdata/smtp` and `testdata/lmtp`, run against the bare session (format: [`super::transcript`]).
//!
//! A line `! delivered <REVERSE-PATH> RECIPIENT,… PROTOCOL "TEXT"` means that a message was handed over, with its text
//! in wire form. It precedes the replies to the same line.

use std::collections::VecDeque;

use super::transcript::{Action, Step, Transcript, Values, escaped, matches};
use crate::doubles::smtp_driver::Server;
use crate::smtp::Dialect;

#[test]
fn smtp_transcripts_hold() {
    hold_all("testdata/smtp", Dialect::Smtp);
}

#[test]
fn lmtp_transcripts_hold() {
    hold_all("testdata/lmtp", Dialect::Lmtp);
}

fn hold_all(folder: &str, dialect: Dialect) {
    for transcript in Transcript::all_in(folder) {
        in_turn(&transcript, dialect);
        in_cuts(&transcript, dialect);
    }
}

/// Each line of the client is answered before the next one comes.
fn in_turn(transcript: &Transcript, dialect: Dialect) {
    let mut observer = Observer::new(dialect);
    let mut observed = VecDeque::from(observer.observed());
    for Step { line_number, action } in &transcript.steps {
        let place = format!("{}:{line_number}", transcript.name);
        if let Action::Client(octets) = action {
            assert!(observed.is_empty(), "{place}: there was more before it: {observed:?}");
            observer.server.push(octets);
            observed = observer.observed().into();
        } else {
            let next = observed.pop_front().unwrap_or_else(|| panic!("{place}: nothing more came"));
            assert!(is_met(action, &next), "{place}: {next:?}");
        }
    }
    assert!(observed.is_empty(), "{}: there was more at the end: {observed:?}", transcript.name);
}

/// However the client's octets are pipelined and cut, the answers are the same.
fn in_cuts(transcript: &Transcript, dialect: Dialect) {
    let mut sent = Vec::new();
    let mut expected = Vec::new();
    for step in &transcript.steps {
        match &step.action {
            Action::Client(octets) => sent.extend_from_slice(octets),
            action => expected.push(action),
        }
    }
    // Replies and messages are observed separately, each in its own order.
    let is_reply = |action: &&Action| matches!(action, Action::Server(_));
    let expected: (Vec<&Action>, Vec<&Action>) = expected.into_iter().partition(is_reply);
    for piece in [1, 2, 3, 7, sent.len()] {
        let mut observer = Observer::new(dialect);
        sent.chunks(piece).for_each(|octets| observer.server.push(octets));
        let observed = observer.observed();
        let observed: (Vec<&Action>, Vec<&Action>) = observed.iter().partition(is_reply);
        for (expected, observed) in [(&expected.0, observed.0), (&expected.1, observed.1)] {
            let is_same = expected.len() == observed.len()
                && expected.iter().zip(&observed).all(|(expected, observed)| is_met(expected, observed));
            assert!(is_same, "{} in pieces of {piece}: {observed:?}", transcript.name);
        }
    }
}

fn is_met(expected: &Action, observed: &Action) -> bool {
    match (expected, observed) {
        (Action::Server(pattern), Action::Server(line)) => {
            matches(pattern, line.as_bytes(), &mut Values::new())
        }
        (expected, observed) => expected == observed,
    }
}

struct Observer {
    server: Server,
    handed_over: usize,
    closed: bool,
}

impl Observer {
    fn new(dialect: Dialect) -> Self {
        Self { server: Server::connect(dialect), handed_over: 0, closed: false }
    }

    /// What happened since the last call, as in a transcript.
    fn observed(&mut self) -> Vec<Action> {
        let mut observed = Vec::new();
        for (envelope, text) in &self.server.handed_over[self.handed_over..] {
            let recipients: Vec<String> = envelope.recipients.iter().map(ToString::to_string).collect();
            let (from, to, protocol) = (&envelope.reverse_path, recipients.join(","), envelope.protocol);
            let text = escaped(&text.wire);
            observed.push(Action::Other(format!("delivered <{from}> {to} {protocol} \"{text}\"")));
        }
        self.handed_over = self.server.handed_over.len();
        let said = String::from_utf8(self.server.said()).expect("replies are text");
        assert!(said.is_empty() || said.ends_with("\r\n"), "a reply is whole lines");
        observed.extend(said.split_terminator("\r\n").map(|line| Action::Server(line.to_owned())));
        if self.server.ending().is_some() && !self.closed {
            self.closed = true;
            observed.push(Action::Other("closed".to_owned()));
        }
        observed
    }
}
