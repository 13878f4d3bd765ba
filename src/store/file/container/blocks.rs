//! Header and superblocks as octets, and how to tell them from anything else.

use std::io;

use crate::store::file::disk::{Disk, Identity};
use crate::store::file::format::{
    EXTENT, Extent, HASH_OCTETS, HEADER_MAGIC, HEADER_OCTETS, HEADERS, MAP_EXTENTS_MAX, SLOTS,
    SUPERBLOCK_HEAD, SUPERBLOCK_MAGIC, UNFINISHED_MAGIC, VERSION, VERSION_FIRST,
};

/// Why a file is not a container this program can open.
#[derive(Debug)]
pub enum ContainerError {
    /// No header: nothing was ever written, or creating the file was cut short.
    Unfinished,
    NotAStore,
    Newer {
        version: u32,
    },
    /// A version that was never released.
    Older {
        version: u32,
    },
    Damaged(&'static str),
    Io(io::Error),
}

impl From<io::Error> for ContainerError {
    fn from(e: io::Error) -> Self {
        ContainerError::Io(e)
    }
}

/// Where redb's space lies.
#[derive(Clone, Debug, Default)]
pub struct Superblock {
    pub sequence: u64,
    /// Exactly what redb last set; redb takes any other length for damage.
    pub index_len: u64,
    /// The file this superblock was written for. In a copy it names the original.
    pub identity: Identity,
    /// Place of redb's extent `i`. `None` was never written and reads as zeros. In the file, 0 is `None` and
    /// other entries are the extent number plus one.
    pub map: Vec<Option<Extent>>,
}

impl Superblock {
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        if self.map.len() > MAP_EXTENTS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the index has reached its greatest size",
            ));
        }
        let mut block = Vec::with_capacity(SUPERBLOCK_HEAD + self.map.len() * 4 + HASH_OCTETS);
        block.extend_from_slice(SUPERBLOCK_MAGIC);
        block.extend_from_slice(&(self.map.len() as u32).to_le_bytes());
        block.extend_from_slice(&self.sequence.to_le_bytes());
        block.extend_from_slice(&self.index_len.to_le_bytes());
        block.extend_from_slice(&self.identity.inode.to_le_bytes());
        block.extend_from_slice(&self.identity.birth.to_le_bytes());
        for place in &self.map {
            block.extend_from_slice(&place.map_or(0, |extent| extent.0 + 1).to_le_bytes());
        }
        let hash = blake3::hash(&block);
        block.extend_from_slice(hash.as_bytes());
        Ok(block)
    }
}

pub fn encode_header() -> [u8; HEADER_OCTETS] {
    let mut header = [0; HEADER_OCTETS];
    header[..16].copy_from_slice(HEADER_MAGIC);
    header[16..20].copy_from_slice(&VERSION.to_le_bytes());
    header[20..24].copy_from_slice(&(EXTENT as u32).to_le_bytes());
    let hash = blake3::hash(&header[..32]);
    header[32..].copy_from_slice(hash.as_bytes());
    header
}

pub fn unfinished_header() -> [u8; HEADER_OCTETS] {
    let mut header = [0; HEADER_OCTETS];
    header[..16].copy_from_slice(UNFINISHED_MAGIC);
    header
}

/// One good header of the two is enough.
pub fn find_header(disk: &dyn Disk, len: u64) -> Result<(), ContainerError> {
    let mut found = Err(ContainerError::Unfinished);
    let mut is_begun = len <= HEADER_OCTETS as u64;
    for at in HEADERS {
        let mut header = [0; HEADER_OCTETS];
        if len >= at + HEADER_OCTETS as u64 {
            disk.read_at(at, &mut header)?;
        }
        if header == unfinished_header() {
            is_begun = true;
            continue;
        }
        found = match (found, check_header(&header)) {
            // Even if the other header disagrees: a newer program may have begun to convert the file.
            (_, Err(newer @ ContainerError::Newer { .. })) => return Err(newer),
            (_, Ok(())) => return Ok(()),
            (Err(ContainerError::Unfinished), other) => other,
            // Only the first header can say that the file is something else.
            (first, _) => first,
        };
    }
    match found {
        // Zeros, as at the start of a disk image.
        Err(ContainerError::Unfinished) if !is_begun => Err(ContainerError::NotAStore),
        found => found,
    }
}

