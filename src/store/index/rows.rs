//! The rows of the index: their types, their versions and their encoding, and nothing else.
//!
//! This is one of the two places that know `bincode` (the other is the control socket's frames). Every row is encoded
//! as an enum of its versions, so its first octet is the version; a reader of this version refuses a newer one. Decoding
//! is always limited in what it may allocate, and what is left over after a row is an error.
//!
//! A row type changes by getting a new version beside the old one, and a conversion; never in place.

use super::types::{DomainId, MailboxId, OwnerId, UnixTime};
use crate::auth::password::Credential;
use crate::auth::seal::{KeyId, Sealed};
use bincode::config::{self, Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};

/// The longest row, in octets. A header prefix is bounded well below it.
const ROW_OCTETS_MAX: usize = 64 << 10;

fn coding() -> Configuration<LittleEndian, Fixint, Limit<ROW_OCTETS_MAX>> {
    config::standard().with_fixed_int_encoding().with_limit::<ROW_OCTETS_MAX>()
}

/// A row could not be decoded: it is damaged, or of a version that this program does not know.
#[derive(Debug, PartialEq, Eq)]
pub struct BadRow;

/// The versions of a row type: one so far. A type that gets a second one gets an enum of its own.
#[derive(Encode, Decode)]
enum Versions<T> {
    V1(T),
}

/// A type that is kept in the index.
pub trait Row: Encode + Decode<()> {
    fn to_row(&self) -> Vec<u8> {
        let row =
            bincode::encode_to_vec(Versions::V1(self), coding()).expect("encoding into memory does not fail");
        // One that is longer could be written, and never be read again.
        assert!(row.len() <= ROW_OCTETS_MAX, "rows are bounded where they are made");
        row
    }

    fn from_row(row: &[u8]) -> Result<Self, BadRow> {
        match bincode::decode_from_slice(row, coding()) {
            Ok((Versions::V1(value), consumed)) if consumed == row.len() => Ok(value),
            _ => Err(BadRow),
        }
    }
}

impl Row for DomainRow {}
impl Row for MailboxRow {}
impl Row for Counts {}
impl Row for QuotaRow {}
impl Row for MessageRow {}
impl Row for TextRow {}
impl Row for StoreRow {}

/// A domain. Key: its name.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct DomainRow {
    /// Unique in the store for ever, among domains and mailboxes; the key of its counts.
    pub id: DomainId,
    pub locked: bool,
    pub created: UnixTime,
}

/// A mailbox. Key: domain name and mailbox name.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct MailboxRow {
    /// Unique in the store for ever: a mailbox that is made anew under an old name gets a new one.
    pub id: MailboxId,
    /// Of the mailbox alone; a locked domain is not written into its mailboxes.
    pub locked: bool,
    pub created: UnixTime,
    pub credential: Credential,
    /// The account whose quota this mailbox's octets count against; none: they count against no quota.
    pub quota: Option<String>,
}

/// What is counted of a mailbox, or of all mailboxes of a domain. Key: the id of the mailbox or domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Counts {
    pub messages: u64,
    /// The sum of what LIST announces for them.
    pub octets: u64,
    /// The same for a client that did not say UTF8.
    pub octets_without_utf8: u64,
    /// Mailbox: the number of the next message, never used twice. Domain: not used.
    pub next_sequence: u64,
    /// Domain: its mailboxes. Mailbox: not used.
    pub mailboxes: u64,
}

/// The quota of an account. Key: the account's name, which is the address of a mailbox. There is a row for as long as
/// there is a mailbox that counts against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct QuotaRow {
    /// Octets; none: the setting `quotalimit` holds.
    pub limit: Option<u64>,
    /// The octets of the mailboxes that count against it.
    pub used: u64,
    /// How many those are.
    pub mailboxes: u64,
}

/// A message in a mailbox. Key: id of the mailbox, sequence number.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct MessageRow {
    /// What LIST announces: prefix and text, dot-stuffing not counted.
    pub octets: u64,
    /// The random part of the UIDL, so that the UIDLs of two histories of a store (one of them restored from a
    /// backup) are not taken for each other.
    pub tag: u64,
    /// When it was accepted.
    pub received: UnixTime,
    /// What LIST announces of its surrogate (see `wire::surrogate`); none if it needs none.
    pub surrogate_octets: Option<u64>,
    /// The name of its text: blake3 of the wire form.
    pub text: [u8; 32],
    /// Return-Path, Delivered-To and Received of this recipient, in wire form.
    pub prefix: Vec<u8>,
}

