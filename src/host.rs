//! A host and port as administrators write them: `HOST`, `HOST:PORT` or `[IPV6]:PORT`.

use futures_rustls::rustls::pki_types::ServerName;

/// The host in lower case, a name or an IP address that a certificate can be for, and the port if one is given. A `/`
/// at the end is ignored. `None` if malformed; an IPv6 address needs its brackets.
pub fn host_and_port(typed: &str) -> Option<(String, Option<u16>)> {
    let typed = typed.strip_suffix('/').unwrap_or(typed);
    let (host, port) = match typed.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port),
        None => typed.find(':').map_or((typed, ""), |colon| typed.split_at(colon)),
    };
    let port = match port.strip_prefix(':') {
        Some(digits) => Some(digits.parse().ok().filter(|port| *port > 0)?),
        None if port.is_empty() => None,
        None => return None,
    };
    let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:".contains(&b));
    (is_name && ServerName::try_from(host).is_ok()).then(|| (host.to_ascii_lowercase(), port))
}

/// The host as written before a port.
pub fn in_front_of_port(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_and_without_a_port() {
        for (typed, host, port) in [
            ("Old.example.com", "old.example.com", None),
            ("old:995/", "old", Some(995)),
            ("192.0.2.1:1", "192.0.2.1", Some(1)),
            ("[::1]", "::1", None),
            ("[2001:DB8::1]:65535", "2001:db8::1", Some(65535)),
        ] {
            assert_eq!(host_and_port(typed), Some((host.to_owned(), port)), "{typed}");
            assert_eq!(host_and_port(&in_front_of_port(host)), Some((host.to_owned(), None)));
        }
        for bad in ["", "/", "old:", "old:0", "old:65536", "[::1", "[::1]995", "a b", "old/x", "::1", ":995"]
        {
            assert_eq!(host_and_port(bad), None, "{bad}");
        }
    }
}
