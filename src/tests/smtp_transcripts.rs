//! The dialogues of `testdata/smtp` and `testdata/lmtp`, held with the bare session (format:
//! [`super::receiving_transcript`]).

use std::fs;
use std::path::Path;

use super::receiving_transcript::{Step, escaped, read};
use crate::smtp::Dialect;
use crate::smtp::in_memory::Server;

#[test]
fn smtp_transcripts_hold() {
    hold_all("testdata/smtp", Dialect::Smtp);
}

#[test]
fn lmtp_transcripts_hold() {
    hold_all("testdata/lmtp", Dialect::Lmtp);
}

fn hold_all(folder: &str, dialect: Dialect) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut held = 0;
    for entry in fs::read_dir(&folder).expect("the folder of transcripts") {
        let path = entry.expect("an entry of the folder").path();
        let steps = read(&fs::read_to_string(&path).expect("a transcript"));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        in_turn(&name, dialect, &steps);
        in_cuts(&name, dialect, &steps);
        held += 1;
    }
    assert!(held > 0, "no transcripts in {}", folder.display());
}

/// Every step is answered as it comes, in one piece.
fn in_turn(name: &str, dialect: Dialect, steps: &[Step]) {
    let mut observer = Observer::new(dialect);
    for step in steps {
        observer.server.push(&step.sent);
        assert_eq!(observer.observed(), step.expected, "{name}, sent in line {}", step.line);
    }
}

/// All of the client's octets, pipelined in any pieces, are answered alike.
fn in_cuts(name: &str, dialect: Dialect, steps: &[Step]) {
    let sent: Vec<u8> = steps.iter().flat_map(|step| step.sent.clone()).collect();
    let expected = steps.iter().flat_map(|step| step.expected.clone());
    // Replies and messages are seen on two sides, each in its own order.
    let sides = |line: &String| line.starts_with("D:");
    let expected: (Vec<_>, Vec<_>) = expected.partition(sides);
    for piece in [1, 2, 3, 7, sent.len()] {
        let mut observer = Observer::new(dialect);
        sent.chunks(piece).for_each(|octets| observer.server.push(octets));
        let observed: (Vec<_>, Vec<_>) = observer.observed().into_iter().partition(sides);
        assert_eq!(observed, expected, "{name} in pieces of {piece}");
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

    /// What happened since the last call, in the transcript's notation.
    fn observed(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for (envelope, text) in &self.server.handed_over[self.handed_over..] {
            let recipients: Vec<String> = envelope.recipients.iter().map(ToString::to_string).collect();
            let (from, to, protocol) = (&envelope.reverse_path, recipients.join(","), envelope.protocol);
            lines.push(format!("D: <{from}> {to} {protocol} \"{}\"", escaped(&text.wire)));
        }
        self.handed_over = self.server.handed_over.len();
        let said = String::from_utf8(self.server.said()).expect("replies are text");
        assert!(said.is_empty() || said.ends_with("\r\n"), "a reply is whole lines");
        lines.extend(said.split_terminator("\r\n").map(|line| format!("S: {line}")));
        if self.server.ending().is_some() && !self.closed {
            self.closed = true;
            lines.push("X:".to_owned());
        }
        lines
    }
}
