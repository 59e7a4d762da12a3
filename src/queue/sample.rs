//! Gauges of the queue that change with time alone, looked at once a second.

use std::sync::atomic::Ordering::Relaxed;

use super::Queue;
use crate::batch::Band;

impl Queue {
    /// Brings the gauges up to date, and opens or closes the door by how full the queue is now.
    pub fn sample(&self) {
        let now = self.clock.now();
        let mut state = self.lock();
        let fill = self.fill(&state);
        let is_closed = state.admission.update(fill);
        let aside = state.parked.values().map(|month| &month.waiting).chain([&state.held]);
        let waiting: Vec<_> = aside.chain([&state.schedule]).collect();
        for band in Band::ALL {
            let in_hand = state.tried.values().filter(|tried| tried.in_hand && tried.priority.band() == *band);
            let resting = state.resting.iter().flat_map(|resting| &resting.entries);
            let resting = resting.filter(|(priority, _)| priority.band() == *band);
            let oldest = in_hand
                .map(|tried| tried.accepted_at)
                .chain(resting.map(|(_, entry)| state.schedule.accepted_at(entry)))
                .chain(waiting.iter().filter_map(|waiting| waiting.oldest(*band)))
                .min();
            let age = oldest.map_or(0.0, |accepted_at| now.since(accepted_at).as_secs_f64());
            self.metrics.queue_oldest_age_seconds.get(*band).set(age);
        }
        drop(state);
        self.metrics.queue_fill_ratio.set(fill.min(1.0));
        self.health.queue_full.store(is_closed, Relaxed);
    }

    /// Returns how many batches and events are in the queue: waiting, parked or held.
    pub fn left(&self) -> (u64, u64) {
        let batches = self.lock().index.len() as u64;
        (batches, u64::try_from(self.books.events_in_flight.get()).unwrap_or(0))
    }
}
