//! Encrypts what must be recoverable (passwords, the private key of our own certificate) with XChaCha20-Poly1305 under
//! a key that lies outside the data file.
//!
//! A sealed password is bound to its mailbox and credential version, a private key to its certificate, so neither opens
//! anywhere else. Neither the data file alone (a stolen backup) nor the key alone reveals anything.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::address::Address;

pub const NONCE_OCTETS: usize = 24;
pub const KEY_OCTETS: usize = 32;
/// Prefix of the key in its file, so that the file says what it is.
const PREFIX: &str = "pop3svc-key-1:";

/// Identifies a key without revealing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(pub [u8; 8]);

/// The sealing key.
pub struct Key {
    secret: Zeroizing<[u8; KEY_OCTETS]>,
    id: KeyId,
}

/// A sealed password or private key.
#[derive(Clone, PartialEq)]
pub struct Sealed {
    pub key: KeyId,
    pub nonce: [u8; NONCE_OCTETS],
    pub ciphertext: Vec<u8>,
}

/// The seal does not open: wrong key, wrong place, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl Key {
    pub fn new(secret: [u8; KEY_OCTETS]) -> Self {
        let secret = Zeroizing::new(secret);
        let hash = blake3::derive_key("pop3svc 2026 id of a sealing key", &*secret);
        Self { id: KeyId(*hash.first_chunk().expect("a hash is longer")), secret }
    }

    /// Parses the text of a key file; `None` if it is not one.
    pub fn from_text(text: &str) -> Option<Self> {
        let encoded = text.trim().strip_prefix(PREFIX)?;
        let secret = Zeroizing::new(STANDARD.decode(encoded).ok()?);
        Some(Self::new(secret.as_slice().try_into().ok()?))
    }

    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}\n", STANDARD.encode(self.secret.as_slice())))
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    /// A nonce must never repeat under one key; 24 random octets do not.
    pub fn seal(&self, password: &str, address: &Address, version: u64, nonce: [u8; NONCE_OCTETS]) -> Sealed {
        self.seal_octets(password.as_bytes(), &of_password(address, version), nonce)
    }

    /// Seals the private key of a certificate. Same rule for the nonce.
    pub fn seal_private_key(&self, private: &[u8], certificate: &[u8], nonce: [u8; NONCE_OCTETS]) -> Sealed {
        self.seal_octets(private, &of_private_key(certificate), nonce)
    }

    /// Seals the value of a setting. Same rule for the nonce.
    pub fn seal_setting(&self, value: &str, setting: &str, nonce: [u8; NONCE_OCTETS]) -> Sealed {
        self.seal_octets(value.as_bytes(), &of_setting(setting), nonce)
    }

    fn seal_octets(&self, secret: &[u8], bound_to: &[u8], nonce: [u8; NONCE_OCTETS]) -> Sealed {
        let payload = Payload { msg: secret, aad: bound_to };
        let ciphertext = self.cipher().encrypt(&XNonce::from(nonce), payload);
        Sealed { key: self.id, nonce, ciphertext: ciphertext.expect("what is sealed is short") }
    }

    pub fn open(
        &self,
        sealed: &Sealed,
        address: &Address,
        version: u64,
    ) -> Result<Zeroizing<String>, Closed> {
        let password = self.open_octets(sealed, &of_password(address, version))?;
        std::str::from_utf8(&password).map(|password| Zeroizing::new(password.to_owned())).map_err(|_| Closed)
    }

    pub fn open_private_key(
        &self,
        sealed: &Sealed,
        certificate: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Closed> {
        self.open_octets(sealed, &of_private_key(certificate))
    }

    pub fn open_setting(&self, sealed: &Sealed, setting: &str) -> Result<Zeroizing<String>, Closed> {
        let value = self.open_octets(sealed, &of_setting(setting))?;
        std::str::from_utf8(&value).map(|value| Zeroizing::new(value.to_owned())).map_err(|_| Closed)
    }

    fn open_octets(&self, sealed: &Sealed, bound_to: &[u8]) -> Result<Zeroizing<Vec<u8>>, Closed> {
        if sealed.key != self.id {
            return Err(Closed);
        }
        let payload = Payload { msg: &sealed.ciphertext, aad: bound_to };
        self.cipher().decrypt(&XNonce::from(sealed.nonce), payload).map(Zeroizing::new).map_err(|_| Closed)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.secret).into())
    }
}

