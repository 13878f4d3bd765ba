//! NTLM responses, from the oldest version to the newest (MS-NLMP section 3.3), and the session keys they yield.

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

use super::message::{AvPairs, Flags};
use super::{Denial, Level};
#[cfg(test)]
use crate::auth::hash::work;
use crate::auth::hash::{hmac_md5, md4, md5};

/// NTLMv2_CLIENT_CHALLENGE up to its pairs (MS-NLMP section 2.2.2.7): type, highest type, six octets of nothing, time,
/// the client's challenge, four of nothing.
const CLIENT_DATA_HEADER_OCTETS: usize = 28;

/// The response in an AUTHENTICATE message. We ignore LM responses, since NT responses contain all that they prove.
#[derive(Debug, PartialEq)]
pub enum Response {
    V1 {
        nt: [u8; 24],
    },
    Session {
        nt: [u8; 24],
        client_challenge: [u8; 8],
    },
    V2 {
        /// NTProofStr.
        proof: [u8; 16],
        /// NTLMv2_CLIENT_CHALLENGE, which the proof covers.
        client_data: AvPairs,
    },
}

/// MD4 of the password in UTF-16, which is equivalent to the password.
pub struct NtHash(Zeroizing<[u8; 16]>);

/// NTOWFv2: the key of a user's responses.
pub struct V2Key(Zeroizing<[u8; 16]>);

/// ExportedSessionKey.
pub struct SessionKey(Zeroizing<[u8; 16]>);

impl Response {
    pub fn parse(lm: &[u8], nt: &[u8], flags: Flags) -> Result<Self, Denial> {
        if nt.is_empty() {
            return Err(Denial::OldNtlm);
        }
        if let Ok(nt) = <[u8; 24]>::try_from(nt) {
            let client_challenge = lm.strip_suffix(&[0; 16]).and_then(|front| front.try_into().ok());
            return Ok(match client_challenge {
                Some(client_challenge) if flags.contains(Flags::EXTENDED_SESSION_SECURITY) => {
                    Response::Session { nt, client_challenge }
                }
                _ => Response::V1 { nt },
            });
        }
        let (proof, client_data) = nt.split_first_chunk::<16>().ok_or(Denial::Malformed)?;
        if !client_data.starts_with(&[1, 1]) {
            return Err(Denial::Malformed);
        }
        let client_data = AvPairs::parse_from(client_data, CLIENT_DATA_HEADER_OCTETS)?;
        Ok(Response::V2 { proof: *proof, client_data })
    }

    pub fn level(&self) -> Level {
        match self {
            Response::V1 { .. } => Level::V1,
            Response::Session { .. } => Level::Session,
            Response::V2 { .. } => Level::V2,
        }
    }
}

impl NtHash {
    pub fn of(password: &str) -> Self {
        let mut utf16 = Zeroizing::new(Vec::with_capacity(2 * password.len()));
        utf16.extend(password.encode_utf16().flat_map(u16::to_le_bytes));
        Self(Zeroizing::new(md4(&utf16)))
    }

    pub fn v1(&self, challenge: &[u8; 8]) -> [u8; 24] {
        // DESL: three keys of seven octets, the last of them mostly zeros.
        let mut keys = Zeroizing::new([0; 21]);
        keys[..16].copy_from_slice(&*self.0);
        let mut response = [0; 24];
        for (key, out) in keys.as_chunks::<7>().0.iter().zip(response.as_chunks_mut::<8>().0) {
            *out = des(key, challenge);
        }
        response
    }

    /// The response to the combined challenge.
    pub fn session(&self, server_challenge: &[u8; 8], client_challenge: &[u8; 8]) -> [u8; 24] {
        self.v1(&session_challenge(server_challenge, client_challenge))
    }

    pub fn v2_key(&self, identity: &[u8]) -> V2Key {
        V2Key(Zeroizing::new(hmac_md5(&*self.0, &[identity])))
    }
}

/// Combines both challenges.
pub fn session_challenge(server_challenge: &[u8; 8], client_challenge: &[u8; 8]) -> [u8; 8] {
    let both = md5(&[server_challenge, client_challenge]);
    *both.first_chunk().expect("sixteen octets begin with eight")
}

/// The user's name in capitals and the domain as it is, in UTF-16.
pub fn identity(user: &str, domain: &str) -> Vec<u8> {
    user.chars()
        .map(capital)
        .chain(domain.chars())
        .collect::<String>()
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// As Windows does it: one character stays one character, so ß does not change.
fn capital(c: char) -> char {
    let mut capitals = c.to_uppercase();
    match (capitals.next(), capitals.next()) {
        (Some(capital), None) => capital,
        _ => c,
    }
}

impl V2Key {
    /// NTProofStr.
    pub fn proof(&self, server_challenge: &[u8; 8], client_data: &[u8]) -> [u8; 16] {
        hmac_md5(&*self.0, &[server_challenge, client_data])
    }

    /// SessionBaseKey of a response with this proof.
    pub fn base_key(&self, proof: &[u8; 16]) -> Zeroizing<[u8; 16]> {
        Zeroizing::new(hmac_md5(&*self.0, &[proof]))
    }
}

impl SessionKey {
    /// The base key, or the key that the client sent encrypted with it.
    pub fn exported(base_key: Zeroizing<[u8; 16]>, encrypted_key: Option<&[u8; 16]>) -> Self {
        Self(match encrypted_key {
            Some(encrypted_key) => rc4(&base_key, encrypted_key),
            None => base_key,
        })
    }

    pub fn integrity_code(&self, messages: &[u8]) -> [u8; 16] {
        hmac_md5(&*self.0, &[messages])
    }
}

/// Encrypts one block under a 56-bit key, spread over eight octets because DES ignores the lowest bit of each.
fn des(key: &[u8; 7], block: &[u8; 8]) -> [u8; 8] {
    #[cfg(test)]
    work::note("des");
    let bits = key.iter().fold(0u64, |bits, octet| bits << 8 | u64::from(*octet));
    let spread = Zeroizing::new(std::array::from_fn::<u8, 8, _>(|at| (bits >> (49 - 7 * at) << 1) as u8));
    let mut block = (*block).into();
    Des::new(&(*spread).into()).encrypt_block(&mut block);
    block.into()
}

/// RC4 is obsolete, but NTLM encrypts session keys with it.
fn rc4(key: &[u8; 16], text: &[u8; 16]) -> Zeroizing<[u8; 16]> {
    let mut state = Zeroizing::new(std::array::from_fn::<u8, 256, _>(|at| at as u8));
    let mut j = 0u8;
    for i in 0..256 {
        j = j.wrapping_add(state[i]).wrapping_add(key[i % key.len()]);
        state.swap(i, usize::from(j));
    }
    let mut j = 0u8;
    let mut out = Zeroizing::new(*text);
    for (i, octet) in (1..).zip(out.iter_mut()) {
        j = j.wrapping_add(state[i]);
        state.swap(i, usize::from(j));
        *octet ^= state[usize::from(state[i].wrapping_add(state[usize::from(j)]))];
    }
    out
}
