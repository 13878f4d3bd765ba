//! Servers, as administrators write them.

use std::fmt;
use std::str::FromStr;

use crate::address::Address;
use crate::host::{host_and_port, in_front_of_port};

/// The ports of POP3 (RFC 1939 section 3) and of POP3 under TLS (RFC 8314 section 7.3).
const PORT: u16 = 110;
const TLS_PORT: u16 = 995;
/// Placeholders for the parts of an address in a login name.
const USER: &str = "{user}";
const DOMAIN: &str = "{domain}";

/// How the connection is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// `pop3s`: TLS from the start.
    Tls,
    /// `pop3`: STLS (RFC 2595 section 4) is required.
    Stls,
    /// `pop3+clear`: no TLS. Anyone on the path can read passwords and mail.
    Clear,
}

/// A server to fetch mail from: `pop3s://HOST`, `pop3://HOST` or `pop3+clear://HOST`, optionally with a port. If login
/// names are not whole addresses, their form precedes the host: `pop3s://{user}@HOST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A name or an IP address, which the certificate must be for.
    pub host: String,
    pub port: u16,
    pub security: Security,
    login: Option<String>,
}

impl Server {
    /// Whether the connection is without TLS, and so needs no certificate authorities.
    pub fn is_clear(&self) -> bool {
        self.security == Security::Clear
    }

    /// The login name of this mailbox on the server.
    pub fn login_of(&self, mailbox: &Address) -> String {
        match &self.login {
            None => mailbox.to_string(),
            Some(form) => {
                form.replace(USER, &mailbox.local.to_string()).replace(DOMAIN, mailbox.domain.as_str())
            }
        }
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let malformed = || format!("\"{typed}\" is not a POP3 server: write pop3s://old.example.com");
        let (scheme, rest) = typed.split_once("://").ok_or_else(malformed)?;
        let security = match scheme.to_ascii_lowercase().as_str() {
            "pop3s" => Security::Tls,
            "pop3" => Security::Stls,
            "pop3+clear" => Security::Clear,
            _ => return Err(malformed()),
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login.to_owned()), rest),
            None => (None, rest),
        };
        let is_form = |form: &String| {
            form.contains(USER) && form.bytes().all(|b| b.is_ascii_graphic() && b != b'=' && b != b'/')
        };
        if login.as_ref().is_some_and(|form| !is_form(form)) {
            return Err(format!(
                "the part before the host in \"{typed}\" is not a form of login names: it must contain {USER} and may contain {DOMAIN}"
            ));
        }
        let (host, port) = host_and_port(rest).ok_or_else(malformed)?;
        let default = if security == Security::Tls { TLS_PORT } else { PORT };
        Ok(Self { host, port: port.unwrap_or(default), security, login })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, port) = match self.security {
            Security::Tls => ("pop3s", TLS_PORT),
            Security::Stls => ("pop3", PORT),
            Security::Clear => ("pop3+clear", PORT),
        };
        write!(f, "{scheme}://")?;
        if let Some(login) = &self.login {
            write!(f, "{login}@")?;
        }
        f.write_str(&in_front_of_port(&self.host))?;
        if self.port == port { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_printed_back() {
        for (typed, shown) in [
            ("pop3s://Old.example.com", "pop3s://old.example.com"),
            ("POP3S://old.example.com:995/", "pop3s://old.example.com"),
            ("pop3://[::1]:1110", "pop3://[::1]:1110"),
            ("pop3+clear://192.0.2.1", "pop3+clear://192.0.2.1"),
            ("pop3s://{user}@{domain}*admin@old", "pop3s://{user}@{domain}*admin@old"),
        ] {
            let server: Server = typed.parse().unwrap();
            assert_eq!(server.to_string(), shown);
            assert_eq!(shown.parse(), Ok(server));
        }
        for bad in [
            "",
            "old.example.com",
            "imap://old",
            "pop3s://",
            "pop3s://old:0",
            "pop3s://a b",
            "pop3s://bob@old",
        ] {
            assert!(bad.parse::<Server>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mailbox_is_known_by_its_address_or_by_the_form_that_was_given() {
        let login = |server: &str| {
            let server: Server = server.parse().unwrap();
            server.login_of(&"bob@example.com".parse().unwrap())
        };
        assert_eq!(login("pop3s://old"), "bob@example.com");
        assert_eq!(login("pop3s://{user}@old"), "bob");
        assert_eq!(login("pop3s://{domain}\\{user}@old"), "example.com\\bob");
    }
}
