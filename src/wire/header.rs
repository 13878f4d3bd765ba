//! Trace information in the header of a text.

use memchr::memchr;

/// Most `Delivered-To` fields examined. Each hop adds its own in front, so the newest come first.
const DELIVERED_TO_MAX: usize = 100;
/// Longest value that can be an address: 64 octets, `@`, 255 octets.
const ADDRESS_OCTETS_MAX: usize = 320;
/// Most octets kept of a field, including folds and blanks. A longer value counts as too long.
const FIELD_OCTETS_MAX: usize = 1024;

/// The trace of earlier hops (RFC 5321 section 4.4), to detect loops.
#[derive(Debug, Default)]
pub struct Trace {
    /// Number of `Received` fields.
    pub received_fields: u32,
    /// Values of the first `Delivered-To` fields, unfolded and trimmed.
    pub delivered_to: Vec<String>,
    pub origin: Origin,
}

/// Identifiers by which other servers log this message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The value of the first `Message-ID` field.
    pub message_id: Option<String>,
    /// The `id` in the first `Received` field: the queue id of the server that sent the message (RFC 5321 section 4.4).
    pub queue_id: Option<String>,
}

/// Reads the header of a text in wire form, split anywhere. The fields it looks for never begin with a dot.
#[derive(Debug, Default)]
pub struct Tracer {
    trace: Trace,
    /// The field so far with its line ends, cut one octet past [`FIELD_OCTETS_MAX`].
    field: Vec<u8>,
    /// Whether the next octet begins a line after `field`.
    at_line_start: bool,
    ended: bool,
}

impl Tracer {
    pub fn push(&mut self, mut wire: &[u8]) {
        while !self.ended
            && let Some(first) = wire.first()
        {
            if self.at_line_start && !matches!(first, b' ' | b'\t') {
                self.end_field();
            }
            let end = memchr(b'\n', wire).map_or(wire.len(), |at| at + 1);
            let (line, rest) = wire.split_at(end);
            let room = (FIELD_OCTETS_MAX + 1).saturating_sub(self.field.len());
            self.field.extend_from_slice(&line[..line.len().min(room)]);
            self.at_line_start = line.ends_with(b"\n");
            self.ended = self.field == b"\r\n";
            wire = rest;
        }
    }

    pub fn finish(mut self) -> Trace {
        self.end_field();
        self.trace
    }

    fn end_field(&mut self) {
        let field = std::mem::take(&mut self.field);
        self.at_line_start = false;
        let Some(colon) = memchr(b':', &field) else { return };
        let name = field[..colon].trim_ascii_end();
        let trace = &mut self.trace;
        if name.eq_ignore_ascii_case(b"Received") {
            if trace.received_fields == 0 {
                trace.origin.queue_id = queue_id(&field[colon + 1..]);
            }
            trace.received_fields = trace.received_fields.saturating_add(1);
        } else if name.eq_ignore_ascii_case(b"Message-ID") && trace.origin.message_id.is_none() {
            trace.origin.message_id = unfolded(&field[colon + 1..]);
        } else if name.eq_ignore_ascii_case(b"Delivered-To")
            && trace.delivered_to.len() < DELIVERED_TO_MAX
            && field.len() <= FIELD_OCTETS_MAX
        {
            trace.delivered_to.extend(unfolded(&field[colon + 1..]));
        }
    }
}

fn unfolded(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    if value.len() > ADDRESS_OCTETS_MAX {
        return None;
    }
    std::str::from_utf8(value).ok().map(|value| value.replace("\r\n", ""))
}

/// The word after `id`, which is not a keyword inside a comment.
fn queue_id(received: &[u8]) -> Option<String> {
    let received = std::str::from_utf8(received).ok()?;
    let mut depth = 0_usize;
    let outside = received.chars().map(|c| {
        depth = match c {
            '(' => depth + 1,
            ')' => depth.saturating_sub(1),
            _ => depth,
        };
        if depth > 0 || c == ')' { ' ' } else { c }
    });
    let outside: String = outside.take_while(|c| *c != ';').collect();
    let mut words = outside.split_ascii_whitespace().skip_while(|word| !word.eq_ignore_ascii_case("id"));
    let id = words.nth(1)?.trim_matches(['<', '>']);
    (!id.is_empty() && id.len() <= ADDRESS_OCTETS_MAX).then(|| id.to_owned())
}
