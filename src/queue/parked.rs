//! Months in trouble: their batches wait apart, one flush at a time probes each, and all other months go on.

use super::{
    Claim, Queue, State,
    schedule::{Entry, Room},
};
use crate::{
    batch::{BatchHead, Priority},
    time::{Month, Timestamp},
};

/// A month whose leaf can't be written now.
#[derive(Debug)]
pub(super) struct Parked {
    /// Its batches, in the order in which they were parked.
    pub(super) entries: Vec<(Priority, Entry)>,
    /// When the next flush may probe it.
    retry_at: Timestamp,
    /// A lane probes it now.
    is_probed: bool,
}

impl Queue {
    /// Claims batches of a parked month that is due to be probed.
    pub fn claim_probe(&self, room: Room, now: Timestamp) -> Option<Claim> {
        let mut state = self.lock();
        let (&month, parked) = state
            .parked
            .iter_mut()
            .find(|(_, month)| !month.is_probed && month.retry_at <= now)?;
        let mut events = 0u32;
        let mut bytes = 0u64;
        let fitting = parked.entries.iter().take_while(|(_, entry)| {
            events = events.saturating_add(entry.events.into());
            bytes += entry.bytes();
            events <= room.events && bytes <= room.bytes
        });
        let count = fitting.count().max(1).min(parked.entries.len());
        let entries: Vec<_> = parked.entries.drain(..count).collect();
        parked.is_probed = true;
        if entries.is_empty() {
            state.parked.remove(&month);
            return None;
        }
        state.note_claimed(&entries);
        Some(Claim {
            probe: Some(month),
            entries,
        })
    }

    /// Returns when the next parked month is due to be probed.
    pub fn next_probe(&self) -> Option<Timestamp> {
        let state = self.lock();
        state
            .parked
            .values()
            .filter(|month| !month.is_probed)
            .map(|month| month.retry_at)
            .min()
    }

    /// Returns how many months are parked.
    pub fn parked_months(&self) -> usize {
        self.lock().parked.len()
    }

    /// Says that a probe ended without an answer about its month.
    pub(super) fn end_probe(&self, month: Option<Month>) {
        let mut state = self.lock();
        if let Some(parked) = month.and_then(|month| state.parked.get_mut(&month)) {
            parked.is_probed = false;
        }
    }

    /// Says that a month's leaf could be written: its batches go back to the schedule.
    pub(super) fn unpark(&self, month: Option<Month>) {
        let mut state = self.lock();
        let Some((month, parked)) = month.and_then(|month| state.parked.remove_entry(&month)) else {
            return;
        };
        for (priority, entry) in parked.entries {
            state.schedule.push(priority, entry);
        }
        drop(state);
        tracing::info!(month = %month, "month is written again");
        self.wake();
    }
}

impl State {
    /// Returns a month of the batch that is parked, other than the one that this flush probes.
    pub(super) fn parked_month(&self, head: &BatchHead, probe: Option<Month>) -> Option<Month> {
        if self.parked.is_empty() {
            return None;
        }
        head.months
            .iter()
            .copied()
            .find(|month| Some(*month) != probe && self.parked.contains_key(month))
    }

    /// Puts a batch to those of a parked month.
    pub(super) fn park_entry(&mut self, month: Month, priority: Priority, entry: Entry) {
        self.set_in_hand(entry.position, false);
        let parked = self.parked.entry(month).or_insert(Parked {
            entries: Vec::new(),
            retry_at: Timestamp::from_micros(i64::MIN),
            is_probed: false,
        });
        parked.entries.push((priority, entry));
    }

    /// Says when a parked month may be probed next.
    pub(super) fn park_month(&mut self, month: Month, retry_at: Timestamp) {
        if let Some(parked) = self.parked.get_mut(&month) {
            parked.retry_at = retry_at;
            parked.is_probed = false;
        }
    }
}
