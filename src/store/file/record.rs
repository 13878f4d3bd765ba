//! Contents of a log record: rows put and removed, and short texts. `format.rs` has the octets.
//!
//! Tables are just numbers here; `tables.rs` assigns them.

use super::format::{CHANGE_PUT, CHANGE_REMOVED, CHANGE_TEXT};

/// Texts up to this length go into the log with their row and become durable with it. Longer ones are made
/// durable in place, before the record.
pub const SHORT_TEXT_OCTETS_MAX: u64 = 64 << 10;

/// One change in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    Put { table: u8, key: &'a [u8], value: &'a [u8] },
    Removed { table: u8, key: &'a [u8] },
    Text { at: u64, octets: &'a [u8] },
}

pub fn put(out: &mut Vec<u8>, table: u8, key: &[u8], value: &[u8]) {
    out.extend_from_slice(&[CHANGE_PUT, table]);
    counted(out, key);
    counted(out, value);
}

pub fn remove(out: &mut Vec<u8>, table: u8, key: &[u8]) {
    out.extend_from_slice(&[CHANGE_REMOVED, table]);
    counted(out, key);
}

pub fn text(out: &mut Vec<u8>, at: u64, octets: &[u8]) {
    out.push(CHANGE_TEXT);
    out.extend_from_slice(&at.to_le_bytes());
    counted(out, octets);
}

fn counted(out: &mut Vec<u8>, octets: &[u8]) {
    let len = u32::try_from(octets.len()).expect("rows and short texts are far below 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(octets);
}

/// The changes of a record in order, or `None` if the octets are malformed.
pub fn changes(mut octets: &[u8]) -> Option<Vec<Change<'_>>> {
    let mut changes = Vec::new();
    while let Some((kind, rest)) = octets.split_first() {
        octets = rest;
        changes.push(match *kind {
            CHANGE_PUT => {
                let table = take(&mut octets, 1)?[0];
                Change::Put { table, key: take_counted(&mut octets)?, value: take_counted(&mut octets)? }
            }
            CHANGE_REMOVED => {
                Change::Removed { table: take(&mut octets, 1)?[0], key: take_counted(&mut octets)? }
            }
            CHANGE_TEXT => {
                let at = u64::from_le_bytes(take(&mut octets, 8)?.try_into().ok()?);
                Change::Text { at, octets: take_counted(&mut octets)? }
            }
            _ => return None,
        });
    }
    Some(changes)
}

fn take<'a>(octets: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = octets.split_at_checked(count)?;
    *octets = rest;
    Some(taken)
}

fn take_counted<'a>(octets: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_le_bytes(take(octets, 4)?.try_into().ok()?);
    take(octets, len as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_back_as_they_were_and_cut_ones_do_not() {
        let mut octets = Vec::new();
        put(&mut octets, 3, b"key", b"row");
        remove(&mut octets, 4, b"");
        text(&mut octets, 1 << 40, b"octets of a text");
        let expected = [
            Change::Put { table: 3, key: b"key", value: b"row" },
            Change::Removed { table: 4, key: b"" },
            Change::Text { at: 1 << 40, octets: b"octets of a text" },
        ];
        assert_eq!(changes(&octets).unwrap(), expected);
        for len in 0..octets.len() {
            assert!(changes(&octets[..len]).is_none_or(|changes| changes.len() < expected.len()), "{len}");
        }
        assert_eq!(changes(&[7]), None);
    }
}
