//! Checksums of index pages: a flipped bit is noticed where the page is read and never reaches redb.
//!
//! The first page of each index extent holds a 64-bit sum, little-endian, for each of the other 255 pages; 0
//! marks a page that was never written. A sum covers the page and its position, so a misplaced page fails as
//! well.
//!
//! - A new sum stays in memory when its page is written, and is written just before the sync that makes the
//!   page durable. Pages named by a durable commit are not rewritten while it names them, so old and new sum
//!   sectors agree about them: a crash between the two writes leaves page and sum consistent.
//! - Sums catch accidents of the disk. They do not protect against forgery: an attacker who forges a page can forge its
//!   sum.

use std::io;
use std::sync::Arc;

use crate::store::file::disk::Disk;
use crate::store::file::format::{Extent, INDEX_PAGES, PAGE};

/// Sums of the pages of one extent.
pub type PageSums = Arc<[u64; INDEX_PAGES]>;

/// Sums by index extent, read from the disk when first needed.
#[derive(Debug, Default)]
pub struct Sums {
    extents: Vec<Option<ExtentSums>>,
}

#[derive(Debug)]
struct ExtentSums {
    sums: PageSums,
    is_changed: bool,
}

impl Sums {
    /// The sums of index extent `index`, which lies in extent `place` of the file.
    pub fn of(&mut self, disk: &dyn Disk, index: usize, place: Extent) -> io::Result<PageSums> {
        Ok(self.extent(disk, index, place)?.sums.clone())
    }

    fn extent(&mut self, disk: &dyn Disk, index: usize, place: Extent) -> io::Result<&mut ExtentSums> {
        if self.extents.len() <= index {
            self.extents.resize_with(index + 1, || None);
        }
        let known = &mut self.extents[index];
        if known.is_none() {
            let mut octets = [0; INDEX_PAGES * 8];
            disk.read_at(place.at(), &mut octets)?;
            let mut sums = [0; INDEX_PAGES];
            for (sum, octets) in sums.iter_mut().zip(octets.chunks_exact(8)) {
                *sum = u64::from_le_bytes(octets.try_into().expect("eight octets"));
            }
            *known = Some(ExtentSums { sums: Arc::new(sums), is_changed: false });
        }
        Ok(known.as_mut().expect("it was just read"))
    }

    /// Records the sums of pages about to be written, `inner` octets past the extent's first page.
    pub fn note(
        &mut self,
        disk: &dyn Disk,
        index: usize,
        place: Extent,
        inner: u64,
        octets: &[u8],
    ) -> io::Result<()> {
        let extent = self.extent(disk, index, place)?;
        let sums = Arc::make_mut(&mut extent.sums);
        extent.is_changed = true;
        for (page, octets) in pages(inner, octets) {
            // redb writes whole pages. A partly written page has no sum until all of it is written again.
            sums[page] = if octets.len() as u64 == PAGE { sum(index, page, octets) } else { 0 };
        }
        Ok(())
    }

    /// Drops the sums of pages that were zeroed, from `inner` on.
    pub fn forget(&mut self, disk: &dyn Disk, index: usize, place: Extent, inner: u64) -> io::Result<()> {
        let extent = self.extent(disk, index, place)?;
        Arc::make_mut(&mut extent.sums)[(inner / PAGE) as usize..].fill(0);
        extent.is_changed = true;
        Ok(())
    }

    /// Keeps the sums of the first `count` index extents.
    pub fn truncate(&mut self, count: usize) {
        self.extents.truncate(count);
    }

    /// Writes changed sums. `map` gives the places of the index extents.
    pub fn write_changed(&mut self, disk: &dyn Disk, map: &[Option<Extent>]) -> io::Result<()> {
        for (extent, place) in self.extents.iter_mut().zip(map) {
            let (Some(extent), Some(place)) = (extent.as_mut().filter(|extent| extent.is_changed), place)
            else {
                continue;
            };
            let octets: Vec<u8> = extent.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
            disk.write_at(place.at(), &octets)?;
            extent.is_changed = false;
        }
        Ok(())
    }
}

/// The first page that differs from what was written. `octets` start `inner` octets past the extent's first
/// page; partial pages are not checked.
pub fn first_damaged(sums: &PageSums, index: usize, inner: u64, octets: &[u8]) -> Option<usize> {
    pages(inner, octets)
        .filter(|(_, octets)| octets.len() as u64 == PAGE)
        .find(|(page, octets)| sums[*page] != 0 && sums[*page] != sum(index, *page, octets))
        .map(|(page, _)| page)
}

/// The pages these octets touch, each with its part of them.
fn pages(inner: u64, octets: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let before = ((PAGE - inner % PAGE) % PAGE).min(octets.len() as u64) as usize;
    let (part, whole) = octets.split_at(before);
    let part = (!part.is_empty()).then_some(((inner / PAGE) as usize, part));
    let first = inner.div_ceil(PAGE) as usize;
    part.into_iter().chain((first..).zip(whole.chunks(PAGE as usize)))
}

fn sum(index: usize, page: usize, octets: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(octets);
    hasher.update(&(index as u32).to_le_bytes());
    hasher.update(&[page as u8]);
    let hash = hasher.finalize();
    let sum = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight octets"));
    sum.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_cut_at_pages() {
        let octets = [0; 10_000];
        let cut: Vec<_> = pages(100, &octets).map(|(page, octets)| (page, octets.len())).collect();
        assert_eq!(cut, [(0, 3996), (1, 4096), (2, 1908)]);
        let cut: Vec<_> = pages(8192, &octets[..8192]).map(|(page, octets)| (page, octets.len())).collect();
        assert_eq!(cut, [(2, 4096), (3, 4096)]);
        let cut: Vec<_> = pages(8200, &octets[..8]).map(|(page, octets)| (page, octets.len())).collect();
        assert_eq!(cut, [(2, 8)]);
    }
}
