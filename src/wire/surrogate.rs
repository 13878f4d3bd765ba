//! Surrogates: the header of an internationalized message (RFC 6532), rewritten for a client that did not say UTF8.
//!
//! RFC 6856 section 5 requires this; RFC 6858 says how:
//! - text in known fields, and display names, become encoded-words (RFC 2047);
//! - a non-ASCII address is replaced by one that cannot be replied to, with the address as its display name;
//! - Content-Type and Content-Disposition lose their non-ASCII parameters;
//! - these, Content-Transfer-Encoding, MIME-Version and Date lose their comments if that makes them ASCII;
//! - all other non-ASCII fields are dropped.
//!
//! Only the message's own header changes; its body and the headers of its parts stay. Fields that are not UTF-8 stay
//! too: they are not internationalized, and clients have always seen such fields.
//!
//! Invariants:
//! - ASCII input comes out octet for octet, up to [`HEADER_OCTETS_MAX`];
//! - output is ASCII, or not UTF-8, and no line starts with a dot that did not before;
//! - a sender cannot make a surrogate costly: [`Room`] bounds its length and the work for it.
//!
//! The store keeps the size that [`Sizer`] computed at delivery. Changing the output here makes LIST wrong for messages
//! already stored.

use std::borrow::Cow;

use base64::prelude::{BASE64_STANDARD, Engine};
use mail_parser::{Addr, HeaderValue, MessageParser};
use memchr::memmem;

/// Fields are dropped from here on.
const HEADER_OCTETS_MAX: u64 = 1 << 20;
/// A field that is not ASCII is dropped if it is longer, or if the fields rewritten before it leave less of this.
const REWRITTEN_OCTETS_MAX: usize = 64 << 10;
/// It is dropped too if the parser may have to look at more octets than are left of this; it looks at some more than
/// once.
const SCANNED_OCTETS_MAX: usize = 4 << 20;
/// Enough of a field to see that it is too long to be rewritten.
const HELD_OCTETS_MAX: usize = REWRITTEN_OCTETS_MAX + 1;
/// RFC 2047 section 2.
const ENCODED_WORD_OCTETS_MAX: usize = 75;
/// Octets of text per encoded-word, so that a line with the longest field name fits the 76 characters of RFC 2047
/// section 2.
const WORD_OCTETS_MAX: usize = 30;
/// A longer name is encoded, so that it can be folded.
const PLAIN_NAME_OCTETS_MAX: usize = 60;
/// A longer value is not unfolded: a line has at most 998 octets (RFC 5322 section 2.1.1).
const UNFOLDED_OCTETS_MAX: usize = 900;
/// Replaces a non-ASCII address; `.invalid` belongs to nobody (RFC 2606 section 2).
const NOBODY: &str = "<invalid@internationalized-address.invalid>";

/// The surrogate of a header in wire form, with or without the empty line after it.
pub fn header(wire: &[u8]) -> Vec<u8> {
    let (mut surrogate, mut room) = (Vec::new(), Room::default());
    for field in fields(wire) {
        let kept = match field {
            b"\r\n" => Some(Cow::Borrowed(field)),
            field => room.field(field, field.len() as u64, field.is_ascii()),
        };
        surrogate.extend_from_slice(&kept.unwrap_or_default());
    }
    surrogate
}

/// Fields with their line ends; the empty line counts as one.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let mut line_ends = memchr::memchr_iter(b'\n', rest).map(|at| at + 1);
        let is_end = |at: &usize| !matches!(rest[*at..], [b' ' | b'\t', ..]);
        let end = line_ends.find(is_end).unwrap_or(rest.len());
        let field;
        (field, rest) = rest.split_at(end);
        (!field.is_empty()).then_some(field)
    })
}

/// What the bounds leave for the rest of a surrogate.
#[derive(Debug)]
struct Room {
    header_octets: u64,
    rewritten_octets: usize,
    scanned_octets: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            header_octets: HEADER_OCTETS_MAX,
            rewritten_octets: REWRITTEN_OCTETS_MAX,
            scanned_octets: SCANNED_OCTETS_MAX,
        }
    }
}

