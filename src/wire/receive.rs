//! Receives a message: turns the octets a peer sends into a text in wire form.

use memchr::memchr3;

use super::head::Head;
use super::header::{Origin, Trace, Tracer};

/// How the end of the message and leading dots are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// The text after DATA: dot-stuffed, ended by CRLF `.` CRLF (RFC 5321 section 4.5.2).
    Stuffed,
    /// Plain content whose length is known otherwise: BDAT chunks, standard input.
    Plain,
}

/// What to do with octets that a message must not contain: a bare CR or LF, and NUL (RFC 5322 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnds {
    /// Refuse the message (RFC 5321 section 2.3.8). Programs disagree on what such octets mean, which is how SMTP
    /// smuggling hides one message inside another.
    Strict,
    /// Turn a bare CR or LF into CRLF and drop NUL. A `.` line made this way is content, never the end.
    Normalise,
}

/// Why a message was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A bare CR or LF under [`LineEnds::Strict`].
    BareLineEnd,
    /// NUL under [`LineEnds::Strict`].
    Nul,
    /// More octets than the limit.
    TooLarge,
    /// The disk is full.
    DiskFull,
    /// The disk failed.
    Fault,
}

/// A complete message, ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<W = Vec<u8>> {
    /// The message in wire form, or the part that [`Receiver::take_held`] has not taken.
    pub wire: W,
    /// Octets of the content as stored, without the stuffing dots: the size POP3 LIST reports.
    pub octets: u64,
    /// The same with a [surrogate](super::surrogate) header; `None` if the text needs no surrogate.
    pub surrogate_octets: Option<u64>,
    /// Hash of the whole wire form.
    pub hash: blake3::Hash,
    /// Number of `Received` fields in the header.
    pub received_fields: u32,
    /// Unparsed values of the first hundred `Delivered-To` fields.
    pub delivered_to: Vec<String>,
    pub origin: Origin,
}

impl<W> Text<W> {
    pub fn with_wire<V>(self, change: impl FnOnce(W) -> V) -> Text<V> {
        let Self { wire, octets, surrogate_octets, hash, received_fields, delivered_to, origin } = self;
        Text { wire: change(wire), octets, surrogate_octets, hash, received_fields, delivered_to, origin }
    }
}

/// Takes the octets of one message, split anywhere, and gives its text.
///
/// Memory: calling [`Receiver::take_held`] after each push bounds it by twice the length of a push. Without that it
/// grows to the message limit, plus a third if every line is a single dot.
#[derive(Debug)]
pub struct Receiver {
    framing: Framing,
    line_ends: LineEnds,
    keeps_nul: bool,
    octets_max: u64,
    state: State,
    head: Head,
    /// The text not yet taken.
    wire: Vec<u8>,
    taken: u64,
    /// Content octets received; the limit applies to these.
    octets: u64,
    tracer: Tracer,
    /// Boxed, because two kilobytes would move with the receiver.
    hasher: Box<blake3::Hasher>,
    /// How far the hasher has read `wire`.
    hashed: usize,
    rejection: Option<Rejection>,
}

/// Position of the next octet within a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of the message or after CRLF: dot-stuffing and the end of data apply.
    LineStart,
    /// After a bare CR or LF: a line begins, but a dot is content.
    BareLineStart,
    /// After a dot at `LineStart`, not yet written.
    Dot,
    /// After a dot at `LineStart` and a CR, neither yet written.
    DotCr,
    /// Inside a line.
    Line,
    /// After a CR, not yet written.
    Cr,
    /// After the end of data.
    End,
}

/// Hashing unit, in octets: large enough for SIMD, small enough to be still in the cache.
const HASH_SPAN: usize = 64 << 10;

/// Octets tested together, in the hope that they need no change.
const ORDINARY_SPAN: usize = 512;

impl Receiver {
    /// Receives the text after DATA, at most `octets_max` octets of content.
    pub fn data(line_ends: LineEnds, octets_max: u64) -> Self {
        Self::new(Framing::Stuffed, line_ends, octets_max)
    }

