//! The envelope of a message, and the trace fields made from it.

use std::fmt;
use std::net::IpAddr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::address::Address;

/// Who sent a message, to whom, and how it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The sender's address as typed, without angle brackets; empty for the null reverse path
    /// (RFC 5321 section 4.5.5).
    pub reverse_path: String,
    /// In the order given; duplicates are kept.
    pub recipients: Vec<ForwardPath>,
    /// The name from HELO, EHLO or LHLO as typed; empty if none.
    pub helo: String,
    pub peer: Peer,
    pub protocol: Protocol,
}

/// An address that mail can be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    Mailbox(Address),
    /// `<Postmaster>` without a domain, which every server must accept (RFC 5321 section 4.5.1).
    Postmaster,
}

/// Where the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Ip(IpAddr),
    /// A local process, over a pipe or a Unix socket.
    Local,
}

/// The protocol: the word after `with` in Received (RFC 3848, RFC 6531 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Smtp,
    Esmtp,
    /// ESMTP under TLS.
    Esmtps,
    Utf8Smtp,
    /// The same under TLS.
    Utf8Smtps,
    Lmtp,
    Utf8Lmtp,
    /// Handed over by a local program, without any protocol.
    Local,
}

/// Longest client name recorded, in characters. Longer ones are cut.
const HELO_CHARACTERS_MAX: usize = 255;
/// Longest reverse path recorded, in octets (RFC 5321 section 4.5.3.1.3).
const REVERSE_PATH_OCTETS_MAX: usize = 256;

impl Envelope {
    /// The header fields added in front of the text for one recipient, in wire form: Return-Path, Delivered-To,
    /// Received (RFC 5321 section 4.4). Whatever the client sent, no line exceeds 998 octets (RFC 5322 section 2.1.1),
    /// and nothing from it can end a line or open a comment. `hostname` and `id` are ours and used as they are.
    pub fn trace_fields(&self, recipient: &Address, hostname: &str, id: &str, at: OffsetDateTime) -> Vec<u8> {
        let reverse_path = self.printable_reverse_path();
        let date = at.format(&Rfc2822).expect("mail is received in the years 1900 to 9999");
        let from = match (printable_helo(&self.helo), self.peer) {
            (helo, Peer::Local) if helo.is_empty() => String::new(),
            (helo, peer) if helo.is_empty() => format!("from unknown ({peer})\r\n\t"),
            (helo, peer) => format!("from {helo} ({peer})\r\n\t"),
        };
        let protocol = self.protocol;
        format!(
            "Return-Path: <{reverse_path}>\r\n\
             Delivered-To: {recipient}\r\n\
             Received: {from}by {hostname} with {protocol} id {id}\r\n\
             \tfor <{recipient}>; {date}\r\n"
        )
        .into_bytes()
    }

    /// The reverse path without control characters, cut at 256 octets.
    pub fn printable_reverse_path(&self) -> String {
        let path = &self.reverse_path[..self.reverse_path.floor_char_boundary(REVERSE_PATH_OCTETS_MAX)];
        path.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }
}

/// The name with every character replaced that a domain name or address literal cannot contain.
fn printable_helo(helo: &str) -> String {
    let printable = |c: char| if c.is_ascii_alphanumeric() || ".-_:[]".contains(c) { c } else { '?' };
    helo.chars().take(HELO_CHARACTERS_MAX).map(printable).collect()
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mailbox(address) => address.fmt(f),
            Self::Postmaster => f.write_str("postmaster"),
        }
    }
}

/// For the comment in Received: an address literal (RFC 5321 section 4.1.3), or `local`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => match ip.to_canonical() {
                IpAddr::V4(ip) => write!(f, "[{ip}]"),
                IpAddr::V6(ip) => write!(f, "[IPv6:{ip}]"),
            },
            Self::Local => f.write_str("local"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Smtp => "SMTP",
            Self::Esmtp => "ESMTP",
            Self::Esmtps => "ESMTPS",
            Self::Utf8Smtp => "UTF8SMTP",
            Self::Utf8Smtps => "UTF8SMTPS",
            Self::Lmtp => "LMTP",
            Self::Utf8Lmtp => "UTF8LMTP",
            Self::Local => "local",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            reverse_path: "ann@example.org".to_owned(),
            recipients: Vec::new(),
            helo: "mx.example.org".to_owned(),
            peer: Peer::Ip("::ffff:192.0.2.7".parse().unwrap()),
            protocol: Protocol::Esmtp,
        }
    }

    fn trace_fields(envelope: &Envelope) -> String {
        let at = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        let recipient = "bob@example.com".parse().unwrap();
        String::from_utf8(envelope.trace_fields(&recipient, "mail.example.com", "7f3a", at)).unwrap()
    }

    #[test]
    fn trace_fields_say_how_the_message_arrived() {
        assert_eq!(
            trace_fields(&envelope()),
            "Return-Path: <ann@example.org>\r\n\
             Delivered-To: bob@example.com\r\n\
             Received: from mx.example.org ([192.0.2.7])\r\n\
             \tby mail.example.com with ESMTP id 7f3a\r\n\
             \tfor <bob@example.com>; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
        );
        let submitted = Envelope {
            reverse_path: String::new(),
            helo: String::new(),
            peer: Peer::Local,
            protocol: Protocol::Local,
            ..envelope()
        };
        assert_eq!(
            trace_fields(&submitted),
            "Return-Path: <>\r\n\
             Delivered-To: bob@example.com\r\n\
             Received: by mail.example.com with local id 7f3a\r\n\
             \tfor <bob@example.com>; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
        );
        let v6 = Envelope { peer: Peer::Ip("2001:db8::1".parse().unwrap()), ..envelope() };
        assert!(trace_fields(&v6).contains("([IPv6:2001:db8::1])"));
    }

    #[test]
    fn no_name_or_path_breaks_the_header() {
        for evil in [
            "a\r\n\r\nbody",
            "a\nX-Evil: 1",
            "a\r.\r",
            "x) (comment",
            "\0\u{85}\u{2028}",
            &"ü".repeat(4000),
            &"x".repeat(4000),
        ] {
            let envelope = Envelope { reverse_path: evil.to_owned(), helo: evil.to_owned(), ..envelope() };
            let fields = trace_fields(&envelope);
            let received = fields.split("Received: ").nth(1).unwrap();
            assert_eq!(received.matches(['(', ')']).count(), 2, "{fields}");
            assert_eq!(fields.matches(['\r', '\n']).count(), 10, "{fields}");
            for line in fields.split_terminator("\r\n") {
                assert!(line.len() <= 998 && !line.is_empty() && !line.starts_with('.'), "{line}");
            }
        }
    }
}
