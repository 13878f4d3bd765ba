//! Requests as octets, and octets as responses (RFC 4511 sections 4 and 5).

use std::fmt;

use yasna::{ASN1Result, BERReader, BERReaderSeq, DERWriter, DERWriterSeq, Tag, parse_ber};
use zeroize::Zeroizing;

/// The largest response, in octets.
pub const RESPONSE_OCTETS_MAX: usize = 1 << 20;
/// The protocol version (RFC 4511 section 4.2).
const VERSION: u8 = 3;
/// StartTLS (RFC 4511 section 4.14.1).
const START_TLS: &str = "1.3.6.1.4.1.1466.20037";
/// How long a server may search, in seconds: about as long as we wait for its answer.
const SEARCH_SECONDS_MAX: u32 = 3;
/// The tag of a LDAPMessage: SEQUENCE.
const SEQUENCE: u8 = 0x30;

/// A search filter (RFC 4511 section 4.5.1.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    /// The attribute equals this value under its own matching rule, which ignores case for names.
    Equal(&'static str, String),
    /// The entry has the attribute.
    Present(&'static str),
}

/// An attribute and its values.
pub type Attribute<'a> = (&'a str, Vec<Zeroizing<Vec<u8>>>);

/// A request to a server.
pub enum Request<'a> {
    /// A simple bind (RFC 4511 section 4.2).
    Bind {
        name: &'a str,
        password: &'a str,
    },
    /// A search of the tree below a base, or of the base alone.
    Search {
        base: &'a str,
        whole_tree: bool,
        filter: &'a Filter,
        attributes: &'a [&'static str],
        entries_max: u32,
    },
    Add {
        dn: &'a str,
        attributes: &'a [Attribute<'a>],
    },
    /// Replaces the values of attributes.
    Replace {
        dn: &'a str,
        attributes: &'a [Attribute<'a>],
    },
    Delete {
        dn: &'a str,
    },
    StartTls,
}

/// The result of an operation (RFC 4511 section 4.1.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub code: u32,
    /// The server's diagnostic message, in any form.
    pub message: String,
}

/// An entry that a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub dn: String,
    pub attributes: Vec<(String, Vec<Vec<u8>>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    Entry(Entry),
    /// A referral to another server, which we do not follow.
    Reference,
    Done(Outcome),
}

/// Not an LDAP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Outcome {
    pub const SUCCESS: u32 = 0;
    pub const SIZE_LIMIT_EXCEEDED: u32 = 4;
    pub const CONSTRAINT_VIOLATION: u32 = 19;
    pub const NO_SUCH_OBJECT: u32 = 32;
    pub const INVALID_CREDENTIALS: u32 = 49;
    pub const INSUFFICIENT_ACCESS: u32 = 50;
    pub const UNWILLING_TO_PERFORM: u32 = 53;
    pub const ENTRY_ALREADY_EXISTS: u32 = 68;
    const BUSY: u32 = 51;
    const UNAVAILABLE: u32 = 52;
    const OPERATIONS_ERROR: u32 = 1;

    pub fn is_success(&self) -> bool {
        self.code == Self::SUCCESS
    }

    /// True if the server is in trouble, rather than the request wrong.
    pub fn is_trouble(&self) -> bool {
        [Self::BUSY, Self::UNAVAILABLE, Self::OPERATIONS_ERROR].contains(&self.code)
    }
}

impl Entry {
    /// The first value of an attribute, if it is UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        let (_, values) = self.attributes.iter().find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        values.first().and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// Encodes a request. The octets are wiped, since they may hold a password.
pub fn encode(id: u32, request: &Request) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_u32(id);
            request.write(writer.next());
        });
    }))
}

impl Request<'_> {
    fn write(&self, writer: DERWriter) {
        match self {
            Self::Bind { name, password } => sequence(writer, Tag::application(0), |writer| {
                writer.next().write_u8(VERSION);
                writer.next().write_bytes(name.as_bytes());
                octets(writer.next(), Tag::context(0), password.as_bytes());
            }),
            Self::Search { base, whole_tree, filter, attributes, entries_max } => {
                sequence(writer, Tag::application(3), |writer| {
                    writer.next().write_bytes(base.as_bytes());
                    writer.next().write_enum(if *whole_tree { 2 } else { 0 });
                    // Never follow aliases.
                    writer.next().write_enum(0);
                    writer.next().write_u32(*entries_max);
                    writer.next().write_u32(SEARCH_SECONDS_MAX);
                    writer.next().write_bool(false);
                    filter.write(writer.next());
                    writer.next().write_sequence_of(|writer| {
                        for attribute in *attributes {
                            writer.next().write_bytes(attribute.as_bytes());
                        }
                    });
                });
            }
            Self::Add { dn, attributes } => sequence(writer, Tag::application(8), |writer| {
                writer.next().write_bytes(dn.as_bytes());
                writer.next().write_sequence_of(|writer| {
                    attributes.iter().for_each(|attribute| write_attribute(writer.next(), attribute));
                });
            }),
            Self::Replace { dn, attributes } => sequence(writer, Tag::application(6), |writer| {
                writer.next().write_bytes(dn.as_bytes());
                writer.next().write_sequence_of(|writer| {
                    for attribute in *attributes {
                        writer.next().write_sequence(|writer| {
                            writer.next().write_enum(2);
                            write_attribute(writer.next(), attribute);
                        });
                    }
                });
            }),
            Self::Delete { dn } => octets(writer, Tag::application(10), dn.as_bytes()),
            Self::StartTls => sequence(writer, Tag::application(23), |writer| {
                octets(writer.next(), Tag::context(0), START_TLS.as_bytes());
            }),
        }
    }
}

