//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), server side.
//!
//! ```text
//! client-first ─► ClientFirst ─ the account ─► Exchange, whose challenge is server-first
//! client-final ─► Exchange::check ─► server-final, a challenge that an empty response answers
//! ```
//!
//! As strict as RFC 5802 section 7: attributes in order, none twice, `m=` refused. Optional extensions are ignored, but
//! signed.

#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::hash::{hmac_sha256, sha256};
use super::nonce::Nonce;
use super::password::Verifier;
use super::{Account, ChannelBinding, Denial};

/// Longest client nonce in octets. RFC 5802 has no limit; clients send 16 to 64.
const CLIENT_NONCE_OCTETS_MAX: usize = 256;

/// client-first: the claimed name, before any proof.
#[derive(Debug)]
pub struct ClientFirst {
    pub name: String,
    /// The authorization identity, if any.
    pub authorization_identity: Option<String>,
    /// The expected `c=` of client-final: gs2-header and channel binding data.
    binding: Vec<u8>,
    /// client-first-message-bare, which is signed.
    bare: String,
    nonce: String,
}

/// Waits for client-final.
#[derive(Debug)]
pub struct Exchange {
    binding: Vec<u8>,
    /// client-first-message-bare.
    client_first: String,
    server_first: String,
    /// The client's nonce followed by ours.
    nonce: String,
    verifier: Verifier,
    exists: bool,
}

impl ClientFirst {
    /// `plus`: whether -PLUS was chosen. `channel` is present under TLS, where -PLUS is offered.
    pub fn parse(message: &[u8], plus: bool, channel: Option<&ChannelBinding>) -> Result<Self, Denial> {
        let message = std::str::from_utf8(message).map_err(|_| Denial::Malformed)?;
        let mut parts = message.splitn(3, ',');
        let (Some(flag), Some(identity), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Denial::Malformed);
        };
        let channel_data = match (flag, plus) {
            ("n", false) => &[][..],
            // The client supports channel binding and thinks that we don't: somebody removed -PLUS from our list (RFC
            // 5802 section 6).
            ("y", false) if channel.is_some() => return Err(Denial::Channel),
            ("y", false) => &[],
            (flag, true) => {
                let kind = flag.strip_prefix("p=").ok_or(Denial::Malformed)?;
                channel.and_then(|channel| channel.data(kind)).ok_or(Denial::Channel)?
            }
            _ => return Err(Denial::Malformed),
        };
        let authorization_identity = match identity.strip_prefix("a=") {
            Some(name) => Some(unescape(name)?),
            None if identity.is_empty() => None,
            None => return Err(Denial::Malformed),
        };
        let mut attributes = bare.split(',');
        let name = unescape(attribute(attributes.next(), "n=")?)?;
        let nonce = attribute(attributes.next(), "r=")?;
        if nonce.len() > CLIENT_NONCE_OCTETS_MAX || !nonce.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Denial::Malformed);
        }
        check_extensions(attributes, "nr")?;
        let binding = [flag.as_bytes(), b",", identity.as_bytes(), b",", channel_data].concat();
        Ok(Self { name, authorization_identity, binding, bare: bare.to_owned(), nonce: nonce.to_owned() })
    }

    /// `nonce` is ours, for this exchange only.
    pub fn with_account(self, account: Account, nonce: &Nonce) -> Exchange {
        let Account { exists, verifier, .. } = account;
        let nonce = self.nonce + &STANDARD.encode(nonce);
        let salt = STANDARD.encode(verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let Self { binding, bare: client_first, .. } = self;
        Exchange { binding, client_first, server_first, nonce, verifier, exists }
    }
}

impl Exchange {
    /// server-first.
    pub fn challenge(&self) -> &str {
        &self.server_first
    }

    /// Checks client-final and returns server-final if the proof is right.
    pub fn check(&self, message: &[u8]) -> Result<String, Denial> {
        let message = std::str::from_utf8(message).map_err(|_| Denial::Malformed)?;
        let (signed, proof) = message.rsplit_once(",p=").ok_or(Denial::Malformed)?;
        let proof: [u8; 32] = decode(proof)?.try_into().map_err(|_| Denial::Malformed)?;
        let mut attributes = signed.split(',');
        let binding = decode(attribute(attributes.next(), "c=")?)?;
        let nonce = attribute(attributes.next(), "r=")?;
        check_extensions(attributes, "crp")?;
        if nonce != self.nonce {
            return Err(Denial::Wrong);
        }
        if !bool::from(binding.ct_eq(&self.binding)) {
            return Err(Denial::Channel);
        }
        let exchange = format!("{},{},{signed}", self.client_first, self.server_first);
        let signature = hmac_sha256(&self.verifier.stored_key, exchange.as_bytes());
        let mut client_key = Zeroizing::new(proof);
        client_key.iter_mut().zip(signature).for_each(|(octet, mask)| *octet ^= mask);
        let is_right: bool = sha256(&*client_key).ct_eq(&self.verifier.stored_key).into();
        if !(self.exists & is_right) {
            return Err(Denial::Wrong);
        }
        Ok(format!("v={}", STANDARD.encode(hmac_sha256(&self.verifier.server_key, exchange.as_bytes()))))
    }
}

impl ChannelBinding {
    /// The data for the channel binding of this name. `tls-unique` is unsupported because it is not unique (RFC 9266
    /// section 1).
    fn data(&self, kind: &str) -> Option<&[u8]> {
        match kind {
            "tls-exporter" => self.exporter.as_ref().map(|material| &material[..]),
            "tls-server-end-point" => Some(&self.endpoint),
            _ => None,
        }
    }
}

/// The non-empty value of the attribute expected here.
fn attribute<'a>(found: Option<&'a str>, key: &str) -> Result<&'a str, Denial> {
    let value = found.and_then(|found| found.strip_prefix(key)).ok_or(Denial::Malformed)?;
    if value.is_empty() { Err(Denial::Malformed) } else { Ok(value) }
}

/// Whether these attributes may be ignored: none of them is in `taken`, or `m`, which marks a mandatory extension.
fn check_extensions<'a>(attributes: impl Iterator<Item = &'a str>, taken: &str) -> Result<(), Denial> {
    let mut taken = format!("m{taken}");
    for found in attributes {
        let (key, value) = found.split_once('=').ok_or(Denial::Malformed)?;
        let [letter @ (b'a'..=b'z' | b'A'..=b'Z')] = *key.as_bytes() else { return Err(Denial::Malformed) };
        let letter = char::from(letter);
        if value.is_empty() || taken.contains(letter) {
            return Err(Denial::Malformed);
        }
        taken.push(letter);
    }
    Ok(())
}

/// Decodes a saslname: `=2C` is a comma, `=3D` an equals sign.
fn unescape(typed: &str) -> Result<String, Denial> {
    let mut pieces = typed.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (character, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(Denial::Malformed),
        };
        name.push(character);
        name.push_str(rest);
    }
    if name.is_empty() || name.contains('\0') { Err(Denial::Malformed) } else { Ok(name) }
}

fn decode(base64: &str) -> Result<Vec<u8>, Denial> {
    STANDARD.decode(base64).map_err(|_| Denial::Malformed)
}
