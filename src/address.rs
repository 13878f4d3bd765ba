//! Domains, mailbox names and addresses: valid by construction.
//!
//! Every value here is in its one canonical form (case folded, A-labels), so that equality of values is
//! equality of names. The only way to a value is `FromStr`, whose errors are sentences for a person.

use std::fmt;
use std::str::FromStr;

/// Longest domain name in octets (RFC 5321 section 4.5.3.1.2).
pub const DOMAIN_OCTETS_MAX: usize = 255;
/// Longest label of a domain name in octets (RFC 1035 section 2.3.4).
pub const LABEL_OCTETS_MAX: usize = 63;
/// Longest mailbox name in octets (RFC 5321 section 4.5.3.1.1; the bound of the original `winpop` too).
pub const LOCAL_OCTETS_MAX: usize = 64;

/// A domain name of LDH labels in lower case; internationalised names are held as A-labels (RFC 5890).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(String);

/// A mailbox name: a dot-string (RFC 5321 section 4.1.2) of 1 to 64 characters in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalPart(String);

/// `local@domain`, the name of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub local: LocalPart,
    pub domain: Domain,
}

/// Why a text is no domain, mailbox name or address: one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl Domain {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in the letters of its language, where that is another one.
    pub fn unicode(&self) -> Option<String> {
        let (unicode, outcome) = idna::domain_to_unicode(&self.0);
        (outcome.is_ok() && unicode != self.0).then_some(unicode)
    }

    /// A fully qualified name has at least two labels; `localhost` has one.
    pub fn is_single_label(&self) -> bool {
        !self.0.contains('.')
    }
}

impl Address {
    /// The address with its domain in the letters of its language, where those are others.
    pub fn unicode(&self) -> Option<String> {
        Some(format!("{}@{}", self.local, self.domain.unicode()?))
    }
}

impl FromStr for Domain {
    type Err = Malformed;

    fn from_str(typed: &str) -> Result<Self, Malformed> {
        let refuse = |why: &str| Err(Malformed(format!("\"{typed}\" is not a domain name: {why}")));
        let rooted = typed.strip_suffix('.').unwrap_or(typed);
        let name = if rooted.is_ascii() {
            rooted.to_ascii_lowercase()
        } else {
            match idna::domain_to_ascii_strict(rooted) {
                Ok(name) => name,
                Err(_) => {
                    return refuse("it contains characters not allowed in internationalised domain names");
                }
            }
        };
        if name.is_empty() {
            return refuse("it is empty");
        }
        if name.len() > DOMAIN_OCTETS_MAX {
            return refuse("it is longer than 255 characters");
        }
        for label in name.split('.') {
            if label.is_empty() {
                return refuse("it has an empty label (two dots in a row, or one at the start)");
            }
            if label.len() > LABEL_OCTETS_MAX {
                return refuse("a label is longer than 63 characters");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return refuse("a label begins or ends with a hyphen");
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return refuse("it may contain only letters, digits, hyphens and dots");
            }
        }
        if name.split('.').all(|label| label.bytes().all(|b| b.is_ascii_digit())) {
            return refuse("it is a number or an IP address");
        }
        Ok(Self(name))
    }
}

impl LocalPart {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `user` of `user+detail` (RFC 5233 section 1); the name itself where there is no detail.
    pub fn without_detail(&self) -> LocalPart {
        match self.0.split_once('+') {
            Some((user, _)) if !user.is_empty() && !user.ends_with('.') => LocalPart(user.to_owned()),
            _ => self.clone(),
        }
    }
}

impl FromStr for LocalPart {
    type Err = Malformed;

    fn from_str(typed: &str) -> Result<Self, Malformed> {
        let refuse = |why: &str| Err(Malformed(format!("\"{typed}\" is not a mailbox name: {why}")));
        if typed.is_empty() {
            return refuse("it is empty");
        }
        if typed.len() > LOCAL_OCTETS_MAX {
            return refuse("it is longer than 64 characters");
        }
        if typed.starts_with('.') || typed.ends_with('.') || typed.contains("..") {
            return refuse("a dot may only be between other characters");
        }
        if !typed.bytes().all(|b| b == b'.' || is_atext(b)) {
            return refuse("it may contain only letters, digits, dots and !#$%&'*+-/=?^_`{|}~");
        }
        Ok(Self(typed.to_ascii_lowercase()))
    }
}

/// A character of an atom (RFC 5322 section 3.2.3).
fn is_atext(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b)
}

impl Address {
    /// `user@` for `user+detail@` (RFC 5233 section 1).
    pub fn without_detail(&self) -> Address {
        Address { local: self.local.without_detail(), domain: self.domain.clone() }
    }

