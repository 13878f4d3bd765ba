//! What the header of a text tells about the way it came.

use memchr::memchr;

/// More `Delivered-To` fields than this are not looked at. Each hop adds its own in front, so the newest
/// are always among the first.
const DELIVERED_TO_MAX: usize = 100;
/// A longer value is no address (64 octets, `@`, 255 octets) and can't be ours.
const ADDRESS_OCTETS_MAX: usize = 320;

/// The trace of earlier hops (RFC 5321 section 4.4), to see loops.
#[derive(Debug, Default)]
pub struct Trace {
    /// Number of `Received` fields.
    pub received_fields: u32,
    /// Values of the first `Delivered-To` fields, unfolded and trimmed, otherwise as they stand.
    pub delivered_to: Vec<String>,
}

/// Reads the header of a text in wire form. A dot-stuffed line is never one of the fields looked for.
pub fn trace(wire: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut rest = wire;
    while let Some((field, after)) = next_field(rest) {
        rest = after;
        let Some(colon) = memchr(b':', field) else { continue };
        let name = field[..colon].trim_ascii_end();
        if name.eq_ignore_ascii_case(b"Received") {
            trace.received_fields = trace.received_fields.saturating_add(1);
        } else if name.eq_ignore_ascii_case(b"Delivered-To") && trace.delivered_to.len() < DELIVERED_TO_MAX {
            trace.delivered_to.extend(unfolded(&field[colon + 1..]));
        }
    }
    trace
}

/// The first field with its continuation lines, and what follows it; `None` at the end of the header.
fn next_field(header: &[u8]) -> Option<(&[u8], &[u8])> {
    if header.is_empty() || header.starts_with(b"\r\n") {
        return None;
    }
    let mut end = 0;
    loop {
        end += memchr(b'\n', &header[end..]).map_or(header.len() - end, |at| at + 1);
        if !matches!(header.get(end), Some(b' ' | b'\t')) {
            return Some(header.split_at(end));
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
