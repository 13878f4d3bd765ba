//! The head of a text: what has to change on the way in so that our own fields and the text's are one header.
//!
//! - A text whose first line is no header field gets an empty line in front: without it, that line would continue our
//!   last field or hide behind our header. So does a text that begins with a blank.
//! - The `From ` line of an mbox (RFC 4155 appendix A) is dropped if a field follows it. It says what the envelope says.
//! - Return-Path fields are dropped, for final delivery puts a new one in front (RFC 5321 section 4.4).
//!
//! A text that has been through this comes out of it unchanged the next time.

use super::surrogate::Sizer;
use memchr::memchr;

/// Octets held back at most until it is known what a line is. Longer names are no field names, and longer `From `
/// lines are text (RFC 5322 section 2.1.1 ends a line after 998).
const HELD_OCTETS_MAX: usize = 1000;

const RETURN_PATH: &[u8] = b"return-path";

/// Takes a text in wire form, in any cut, and gives what is kept of it.
#[derive(Debug)]
pub struct Head {
    state: State,
    /// The start of a line that may still be anything; in front of it an mbox line, if one has been seen.
    held: Vec<u8>,
    mbox_line_octets: usize,
    /// Whether a field has been kept: from then on there is a header.
    has_field: bool,
    /// Whether the current field is dropped, and its continuation lines with it.
    dropping: bool,
    added_octets: u64,
    dropped_octets: u64,
    surrogate: Sizer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of a line, deciding what it is.
    LineStart,
    /// In a line that is kept or dropped.
    Line,
    /// In a first line that may be that of an mbox.
    MboxLine,
    Body,
}

/// What a line is, as far as its first octets tell.
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

    /// For a text that is kept as it is.
    pub fn verbatim() -> Self {
        Self { state: State::Body, ..Self::new() }
    }

    /// Appends to `wire` what is kept of the octets. CRLF comes whole.
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

    /// The text has ended, with a line end or without any octet.
    pub fn finish(&mut self, wire: &mut Vec<u8>) {
        if !self.held.is_empty() {
            self.begin_body(wire);
        }
    }

    /// The content octets of what was kept of a text of so many.
    pub fn kept_octets(&self, octets: u64) -> u64 {
        octets + self.added_octets - self.dropped_octets
    }

    /// The content octets of the surrogate of a text of so many; none if it needs none. To be asked after [`Self::finish`].
    pub fn surrogate_octets(&mut self, octets: u64) -> Option<u64> {
        let difference = self.surrogate.finish()?;
        Some(self.kept_octets(octets).checked_add_signed(difference).expect("a surrogate has a length"))
    }

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
            // Only a Return-Path came before it, or nothing: our own header ends with this line.
            Start::Empty if self.mbox_line_octets == 0 => {
                wire.append(&mut self.held);
                self.state = State::Body;
            }
            // In the middle of a header it is for the reader to say what this is.
            Start::Text if self.has_field => {
                self.surrogate.begin_field();
                self.go_on(false, wire);
            }
            Start::Text if self.mbox_line_octets == 0 && is_mbox_line(line) => self.state = State::MboxLine,
            Start::Empty | Start::Text => self.begin_body(wire),
        }
    }

    /// The line in hand belongs to a header: what is held of it is kept or dropped, and the rest follows it.
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

    /// There is no header: what is held is the beginning of the body.
    fn begin_body(&mut self, wire: &mut Vec<u8>) {
        self.added_octets = 2;
        wire.extend_from_slice(b"\r\n");
        wire.append(&mut self.held);
        self.state = State::Body;
    }
}

/// The rest of the line that `octets` begin with, line end included, and what follows.
fn split_line(octets: &[u8]) -> (&[u8], &[u8]) {
    octets.split_at(memchr(b'\n', octets).map_or(octets.len(), |at| at + 1))
}

/// A line in front of which there is no field: it is one, is empty, or is text.
fn first_line(line: &[u8]) -> Start {
    match line {
        b"\r" => return Start::Undecided,
        b"\r\n" => return Start::Empty,
        _ => {}
    }
    let name_octets = line.iter().take_while(|&&octet| is_of_name(octet)).count();
    match line[name_octets..].iter().find(|octet| !matches!(octet, b' ' | b'\t')) {
        _ if name_octets == 0 || line.len() > HELD_OCTETS_MAX => Start::Text,
        None => Start::Undecided,
        Some(b':') if line[..name_octets].eq_ignore_ascii_case(RETURN_PATH) => Start::ReturnPath,
        Some(b':') => Start::Field,
        Some(_) => Start::Text,
    }
}

/// A line below a field. It is looked at only as far as to know a Return-Path.
fn later_line(line: &[u8]) -> Start {
    match line {
        [b' ' | b'\t', ..] => return Start::Continuation,
        b"\r" => return Start::Undecided,
        b"\r\n" => return Start::Empty,
        _ => {}
    }
    let (name, after_name) = line.split_at(line.len().min(RETURN_PATH.len()));
    if !name.eq_ignore_ascii_case(&RETURN_PATH[..name.len()]) {
        return Start::Text;
    }
    match after_name.iter().find(|octet| !matches!(octet, b' ' | b'\t')) {
        None if line.len() < HELD_OCTETS_MAX => Start::Undecided,
        Some(b':') => Start::ReturnPath,
        _ => Start::Text,
    }
}

/// An octet of a field's name (RFC 5322 section 3.6.8).
fn is_of_name(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b':'
}

fn is_mbox_line(line: &[u8]) -> bool {
    line.strip_prefix(b">").unwrap_or(line).starts_with(b"From ")
}
