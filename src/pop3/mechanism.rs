//! The mechanisms of AUTH (RFC 5034): their names, challenges and what they make of the responses.
//!
//! A mechanism that waits for the client is a [`Mechanism`]; one that waits for the account is a [`Proof`]. The
//! response, or the account, leads to an [`Outcome`].

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Credentials, Password, Policy};
use crate::address::LoginName;
use crate::auth::nonce::{self, Nonce};
use crate::auth::{Account, Denial, digest, ntlm, scram};

/// The mechanisms in the order we offer them: those that reveal least come first.
const KINDS: &[(Kind, &str)] = &[
    (Kind::ScramPlus, "SCRAM-SHA-256-PLUS"),
    (Kind::Scram, "SCRAM-SHA-256"),
    (Kind::Ntlm, "NTLM"),
    (Kind::CramMd5, "CRAM-MD5"),
    (Kind::Plain, "PLAIN"),
    (Kind::Login, "LOGIN"),
];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    ScramPlus,
    Scram,
    Ntlm,
    CramMd5,
    Plain,
    Login,
}

/// Why a known login method is unavailable on this connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hindrance {
    PasswordInClear,
    SpaRequired,
    NoSecrets,
    NoVerifiers,
    NotTls,
}

/// A mechanism that waits for the client.
#[derive(Debug)]
pub enum Mechanism {
    /// RFC 4616: name and password in one message.
    Plain,
    /// LOGIN never became an RFC; these prompts are the ones clients expect.
    LoginName,
    LoginPassword {
        name: Vec<u8>,
    },
    CramMd5 {
        challenge: String,
    },
    ScramFirst {
        plus: bool,
        nonce: Nonce,
    },
    ScramLast(scram::Exchange),
    NtlmNegotiate {
        nonce: Nonce,
        connected: SystemTime,
    },
    NtlmAuthenticate(ntlm::Exchange),
    /// The client's proof is right; now it checks ours.
    ScramEnd {
        server_final: String,
    },
}

/// A client's proof, which waits for the account.
#[derive(Debug)]
pub enum Proof {
    Digest(digest::Proof),
    Scram { first: scram::ClientFirst, nonce: Nonce },
    Ntlm(ntlm::Proof),
}

/// What a response or the account led to.
#[derive(Debug)]
pub enum Outcome {
    Ask(Mechanism),
    /// Check this name and password.
    Check(Credentials),
    /// Look up the account the proof names.
    Find(Proof),
    /// Ask the directory whether it takes the proof.
    Prove(ntlm::Proof),
    /// The proof is right: open the maildrop.
    Open,
}

/// The mechanism names in AUTH and CAPA.
pub fn offered(policy: &Policy) -> Vec<&'static str> {
    let is_wanted = |kind: &Kind| !policy.passwords_wanted || matches!(kind, Kind::Plain | Kind::Login);
    let offered = KINDS.iter().filter(|(kind, _)| is_wanted(kind) && kind.hindrance(policy).is_none());
    offered.map(|(_, name)| *name).collect()
}

/// Why passwords in clear are refused, if they are.
pub fn password_hindrance(policy: &Policy) -> Option<Hindrance> {
    if policy.spa_required {
        Some(Hindrance::SpaRequired)
    } else if policy.plaintext_allowed {
        None
    } else {
        Some(Hindrance::PasswordInClear)
    }
}

/// Why mechanisms that need the stored password are unavailable, if they are.
pub fn secrets_hindrance(policy: &Policy) -> Option<Hindrance> {
    (!policy.secrets_available).then_some(Hindrance::NoSecrets)
}

impl Kind {
    pub fn named(typed: &[u8]) -> Option<Self> {
        let is_typed = |name: &str| name.as_bytes().eq_ignore_ascii_case(typed);
        KINDS.iter().find(|(_, name)| is_typed(name)).map(|(kind, _)| *kind)
    }

    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).expect("every kind is listed").1
    }

    pub fn hindrance(self, policy: &Policy) -> Option<Hindrance> {
        match self {
            Kind::Scram | Kind::ScramPlus if !policy.verifiers_available => Some(Hindrance::NoVerifiers),
            Kind::ScramPlus => policy.channel.binding().is_none().then_some(Hindrance::NotTls),
            Kind::Scram => None,
            Kind::Ntlm if policy.ntlm_domain.is_some() => None,
            Kind::Ntlm | Kind::CramMd5 => secrets_hindrance(policy),
            Kind::Plain | Kind::Login => password_hindrance(policy),
        }
    }

    /// Whether the server speaks first, so that an initial response is an error (RFC 5034 section 4).
    pub fn begins_with_challenge(self) -> bool {
        self == Kind::CramMd5
    }
}

