//! What the data file stores for a password: a SCRAM-SHA-256 verifier (RFC 5802 section 3, RFC 7677), and the password
//! itself, encrypted.
//!
//! The verifier checks passwords sent in clear (USER/PASS, PLAIN, LOGIN) and serves SCRAM; the password cannot be
//! derived from it. APOP, CRAM-MD5 and NTLM need the password, which opens with a key outside the data file
//! ([`super::seal`]).

use std::borrow::Cow;
use std::fmt;
use std::io;

use subtle::ConstantTimeEq;

use super::hash::{self, hmac_sha256};
use super::seal::{Key, NONCE_OCTETS, Sealed};
use crate::address::Address;
use crate::random;

/// PBKDF2 rounds for a new password. SCRAM clients built on Cyrus SASL refuse more, so OWASP's 600,000 would lock them
/// out. About 8 ms on a processor with SHA instructions; RFC 7677 section 4 requires at least 4096.
pub const ITERATIONS: u32 = 65_536;
/// More rounds mean a damaged verifier: computing them would take seconds, here and in a SCRAM client.
const ITERATIONS_MAX: u32 = 10_000_000;
pub const SALT_OCTETS: usize = 16;
/// Longest password in octets. PBKDF2 has no limit; a login line is 255 octets.
pub const PASSWORD_OCTETS_MAX: usize = 128;

/// The credential of a mailbox.
#[derive(Clone, PartialEq)]
pub struct Credential {
    /// Random per password, so that anything derived from an older one is recognised; the seal is bound to it.
    pub version: u64,
    pub verifier: Verifier,
    /// `None` if there was no key when the password was set.
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
#[derive(Clone, PartialEq)]
pub struct Verifier {
    pub salt: [u8; SALT_OCTETS],
    pub iterations: u32,
    pub stored_key: [u8; 32],
    pub server_key: [u8; 32],
}

/// Why a password is not acceptable: one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPassword(&'static str);

/// Checks a new password: 1 to 128 octets, and not empty after SASLprep for stored strings (RFC 4013, required by RFC
/// 5802 section 2.2).
pub fn acceptable(password: &str) -> Result<(), BadPassword> {
    if password.is_empty() {
        return Err(BadPassword("the password is empty"));
    }
    if password.len() > PASSWORD_OCTETS_MAX {
        return Err(BadPassword("the password is longer than 128 octets"));
    }
    if password.chars().any(char::is_control) {
        return Err(BadPassword("the password contains control characters"));
    }
    match stringprep::saslprep(password) {
        Ok(prepared) if prepared.is_empty() => Err(BadPassword(
            "the password consists of invisible characters only, which count as nothing (SASLprep, RFC 4013)",
        )),
        Ok(_) => Ok(()),
        Err(_) => Err(BadPassword(
            "the password contains characters, or a mix of writing directions, that mail programs may not use in \
             passwords (SASLprep, RFC 4013); choose other ones",
        )),
    }
}

impl Credential {
    /// The credential for a new password. Takes milliseconds, so call it neither on the executor nor in a transaction.
    pub fn new(password: &str, address: &Address, fresh: Fresh, key: Option<&Key>) -> Self {
        Self {
            version: fresh.version,
            verifier: Verifier::new(password, fresh.salt, ITERATIONS),
            sealed: key.map(|key| key.seal(password, address, fresh.version, fresh.nonce)),
        }
    }
}

impl Credential {
    /// The credential of a mailbox whose account is kept elsewhere: no password matches it.
    pub fn of_nobody(fresh: Fresh) -> Self {
        Self { version: fresh.version, verifier: Verifier::of_nobody(fresh.salt), sealed: None }
    }

    pub fn is_of_nobody(&self) -> bool {
        self.verifier == Verifier::of_nobody(self.verifier.salt)
    }
}

impl Verifier {
    pub fn new(password: &str, salt: [u8; SALT_OCTETS], iterations: u32) -> Self {
        let (client_key, server_key) = keys(&Prepared::new(password.as_bytes()).octets, &salt, iterations);
        Self { salt, iterations, stored_key: hash::sha256(&client_key), server_key }
    }

    /// A verifier no password matches, so that an unknown user takes the same path and time as a known one.
    pub fn of_nobody(salt: [u8; SALT_OCTETS]) -> Self {
        Self { salt, iterations: ITERATIONS, stored_key: [0; 32], server_key: [0; 32] }
    }

    /// Whether these octets are the password. A wrong one always costs as many rounds as a new verifier, even if this
    /// one has fewer: otherwise the time would reveal that the account exists.
    pub fn accepts(&self, password: &[u8]) -> bool {
        let Prepared { octets, can_be_password } = Prepared::new(password);
        let (client_key, _) = keys(&octets, &self.salt, self.iterations);
        let is_equal: bool = hash::sha256(&client_key).ct_eq(&self.stored_key).into();
        let is_right = can_be_password & is_equal;
        if !is_right && self.iterations < ITERATIONS {
            let missing = ITERATIONS - self.iterations;
            std::hint::black_box(hash::pbkdf2_sha256(&octets, &self.salt, missing));
        }
        is_right
    }

