//! Command lines out of a stream, each within a bound.

use std::ops::Range;

use memchr::memchr;
use zeroize::Zeroize as _;

/// What the stream holds next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line that ended with CRLF, without it.
    Whole(&'a [u8]),
    /// A line that ended with LF alone, without it. RFC 5321 section 2.3.8 does not count it as a line:
    /// the reader of the protocol decides whether it is lenient here.
    BareLf(&'a [u8]),
    /// A line longer than the bound. Nothing of it is delivered, neither now nor later.
    TooLong,
}

/// Octets received and not yet used. Whoever reads something other than lines (the text after DATA, a TLS
/// handshake) takes the [`rest`](Lines::rest) from here first.
///
/// Holds at most the bound of one line plus the octets of one `push`, if every push is followed by `next`
/// until that gives `None`.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Everything before it has been used.
    start: usize,
    /// Inside a line that was reported as too long.
    skipping: bool,
    /// The line that was given out last. It may be a password, so it is wiped when it has been used.
    given: Range<usize>,
}

/// A larger empty buffer is given back, so that an idle connection costs little memory.
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

    /// The next line of at most `octets_max` octets, its line end included; `None` if its end has not come.
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

    /// What has been pushed and not used.
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

    /// Forgets the rest: what a peer sent in clear before a TLS handshake must not count after it
    /// (RFC 3207 section 4.2, RFC 2595 section 4).
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
