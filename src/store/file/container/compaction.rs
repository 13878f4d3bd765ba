//! Shortens the file: moves index extents to the front and cuts off the end.

use std::cmp::Reverse;
use std::io;

use super::Container;
use crate::store::file::format::{EXTENT, Extent};

/// Extents moved at a time; readers of the index wait meanwhile.
const MOVED_AT_ONCE: usize = 8;

impl Container {
    /// Adds extents that are free and in no checkpoint any more.
    pub fn add_free_extents(&self, extents: Vec<Extent>) {
        let mut space = self.lock();
        for extent in extents {
            self.punch(extent.at(), EXTENT);
            space.pool.push(extent);
        }
        space.pool.sort_unstable_by_key(|extent| Reverse(*extent));
    }

    pub fn free_extents(&self) -> Vec<Extent> {
        self.lock().pool.clone()
    }

    /// Frees the reserve. It must be refilled before the next change.
    pub fn give_up_reserve(&self) {
        let reserve = std::mem::take(&mut self.lock().reserve);
        self.add_free_extents(reserve);
    }

    /// Moves a few of the last index extents into free ones before them. Returns the octets moved, 0 if nothing is left
    /// to move. Call it after a checkpoint, when redb has nothing to write.
    pub fn move_index_forward(&self) -> io::Result<u64> {
        let _nobody_else = self.moving.write();
        let moved = {
            let mut space = self.lock();
            let mut placed: Vec<(Extent, usize)> =
                space.block.map.iter().enumerate().filter_map(|(i, place)| Some(((*place)?, i))).collect();
            placed.sort_unstable_by_key(|(place, _)| Reverse(*place));
            let mut moved = Vec::new();
            for (from, index) in placed.into_iter().take(MOVED_AT_ONCE) {
                let Some(to) = space.pool.pop_if(|to| *to < from) else { break };
                moved.push((index, from, to));
            }
            moved
        };
        if moved.is_empty() {
            return Ok(0);
        }
        let moved_octets = moved.len() as u64 * EXTENT;
        let copied = moved.iter().try_for_each(|(_, from, to)| {
            let mut octets = vec![0; EXTENT as usize];
            self.disk.read_at(from.at(), &mut octets)?;
            self.disk.write_at(to.at(), &octets)
        });
        // A superblock naming the new places must not reach the disk before their contents.
        if let Err(e) = copied.and_then(|()| self.disk.sync()) {
            self.add_free_extents(moved.iter().map(|(_, _, to)| *to).collect());
            return Err(e);
        }
        {
            let mut space = self.lock();
            for (index, from, to) in moved {
                space.block.map[index] = Some(to);
                space.dropped.push(from);
            }
            space.changes += 1;
        }
        self.noting_failure(|| self.sync_index())?;
        self.lock().pool.sort_unstable_by_key(|extent| Reverse(*extent));
        Ok(moved_octets)
    }

    /// Cuts off free extents at the end of the file. Failing to is no fault.
    pub fn cut_end(&self) {
        let mut space = self.lock();
        let space = &mut *space;
        space.pool.sort_unstable_by_key(|extent| Reverse(*extent));
        let is_last = |end: Extent, extent: &Extent| extent.plus(1) == end;
        let at_end =
            space.pool.iter().zip(0..).take_while(|(extent, nth)| is_last(Extent(space.end.0 - nth), extent));
        let count = at_end.count();
        space.pool.drain(..count);
        space.end = Extent(space.end.0 - count as u32);
        let len = space.end.at() + self.ahead_of(space.end);
        if len < space.len {
            // The next compaction tries again.
            if self.disk.set_len(len).is_ok() {
                space.len = len;
            }
        }
    }
}
