//! The data file mapped for reading. The only file of the project with `unsafe` in it.
//!
//! We reserve far more address space than the file needs, once, so that the file can grow without being mapped
//! again: new pages show through. Reading past the end of the file raises SIGBUS, so views are made only by
//! `DataFile::view`, which checks the bounds.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use memmap2::{Advice, Mmap, MmapOptions};

use crate::lock::Mutex;

/// Reserved address space: 1 TiB, which is also the greatest length of a data file. Less if RLIMIT_AS demands
/// it.
const RESERVE_OCTETS: usize = 1 << 40;
const RESERVE_OCTETS_LEAST: usize = 1 << 32;
const PAGE: usize = 4096;
/// Unit in which we ask the kernel what is resident, so that neighbouring short texts share one call: a page a bit.
const STRETCH: usize = PAGES * PAGE;
const PAGES: usize = 64;
/// How long a page seen in memory is assumed to stay there. If the kernel drops it sooner, whoever copies the octets,
/// TLS for instance, reads it from the disk again: the sessions wait for that, the text is not verified again, and on
/// a failing disk the read raises SIGBUS, which ends the service.
const RESIDENT_FOR: Duration = Duration::from_millis(100);
const STRETCHES_REMEMBERED: usize = 1024;

#[derive(Debug)]
pub struct Mapping {
    map: Mmap,
    /// By number of the stretch, modulo their count.
    resident: Box<[Mutex<Option<Seen>>]>,
}

/// What the kernel last said about a stretch.
#[derive(Clone, Copy, Debug)]
struct Seen {
    stretch: usize,
    when: Instant,
    /// Pages in memory, a bit each.
    pages: u64,
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
                    let resident = (0..STRETCHES_REMEMBERED).map(|_| Mutex::default()).collect();
                    return Ok(Self { map, resident });
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
        let (first, end) = (at / PAGE, (at + len).div_ceil(PAGE));
        let is_stretch_there = |stretch: usize| {
            let (from, to) = (first.max(stretch * PAGES), end.min((stretch + 1) * PAGES));
            let wanted = u64::MAX >> (PAGES - (to - from)) << (from % PAGES);
            let are_there = |seen: u64| seen & wanted == wanted;
            self.remembered(stretch).is_some_and(are_there) || are_there(self.ask(stretch))
        };
        len == 0 || (first / PAGES..end.div_ceil(PAGES)).all(is_stretch_there)
    }

    fn remembered(&self, stretch: usize) -> Option<u64> {
        let seen = *self.slot(stretch).lock();
        seen.filter(|seen| seen.stretch == stretch && seen.when.elapsed() < RESIDENT_FOR)
            .map(|seen| seen.pages)
    }

    /// Which pages of a stretch are in memory, a bit each; none if the kernel does not say.
    fn ask(&self, stretch: usize) -> u64 {
        let mut resident = [0u8; PAGES];
        let when = Instant::now();
        // SAFETY: a stretch begins at a page inside the mapping (whose end is the end of a stretch), and `resident` has
        // room for its pages.
        let result = unsafe {
            let at = self.map.as_ptr().add(stretch * STRETCH);
            libc::mincore(at as *mut _, STRETCH, resident.as_mut_ptr())
        };
        let bit = |(page, number): (&u8, usize)| u64::from(page & 1) << number;
        let pages = if result == 0 { resident.iter().zip(0..).map(bit).sum() } else { 0 };
        *self.slot(stretch).lock() = Some(Seen { stretch, when, pages });
        pages
    }

    fn slot(&self, stretch: usize) -> &Mutex<Option<Seen>> {
        &self.resident[stretch % STRETCHES_REMEMBERED]
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
        // The last stretch is incomplete, and its first page answers for itself.
        assert!(mapping.is_resident(2 * STRETCH, PAGE) && !mapping.is_resident(2 * STRETCH + PAGE, 1));
        assert_eq!(mapping.ask(2), 1);
        assert!(mapping.is_resident(2 * STRETCH + PAGE, 0));
        assert!(!mapping.is_resident(2 * STRETCH - 1, PAGE + 2));
        let asked = mapping.resident.iter().filter(|slot| slot.lock().is_some());
        assert_eq!(asked.count(), 3);
    }

    #[test]
    fn what_was_seen_of_a_stretch_is_taken_for_no_other_and_not_for_long() {
        let scratch = scratch::directory();
        let path = scratch.path().join("file");
        std::fs::write(&path, vec![1; STRETCH]).unwrap();
        let mapping = Mapping::new(&File::options().read(true).write(true).open(&path).unwrap()).unwrap();
        mapping.fetch(0, STRETCH).unwrap();
        assert_eq!(mapping.ask(0), u64::MAX);
        assert!(mapping.remembered(STRETCHES_REMEMBERED).is_none() && mapping.remembered(1).is_none());
        mapping.slot(0).lock().as_mut().unwrap().when -= 2 * RESIDENT_FOR;
        assert!(mapping.remembered(0).is_none());
    }
}
