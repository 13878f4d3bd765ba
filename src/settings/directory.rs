//! The settings for reaching Active Directory.

use std::fmt;
use std::str::FromStr;

use super::networks::list_words;
use super::values::Value;
use crate::ldap::Server;

/// Maximum number of servers.
const SERVERS_MAX: usize = 8;
/// Longest name accepted.
const NAME_OCTETS_MAX: usize = 255;

/// The directory's servers in the order tried. If empty, DNS names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryServers(Vec<Server>);

impl DirectoryServers {
    pub fn get(&self) -> &[Server] {
        &self.0
    }
}

impl FromStr for DirectoryServers {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        if typed.is_empty() {
            return Ok(Self::default());
        }
        let mut servers = Vec::new();
        for word in list_words(typed)? {
            let server = word.parse()?;
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        match servers.len() {
            1..=SERVERS_MAX => Ok(Self(servers)),
            _ => Err(format!("at most {SERVERS_MAX} servers can be named, not {}", servers.len())),
        }
    }
}

impl Value for DirectoryServers {
    fn allowed() -> String {
        "servers: dc1.example.com, ldaps://HOST:PORT or ldap://HOST:PORT".to_owned()
    }
}

impl fmt::Display for DirectoryServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, server) in self.0.iter().enumerate() {
            write!(f, "{}{server}", if place == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// A distinguished name (RFC 4514), or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DistinguishedName(String);

impl DistinguishedName {
    pub fn get(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|name| !name.is_empty())
    }
}

impl FromStr for DistinguishedName {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let name = typed.trim();
        let is_component = |component: &str| {
            component.split_once('=').is_some_and(|(attribute, value)| {
                let attribute = attribute.trim();
                let is_of_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
                !attribute.is_empty() && attribute.bytes().all(is_of_name) && !value.trim().is_empty()
            })
        };
        // A comma after a backslash belongs to the value.
        let components = name.replace("\\,", "\\2c");
        let is_name = name.len() <= NAME_OCTETS_MAX
            && !name.chars().any(char::is_control)
            && components.split(',').all(is_component);
        match name.is_empty() || is_name {
            true => Ok(Self(name.to_owned())),
            false => Err(format!("\"{typed}\" is not a distinguished name")),
        }
    }
}

impl Value for DistinguishedName {
    fn allowed() -> String {
        "a distinguished name such as DC=corp,DC=example,DC=com".to_owned()
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The account with which the service binds to the directory, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindName(String);

impl BindName {
    pub fn get(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|name| !name.is_empty())
    }
}

impl FromStr for BindName {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        match typed.len() <= NAME_OCTETS_MAX && !typed.chars().any(char::is_control) {
            true => Ok(Self(typed.to_owned())),
            false => Err(format!("\"{typed}\" is not an account name")),
        }
    }
}

impl Value for BindName {
    fn allowed() -> String {
        "an account: user@example.com, EXAMPLE\\user or a distinguished name".to_owned()
    }
}

impl fmt::Display for BindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A password sealed under the store's key, as one word, or none. It is never shown, not even sealed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SealedPassword(String);

impl SealedPassword {
    pub fn get(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|sealed| !sealed.is_empty())
    }
}

impl FromStr for SealedPassword {
    type Err = String;

    fn from_str(sealed: &str) -> Result<Self, String> {
        match sealed.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(Self(sealed.to_owned())),
            // The text is left out: it may be the password itself.
            false => Err("the value is not a sealed password".to_owned()),
        }
    }
}

impl Value for SealedPassword {
    fn allowed() -> String {
        "a password, or - to read it from standard input".to_owned()
    }
}

impl fmt::Display for SealedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SealedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedPassword(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distinguished_name_is_made_of_attributes_and_values() {
        for good in ["", "DC=corp,DC=example", "OU=Sales\\, West, DC=x", "ou=Büro,dc=x"] {
            assert!(good.parse::<DistinguishedName>().is_ok(), "{good}");
        }
        for bad in ["corp.example", "DC=", "DC=a,,DC=b", "=a", "DC=a\nb", "a b=c"] {
            assert!(bad.parse::<DistinguishedName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn servers_are_named_once_and_print_as_they_are_typed() {
        let servers: DirectoryServers = "dc1.example.com ldap://dc2 DC1.example.com".parse().unwrap();
        assert_eq!(servers.to_string(), "dc1.example.com ldap://dc2");
        assert_eq!("".parse(), Ok(DirectoryServers::default()));
        let nine: Vec<String> = (0..9).map(|n| format!("dc{n}.example.com")).collect();
        assert!(nine.join(" ").parse::<DirectoryServers>().is_err());
    }
}
