//! The memory that all bodies together may take while they are read, decompressed and encoded.
//!
//! A permit is had at once or not at all: nobody who holds one ever waits for more, so that requests can't hold each
//! other up.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::settings::Mebibytes;

/// `REQUEST_MEMORY_MB`, in KiB.
#[derive(Clone, Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    kib: u32,
}

/// A part of the budget; dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    budget: Budget,
    held: OwnedSemaphorePermit,
}

impl Budget {
    /// Returns a budget of which nothing is taken.
    pub fn new(size: Mebibytes) -> Self {
        let kib = u32::try_from(size.bytes() >> 10).unwrap_or(u32::MAX);
        let free = usize::try_from(kib).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(free)), kib }
    }

    /// Takes `bytes`, or the whole budget where that is less, so that what the limits allow always fits alone.
    pub fn take(&self, bytes: u64) -> Option<Permit> {
        let held = Arc::clone(&self.free).try_acquire_many_owned(self.clamp(bytes)).ok()?;
        Some(Permit { budget: self.clone(), held })
    }

    fn clamp(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(1 << 10)).map_or(self.kib, |kib| kib.min(self.kib))
    }
}

impl Permit {
    /// Grows the permit until it covers `bytes`, or the whole budget. Returns whether it does.
    #[must_use]
    pub fn cover(&mut self, bytes: u64) -> bool {
        let held = u32::try_from(self.held.num_permits()).unwrap_or(u32::MAX);
        let more = self.budget.clamp(bytes).saturating_sub(held);
        if more == 0 {
            return true;
        }
        match Arc::clone(&self.budget.free).try_acquire_many_owned(more) {
            Ok(permit) => {
                self.held.merge(permit);
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permit_grows_within_the_budget_and_comes_back() {
        let budget = Budget::new(Mebibytes(1));
        let mut first = budget.take(100 << 10).unwrap();
        let second = budget.take(800 << 10).unwrap();
        assert!(!first.cover(300 << 10) && budget.take(200 << 10).is_none());
        assert!(first.cover(200 << 10) && first.cover(1));
        drop(second);
        assert!(first.cover(u64::MAX), "one alone is clamped to the whole budget");
        assert!(budget.take(1).is_none());
        drop(first);
        assert!(budget.take(1 << 20).is_some());
    }
}
