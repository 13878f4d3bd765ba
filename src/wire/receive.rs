//! A message on its way in: octets as a peer sends them become a text in wire form.

use memchr::memchr3;

use super::head::Head;
use super::header::{Origin, Trace, Tracer};

/// How the end of the message and lines that begin with a dot are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// The text after DATA: dot-stuffed, ended by CRLF `.` CRLF (RFC 5321 section 4.5.2).
    Stuffed,
    /// The content as it is, its length known from elsewhere: BDAT chunks, standard input.
    Plain,
}

/// What becomes of octets that have no place in a message: a CR or LF that is not part of a CRLF, and NUL
/// (RFC 5322 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnds {
    /// The message is refused (RFC 5321 section 2.3.8): programs disagree on what such octets mean, and that
    /// is how a second message is smuggled inside a first one.
    Strict,
    /// A bare CR or LF becomes a CRLF of the content, and NUL is dropped. The `.` of a line made this way is content,
    /// never the end.
    Normalise,
}

/// Why nothing of a message was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A bare CR or LF under [`LineEnds::Strict`].
    BareLineEnd,
    /// NUL under [`LineEnds::Strict`].
    Nul,
    /// More octets than the limit.
    TooLarge,
    /// The disk cannot take it now.
    DiskFull,
    /// The disk failed.
    Fault,
}

/// A whole message, ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<W = Vec<u8>> {
    /// The message in wire form, or the end of it that [`Receiver::take_held`] has not taken.
    pub wire: W,
    /// Length of the content in octets as it is kept, which POP3 LIST reports: that of `wire` without the stuffing dots.
    pub octets: u64,
    /// The same of the text whose header is a [surrogate](super::surrogate); none if it needs none.
    pub surrogate_octets: Option<u64>,
    /// Of the whole wire form.
    pub hash: blake3::Hash,
    /// Number of `Received` fields in the header.
    pub received_fields: u32,
    /// Values of the `Delivered-To` fields in the header, the first hundred, not parsed.
    pub delivered_to: Vec<String>,
    pub origin: Origin,
}

impl<W> Text<W> {
    pub fn with_wire<V>(self, change: impl FnOnce(W) -> V) -> Text<V> {
        let Self { wire, octets, surrogate_octets, hash, received_fields, delivered_to, origin } = self;
        Text { wire: change(wire), octets, surrogate_octets, hash, received_fields, delivered_to, origin }
    }
}

/// Takes the octets of one message, in any cut, and gives its text.
///
/// Memory: what the owner leaves here. An owner that calls [`Receiver::take_held`] after each push bounds it by twice the
/// length of a push; for one that never does it is the limit, plus a third where every line is a single dot.
#[derive(Debug)]
pub struct Receiver {
    framing: Framing,
    line_ends: LineEnds,
    keeps_nul: bool,
    octets_max: u64,
    state: State,
    head: Head,
    /// What has not been taken.
    wire: Vec<u8>,
    taken: u64,
    /// Content that came, which is what the limit is for.
    octets: u64,
    tracer: Tracer,
    /// Boxed: two kilobytes that would be moved wherever the receiver goes.
    hasher: Box<blake3::Hasher>,
    /// How much of `wire` the hasher has seen.
    hashed: usize,
    refusal: Option<Refusal>,
}

/// Where in a line the next octet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of the message or after a CRLF: transparency and the end of data apply.
    LineStart,
    /// After a bare CR or LF: a line starts, but a dot here is content.
    BareLineStart,
    /// After a dot at `LineStart`, which has not gone out.
    Dot,
    /// After a dot at `LineStart` and a CR, neither of which has gone out.
    DotCr,
    /// Inside a line.
    Line,
    /// After a CR, which has not gone out.
    Cr,
    /// After the end of data.
    End,
}

/// The hash takes the text in spans of this size: large enough for its wide instructions, small enough to
/// be in the cache still.
const HASH_SPAN: usize = 64 << 10;

/// How many octets are looked at together, in the hope that they go out as they are.
const ORDINARY_SPAN: usize = 512;

impl Receiver {
    /// For the text after DATA, of at most `octets_max` octets of content.
    pub fn data(line_ends: LineEnds, octets_max: u64) -> Self {
        Self::new(Framing::Stuffed, line_ends, octets_max)
    }

