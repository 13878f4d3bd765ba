//! Credentials: what is stored for a password, and how a client proves that it knows one.
//!
//! A mechanism is a value that turns the client's messages into ours and, given the account, into a verdict. It does no
//! I/O and knows neither time, randomness nor the store: a name goes out, an [`Account`] comes in.
//!
//! Invariants:
//! - An unknown name takes the same steps as a known one: same challenges, same hashes, same refusal. The driver
//!   supplies a decoy [`Account`], and `exists` is checked last.
//! - Everything a client could guess is compared in constant time.
//! - Passwords, and keys equivalent to one, are wiped when dropped.

pub mod crypt;
pub mod digest;
pub mod directory;
pub mod hash;
pub mod nonce;
pub mod ntlm;
pub mod password;
pub mod scram;
pub mod seal;

use std::fmt;

use zeroize::Zeroizing;

use password::Verifier;

/// What a mechanism needs to check a proof.
///
/// For an unknown name it is a decoy that no password matches. Its salt is derived from the name, because a salt that
/// changed, or that names shared, would give it away. It has as many iterations as real accounts.
pub struct Account {
    pub exists: bool,
    pub verifier: Verifier,
    /// The password in clear, for mechanisms that need it. `None` if it cannot be recovered; their proofs then fail.
    pub password: Option<Zeroizing<String>>,
}

/// What ties an exchange to its TLS connection.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelBinding {
    /// `tls-exporter` (RFC 9266): keying material for the label "EXPORTER-Channel-Binding" and an empty context. `None`
    /// if not unique: TLS 1.2 without extended master secret (section 4.2).
    pub exporter: Option<[u8; 32]>,
    /// `tls-server-end-point` (RFC 5929 section 4.1): the hash of our certificate, SHA-256 unless its signature uses a
    /// longer one.
    pub endpoint: Vec<u8>,
}

/// Why a mechanism denies a login. None of these depends on whether the account exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Not a valid message at this point.
    Malformed,
    /// Wrong name or proof, or an attempt to act for somebody else.
    Wrong,
    /// The channel bindings differ, or the client did not see everything we offer: the connection may be intercepted.
    Channel,
    /// An NTLM version below the accepted one.
    OldNtlm,
}

impl Account {
    /// The password, or an empty one to hash instead.
    fn password_or_empty(&self) -> &str {
        self.password.as_ref().map_or("", |password| password)
    }

    /// The verdict on a proof that needs the password.
    fn admits(&self, proof_is_right: bool) -> Result<(), Denial> {
        if self.exists & self.password.is_some() & proof_is_right { Ok(()) } else { Err(Denial::Wrong) }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account")
    }
}

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelBinding")
    }
}