/// The associated data of a sealed password.
fn of_password(address: &Address, version: u64) -> Vec<u8> {
    let mut bound_to = version.to_le_bytes().to_vec();
    bound_to.extend_from_slice(address.to_string().as_bytes());
    bound_to
}

/// The associated data of a sealed private key.
fn of_private_key(certificate: &[u8]) -> Vec<u8> {
    // No address ends with these 12 octets, so this never equals the data of a password.
    [certificate, b"\0private key"].concat()
}

/// The associated data of a sealed setting; its end differs from that of passwords and private keys.
fn of_setting(setting: &str) -> Vec<u8> {
    [setting.as_bytes(), b"\0setting"].concat()
}

impl Sealed {
    /// One word: base64 of key id, nonce and ciphertext.
    pub fn to_text(&self) -> String {
        STANDARD.encode([&self.key.0[..], &self.nonce, &self.ciphertext].concat())
    }

    /// `None` if the text is not a seal.
    pub fn from_text(text: &str) -> Option<Self> {
        let octets = STANDARD.decode(text).ok()?;
        let (key, rest) = octets.split_first_chunk()?;
        let (nonce, ciphertext) = rest.split_first_chunk()?;
        Some(Self { key: KeyId(*key), nonce: *nonce, ciphertext: ciphertext.to_vec() })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key {}", self.id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(typed: &str) -> Address {
        typed.parse().unwrap()
    }

    #[test]
    fn a_seal_opens_only_in_its_place_and_with_its_key() {
        let (ann, key) = (address("ann@example.com"), Key::new([1; 32]));
        let sealed = key.seal("pässword", &ann, 7, [2; 24]);
        assert_eq!(key.open(&sealed, &ann, 7).unwrap().as_str(), "pässword");
        assert_eq!(key.open(&sealed, &ann, 8).unwrap_err(), Closed);
        assert_eq!(key.open(&sealed, &address("bob@example.com"), 7).unwrap_err(), Closed);
        assert_eq!(Key::new([3; 32]).open(&sealed, &ann, 7).unwrap_err(), Closed);
        let mut damaged = sealed.clone();
        damaged.ciphertext[0] ^= 1;
        assert_eq!(key.open(&damaged, &ann, 7).unwrap_err(), Closed);
    }

    #[test]
    fn the_seal_of_a_private_key_opens_with_its_certificate_and_not_as_a_password() {
        let key = Key::new([1; 32]);
        let sealed = key.seal_private_key(b"private", b"certificate", [2; 24]);
        assert_eq!(&**key.open_private_key(&sealed, b"certificate").unwrap(), b"private");
        assert_eq!(key.open_private_key(&sealed, b"another").unwrap_err(), Closed);
        assert_eq!(Key::new([3; 32]).open_private_key(&sealed, b"certificate").unwrap_err(), Closed);
        assert_eq!(key.open(&sealed, &address("ann@example.com"), 7).unwrap_err(), Closed);
    }

    #[test]
    fn the_seal_of_a_setting_reads_back_from_its_text_and_opens_for_no_other() {
        let key = Key::new([1; 32]);
        let sealed = key.seal_setting("secret", "adbindpassword", [2; 24]);
        let read = Sealed::from_text(&sealed.to_text()).unwrap();
        assert_eq!(key.open_setting(&read, "adbindpassword").unwrap().as_str(), "secret");
        assert_eq!(key.open_setting(&read, "hostname").unwrap_err(), Closed);
        for bad in ["", "AAAA", "secret", "sealed"] {
            assert!(Sealed::from_text(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_key_reads_back_from_its_file() {
        let key = Key::new([9; 32]);
        let again = Key::from_text(&key.to_text()).unwrap();
        assert_eq!(again.id(), key.id());
        assert_eq!(*again.secret, [9; 32]);
        for bad in ["", "pop3svc-key-1:", "pop3svc-key-1:AAAA", "pop3svc-key-2:x", "hello"] {
            assert!(Key::from_text(bad).is_none(), "{bad}");
        }
    }
}
