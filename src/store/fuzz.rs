//! The bodies of the fuzz targets inside the store; `src/fuzz` has the others.

use std::io;

use crate::store::index::redb_header::{MAGIC, SLOTS};
use crate::store::index::rows::{MessageHead, MessageRow, ROWS, Row};
use crate::store::upkeep::salvage::tree::{
    PAGE, PAGE_ORDER_MAX, REGION_DATA_PAGES, REGION_HEADER_PAGES, Trees,
};

/// Decodes the octets as a row of every type. A decoded row must encode to the same octets.
pub fn rows(octets: &[u8]) {
    for (name, recode) in ROWS {
        assert!(recode(octets).is_none_or(|row| row == octets), "{name}");
    }
    if let (Ok(head), Ok(row)) = (MessageHead::from_row(octets), MessageRow::from_row(octets)) {
        assert_eq!((head.octets, head.tag, head.received), (row.octets, row.tag, row.received));
        assert_eq!((head.surrogate_octets, head.foreign_id), (row.surrogate_octets, row.foreign_id));
    }
}

/// Takes the octets for redb's space. A walk must end, and pass no row longer than the space.
pub fn tree(octets: &[u8]) {
    // A header that leads somewhere, followed by the given octets.
    let mut space = vec![0; 4096];
    space[..MAGIC.len()].copy_from_slice(MAGIC);
    space[REGION_HEADER_PAGES] = 1;
    space[REGION_DATA_PAGES + 1] = 1;
    space[SLOTS[0] + 1] = 1;
    let (head, pages) = octets.split_at(octets.len().min(8));
    space[SLOTS[0] + 8..][..head.len()].copy_from_slice(head);
    space.extend_from_slice(&[0; 4096]);
    space.extend_from_slice(pages);
    let read = |at: u64, out: &mut [u8]| -> io::Result<()> {
        out.fill(0);
        let from = usize::try_from(at).ok().filter(|at| *at < space.len());
        let from = from.ok_or(io::ErrorKind::UnexpectedEof)?;
        let count = out.len().min(space.len() - from);
        out[..count].copy_from_slice(&space[from..from + count]);
        Ok(())
    };
    let trees = Trees::find(&read);
    let longest = (PAGE << PAGE_ORDER_MAX) as usize;
    let mut is_bounded = |key: &[u8], row: &[u8]| assert!(key.len() <= longest && row.len() <= longest);
    for name in trees.tables.keys() {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        trees.rows(name, &mut is_bounded);
    }
    trees.scan(space.len() as u64, 12, &|key, _| key.len() == 12, &mut is_bounded);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::upkeep::salvage::tree::NORMAL_TABLE;

    /// Pages that begin like leaves and branches, numbers that refer to each other, and noise.
    #[test]
    fn whatever_the_pages_hold_a_walk_ends() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..3_000 {
            let pages = rng.usize(1..6);
            let mut octets = u64::to_le_bytes(rng.u64(..pages as u64)).to_vec();
            for _ in 0..pages {
                let mut page = vec![0; PAGE as usize];
                page[0] = rng.u8(..4);
                page[2] = rng.u8(..8);
                for at in (4..200).step_by(4) {
                    let word = if rng.bool() { rng.u32(..PAGE as u32) } else { rng.u32(..) >> rng.u32(..32) };
                    page[at..at + 4].copy_from_slice(&word.to_le_bytes());
                }
                if rng.bool() {
                    let table = 8 + rng.usize(..100);
                    page[table] = NORMAL_TABLE;
                }
                octets.extend_from_slice(&page);
            }
            tree(&octets);
        }
    }
}
