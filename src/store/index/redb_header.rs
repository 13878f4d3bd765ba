//! redb's header (its docs/design.md, file format version 3): what is read of it, and changed in a copy's.
//!
//! Its first page holds what is fixed, an octet that says which of two commit slots counts, and these slots.

pub const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// The octets that redb writes.
pub const HEADER_OCTETS: usize = 320;
pub const GOD_BYTE: usize = 9;
pub const PRIMARY_BIT: u8 = 1;
/// The header was written by a service that was not closed, or is in use.
const RECOVERY_REQUIRED: u8 = 2;
pub const SLOTS: [usize; 2] = [64, 192];

const SLOT_OCTETS: usize = 128;
/// In a slot: whether there is a tree of redb's own tables, and where that tree begins (page, checksum, length).
const HAS_SYSTEM_ROOT: usize = 2;
const SYSTEM_ROOT: std::ops::Range<usize> = 40..72;
const CHECKSUM: usize = SLOT_OCTETS - 16;

/// Takes redb's own tables out of the slot that counts, which are lists of free pages and nothing else. redb uses their
/// pages again at once, so a copy made while the store was in use has them in no order. Without them redb compares
/// every page with its checksum when it is opened, and makes the lists anew. False where this is no header of redb's,
/// or its slot does not match its checksum; then nothing is changed.
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
