//! Settles a flush: turns what the sink reports into metrics, statuses and journal marks.
//!
//! Must run only when the transaction has committed. The status is told before the queue lets go of the batch, so that
//! there is no moment at which nobody knows it.

use std::time::Duration;

use super::Shared;
use crate::{queue::Loaded, sinks::postgres::BatchOutcome};

/// Records a committed flush.
pub(super) fn settle(shared: &Shared, loaded: &Loaded, outcomes: &[BatchOutcome], took: Duration) {
    let now = shared.clock.now();
    let (mut committed, mut duplicates, mut quarantined) = (0u64, 0u64, 0u64);
    for (batch, outcome) in loaded.batches.iter().zip(outcomes) {
        committed += u64::from(outcome.committed);
        duplicates += u64::from(outcome.duplicates);
        for (reason, events) in &outcome.quarantined {
            quarantined += u64::from(*events);
            shared.books.events_quarantined_total.get(*reason).inc_by((*events).into());
        }
        let lag = now.since(batch.head.accepted_at).as_secs_f64();
        shared.metrics.commit_lag_seconds.get(batch.head.priority.band()).observe(lag);
        if outcome.is_reused() {
            shared.status.note_final_here(&batch.head.key, &outcome.known);
        } else {
            shared.status.note_final(&batch.head.key, &outcome.known);
        }
    }
    shared.books.events_committed_total.inc_by(committed);
    shared.books.events_duplicate_total.inc_by(duplicates);
    shared.queue.complete(loaded);
    let events: u64 = loaded.batches.iter().map(|batch| u64::from(batch.head.accepted)).sum();
    shared.metrics.flush_duration_seconds.observe(took.as_secs_f64());
    shared.metrics.flush_events.observe(events as f64);
    tracing::debug!(
        flush.batches = loaded.batches.len(),
        flush.events = committed,
        flush.duplicates = duplicates,
        flush.quarantined = quarantined,
        elapsed_ms = took.as_millis() as u64,
        "committed flush"
    );
    if quarantined > 0 {
        tracing::warn!(
            flush.quarantined = quarantined,
            "postgres refused events; they are in quarantine with the reason"
        );
    }
}
