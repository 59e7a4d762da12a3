//! Months in trouble: their batches wait apart, one flush at a time probes each, and all other months go on. So it is
//! with the halves of a flush that failed again, down to the batch that is in the way.

use super::{
    Claim, Queue, State,
    schedule::{Entry, Room, Schedule},
};
use crate::{
    batch::{BatchHead, Priority},
    time::{Month, Timestamp},
};

/// A month whose leaf can't be written now.
#[derive(Debug)]
pub(super) struct Parked {
    /// Its batches.
    pub(super) waiting: Schedule,
    /// When the next flush may probe it.
    retry_at: Timestamp,
    /// A lane probes it now.
    is_probed: bool,
    /// What a person must do before it is written again.
    advice: Option<String>,
}

/// Batches that are tried together, and with no others.
#[derive(Debug)]
pub(super) struct Resting {
    pub(super) entries: Vec<(Priority, Entry)>,
    /// When they may be tried again.
    pub(super) retry_at: Timestamp,
}

impl Queue {
    /// Claims batches of a parked month that is due to be probed, or batches that have rested.
    pub fn claim_probe(&self, room: Room, now: Timestamp) -> Option<Claim> {
        let mut state = self.lock();
        if let Some(place) = state.resting.iter().position(|resting| resting.retry_at <= now) {
            let Resting { entries, .. } = state.resting.swap_remove(place);
            state.note_claimed(&entries);
            return Some(Claim { probe: None, entries });
        }
        let (&month, parked) = state.parked.iter_mut().find(|(_, month)| !month.is_probed && month.retry_at <= now)?;
        let entries = parked.waiting.take(room, now);
        parked.is_probed = true;
        if entries.is_empty() {
            state.parked.remove(&month);
            return None;
        }
        state.note_claimed(&entries);
        Some(Claim { probe: Some(month), entries })
    }

    /// Returns when the next parked month, or what rests, is due to be tried.
    pub fn next_probe(&self) -> Option<Timestamp> {
        let state = self.lock();
        state
            .parked
            .values()
            .filter(|month| !month.is_probed)
            .map(|month| month.retry_at)
            .chain(state.resting.iter().map(|resting| resting.retry_at))
            .min()
    }

    /// Makes all that is set aside due: the process stops, and the next try may be its last.
    pub fn hurry(&self) {
        let now = self.clock.now();
        let mut state = self.lock();
        state.parked.values_mut().for_each(|month| month.retry_at = now);
        state.resting.iter_mut().for_each(|resting| resting.retry_at = now);
    }

    /// Returns what a person must do before a parked month is written again, where one must.
    pub fn parked_advice(&self) -> Option<String> {
        self.lock().parked.values().find_map(|month| month.advice.clone())
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
        state.schedule.absorb(parked.waiting);
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
        head.months.iter().copied().find(|month| Some(*month) != probe && self.parked.contains_key(month))
    }

    /// Puts a batch to those of a parked month.
    pub(super) fn park_entry(&mut self, month: Month, priority: Priority, entry: Entry) {
        self.set_in_hand(entry.position, false);
        let parked = self.parked.entry(month).or_insert_with(|| Parked {
            waiting: self.schedule.beside(),
            retry_at: Timestamp::from_micros(i64::MIN),
            is_probed: false,
            advice: None,
        });
        parked.waiting.push(priority, entry);
    }

    /// Says when a parked month may be probed next, and what a person must do before.
    pub(super) fn park_month(&mut self, month: Month, retry_at: Timestamp, advice: Option<String>) {
        if let Some(parked) = self.parked.get_mut(&month) {
            parked.advice = advice;
            parked.retry_at = retry_at;
            parked.is_probed = false;
        }
    }
}