/// The front of a message row, which is all that LIST and UIDL need of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Decode)]
pub struct MessageHead {
    pub octets: u64,
    pub tag: u64,
    pub received: UnixTime,
    pub surrogate_octets: Option<u64>,
}

impl MessageRow {
    /// What LIST announces to a client that did not say UTF8.
    pub fn octets_without_utf8(&self) -> u64 {
        self.surrogate_octets.unwrap_or(self.octets)
    }
}

impl MessageHead {
    pub fn from_row(row: &[u8]) -> Result<Self, BadRow> {
        match bincode::decode_from_slice(row, coding()) {
            Ok((Versions::V1(head), _)) => Ok(head),
            Err(_) => Err(BadRow),
        }
    }
}

/// A stored text. Key: blake3 of its wire form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TextRow {
    /// Where it lies in the data file.
    pub at: u64,
    /// Length of the wire form.
    pub wire_octets: u64,
    /// How many messages have this text; a text without any has no row.
    pub references: u64,
}

/// A certificate that was made here, with its key.
#[derive(Clone, PartialEq, Encode, Decode)]
pub struct CertificateRow {
    /// X.509, DER.
    pub certificate: Vec<u8>,
    pub key: PrivateKey,
    /// The name of this host when it was made.
    pub hostname: String,
}

/// A private key: PKCS #8, DER.
#[derive(Clone, PartialEq, Encode, Decode)]
pub enum PrivateKey {
    /// As version 1 of the row has it.
    Clear(Vec<u8>),
    Sealed(Sealed),
}

/// The versions of [`CertificateRow`]. The first one has its key in clear.
#[derive(Encode, Decode)]
enum CertificateVersions {
    V1 { certificate: Vec<u8>, key: Vec<u8>, hostname: String },
    V2(CertificateRow),
}

impl Row for CertificateRow {
    fn to_row(&self) -> Vec<u8> {
        let version = match self.clone() {
            Self { certificate, key: PrivateKey::Clear(key), hostname } => {
                CertificateVersions::V1 { certificate, key, hostname }
            }
            sealed => CertificateVersions::V2(sealed),
        };
        bincode::encode_to_vec(version, coding()).expect("encoding into memory does not fail")
    }

    fn from_row(row: &[u8]) -> Result<Self, BadRow> {
        match bincode::decode_from_slice(row, coding()) {
            Ok((CertificateVersions::V1 { certificate, key, hostname }, consumed))
                if consumed == row.len() =>
            {
                Ok(Self { certificate, key: PrivateKey::Clear(key), hostname })
            }
            Ok((CertificateVersions::V2(sealed @ Self { key: PrivateKey::Sealed(_), .. }), consumed))
                if consumed == row.len() =>
            {
                Ok(sealed)
            }
            _ => Err(BadRow),
        }
    }
}

/// What is counted of the whole store, and the ids given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct StoreRow {
    pub domains: u64,
    pub mailboxes: u64,
    pub messages: u64,
    pub octets: u64,
    /// The sum of the wire lengths of the texts, each counted once.
    pub text_octets: u64,
    pub next_id: OwnerId,
    /// Transactions committed so far; tells, after a fault, whether the last one got through.
    pub commits: u64,
    /// The log's epoch since the last checkpoint, drawn at random.
    pub epoch: u128,
    /// Octets of the log zone in use.
    pub log_octets: u64,
    /// The key that seals passwords; none before there was one.
    pub key: Option<KeyId>,
}

