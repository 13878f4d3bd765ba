//! The rows of the index: their types, versions and encoding.
//!
//! Only this file and the control socket's frames use `bincode`. A row is encoded as an enum of its versions,
//! so its first octet is the version, and a program refuses versions newer than its own. Decoding limits what
//! it allocates and rejects octets left over after a row.
//!
//! A row type never changes in place: it gets a new version next to the old one, and a conversion.

use bincode::config::{self, Configuration, Fixint, Limit, LittleEndian};
use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

use super::types::{DomainId, MailboxId, OwnerId, TextId, UnixTime};
use crate::auth::password::{Credential, Verifier};
use crate::auth::seal::{KeyId, Sealed};

/// Longest row in octets. Header prefixes are bounded well below it.
const ROW_OCTETS_MAX: usize = 64 << 10;

fn coding() -> Configuration<LittleEndian, Fixint, Limit<ROW_OCTETS_MAX>> {
    config::standard().with_fixed_int_encoding().with_limit::<ROW_OCTETS_MAX>()
}

/// A row that cannot be decoded: damaged, or of a version this program does not know.
#[derive(Debug, PartialEq, Eq)]
pub struct BadRow;

/// The versions of a row type that has only one so far. A type with a second version gets an enum of its own
/// and a conversion.
#[derive(Encode, Decode)]
enum Versions<T> {
    V1(T),
}

/// A type stored in the index.
pub trait Row: Sized {
    fn to_row(&self) -> Vec<u8>;
    fn from_row(row: &[u8]) -> Result<Self, BadRow>;

    fn is_row(row: &[u8]) -> bool {
        Self::from_row(row).is_ok()
    }
}

fn encode(version: impl Encode) -> Vec<u8> {
    let row = bincode::encode_to_vec(version, coding()).expect("encoding into memory does not fail");
    // A longer row could be written but never read again.
    assert!(row.len() <= ROW_OCTETS_MAX, "rows are bounded where they are made");
    row
}

fn decode<V: Decode<()>>(row: &[u8]) -> Result<V, BadRow> {
    match bincode::decode_from_slice(row, coding()) {
        Ok((version, consumed)) if consumed == row.len() => Ok(version),
        _ => Err(BadRow),
    }
}

/// Implements [`Row`].
macro_rules! rows {
    ($($row:ident;)*) => {
        $(impl Row for $row {
            fn to_row(&self) -> Vec<u8> {
                encode(Versions::V1(self))
            }

            fn from_row(row: &[u8]) -> Result<Self, BadRow> {
                decode(row).map(|Versions::V1(row)| row)
            }
        })*

        /// All row types: the name, and what a row becomes when it is decoded and encoded again, if it can be.
        #[cfg(any(test, fuzzing))]
        pub const ROWS: &[(&str, fn(&[u8]) -> Option<Vec<u8>>)] =
            &[$((stringify!($row), |row| <$row>::from_row(row).ok().map(|row| row.to_row()))),*];
    };
}

/// Encodes types of other parts, which know nothing of `bincode`: these fields, in this order.
macro_rules! parts_of_rows {
    ($($part:ident { $($field:tt),* };)*) => {
        $(impl Encode for $part {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                $(self.$field.encode(encoder)?;)*
                Ok(())
            }
        }

        impl<Context> Decode<Context> for $part {
            fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
                Ok(Self { $($field: Decode::decode(decoder)?),* })
            }
        }

        bincode::impl_borrow_decode!($part);)*
    };
}

rows! {
    DomainRow;
    MailboxRow;
    Counts;
    QuotaRow;
    MessageRow;
    TextRow;
    CertificateRow;
    StoreRow;
    DeletedRow;
    DeletedCounts;
    RemovedMailboxRow;
    RemovedDomainRow;
}

parts_of_rows! {
    Credential { version, verifier, sealed };
    Verifier { salt, iterations, stored_key, server_key };
    Sealed { key, nonce, ciphertext };
    KeyId { 0 };
}

/// A domain. Key: its name.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct DomainRow {
    /// Key of its counts. Ids are unique among domains and mailboxes and never reused.
    pub id: DomainId,
    pub locked: bool,
    pub created: UnixTime,
}

/// A mailbox. Key: domain, name.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct MailboxRow {
    /// Never reused: a new mailbox under an old name gets a new id.
    pub id: MailboxId,
    /// The mailbox's own lock; a locked domain does not change it.
    pub locked: bool,
    pub created: UnixTime,
    pub credential: Credential,
    /// The account whose quota the mailbox counts against, if any.
    pub quota: Option<String>,
    /// The first login on the last day (UTC) with a login.
    pub last_login: Option<UnixTime>,
}

/// Counts of a mailbox, or sums over a domain. Key: id of the mailbox or domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Counts {
    pub messages: u64,
    /// Sum of the sizes LIST announces.
    pub octets: u64,
    /// The same for a client that did not say UTF8.
    pub octets_without_utf8: u64,
    /// Mailbox: number of the next message, never reused. Domain: unused.
    pub next_sequence: u64,
    /// Domain: number of its mailboxes. Mailbox: unused.
    pub mailboxes: u64,
}

/// Quota of an account. Key: the account's name, which is a mailbox address. The row exists while any mailbox
/// counts against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct QuotaRow {
    /// In octets. `None`: the setting `quotalimit` applies.
    pub limit: Option<u64>,
    /// Octets of the mailboxes that count against it.
    pub used: u64,
    /// Number of those mailboxes.
    pub mailboxes: u64,
}

