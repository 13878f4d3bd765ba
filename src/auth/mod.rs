//! Credentials: what is kept of a password, and how a client proves that it knows one.
//!
//! A mechanism is a value that turns the client's messages into ours and, once it is told of the account, into a
//! verdict on the proof. None of them does I/O, knows the time or draws lots, and none knows the store: names go
//! out, an [`Account`] comes in.
//!
//! Invariants:
//! - An unknown name takes the same steps as a known one: same challenges, same hashes, same refusal. The owner
//!   gives a made-up [`Account`] for it, and `exists` is looked at last.
//! - What a client could guess at is compared in constant time.
//! - Passwords, and keys that do for one, are wiped when they are dropped.

pub mod crypt;
pub mod digest;
pub mod directory;
pub mod hash;
pub mod nonce;
pub mod ntlm;
pub mod password;
pub mod scram;
pub mod seal;
#[cfg(any(test, fuzzing))]
pub mod testing;

use std::fmt;

use password::Verifier;
use zeroize::Zeroizing;

/// What a mechanism needs to know of an account to check a proof.
///
/// For a name that there is not, one whose verifier is of nobody's password, with the same salt each time the name
/// comes and another for each name: a salt that changed, or that many names shared, would give them away. It has
/// as many iterations as the accounts there are.
pub struct Account {
    pub exists: bool,
    pub verifier: Verifier,
    /// In clear, for the mechanisms that cannot do without. `None` where it cannot be recovered: no proof of
    /// these mechanisms is right then.
    pub password: Option<Zeroizing<String>>,
}

/// What ties an exchange to the TLS connection that it is held over.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelBinding {
    /// `tls-exporter` (RFC 9266): keying material of the label "EXPORTER-Channel-Binding" and an empty context.
    /// `None` where it would not be unique: TLS 1.2 without the extended master secret (section 4.2).
    pub exporter: Option<[u8; 32]>,
    /// `tls-server-end-point` (RFC 5929 section 4.1): the hash of our certificate, SHA-256 unless its signature
    /// is made with a longer one.
    pub endpoint: Vec<u8>,
}

/// Why a mechanism says no. Nothing here depends on whether there is such an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a message that could come now.
    Malformed,
    /// Wrong name or wrong proof, or somebody wants to act for somebody else.
    Wrong,
    /// The client holds another TLS connection than we do, or was kept from seeing what we offer.
    Channel,
    /// An NTLM response of a version that is not accepted.
    OldNtlm,
}

impl Account {
    /// The password, or an empty one that is hashed in its place.
    fn password_or_empty(&self) -> &str {
        self.password.as_ref().map_or("", |password| password)
    }

    /// The verdict on a proof that needed the password.
    fn admits(&self, proof_is_right: bool) -> Result<(), Refusal> {
        if self.exists & self.password.is_some() & proof_is_right { Ok(()) } else { Err(Refusal::Wrong) }
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
