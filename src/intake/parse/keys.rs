//! Finds the keys that an object has twice.

use std::{borrow::Cow, collections::HashSet};

/// Keys that are compared one by one. An object with more is rare, or an attack.
const FEW: usize = 16;

/// The keys of one object so far.
#[derive(Debug, Default)]
pub(super) struct Keys<'a> {
    few: Vec<Cow<'a, [u8]>>,
    /// All beyond the first few, by a hash with a secret seed.
    many: HashSet<Cow<'a, [u8]>>,
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

    /// Adds a key; returns whether it is new.
    pub(super) fn add(&mut self, key: Cow<'a, [u8]>) -> bool {
        if self.few.contains(&key) {
            return false;
        }
        if self.few.len() < FEW {
            self.few.push(key);
            return true;
        }
        self.many.insert(key)
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
                assert!(keys.add(Cow::Borrowed(name.as_bytes())), "{name}");
            }
            for name in &names {
                assert!(!keys.add(Cow::Owned(name.clone().into_bytes())), "{name}");
            }
            keys.clear();
        }
    }
}
