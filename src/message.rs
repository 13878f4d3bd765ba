//! Message metadata: the vocabulary the store and POP3 share.

use std::fmt;
use std::str::FromStr;

/// A message's unique id within its maildrop (RFC 1939 section 7, UIDL): 18 to 33 printable characters of the 70
/// allowed. The sequence number identifies the message; the tag keeps the ids of a deleted and re-created maildrop from
/// matching the old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid {
    pub seq: u64,
    pub tag: u64,
}

/// Longest unique id kept from another server, in octets. RFC 1939 allows 70, but some servers use more.
pub const UNIQUE_ID_OCTETS_MAX: usize = 255;

/// Whether UIDL can send this as a unique id: 1 to 255 octets from 0x21 to 0x7E (RFC 1939 section 7, except for the
/// length).
pub fn is_unique_id(id: &str) -> bool {
    (1..=UNIQUE_ID_OCTETS_MAX).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_graphic())
}

/// Whether a unique id exceeds the 70 octets of RFC 1939.
pub fn is_long_for_clients(id: &str) -> bool {
    id.len() > 70
}

/// A message as LIST and UIDL show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The size RETR sends: lines with CRLF, without dot-stuffing and terminator.
    pub octets: u64,
    pub uid: Uid,
    /// The unique id from another server, if any.
    pub foreign_id: Option<Box<str>>,
}

impl Entry {
    /// The id UIDL reports.
    pub fn unique_id(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(|f| match &self.foreign_id {
            Some(id) => f.write_str(id),
            None => fmt::Display::fmt(&self.uid, f),
        })
    }
}

/// A number of messages and the sum of their octets, counted as in [`Entry`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub messages: u64,
    pub octets: u64,
}

impl FromStr for Uid {
    type Err = ();

    /// Takes exactly what `Display` writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (seq, tag) = text.split_once('.').ok_or(())?;
        let number = |digits| u64::from_str_radix(digits, 16).map_err(|_| ());
        let uid = Self { seq: number(seq)?, tag: number(tag)? };
        if uid.to_string() == text { Ok(uid) } else { Err(()) }
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:016x}", self.seq, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_short_and_printable() {
        assert_eq!(Uid { seq: 0, tag: 0 }.to_string(), "0.0000000000000000");
        assert_eq!(Uid { seq: 300, tag: 0xabc }.to_string(), "12c.0000000000000abc");
        let longest = Uid { seq: u64::MAX, tag: u64::MAX }.to_string();
        assert_eq!(longest.len(), 33);
        assert!(longest.bytes().all(|b| b.is_ascii_graphic()));
    }

    #[test]
    fn a_uid_is_read_as_it_is_written_and_in_no_other_way() {
        let uid = Uid { seq: 300, tag: 0xabc };
        assert_eq!(uid.to_string().parse(), Ok(uid));
        for other in [
            "",
            ".",
            "12c",
            "12C.0000000000000abc",
            "+12c.0000000000000abc",
            "012c.0000000000000abc",
            "12c.abc",
        ] {
            assert_eq!(other.parse::<Uid>(), Err(()), "{other}");
        }
    }

    #[test]
    fn a_unique_id_is_printable_and_of_bounded_length() {
        for id in ["a", "!~", &"x".repeat(UNIQUE_ID_OCTETS_MAX)] {
            assert!(is_unique_id(id), "{id}");
        }
        for id in ["", " ", "a b", "a\t", "\u{7f}", "ä", &"x".repeat(UNIQUE_ID_OCTETS_MAX + 1)] {
            assert!(!is_unique_id(id), "{id:?}");
        }
    }
}