    /// For content that is neither stuffed nor terminated, of at most `octets_max` octets, counted with the
    /// CRLF that a last line without one gets.
    pub fn content(line_ends: LineEnds, octets_max: u64) -> Self {
        Self::new(Framing::Plain, line_ends, octets_max)
    }

    /// For content of any length of which only line ends are changed.
    pub fn verbatim() -> Self {
        Self { head: Head::verbatim(), keeps_nul: true, ..Self::content(LineEnds::Normalise, u64::MAX) }
    }

    fn new(framing: Framing, line_ends: LineEnds, octets_max: u64) -> Self {
        Self {
            framing,
            line_ends,
            keeps_nul: false,
            octets_max,
            state: State::LineStart,
            head: Head::new(),
            wire: Vec::new(),
            taken: 0,
            octets: 0,
            tracer: Tracer::default(),
            hasher: Box::default(),
            hashed: 0,
            refusal: None,
        }
    }

    /// Takes the next octets. `Some(used)`: the data ended after so many of them, the others are commands.
    /// `None`: all were used, and more belong to the message. Content has no end of its own: always `None`.
    ///
    /// A message that is refused already is still read to its end.
    pub fn push(&mut self, octets: &[u8]) -> Option<usize> {
        // Octets from `run` up to `at` go out as they are.
        let (mut run, mut at) = (0, 0);
        // Up to here spans have been looked at; one in vain is not looked at again.
        let mut looked = 0;
        while at < octets.len() {
            let octet = octets[at];
            match self.state {
                State::LineStart | State::BareLineStart | State::Dot if octet == 0 && !self.keeps_nul => {
                    self.put(&octets[run..at]);
                    at += 1;
                    run = at;
                    self.put_nul();
                    // A dot that comes now begins the line, and is neither stuffing nor the end.
                    self.state = State::BareLineStart;
                }
                State::LineStart | State::BareLineStart if octet != b'.' => self.state = State::Line,
                State::LineStart if self.framing == Framing::Stuffed => {
                    self.put(&octets[run..at]);
                    at += 1;
                    run = at;
                    self.state = State::Dot;
                }
                State::LineStart | State::BareLineStart => {
                    self.put(&octets[run..at]);
                    self.put_stuffing_dot();
                    run = at;
                    at += 1;
                    self.state = State::Line;
                }
                State::Dot if octet == b'\r' => {
                    at += 1;
                    run = at;
                    self.state = State::DotCr;
                }
                State::Dot => {
                    // The peer's stuffing ends here; a dot that is left needs ours.
                    if octet == b'.' {
                        self.put_stuffing_dot();
                        at += 1;
                    }
                    self.state = State::Line;
                }
                State::DotCr if octet == b'\n' => {
                    self.state = State::End;
                    self.hash_spans();
                    return Some(at + 1);
                }
                State::Cr if octet == b'\n' => {
                    at += 1;
                    run = at;
                    self.put(b"\r\n");
                    self.state = State::LineStart;
                }
                State::DotCr | State::Cr => self.put_bare_line_end(),
                State::Line if at >= looked && octets.len() - at >= ORDINARY_SPAN => {
                    looked = at + ORDINARY_SPAN;
                    let span = &octets[at..looked];
                    if is_ordinary(span) {
                        at = looked;
                        match span[ORDINARY_SPAN - 1] {
                            b'\n' => self.state = State::LineStart,
                            b'\r' => at -= 1,
                            _ => {}
                        }
                    }
                }
                State::Line => match memchr3(b'\r', b'\n', 0, &octets[at..]) {
                    None => at = octets.len(),
                    Some(line) if octets[at + line..].starts_with(b"\r\n") => {
                        at += line + 2;
                        self.state = State::LineStart;
                    }
                    Some(line) => {
                        let end = at + line;
                        self.put(&octets[run..end]);
                        at = end + 1;
                        run = at;
                        match octets[end] {
                            b'\r' => self.state = State::Cr,
                            0 => self.put_nul(),
                            _ => self.put_bare_line_end(),
                        }
                    }
                },
                State::End => panic!("the message has ended; what follows is not part of it"),
            }
        }
        self.put(&octets[run..]);
        self.hash_spans();
        None
    }