    /// Receives content without dot-stuffing or terminator, at most `octets_max` octets including the CRLF added to an
    /// unfinished last line.
    pub fn content(line_ends: LineEnds, octets_max: u64) -> Self {
        Self::new(Framing::Plain, line_ends, octets_max)
    }

    /// Receives content of any length and changes only line ends.
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
            rejection: None,
        }
    }

    /// Takes the next octets. `Some(used)`: the data ended after that many; the rest are commands. `None`: all were
    /// used and the message continues, as always for plain content.
    ///
    /// A refused message is still read to its end.
    pub fn push(&mut self, octets: &[u8]) -> Option<usize> {
        // Octets from `run` to `at` are copied unchanged.
        let (mut run, mut at) = (0, 0);
        // How far spans have been tested, so that none is tested twice.
        let mut looked = 0;
        while at < octets.len() {
            let octet = octets[at];
            match self.state {
                State::LineStart | State::BareLineStart | State::Dot if octet == 0 && !self.keeps_nul => {
                    self.put(&octets[run..at]);
                    at += 1;
                    run = at;
                    self.put_nul();
                    // A dot here begins a line, but is neither stuffing nor the end.
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
                    // Drops the peer's stuffing; a dot that remains needs ours.
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

    /// The text, or why there is none. Plain content ends here; after DATA, `push` must have returned the end.
    pub fn finish(mut self) -> Result<Text, Rejection> {
        match self.framing {
            Framing::Stuffed => assert_eq!(self.state, State::End, "a message in DATA ends where it says so"),
            Framing::Plain if self.state == State::Cr => self.put_bare_line_end(),
            Framing::Plain if self.state == State::Line => self.put(b"\r\n"),
            Framing::Plain => {}
        }
        if let Some(rejection) = self.rejection {
            return Err(rejection);
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

    /// Octets of the message in memory; 0 once it is refused.
    pub fn held_octets(&self) -> u64 {
        self.wire.len() as u64
    }

    /// Octets taken so far.
    pub fn taken_octets(&self) -> u64 {
        self.taken
    }

    /// Hands over the octets held so far. In order, the octets of all calls followed by `wire` of the finished text are
    /// the message.
    pub fn take_held(&mut self) -> Vec<u8> {
        self.hasher.update(&self.wire[self.hashed..]);
        self.hashed = 0;
        self.tracer.push(&self.wire);
        self.taken += self.wire.len() as u64;
        std::mem::take(&mut self.wire)
    }

    /// Refuses the message because it cannot be kept. The rest is still read to its end.
    pub fn give_up(&mut self, rejection: Rejection) {
        if self.rejection.is_none() {
            self.refuse(rejection);
        }
    }

    fn put(&mut self, content: &[u8]) {
        if self.rejection.is_some() {
            return;
        }
        self.octets += content.len() as u64;
        if self.octets > self.octets_max {
            self.refuse(Rejection::TooLarge);
        } else {
            self.head.push(content, &mut self.wire);
        }
    }

    /// The stuffing dot: part of the wire form, not of the content.
    fn put_stuffing_dot(&mut self) {
        if self.rejection.is_none() {
            self.head.push(b".", &mut self.wire);
        }
    }

    fn put_bare_line_end(&mut self) {
        match self.line_ends {
            LineEnds::Normalise => self.put(b"\r\n"),
            LineEnds::Strict if self.rejection.is_none() => self.refuse(Rejection::BareLineEnd),
            LineEnds::Strict => {}
        }
        self.state = State::BareLineStart;
    }

    fn put_nul(&mut self) {
        match self.line_ends {
            _ if self.keeps_nul => self.put(&[0]),
            LineEnds::Strict if self.rejection.is_none() => self.refuse(Rejection::Nul),
            LineEnds::Strict | LineEnds::Normalise => {}
        }
    }

    /// Why the message is refused, if it is.
    pub fn rejection(&self) -> Option<Rejection> {
        self.rejection
    }

    /// Refuses the message; the first reason counts. Frees its memory at once.
    fn refuse(&mut self, rejection: Rejection) {
        self.rejection = Some(rejection);
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

/// Whether octets inside a line need no change: no bare CR or LF, no NUL, no dot at the start of a line. Without
/// branches, so that the compiler vectorises it. A CR at the end may be bare.
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