    /// Whether it has fewer rounds than a new one.
    pub fn is_weak(&self) -> bool {
        self.iterations < ITERATIONS
    }

    /// Whether its fields are plausible. Compute nothing from one that is not.
    pub fn is_sound(&self) -> bool {
        (1..=ITERATIONS_MAX).contains(&self.iterations)
    }
}

/// A password prepared for PBKDF2.
pub(super) struct Prepared<'a> {
    pub(super) octets: Cow<'a, [u8]>,
    /// False for octets that are not UTF-8 or that SASLprep maps to nothing: they are hashed for equal time, and never
    /// match.
    can_be_password: bool,
}

impl<'a> Prepared<'a> {
    /// Normalize(password) of RFC 5802 section 2.2: SASLprep. A prohibited password is used as typed, as clients do: it
    /// may have been set before such passwords were refused.
    pub(super) fn new(password: &'a [u8]) -> Self {
        let octets = match std::str::from_utf8(password).map(stringprep::saslprep) {
            Ok(Ok(Cow::Owned(prepared))) => Cow::Owned(prepared.into_bytes()),
            Ok(Ok(Cow::Borrowed(_)) | Err(_)) => Cow::Borrowed(password),
            Err(_) => return Self { octets: Cow::Borrowed(password), can_be_password: false },
        };
        Self { can_be_password: !octets.is_empty(), octets }
    }
}

/// ClientKey and ServerKey of RFC 5802 section 3.
fn keys(prepared: &[u8], salt: &[u8], iterations: u32) -> ([u8; 32], [u8; 32]) {
    let salted = hash::pbkdf2_sha256(prepared, salt, iterations);
    (hmac_sha256(&salted, b"Client Key"), hmac_sha256(&salted, b"Server Key"))
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
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// The exchange of RFC 7677 section 3: user "user", password "pencil".
    #[test]
    fn the_verifier_matches_the_example_of_rfc_7677() {
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
        assert!(verifier.accepts("pässword".as_bytes()));
        for wrong in ["", "passwort", "pässword ", "PÄSSWORD"] {
            assert!(!verifier.accepts(wrong.as_bytes()), "{wrong}");
        }
        assert!(!Verifier::of_nobody([0; 16]).accepts(b""));
    }

    #[test]
    fn passwords_in_two_unicode_forms_are_equal() {
        assert!(Verifier::new("pa\u{308}ss", [1; 16], 4096).accepts("p\u{e4}ss".as_bytes()));
    }

    /// Neither the empty password nor invalid UTF-8 matches a password that SASLprep maps to nothing.
    #[test]
    fn nothing_matches_a_verifier_of_nothing() {
        for nothing in ["", "\u{ad}", "\u{2060}\u{feff}"] {
            let verifier = Verifier::new(nothing, [1; 16], 4096);
            for tried in [&b""[..], b"\xff", b"\xc3(", nothing.as_bytes(), "\u{ad}".as_bytes()] {
                assert!(!verifier.accepts(tried), "{nothing:?} {tried:?}");
            }
        }
    }

    #[test]
    fn a_wrong_password_costs_the_same_under_a_verifier_of_fewer_rounds() {
        use super::super::hash::work;
        let verifier = Verifier::new("secret", [1; 16], 4096);
        work::take();
        assert!(verifier.accepts(b"secret"));
        let derived = || work::take().iter().filter(|call| **call == "pbkdf2-sha256").count();
        assert_eq!(derived(), 1);
        assert!(!verifier.accepts(b"wrong"));
        assert_eq!(derived(), 2, "the rounds that are missing are made up for");
        assert!(!Verifier::of_nobody([1; 16]).accepts(b"wrong"));
        assert_eq!(derived(), 1);
    }

    #[test]
    fn what_saslprep_does_not_allow_is_refused_when_it_is_set() {
        for bad in
            ["\u{ad}", "\u{2060}", "a\u{7f}", "a\u{85}b", "\u{e000}", "\u{fffd}", "\u{202e}abc", "\u{627}1"]
        {
            assert!(acceptable(bad).is_err(), "{bad:?}");
        }
        for good in ["x y", "pässword", "pa\u{ad}ss", "\u{2168}", "\u{627}1\u{628}", "пароль", "密码"]
        {
            assert!(acceptable(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_password_has_bounds() {
        assert!(acceptable("x").is_ok() && acceptable(&"x".repeat(128)).is_ok());
        for bad in ["", "a\nb", "a\0", &"x".repeat(129)] {
            assert!(acceptable(bad).is_err());
        }
    }
}
