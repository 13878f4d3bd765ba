use crate::message::is_unique_id;
use crate::pop3_client::reply::{Capabilities, Status, Text, scan_listing, status, unique_id_listing};

/// Takes the octets for what a POP3 server sends: as lines, and as a text cut anywhere.
pub fn pop3_client(data: &[u8]) {
    data.split(|octet| *octet == b'\n').for_each(read_any_line);
    let whole = text(data, data.len().max(1));
    let piece = 1 + data.first().map_or(0, |octet| usize::from(octet % 7));
    assert_eq!(text(data, piece), whole, "it does not matter how a text is cut");
    if let (text, Some(used)) = whole {
        assert!(data[..used].ends_with(b".\r\n") && text.len() <= used - 3);
        // Stuffed again, it equals what was sent, provided that the server stuffed properly.
        assert!(text.is_empty() || text.ends_with(b"\r\n"));
    }
}

/// Parses a line in every way.
fn read_any_line(line: &[u8]) {
    if let Some(Status::Refused(refusal)) = status(line) {
        assert!(!refusal.text.chars().any(char::is_control));
        refusal.is_of_credentials();
    }
    Capabilities::default().add(line);
    scan_listing(line);
    if let Some((_, Some(id))) = unique_id_listing(line) {
        assert!(is_unique_id(&id));
    }
}

fn text(data: &[u8], piece: usize) -> (Vec<u8>, Option<usize>) {
    let (mut text, mut given, mut used) = (Text::default(), Vec::new(), 0);
    for octets in data.chunks(piece) {
        let mut sink = |octets: &[u8]| {
            given.extend_from_slice(octets);
            Ok(())
        };
        match text.push(octets, &mut sink).expect("the sink takes everything") {
            Some(count) => return (given, Some(used + count)),
            None => used += octets.len(),
        }
    }
    (given, None)
}
