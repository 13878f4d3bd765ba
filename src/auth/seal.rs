//! Sealing passwords that must be recoverable: XChaCha20-Poly1305 under a key that lies outside of the data file.
//!
//! A seal is bound to the mailbox and to the version of its credential, so it opens in no other place. Whoever has the data
//! file alone (a stolen backup) has no password; whoever has the key alone has nothing.

use crate::address::Address;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bincode::{Decode, Encode};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use std::fmt;
use zeroize::Zeroizing;

pub const NONCE_OCTETS: usize = 24;
pub const KEY_OCTETS: usize = 32;
/// What stands in front of the key in its file, so that the file says what it is.
const PREFIX: &str = "pop3svc-key-1:";

/// Which key it is, without saying the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyId([u8; 8]);

/// The key that seals passwords.
pub struct Key {
    secret: Zeroizing<[u8; KEY_OCTETS]>,
    id: KeyId,
}

/// A sealed password.
#[derive(Clone, PartialEq, Encode, Decode)]
pub struct Sealed {
    pub key: KeyId,
    nonce: [u8; NONCE_OCTETS],
    ciphertext: Vec<u8>,
}

/// The seal does not open: it was made with another key, for another place, or it is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl Key {
    pub fn new(secret: [u8; KEY_OCTETS]) -> Self {
        let secret = Zeroizing::new(secret);
        let hash = blake3::derive_key("pop3svc 2026 id of a sealing key", &*secret);
        Self { id: KeyId(*hash.first_chunk().expect("a hash is longer")), secret }
    }

    /// As it stands in the key file; none where that is not what the text is.
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

    /// A nonce must never serve twice under one key; 24 random octets do not come twice.
    pub fn seal(&self, password: &str, address: &Address, version: u64, nonce: [u8; NONCE_OCTETS]) -> Sealed {
        let bound_to = bound_to(address, version);
        let payload = Payload { msg: password.as_bytes(), aad: &bound_to };
        let ciphertext = self.cipher().encrypt(&XNonce::from(nonce), payload);
        Sealed { key: self.id, nonce, ciphertext: ciphertext.expect("a password is short") }
    }

    pub fn open(
        &self,
        sealed: &Sealed,
        address: &Address,
        version: u64,
    ) -> Result<Zeroizing<String>, Closed> {
        if sealed.key != self.id {
            return Err(Closed);
        }
        let bound_to = bound_to(address, version);
        let payload = Payload { msg: &sealed.ciphertext, aad: &bound_to };
        let password = self.cipher().decrypt(&XNonce::from(sealed.nonce), payload).map_err(|_| Closed)?;
        String::from_utf8(password).map(Zeroizing::new).map_err(|_| Closed)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.secret).into())
    }
}

/// What a seal is for.
fn bound_to(address: &Address, version: u64) -> Vec<u8> {
    let mut bound_to = version.to_le_bytes().to_vec();
    bound_to.extend_from_slice(address.to_string().as_bytes());
    bound_to
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
