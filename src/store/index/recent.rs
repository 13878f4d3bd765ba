//! Recently stored texts by hash, to recognise a text that comes again.
//!
//! Only a hint, kept in memory and empty after a start. An entry may name a text that is gone or was rolled
//! back, so callers compare the hash in the text's row.

use std::collections::{HashMap, VecDeque};

use super::types::TextId;

/// Most texts remembered; about 3 MiB of memory.
const TEXTS_MAX: usize = 1 << 16;

#[derive(Default)]
pub struct RecentTexts {
    ids: HashMap<u64, TextId>,
    /// Keys, oldest first.
    order: VecDeque<u64>,
}

impl RecentTexts {
    pub fn find(&self, hash: &[u8; 32]) -> Option<TextId> {
        self.ids.get(&key(hash)).copied()
    }

    pub fn note(&mut self, hash: &[u8; 32], id: TextId) {
        if self.ids.insert(key(hash), id).is_some() {
            return;
        }
        self.order.push_back(key(hash));
        if self.order.len() > TEXTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

/// Texts whose hashes begin alike share an entry: the older one is stored again if it comes again.
fn key(hash: &[u8; 32]) -> u64 {
    u64::from_le_bytes(*hash.first_chunk().expect("a hash is longer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: usize) -> [u8; 32] {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    #[test]
    fn the_latest_are_known_and_the_memory_is_bounded() {
        let mut recent = RecentTexts::default();
        for number in 0..TEXTS_MAX + 2 {
            recent.note(&hash(number), TextId(number as u64));
        }
        assert_eq!((recent.ids.len(), recent.order.len()), (TEXTS_MAX, TEXTS_MAX));
        assert_eq!([0, 1].map(|number| recent.find(&hash(number))), [None, None]);
        assert_eq!(recent.find(&hash(2)), Some(TextId(2)));
        // Stored again after the first copy was deleted.
        recent.note(&hash(2), TextId(7));
        assert_eq!((recent.find(&hash(2)), recent.order.len()), (Some(TextId(7)), TEXTS_MAX));
    }
}
