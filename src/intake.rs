//! The one door: every source hands its batches to [`Intake`].
//!
//! Each event is validated on its own and encoded once, as the row that COPY will send. One bad event never fails its
//! neighbors.

pub mod parse;

use crate::config::Seconds;

/// Settings of the door.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Events that one batch may hold.
    #[arg(long, env = "MAX_BATCH_EVENTS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub max_batch_events: u32,

    /// Days that an event's timestamp may lie in the past. Unset, it is 1830.
    #[arg(long, env = "EVENT_MAX_AGE_DAYS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub event_max_age_days: Option<u32>,

    /// Seconds that an event's timestamp may lie in the future: what clocks differ by.
    #[arg(long, env = "EVENT_MAX_FUTURE_SECONDS", default_value = "86400")]
    pub event_max_future_seconds: Seconds,
}

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    batch::{KnownBatch, Priority},
    event::EventError,
    metrics::Source,
};
use parse::{Format, Refusal};

/// A batch as a source hands it in.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where it comes from.
    pub source: Source,
    /// Whose it is; empty when the server is open.
    pub caller: String,
    /// What admission counts it under: the caller, or the address of one that has no name.
    pub admission_key: String,
    /// The body's format.
    pub format: Format,
    /// The decompressed body.
    pub body: Bytes,
    /// The ids that query and header give it, each already checked to be one.
    pub batch_ids: Vec<String>,
    /// The priority that the query gives it.
    pub priority: Option<Priority>,
    /// Whether one bad event refuses the batch.
    pub atomic: bool,
    /// The request's W3C trace context, where a valid one came.
    pub traceparent: Option<String>,
}

/// A batch that is durable, or was known before.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The batch's status of now.
    pub known: KnownBatch,
    /// What was wrong with the events that were refused.
    pub errors: Vec<EventError>,
}

/// Why a batch was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TakeError {
    /// The body, or all of its events: the caller's to mend.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The id belongs to a batch with other content: 409.
    #[error("batch_id {batch_id:?} belongs to a batch with other content")]
    Reused {
        /// The id.
        batch_id: String,
    },
    /// The queue is full, or this caller holds too much of it: 503 `queue_full`.
    #[error("the queue is full")]
    QueueFull {
        /// The batch's id, where it is known.
        batch_id: Option<String>,
        /// When to come back, before jitter.
        retry_after: Duration,
    },
    /// The journal takes no writes: 503 `unavailable`; nothing was stored.
    #[error("the journal can't be written")]
    NotWritable {
        /// The batch's id, where it is known.
        batch_id: Option<String>,
    },
    /// The journal's disk failed while the batch was written: 503 `unavailable`; it may be stored or not.
    #[error("the outcome is unknown")]
    OutcomeUnknown {
        /// The batch's id, under which it must be sent again.
        batch_id: String,
    },
}

/// The door.
#[derive(Debug)]
pub struct Intake {}

impl Intake {
    /// Returns whether a batch of about `bytes` bytes could be taken now. Asked before its body is read, so that a full
    /// queue costs no memory; `None` = the priority stands in the body, so the most urgent is supposed.
    ///
    /// # Errors
    /// [`TakeError::QueueFull`] or [`TakeError::NotWritable`].
    pub fn admit(&self, _admission_key: &str, _priority: Option<Priority>, _bytes: u64) -> Result<(), TakeError> {
        todo!()
    }

    /// Takes a batch: validates, encodes, makes durable. Once begun it runs to its end, also when the caller goes away.
    ///
    /// # Errors
    /// [`TakeError`] says whose fault it is and what to do.
    pub async fn take(self: &Arc<Self>, _delivery: Delivery) -> Result<Taken, TakeError> {
        todo!()
    }
}
