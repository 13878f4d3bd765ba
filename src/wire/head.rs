//! The start of a text, changed so that our header fields and the text's own form one header:
//!
//! - If the first line is not a header field, or begins with a blank, an empty line goes in front. Otherwise that line
//!   would continue our last field or look like part of our header.
//! - An mbox `From ` line (RFC 4155 appendix A) is dropped if a field follows; it repeats the envelope.
//! - Return-Path fields are dropped, because final delivery adds its own (RFC 5321 section 4.4).
//!
//! Applying this twice changes nothing more.

use memchr::memchr;

use super::surrogate::Sizer;

/// Most octets held back until the kind of a line is known. A longer name is not a field name, and a longer `From `
/// line is text (RFC 5322 section 2.1.1 limits a line to 998).
const HELD_OCTETS_MAX: usize = 1000;

const RETURN_PATH: &[u8] = b"return-path";

/// Takes a text in wire form, split anywhere, and gives the part that is kept.
#[derive(Debug)]
pub struct Head {
    state: State,
    /// The undecided start of a line, preceded by the mbox line if there was one.
    held: Vec<u8>,
    mbox_line_octets: usize,
    /// Whether a field has been kept, so the text has a header.
    has_field: bool,
    /// Whether the current field, with its continuation lines, is dropped.
    dropping: bool,
    added_octets: u64,
    dropped_octets: u64,
    surrogate: Sizer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of an undecided line.
    LineStart,
    /// Inside a decided line.
    Line,
    /// Inside a first line that may be an mbox line.
    MboxLine,
    Body,
}

/// The kind of a line, as far as its first octets tell.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    Undecided,
    Field,
    ReturnPath,
    Continuation,
    Empty,
    Text,
}

impl Head {
    pub fn new() -> Self {
        Self {
            state: State::LineStart,
            held: Vec::new(),
            mbox_line_octets: 0,
            has_field: false,
            dropping: false,
            added_octets: 0,
            dropped_octets: 0,
            surrogate: Sizer::default(),
        }
    }

    /// Keeps a text as it is.
    pub fn verbatim() -> Self {
        Self { state: State::Body, ..Self::new() }
    }

    /// Appends to `wire` what is kept. CRLF is never split between calls.
    pub fn push(&mut self, mut octets: &[u8], wire: &mut Vec<u8>) {
        while let Some(&first) = octets.first() {
            octets = match self.state {
                State::Body => return wire.extend_from_slice(octets),
                State::LineStart => {
                    self.held.push(first);
                    self.decide(wire);
                    &octets[1..]
                }
                State::Line => {
                    let (line, rest) = split_line(octets);
                    match self.dropping {
                        true => self.dropped_octets += line.len() as u64,
                        false => {
                            self.surrogate.push(line);
                            wire.extend_from_slice(line);
                        }
                    }
                    if line.ends_with(b"\n") {
                        self.state = State::LineStart;
                    }
                    rest
                }
                State::MboxLine => {
                    let (line, rest) = split_line(octets);
                    self.held.extend_from_slice(line);
                    if self.held.len() > HELD_OCTETS_MAX {
                        self.begin_body(wire);
                    } else if line.ends_with(b"\n") {
                        self.mbox_line_octets = self.held.len();
                        self.state = State::LineStart;
                    }
                    rest
                }
            };
        }
    }

    /// Ends the text, which is empty or ends with a line end.
    pub fn finish(&mut self, wire: &mut Vec<u8>) {
        if !self.held.is_empty() {
            self.begin_body(wire);
        }
    }

    /// The content octets kept of a text of `octets`.
    pub fn kept_octets(&self, octets: u64) -> u64 {
        octets + self.added_octets - self.dropped_octets
    }

    /// The content octets of the surrogate of a text of `octets`; `None` if it needs no surrogate. Call it after
    /// [`Self::finish`].
    pub fn surrogate_octets(&mut self, octets: u64) -> Option<u64> {
        let difference = self.surrogate.finish()?;
        Some(self.kept_octets(octets).checked_add_signed(difference).expect("a surrogate has a length"))
    }

