//! NTLM (MS-NLMP), the server's side, as Secure Password Authentication speaks it (MS-POP3).
//!
//! ```text
//! NEGOTIATE    ─► Exchange, whose challenge is CHALLENGE
//! AUTHENTICATE ─► Exchange::authenticate ─► Proof ─ the account ─► Proof::check
//! ```
//!
//! Neither signing nor sealing follows, so session keys only serve the message integrity code.
//!
//! Invariants:
//! - A response below the [`Level`] is refused before the account is looked up. LM alone and anonymous logins are
//!   always refused.
//! - An NTLMv2 response must repeat unchanged what CHALLENGE said about us. If a client sends a message integrity code
//!   or a channel binding, it must be right. Many clients send none, so they may leave it out.

pub mod message;
pub mod response;
#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use super::hash::md5;
use super::{Account, ChannelBinding, Denial};
use message::{Authenticate, AvId, AvPairs, Flags, challenge_message, negotiate_flags};
use response::{NtHash, Response, SessionKey};

/// MsvAvFlags: AUTHENTICATE has a message integrity code (MS-NLMP section 2.2.2.1).
pub const AV_FLAG_MIC: u32 = 2;
/// Seconds from 1601, where FILETIME begins, to 1970.
const FILETIME_EPOCH_SECONDS: u64 = 11_644_473_600;
/// Longest NetBIOS name in octets.
const NETBIOS_NAME_OCTETS_MAX: usize = 15;

/// The weakest response that is accepted; better ones always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// NTLMv1 and better. An attacker who chooses the challenge can look up an NTLMv1 response in a table.
    V1,
    /// NTLM2 session responses and better: NTLMv1 that includes a challenge from the client.
    Session,
    /// NTLMv2 only.
    V2,
}

/// Waits for AUTHENTICATE.
#[derive(Debug)]
pub struct Exchange {
    server_challenge: [u8; 8],
    /// The pairs in CHALLENGE.
    target_info: AvPairs,
    /// NEGOTIATE and CHALLENGE, which the message integrity code covers.
    negotiate: Vec<u8>,
    challenge: Vec<u8>,
}

/// A name and the response that should prove it.
#[derive(Debug, PartialEq)]
pub struct Proof {
    /// The name to log in with.
    pub name: String,
    /// As the client sent them, which is how NTLMv2 hashes them.
    pub user: String,
    pub domain: String,
    server_challenge: [u8; 8],
    response: Response,
    integrity: Option<Integrity>,
}

/// What to ask the directory, which knows the password if we do not.
#[derive(Debug)]
pub struct Question {
    /// The challenge that the response answers.
    pub challenge: [u8; 8],
    /// NtChallengeResponse (MS-NLMP section 2.2.1.3).
    pub response: Vec<u8>,
}

/// A message integrity code and what it covers.
#[derive(Debug, PartialEq)]
struct Integrity {
    code: [u8; 16],
    /// The three messages, with the code in the last one zeroed.
    messages: Vec<u8>,
    /// EncryptedRandomSessionKey, if the client exchanges keys.
    encrypted_key: Option<[u8; 16]>,
}

impl Exchange {
    /// Takes NEGOTIATE. `domain` is the NetBIOS name of the users' domain, if there is one. `server_challenge` must be
    /// fresh for this exchange; `now` may be approximate.
    pub fn begin(
        negotiate: &[u8],
        hostname: &str,
        domain: Option<&str>,
        server_challenge: [u8; 8],
        now: SystemTime,
    ) -> Result<Self, Denial> {
        let flags = negotiate_flags(negotiate)?;
        let target = domain.map_or_else(|| netbios_name(hostname), str::to_owned);
        let target_info = target_info(hostname, &target, now);
        let challenge = challenge_message(flags, &target, &server_challenge, target_info.octets());
        Ok(Self { server_challenge, target_info, negotiate: negotiate.to_vec(), challenge })
    }

    /// CHALLENGE.
    pub fn challenge(&self) -> &[u8] {
        &self.challenge
    }

    /// Takes AUTHENTICATE. `channel` is present under TLS.
    pub fn authenticate(
        self,
        authenticate: &[u8],
        level: Level,
        channel: Option<&ChannelBinding>,
    ) -> Result<Proof, Denial> {
        let message = Authenticate::parse(authenticate)?;
        // Refuse an anonymous login (MS-NLMP section 3.2.5.1.2).
        if message.user.is_empty() {
            return Err(Denial::Wrong);
        }
        let response = Response::parse(message.lm_response, message.nt_response, message.flags)?;
        if response.level() < level {
            return Err(Denial::OldNtlm);
        }
        let integrity = match &response {
            Response::V2 { client_data, .. } => {
                self.check_client_data(client_data, channel)?;
                self.integrity(client_data, &message)?
            }
            Response::V1 { .. } | Response::Session { .. } => None,
        };
        Ok(Proof {
            name: login_name(&message.user, &message.domain),
            user: message.user,
            domain: message.domain,
            server_challenge: self.server_challenge,
            response,
            integrity,
        })
    }

    /// True if the client saw the CHALLENGE that we sent, over the channel that we sent it on.
    fn check_client_data(
        &self,
        client_data: &AvPairs,
        channel: Option<&ChannelBinding>,
    ) -> Result<(), Denial> {
        if !self.target_info.are_all_in(client_data) {
            return Err(Denial::Wrong);
        }
        // A client sends zeros if it knows of no channel.
        match (client_data.value(AvId::ChannelBindings).filter(|hash| hash.iter().any(|&b| b != 0)), channel)
        {
            (None, _) => Ok(()),
            (Some(hash), Some(channel)) if hash == channel_hash(channel) => Ok(()),
            (Some(_), _) => Err(Denial::Channel),
        }
    }

