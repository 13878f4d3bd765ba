use crate::doubles::smtp_driver::{MESSAGE_OCTETS_MAX, Server};
use crate::smtp::Dialect;

/// The first octets choose the dialect and where to cut; the others are what a client sends.
pub fn smtp(data: &[u8]) {
    let [dialect, cut, sent @ ..] = data else { return };
    let dialect = if dialect & 1 == 0 { Dialect::Smtp } else { Dialect::Lmtp };
    let cut = sent.len() * usize::from(*cut) / 256;
    let whole = dialogue(dialect, sent, 0);
    assert_eq!(dialogue(dialect, sent, cut), whole);
    for line in whole.split_inclusive(|&octet| octet == b'\n') {
        assert!(
            line.ends_with(b"\r\n") && line[..3].iter().all(u8::is_ascii_digit),
            "a reply is whole lines"
        );
    }
}

fn dialogue(dialect: Dialect, sent: &[u8], cut: usize) -> Vec<u8> {
    let mut server = Server::connect(dialect);
    server.push(&sent[..cut]);
    server.push(&sent[cut..]);
    for (envelope, text) in &server.handed_over {
        // The limit applies to what the client sent. The empty line before a text without a header is ours.
        let most = MESSAGE_OCTETS_MAX + b"\r\n".len() as u64;
        assert!(!envelope.recipients.is_empty() && text.octets <= most);
        let trace = envelope.trace_fields(
            &"bob@example.com".parse().expect("an address"),
            "mail.example.com",
            "1",
            time::OffsetDateTime::UNIX_EPOCH,
        );
        let ends = trace.iter().filter(|octet| b"\r\n".contains(octet)).count();
        assert_eq!(ends, 10, "five lines, whatever the client said");
    }
    server.said()
}
