//! The types of settings' values, each of which can only hold allowed values.
//!
//! `FromStr` reads a value as typed or stored, `Display` prints it as stored; the two are inverses of each other.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::address::{Address, Domain};
use crate::units::{Octets, Seconds};

/// How JSON presents a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// A number without a unit.
    Number,
    Octets,
    Seconds,
}

/// The type of a setting's value.
pub trait Value: FromStr<Err = String> + fmt::Display {
    const KIND: Kind = Kind::Text;

    /// What may be typed: `1 to 65535`.
    fn allowed() -> String;

    /// What the value means, if it does not say so itself.
    fn meaning(&self) -> Option<String> {
        None
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Whole<MIN, MAX> {
    /// Panics if the number is out of bounds.
    pub const fn new(number: u32) -> Self {
        assert!(MIN <= number && number <= MAX, "the number keeps the bounds of its type");
        Self(number)
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl<const MIN: u32, const MAX: u32> FromStr for Whole<MIN, MAX> {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let digits_only = !typed.is_empty() && typed.bytes().all(|b| b.is_ascii_digit());
        match typed.parse() {
            Ok(number) if digits_only && (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => Err(format!("\"{typed}\" is not a whole number from {MIN} to {MAX}")),
        }
    }
}

impl<const MIN: u32, const MAX: u32> Value for Whole<MIN, MAX> {
    const KIND: Kind = Kind::Number;

    fn allowed() -> String {
        format!("{MIN} to {MAX}")
    }
}

/// A number of octets from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(Octets);

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    pub const fn octets(self) -> u64 {
        self.0.0
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Size<MIN, MAX> {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let octets: Octets = typed.parse()?;
        if !(MIN..=MAX).contains(&octets.0) {
            return Err(format!("\"{typed}\" is not a size from {} to {}", Octets(MIN), Octets(MAX)));
        }
        Ok(Self(octets))
    }
}

impl<const MIN: u64, const MAX: u64> Value for Size<MIN, MAX> {
    const KIND: Kind = Kind::Octets;

    fn allowed() -> String {
        format!("{} to {}", Octets(MIN), Octets(MAX))
    }

    fn meaning(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

/// A time from `MIN` to `MAX` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<const MIN: u64, const MAX: u64>(Seconds);

impl<const MIN: u64, const MAX: u64> Span<MIN, MAX> {
    pub const fn seconds(self) -> u64 {
        self.0.0
    }

    pub fn duration(self) -> Duration {
        self.0.into()
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Span<MIN, MAX> {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let seconds: Seconds = typed.parse()?;
        if !(MIN..=MAX).contains(&seconds.0) {
            return Err(format!("\"{typed}\" is not a time from {MIN} to {MAX} seconds"));
        }
        Ok(Self(seconds))
    }
}

impl<const MIN: u64, const MAX: u64> Value for Span<MIN, MAX> {
    const KIND: Kind = Kind::Seconds;

    fn allowed() -> String {
        format!("{MIN} to {MAX} seconds")
    }

    fn meaning(&self) -> Option<String> {
        Some("seconds".to_owned())
    }
}

/// Off or on, typed as 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch(bool);

impl Switch {
    pub const fn is_on(self) -> bool {
        self.0
    }
}

impl FromStr for Switch {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        match typed {
            "0" => Ok(Self(false)),
            "1" => Ok(Self(true)),
            _ => Err(format!("\"{typed}\" is neither 0 nor 1")),
        }
    }
}

impl Value for Switch {
    const KIND: Kind = Kind::Number;

    fn allowed() -> String {
        "0 or 1".to_owned()
    }
}

/// The lowest NTLM version that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NtlmLevel {
    V1,
    Session,
    V2,
}

impl FromStr for NtlmLevel {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        match typed {
            "0" => Ok(Self::V1),
            "1" => Ok(Self::Session),
            "2" => Ok(Self::V2),
            _ => Err(format!("\"{typed}\" is not an NTLM level from 0 to 2")),
        }
    }
}

impl Value for NtlmLevel {
    const KIND: Kind = Kind::Number;

    fn allowed() -> String {
        "0 to 2".to_owned()
    }

    fn meaning(&self) -> Option<String> {
        let meaning = match self {
            Self::V1 => "all NTLM versions",
            Self::Session => "NTLMv2 and NTLM2 session responses",
            Self::V2 => "NTLMv2 only",
        };
        Some(meaning.to_owned())
    }
}

/// How much is logged: each level includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Logging {
    Nothing,
    Critical,
    Warnings,
    Information,
}

impl FromStr for Logging {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        match typed {
            "0" => Ok(Self::Nothing),
            "1" => Ok(Self::Critical),
            "2" => Ok(Self::Warnings),
            "3" => Ok(Self::Information),
            _ => Err(format!("\"{typed}\" is not a logging level from 0 to 3")),
        }
    }
}

impl Value for Logging {
    const KIND: Kind = Kind::Number;

    fn allowed() -> String {
        "0 = none, 1 = critical, 2 = also warnings, 3 = also information".to_owned()
    }

    fn meaning(&self) -> Option<String> {
        let meaning = match self {
            Self::Nothing => "no logging",
            Self::Critical => "critical events",
            Self::Warnings => "critical events and warnings",
            Self::Information => "critical events, warnings and information",
        };
        Some(meaning.to_owned())
    }
}

/// Where mailbox accounts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    PasswordFile,
    LocalAccounts,
    ActiveDirectory,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Self::PasswordFile => "encrypted password file",
            Self::LocalAccounts => "local accounts",
            Self::ActiveDirectory => "Active Directory",
        }
    }
}