    /// Called after each octet of a line until it is decided. What comes before the last octet is therefore known;
    /// looking at all of it again would take quadratic time for a name with many blanks.
    fn decide(&mut self, wire: &mut Vec<u8>) {
        let line = &self.held[self.mbox_line_octets..];
        let start = match line {
            line if self.has_field => later_line(line),
            [b' ' | b'\t', ..] if self.dropping => Start::Continuation,
            line => first_line(line),
        };
        match start {
            Start::Undecided => {}
            Start::Continuation => self.go_on(self.dropping, wire),
            Start::ReturnPath => self.go_on(true, wire),
            Start::Field => {
                self.has_field = true;
                self.surrogate.begin_field();
                self.go_on(false, wire);
            }
            // Nothing but a Return-Path came before: this line ends our header.
            Start::Empty if self.mbox_line_octets == 0 => {
                wire.append(&mut self.held);
                self.state = State::Body;
            }
            // In the middle of a header this is left to the reader.
            Start::Text if self.has_field => {
                self.surrogate.begin_field();
                self.go_on(false, wire);
            }
            Start::Text if self.mbox_line_octets == 0 && is_mbox_line(line) => self.state = State::MboxLine,
            Start::Empty | Start::Text => self.begin_body(wire),
        }
    }

    /// The current line belongs to the header: keeps or drops what is held, and the rest of the line alike.
    fn go_on(&mut self, dropping: bool, wire: &mut Vec<u8>) {
        self.dropping = dropping;
        let dropped = if dropping { self.held.len() } else { self.mbox_line_octets };
        self.dropped_octets += dropped as u64;
        self.surrogate.push(&self.held[dropped..]);
        wire.extend_from_slice(&self.held[dropped..]);
        self.held.clear();
        self.mbox_line_octets = 0;
        self.state = State::Line;
    }

    /// The text has no header: what is held is the beginning of the body.
    fn begin_body(&mut self, wire: &mut Vec<u8>) {
        self.added_octets = 2;
        wire.extend_from_slice(b"\r\n");
        wire.append(&mut self.held);
        self.state = State::Body;
    }
}

/// Splits `octets` after the current line and its line end.
fn split_line(octets: &[u8]) -> (&[u8], &[u8]) {
    octets.split_at(memchr(b'\n', octets).map_or(octets.len(), |at| at + 1))
}

/// A line with no field before it: a field, empty, or text. Before the last octet come a name and blanks.
fn first_line(line: &[u8]) -> Start {
    match line {
        b"\r" => Start::Undecided,
        b"\r\n" => Start::Empty,
        [] | [b'\r' | b':' | b' ' | b'\t', ..] => Start::Text,
        _ if line.len() > HELD_OCTETS_MAX => Start::Text,
        [name @ .., b':'] if name.trim_ascii_end().eq_ignore_ascii_case(RETURN_PATH) => Start::ReturnPath,
        [.., b':'] => Start::Field,
        [.., b' ' | b'\t'] => Start::Undecided,
        [.., b' ' | b'\t', _] => Start::Text,
        [.., last] if is_of_name(*last) => Start::Undecided,
        _ => Start::Text,
    }
}

/// A line after a field, examined only far enough to recognise Return-Path. Before the last octet comes the start of
/// that name, or the name and blanks.
fn later_line(line: &[u8]) -> Start {
    match line {
        [b' ' | b'\t', ..] => return Start::Continuation,
        b"\r" => return Start::Undecided,
        b"\r\n" => return Start::Empty,
        _ => {}
    }
    let (name, after_name) = line.split_at(line.len().min(RETURN_PATH.len()));
    match after_name {
        _ if !name.eq_ignore_ascii_case(&RETURN_PATH[..name.len()]) => Start::Text,
        [] => Start::Undecided,
        [.., b' ' | b'\t'] if line.len() < HELD_OCTETS_MAX => Start::Undecided,
        [.., b':'] => Start::ReturnPath,
        _ => Start::Text,
    }
}

/// An octet of a field name (RFC 5322 section 3.6.8).
fn is_of_name(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b':'
}

fn is_mbox_line(line: &[u8]) -> bool {
    line.strip_prefix(b">").unwrap_or(line).starts_with(b"From ")
}
