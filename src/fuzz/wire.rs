use crate::wire::{LineEnds, Lines, Receiver, Rejection, Text, top_end, unstuff};

/// The first octets choose limits, mode and where to cut; the others are a message and lines.
pub fn wire(data: &[u8]) {
    let [mode, cut, max, sent @ ..] = data else { return };
    let line_ends = if mode & 1 == 0 { LineEnds::Strict } else { LineEnds::Normalise };
    let octets_max = if mode & 2 == 0 { u64::MAX } else { u64::from(*max) };
    let cut = sent.len() * usize::from(*cut) / 256;

    let terminated = [sent, b"\r\n.\r\n"].concat();
    let whole = data_text(Receiver::data(line_ends, octets_max), &terminated, 0);
    assert_eq!(data_text(Receiver::data(line_ends, octets_max), &terminated, cut), whole);
    check(&whole.0, line_ends, octets_max);

    let content = content_text(Receiver::content(line_ends, octets_max), sent, 0);
    assert_eq!(content_text(Receiver::content(line_ends, octets_max), sent, cut), content);
    check(&content, line_ends, octets_max);

    let line_octets_max = usize::from(*max) + 1;
    assert_eq!(lines(sent, line_octets_max, cut), lines(sent, line_octets_max, 0));
}

fn data_text(mut receiver: Receiver, sent: &[u8], cut: usize) -> (Result<Text, Rejection>, usize) {
    let used = match receiver.push(&sent[..cut]) {
        Some(used) => used,
        None => cut + receiver.push(&sent[cut..]).expect("the end of data stands at the end"),
    };
    assert!(sent[..used].ends_with(b".\r\n"));
    (receiver.finish(), used)
}

fn content_text(mut receiver: Receiver, sent: &[u8], cut: usize) -> Result<Text, Rejection> {
    assert_eq!((receiver.push(&sent[..cut]), receiver.push(&sent[cut..])), (None, None));
    receiver.finish()
}

/// The text is in wire form, and its counts match its octets.
fn check(result: &Result<Text, Rejection>, line_ends: LineEnds, octets_max: u64) {
    let text = match result {
        Ok(text) => text,
        Err(Rejection::BareLineEnd | Rejection::Nul) => return assert_eq!(line_ends, LineEnds::Strict),
        Err(Rejection::TooLarge) => return assert!(octets_max < u64::MAX),
        Err(Rejection::DiskFull | Rejection::Fault) => panic!("the owner did not give up"),
    };
    let content = unstuff(&text.wire);
    assert_eq!(text.octets, content.len() as u64);
    // An empty line may have been added in front.
    assert!(text.octets <= octets_max.saturating_add(2));
    assert_eq!(text.hash, blake3::hash(&text.wire));
    assert!(text.wire.is_empty() || text.wire.ends_with(b"\r\n"));
    for line in text.wire.split_inclusive(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\r\n").expect("every line ends with CRLF");
        assert!(!line.contains(&b'\r') && (!line.starts_with(b".") || line.starts_with(b"..")));
    }
    assert!(top_end(&text.wire, 0) <= top_end(&text.wire, 1));
    assert_eq!(top_end(&text.wire, u64::MAX), text.wire.len());
    let again = content_text(Receiver::content(LineEnds::Strict, u64::MAX), &content, 0);
    assert_eq!(again.as_ref(), Ok(text));
}

fn lines(sent: &[u8], octets_max: usize, cut: usize) -> Vec<String> {
    let mut lines = Lines::new();
    let mut seen = Vec::new();
    for piece in [&sent[..cut], &sent[cut..]] {
        lines.push(piece);
        while let Some(line) = lines.next(octets_max) {
            seen.push(format!("{line:?}"));
        }
        assert!(lines.rest().len() < octets_max);
    }
    seen
}