impl Filter {
    fn write(&self, writer: DERWriter) {
        let several = |writer: DERWriter, tag, filters: &[Filter]| {
            writer.write_tagged_implicit(tag, |writer| {
                writer.write_set_of(|writer| filters.iter().for_each(|filter| filter.write(writer.next())));
            });
        };
        match self {
            Self::And(filters) => several(writer, Tag::context(0), filters),
            Self::Or(filters) => several(writer, Tag::context(1), filters),
            Self::Equal(attribute, value) => sequence(writer, Tag::context(3), |writer| {
                writer.next().write_bytes(attribute.as_bytes());
                writer.next().write_bytes(value.as_bytes());
            }),
            Self::Present(attribute) => octets(writer, Tag::context(7), attribute.as_bytes()),
        }
    }
}

fn sequence(writer: DERWriter, tag: Tag, write: impl FnOnce(&mut DERWriterSeq)) {
    writer.write_tagged_implicit(tag, |writer| writer.write_sequence(write));
}

fn octets(writer: DERWriter, tag: Tag, octets: &[u8]) {
    writer.write_tagged_implicit(tag, |writer| writer.write_bytes(octets));
}

fn write_attribute(writer: DERWriter, (name, values): &Attribute) {
    writer.write_sequence(|writer| {
        writer.next().write_bytes(name.as_bytes());
        writer.next().write_set_of(|writer| {
            values.iter().for_each(|value| writer.next().write_bytes(value));
        });
    });
}

/// The length of the first message in `received`, or `None` if more octets are needed to tell. A message above
/// [`RESPONSE_OCTETS_MAX`] is malformed.
pub fn frame_octets(received: &[u8]) -> Result<Option<usize>, Malformed> {
    let (tag, length, rest) = match received {
        [] | [_] => return Ok(None),
        [tag, length, rest @ ..] => (*tag, usize::from(*length), rest),
    };
    if tag != SEQUENCE {
        return Err(Malformed);
    }
    // LDAP allows no indefinite lengths (RFC 4511 section 5.1).
    let (head, content) = match length {
        0..=127 => (2, length),
        129..=132 => {
            let Some(digits) = rest.get(..length - 128) else { return Ok(None) };
            (2 + digits.len(), digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit)))
        }
        _ => return Err(Malformed),
    };
    match head + content {
        octets if octets <= RESPONSE_OCTETS_MAX => Ok(Some(octets)),
        _ => Err(Malformed),
    }
}

/// Decodes a whole message into the request's id and the response. Id 0 marks a message that answers no request, such
/// as notice that the server disconnects.
pub fn decode(message: &[u8]) -> Result<(u32, Response), Malformed> {
    let decoded = parse_ber(message, |reader| {
        reader.read_sequence(|reader| {
            let id = reader.next().read_u32()?;
            let response = read_response(reader.next())?;
            reader.read_optional(|reader| {
                reader.read_tagged_implicit(Tag::context(0), |reader| {
                    reader.read_sequence_of(|reader| reader.read_sequence(read_control))
                })
            })?;
            Ok((id, response))
        })
    });
    decoded.map_err(|_| Malformed)
}

fn read_response(reader: BERReader) -> ASN1Result<Response> {
    let tag = reader.lookahead_tag()?;
    reader.read_tagged_implicit(tag, |reader| {
        if tag == Tag::application(4) {
            reader.read_sequence(read_entry).map(Response::Entry)
        } else if tag == Tag::application(19) {
            reader.read_sequence_of(|reader| reader.read_bytes().map(drop))?;
            Ok(Response::Reference)
        } else if [1, 5, 7, 9, 11, 24].map(Tag::application).contains(&tag) {
            reader.read_sequence(read_outcome).map(Response::Done)
        } else {
            Err(yasna::ASN1Error::new(yasna::ASN1ErrorKind::Invalid))
        }
    })
}

fn read_entry(reader: &mut BERReaderSeq) -> ASN1Result<Entry> {
    let dn = text(reader.next())?;
    let attributes = reader.next().collect_sequence_of(|reader| {
        reader.read_sequence(|reader| {
            let name = text(reader.next())?;
            // In the directory's order, which DER would not allow.
            let mut values = Vec::new();
            reader.next().read_set_of(|reader| {
                values.push(reader.read_bytes()?);
                Ok(())
            })?;
            Ok((name, values))
        })
    })?;
    Ok(Entry { dn, attributes })
}