/// Decodes a response, whether on the AUTH line or alone: Base64 with padding and nothing else (RFC 4648 section 4).
/// `=` is an empty response: on the AUTH line because a missing one asks for the challenge (RFC 5034 section 4), and
/// alone because curl sends it there too.
pub fn decode(typed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Denial> {
    match typed {
        b"=" => Ok(Zeroizing::default()),
        _ => STANDARD.decode(typed).map(Zeroizing::new).map_err(|_| Denial::Malformed),
    }
}

impl Mechanism {
    /// `nonce` is used for this exchange only; `connected` is when the client connected.
    pub fn start(kind: Kind, nonce: Nonce, connected: SystemTime, policy: &Policy) -> Self {
        match kind {
            Kind::ScramPlus => Mechanism::ScramFirst { plus: true, nonce },
            Kind::Scram => Mechanism::ScramFirst { plus: false, nonce },
            Kind::CramMd5 => {
                let challenge = digest::challenge(&nonce::stamp(&nonce), &policy.hostname);
                Mechanism::CramMd5 { challenge }
            }
            Kind::Ntlm => Mechanism::NtlmNegotiate { nonce, connected },
            Kind::Plain => Mechanism::Plain,
            Kind::Login => Mechanism::LoginName,
        }
    }

    /// The challenge, in Base64.
    pub fn challenge(&self) -> String {
        STANDARD.encode(match self {
            Mechanism::Plain | Mechanism::ScramFirst { .. } | Mechanism::NtlmNegotiate { .. } => &[],
            Mechanism::LoginName => &b"Username:"[..],
            Mechanism::LoginPassword { .. } => b"Password:",
            Mechanism::CramMd5 { challenge } => challenge.as_bytes(),
            Mechanism::ScramLast(exchange) => exchange.challenge().as_bytes(),
            Mechanism::ScramEnd { server_final } => server_final.as_bytes(),
            Mechanism::NtlmAuthenticate(exchange) => exchange.challenge(),
        })
    }

    /// Whether the account has been looked up.
    pub fn has_account(&self) -> bool {
        matches!(self, Mechanism::ScramLast(_) | Mechanism::ScramEnd { .. })
    }

    pub fn respond(self, response: &[u8], policy: &Policy) -> Result<Outcome, Denial> {
        match self {
            Mechanism::Plain => plain(response),
            Mechanism::LoginName if response.is_empty() => Err(Denial::Malformed),
            Mechanism::LoginName => Ok(Outcome::Ask(Mechanism::LoginPassword { name: response.to_vec() })),
            Mechanism::LoginPassword { name } => Ok(Outcome::Check(Credentials::new(&name, response))),
            Mechanism::CramMd5 { challenge } => {
                Ok(Outcome::Find(Proof::Digest(digest::Proof::cram_md5(response, challenge)?)))
            }
            Mechanism::ScramFirst { plus, nonce } => {
                let first = scram::ClientFirst::parse(response, plus, policy.channel.binding())?;
                require_oneself(
                    first.authorization_identity.as_deref().unwrap_or_default().into(),
                    &first.name.as_str().into(),
                )?;
                Ok(Outcome::Find(Proof::Scram { first, nonce }))
            }
            Mechanism::ScramLast(exchange) => {
                let server_final = exchange.check(response)?;
                Ok(Outcome::Ask(Mechanism::ScramEnd { server_final }))
            }
            Mechanism::ScramEnd { .. } if response.is_empty() => Ok(Outcome::Open),
            Mechanism::ScramEnd { .. } => Err(Denial::Malformed),
            Mechanism::NtlmNegotiate { nonce, connected } => {
                let challenge = *nonce.first_chunk().expect("a nonce is longer than a challenge of NTLM");
                let exchange = ntlm::Exchange::begin(
                    response,
                    &policy.hostname,
                    policy.ntlm_domain.as_deref(),
                    challenge,
                    connected,
                )?;
                Ok(Outcome::Ask(Mechanism::NtlmAuthenticate(exchange)))
            }
            Mechanism::NtlmAuthenticate(exchange) => {
                let proof = exchange.authenticate(response, policy.ntlm_level, policy.channel.binding())?;
                Ok(match policy.ntlm_domain {
                    Some(_) => Outcome::Prove(proof),
                    None => Outcome::Find(Proof::Ntlm(proof)),
                })
            }
        }
    }
}

impl Proof {
    pub fn name(&self) -> &str {
        match self {
            Proof::Digest(proof) => &proof.name,
            Proof::Scram { first, .. } => &first.name,
            Proof::Ntlm(proof) => &proof.name,
        }
    }

    pub fn judge(self, account: Account) -> Result<Outcome, Denial> {
        match self {
            Proof::Digest(proof) => proof.check(&account).map(|()| Outcome::Open),
            Proof::Ntlm(proof) => proof.check(&account).map(|()| Outcome::Open),
            Proof::Scram { first, nonce } => {
                Ok(Outcome::Ask(Mechanism::ScramLast(first.with_account(account, &nonce))))
            }
        }
    }
}

/// `authorization identity NUL name NUL password` (RFC 4616 section 2).
fn plain(response: &[u8]) -> Result<Outcome, Denial> {
    let parts: Vec<&[u8]> = response.split(|&b| b == 0).collect();
    let [identity, name, password] = parts[..] else {
        return Err(Denial::Malformed);
    };
    if name.is_empty() {
        return Err(Denial::Malformed);
    }
    let credentials = Credentials::new(name, password);
    require_oneself(identity.into(), &credentials.login)?;
    Ok(Outcome::Check(credentials))
}

/// Nobody may act for somebody else here. Some clients repeat the name as authorization identity, sometimes spelled
/// differently.
fn require_oneself(identity: LoginName, login: &LoginName) -> Result<(), Denial> {
    let is_oneself = identity.typed().is_empty() || identity.means_same_as(login);
    if is_oneself { Ok(()) } else { Err(Denial::Wrong) }
}

impl Credentials {
    pub(super) fn new(name: &[u8], password: &[u8]) -> Self {
        Self { login: name.into(), password: Password::from(password) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_strict() {
        assert_eq!(decode(b"AGI=").as_deref(), Ok(&b"\0b".to_vec()));
        for bad in ["AGI", "AGJ=", "A GI=", "AGI=\r", "==", "AGI==", "AG-_"] {
            assert_eq!(decode(bad.as_bytes()), Err(Denial::Malformed), "{bad}");
        }
        for empty in ["", "="] {
            assert_eq!(decode(empty.as_bytes()).as_deref(), Ok(&Vec::new()), "{empty}");
        }
    }

    #[test]
    fn plain_is_three_parts_with_a_name() {
        for bad in ["", "bob", "\0bob", "\0\0secret", "\0bob\0sec\0ret"] {
            assert!(plain(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let Ok(Outcome::Check(credentials)) = plain(b"\0bob\0") else { panic!("an empty password is one") };
        assert_eq!(credentials, Credentials::new(b"bob", b""));
    }

    #[test]
    fn an_authorization_identity_must_be_ones_own() {
        for own in ["bob@example.com", "BOB%example.com"] {
            let response = format!("{own}\0bob@example.com\0secret");
            assert!(matches!(plain(response.as_bytes()), Ok(Outcome::Check(_))), "{own}");
        }
        assert_eq!(plain(b"eve\0bob\0secret").err(), Some(Denial::Wrong));
    }

    #[test]
    fn every_mechanism_is_found_by_its_name_in_any_case() {
        for (kind, name) in KINDS {
            assert_eq!(Kind::named(name.to_ascii_lowercase().as_bytes()), Some(*kind));
        }
        assert_eq!(Kind::named(b"SCRAM-SHA-1"), None);
    }

    #[test]
    fn credentials_do_not_show_their_password() {
        assert!(!format!("{:?}", Credentials::new(b"bob", b"secret")).contains("secret"));
    }
}
