//! The data file in memory, for reading. The only file of the project with `unsafe` in it.
//!
//! A stretch of address space far longer than the file is reserved once, so that the file can grow without being
//! mapped again: pages show through as it grows. Reading past the end of the file raises SIGBUS, so a view is
//! made only by `DataFile::view`, which checks the bounds.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::{Advice, Mmap, MmapOptions};

/// Address space to reserve: 1 TiB, and with it the greatest length of a data file. Less is taken where a
/// limit on address space (RLIMIT_AS) stands in the way.
const RESERVE_OCTETS: usize = 1 << 40;
const RESERVE_OCTETS_LEAST: usize = 1 << 32;
const PAGE: usize = 4096;
/// The kernel is asked about so many octets at once, so that short texts that lie side by side share the question.
const STRETCH: usize = 64 * PAGE;
/// A stretch that was in memory is taken to be there for so long. Where it is not, a session of the same thread waits
/// for the disk, no more.
const RESIDENT_FOR: Duration = Duration::from_millis(100);
const STRETCHES_REMEMBERED: usize = 1024;

#[derive(Debug)]
pub struct Mapping {
    map: Mmap,
    begun: Instant,
    /// Stretches that were wholly in memory when they were looked at: their number plus one above the lower 40 bits,
    /// which are milliseconds since `begun`. Zero: none.
    resident: Box<[AtomicU64]>,
}

impl Mapping {
    pub fn new(file: &File) -> io::Result<Self> {
        let mut len = RESERVE_OCTETS;
        loop {
            // SAFETY: the memory must not change under a `&[u8]` into it. The file is locked against other
            // processes that keep to the lock, and this process writes only where no view exists: blob space
            // is reused when no pin remains (`space.rs`), and no view is ever made of the index.
            match unsafe { MmapOptions::new().len(len).map(file) } {
                Ok(map) => {
                    let resident = (0..STRETCHES_REMEMBERED).map(|_| AtomicU64::new(0)).collect();
                    return Ok(Self { map, begun: Instant::now(), resident });
                }
                Err(_) if len > RESERVE_OCTETS_LEAST => len /= 4,
                Err(e) => return Err(e),
            }
        }
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// The whole reserved stretch. Only octets inside the file may be read.
    pub fn octets(&self) -> &[u8] {
        &self.map
    }

    /// Whether every page of the range is in memory, or was a moment ago.
    pub fn is_resident(&self, at: usize, len: usize) -> bool {
        let last = at + len.max(1) - 1;
        let mut stretches = at / STRETCH..=last / STRETCH;
        len <= STRETCH && stretches.all(|stretch| self.is_stretch_resident(stretch))
            || self.are_resident(at, len)
    }

    fn is_stretch_resident(&self, stretch: usize) -> bool {
        let (slot, name) = (&self.resident[stretch % STRETCHES_REMEMBERED], (stretch as u64 + 1) << 40);
        let now = self.begun.elapsed().as_millis() as u64;
        let seen = slot.load(Ordering::Relaxed);
        if seen >> 40 << 40 == name && now.saturating_sub(seen ^ name) < RESIDENT_FOR.as_millis() as u64 {
            return true;
        }
        let is_resident = self.are_resident(stretch * STRETCH, STRETCH);
        if is_resident {
            slot.store(name | now, Ordering::Relaxed);
        }
        is_resident
    }

    fn are_resident(&self, at: usize, len: usize) -> bool {
        const PAGES_A_CALL: usize = 512;
        let end = at + len;
        let mut from = at - at % PAGE;
        while from < end {
            let mut pages = [0u8; PAGES_A_CALL];
            let count = (end - from).div_ceil(PAGE).min(PAGES_A_CALL);
            // SAFETY: `from` is a multiple of the page size inside the mapping (which begins at a page), and
            // `pages` has a place for each of the `count` pages asked for.
            let result = unsafe {
                libc::mincore(self.map.as_ptr().add(from) as *mut _, count * PAGE, pages.as_mut_ptr())
            };
            if result != 0 || pages[..count].iter().any(|page| page & 1 == 0) {
                return false;
            }
            from += count * PAGE;
        }
        true
    }

    /// Brings the range into memory; an unreadable medium is an error.
    pub fn fetch(&self, at: usize, len: usize) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match self.map.advise_range(Advice::PopulateRead, at, len) {
            Ok(()) => Ok(()),
            // Linux before 5.14 does not know the advice: touch each page instead.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                let touched = self.map[at..at + len].iter().step_by(PAGE).fold(0u8, |sum, octet| sum ^ octet);
                std::hint::black_box(touched);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_question_and_what_is_not_in_the_file_is_not_in_memory() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        std::fs::write(&path, vec![1; 2 * STRETCH + PAGE]).unwrap();
        let mapping = Mapping::new(&File::options().read(true).write(true).open(&path).unwrap()).unwrap();
        mapping.fetch(0, 2 * STRETCH + PAGE).unwrap();
        assert!(mapping.is_resident(STRETCH - 1, 2) && mapping.is_resident(7, 2 * STRETCH));
        let asked = mapping.resident.iter().filter(|slot| slot.load(Ordering::Relaxed) != 0).count();
        assert_eq!(asked, 2, "each stretch once, and none for a long text");
        // The last stretch is not whole.
        assert!(mapping.is_resident(2 * STRETCH, PAGE) && !mapping.is_resident(2 * STRETCH + PAGE, 1));
    }
}