fn read_outcome(reader: &mut BERReaderSeq) -> ASN1Result<Outcome> {
    let code = u32::try_from(reader.next().read_enum()?)
        .map_err(|_| yasna::ASN1Error::new(yasna::ASN1ErrorKind::Invalid))?;
    text(reader.next())?;
    let message = text(reader.next())?;
    // A referral, the credentials of SASL, the name and the value of an extended response.
    reader.read_optional(|reader| {
        reader.read_tagged_implicit(Tag::context(3), |reader| {
            reader.read_sequence_of(|reader| reader.read_bytes().map(drop))
        })
    })?;
    for number in [7, 10, 11] {
        reader.read_optional(|reader| {
            reader.read_tagged_implicit(Tag::context(number), |reader| reader.read_bytes().map(drop))
        })?;
    }
    Ok(Outcome { code, message })
}

/// Reads over a control; none was asked for.
fn read_control(reader: &mut BERReaderSeq) -> ASN1Result<()> {
    reader.next().read_bytes()?;
    reader.read_optional(|reader| reader.read_bool())?;
    reader.read_optional(|reader| reader.read_bytes())?;
    Ok(())
}

fn text(reader: BERReader) -> ASN1Result<String> {
    let octets = reader.read_bytes()?;
    // Active Directory ends its messages with an octet of zero.
    Ok(String::from_utf8_lossy(&octets).trim_end_matches('\0').to_owned())
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LDAP result {}", self.code)?;
        let said: String = self.message.chars().filter(|c| !c.is_control()).take(200).collect();
        if !said.is_empty() {
            write!(f, " ({said})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_and_a_search_are_encoded_as_in_rfc_4511() {
        let bind = encode(1, &Request::Bind { name: "cn=a", password: "pw" });
        assert_eq!(bind[..], *b"\x30\x12\x02\x01\x01\x60\x0d\x02\x01\x03\x04\x04cn=a\x80\x02pw");
        let filter = Filter::And(vec![Filter::Present("cn"), Filter::Equal("uid", "a)(b=*".to_owned())]);
        let search = Request::Search {
            base: "dc=x",
            whole_tree: true,
            filter: &filter,
            attributes: &["cn"],
            entries_max: 2,
        };
        // Nothing in a value is syntax.
        let filter = b"\xa0\x13\x87\x02cn\xa3\x0d\x04\x03uid\x04\x06a)(b=*";
        let mut expected =
            b"\x30\x3a\x02\x01\x02\x63\x35\x04\x04dc=x\x0a\x01\x02\x0a\x01\x00\x02\x01\x02\x02\x01\x03\x01\x01\x00"
                .to_vec();
        expected.extend_from_slice(filter);
        expected.extend_from_slice(b"\x30\x04\x04\x02cn");
        let length = expected.len() - 2;
        expected[1] = u8::try_from(length).unwrap();
        expected[6] = u8::try_from(length - 5).unwrap();
        assert_eq!(encode(2, &search)[..], expected[..]);
    }

    /// As Active Directory writes lengths: always with four digits.
    const REFUSED: &[u8] =
        b"\x30\x84\x00\x00\x00\x12\x02\x01\x02\x61\x84\x00\x00\x00\x09\x0a\x01\x31\x04\x00\x04\x02no";

    #[test]
    fn responses_are_decoded_whatever_the_form_of_their_lengths() {
        let outcome = Outcome { code: Outcome::INVALID_CREDENTIALS, message: "no".to_owned() };
        assert_eq!(decode(REFUSED), Ok((2, Response::Done(outcome))));
        let entry =
            b"\x30\x1a\x02\x01\x03\x64\x15\x04\x04cn=a\x30\x0d\x30\x0b\x04\x01m\x31\x06\x04\x01b\x04\x01a";
        let Ok((3, Response::Entry(entry))) = decode(entry) else { panic!("it is an entry") };
        assert_eq!(entry.dn, "cn=a");
        assert_eq!(entry.text("M"), Some("b"));
        assert_eq!(entry.text("n"), None);
    }

    #[test]
    fn a_message_is_framed_once_it_is_complete_and_a_malformed_one_is_refused() {
        for end in 0..6 {
            assert_eq!(frame_octets(&REFUSED[..end]), Ok(None), "{end}");
        }
        assert_eq!(frame_octets(REFUSED), Ok(Some(REFUSED.len())));
        for bad in
            [&b"HTTP/1.1 400"[..], b"\x30\x80\x00\x00", b"\x30\x84\xff\xff\xff\xff", b"\x30\x85\0\0\0\0\0"]
        {
            assert_eq!(frame_octets(bad), Err(Malformed), "{bad:?}");
        }
        for end in 0..REFUSED.len() {
            assert_eq!(decode(&REFUSED[..end]), Err(Malformed), "{end}");
        }
    }

    #[test]
    fn what_a_server_says_is_shown_without_control_characters() {
        let outcome = Outcome { code: 53, message: "a\r\nb\u{1b}[2J".to_owned() };
        assert_eq!(outcome.to_string(), "LDAP result 53 (ab[2J)");
    }
}
