//! NTLM messages on the wire (MS-NLMP section 2.2). Numbers are little-endian; a field is a length, the length again
//! and an offset from the start of the message.

use std::ops::Range;

use super::Denial;

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";
/// CHALLENGE up to its payload.
const CHALLENGE_HEADER_OCTETS: usize = 56;
/// AUTHENTICATE up to its payload, without version and message integrity code, which older clients omit.
const AUTHENTICATE_HEADER_OCTETS: usize = 64;
const INTEGRITY_CODE: Range<usize> = 72..88;
/// Product and NTLM revision in CHALLENGE: those of Windows Server 2003, in case clients care.
const VERSION: [u8; 8] = [5, 2, 0xce, 0x0e, 0, 0, 0, 15];

/// NEGOTIATE flags (MS-NLMP section 2.2.2.5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flags(pub u32);

impl Flags {
    pub const UNICODE: Flags = Flags(1);
    pub const OEM: Flags = Flags(1 << 1);
    pub const REQUEST_TARGET: Flags = Flags(1 << 2);
    pub const SIGN: Flags = Flags(1 << 4);
    pub const SEAL: Flags = Flags(1 << 5);
    pub const NTLM: Flags = Flags(1 << 9);
    pub const ALWAYS_SIGN: Flags = Flags(1 << 15);
    pub const TARGET_TYPE_SERVER: Flags = Flags(1 << 17);
    pub const EXTENDED_SESSION_SECURITY: Flags = Flags(1 << 19);
    pub const TARGET_INFO: Flags = Flags(1 << 23);
    pub const VERSION: Flags = Flags(1 << 25);
    pub const KEYS_OF_128: Flags = Flags(1 << 29);
    pub const KEY_EXCHANGE: Flags = Flags(1 << 30);
    pub const KEYS_OF_56: Flags = Flags(1 << 31);

    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Flags a client may choose. Session keys are negotiated but never used; some clients insist on them.
const CHOOSABLE: Flags = Flags::SIGN
    .with(Flags::SEAL)
    .with(Flags::ALWAYS_SIGN)
    .with(Flags::EXTENDED_SESSION_SECURITY)
    .with(Flags::VERSION)
    .with(Flags::KEYS_OF_128)
    .with(Flags::KEY_EXCHANGE)
    .with(Flags::KEYS_OF_56);

/// Flags always set in CHALLENGE.
const GIVEN: Flags =
    Flags::REQUEST_TARGET.with(Flags::NTLM).with(Flags::TARGET_TYPE_SERVER).with(Flags::TARGET_INFO);

/// The meaning of a pair of target information (MS-NLMP section 2.2.2.1). We skip those that we neither send nor read.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u16)]
pub enum AvId {
    End = 0,
    NetbiosComputer = 1,
    NetbiosDomain = 2,
    DnsComputer = 3,
    DnsDomain = 4,
    Flags = 6,
    Timestamp = 7,
    ChannelBindings = 10,
}

/// Octets that hold pairs, verified up to [`AvId::End`].
#[derive(Clone, Debug, PartialEq)]
pub struct AvPairs {
    octets: Vec<u8>,
    /// Identifiers and the positions of their values.
    pairs: Vec<(u16, Range<usize>)>,
}

/// AUTHENTICATE, decoded.
pub struct Authenticate<'a> {
    pub lm_response: &'a [u8],
    pub nt_response: &'a [u8],
    pub domain: String,
    pub user: String,
    pub encrypted_key: &'a [u8],
    pub flags: Flags,
    octets: &'a [u8],
    /// Offset of the payload.
    payload: usize,
}

/// The flags of NEGOTIATE. We ignore the names in it.
pub fn negotiate_flags(message: &[u8]) -> Result<Flags, Denial> {
    check_header(message, 1)?;
    let flags = Flags(u32_at(message, 12)?);
    if flags.contains(Flags::UNICODE) || flags.contains(Flags::OEM) {
        Ok(flags)
    } else {
        Err(Denial::Malformed)
    }
}

