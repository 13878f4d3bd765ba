//! Splits a stream into command lines of bounded length.

use std::ops::Range;

use memchr::memchr;
use zeroize::Zeroize as _;

/// The next line of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line that ended with CRLF, without it.
    Whole(&'a [u8]),
    /// A line that ended with LF alone, without it. It is not a line to RFC 5321 section 2.3.8; the protocol decides
    /// whether to accept it.
    BareLf(&'a [u8]),
    /// A line longer than the bound. None of it is delivered.
    TooLong,
}

/// Octets received and not yet used. To read anything but lines (the text after DATA, a TLS handshake), take the
/// [`rest`](Lines::rest) first.
///
/// Holds at most one line plus one `push`, as long as every push is followed by `next` until that returns `None`.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Everything before this position is used.
    start: usize,
    /// Inside a line already reported as too long.
    skipping: bool,
    /// The line returned last. It may contain a password, so it is wiped after use.
    given: Range<usize>,
}

/// A larger empty buffer is freed, so that an idle connection takes little memory.
const IDLE_OCTETS_MAX: usize = 1024;

impl Lines {
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends octets as they came from the peer.
    pub fn push(&mut self, octets: &[u8]) {
        self.wipe();
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(octets);
    }

    /// The next line of at most `octets_max` octets, line end included; `None` until its end arrives.
    pub fn next(&mut self, octets_max: usize) -> Option<Line<'_>> {
        self.wipe();
        if self.skipping {
            let end = memchr(b'\n', self.rest());
            self.consume(end.map_or(self.rest().len(), |end| end + 1));
            self.skipping = end.is_none();
        }
        if self.rest().is_empty() {
            self.clear();
            return None;
        }
        let rest = self.rest();
        let within = &rest[..rest.len().min(octets_max)];
        match memchr(b'\n', within) {
            Some(end) => {
                let from = self.start;
                self.start += end + 1;
                self.given = from..self.start;
                let line = &self.buffer[from..from + end];
                Some(line.strip_suffix(b"\r").map_or(Line::BareLf(line), Line::Whole))
            }
            None if rest.len() >= octets_max => {
                self.skipping = true;
                Some(Line::TooLong)
            }
            None => None,
        }
    }

    fn wipe(&mut self) {
        self.buffer[std::mem::take(&mut self.given)].zeroize();
    }

    /// The unused octets.
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Marks the first `octets` of the rest as used.
    pub fn consume(&mut self, octets: usize) {
        self.start += octets;
        assert!(self.start <= self.buffer.len(), "no more can be used than was pushed");
        if self.start == self.buffer.len() {
            self.clear();
        }
    }

    /// Discards the rest: input sent in clear must not survive a TLS handshake (RFC 3207 section 4.2, RFC 2595 section
    /// 4).
    pub fn clear(&mut self) {
        self.wipe();
        self.start = 0;
        if self.buffer.capacity() > IDLE_OCTETS_MAX {
            self.buffer = Vec::new();
        } else {
            self.buffer.clear();
        }
    }
}