impl FromStr for Method {
    type Err = String;

    /// Reads the stored word. The number typed depends on the role ([`DomainRole::methods`]).
    fn from_str(stored: &str) -> Result<Self, String> {
        match stored {
            "passwordfile" => Ok(Self::PasswordFile),
            "localaccounts" => Ok(Self::LocalAccounts),
            "activedirectory" => Ok(Self::ActiveDirectory),
            _ => Err(format!("\"{stored}\" is not an authentication method known to this version")),
        }
    }
}

impl Value for Method {
    const KIND: Kind = Kind::Number;

    fn allowed() -> String {
        "standalone: 1 = local accounts, 2 = password file; member: 1 = Active Directory, 2 = local accounts, 3 = password file; dc: 1 = Active Directory, 2 = password file".to_owned()
    }

    fn meaning(&self) -> Option<String> {
        Some(self.name().to_owned())
    }
}

/// This machine's role in a Windows domain. It decides which number means which authentication method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainRole {
    Standalone,
    Member,
    DomainController,
}

impl DomainRole {
    /// The methods that the numbers 1, 2, … stand for.
    pub fn methods(self) -> &'static [Method] {
        match self {
            Self::Standalone => &[Method::LocalAccounts, Method::PasswordFile],
            Self::Member => &[Method::ActiveDirectory, Method::LocalAccounts, Method::PasswordFile],
            Self::DomainController => &[Method::ActiveDirectory, Method::PasswordFile],
        }
    }
}

impl FromStr for DomainRole {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        match typed.to_ascii_lowercase().as_str() {
            "standalone" => Ok(Self::Standalone),
            "member" => Ok(Self::Member),
            "dc" => Ok(Self::DomainController),
            _ => Err(format!("\"{typed}\" is not a domain role")),
        }
    }
}

impl Value for DomainRole {
    fn allowed() -> String {
        "standalone, member or dc".to_owned()
    }
}

/// The name the service gives itself in greetings, stamps and Received fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname(Domain);

/// The kernel's host name, or `localhost` if that is not a domain name.
pub fn name_of_this_machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().parse().map_or_else(|_| "localhost".to_owned(), |Hostname(name)| name.to_string())
}

impl Hostname {
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Hostname {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        typed.parse().map(Self).map_err(|malformed: crate::address::Malformed| malformed.to_string())
    }
}

impl Value for Hostname {
    fn allowed() -> String {
        "a host name".to_owned()
    }
}

/// The address of a mailbox, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxName(Option<Address>);

impl MailboxName {
    pub fn get(&self) -> Option<&Address> {
        self.0.as_ref()
    }
}

impl FromStr for MailboxName {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        match typed {
            "" => Ok(Self(None)),
            typed => typed
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|malformed: crate::address::Malformed| malformed.to_string()),
        }
    }
}

impl Value for MailboxName {
    fn allowed() -> String {
        "a mailbox address".to_owned()
    }
}

impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|address| address.fmt(f))
    }
}

/// The absolute path of a file, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(Option<PathBuf>);

impl FilePath {
    pub fn get(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

impl FromStr for FilePath {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        if typed.is_empty() {
            return Ok(Self(None));
        }
        if typed.chars().any(char::is_control) || !Path::new(typed).is_absolute() {
            return Err(format!("\"{typed}\" is not an absolute path"));
        }
        Ok(Self(Some(typed.into())))
    }
}

impl Value for FilePath {
    fn allowed() -> String {
        "the path of a file".to_owned()
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(path) => path.display().fmt(f),
            None => Ok(()),
        }
    }
}

impl<const MIN: u32, const MAX: u32> fmt::Display for Whole<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Size<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.0.fmt(f)
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Span<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.0.fmt(f)
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        u8::from(self.0).fmt(f)
    }
}

impl fmt::Display for NtlmLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self as u8).fmt(f)
    }
}

impl fmt::Display for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self as u8).fmt(f)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PasswordFile => "passwordfile",
            Self::LocalAccounts => "localaccounts",
            Self::ActiveDirectory => "activedirectory",
        })
    }
}

impl fmt::Display for DomainRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standalone => "standalone",
            Self::Member => "member",
            Self::DomainController => "dc",
        })
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_digits_within_bounds() {
        for good in ["1", "5", "9", "007"] {
            assert!(good.parse::<Whole<1, 9>>().is_ok(), "{good}");
        }
        for bad in ["", "0", "10", "-1", "+5", " 5", "5 ", "five", "5.0", "99999999999"] {
            assert!(bad.parse::<Whole<1, 9>>().is_err(), "{bad}");
        }
    }
}
