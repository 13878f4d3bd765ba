//! Parses what a server says, without I/O.

use std::io;

use crate::message::is_unique_id;

/// The first line of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    Refused(ErrorReply),
    /// `+ `: a challenge of AUTH (RFC 5034 section 4).
    Continue,
}

/// `-ERR`, with its text fit to show to an administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    pub text: String,
}

impl ErrorReply {
    /// Whether the server refuses name and password. Other hindrances have response codes: maildrop in use, login too
    /// soon (RFC 2449 section 8.1), a fault of the system (RFC 3206 section 4).
    pub fn is_of_credentials(&self) -> bool {
        let code = self.text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(code, _)| code);
        code.is_none_or(|code| {
            let code = code.to_ascii_uppercase();
            !["IN-USE", "LOGIN-DELAY", "SYS/"].iter().any(|other| code.starts_with(other))
        })
    }
}

/// Parses the first line of a reply; `None` if it is not one.
pub fn status(line: &[u8]) -> Option<Status> {
    let has_word = |word: &[u8]| {
        let (first, rest) = line.split_at_checked(word.len())?;
        let is_it = first.eq_ignore_ascii_case(word) && rest.first().is_none_or(|next| *next == b' ');
        is_it.then_some(rest)
    };
    if has_word(b"+OK").is_some() {
        return Some(Status::Ok);
    }
    if has_word(b"+").is_some() {
        return Some(Status::Continue);
    }
    let text = String::from_utf8_lossy(has_word(b"-ERR")?);
    let text = text.trim().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    Some(Status::Refused(ErrorReply { text }))
}

/// The capabilities that matter here (CAPA, RFC 2449).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub stls: bool,
    pub user: bool,
    /// AUTH PLAIN (RFC 4616).
    pub plain: bool,
    pub pipelining: bool,
}

impl Capabilities {
    pub fn add(&mut self, line: &[u8]) {
        let line = line.to_ascii_uppercase();
        let mut words = line.split(|b| *b == b' ').filter(|word| !word.is_empty());
        match words.next() {
            Some(b"STLS") => self.stls = true,
            Some(b"USER") => self.user = true,
            Some(b"SASL") => self.plain = words.any(|word| word == b"PLAIN"),
            Some(b"PIPELINING") => self.pipelining = true,
            _ => {}
        }
    }
}

/// A line of LIST: number and octets.
pub fn scan_listing(line: &[u8]) -> Option<(u32, u64)> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// A line of UIDL: number and unique id; no id if POP3 could not send it on.
pub fn unique_id_listing(line: &[u8]) -> Option<(u32, Option<String>)> {
    let (number, id) = line.split_at(line.iter().position(|b| *b == b' ')?);
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    let id = std::str::from_utf8(&id[1..]).ok().filter(|id| is_unique_id(id));
    Some((number, id.map(str::to_owned)))
}

/// Decodes a text as it arrives: removes the dot-stuffing (RFC 1939 section 3) and finds the end. Only CRLF ends a
/// line; a bare CR or LF is part of the message.
#[derive(Debug, Default)]
pub struct Text {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// At the start of a line.
    #[default]
    Line,
    /// After a dot at the start of a line.
    Dot,
    /// After such a dot and a CR.
    DotCr,
    Within,
    /// After a CR.
    Cr,
}

