//! Finds the batches of the journal by caller and id, in a few bytes each.
//!
//! Only part of a hash is kept; whether a candidate is the one looked for, its head in the journal tells. The hash is
//! seeded for each process, because ids come from outside.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::journal::Position;
use crate::batch::BatchKey;

/// Bytes of memory that one batch takes in the schedule and here, at most: an entry, and its slot in a table that has
/// just doubled.
pub const BYTES_PER_BATCH: u64 = 16 + 2 * 9;

/// Where each batch lies.
#[derive(Debug, Default)]
pub struct Index {
    seed: RandomState,
    table: HashTable<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    position: Position,
}

/// Spreads the 32 bits that are kept over the 64 that the table wants.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    fn hash(&self, key: &BatchKey) -> u32 {
        self.seed.hash_one(key) as u32
    }

    /// Returns how many batches it knows.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Notes where a batch lies.
    pub fn insert(&mut self, key: &BatchKey, position: Position) {
        let hash = self.hash(key);
        self.table.insert_unique(spread(hash), Slot { hash, position }, |slot| spread(slot.hash));
    }

    /// Returns where batches lie that may bear this key: nearly always none or the one.
    pub fn candidates(&self, key: &BatchKey) -> impl Iterator<Item = Position> {
        let hash = self.hash(key);
        self.table.iter_hash(spread(hash)).filter(move |slot| slot.hash == hash).map(|slot| slot.position)
    }

    /// Forgets a batch. Returns whether it was known.
    pub fn remove(&mut self, key: &BatchKey, position: Position) -> bool {
        let hash = self.hash(key);
        let found = self.table.find_entry(spread(hash), |slot| slot.position == position);
        found.map(hashbrown::hash_table::OccupiedEntry::remove).is_ok()
    }

    /// Notes that a batch lies somewhere else now. Returns whether it was known.
    pub fn relocate(&mut self, key: &BatchKey, from: Position, to: Position) -> bool {
        let hash = self.hash(key);
        match self.table.find_mut(spread(hash), |slot| slot.position == from) {
            Some(slot) => {
                slot.position = to;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_is_found_until_it_is_removed() {
        let key = |number: u32| BatchKey { caller: String::new(), batch_id: number.to_string() };
        let mut index = Index::default();
        (0..1000).for_each(|number| index.insert(&key(number), Position::from_raw(number)));
        assert!(index.relocate(&key(7), Position::from_raw(7), Position::from_raw(7000)));
        assert!(index.candidates(&key(7)).any(|position| position == Position::from_raw(7000)));
        assert!(index.remove(&key(7), Position::from_raw(7000)));
        assert!(!index.remove(&key(7), Position::from_raw(7000)));
        assert!(!index.candidates(&key(7)).any(|position| position == Position::from_raw(7000)));
        assert!((0..1000).filter(|n| *n != 7).all(|n| index.candidates(&key(n)).any(|p| p == Position::from_raw(n))));
        assert_eq!(index.len(), 999);
    }
}