/// CHALLENGE in answer to these flags.
pub fn challenge_message(
    asked: Flags,
    target: &str,
    server_challenge: &[u8; 8],
    target_info: &[u8],
) -> Vec<u8> {
    let is_unicode = asked.contains(Flags::UNICODE);
    let (characters, target) = match is_unicode {
        true => (Flags::UNICODE, target.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        false => (Flags::OEM, target.as_bytes().to_vec()),
    };
    let flags = Flags(asked.0 & CHOOSABLE.0).with(GIVEN).with(characters);
    let version = if flags.contains(Flags::VERSION) { VERSION } else { [0; 8] };
    let target_info_at = CHALLENGE_HEADER_OCTETS + target.len();

    let mut message = Vec::with_capacity(target_info_at + target_info.len());
    message.extend_from_slice(SIGNATURE);
    message.extend_from_slice(&2u32.to_le_bytes());
    write_field(target.len(), CHALLENGE_HEADER_OCTETS, &mut message);
    message.extend_from_slice(&flags.0.to_le_bytes());
    message.extend_from_slice(server_challenge);
    message.extend_from_slice(&[0; 8]);
    write_field(target_info.len(), target_info_at, &mut message);
    message.extend_from_slice(&version);
    assert_eq!(message.len(), CHALLENGE_HEADER_OCTETS);
    message.extend_from_slice(&target);
    message.extend_from_slice(target_info);
    message
}

impl<'a> Authenticate<'a> {
    /// Refuses fields that leave the message, overlap its header or overlap each other.
    pub fn parse(octets: &'a [u8]) -> Result<Self, Denial> {
        check_header(octets, 3)?;
        let flags = Flags(u32_at(octets, 60)?);
        let mut fields = Vec::new();
        for at in [12, 20, 28, 36, 44, 52] {
            fields.push(field(octets, at)?);
        }
        let mut taken: Vec<&Range<usize>> = fields.iter().filter(|field| !field.is_empty()).collect();
        taken.sort_by_key(|field| field.start);
        let payload = taken.first().map_or(octets.len(), |first| first.start);
        if payload < AUTHENTICATE_HEADER_OCTETS || taken.windows(2).any(|pair| pair[0].end > pair[1].start) {
            return Err(Denial::Malformed);
        }
        let content = |index: usize| &octets[fields[index].clone()];
        let text = |index: usize| decode_text(content(index), flags);
        Ok(Self {
            lm_response: content(0),
            nt_response: content(1),
            domain: text(2)?,
            user: text(3)?,
            encrypted_key: content(5),
            flags,
            octets,
            payload,
        })
    }

    /// The message integrity code, and the message with the code zeroed.
    pub fn integrity_code(&self) -> Result<([u8; 16], Vec<u8>), Denial> {
        if self.payload < INTEGRITY_CODE.end {
            return Err(Denial::Malformed);
        }
        let code = self.octets[INTEGRITY_CODE].try_into().expect("sixteen octets");
        let mut without_code = self.octets.to_vec();
        without_code[INTEGRITY_CODE].fill(0);
        Ok((code, without_code))
    }
}

impl AvPairs {
    /// The pairs. Whatever follows their end does not matter.
    pub fn parse(octets: &[u8]) -> Result<Self, Denial> {
        Self::parse_from(octets, 0)
    }

    pub fn parse_from(octets: &[u8], mut at: usize) -> Result<Self, Denial> {
        let mut pairs = Vec::new();
        loop {
            let (id, length) = (u16_at(octets, at)?, usize::from(u16_at(octets, at + 2)?));
            let value = at + 4..at + 4 + length;
            if value.end > octets.len() {
                return Err(Denial::Malformed);
            }
            if id == AvId::End as u16 {
                return Ok(Self { octets: octets.to_vec(), pairs });
            }
            at = value.end;
            pairs.push((id, value));
        }
    }

    /// All octets, including what follows the end.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    pub fn value(&self, id: AvId) -> Option<&[u8]> {
        self.value_of(id as u16)
    }

    fn value_of(&self, id: u16) -> Option<&[u8]> {
        let (_, value) = self.pairs.iter().find(|(found, _)| *found == id)?;
        Some(&self.octets[value.clone()])
    }

    /// True if `other` has every pair of ours with the same value.
    pub fn are_all_in(&self, other: &AvPairs) -> bool {
        self.pairs.iter().all(|(id, value)| other.value_of(*id) == Some(&self.octets[value.clone()]))
    }
}

pub fn write_pair(id: AvId, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(id as u16).to_le_bytes());
    out.extend_from_slice(&u16_of(value.len()));
    out.extend_from_slice(value);
}

fn write_field(length: usize, offset: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16_of(length));
    out.extend_from_slice(&u16_of(length));
    out.extend_from_slice(&u32::from(u16::from_le_bytes(u16_of(offset))).to_le_bytes());
}

/// Cannot overflow: host names are short.
fn u16_of(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("a message of ours is short").to_le_bytes()
}

fn check_header(message: &[u8], message_type: u32) -> Result<(), Denial> {
    let is_that = message.starts_with(SIGNATURE) && u32_at(message, 8)? == message_type;
    if is_that { Ok(()) } else { Err(Denial::Malformed) }
}

/// The field described at this offset.
fn field(message: &[u8], at: usize) -> Result<Range<usize>, Denial> {
    let length = usize::from(u16_at(message, at)?);
    let offset = usize::try_from(u32_at(message, at + 4)?).map_err(|_| Denial::Malformed)?;
    if length == 0 {
        // Its offset may be anything.
        return Ok(0..0);
    }
    let end = offset.checked_add(length).filter(|end| *end <= message.len()).ok_or(Denial::Malformed)?;
    Ok(offset..end)
}

/// OEM text does not name its code page, so decode it as UTF-8 and replace what is not.
fn decode_text(octets: &[u8], flags: Flags) -> Result<String, Denial> {
    if !flags.contains(Flags::UNICODE) {
        return Ok(String::from_utf8_lossy(octets).into_owned());
    }
    let (units, odd) = octets.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(Denial::Malformed);
    }
    Ok(char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit)))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect())
}

fn u16_at(message: &[u8], at: usize) -> Result<u16, Denial> {
    let octets = message.get(at..at + 2).ok_or(Denial::Malformed)?;
    Ok(u16::from_le_bytes(octets.try_into().expect("two octets")))
}

fn u32_at(message: &[u8], at: usize) -> Result<u32, Denial> {
    let octets = message.get(at..at + 4).ok_or(Denial::Malformed)?;
    Ok(u32::from_le_bytes(octets.try_into().expect("four octets")))
}
