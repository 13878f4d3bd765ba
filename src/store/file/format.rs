//! The map of the data file: every place, length and magic of it, and nothing else.
//!
//! ```text
//!      0   header: magic, format version, extent size, blake3; written last when the file is made
//!  32 KiB  the header again: a store whose first octets are lost must not be taken for one never made
//!  64 KiB  log zone, up to 64 MiB of it in use
//! then
//!   0      redb's page 0 (its header; redb writes it in place, 320 octets, switching between two commit slots)
//!  64 KiB  superblock slot 0: which extents are the index's, and which file this is
//! 512 KiB  superblock slot 1
//!   1 MiB  extents of 1 MiB: each is redb's (listed in the superblock), blobs' (listed in a table of redb), or free
//! ```
//!
//! The order is that of a copy made front to back while the file is in use. Its log is older than its redb header, so
//! what the log had before the copy began is either in the index that the header leads to, or in that index's own log;
//! the map is not older than the header that it has to serve; and what the header leads to is kept as it is for the
//! time that a copy may take (`open/window.rs`).
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
//! **Frozen from version 2 on.** A newer program opens every file of version 2 and later, and has all that is in it;
//! `tests/golden.rs` holds that, with the octets of every row and a file as it was made by version 2. So:
//!
//! - Nothing here moves, and no row changes in place. A row type gets a new version beside the old one
//!   (`index/rows.rs`), and both have their line in `testdata/store/rows.txt`.
//! - A table that is new gets a number of its own; a file that lacks it gets it when it is opened. Numbers 30 (mail
//!   that is to be sent on) and 31 (aliases) are kept for what is planned.
//! - Whoever adds a table, or a version of a row, counts [`VERSION`] up, and has it written into both headers of an
//!   older file before the first such row: an older program must not open it any more.

use std::ops::Range;

/// The version of all of it: header, superblock, log, tables, rows.
pub const VERSION: u32 = 2;
/// The oldest one that is opened: the one before it was never released.
pub const VERSION_FIRST: u32 = 2;

/// The unit of everything that has sums or is given out in whole.
pub const PAGE: u64 = 4 << 10;
pub const EXTENT: u64 = 1 << 20;
pub const HASH_OCTETS: usize = 32;

pub const HEADER_OCTETS: usize = 64;
pub const HEADERS: [u64; 2] = [0, 32 << 10];
pub const HEADER_MAGIC: &[u8; 16] = b"pop3svc winpop\x1a\n";
/// Stands in the place of the first header until the file is whole.
pub const UNFINISHED_MAGIC: &[u8; 16] = b"pop3svc begun\x1a\r\n";

pub const INDEX_PAGE_0: u64 = LOG_AT + LOG_OCTETS_MAX;
pub const INDEX_PAGE_0_OCTETS: u64 = 4 << 10;

/// Where the superblocks lie.
pub const SLOTS: [u64; 2] = [INDEX_PAGE_0 + (64 << 10), INDEX_PAGE_0 + (512 << 10)];
const SLOT_OCTETS: usize = 448 << 10;
/// Where superblocks are written.
#[cfg(test)]
pub const SUPERBLOCKS: Range<u64> = SLOTS[0]..EXTENTS_AT;
pub const SUPERBLOCK_MAGIC: &[u8; 4] = b"SBLK";
pub const SUPERBLOCK_HEAD: usize = 40;
/// How many extents redb's space can have: what fits into a slot, 112 GiB.
pub const MAP_EXTENTS_MAX: usize = (SLOT_OCTETS - SUPERBLOCK_HEAD - HASH_OCTETS) / 4;

pub const LOG_AT: u64 = 64 << 10;
/// The log zone. Of a new file only the front is written, and the rest is a hole.
pub const LOG_OCTETS_MAX: u64 = 64 << 20;
pub const RECORD_MAGIC: &[u8; 4] = b"LREC";
pub const RECORD_HEAD: usize = 64;
/// Where a record's hash stands in its head.
pub const RECORD_HASH: Range<usize> = 32..64;
pub const CHANGE_PUT: u8 = 0;
pub const CHANGE_REMOVED: u8 = 1;
pub const CHANGE_TEXT: u8 = 2;

const EXTENTS_AT: u64 = INDEX_PAGE_0 + (1 << 20);
/// The file is at least so much longer than what is in use of it, and by an eighth of that up to the greatest: a
/// program that asks for the length first, and copies so much and no more, still gets all that the front of its copy
/// leads to.
pub const AHEAD_MIN: u64 = 32 << 20;
pub const AHEAD_MAX: u64 = 256 << 20;
/// Pages in an extent of the index that hold redb's octets; the page before them holds their sums.
pub const INDEX_PAGES: usize = 255;
/// What an extent of the index holds of redb's space: all but the page of sums.
pub const INDEX_EXTENT: u64 = INDEX_PAGES as u64 * PAGE;
/// Texts and free runs begin at multiples of this.
pub const BLOB_ALIGN: u64 = 64;

/// An extent of the file, by its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent(pub u32);

impl Extent {
    pub const FIRST: Self = Self(0);

    /// Where it begins in the file.
    pub const fn at(self) -> u64 {
        EXTENTS_AT + self.0 as u64 * EXTENT
    }

    /// The one so many further on.
    pub const fn plus(self, count: u32) -> Self {
        Self(self.0 + count)
    }

    /// So many, from this one on.
    pub fn row(self, count: u32) -> impl Iterator<Item = Self> {
        (self.0..self.0 + count).map(Self)
    }

    /// The one in which this octet of the file lies; none where no extent is.
    pub fn holding(at: u64) -> Option<Self> {
        u32::try_from(at.checked_sub(EXTENTS_AT)? / EXTENT).ok().map(Self)
    }
}

const _: () = assert!(PAGE + INDEX_EXTENT == EXTENT && 8 * INDEX_PAGES <= PAGE as usize);
const _: () =
    assert!(SLOTS[0] + SLOT_OCTETS as u64 <= SLOTS[1] && SLOTS[1] + SLOT_OCTETS as u64 <= EXTENTS_AT);