impl Room {
    /// The next field as older clients get it, with line ends; borrowed if it stays as it is, `None` if it is dropped.
    /// Of its `octets`, the caller may hold only the first [`HELD_OCTETS_MAX`].
    fn field<'a>(&mut self, held: &'a [u8], octets: u64, is_ascii: bool) -> Option<Cow<'a, [u8]>> {
        let left = self.header_octets.checked_sub(octets);
        self.header_octets = left.unwrap_or(0);
        left?;
        if is_ascii {
            return Some(held.into());
        }
        if held.len() > REWRITTEN_OCTETS_MAX {
            return None;
        }
        let Ok(field) = std::str::from_utf8(held) else { return Some(held.into()) };
        self.rewritten_octets = self.rewritten_octets.checked_sub(field.len())?;
        self.scanned_octets = self.scanned_octets.checked_sub(scanned_octets(held))?;
        Some(rewritten(field)?.into_bytes().into())
    }
}

/// What the parser may look at to decode a field: it tries an encoded-word at every `=?`, and reads on to the end of
/// the field for one that does not end.
fn scanned_octets(field: &[u8]) -> usize {
    let unended = memmem::find_iter(field, b"=?").filter(|at| {
        let longest = &field[*at..field.len().min(at + ENCODED_WORD_OCTETS_MAX)];
        let text = longest.splitn(4, |&octet| octet == b'?').nth(3);
        text.is_none_or(|text| memmem::find(text, b"?=").is_none())
    });
    field.len() * (1 + unended.count())
}

/// Computes the size of a surrogate while the header arrives.
#[derive(Debug, Default)]
pub struct Sizer {
    /// The current field, up to [`HELD_OCTETS_MAX`].
    field: Vec<u8>,
    field_octets: u64,
    is_ascii: bool,
    room: Room,
    /// By how many octets the surrogate differs in size; `None` while nothing differs.
    difference: Option<i64>,
    /// Octets of the ASCII fields that a surrogate has no room for, if there is to be one.
    cut_octets: i64,
}

impl Sizer {
    /// A new field begins.
    pub fn begin_field(&mut self) {
        self.end_field();
        self.is_ascii = true;
    }

    pub fn push(&mut self, wire: &[u8]) {
        self.field_octets += wire.len() as u64;
        self.is_ascii &= wire.is_ascii();
        let room = HELD_OCTETS_MAX - self.field.len();
        self.field.extend_from_slice(&wire[..wire.len().min(room)]);
    }

    /// By how many content octets the surrogate is longer; `None` if the text needs none.
    pub fn finish(&mut self) -> Option<i64> {
        self.end_field();
        self.difference.map(|difference| difference - self.cut_octets)
    }

    fn end_field(&mut self) {
        let (field, octets) = (std::mem::take(&mut self.field), std::mem::take(&mut self.field_octets));
        if field.is_empty() {
            return;
        }
        let before = octets as i64 - i64::from(field.starts_with(b"."));
        match self.room.field(&field, octets, self.is_ascii) {
            Some(Cow::Borrowed(_)) => {}
            None if self.is_ascii => self.cut_octets += before,
            changed => {
                let after = changed.unwrap_or_default().len() as i64;
                self.difference = Some(self.difference.unwrap_or(0) + after - before);
            }
        }
    }
}

fn rewritten(field: &str) -> Option<String> {
    let (name, value) = field.split_once(':')?;
    let value = match name.trim_end_matches([' ', '\t']).to_ascii_lowercase().as_str() {
        "subject" | "comments" | "keywords" | "content-description" => encoded(&decoded(field)?),
        "from" | "sender" | "reply-to" | "to" | "cc" | "bcc" | "resent-from" | "resent-sender"
        | "resent-reply-to" | "resent-to" | "resent-cc" | "resent-bcc" => addresses(field)?,
        "content-type" | "content-disposition" => {
            parameters(value).or_else(|| parameters(&uncommented(value)?))?
        }
        "content-transfer-encoding" | "mime-version" | "date" => {
            uncommented(value).filter(|value| value.is_ascii())?
        }
        _ => return None,
    };
    Some(format!("{name}: {value}\r\n"))
}

