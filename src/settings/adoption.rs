//! The setting `adopt`: the old servers of users who have no password here yet.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::networks::list_words;
use super::values::Value;
use crate::address::Domain;
use crate::pop3_client::Server;

/// Maximum number of domains with their own old server.
const DOMAINS_MAX: usize = 64;

/// The old servers: one for all domains, and others for single domains, written `DOMAIN=SERVER`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OldServers {
    of_all: Option<Server>,
    of_domains: BTreeMap<Domain, Server>,
}

impl OldServers {
    pub fn is_empty(&self) -> bool {
        self.of_all.is_none() && self.of_domains.is_empty()
    }

    /// The old server of this domain's users.
    pub fn of(&self, domain: &Domain) -> Option<&Server> {
        self.of_domains.get(domain).or(self.of_all.as_ref())
    }

    /// These with the server of one domain changed as typed, or removed.
    pub fn with(&self, domain: &str, server: Option<&str>) -> Result<Self, String> {
        let mut changed = self.clone();
        let domain: Domain =
            domain.parse().map_err(|malformed: crate::address::Malformed| malformed.to_string())?;
        match server {
            Some(server) => drop(changed.of_domains.insert(domain, server.parse()?)),
            None => drop(changed.of_domains.remove(&domain)),
        }
        match changed.of_domains.len() {
            ..=DOMAINS_MAX => Ok(changed),
            _ => Err(format!("at most {DOMAINS_MAX} domains can have their own old server")),
        }
    }

    /// These with the server for all other domains changed as typed.
    pub fn with_one_for_all(&self, server: &str) -> Result<Self, String> {
        Ok(Self { of_all: Some(server.parse()?), of_domains: self.of_domains.clone() })
    }
}

impl FromStr for OldServers {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let mut servers = Self::default();
        if typed.is_empty() {
            return Ok(servers);
        }
        for word in list_words(typed)? {
            servers = match word.split_once('=') {
                Some((domain, server)) => servers.with(domain, Some(server))?,
                None if servers.of_all.is_some() => {
                    return Err("only one server can be given for all domains".to_owned());
                }
                None => servers.with_one_for_all(word)?,
            };
        }
        Ok(servers)
    }
}

impl Value for OldServers {
    fn allowed() -> String {
        "pop3s://HOST, pop3://HOST (STLS) or pop3+clear://HOST, then optionally a domain".to_owned()
    }
}

impl fmt::Display for OldServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = self.of_all.iter().map(Server::to_string).collect();
        words.extend(self.of_domains.iter().map(|(domain, server)| format!("{}={server}", domain.as_str())));
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_may_have_its_own_old_server() {
        let servers = OldServers::default().with_one_for_all("pop3s://a").unwrap();
        let servers = servers.with("Example.org", Some("pop3://{user}@b:1110")).unwrap();
        assert_eq!(servers.to_string(), "pop3s://a example.org=pop3://{user}@b:1110");
        assert_eq!(servers.to_string().parse(), Ok(servers.clone()));
        let host = |domain: &str| servers.of(&domain.parse().unwrap()).unwrap().host.clone();
        assert_eq!((host("example.org"), host("example.com")), ("b".to_owned(), "a".to_owned()));
        let servers = servers.with("example.org", None).unwrap();
        assert_eq!(servers.to_string(), "pop3s://a");
        assert_eq!(OldServers::default().to_string().parse(), Ok(OldServers::default()));
        for bad in ["a", "pop3s://a pop3s://b", "x y=pop3s://a", "=pop3s://a", "a.b=c"] {
            assert!(bad.parse::<OldServers>().is_err(), "{bad}");
        }
    }
}
