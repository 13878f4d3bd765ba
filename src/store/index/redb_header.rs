//! The parts of redb's header that we read, and change in copies (redb's docs/design.md, file format version
//! 3).
//!
//! The first page holds fixed values, a byte that selects one of two commit slots, and the slots.

pub const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Octets that redb writes.
pub const HEADER_OCTETS: usize = 320;
pub const GOD_BYTE: usize = 9;
pub const PRIMARY_BIT: u8 = 1;
/// Set while the file is in use, and left set by a process that did not close it.
const RECOVERY_REQUIRED: u8 = 2;
pub const SLOTS: [usize; 2] = [64, 192];

const SLOT_OCTETS: usize = 128;
/// Within a slot: whether redb has a tree of system tables, and its root (page, checksum, length).
const HAS_SYSTEM_ROOT: usize = 2;
const SYSTEM_ROOT: std::ops::Range<usize> = 40..72;
const CHECKSUM: usize = SLOT_OCTETS - 16;

/// Removes redb's system tables, which only list free pages, from the active slot. redb reuses their pages at
/// once, so in a copy of a live file they are inconsistent. Without them redb verifies every page when it opens
/// the file and rebuilds the lists. Returns false, changing nothing, if this is not a redb header or the slot
/// fails its checksum.
pub fn forget_free_lists(header: &mut [u8; HEADER_OCTETS]) -> bool {
    if !header.starts_with(MAGIC) {
        return false;
    }
    let at = SLOTS[usize::from(header[GOD_BYTE] & PRIMARY_BIT)];
    let slot = &mut header[at..at + SLOT_OCTETS];
    if slot[CHECKSUM..] != checksum(slot) {
        return false;
    }
    slot[HAS_SYSTEM_ROOT] = 0;
    slot[SYSTEM_ROOT].fill(0);
    let right = checksum(slot);
    slot[CHECKSUM..].copy_from_slice(&right);
    header[GOD_BYTE] |= RECOVERY_REQUIRED;
    true
}

fn checksum(slot: &[u8]) -> [u8; 16] {
    xxhash_rust::xxh3::xxh3_128(&slot[..CHECKSUM]).to_le_bytes()
}