    /// The address a login name means: any case, and `%` or `#` for the `@`, which some clients cannot send inside a
    /// user name.
    pub fn from_login(typed: &str) -> Result<Self, Malformed> {
        if typed.contains('@') {
            return typed.parse();
        }
        match typed.rfind(['%', '#']) {
            Some(at) => format!("{}@{}", &typed[..at], &typed[at + 1..]).parse(),
            None => typed.parse(),
        }
    }
}

/// A login name as typed, and the address it means if it reads as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginName {
    typed: String,
    address: Option<Address>,
}

impl LoginName {
    pub fn typed(&self) -> &str {
        &self.typed
    }

    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// Whether both name the same account, in whatever spelling.
    pub fn means_same_as(&self, other: &Self) -> bool {
        self.typed == other.typed || self.address.is_some() && self.address == other.address
    }
}

impl From<String> for LoginName {
    fn from(typed: String) -> Self {
        Self { address: Address::from_login(&typed).ok(), typed }
    }
}

impl From<&str> for LoginName {
    fn from(typed: &str) -> Self {
        typed.to_owned().into()
    }
}

/// Invalid UTF-8 becomes U+FFFD, which no mailbox name contains, so such a login takes the same path and time as any
/// unknown name.
impl From<&[u8]> for LoginName {
    fn from(typed: &[u8]) -> Self {
        String::from_utf8_lossy(typed).into_owned().into()
    }
}

impl FromStr for Address {
    type Err = Malformed;

    fn from_str(typed: &str) -> Result<Self, Malformed> {
        match typed.rsplit_once('@') {
            Some((local, domain)) => Ok(Self { local: local.parse()?, domain: domain.parse()? }),
            None => Err(Malformed(format!("\"{typed}\" is not an address: write it as user@domain"))),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_to_one_form() {
        let address: Address = "Some.User@EXAMPLE.Com.".parse().unwrap();
        assert_eq!(address.to_string(), "some.user@example.com");
        assert_eq!("bücher.example".parse::<Domain>().unwrap().as_str(), "xn--bcher-kva.example");
    }

    #[test]
    fn a_domain_is_ldh_labels_of_bounded_length() {
        let long_label = "a".repeat(64);
        let long_name = format!("{}.example", ["a".repeat(63).as_str(); 4].join("."));
        for bad in [
            "",
            ".",
            "a..b",
            ".a",
            "-a.example",
            "a-.example",
            "a_b.example",
            "a b",
            "10.0.0.1",
            &long_label,
            &long_name,
            "a@b",
        ] {
            assert!(bad.parse::<Domain>().is_err(), "{bad}");
        }
        for good in ["localhost", "example.com", "3com.com", "xn--bcher-kva.example", &"a".repeat(63)] {
            assert!(good.parse::<Domain>().is_ok(), "{good}");
        }
    }

    #[test]
    fn a_mailbox_name_is_a_dot_string_of_64_characters_at_most() {
        for bad in ["", ".a", "a.", "a..b", "a b", "a\"b", "ä", "a@b", &"x".repeat(65)] {
            assert!(bad.parse::<LocalPart>().is_err(), "{bad}");
        }
        for good in ["a", "a.b", "o'hara", "a+b", &"x".repeat(64)] {
            assert!(good.parse::<LocalPart>().is_ok(), "{good}");
        }
    }

    #[test]
    fn login_names_may_write_percent_or_hash_for_at() {
        for typed in ["Bob@example.com", "bob%EXAMPLE.com", "bob#example.com"] {
            assert_eq!(Address::from_login(typed).unwrap().to_string(), "bob@example.com");
        }
        assert!(Address::from_login("bob").is_err());
    }

    #[test]
    fn every_spelling_of_a_login_name_is_one_address() {
        for typed in [
            "ann@xn--bcher-kva.example",
            "ANN@B\u{dc}CHER.example",
            "ann@bu\u{308}cher.example.",
            "ann%b\u{fc}cher.example",
            "Ann#xn--BCHER-kva.example",
            // Full-width letters and full stop.
            "ann@b\u{fc}ch\u{ff45}r\u{ff0e}\u{ff45}xample",
        ] {
            assert_eq!(
                Address::from_login(typed).unwrap().to_string(),
                "ann@xn--bcher-kva.example",
                "{typed}"
            );
        }
    }

    #[test]
    fn detail_is_cut_at_the_first_plus() {
        let detail = |s: &str| s.parse::<Address>().unwrap().without_detail().to_string();
        assert_eq!(detail("bob+lists+x@example.com"), "bob@example.com");
        assert_eq!(detail("+bob@example.com"), "+bob@example.com");
    }
}