/// The text of an unstructured field, its encoded-words decoded.
fn decoded(field: &str) -> Option<String> {
    let message = parsed(field)?;
    let text = match &message.headers().first()?.value {
        HeaderValue::Text(text) => text.to_string(),
        HeaderValue::TextList(texts) => texts.join(", "),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

fn addresses(field: &str) -> Option<String> {
    let message = parsed(field)?;
    let HeaderValue::Address(addresses) = &message.headers().first()?.value else { return None };
    let mailboxes: Vec<String> = addresses.iter().filter_map(mailbox).collect();
    (!mailboxes.is_empty()).then(|| mailboxes.join(",\r\n "))
}

fn parsed(field: &str) -> Option<mail_parser::Message<'_>> {
    MessageParser::default().parse_headers(field.as_bytes())
}

fn mailbox(parsed: &Addr<'_>) -> Option<String> {
    let name = parsed.name.as_deref().filter(|name| !name.is_empty());
    let address = parsed.address.as_deref();
    if let Some(address) = address.and_then(plain) {
        return Some(match name {
            Some(name) => format!("{}\r\n <{address}>", phrase(name)),
            None => address.to_owned(),
        });
    }
    match (name, address) {
        (Some(name), Some(address)) => {
            Some(format!("{}\r\n {NOBODY}", encoded(&format!("{name} <{address}>"))))
        }
        (None, Some(shown)) | (Some(shown), None) => Some(format!("{}\r\n {NOBODY}", encoded(shown))),
        (None, None) => None,
    }
}

/// The address as it can go between angle brackets, without a source route (RFC 5322 section 4.4); `None` if it is not
/// ASCII.
fn plain(address: &str) -> Option<&str> {
    let address = match address.starts_with('@') {
        true => address.split_once(':')?.1,
        false => address,
    };
    let is_atoms = |text: &str| {
        let is_of_atom = |octet: u8| octet.is_ascii_graphic() && !b"()<>@,;:\\\"[]".contains(&octet);
        !text.is_empty() && text.bytes().all(is_of_atom)
    };
    let is_enclosed = |text: &str, begin, end| {
        let inside = text.strip_prefix(begin).and_then(|text| text.strip_suffix(end));
        let is_inside = |octet| matches!(octet, b' '..=b'~') && !b"\"\\[]<>".contains(&octet);
        inside.is_some_and(|inside| inside.bytes().all(is_inside))
    };
    let (local, domain) = address.rsplit_once('@')?;
    let is_plain = address.len() <= 254
        && (is_atoms(local) || is_enclosed(local, '"', '"'))
        && (is_atoms(domain) || is_enclosed(domain, '[', ']'));
    is_plain.then_some(address)
}

fn phrase(name: &str) -> String {
    let is_plain =
        name.len() <= PLAIN_NAME_OCTETS_MAX && name.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    match is_plain {
        true => format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
        false => encoded(name),
    }
}

/// Encoded-words, one per line, which readers join again.
fn encoded(text: &str) -> String {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.floor_char_boundary(WORD_OCTETS_MAX));
        words.push(format!("=?utf-8?B?{}?=", BASE64_STANDARD.encode(word)));
        rest = after;
    }
    words.join("\r\n ")
}

/// The value without its non-ASCII parameters; `None` if the value itself is not ASCII.
fn parameters(value: &str) -> Option<String> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = value.split(|c| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        c == ';' && !is_quoted
    });
    let mut parts =
        parts.map(|part| part.trim_matches([' ', '\t', '\r', '\n'])).filter(|part| !part.is_empty());
    let first = parts.next().filter(|first| first.is_ascii())?;
    let kept = parts.filter(|part| part.is_ascii());
    Some(std::iter::once(first).chain(kept).collect::<Vec<_>>().join(";\r\n "))
}