    fn integrity(&self, client_data: &AvPairs, message: &Authenticate) -> Result<Option<Integrity>, Denial> {
        let flags = match client_data.value(AvId::Flags) {
            Some(flags) => u32::from_le_bytes(flags.try_into().map_err(|_| Denial::Malformed)?),
            None => 0,
        };
        if flags & AV_FLAG_MIC == 0 {
            return Ok(None);
        }
        let (code, without_code) = message.integrity_code()?;
        let exchanges_keys = message.flags.contains(Flags::KEY_EXCHANGE)
            && (message.flags.contains(Flags::SIGN) || message.flags.contains(Flags::SEAL));
        let encrypted_key = match exchanges_keys {
            true => Some(message.encrypted_key.try_into().map_err(|_| Denial::Malformed)?),
            false => None,
        };
        let messages = [&self.negotiate[..], &self.challenge, &without_code].concat();
        Ok(Some(Integrity { code, messages, encrypted_key }))
    }
}

impl Proof {
    /// The name as a domain writes it: `CORP\user`, or just what was typed if no domain was given.
    pub fn logon_name(&self) -> String {
        match self.domain.is_empty() {
            true => self.user.clone(),
            false => format!("{}\\{}", self.domain, self.user),
        }
    }

    pub fn question(&self) -> Question {
        let (challenge, response) = match &self.response {
            Response::V1 { nt } => (self.server_challenge, nt.to_vec()),
            Response::Session { nt, client_challenge } => {
                (response::session_challenge(&self.server_challenge, client_challenge), nt.to_vec())
            }
            Response::V2 { proof, client_data } => {
                (self.server_challenge, [&proof[..], client_data.octets()].concat())
            }
        };
        Question { challenge, response }
    }

    /// True unless the client sent an integrity code that shows that a message was altered. `base_key` is the
    /// SessionBaseKey, from us or the directory.
    pub fn is_intact(&self, base_key: Zeroizing<[u8; 16]>) -> bool {
        self.integrity.as_ref().is_none_or(|integrity| integrity.is_right(base_key).into())
    }

    pub fn check(&self, account: &Account) -> Result<(), Denial> {
        let hash = NtHash::of(account.password_or_empty());
        let is_right = match &self.response {
            Response::V1 { nt } => hash.v1(&self.server_challenge)[..].ct_eq(nt),
            Response::Session { nt, client_challenge } => {
                hash.session(&self.server_challenge, client_challenge)[..].ct_eq(nt)
            }
            Response::V2 { proof, client_data } => {
                let key = hash.v2_key(&response::identity(&self.user, &self.domain));
                let is_right = key.proof(&self.server_challenge, client_data.octets())[..].ct_eq(proof);
                match &self.integrity {
                    None => is_right,
                    Some(integrity) => is_right & integrity.is_right(key.base_key(proof)),
                }
            }
        };
        account.admits(is_right.into())
    }
}

impl Integrity {
    fn is_right(&self, base_key: Zeroizing<[u8; 16]>) -> Choice {
        let key = SessionKey::exported(base_key, self.encrypted_key.as_ref());
        key.integrity_code(&self.messages)[..].ct_eq(&self.code)
    }
}

/// The user name may be an address already; if not, the domain completes it.
fn login_name(user: &str, domain: &str) -> String {
    if domain.is_empty() || user.contains(['@', '%', '#']) {
        user.to_owned()
    } else {
        format!("{user}@{domain}")
    }
}

/// What CHALLENGE says about us. It includes the time because clients then add an integrity code.
fn target_info(hostname: &str, target: &str, now: SystemTime) -> AvPairs {
    let utf16 = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let (target, computer, dns_name) = (utf16(target), utf16(&netbios_name(hostname)), utf16(hostname));
    let mut pairs = Vec::new();
    for (id, value) in [
        (AvId::NetbiosDomain, &target[..]),
        (AvId::NetbiosComputer, &computer),
        (AvId::DnsDomain, &dns_name),
        (AvId::DnsComputer, &dns_name),
        (AvId::Timestamp, &filetime(now).to_le_bytes()),
        (AvId::End, &[]),
    ] {
        message::write_pair(id, value, &mut pairs);
    }
    AvPairs::parse(&pairs).expect("what we write is what we read")
}

fn netbios_name(hostname: &str) -> String {
    let label = hostname.split('.').next().unwrap_or_default();
    label.chars().take(NETBIOS_NAME_OCTETS_MAX).map(|c| c.to_ascii_uppercase()).collect()
}

/// Tenths of microseconds since 1601. Times before 1970 count as 1970.
fn filetime(time: SystemTime) -> u64 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    (FILETIME_EPOCH_SECONDS + seconds) * 10_000_000
}

/// MsvAvChannelBindings: the MD5 of a gss_channel_bindings_struct (RFC 2744 section 3.11) without addresses.
pub fn channel_hash(channel: &ChannelBinding) -> [u8; 16] {
    let data = [b"tls-server-end-point:", &channel.endpoint[..]].concat();
    md5(&[&[0; 16], &(data.len() as u32).to_le_bytes(), &data])
}
