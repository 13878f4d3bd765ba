//! The data file mapped for reading. The only file of the project with `unsafe` in it.
//!
//! We reserve far more address space than the file needs, once, so that the file can grow without being mapped
//! again: new pages show through. Reading past the end of the file raises SIGBUS, so views are made only by
//! `DataFile::view`, which checks the bounds.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::{Advice, Mmap, MmapOptions};

/// Reserved address space: 1 TiB, which is also the greatest length of a data file. Less if RLIMIT_AS demands
/// it.
const RESERVE_OCTETS: usize = 1 << 40;
const RESERVE_OCTETS_LEAST: usize = 1 << 32;
const PAGE: usize = 4096;
/// Unit in which we ask the kernel what is resident, so that neighbouring short texts share one call.
const STRETCH: usize = 64 * PAGE;
/// How long a stretch seen in memory is assumed to stay there. If it does not, one session's thread waits for
/// the disk; no worse.
const RESIDENT_FOR: Duration = Duration::from_millis(100);
const STRETCHES_REMEMBERED: usize = 1024;

#[derive(Debug)]
pub struct Mapping {
    map: Mmap,
    begun: Instant,
    /// Stretches seen wholly in memory: number plus one in the upper 24 bits, milliseconds since `begun` in the
    /// lower 40. Zero is an empty slot.
    resident: Box<[AtomicU64]>,
}

impl Mapping {
    pub fn new(file: &File) -> io::Result<Self> {
        let mut len = RESERVE_OCTETS;
        loop {
            // SAFETY: the memory must not change under a `&[u8]` into it. The file is locked against other
            // processes that respect locks, and this one writes only where no view exists: blob space is reused
            // when no pin is left (`space.rs`), and the index is never viewed.
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

    /// The whole reservation. Only octets inside the file may be read.
    pub fn octets(&self) -> &[u8] {
        &self.map
    }

    /// True if every page of the range is in memory, or was a moment ago.
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
            // SAFETY: `from` is a multiple of the page size inside the mapping (which starts at a page), and
            // `pages` has room for the `count` pages asked about.
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

    /// Reads the range into memory; a medium error is returned.
    pub fn fetch(&self, at: usize, len: usize) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match self.map.advise_range(Advice::PopulateRead, at, len) {
            Ok(()) => Ok(()),
            // Linux before 5.14 does not know this advice: touch every page instead.
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
    use crate::tests::scratch;

    #[test]
    fn neighbours_share_a_question_and_nothing_past_the_file_is_resident() {
        let scratch = scratch::directory();
        let path = scratch.path().join("file");
        std::fs::write(&path, vec![1; 2 * STRETCH + PAGE]).unwrap();
        let mapping = Mapping::new(&File::options().read(true).write(true).open(&path).unwrap()).unwrap();
        mapping.fetch(0, 2 * STRETCH + PAGE).unwrap();
        assert!(mapping.is_resident(STRETCH - 1, 2) && mapping.is_resident(7, 2 * STRETCH));
        let asked = mapping.resident.iter().filter(|slot| slot.load(Ordering::Relaxed) != 0).count();
        assert_eq!(asked, 2, "each stretch once, and none for a long text");
        // The last stretch is incomplete.
        assert!(mapping.is_resident(2 * STRETCH, PAGE) && !mapping.is_resident(2 * STRETCH + PAGE, 1));
    }
}
