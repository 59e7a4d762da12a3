//! Finds the keys that an object has twice, in memory that no object can make grow without bound.

use std::{
    borrow::Cow,
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

/// Keys that are compared byte by byte. An object with more is rare, or an attack.
const FEW: usize = 16;
/// Hashes that are kept of further keys: a megabyte. Doubles among what comes later are not found; none of it is used.
const MANY: usize = 65_536;

/// The keys of one object so far.
#[derive(Debug, Default)]
pub(super) struct Keys<'a> {
    few: Vec<Cow<'a, [u8]>>,
    /// 64 bits of each further key under a secret seed. That two keys out of all of them agree by chance: one in 10^10.
    many: HashSet<u64>,
    seed: RandomState,
}

impl<'a> Keys<'a> {
    /// Forgets all keys: another object begins.
    pub(super) fn clear(&mut self) {
        self.few.clear();
        if !self.many.is_empty() {
            // Not `clear`, whose cost is that of the largest object so far.
            self.many = HashSet::new();
        }
    }

    /// Adds a key; returns whether it is new. One that `matters` is kept however many came before.
    pub(super) fn add(&mut self, key: Cow<'a, [u8]>, matters: bool) -> bool {
        if self.few.contains(&key) {
            return false;
        }
        if self.few.len() < FEW || matters {
            self.few.push(key);
            return true;
        }
        let hash = self.seed.hash_one(&key);
        if self.many.len() < MANY { self.many.insert(hash) } else { !self.many.contains(&hash) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_doubled_key_is_found() {
        let names: Vec<String> = (0..FEW * 3).map(|number| number.to_string()).collect();
        let mut keys = Keys::default();
        for _ in 0..2 {
            for name in &names {
                assert!(keys.add(Cow::Borrowed(name.as_bytes()), false), "{name}");
            }
            for name in &names {
                assert!(!keys.add(Cow::Owned(name.clone().into_bytes()), false), "{name}");
            }
            keys.clear();
        }
    }

    #[test]
    fn key_that_matters_is_found_behind_any_number() {
        let mut keys = Keys::default();
        for number in 0..MANY + 100 {
            assert!(keys.add(Cow::Owned(number.to_string().into_bytes()), false));
        }
        assert_eq!(keys.many.len(), MANY);
        assert!(keys.add(Cow::Borrowed(b"events"), true));
        assert!(!keys.add(Cow::Borrowed(b"events"), true));
        assert!(!keys.add(Cow::Borrowed(b"7"), false));
    }
}
