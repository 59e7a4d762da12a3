//! The way out: a lane claims batches, loads their rows, and completes, releases or parks them.

use super::{
    Queue, State, Tried,
    journal::Position,
    parked::Resting,
    schedule::{Entry, Room},
};
use crate::{
    batch::{BatchHead, ClaimedBatch, Priority},
    sinks::postgres::sqlstate::ErrorClass,
    time::{Month, Timestamp},
};

/// Batches in the hands of one lane, not read yet.
#[derive(Debug)]
pub struct Claim {
    /// The month whose trouble this flush probes.
    pub(super) probe: Option<Month>,
    pub(super) entries: Vec<(Priority, Entry)>,
}

impl Claim {
    /// Returns the bytes that its rows take in memory, at most.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|(_, entry)| entry.bytes()).sum()
    }

    /// Returns how many events it holds.
    pub fn events(&self) -> u64 {
        self.entries.iter().map(|(_, entry)| u64::from(entry.events)).sum()
    }
}

/// Batches in the hands of one lane, with their rows.
#[derive(Debug)]
pub struct Loaded {
    pub(super) probe: Option<Month>,
    pub(super) entries: Vec<(Priority, Entry)>,
    /// What the sink writes, in the order of the entries.
    pub batches: Vec<ClaimedBatch>,
}

impl Queue {
    /// Returns how many events wait, and when the most urgent batch is due.
    pub fn waiting(&self) -> (u64, Option<Timestamp>) {
        let state = self.lock();
        (state.schedule.events(), state.schedule.next_deadline())
    }

    /// Claims the batches of the next flush.
    pub fn claim(&self, room: Room, now: Timestamp) -> Option<Claim> {
        let mut state = self.lock();
        let entries = state.schedule.take(room, now);
        state.note_claimed(&entries);
        (!entries.is_empty()).then_some(Claim { probe: None, entries })
    }

    /// Reads the rows of claimed batches. Blocks. Those of a month in trouble are parked instead, and `None` is
    /// returned when no other is left.
    pub fn load(&self, claim: Claim) -> Option<Loaded> {
        let mut loaded = Loaded { probe: claim.probe, entries: Vec::new(), batches: Vec::new() };
        for (priority, entry) in claim.entries {
            let Some((head, rows)) = self.read(entry.position) else {
                tracing::error!(
                    journal.position = entry.position.get(),
                    "a batch can't be read from the journal, so it is held until the next start"
                );
                self.lock().set_in_hand(entry.position, false);
                self.lock().held.push(priority, entry);
                continue;
            };
            let mut state = self.lock();
            if let Some(month) = state.parked_month(&head, claim.probe) {
                state.park_entry(month, priority, entry);
                continue;
            }
            let attempt = state.tried.get(&entry.position).map_or(1, |tried| tried.attempts);
            drop(state);
            loaded.entries.push((priority, entry));
            loaded.batches.push(ClaimedBatch { head, rows, attempt });
        }
        if loaded.entries.is_empty() {
            self.end_probe(claim.probe);
            return None;
        }
        Some(loaded)
    }

    fn read(&self, position: Position) -> Option<(BatchHead, bytes::Bytes)> {
        let record = self.journal.read(position).ok()?;
        Some((BatchHead::decode(&record.head).ok()?, record.rows))
    }

    /// Takes batches out of the queue: their fate is recorded.
    pub fn complete(&self, loaded: &Loaded) {
        let positions: Vec<_> = loaded.entries.iter().map(|(_, entry)| entry.position).collect();
        let mut state = self.lock();
        for ((priority, entry), batch) in loaded.entries.iter().zip(&loaded.batches) {
            state.index.remove(&batch.head.key, entry.position);
            state.tried.remove(&entry.position);
            state.admission.discharge(entry.account, priority.band(), entry.bytes());
        }
        drop(state);
        for ((priority, entry), batch) in loaded.entries.iter().zip(&loaded.batches) {
            self.count_out(priority.band(), batch.head.accepted, entry.bytes());
        }
        self.journal.complete(&positions);
        self.unpark(loaded.probe);
    }

    /// Puts batches back: nothing of them was written, because of trouble of this class. With `rest_until` they are not
    /// claimed before, and then each half of them by itself.
    pub fn release(&self, loaded: Loaded, class: ErrorClass, rest_until: Option<Timestamp>) {
        let mut state = self.lock();
        for (_, entry) in &loaded.entries {
            state.note_failed(entry.position, class);
        }
        let mut entries = loaded.entries;
        match (loaded.probe, rest_until) {
            (None, Some(retry_at)) => {
                let half = entries.split_off(entries.len() / 2);
                let halves = [entries, half].into_iter().filter(|half| !half.is_empty());
                state.resting.extend(halves.map(|entries| Resting { entries, retry_at }));
            }
            (Some(month), _) => {
                entries.into_iter().for_each(|(priority, entry)| state.park_entry(month, priority, entry))
            }
            (None, None) => entries.into_iter().for_each(|(priority, entry)| state.schedule.push(priority, entry)),
        }
        drop(state);
        self.end_probe(loaded.probe);
        self.wake();
    }

    /// Puts batches back because of trouble with one month: those of the month wait apart until `retry_at`, or until a
    /// person has followed the advice.
    pub fn park(&self, loaded: Loaded, class: ErrorClass, month: Month, retry_at: Timestamp, advice: Option<String>) {
        let mut state = self.lock();
        for ((priority, entry), batch) in loaded.entries.into_iter().zip(&loaded.batches) {
            state.note_failed(entry.position, class);
            if batch.head.months.contains(&month) {
                state.park_entry(month, priority, entry);
            } else {
                state.schedule.push(priority, entry);
            }
        }
        state.park_month(month, retry_at, advice);
        drop(state);
        if loaded.probe != Some(month) {
            self.end_probe(loaded.probe);
        }
        self.wake();
    }
}

impl State {
    pub(super) fn note_claimed(&mut self, entries: &[(Priority, Entry)]) {
        for (priority, entry) in entries {
            let accepted_at = self.schedule.accepted_at(entry);
            let tried = self.tried.entry(entry.position).or_insert(Tried {
                priority: *priority,
                accepted_at,
                attempts: 0,
                last_error: None,
                in_hand: true,
            });
            tried.attempts += 1;
            tried.in_hand = true;
        }
    }

    pub(super) fn set_in_hand(&mut self, position: Position, in_hand: bool) {
        if let Some(tried) = self.tried.get_mut(&position) {
            tried.in_hand = in_hand;
        }
    }

    fn note_failed(&mut self, position: Position, class: ErrorClass) {
        if let Some(tried) = self.tried.get_mut(&position) {
            tried.in_hand = false;
            tried.last_error = Some(class);
        }
    }
}
