//! What is said of a message besides its text: the words the store and POP3 have in common.

use std::fmt;

/// A message's unique id within its maildrop (RFC 1939 section 7, UIDL): 18 to 33 printable characters, of
/// the 70 allowed. The sequence number alone tells the messages of a maildrop apart; the tag keeps the ids of
/// a maildrop that was deleted and made anew from being taken for the old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid {
    pub seq: u64,
    pub tag: u64,
}

/// A message as LIST and UIDL show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What RETR sends: every line with its CRLF, dot-stuffing and the terminator not counted.
    pub octets: u64,
    pub uid: Uid,
}

/// A number of messages and the sum of their octets, counted as in [`Entry`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub messages: u64,
    pub octets: u64,
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
}