fn check_header(header: &[u8; HEADER_OCTETS]) -> Result<(), ContainerError> {
    if header.iter().all(|octet| *octet == 0) {
        return Err(ContainerError::Unfinished);
    }
    if header[..16] != *HEADER_MAGIC {
        return Err(ContainerError::NotAStore);
    }
    // Check the version first: a newer program may lay out the rest differently.
    let version = u32::from_le_bytes(header[16..20].try_into().expect("four octets"));
    if version > VERSION {
        return Err(ContainerError::Newer { version });
    }
    if version < VERSION_FIRST {
        return Err(ContainerError::Older { version });
    }
    if blake3::hash(&header[..32]).as_bytes() != &header[32..] {
        return Err(ContainerError::Damaged("its header does not match its checksum"));
    }
    Ok(())
}

/// The newer superblock, and whether the other one is lost.
pub fn newest_superblock(disk: &dyn Disk) -> Result<(Superblock, bool), ContainerError> {
    let mut newest: Option<Superblock> = None;
    let mut one_is_lost = false;
    for at in SLOTS {
        match read_superblock(disk, at)? {
            Some(space) if newest.as_ref().is_none_or(|best| space.sequence > best.sequence) => {
                newest = Some(space);
            }
            Some(_) => {}
            None => one_is_lost = true,
        }
    }
    match newest {
        Some(space) => Ok((space, one_is_lost)),
        None => Err(ContainerError::Damaged("neither of its superblocks matches its checksum")),
    }
}

/// Reads the superblock in a slot. `None` if its checksum does not match: a write was cut short, or it is
/// damaged. A finished store has written both.
fn read_superblock(disk: &dyn Disk, at: u64) -> Result<Option<Superblock>, ContainerError> {
    let mut head = [0; SUPERBLOCK_HEAD];
    disk.read_at(at, &mut head)?;
    let count = u32::from_le_bytes(head[4..8].try_into().expect("four octets")) as usize;
    if head[..4] != *SUPERBLOCK_MAGIC || count > MAP_EXTENTS_MAX {
        return Ok(None);
    }
    let body = SUPERBLOCK_HEAD + count * 4;
    let mut block = vec![0; body + HASH_OCTETS];
    disk.read_at(at, &mut block)?;
    if blake3::hash(&block[..body]).as_bytes() != &block[body..] {
        return Ok(None);
    }
    let word =
        |range: std::ops::Range<usize>| u64::from_le_bytes(block[range].try_into().expect("eight octets"));
    Ok(Some(Superblock {
        sequence: word(8..16),
        index_len: word(16..24),
        identity: Identity { inode: word(24..32), birth: word(32..40) },
        map: block[SUPERBLOCK_HEAD..body]
            .chunks_exact(4)
            .map(|place| {
                u32::from_le_bytes(place.try_into().expect("four octets")).checked_sub(1).map(Extent)
            })
            .collect(),
    }))
}

/// Writes a superblock newer than all others that adds an index extent at `place`, and optionally sets the
/// index length.
#[cfg(test)]
pub fn forge_superblock(disk: &dyn Disk, place: Extent, index_len: Option<u64>) {
    let (mut block, _) = newest_superblock(disk).unwrap();
    block.sequence += 1;
    block.map.push(Some(place));
    block.index_len = index_len.unwrap_or(block.index_len);
    disk.write_at(SLOTS[(block.sequence % 2) as usize], &block.encode().unwrap()).unwrap();
}
