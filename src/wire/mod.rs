//! The octet level: bounded command lines, dot-stuffing, the end of a message.
//!
//! Everything here is a pure function of the octets pushed into it: no sockets, no commands, no allocation beyond the
//! given bounds.
//!
//! Messages are stored in *wire form*, the form POP3 sends (RFC 1939 section 3):
//! - every line, including the last, ends with CRLF, and CR and LF occur nowhere else;
//! - a content line that begins with a dot has a second dot in front (dot-stuffing);
//! - the terminator `.` CRLF is not part of it; the empty message is the empty text.
//!
//! On the way in, the start of a text changes so that our header fields fit in front (`head`). On the way out, a
//! [`surrogate`] may replace the header, never the body.
//!
//! Invariants:
//! - however the input is split, the lines, the text and its end are the same;
//! - a line over its bound is reported once and never delivered in pieces;
//! - a message in DATA ends at CRLF `.` CRLF and nowhere else, even if it is already refused: otherwise the rest of it
//!   would run as commands.

mod head;
mod header;
mod lines;
mod receive;
pub mod surrogate;
#[cfg(test)]
mod tests;

pub use header::Origin;
pub use lines::{Line, Lines};
pub use receive::{LineEnds, Receiver, Rejection, Text};

/// How many octets of `wire` POP3 sends for `TOP` (RFC 1939 section 7): header, empty line and at most `body_lines`
/// lines of the body. A text without an empty line is all header.
pub fn top_end(wire: &[u8], body_lines: u64) -> usize {
    let body = body_start(wire);
    let Some(last) = body_lines.checked_sub(1) else { return body };
    let nth_line_end =
        usize::try_from(last).ok().and_then(|last| memchr::memchr_iter(b'\n', &wire[body..]).nth(last));
    nth_line_end.map_or(wire.len(), |at| body + at + 1)
}

/// Where the body begins: after the first empty line, or at the end if there is none.
pub fn body_start(wire: &[u8]) -> usize {
    if wire.starts_with(b"\r\n") {
        return 2;
    }
    memchr::memmem::find(wire, b"\r\n\r\n").map_or(wire.len(), |at| at + 4)
}

/// Counts the content octets of a text in wire form, given in pieces: the length of what [`unstuff`] returns.
#[derive(Clone, Copy, Debug)]
pub struct ContentCount {
    octets: u64,
    is_at_line_start: bool,
}

impl Default for ContentCount {
    fn default() -> Self {
        Self { octets: 0, is_at_line_start: true }
    }
}

impl ContentCount {
    pub fn push(&mut self, piece: &[u8]) {
        let Some(last) = piece.last() else { return };
        let stuffed = memchr::memmem::find_iter(piece, b"\n.").count();
        let first = usize::from(self.is_at_line_start && piece[0] == b'.');
        self.octets += (piece.len() - stuffed - first) as u64;
        self.is_at_line_start = *last == b'\n';
    }

    pub fn octets(&self) -> u64 {
        self.octets
    }
}

/// The content of a text in wire form: removes the dot-stuffing.
pub fn unstuff(wire: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(wire.len());
    for line in wire.split_inclusive(|&octet| octet == b'\n') {
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    content
}
