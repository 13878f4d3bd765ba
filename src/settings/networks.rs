//! The settings that list addresses: where the service listens, who may send a password in clear, and who is trusted to
//! speak for other hosts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::values::Value;

/// The addresses on which the service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    All,
    /// At least one, none twice.
    Only(Vec<IpAddr>),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        if typed.trim() == "*" {
            return Ok(Self::All);
        }
        let mut addresses = Vec::new();
        for word in list_words(typed)? {
            let address: IpAddr =
                word.parse().map_err(|_| format!("\"{word}\" is not an IP address; * means all"))?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(Self::Only(addresses))
    }
}

impl Value for Listen {
    fn allowed() -> String {
        "* or IP addresses".to_owned()
    }

    fn meaning(&self) -> Option<String> {
        (*self == Self::All).then(|| "all addresses".to_owned())
    }
}

/// Who may send a password over an unencrypted connection. This machine always may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// Nobody else.
    Tls,
    Always,
    /// At least one.
    From(Vec<Network>),
}

impl Plaintext {
    /// True if a client at `peer` may send its password in clear.
    pub fn allows(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        peer.is_loopback()
            || match self {
                Self::Tls => false,
                Self::Always => true,
                Self::From(networks) => networks.iter().any(|network| network.contains(peer)),
            }
    }
}

impl FromStr for Plaintext {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        match typed.trim().to_ascii_lowercase().as_str() {
            "tls" => Ok(Self::Tls),
            "always" => Ok(Self::Always),
            _ => list_words(typed)?.iter().map(|word| word.parse()).collect::<Result<_, _>>().map(Self::From),
        }
    }
}

impl Value for Plaintext {
    fn allowed() -> String {
        "tls, always, or networks such as 192.168.7.0/24".to_owned()
    }

    fn meaning(&self) -> Option<String> {
        let meaning = match self {
            Self::Tls => "from this machine only",
            Self::Always => "from everywhere",
            Self::From(_) => "from these networks and this machine",
        };
        Some(meaning.to_owned())
    }
}

/// Networks whose hosts may do something that others may not. May be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    pub fn contain(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(peer))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Networks {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        if typed.trim().eq_ignore_ascii_case("none") {
            return Ok(Self::default());
        }
        list_words(typed)?.iter().map(|word| word.parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl Value for Networks {
    fn allowed() -> String {
        "none, or networks such as 192.168.7.0/24".to_owned()
    }
}

/// A network in CIDR notation (RFC 4632 section 3.1, RFC 4291 section 2.3); host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// 0 to 32 for IPv4, 0 to 128 for IPv6.
    prefix_bits: u32,
}

impl Network {
    fn contains(&self, peer: IpAddr) -> bool {
        match (self.address, peer) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                cut_host_bits(peer, self.prefix_bits) == self.address
            }
            _ => false,
        }
    }
}

/// The address with all bits after the first `prefix_bits` zero.
fn cut_host_bits(address: IpAddr, prefix_bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix_bits).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix_bits).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let malformed = || format!("\"{typed}\" is not a network such as 192.168.7.0/24");
        let (address, prefix) = match typed.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (typed, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => bits_max,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|bits| *bits <= bits_max).ok_or_else(malformed)?
            }
            Some(_) => return Err(malformed()),
        };
        Ok(Self { address: cut_host_bits(address, prefix_bits), prefix_bits })
    }
}

/// The words of a list, separated by commas or spaces. At least one.
pub(super) fn list_words(typed: &str) -> Result<Vec<&str>, String> {
    let words: Vec<&str> = typed.split([',', ' ']).filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return Err("the value is empty".to_owned());
    }
    Ok(words)
}

fn write_list(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(f, "{comma}{item}")?;
    }
    Ok(())
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Only(addresses) => write_list(f, addresses),
        }
    }
}

impl fmt::Display for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls => f.write_str("tls"),
            Self::Always => f.write_str("always"),
            Self::From(networks) => write_list(f, networks),
        }
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() { f.write_str("none") } else { write_list(f, &self.0) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(plaintext: &str, peer: &str) -> bool {
        plaintext.parse::<Plaintext>().unwrap().allows(peer.parse().unwrap())
    }

    #[test]
    fn this_machine_may_always_send_its_password_in_clear() {
        for plaintext in ["tls", "always", "10.0.0.0/8"] {
            for peer in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
                assert!(allows(plaintext, peer), "{plaintext} {peer}");
            }
        }
    }

    #[test]
    fn networks_are_matched_by_their_prefix_and_family() {
        let scanners = "192.168.7.9/24, 2001:db8::/32 10.1.2.3";
        assert_eq!(
            scanners.parse::<Plaintext>().unwrap().to_string(),
            "192.168.7.0/24,2001:db8::/32,10.1.2.3/32"
        );
        for (peer, allowed) in [
            ("192.168.7.0", true),
            ("192.168.7.255", true),
            ("192.168.8.0", false),
            ("::ffff:192.168.7.1", true),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("10.1.2.3", true),
            ("10.1.2.4", false),
        ] {
            assert_eq!(allows(scanners, peer), allowed, "{peer}");
        }
        assert!(allows("0.0.0.0/0", "203.0.113.5") && !allows("0.0.0.0/0", "2001:db8::1"));
        assert!(allows("::/0", "2001:db8::1") && !allows("tls", "203.0.113.5"));
        for bad in ["", ",", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "never"] {
            assert!(bad.parse::<Plaintext>().is_err(), "{bad}");
        }
    }

    #[test]
    fn listen_takes_a_star_or_addresses() {
        assert_eq!("*".parse(), Ok(Listen::All));
        assert_eq!("127.0.0.1 ::1,127.0.0.1".parse::<Listen>().unwrap().to_string(), "127.0.0.1,::1");
        for bad in ["", "localhost", "127.0.0.1:110", "* 127.0.0.1"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_hold_their_hosts_and_read_back_as_they_were_typed() {
        let networks: Networks = "10.0.0.0/8, 2001:db8::/32".parse().unwrap();
        for (peer, is_in) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("2001:db8::1", true),
            ("11.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(networks.contain(peer.parse().unwrap()), is_in, "{peer}");
        }
        for typed in ["10.0.0.0/8,2001:db8::/32", "none"] {
            assert_eq!(typed.parse::<Networks>().unwrap().to_string(), typed);
        }
        assert!("tls".parse::<Networks>().is_err() && "".parse::<Networks>().is_err());
    }
}
