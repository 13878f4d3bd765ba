//! A read-only view of a data file: writes go to memory.
//!
//! redb writes to a file when it opens and closes it, but `check` must leave the file as it was and may not
//! even be allowed to write it. redb's writes are few: its header, and its free lists if it has to rebuild
//! them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, MutexGuard};

use super::disk::{Disk, DiskUsage, Identity, View};
use crate::lock::Mutex;

const PAGE: usize = 4096;
/// Most pages kept in memory: 256 MiB. A sound file needs a hundredth of that.
const PAGES_MAX: usize = 64 << 10;

#[derive(Debug)]
pub struct Overlay {
    disk: Arc<dyn Disk>,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    len: u64,
}

impl Overlay {
    pub fn new(disk: Arc<dyn Disk>) -> io::Result<Self> {
        let len = disk.len()?;
        Ok(Self { disk, written: Mutex::new(Written { pages: BTreeMap::new(), len }) })
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock()
    }

    /// Reads the file underneath; zeros past its end.
    fn read_below(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let inside = self.disk.len()?.saturating_sub(at).min(out.len() as u64) as usize;
        self.disk.read_at(at, &mut out[..inside])?;
        out[inside..].fill(0);
        Ok(())
    }

    /// Changes the pages of a range in memory.
    fn change(&self, at: u64, len: usize, mut put: impl FnMut(usize, &mut [u8])) -> io::Result<()> {
        let mut written = self.lock();
        let mut done = 0;
        while done < len {
            let from = at + done as u64;
            let inner = from as usize % PAGE;
            let count = (PAGE - inner).min(len - done);
            let number = from / PAGE as u64;
            if !written.pages.contains_key(&number) {
                if written.pages.len() == PAGES_MAX {
                    return Err(io::Error::other("the file is too damaged to be checked in memory"));
                }
                let mut page = Box::new([0; PAGE]);
                self.read_below(number * PAGE as u64, &mut page[..])?;
                written.pages.insert(number, page);
            }
            let page = written.pages.get_mut(&number).expect("it was just put there");
            put(done, &mut page[inner..inner + count]);
            done += count;
        }
        written.len = written.len.max(at + len as u64);
        Ok(())
    }
}

impl Disk for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.lock().len = len;
        Ok(())
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        // Several threads read at once, so don't hold the lock during disk reads.
        let (end, pages) = {
            let written = self.lock();
            let end = at.checked_add(out.len() as u64).filter(|end| *end <= written.len);
            let Some(end) = end else { return Err(io::ErrorKind::UnexpectedEof.into()) };
            let pages = written.pages.range(at / PAGE as u64..end.div_ceil(PAGE as u64));
            (end, pages.map(|(number, page)| (*number, page.clone())).collect::<Vec<_>>())
        };
        self.read_below(at, out)?;
        for (number, page) in pages {
            let begin = number * PAGE as u64;
            let (from, to) = (begin.max(at), (begin + PAGE as u64).min(end));
            out[(from - at) as usize..(to - at) as usize]
                .copy_from_slice(&page[(from - begin) as usize..(to - begin) as usize]);
        }
        Ok(())
    }

    fn will_read(&self, at: u64, len: u64) {
        self.disk.will_read(at, len);
    }

    fn write_at(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        self.change(at, octets.len(), |done, part| part.copy_from_slice(&octets[done..done + part.len()]))
    }

    fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        self.change(at, len as usize, |_, part| part.fill(0))
    }

    fn reserve_zeroed(&self, at: u64, len: u64) -> io::Result<()> {
        self.punch(at, len)
    }

    fn write_durable(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        self.write_at(at, octets)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// Texts are never written, so view them in the file.
    fn view(&self, at: u64, len: usize) -> io::Result<View> {
        self.disk.view(at, len)
    }

    fn usage(&self) -> io::Result<DiskUsage> {
        self.disk.usage()
    }

    #[cfg(test)]
    fn mutant(&self) -> super::simulated::Mutant {
        self.disk.mutant()
    }

    fn identity(&self) -> io::Result<Identity> {
        self.disk.identity()
    }
}
