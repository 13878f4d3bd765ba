//! What the data file keeps of a password: a SCRAM-SHA-256 verifier (RFC 5802 section 3, RFC 7677), and the password
//! itself, sealed.
//!
//! The verifier checks a password that was sent (USER/PASS, PLAIN, LOGIN) and is what SCRAM itself needs. The
//! password cannot be had back from it. APOP, CRAM-MD5 and NTLM need the password: it comes out of the seal with a
//! key that lies outside of the data file ([`super::seal`]).

use super::hash::{self, hmac_sha256};
use super::seal::{Key, NONCE_OCTETS, Sealed};
use crate::address::Address;
use crate::random;
use bincode::{Decode, Encode};
use std::borrow::Cow;
use std::fmt;
use std::io;
use subtle::ConstantTimeEq;

/// Rounds of PBKDF2 for a new password. RFC 7677 section 4 asks for 4096 at least; this many take about two
/// milliseconds, which a server that is polled by hundreds can afford.
pub const ITERATIONS: u32 = 10_000;
pub const SALT_OCTETS: usize = 16;
/// Longest password in octets. PBKDF2 has no bound of its own; a login line is 255 octets.
pub const PASSWORD_OCTETS_MAX: usize = 128;

/// The credential of a mailbox.
#[derive(Clone, PartialEq, Encode, Decode)]
pub struct Credential {
    /// Drawn anew with each password, so that whatever was derived from an older one is told from this one; the seal
    /// is bound to it.
    pub version: u64,
    pub verifier: Verifier,
    /// None where there was no key when the password was set.
    pub sealed: Option<Sealed>,
}

/// Randomness for a new credential.
#[derive(Clone, Copy)]
pub struct Fresh {
    pub salt: [u8; SALT_OCTETS],
    pub version: u64,
    pub nonce: [u8; NONCE_OCTETS],
}

impl Fresh {
    pub fn draw() -> io::Result<Self> {
        Ok(Self { salt: random::octets()?, version: random::number()?, nonce: random::octets()? })
    }
}

/// The verifier of RFC 5802 section 3: StoredKey, ServerKey, salt and iteration count.
#[derive(Clone, PartialEq, Encode, Decode)]
pub struct Verifier {
    pub salt: [u8; SALT_OCTETS],
    pub iterations: u32,
    pub stored_key: [u8; 32],
    pub server_key: [u8; 32],
}

/// Why a password cannot be taken: one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPassword(&'static str);

/// Whether a text may become a password: 1 to 128 octets of UTF-8 without control characters.
pub fn acceptable(password: &str) -> Result<(), BadPassword> {
    if password.is_empty() {
        return Err(BadPassword("the password is empty"));
    }
    if password.len() > PASSWORD_OCTETS_MAX {
        return Err(BadPassword("the password is longer than 128 octets"));
    }
    if password.chars().any(char::is_control) {
        return Err(BadPassword("the password has control characters in it"));
    }
    Ok(())
}

impl Credential {
    /// The credential of a new password. Takes milliseconds: not to be called on the executor, nor in a
    /// transaction.
    pub fn new(password: &str, address: &Address, fresh: Fresh, key: Option<&Key>) -> Self {
        Self {
            version: fresh.version,
            verifier: Verifier::new(password, fresh.salt, ITERATIONS),
            sealed: key.map(|key| key.seal(password, address, fresh.version, fresh.nonce)),
        }
    }
}

impl Verifier {
    pub fn new(password: &str, salt: [u8; SALT_OCTETS], iterations: u32) -> Self {
        let (client_key, server_key) = keys(password, &salt, iterations);
        Self { salt, iterations, stored_key: hash::sha256(&client_key), server_key }
    }

    /// A verifier that no password fits, so that an unknown user takes the same path and time as a known one.
    pub fn of_nobody(salt: [u8; SALT_OCTETS]) -> Self {
        Self { salt, iterations: ITERATIONS, stored_key: [0; 32], server_key: [0; 32] }
    }

    /// Whether this is the password. Takes as long as making the verifier did.
    pub fn accepts(&self, password: &str) -> bool {
        let (client_key, _) = keys(password, &self.salt, self.iterations);
        hash::sha256(&client_key).ct_eq(&self.stored_key).into()
    }
}

/// ClientKey and ServerKey of RFC 5802 section 3.
fn keys(password: &str, salt: &[u8], iterations: u32) -> ([u8; 32], [u8; 32]) {
    let salted = hash::pbkdf2_sha256(prepared(password).as_bytes(), salt, iterations);
    (hmac_sha256(&salted, b"Client Key"), hmac_sha256(&salted, b"Server Key"))
}

/// The password as SASLprep makes it (RFC 4013). One that it prohibits is used as it was typed: clients do the same, and
/// refusing it would lock out whoever brings it from elsewhere.
pub(super) fn prepared(password: &str) -> Cow<'_, str> {
    stringprep::saslprep(password).unwrap_or(Cow::Borrowed(password))
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential {{ version: {} }}", self.version)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl fmt::Display for BadPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    /// The exchange of RFC 7677 section 3: user "user", password "pencil".
    #[test]
    fn the_verifier_is_that_of_rfc_7677() {
        let salt: [u8; 16] = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let verifier = Verifier::new("pencil", salt, 4096);
        let exchange = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof = STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let signature = hmac_sha256(&verifier.stored_key, exchange.as_bytes());
        let client_key: Vec<u8> = proof.iter().zip(signature).map(|(p, s)| p ^ s).collect();
        assert_eq!(hash::sha256(&client_key), verifier.stored_key);
        let server_signature = hmac_sha256(&verifier.server_key, exchange.as_bytes());
        assert_eq!(STANDARD.encode(server_signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn only_the_password_is_accepted() {
        let verifier = Verifier::new("pässword", [1; 16], 4096);
        assert!(verifier.accepts("pässword"));
        for wrong in ["", "passwort", "pässword ", "PÄSSWORD"] {
            assert!(!verifier.accepts(wrong), "{wrong}");
        }
        assert!(!Verifier::of_nobody([0; 16]).accepts(""));
    }

    #[test]
    fn equal_passwords_written_in_two_forms_of_unicode_are_one() {
        assert!(Verifier::new("pa\u{308}ss", [1; 16], 4096).accepts("p\u{e4}ss"));
    }

    #[test]
    fn a_password_has_bounds() {
        assert!(acceptable("x").is_ok() && acceptable(&"x".repeat(128)).is_ok());
        for bad in ["", "a\nb", "a\0", &"x".repeat(129)] {
            assert!(acceptable(bad).is_err());
        }
    }
}
