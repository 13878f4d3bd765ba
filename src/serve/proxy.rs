//! The PROXY header, in which a proxy names the client it speaks for (PROXY protocol, versions 1 and 2; haproxy.org,
//! proxy-protocol.txt).
//!
//! It is read before anything else, even TLS, and not one octet past its end. The setting `proxyfrom` says who may send
//! one.

use std::io;
use std::net::IpAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use smol::io::{AsyncRead, AsyncReadExt};

/// Longest header accepted. Version 1 has at most 107 octets; version 2 may have fields that we skip, the longest of
/// them names from certificates.
const OCTETS_MAX: usize = 2048;
/// The shortest header of version 1, `PROXY UNKNOWN` CRLF.
const FIRST_READ: usize = 15;
/// The fixed part of version 2, whose last two octets hold the length of the rest.
const V2_FIXED: usize = 16;

/// Reads the header. Returns the client's address, or `None` if the proxy speaks for itself (LOCAL and UNKNOWN: health
/// checks). Fails with `InvalidData` if the header is not valid.
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut header = vec![0; FIRST_READ];
    stream.read_exact(&mut header).await?;
    if header[0] == b'P' {
        while !header.ends_with(b"\n") {
            read_more(stream, &mut header, 1).await?;
        }
    } else {
        read_more(stream, &mut header, V2_FIXED - FIRST_READ).await?;
        let rest = u16::from_be_bytes([header[V2_FIXED - 2], header[V2_FIXED - 1]]);
        read_more(stream, &mut header, rest.into()).await?;
    }
    client(&header)
}

async fn read_more(
    stream: &mut (impl AsyncRead + Unpin),
    header: &mut Vec<u8>,
    count: usize,
) -> io::Result<()> {
    let from = header.len();
    if from + count > OCTETS_MAX {
        return Err(invalid("it is too long"));
    }
    header.resize(from + count, 0);
    stream.read_exact(&mut header[from..]).await
}

fn client(header: &[u8]) -> io::Result<Option<IpAddr>> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (parsed, used) = ProxyHeader::parse(header, config).map_err(|e| invalid(&e.to_string()))?;
    if used != header.len() {
        return Err(invalid("octets are left over"));
    }
    match parsed.proxied_address() {
        Some(proxied) if proxied.protocol != Protocol::Stream => Err(invalid("it does not speak of TCP")),
        Some(proxied) => Ok(Some(proxied.source.ip().to_canonical())),
        None => Ok(None),
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no valid PROXY header: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, rest].concat()
    }

    /// The outcome, and how many octets are left after it.
    fn read(sent: &[u8]) -> (io::Result<Option<IpAddr>>, usize) {
        let mut stream = sent;
        let said = smol::block_on(read_header(&mut stream));
        (said, stream.len())
    }

    #[test]
    fn the_header_names_the_client_and_nothing_past_it_is_read() {
        let v4 = [192, 0, 2, 7, 127, 0, 0, 1, 0, 80, 0, 110];
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 16], &[0, 80, 0, 110]].concat();
        let with_fields = [&v4[..], &[4, 0, 3], b"xyz"].concat();
        for (header, client) in [
            (b"PROXY TCP4 192.0.2.7 127.0.0.1 80 110\r\n".to_vec(), Some("192.0.2.7")),
            (b"PROXY TCP6 2001:db8::7 ::1 80 110\r\n".to_vec(), Some("2001:db8::7")),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 80 110\r\n".to_vec(), Some("192.0.2.7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f::1 ffff:f::2 65535 65535\r\n".to_vec(), None),
            (v2(0x21, 0x11, &v4), Some("192.0.2.7")),
            (v2(0x21, 0x11, &with_fields), Some("192.0.2.7")),
            (v2(0x21, 0x21, &v6), Some("2001:db8::7")),
            (v2(0x20, 0x00, b""), None),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let expected = client.map(|ip| ip.parse().unwrap());
            let (said, left) = read(&[&header[..], b"QUIT\r\n"].concat());
            assert_eq!((said.unwrap(), left), (expected, 6), "{}", header.escape_ascii());
        }
    }

    #[test]
    fn anything_else_is_refused_within_its_bound() {
        let over_long = format!("PROXY UNKNOWN {}", "x".repeat(3000)).into_bytes();
        for sent in [
            b"USER ann@example.com\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7\r\n".to_vec(),
            b"PROXY TCP5 192.0.2.7 127.0.0.1 80 110\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 ::1 80 110\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 127.0.0.1 80 99999\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a handshake of TLS".to_vec(),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x21, 0x12, &[0; 12]),
            v2(0x21, 0x11, &[0; 8]),
            v2(0x21, 0x11, &[0; 4000]),
            over_long,
        ] {
            let kind = read(&sent).0.unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::InvalidData, "{}", sent[..20].escape_ascii());
        }
    }

    #[test]
    fn no_octets_make_it_panic() {
        let random = &mut fastrand::Rng::with_seed(3);
        let starts: [&[u8]; 4] = [b"PROXY TCP4 ", b"PROXY TCP6 ", V2_SIGNATURE, b""];
        for _ in 0..20_000 {
            let start = starts[random.usize(..starts.len())];
            let rest: Vec<u8> = (0..random.usize(..80))
                .map(|_| *random.choice(b" 01.:\r\n\x11\x20\x21\xff").unwrap())
                .collect();
            let _ = read(&[start, &rest].concat());
        }
    }
}
