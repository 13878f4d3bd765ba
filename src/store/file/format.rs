//! The map of the data file: every offset, length and magic number, and nothing else.
//!
//! ```text
//!      0   header: magic, format version, extent size, blake3; written last when the file is made
//!  32 KiB  the header again: a store that lost its first octets must not look like one never made
//!  64 KiB  log zone, up to 64 MiB of it in use
//! then
//!   0      redb's page 0 (its header; redb writes it in place, 320 octets, switching between two commit slots)
//!  64 KiB  superblock slot 0: which extents hold the index, and which file this is
//! 512 KiB  superblock slot 1
//!   1 MiB  extents of 1 MiB: index (listed in the superblock), blobs (listed in a redb table) or free
//! ```
//!
//! The order suits a copy made front to back while the file is in use. The copy's log is older than its redb header, so
//! whatever was logged before the copy began is in the index that header leads to, or in that index's own log. The map
//! is never older than the header it must serve. And whatever the header leads to is preserved for as long as a copy
//! may take (`open/window.rs`).
//!
//! | part | octets |
//! | --- | --- |
//! | header | magic (16), version (4), extent size (4), zeros (8), blake3 of these (32) |
//! | superblock | magic (4), entries (4), sequence (8), length of the index (8), inode (8), time of birth (8), entries of 4 each, blake3 of these (32) |
//! | extent of the index | a page of sums, 8 for each other page, then 255 pages of redb's space |
//! | extent of blobs | texts in wire form and free runs, both at multiples of 64 |
//! | record of the log | at a page: magic (4), length of the changes (4), epoch (16), number (8), blake3 of all else (32), changes |
//! | change, first octet 0 | a row was put: table (1), length of the key (4), key, length of the row (4), row |
//! | change, first octet 1 | a row was removed: table (1), length of the key (4), key |
//! | change, first octet 2 | a text was written: offset in the file (8), length (4), octets |
//!
//! Numbers are little-endian. The tables and their numbers: `index/tables.rs`. The rows: `index/rows.rs`.
//!
//! **Frozen since version 2.** A newer program opens every file of version 2 or later with everything in it.
//! `tests/golden.rs` checks that against the octets of every row and a file made by version 2. So:
//!
//! - Nothing here moves, and no row type changes in place: it gets a new version next to the old one
//!   (`index/rows.rs`), and both keep their line in `testdata/store/rows.txt`.
//! - A new table gets a new number, and files that lack it get it when they are opened. Numbers 30 (mail queued for
//!   relay) and 31 (aliases) are reserved.
//! - A new table or row version increments [`VERSION`]. Before writing the first such row, the program writes the new
//!   version to both headers of an older file, so that an older program refuses to open it.

use std::ops::Range;

/// The version of the whole format: header, superblock, log, tables, rows.
pub const VERSION: u32 = 2;
/// The oldest version this program opens. Version 1 was never released.
pub const VERSION_FIRST: u32 = 2;

/// The unit of checksums and of space handed out in whole pages.
pub const PAGE: u64 = 4 << 10;
pub const EXTENT: u64 = 1 << 20;
pub const HASH_OCTETS: usize = 32;

pub const HEADER_OCTETS: usize = 64;
pub const HEADERS: [u64; 2] = [0, 32 << 10];
pub const HEADER_MAGIC: &[u8; 16] = b"pop3svc winpop\x1a\n";
/// Takes the place of the header until the file is complete.
pub const UNFINISHED_MAGIC: &[u8; 16] = b"pop3svc begun\x1a\r\n";

pub const INDEX_PAGE_0: u64 = LOG_AT + LOG_OCTETS_MAX;
pub const INDEX_PAGE_0_OCTETS: u64 = 4 << 10;

/// Offsets of the two superblock slots.
pub const SLOTS: [u64; 2] = [INDEX_PAGE_0 + (64 << 10), INDEX_PAGE_0 + (512 << 10)];
const SLOT_OCTETS: usize = 448 << 10;
/// The range in which superblocks are written.
#[cfg(test)]
pub const SUPERBLOCKS: Range<u64> = SLOTS[0]..EXTENTS_AT;
pub const SUPERBLOCK_MAGIC: &[u8; 4] = b"SBLK";
pub const SUPERBLOCK_HEAD: usize = 40;
/// Most extents redb's space can have: what fits into a slot, 112 GiB.
pub const MAP_EXTENTS_MAX: usize = (SLOT_OCTETS - SUPERBLOCK_HEAD - HASH_OCTETS) / 4;

pub const LOG_AT: u64 = 64 << 10;
/// The log zone. In a new file only its front is written; the rest is a hole.
pub const LOG_OCTETS_MAX: u64 = 64 << 20;
pub const RECORD_MAGIC: &[u8; 4] = b"LREC";
pub const RECORD_HEAD: usize = 64;
/// Position of a record's hash in its head.
pub const RECORD_HASH: Range<usize> = 32..64;
pub const CHANGE_PUT: u8 = 0;
pub const CHANGE_REMOVED: u8 = 1;
pub const CHANGE_TEXT: u8 = 2;

const EXTENTS_AT: u64 = INDEX_PAGE_0 + (1 << 20);
/// The file is kept longer than its used part, by an eighth of it within these bounds. A program that asks for
/// the length first and copies that much still gets everything the front of its copy refers to.
pub const AHEAD_MIN: u64 = 32 << 20;
pub const AHEAD_MAX: u64 = 256 << 20;
/// Pages in an index extent that hold redb's octets; the page before them holds their sums.
pub const INDEX_PAGES: usize = 255;
/// Octets of redb's space in one index extent: all but the page of sums.
pub const INDEX_EXTENT: u64 = INDEX_PAGES as u64 * PAGE;
/// Texts and free runs start at multiples of this.
pub const BLOB_ALIGN: u64 = 64;

/// An extent of the file, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent(pub u32);

impl Extent {
    pub const FIRST: Self = Self(0);

    /// Its offset in the file.
    pub const fn at(self) -> u64 {
        EXTENTS_AT + self.0 as u64 * EXTENT
    }

    /// The extent `count` further on.
    pub const fn plus(self, count: u32) -> Self {
        Self(self.0 + count)
    }

    /// `count` extents, starting with this one.
    pub fn row(self, count: u32) -> impl Iterator<Item = Self> {
        (self.0..self.0 + count).map(Self)
    }

    /// The extent containing this offset; `None` before the first extent and past the last possible one.
    pub fn holding(at: u64) -> Option<Self> {
        u32::try_from(at.checked_sub(EXTENTS_AT)? / EXTENT).ok().map(Self)
    }
}

const _: () = assert!(PAGE + INDEX_EXTENT == EXTENT && 8 * INDEX_PAGES <= PAGE as usize);
const _: () =
    assert!(SLOTS[0] + SLOT_OCTETS as u64 <= SLOTS[1] && SLOTS[1] + SLOT_OCTETS as u64 <= EXTENTS_AT);