/// For the fuzzer: any octets as a row of every type. What decodes is what encodes to the same octets.
#[cfg(any(test, fuzzing))]
pub fn fuzz_rows(octets: &[u8]) {
    fn hold<R: Row>(octets: &[u8]) {
        if let Ok(row) = R::from_row(octets) {
            assert_eq!(row.to_row(), octets);
        }
    }
    hold::<DomainRow>(octets);
    hold::<MailboxRow>(octets);
    hold::<Counts>(octets);
    hold::<QuotaRow>(octets);
    hold::<MessageRow>(octets);
    hold::<TextRow>(octets);
    hold::<CertificateRow>(octets);
    hold::<StoreRow>(octets);
    if let (Ok(head), Ok(row)) = (MessageHead::from_row(octets), MessageRow::from_row(octets)) {
        assert_eq!((head.octets, head.tag, head.received), (row.octets, row.tag, row.received));
        assert_eq!(head.surrogate_octets, row.surrogate_octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> TextRow {
        TextRow { at: 1 << 40, wire_octets: 7, references: 3 }
    }

    #[test]
    fn a_row_comes_back_as_it_was() {
        assert_eq!(TextRow::from_row(&text().to_row()), Ok(text()));
        let message = MessageRow {
            octets: 9,
            tag: 5,
            received: UnixTime(1),
            surrogate_octets: Some(8),
            text: [7; 32],
            prefix: b"Return-Path: <>\r\n".to_vec(),
        };
        let row = message.to_row();
        assert_eq!(
            MessageHead::from_row(&row),
            Ok(MessageHead { octets: 9, tag: 5, received: UnixTime(1), surrogate_octets: Some(8) })
        );
        assert_eq!(MessageRow::from_row(&row), Ok(message));
    }

    #[test]
    fn a_certificate_of_the_first_version_is_read_and_its_key_is_sealed_in_the_second() {
        let clear = CertificateRow {
            certificate: vec![1, 2, 3],
            key: PrivateKey::Clear(vec![4, 5]),
            hostname: "a.example".to_owned(),
        };
        // Version, then three lengths with what they are of.
        let row = clear.to_row();
        let lengths =
            [&3u64.to_le_bytes()[..], &[1, 2, 3], &2u64.to_le_bytes(), &[4, 5], &9u64.to_le_bytes()];
        assert_eq!(row, [&0u32.to_le_bytes()[..], &lengths.concat(), b"a.example"].concat());
        assert!(CertificateRow::from_row(&row) == Ok(clear.clone()));
        let key = crate::auth::seal::Key::new([7; 32]);
        let sealed = key.seal_private_key(&[4, 5], &[1, 2, 3], [0; 24]);
        let sealed = CertificateRow { key: PrivateKey::Sealed(sealed), ..clear };
        assert_eq!(sealed.to_row()[..4], 1u32.to_le_bytes());
        assert!(CertificateRow::from_row(&sealed.to_row()) == Ok(sealed));
    }

    #[test]
    fn a_row_that_is_cut_lengthened_or_newer_is_refused() {
        let row = text().to_row();
        for len in 0..row.len() {
            assert_eq!(TextRow::from_row(&row[..len]), Err(BadRow));
        }
        assert_eq!(TextRow::from_row(&[&row[..], &[0]].concat()), Err(BadRow));
        let newer = [&2u32.to_le_bytes()[..], &row[4..]].concat();
        assert_eq!(TextRow::from_row(&newer), Err(BadRow));
    }

    #[test]
    fn a_forged_length_is_refused_before_anything_is_allocated_for_it() {
        let mut row = MessageRow {
            octets: 9,
            tag: 5,
            received: UnixTime(1),
            surrogate_octets: None,
            text: [7; 32],
            prefix: vec![1],
        }
        .to_row();
        let length_at = row.len() - 9;
        row[length_at..length_at + 8].fill(0xff);
        assert_eq!(MessageRow::from_row(&row), Err(BadRow));
    }

    #[test]
    fn mutated_rows_decode_to_what_they_say_or_not_at_all() {
        let mut rng = fastrand::Rng::with_seed(1);
        let row = MessageRow {
            octets: 9,
            tag: 5,
            received: UnixTime(1),
            surrogate_octets: None,
            text: [7; 32],
            prefix: vec![1; 20],
        }
        .to_row();
        for _ in 0..20_000 {
            let mut mutated = row.clone();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..mutated.len());
                mutated[at] = rng.u8(..);
            }
            mutated.truncate(rng.usize(row.len() / 2..=row.len()));
            fuzz_rows(&mutated);
        }
    }
}
