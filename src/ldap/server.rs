//! Directory servers as administrators name them.

use std::fmt;
use std::str::FromStr;

use crate::host::{host_and_port, in_front_of_port};

/// The port of LDAP (RFC 4511 section 5.2.1).
pub const LDAP_PORT: u16 = 389;
/// The port where TLS comes first.
const LDAPS_PORT: u16 = 636;

/// How TLS begins. It is never optional, because passwords cross the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the start.
    Ldaps,
    /// The extended operation StartTLS (RFC 4511 section 4.14).
    StartTls,
}

/// A directory server: `dc1.example.com`, which means LDAPS, `ldaps://HOST:PORT` or `ldap://HOST:PORT`, which means
/// StartTLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A name or an IP address, which the certificate must contain.
    pub host: String,
    pub port: u16,
    pub security: Security,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let malformed = || {
            format!(
                "\"{typed}\" is not a directory server: write dc1.example.com, ldaps://HOST:PORT or ldap://HOST:PORT"
            )
        };
        let (security, rest) = match typed.split_once("://") {
            None => (Security::Ldaps, typed),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ldaps") => (Security::Ldaps, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ldap") => (Security::StartTls, rest),
            Some(_) => return Err(malformed()),
        };
        let (host, port) = host_and_port(rest).ok_or_else(malformed)?;
        let default = if security == Security::Ldaps { LDAPS_PORT } else { LDAP_PORT };
        Ok(Self { host, port: port.unwrap_or(default), security })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, port) = match self.security {
            Security::Ldaps => ("ldaps", LDAPS_PORT),
            Security::StartTls => ("ldap", LDAP_PORT),
        };
        let host = in_front_of_port(&self.host);
        match (self.security, self.port == port) {
            (Security::Ldaps, true) => f.write_str(&host),
            (_, true) => write!(f, "{scheme}://{host}"),
            (_, false) => write!(f, "{scheme}://{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_printed_back() {
        for (typed, shown) in [
            ("DC1.example.com", "dc1.example.com"),
            ("ldaps://dc1.example.com:636/", "dc1.example.com"),
            ("ldaps://dc1:1636", "ldaps://dc1:1636"),
            ("LDAP://dc1.example.com", "ldap://dc1.example.com"),
            ("ldap://127.77.0.1:1389", "ldap://127.77.0.1:1389"),
            ("[::1]", "[::1]"),
            ("ldap://[::1]:1389", "ldap://[::1]:1389"),
        ] {
            let server: Server = typed.parse().unwrap();
            assert_eq!(server.to_string(), shown);
            assert_eq!(shown.parse(), Ok(server));
        }
        for bad in ["", "http://dc1", "ldaps://", "dc1:", "dc1:0", "dc1:65536", "[::1", "a b", "dc1/x", "::1"]
        {
            assert!(bad.parse::<Server>().is_err(), "{bad}");
        }
    }
}
