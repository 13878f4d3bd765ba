//! Verifies stored texts: no octet is sent before its text has matched its blake3.
//!
//! A text is verified when it is read from the disk, and the result is remembered, so that reading it again
//! from memory costs nothing. We cannot know for certain when the kernel drops a page and reads it again. So a
//! text is verified again if one of its pages is missing from memory, after [`EPOCH`] at the latest, and if
//! another text has taken its slot.
//!
//! A long text is verified as a whole before its first octet goes out. That yields the hashes of its pieces
//! (blake3 is a tree), and a piece whose pages were dropped before its turn is verified alone.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len};
use blake3::hazmat::{merge_subtrees_non_root, merge_subtrees_root};

use crate::store::file::disk::View;
use crate::store::index::Fault;

/// Texts longer than this are sent in pieces of this length: a power of two, to match blake3's tree.
pub const PIECE: usize = 1 << 20;
/// Texts up to this length are verified on the executor if they are in memory; others elsewhere.
const AT_ONCE_MAX: usize = 64 << 10;
/// Number of texts remembered, at eight octets each.
const SLOTS: usize = 1 << 17;
const EPOCH: Duration = Duration::from_secs(600);

/// Recently verified texts, in a table of fixed size. Several texts share a slot; the latest has it.
pub struct Verified {
    slots: Box<[AtomicU64]>,
    began: Instant,
}

impl Default for Verified {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(), began: Instant::now() }
    }
}

impl Verified {
    fn knows(&self, text: u64) -> bool {
        self.slot(text).load(Ordering::Relaxed) == self.entry(text)
    }

    fn remember(&self, text: u64) {
        self.slot(text).store(self.entry(text), Ordering::Relaxed);
    }

    fn slot(&self, text: u64) -> &AtomicU64 {
        &self.slots[text as usize % SLOTS]
    }

    /// Never 0. The low bits, implied by the slot, hold the epoch instead.
    fn entry(&self, text: u64) -> u64 {
        let epoch = 1 + self.began.elapsed().as_secs() / EPOCH.as_secs();
        text / SLOTS as u64 * SLOTS as u64 + epoch % SLOTS as u64
    }
}

/// What a text must be.
pub struct Checksum {
    hash: blake3::Hash,
    /// Identifies the text at its place.
    key: u64,
    /// Hashes of the pieces, once the whole text was verified.
    pieces: OnceLock<Vec<ChainingValue>>,
}

impl Checksum {
    /// For the text at `at` whose wire form has this hash.
    pub fn new(hash: [u8; 32], at: u64) -> Self {
        let key = u64::from_le_bytes(hash[..8].try_into().expect("eight octets")) ^ at.rotate_left(40);
        Self { hash: hash.into(), key, pieces: OnceLock::new() }
    }

    /// True if the whole text can be sent now. Does not wait.
    pub fn holds_at_once(&self, text: &View, verified: &Verified) -> bool {
        if !text.is_resident() {
            return false;
        }
        if verified.knows(self.key) {
            return true;
        }
        let holds = text.len() <= AT_ONCE_MAX && blake3::hash(text) == self.hash;
        if holds {
            verified.remember(self.key);
        }
        holds
    }

    /// Reads and verifies the text. Waits for the disk.
    pub fn verify(&self, text: &View, verified: &Verified) -> Result<(), Fault> {
        if text.len() <= PIECE {
            text.fetch()?;
            if blake3::hash(text) != self.hash {
                return Err(changed());
            }
        } else {
            let mut pieces = Vec::with_capacity(text.len().div_ceil(PIECE));
            for range in pieces_of(text.len()) {
                pieces.push(hash_piece(text, range)?);
            }
            if root(&pieces, text.len()) != self.hash {
                return Err(changed());
            }
            // Another thread may have been first, with the same hashes.
            let _ = self.pieces.set(pieces);
        }
        verified.remember(self.key);
        Ok(())
    }

