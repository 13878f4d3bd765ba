//! The mechanisms of AUTH (RFC 5034): what each asks and what it makes of the answers.
//!
//! A mechanism that waits for the client is a value that holds what it knows so far; a response turns it into
//! the next such value or into an outcome.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Credentials, Password, Policy};
use crate::address::Address;

/// The mechanisms that send the password itself, in the order they are offered.
const PLAINTEXT: &[&str] = &["PLAIN", "LOGIN"];

/// A mechanism that waits for a response of the client.
#[derive(Debug)]
pub enum Mechanism {
    /// RFC 4616: name and password in one message.
    Plain,
    /// LOGIN never became an RFC; the prompts are those that clients know.
    LoginName,
    LoginPassword {
        name: Vec<u8>,
    },
}

/// Where a response led.
#[derive(Debug)]
pub enum Step {
    Ask(Mechanism),
    Check(Credentials),
    /// Somebody wants to act for somebody else, which nobody may here.
    NotOneself,
}

/// A response that is not Base64, or not what the mechanism asked for.
#[derive(Debug, PartialEq)]
pub struct Malformed;

/// The names that AUTH and CAPA show.
pub fn offered(policy: &Policy) -> &'static [&'static str] {
    if policy.plaintext_allowed { PLAINTEXT } else { &[] }
}

/// Whether this mechanism is one of those that send the password itself.
pub fn is_plaintext(name: &[u8]) -> bool {
    PLAINTEXT.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

/// What stands in an AUTH line after the mechanism: `=` is an empty response, since nothing at all means that
/// the client wants to be asked (RFC 5034 section 4).
pub fn decode_initial(typed: &[u8]) -> Result<Vec<u8>, Malformed> {
    if typed == b"=" { Ok(Vec::new()) } else { decode(typed) }
}

/// Base64 with its padding and nothing else (RFC 4648 section 4).
pub fn decode(typed: &[u8]) -> Result<Vec<u8>, Malformed> {
    STANDARD.decode(typed).map_err(|_| Malformed)
}

impl Mechanism {
    pub fn start(name: &[u8]) -> Option<Self> {
        match name.to_ascii_uppercase().as_slice() {
            b"PLAIN" => Some(Mechanism::Plain),
            b"LOGIN" => Some(Mechanism::LoginName),
            _ => None,
        }
    }

    /// What the client is asked, in Base64.
    pub fn challenge(&self) -> String {
        STANDARD.encode(match self {
            Mechanism::Plain => "",
            Mechanism::LoginName => "Username:",
            Mechanism::LoginPassword { .. } => "Password:",
        })
    }

    pub fn respond(self, response: &[u8]) -> Result<Step, Malformed> {
        match self {
            Mechanism::Plain => plain(response),
            Mechanism::LoginName if response.is_empty() => Err(Malformed),
            Mechanism::LoginName => Ok(Step::Ask(Mechanism::LoginPassword { name: response.to_vec() })),
            Mechanism::LoginPassword { name } => Ok(Step::Check(Credentials::new(&name, response))),
        }
    }
}

/// `authorization identity NUL name NUL password` (RFC 4616 section 2).
fn plain(response: &[u8]) -> Result<Step, Malformed> {
    let parts: Vec<&[u8]> = response.split(|&b| b == 0).collect();
    let [identity, name, password] = parts[..] else {
        return Err(Malformed);
    };
    if name.is_empty() {
        return Err(Malformed);
    }
    if !identity.is_empty() && !is_same_mailbox(identity, name) {
        return Ok(Step::NotOneself);
    }
    Ok(Step::Check(Credentials::new(name, password)))
}

/// Some clients repeat the name as authorization identity, in another spelling at times.
fn is_same_mailbox(one: &[u8], other: &[u8]) -> bool {
    let address = |name| std::str::from_utf8(name).ok().and_then(|name| Address::from_login(name).ok());
    one == other || address(one).is_some_and(|one| Some(one) == address(other))
}

impl Credentials {
    pub(super) fn new(name: &[u8], password: &[u8]) -> Self {
        Self { name: String::from_utf8_lossy(name).into_owned(), password: Password::from(password) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_strict() {
        assert_eq!(decode(b"AGI="), Ok(b"\0b".to_vec()));
        for bad in ["AGI", "AGJ=", "A GI=", "AGI=\r", "=", "AGI==", "AG-_"] {
            assert_eq!(decode(bad.as_bytes()), Err(Malformed), "{bad}");
        }
        assert_eq!(decode_initial(b"="), Ok(Vec::new()));
    }

    #[test]
    fn plain_is_three_parts_with_a_name() {
        for bad in ["", "bob", "\0bob", "\0\0secret", "\0bob\0sec\0ret"] {
            assert!(plain(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let Ok(Step::Check(credentials)) = plain(b"\0bob\0") else { panic!("an empty password is one") };
        assert_eq!(credentials, Credentials::new(b"bob", b""));
    }

    #[test]
    fn an_authorization_identity_must_be_ones_own() {
        for own in ["bob@example.com", "BOB%example.com"] {
            let response = format!("{own}\0bob@example.com\0secret");
            assert!(matches!(plain(response.as_bytes()), Ok(Step::Check(_))), "{own}");
        }
        assert!(matches!(plain(b"eve\0bob\0secret"), Ok(Step::NotOneself)));
    }

    #[test]
    fn credentials_do_not_show_their_password() {
        assert!(!format!("{:?}", Credentials::new(b"bob", b"secret")).contains("secret"));
    }
}