/// A message. Key: mailbox id, sequence number.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct MessageRow {
    /// Size announced by LIST: prefix and text, without dot-stuffing.
    pub octets: u64,
    /// Random part of the UIDL. It tells apart two histories of a store, one of them restored from a backup.
    pub tag: u64,
    /// When the message was accepted.
    pub received: UnixTime,
    /// Size of its surrogate as announced by LIST (see `wire::surrogate`); `None` if it needs none.
    pub surrogate_octets: Option<u64>,
    /// Unique id from another server, which UIDL shows instead of sequence and tag.
    pub foreign_id: Option<Box<str>>,
    pub text: TextId,
    /// Return-Path, Delivered-To and Received for this recipient, in wire form.
    pub prefix: Vec<u8>,
}

/// The front of a message row: all that LIST and UIDL need.
#[derive(Clone, Debug, PartialEq, Eq, Decode)]
pub struct MessageHead {
    pub octets: u64,
    pub tag: u64,
    pub received: UnixTime,
    pub surrogate_octets: Option<u64>,
    pub foreign_id: Option<Box<str>>,
}

impl MessageRow {
    /// Size announced by LIST to a client that did not say UTF8.
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

/// A stored text. Key: its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TextRow {
    /// blake3 of the wire form.
    pub hash: [u8; 32],
    /// Offset in the data file.
    pub at: u64,
    /// Length of the wire form.
    pub wire_octets: u64,
    /// Number of messages with this text. The row goes with the last one.
    pub references: u64,
}

/// A deleted message that can be undeleted. Key: day of deletion, mailbox id, sequence number.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct DeletedRow {
    pub deleted: UnixTime,
    /// Its unchanged [`MessageRow`].
    pub message: Vec<u8>,
}

/// Counts of messages deleted on one day that can be undeleted, except those of deleted mailboxes. Key: the
/// day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct DeletedCounts {
    pub messages: u64,
    /// Sum of the sizes LIST announced.
    pub octets: u64,
}

/// A deleted mailbox that can be undeleted. Its messages and counts stay where they were. Key: day of deletion,
/// mailbox id.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct RemovedMailboxRow {
    pub domain: String,
    pub local: String,
    pub removed: UnixTime,
    /// The domain it was deleted with; `None` if it was deleted alone.
    pub with: Option<DomainId>,
    /// Its account's own quota limit.
    pub quota_limit: Option<u64>,
    /// Its unchanged [`MailboxRow`].
    pub mailbox: Vec<u8>,
}

/// A deleted domain that can be undeleted. Key: day of deletion, domain id.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct RemovedDomainRow {
    pub domain: String,
    pub removed: UnixTime,
    /// Its unchanged [`DomainRow`].
    pub row: Vec<u8>,
}

/// The self-signed certificate and its key.
#[derive(Clone, PartialEq, Encode, Decode)]
pub struct CertificateRow {
    /// X.509, DER.
    pub certificate: Vec<u8>,
    pub key: PrivateKey,
    /// Host name when it was made.
    pub hostname: String,
}

/// A private key (PKCS #8, DER).
#[derive(Clone, PartialEq, Encode, Decode)]
pub enum PrivateKey {
    /// Unsealed, because there was no key to seal it with.
    Clear(Vec<u8>),
    Sealed(Sealed),
}

/// Counts of the whole store, and the next ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct StoreRow {
    pub domains: u64,
    pub mailboxes: u64,
    pub messages: u64,
    pub octets: u64,
    /// Sum of the wire lengths of all texts, each counted once.
    pub text_octets: u64,
    pub next_id: OwnerId,
    pub next_text: TextId,
    /// Transactions committed so far. After a fault this tells whether the last one reached the disk.
    pub commits: u64,
    /// Epoch of the log since the last checkpoint, drawn at random.
    pub epoch: u128,
    /// Octets of the log zone in use.
    pub log_octets: u64,
    /// The key that seals passwords; `None` before there was one.
    pub key: Option<KeyId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> TextRow {
        TextRow { hash: [7; 32], at: 1 << 40, wire_octets: 7, references: 3 }
    }

    #[test]
    fn a_row_comes_back_as_it_was() {
        assert_eq!(TextRow::from_row(&text().to_row()), Ok(text()));
        let message = MessageRow {
            octets: 9,
            tag: 5,
            received: UnixTime(1),
            surrogate_octets: Some(8),
            foreign_id: Some("a7".into()),
            text: TextId(7),
            prefix: b"Return-Path: <>\r\n".to_vec(),
        };
        let row = message.to_row();
        assert_eq!(
            MessageHead::from_row(&row),
            Ok(MessageHead {
                octets: 9,
                tag: 5,
                received: UnixTime(1),
                surrogate_octets: Some(8),
                foreign_id: Some("a7".into())
            })
        );
        assert_eq!(MessageRow::from_row(&row), Ok(message));
    }

    #[test]
    fn a_certificate_comes_back_with_its_key_as_it_was() {
        let key = PrivateKey::Clear(vec![4, 5]);
        let clear = CertificateRow { certificate: vec![1, 2, 3], key, hostname: "a.example".to_owned() };
        assert!(CertificateRow::from_row(&clear.to_row()) == Ok(clear.clone()));
        let key = crate::auth::seal::Key::new([7; 32]);
        let sealed = key.seal_private_key(&[4, 5], &[1, 2, 3], [0; 24]);
        let sealed = CertificateRow { key: PrivateKey::Sealed(sealed), ..clear };
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
            foreign_id: None,
            text: TextId(7),
            prefix: vec![1],
        }
        .to_row();
        let length_at = row.len() - 9;
        row[length_at..length_at + 8].fill(0xff);
        assert_eq!(MessageRow::from_row(&row), Err(BadRow));
    }
}