/// The value without its comments (RFC 5322 section 3.2.2), unfolded; `None` if nothing is left, or too much.
fn uncommented(value: &str) -> Option<String> {
    let (mut depth, mut is_quoted, mut is_escaped) = (0, false, false);
    let is_outside = |c: &char| {
        let was_inside = depth > 0;
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = is_quoted || was_inside,
            '"' if !was_inside => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if was_inside => depth -= 1,
            _ => {}
        }
        !was_inside && depth == 0
    };
    let kept: String = value.chars().filter(is_outside).collect();
    let words: Vec<&str> = kept.split_ascii_whitespace().collect();
    Some(words.join(" ")).filter(|value| (1..=UNFOLDED_OCTETS_MAX).contains(&value.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored sizes depend on these surrogates. Read the head of this file before changing one.
    #[test]
    fn fields_become_what_an_old_client_can_show() {
        for (field, surrogate) in [
            ("Subject: plain\r\n", "Subject: plain\r\n"),
            ("X-Any: plain\r\n\tfolded\r\n", "X-Any: plain\r\n\tfolded\r\n"),
            ("Subject: Grüße\r\n", "Subject: =?utf-8?B?R3LDvMOfZQ==?=\r\n"),
            ("subject : Grüße\r\n =?utf-8?Q?an_alle?=\r\n", "subject : =?utf-8?B?R3LDvMOfZSBhbiBhbGxl?=\r\n"),
            (
                "Subject: ein langer Betreff über vieles und noch mehr\r\n",
                "Subject: =?utf-8?B?ZWluIGxhbmdlciBCZXRyZWZmIMO8YmVyIHZpZWxl?=\r\n =?utf-8?B?cyB1bmQgbm9jaCBtZWhy?=\r\n",
            ),
            ("From: Jörg <joerg@example.org>\r\n", "From: =?utf-8?B?SsO2cmc=?=\r\n <joerg@example.org>\r\n"),
            (
                "To: \"Ann \\\"A\\\"\" <ann@example.org>, jörg@bücher.example\r\n",
                "To: \"Ann \\\"A\\\"\"\r\n <ann@example.org>,\r\n =?utf-8?B?asO2cmdAYsO8Y2hlci5leGFtcGxl?=\r\n \
                 <invalid@internationalized-address.invalid>\r\n",
            ),
            (
                "Cc: Jörg <jörg@example.org>\r\n",
                "Cc: =?utf-8?B?SsO2cmcgPGrDtnJnQGV4YW1wbGUub3JnPg==?=\r\n \
                 <invalid@internationalized-address.invalid>\r\n",
            ),
            (
                "Content-Disposition: attachment;\r\n\tfilename=\"a;ü.pdf\"; size=3\r\n",
                "Content-Disposition: attachment;\r\n size=3\r\n",
            ),
            ("Content-Type: text/plain; name=ü\r\n", "Content-Type: text/plain\r\n"),
            ("Content-Type: ü/plain\r\n", ""),
            (
                "Content-Type: text/plain (ü);\r\n charset=utf-8; name=\"a (1).txt\"\r\n",
                "Content-Type: text/plain;\r\n charset=utf-8;\r\n name=\"a (1).txt\"\r\n",
            ),
            ("Content-Transfer-Encoding: base64 (ü)\r\n", "Content-Transfer-Encoding: base64\r\n"),
            ("MIME-Version: (ü \\) (ü))\r\n 1.0\r\n", "MIME-Version: 1.0\r\n"),
            (
                "Date: Mon, 1 Jan 2024 10:00:00 +0100 (Mitteleuropäische Zeit)\r\n",
                "Date: Mon, 1 Jan 2024 10:00:00 +0100\r\n",
            ),
            ("Content-Transfer-Encoding: (ü) base64 ü\r\n", ""),
            ("Content-Transfer-Encoding: (ü\r\n", ""),
            (
                "From: Jörg <\"john doe\"@example.org>, <joerg@[192.0.2.1]>, <@a,@b:c@d.org>\r\n",
                "From: =?utf-8?B?SsO2cmc=?=\r\n <\"john doe\"@example.org>,\r\n joerg@[192.0.2.1],\r\n c@d.org\r\n",
            ),
            ("Received: from ü by mx\r\n", ""),
            ("X-Grüße: a\r\n", ""),
            ("Ünames\r\n", ""),
        ] {
            assert_eq!(String::from_utf8_lossy(&header(field.as_bytes())), surrogate, "{field}");
        }
        assert_eq!(header(b"Subject: Gr\xfc\xdfe\r\n"), b"Subject: Gr\xfc\xdfe\r\n");
    }

    #[test]
    fn a_name_cannot_break_out_of_its_field() {
        let evil = "From: =?utf-8?B?DQpYLUV2aWw6IDENCg==?= ü <a@example.org>\r\n";
        let surrogate = String::from_utf8(header(evil.as_bytes())).unwrap();
        assert!(surrogate.is_ascii() && !surrogate.to_lowercase().contains("x-evil"), "{surrogate}");
    }

    /// The surrogate's length less the text's, as computed while the header arrives.
    fn difference(wire: &[u8]) -> Option<i64> {
        let mut sizer = Sizer::default();
        for line in wire.split_inclusive(|&octet| octet == b'\n') {
            if !line.starts_with(b" ") {
                sizer.begin_field();
            }
            sizer.push(line);
        }
        sizer.finish()
    }

    #[test]
    fn a_header_of_any_length_makes_a_surrogate_of_bounded_length() {
        let addresses = |count| format!("Cc: {}\r\n", "\u{e9},".repeat(count));
        let plain = format!("X-Any: {}\r\n", "a".repeat(1000));
        // The last field that is rewritten, the first one that has no room, and one past the end of the header.
        let first = addresses(20_000);
        let header_octets = HEADER_OCTETS_MAX as usize;
        let text =
            [first.clone(), first.clone(), plain.repeat(header_octets / plain.len()), plain.clone()].concat();
        let surrogate = header(text.as_bytes());
        assert!(surrogate.starts_with(&header(first.as_bytes())));
        let kept = header_octets - 2 * first.len();
        let plain_kept = plain.repeat(kept / plain.len());
        assert!(surrogate.ends_with(format!("invalid>\r\n{plain_kept}").as_bytes()));
        assert_eq!(difference(text.as_bytes()), Some(surrogate.len() as i64 - text.len() as i64));
        // Without a field to rewrite there is no surrogate, however long the header.
        assert_eq!(difference(plain.repeat(2 * header_octets / plain.len()).as_bytes()), None);
        // Bounded also if every field is one that grows.
        let text = "Cc: \u{e9}\r\n".repeat(header_octets);
        let surrogate = header(text.as_bytes());
        assert!(surrogate.len() < 64 * REWRITTEN_OCTETS_MAX, "{}", surrogate.len());
        assert_eq!(difference(text.as_bytes()), Some(surrogate.len() as i64 - text.len() as i64));
        assert!(header(format!("{text}\r\n").as_bytes()).ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn encoded_words_without_an_end_cost_no_more_than_others() {
        let subject = |word: &str, count| format!("Subject: \u{fc}{}\r\n", word.repeat(count)).into_bytes();
        assert!(!header(&subject(" =?utf-8?Q?=C3=BC?=", 3000)).is_empty());
        assert!(!header(&subject("=?aa?Q?x", 60)).is_empty());
        // The parser would read 260 MB.
        let costly = subject("=?aa?Q?x", 8125);
        assert!(costly.len() < REWRITTEN_OCTETS_MAX && header(&costly).is_empty());
        assert_eq!(difference(&costly), Some(-(costly.len() as i64)));
        // This `?=` is the start of the text.
        assert_eq!(scanned_octets(b"=?aa?Q?=41"), 2 * 10);
        // All fields together.
        let field = subject("=?aa?Q?x", 400);
        let surrogate = header(&field.repeat(30));
        let kept = memmem::find_iter(&surrogate, b"Subject").count();
        assert!(kept > 0 && kept * scanned_octets(&field) <= SCANNED_OCTETS_MAX, "{kept}");
    }

    #[test]
    fn sizes_are_those_of_the_surrogates_whatever_the_header() {
        let mut random = fastrand::Rng::with_seed(6858);
        let pieces = [
            "Subject",
            "To",
            "From",
            "Content-Type",
            "Date",
            "X-Any",
            ".dot",
            ":",
            " ",
            "ü",
            "<",
            ">",
            "@",
            "a",
            "\"",
            ";",
            ",",
            "=?utf-8?B?DQou?=",
            "\r\n ",
            "\r\n",
            "\r\n",
            "(",
            ")",
            "group:",
            "\u{85}",
        ];
        for _ in 0..20_000 {
            let mut wire: String =
                (0..random.usize(0..30)).map(|_| *random.choice(&pieces).unwrap()).collect();
            wire = format!("Subject: ü\r\n{}\r\n", wire.trim_matches([' ', '\r', '\n']));
            while wire.contains("\r\n\r\n") {
                wire = wire.replace("\r\n\r\n", "\r\n");
            }
            let surrogate = header(wire.as_bytes());
            let octets = |wire: &[u8]| super::super::unstuff(wire).len() as i64;
            assert_eq!(
                difference(wire.as_bytes()),
                Some(octets(&surrogate) - octets(wire.as_bytes())),
                "{wire:?}"
            );
            assert!(surrogate.is_ascii(), "{wire:?}");
            assert!(!surrogate.windows(3).any(|end| end == b"\n\r\n" || end == b"\r\n\r"), "{wire:?}");
        }
    }
}