impl Text {
    /// Passes the text in `octets` to `sink`. Returns how many octets it used if the text ends in them, otherwise
    /// `None`: it has used them all.
    pub fn push(
        &mut self,
        octets: &[u8],
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Option<usize>> {
        // Octets of the text from here on have not been passed on yet.
        let mut from = 0;
        for (at, octet) in octets.iter().enumerate() {
            self.state = match (self.state, octet) {
                (State::Line, b'.') => {
                    sink(&octets[from..at])?;
                    from = at + 1;
                    State::Dot
                }
                (State::Dot, b'\r') => {
                    from = at + 1;
                    State::DotCr
                }
                (State::DotCr, b'\n') => return Ok(Some(at + 1)),
                (State::DotCr, octet) => {
                    // A stuffed line that begins with CR.
                    sink(b"\r")?;
                    from = at;
                    if *octet == b'\r' { State::Cr } else { State::Within }
                }
                (State::Cr, b'\n') => State::Line,
                (_, b'\r') => State::Cr,
                _ => State::Within,
            };
        }
        sink(&octets[from..])?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Status {
        Status::Refused(ErrorReply { text: text.to_owned() })
    }

    #[test]
    fn a_status_is_a_separate_word_in_any_case() {
        assert_eq!(status(b"+OK"), Some(Status::Ok));
        assert_eq!(status(b"+ok ready"), Some(Status::Ok));
        assert_eq!(status(b"+ "), Some(Status::Continue));
        assert_eq!(status(b"-ERR [AUTH] no\x07"), Some(refused("[AUTH] no?")));
        for bad in [&b""[..], b"+OKAY", b"-ERROR", b"* OK", b"."] {
            assert_eq!(status(bad), None);
        }
    }

    #[test]
    fn refused_credentials_are_told_apart_from_other_obstacles() {
        for text in ["", "no such user", "[AUTH] wrong", "[UNKNOWN-TODAY] no"] {
            assert!(ErrorReply { text: text.to_owned() }.is_of_credentials(), "{text}");
        }
        for text in ["[IN-USE] locked", "[login-delay] later", "[SYS/TEMP] fault", "[SYS/PERM] disabled"] {
            assert!(!ErrorReply { text: text.to_owned() }.is_of_credentials(), "{text}");
        }
    }

    #[test]
    fn lines_of_listings_are_read() {
        assert_eq!(scan_listing(b"3 1200"), Some((3, 1200)));
        assert_eq!(scan_listing(b"3 1200 and more"), Some((3, 1200)));
        assert_eq!(scan_listing(b"3"), None);
        assert_eq!(unique_id_listing(b"3 a!~"), Some((3, Some("a!~".to_owned()))));
        assert_eq!(unique_id_listing(b"3 a b"), Some((3, None)));
        assert_eq!(unique_id_listing(b"3"), None);
        let mut capabilities = Capabilities::default();
        for line in [&b"stls"[..], b"SASL LOGIN PLAIN", b"PIPELINING", b"TOP"] {
            capabilities.add(line);
        }
        assert_eq!(capabilities, Capabilities { stls: true, user: false, plain: true, pipelining: true });
    }

    /// The text in `wire`, pushed in pieces of this size, and how many octets were used.
    fn text(wire: &[u8], piece: usize) -> (Vec<u8>, Option<usize>) {
        let (mut text, mut got, mut used) = (Text::default(), Vec::new(), 0);
        for octets in wire.chunks(piece) {
            let mut sink = |octets: &[u8]| {
                got.extend_from_slice(octets);
                Ok(())
            };
            if let Some(count) = text.push(octets, &mut sink).unwrap() {
                return (got, Some(used + count));
            }
            used += octets.len();
        }
        (got, None)
    }

    #[test]
    fn dots_are_unstuffed_exactly_however_the_text_is_cut() {
        for (wire, expected, rest) in [
            (&b".\r\n"[..], &b""[..], 0),
            (b"a\r\n.\r\nnext", b"a\r\n", 4),
            (b"..\r\n...\r\n..a\r\n\r\n.\r\n", b".\r\n..\r\n.a\r\n\r\n", 0),
            (b"a\n.\nb\r.\r\n\r\n.\r\n+OK", b"a\n.\nb\r.\r\n\r\n", 3),
            (b".\rx\r\n.\r\r\n.\r\n", b"\rx\r\n\r\r\n", 0),
        ] {
            for piece in 1..=wire.len() {
                let (got, used) = text(wire, piece);
                assert_eq!((got.as_slice(), used), (expected, Some(wire.len() - rest)), "{wire:?} {piece}");
            }
            assert_eq!(
                text(&wire[..wire.len() - rest - 1], 3).1,
                None,
                "without its last octet there is no end"
            );
        }
    }
}