    /// The text, or why there is none. Content ends here; after DATA, `push` must have seen the end.
    pub fn finish(mut self) -> Result<Text, Refusal> {
        match self.framing {
            Framing::Stuffed => assert_eq!(self.state, State::End, "a message in DATA ends where it says so"),
            Framing::Plain if self.state == State::Cr => self.put_bare_line_end(),
            Framing::Plain if self.state == State::Line => self.put(b"\r\n"),
            Framing::Plain => {}
        }
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        self.head.finish(&mut self.wire);
        self.hasher.update(&self.wire[self.hashed..]);
        self.tracer.push(&self.wire);
        let Trace { received_fields, delivered_to, origin } = self.tracer.finish();
        Ok(Text {
            hash: self.hasher.finalize(),
            octets: self.head.kept_octets(self.octets),
            surrogate_octets: self.head.surrogate_octets(self.octets),
            wire: self.wire,
            received_fields,
            delivered_to,
            origin,
        })
    }

    /// What the message takes in memory so far; nothing once it is refused.
    pub fn held_octets(&self) -> u64 {
        self.wire.len() as u64
    }

    /// What was taken from it so far.
    pub fn taken_octets(&self) -> u64 {
        self.taken
    }

    /// Gives the octets held so far to the owner, who keeps them and those of later calls in order: together with the
    /// `wire` of the finished text they are the message.
    pub fn take_held(&mut self) -> Vec<u8> {
        self.hasher.update(&self.wire[self.hashed..]);
        self.hashed = 0;
        self.tracer.push(&self.wire);
        self.taken += self.wire.len() as u64;
        std::mem::take(&mut self.wire)
    }

    /// The owner cannot keep the message. The rest is still read to its end.
    pub fn give_up(&mut self, refusal: Refusal) {
        if self.refusal.is_none() {
            self.refuse(refusal);
        }
    }

    fn put(&mut self, content: &[u8]) {
        if self.refusal.is_some() {
            return;
        }
        self.octets += content.len() as u64;
        if self.octets > self.octets_max {
            self.refuse(Refusal::TooLarge);
        } else {
            self.head.push(content, &mut self.wire);
        }
    }

    /// The dot that transparency adds: part of the wire form, not of the content.
    fn put_stuffing_dot(&mut self) {
        if self.refusal.is_none() {
            self.head.push(b".", &mut self.wire);
        }
    }

    fn put_bare_line_end(&mut self) {
        match self.line_ends {
            LineEnds::Normalise => self.put(b"\r\n"),
            LineEnds::Strict if self.refusal.is_none() => self.refuse(Refusal::BareLineEnd),
            LineEnds::Strict => {}
        }
        self.state = State::BareLineStart;
    }

    fn put_nul(&mut self) {
        match self.line_ends {
            _ if self.keeps_nul => self.put(&[0]),
            LineEnds::Strict if self.refusal.is_none() => self.refuse(Refusal::Nul),
            LineEnds::Strict | LineEnds::Normalise => {}
        }
    }

    /// Why the message will not be kept; the rest of it is still to be read.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// The first reason stands. The memory is given back at once, however long the rest takes to come.
    fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
        self.wire = Vec::new();
        self.hashed = 0;
    }

    fn hash_spans(&mut self) {
        if self.wire.len() - self.hashed >= HASH_SPAN {
            self.hasher.update(&self.wire[self.hashed..]);
            self.hashed = self.wire.len();
        }
    }
}

/// Whether octets inside a line go out as they are: no bare CR or LF, no NUL, no dot at the start of a line. One
/// pass without branches, which the compiler turns into vector instructions; a CR at the end may be bare.
fn is_ordinary(octets: &[u8]) -> bool {
    let unusual = |before: u8, octet: u8| {
        u8::from(octet == b'\n') ^ u8::from(before == b'\r')
            | u8::from(octet == b'.') & u8::from(before == b'\n')
            | u8::from(octet == 0)
    };
    let pairs = octets.iter().zip(&octets[1..]);
    !matches!(octets[0], b'\n' | 0)
        && pairs.fold(0, |any, (&before, &octet)| any | unusual(before, octet)) == 0
}
