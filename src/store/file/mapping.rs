//! The data file in memory, for reading. The only file of the project with `unsafe` in it.
//!
//! A stretch of address space far longer than the file is reserved once, so that the file can grow without being
//! mapped again: pages show through as it grows. Reading past the end of the file raises SIGBUS, so a view is
//! made only by `DataFile::view`, which checks the bounds.

use memmap2::{Advice, Mmap, MmapOptions};
use std::fs::File;
use std::io;

/// Address space to reserve: 1 TiB, and with it the greatest length of a data file. Less is taken where a
/// limit on address space (RLIMIT_AS) stands in the way.
const RESERVE_OCTETS: usize = 1 << 40;
const RESERVE_OCTETS_LEAST: usize = 1 << 32;
const PAGE: usize = 4096;

#[derive(Debug)]
pub struct Mapping(Mmap);

impl Mapping {
    pub fn new(file: &File) -> io::Result<Self> {
        let mut len = RESERVE_OCTETS;
        loop {
            // SAFETY: the memory must not change under a `&[u8]` into it. The file is locked against other
            // processes that keep to the lock, and this process writes only where no view exists: blob space
            // is reused when no pin remains (`space.rs`), and no view is ever made of the index.
            match unsafe { MmapOptions::new().len(len).map(file) } {
                Ok(map) => return Ok(Self(map)),
                Err(_) if len > RESERVE_OCTETS_LEAST => len /= 4,
                Err(e) => return Err(e),
            }
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The whole reserved stretch. Only octets inside the file may be read.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Whether every page of the range is in memory.
    pub fn is_resident(&self, at: usize, len: usize) -> bool {
        const PAGES_A_CALL: usize = 512;
        let end = at + len;
        let mut from = at - at % PAGE;
        while from < end {
            let mut pages = [0u8; PAGES_A_CALL];
            let count = (end - from).div_ceil(PAGE).min(PAGES_A_CALL);
            // SAFETY: `from` is a multiple of the page size inside the mapping (which begins at a page), and
            // `pages` has a place for each of the `count` pages asked for.
            let result = unsafe {
                libc::mincore(self.0.as_ptr().add(from) as *mut _, count * PAGE, pages.as_mut_ptr())
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
        match self.0.advise_range(Advice::PopulateRead, at, len) {
            Ok(()) => Ok(()),
            // Linux before 5.14 does not know the advice: touch each page instead.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                let touched = self.0[at..at + len].iter().step_by(PAGE).fold(0u8, |sum, octet| sum ^ octet);
                std::hint::black_box(touched);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }
}
