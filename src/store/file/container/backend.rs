//! redb's linear space: where its octets lie in the file, and what redb's sync makes durable.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Container, sums};
use crate::store::file::damaged_page::damaged_page;
use crate::store::file::format::{
    EXTENT, Extent, INDEX_EXTENT, INDEX_PAGE_0, INDEX_PAGE_0_OCTETS, MAP_EXTENTS_MAX, PAGE, SLOTS,
};

/// File offset of the octet at `inner` in an index extent.
fn index_at(extent: Extent, inner: u64) -> u64 {
    extent.at() + PAGE + inner
}

/// The container as redb sees it. It never calls redb, and redb's readers call it as well as its writer.
#[derive(Debug)]
pub struct IndexBackend(pub Arc<Container>);

impl redb::StorageBackend for IndexBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().block.index_len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.noting_failure(|| self.0.set_index_len(len))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.admit_reader()?;
        self.0.noting_failure(|| self.0.read_index(offset, out))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.noting_failure(|| self.0.write_index(offset, data))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.noting_failure(|| self.0.sync_index())
    }
}

impl Container {
    pub(super) fn noting_failure<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.is_given_up() {
            return Err(io::Error::other("the index was given up after a panic"));
        }
        let outcome = work();
        if outcome.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        outcome
    }

    fn set_index_len(&self, len: u64) -> io::Result<()> {
        let mut space = self.lock();
        if len < space.block.index_len {
            let keep = len.div_ceil(INDEX_EXTENT) as usize;
            space.sums.truncate(keep);
            while space.block.map.len() > keep {
                let extent = space.block.map.pop().flatten();
                space.dropped.extend(extent);
            }
            // Space that grows again must read as zeros past the old end.
            let tail = len % INDEX_EXTENT;
            if let Some(&Some(place)) = space.block.map.get(keep.wrapping_sub(1))
                && tail != 0
            {
                // Keep it allocated: a checkpoint will write here again, and the disk may be full by then.
                self.disk.reserve_zeroed(index_at(place, tail), INDEX_EXTENT - tail)?;
                space.sums.forget(&*self.disk, keep - 1, place, tail)?;
            }
        } else if len.div_ceil(INDEX_EXTENT) as usize > MAP_EXTENTS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the index has reached its greatest size",
            ));
        }
        // Growing allocates nothing: an extent is taken when it is first written to.
        space.block.index_len = len;
        space.changes += 1;
        Ok(())
    }

    /// Length of redb's space.
    pub fn index_len(&self) -> u64 {
        self.lock().block.index_len
    }

    /// Reads octets of redb's space; fails on a damaged page.
    pub fn read_index(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset < INDEX_PAGE_0_OCTETS {
            assert!(offset + out.len() as u64 <= INDEX_PAGE_0_OCTETS, "redb's header is its page 0");
            return self.disk.read_at(INDEX_PAGE_0 + offset, out);
        }
        let _unmoved = self.moving.read();
        for piece in pieces(offset, out.len()) {
            let (place, sums) = {
                let mut space = self.lock();
                if offset + out.len() as u64 > space.block.index_len {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                match space.block.map.get(piece.index) {
                    None | Some(None) => {
                        out[piece.range].fill(0);
                        continue;
                    }
                    Some(&Some(place)) => (place, space.sums.of(&*self.disk, piece.index, place)?),
                }
            };
            let part = &mut out[piece.range];
            self.disk.read_without_ahead_at(index_at(place, piece.inner), part)?;
            if let Some(page) = sums::first_damaged(&sums, piece.index, piece.inner, part) {
                return Err(damaged_page(piece.index as u64 * INDEX_EXTENT + page as u64 * PAGE));
            }
        }
        Ok(())
    }

    fn write_index(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset < INDEX_PAGE_0_OCTETS {
            assert!(offset + data.len() as u64 <= INDEX_PAGE_0_OCTETS, "redb's header is its page 0");
            return self.disk.write_at(INDEX_PAGE_0 + offset, data);
        }
        let _unmoved = self.moving.read();
        self.index_octets_written.fetch_add(data.len() as u64, Ordering::Relaxed);
        for piece in pieces(offset, data.len()) {
            let place = self.back_index_extent(piece.index)?;
            let part = &data[piece.range];
            self.lock().sums.note(&*self.disk, piece.index, place, piece.inner, part)?;
            self.disk.write_at(index_at(place, piece.inner), part)?;
        }
        Ok(())
    }

    pub(super) fn sync_index(&self) -> io::Result<()> {
        let (changes, dropped) = {
            let mut space = self.lock();
            let space = &mut *space;
            space.sums.write_changed(&*self.disk, &space.block.map)?;
            let is_changed = space.changes != space.durable_changes;
            if let Some((slot, block)) = &space.unsure {
                self.disk.write_at(*slot, block)?;
                // The next superblock overwrites the other slot, which may hold the only durable one.
                if is_changed {
                    self.disk.sync().inspect_err(|_| self.sync_failed.store(true, Ordering::Release))?;
                }
            }
            if is_changed {
                space.block.sequence += 1;
                let slot = SLOTS[(space.block.sequence % 2) as usize];
                self.disk.write_at(slot, &space.block.encode()?)?;
            }
            (space.changes, space.dropped.len())
        };
        let synced = self.disk.sync();
        self.sync_failed.fetch_or(synced.is_err(), Ordering::AcqRel);
        synced?;
        let mut space = self.lock();
        space.unsure = None;
        space.durable_changes = space.durable_changes.max(changes);
        let freed: Vec<Extent> = space.dropped.drain(..dropped).collect();
        for extent in &freed {
            self.punch(extent.at(), EXTENT);
        }
        space.pool.extend(freed);
        Ok(())
    }

    /// The extent behind redb's extent `index`. If there is none yet, takes one that reads as zeros.
    fn back_index_extent(&self, index: usize) -> io::Result<Extent> {
        let mut space = self.lock();
        if space.block.map.len() <= index {
            space.block.map.resize(index + 1, None);
        }
        if let Some(extent) = space.block.map[index] {
            return Ok(extent);
        }
        if space.reserve.is_empty() {
            self.add_to_reserve(&mut space)?;
        }
        let extent = space.reserve.pop().expect("it was just added to");
        space.block.map[index] = Some(extent);
        space.changes += 1;
        Ok(extent)
    }
}

/// The part of a range of redb's space that lies in one extent.
struct Piece {
    index: usize,
    inner: u64,
    range: std::ops::Range<usize>,
}

fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let inner = at % INDEX_EXTENT;
        let count = ((INDEX_EXTENT - inner) as usize).min(len - done);
        let range = done..done + count;
        done += count;
        Some(Piece { index: (at / INDEX_EXTENT) as usize, inner, range })
    })
}
