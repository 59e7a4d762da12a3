//! Every metric of the process, as one table.
//!
//! Each part is handed its own struct; there are no statics, so that each test has its own registry. A label is an enum
//! ([`Label`](crate::label::Label)), so each of its series stands at 0 from the start and nothing unbounded can become one. All figures are
//! counted by this replica, but for those whose help says that the database was asked.

mod family;

pub use family::{Family, Metric};
use prometheus::{Encoder, Gauge, Histogram, IntCounter, IntGauge, Registry, TextEncoder};

use crate::{
    batch::Band,
    event::RejectReason,
    label::label,
    sinks::postgres::sqlstate::{ErrorClass, ErrorOutcome, QuarantineReason},
};

/// Seconds, from a fast fdatasync to a flush that takes a minute.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
    60.0,
];
/// Seconds from a 202 to the commit; an outage of hours still shows.
const LAG_SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0];
/// Events in one flush.
const EVENTS: &[f64] = &[1.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 50000.0];

label! {
    /// Where an event came from.
    pub enum Source("source") {
        /// A request to the ingest API.
        Http = "http",
        /// The journal, when the process started.
        Replay = "replay",
        /// Quarantine, sent in again by hand.
        Quarantine = "quarantine",
    }
}

label! {
    /// How a flush ended.
    pub enum FlushOutcome("outcome") {
        /// Its transaction committed.
        Committed = "committed",
        /// Nothing was written; its batches went back to the queue.
        Retried = "retried",
        /// Nothing was written; its batches wait for a month's leaf.
        Parked = "parked",
    }
}

label! {
    /// What a connection of the pool does.
    pub enum PoolState("state") {
        /// Waits for work.
        Idle = "idle",
        /// Works for somebody.
        Used = "used",
    }
}

family::metrics! {
    /// What the door and the flusher count: accepted = committed + duplicate + quarantined + in flight.
    pub struct BookMetrics {
        /// Events that came in, good or bad.
        events_received_total: Family<Source, IntCounter>,
        /// Events that were acknowledged.
        events_accepted_total: Family<Source, IntCounter>,
        /// Events refused at the door, by the check that refused them.
        events_rejected_total: Family<RejectReason, IntCounter>,
        /// Events that were stored.
        events_committed_total: IntCounter,
        /// Events that had been stored before.
        events_duplicate_total: IntCounter,
        /// Events that PostgreSQL refused, by why.
        events_quarantined_total: Family<QuarantineReason, IntCounter>,
        /// Events acknowledged whose fate is not recorded yet.
        events_in_flight: IntGauge,
    }
}

family::metrics! {
    /// What waits.
    pub struct QueueMetrics {
        /// Events that wait or are being written.
        queue_events: Family<Band, IntGauge>,
        /// Bytes of the journal that they take.
        queue_bytes: Family<Band, IntGauge>,
        /// Age of the oldest batch that waits or is being written, in seconds.
        queue_oldest_age_seconds: Family<Band, Gauge>,
        /// Bytes that the journal may take before nothing more is let in.
        queue_limit_bytes: IntGauge,
        /// Bytes that the journal takes, as a part (0 to 1) of what it may.
        queue_fill_ratio: Gauge,
    }
}

family::metrics! {
    /// The journal's files.
    pub struct JournalMetrics {
        /// Bytes of the journal's files that hold records.
        journal_bytes: IntGauge,
        /// Seconds that one fdatasync took.
        journal_fsync_seconds: Histogram = SECONDS,
        /// Records that could not be read when the journal was replayed.
        journal_damaged_records_total: IntCounter,
    }
}

family::metrics! {
    /// What the lanes do.
    pub struct FlushMetrics {
        /// Time that lanes work, as a part (0 to 1) of all their time; small flushes count by their size.
        flush_busy_ratio: Gauge,
        /// Seconds from a flush's first statement to its end.
        flush_duration_seconds: Histogram = SECONDS,
        /// Events in a flush.
        flush_events: Histogram = EVENTS,
        /// Seconds from a batch's acceptance to the commit of its events.
        commit_lag_seconds: Family<Band, Histogram> = LAG_SECONDS,
        /// Flushes by how they ended.
        flushes_total: Family<FlushOutcome, IntCounter>,
        /// Errors of PostgreSQL by class, and what was done.
        copy_errors_total: Family<ErrorOutcome, IntCounter>,
        /// Whether writing, or that of one month, stopped until a person mends something: 1 or 0.
        on_hold: IntGauge,
        /// Whether PostgreSQL failed three times in a row and one lane alone probes it: 1 or 0.
        circuit_open: IntGauge,
    }
}

family::metrics! {
    /// The servers behind.
    pub struct BackendMetrics {
        /// Connections to PostgreSQL.
        db_pool_connections: Family<PoolState, IntGauge>,
        /// Whether Redis answers: 1 or 0; 0 too when there is none.
        redis_up: IntGauge,
        /// Months after the current one that have a leaf (asked of the database).
        partitions_ahead: IntGauge,
        /// When the leaves were last looked after, in seconds since 1970 (asked of the database).
        partition_maintenance_last_success_timestamp_seconds: Gauge,
        /// Requests refused because their caller is too fast.
        rate_limited_total: IntCounter,
    }
}

/// All metrics, and the registry that `/metrics` prints. The HTTP layer adds its own to it.
#[derive(Debug)]
pub struct Metrics {
    /// Where all are registered.
    pub registry: Registry,
    /// The books.
    pub books: BookMetrics,
    /// The queue.
    pub queue: QueueMetrics,
    /// The journal.
    pub journal: JournalMetrics,
    /// The lanes.
    pub flush: FlushMetrics,
    /// PostgreSQL, Redis and partitions.
    pub backend: BackendMetrics,
}

impl Metrics {
    /// Registers every metric in a registry of its own.
    ///
    /// # Panics
    /// When two metrics bear one name, which a test would have seen.
    pub fn new() -> Self {
        let registry = Registry::new_custom(Some("forebay".into()), None).expect("the prefix is not empty");
        let build = prometheus::IntGaugeVec::new(
            prometheus::Opts::new("build_info", "The release that runs; always 1."),
            &["version"],
        )
        .expect("the name is valid");
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build)).expect("the name is free");
        Self {
            books: BookMetrics::register(&registry),
            queue: QueueMetrics::register(&registry),
            journal: JournalMetrics::register(&registry),
            flush: FlushMetrics::register(&registry),
            backend: BackendMetrics::register(&registry),
            registry,
        }
    }

    /// Returns what `/metrics` answers: Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory can't fail; a metric without a series is left out by the encoder.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl FlushMetrics {
    /// Counts one error of PostgreSQL.
    pub fn record_error(&self, outcome: ErrorOutcome) {
        self.copy_errors_total.get(outcome).inc();
    }
}

/// The class of trouble under which quarantined events are counted.
impl From<ErrorClass> for QuarantineReason {
    fn from(class: ErrorClass) -> Self {
        Self::Class(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let text = Metrics::new().render();
        for line in [
            "forebay_events_accepted_total{source=\"replay\"} 0",
            "forebay_events_rejected_total{reason=\"nul_character\"} 0",
            "forebay_events_quarantined_total{reason=\"batch_id_reused\"} 0",
            "forebay_queue_oldest_age_seconds{band=\"high\"} 0",
            "forebay_copy_errors_total{action=\"isolate\",class=\"data\"} 0",
            "forebay_flush_busy_ratio 0",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