    /// Reads and verifies a piece of a long text again. Waits for the disk.
    pub fn verify_piece(&self, text: &View, range: Range<usize>, verified: &Verified) -> Result<(), Fault> {
        let Some(pieces) = self.pieces.get() else { return self.verify(text, verified) };
        let whole = range.start / PIECE * PIECE;
        let hash = hash_piece(text, whole..(whole + PIECE).min(text.len()))?;
        if hash == pieces[whole / PIECE] { Ok(()) } else { Err(changed()) }
    }
}

fn changed() -> Fault {
    Fault::damaged("its text has changed since it was stored")
}

/// The pieces of a text, front to back. An empty text has one empty piece.
pub fn pieces_of(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len.max(1)).step_by(PIECE).map(move |from| from..(from + PIECE).min(len))
}

fn hash_piece(text: &View, range: Range<usize>) -> Result<ChainingValue, Fault> {
    text.part(range.clone()).fetch()?;
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(range.start as u64).update(&text[range]);
    Ok(hasher.finalize_non_root())
}

/// The hash of a text of more than one piece.
fn root(pieces: &[ChainingValue], len: usize) -> blake3::Hash {
    let left = left_subtree_len(len as u64) as usize;
    let (before, after) = pieces.split_at(left / PIECE);
    merge_subtrees_root(&subtree(before, left), &subtree(after, len - left), Mode::Hash)
}

fn subtree(pieces: &[ChainingValue], len: usize) -> ChainingValue {
    if let [piece] = pieces {
        return *piece;
    }
    let left = left_subtree_len(len as u64) as usize;
    let (before, after) = pieces.split_at(left / PIECE);
    merge_subtrees_non_root(&subtree(before, left), &subtree(after, len - left), Mode::Hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn the_pieces_of_a_text_make_its_hash() {
        for len in [PIECE + 1, 2 * PIECE, 2 * PIECE + 1, 3 * PIECE - 1, 5 * PIECE + 77] {
            let text = octets(len);
            let checksum = Checksum::new(*blake3::hash(&text).as_bytes(), 0);
            checksum.verify(&View::Copied(text), &Verified::default()).unwrap();
        }
    }

    #[test]
    fn a_changed_octet_is_found_wherever_it_is() {
        for len in [1, 1000, PIECE, PIECE + 1, 3 * PIECE + 5] {
            for at in [0, len / 2, len - 1] {
                let mut text = octets(len);
                let checksum = Checksum::new(*blake3::hash(&text).as_bytes(), 0);
                text[at] ^= 1;
                let (text, verified) = (View::Copied(text), Verified::default());
                assert!(!checksum.holds_at_once(&text, &verified), "{at} of {len}");
                assert!(checksum.verify(&text, &verified).is_err(), "{at} of {len}");
            }
        }
    }

    #[test]
    fn a_piece_that_changes_after_the_whole_was_compared_is_found() {
        let mut text = octets(3 * PIECE);
        let checksum = Checksum::new(*blake3::hash(&text).as_bytes(), 0);
        let verified = Verified::default();
        checksum.verify(&View::Copied(text.clone()), &verified).unwrap();
        text[2 * PIECE + 9] ^= 1;
        let text = View::Copied(text);
        checksum.verify_piece(&text, PIECE..2 * PIECE, &verified).unwrap();
        assert!(checksum.verify_piece(&text, 2 * PIECE..2 * PIECE + 10, &verified).is_err());
    }

    #[test]
    fn a_text_is_remembered_until_another_takes_its_slot() {
        let verified = Verified::default();
        let (one, other) = (7 + 5 * SLOTS as u64, 7 + 6 * SLOTS as u64);
        assert!(!verified.knows(one));
        verified.remember(one);
        assert!(verified.knows(one) && !verified.knows(other) && !verified.knows(one + 1));
        verified.remember(other);
        assert!(verified.knows(other) && !verified.knows(one));
    }
}
