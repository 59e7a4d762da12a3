//! The one door: every source hands its batches to [`Intake`].
//!
//! Each event is validated on its own and encoded once, as the row that COPY will send. One bad event never fails its
//! neighbors. A batch is acknowledged only once it is durable; PostgreSQL is never asked on the way.

pub mod parse;

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use bytes::Bytes;
use parse::{Format, Parsed, Refusal, Request, Window};

use crate::{
    batch::{BatchKey, KnownBatch, Priority},
    event::{EventError, RejectReason},
    metrics::{BookMetrics, Source},
    partitions::Retention,
    queue::{EnqueueError, Queue},
    settings::Seconds,
    status::StatusBoard,
    time::{Clock, Month, Timestamp},
};

/// Days that an event's timestamp may lie in the past, unless set.
pub(crate) const EVENT_MAX_AGE_DAYS: u32 = 1830;
/// A body larger than this is parsed off the threads that serve connections.
const LARGE_BODY: usize = 128 * 1024;

/// Settings of the door.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Events")]
#[group(skip)]
pub struct Config {
    /// Events that one batch may hold.
    #[arg(long, env = "MAX_BATCH_EVENTS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub max_batch_events: u32,

    /// Days that an event's timestamp may lie in the past. Unset, it is 1830; for `dev` 10000.
    #[arg(long, env = "EVENT_MAX_AGE_DAYS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub event_max_age_days: Option<u32>,

    /// Seconds that an event's timestamp may lie in the future: what clocks differ by.
    #[arg(long, env = "EVENT_MAX_FUTURE_SECONDS", default_value = "86400")]
    pub event_max_future_seconds: Seconds,
}

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
pub struct Intake {
    max_events: u32,
    max_age: Duration,
    max_future: Duration,
    retention: Option<Retention>,
    /// Months that were pruned; those before the first, but for the second, are refused.
    pruned: RwLock<(Option<Month>, Vec<Month>)>,
    queue: Arc<Queue>,
    status: Arc<StatusBoard>,
    books: BookMetrics,
    clock: Clock,
}

impl Intake {
    /// Opens the door in front of a queue.
    pub fn new(
        config: &Config,
        retention: Option<Retention>,
        queue: Arc<Queue>,
        status: Arc<StatusBoard>,
        books: BookMetrics,
        clock: Clock,
    ) -> Arc<Self> {
        let days = config.event_max_age_days.unwrap_or(EVENT_MAX_AGE_DAYS);
        Arc::new(Self {
            max_events: config.max_batch_events,
            max_age: Duration::from_secs(u64::from(days) * 86_400),
            max_future: config.event_max_future_seconds.0,
            retention,
            pruned: RwLock::default(),
            queue,
            status,
            books,
            clock,
        })
    }

    /// Says which months were pruned: those before `before`, but for `remade`, whose leaf was made again by hand.
    pub fn set_pruned(&self, before: Option<Month>, remade: Vec<Month>) {
        *self.pruned.write().unwrap_or_else(std::sync::PoisonError::into_inner) = (before, remade);
    }

    fn window(&self, now: Timestamp) -> Window {
        let kept = self.retention.map(|retention| retention.oldest_kept(now));
        let oldest = now.minus(self.max_age);
        let (pruned_before, remade) = self.pruned.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        Window {
            oldest: kept.map_or(oldest, |kept| kept.max(oldest)),
            newest: now.plus(self.max_future),
            pruned_before,
            remade,
        }
    }

    /// Returns whether a batch of about `bytes` bytes could be taken now. Asked before its body is read, so that a full
    /// queue costs no memory; `None` = the priority stands in the body, so the most urgent is supposed.
    ///
    /// # Errors
    /// [`TakeError::QueueFull`] or [`TakeError::NotWritable`].
    pub fn admit(&self, admission_key: &str, priority: Option<Priority>, bytes: u64) -> Result<(), TakeError> {
        let most_urgent = Priority::try_from(10).expect("10 is a priority");
        let admitted = self.queue.admit(admission_key, priority.unwrap_or(most_urgent), bytes);
        admitted.map_err(|error| self.take_error(error, None))
    }

    /// Takes a batch: validates, encodes, makes durable. Once begun it runs to its end, also when the caller goes away.
    ///
    /// # Errors
    /// [`TakeError`] says whose fault it is and what to do.
    pub async fn take(self: &Arc<Self>, delivery: Delivery) -> Result<Taken, TakeError> {
        let (source, account) = (delivery.source, delivery.admission_key.clone());
        let caller = delivery.caller.clone();
        // With the body goes the memory that its source was granted for it and its rows. The rows are there until they are
        // on the disk, also when the caller is not.
        let granted = delivery.body.clone();
        let Parsed { batch, errors, id_is_callers } = match self.parse(delivery).await {
            Ok(parsed) => parsed,
            Err(refusal) => return self.refuse(refusal, source, caller).await,
        };
        let batch_id = batch.head.key.batch_id.clone();
        if id_is_callers && let Some(known) = self.status.find_repeat(&batch.head.key).await {
            let is_same = known.content_hash == batch.head.content_hash;
            return if is_same { Ok(Taken { known, errors }) } else { Err(TakeError::Reused { batch_id }) };
        }
        let books = self.books.clone();
        let status = Arc::clone(&self.status);
        let rejected: Vec<_> = errors.iter().map(|error| error.code).collect();
        let on_durable = move |head: &_| {
            count_taken(&books, source, head, &rejected);
            status.note_accepted(head);
            drop(granted);
        };
        match self.queue.enqueue(batch, &account, on_durable).await {
            Ok(known) => Ok(Taken { known, errors }),
            Err(error) => Err(self.take_error(error, Some(batch_id))),
        }
    }

    /// Refuses a batch whole, unless it is a repeat of one that was taken when its events were still good: time went by,
    /// or a month was pruned.
    async fn refuse(&self, refusal: Refusal, source: Source, caller: String) -> Result<Taken, TakeError> {
        let Refusal::InvalidBatch { batch_id, content_hash: Some(content_hash), errors, .. } = &refusal else {
            return Err(refusal.into());
        };
        if let Some(batch_id) = batch_id.clone() {
            let known = self.status.find_repeat(&BatchKey { caller, batch_id }).await;
            if let Some(known) = known.filter(|known| known.content_hash == **content_hash) {
                let is_bad = |error: &&EventError| error.code != RejectReason::Atomic;
                let errors = errors.iter().filter(is_bad).cloned().collect();
                return Ok(Taken { known, errors });
            }
        }
        // Each event has a reason of its own: they were received and rejected.
        count_refused(&self.books, source, errors);
        Err(refusal.into())
    }

    async fn parse(self: &Arc<Self>, delivery: Delivery) -> Result<Parsed, Refusal> {
        if delivery.body.len() < LARGE_BODY {
            return self.parse_now(&delivery);
        }
        let this = Arc::clone(self);
        let parsed = tokio::task::spawn_blocking(move || this.parse_now(&delivery)).await;
        parsed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    fn parse_now(&self, delivery: &Delivery) -> Result<Parsed, Refusal> {
        let accepted_at = self.clock.now();
        parse::parse(&Request {
            format: delivery.format,
            body: &delivery.body,
            caller: &delivery.caller,
            batch_ids: &delivery.batch_ids,
            priority: delivery.priority,
            atomic: delivery.atomic,
            accepted_at,
            traceparent: delivery.traceparent.clone(),
            window: &self.window(accepted_at),
            max_events: self.max_events,
        })
    }

    fn take_error(&self, error: EnqueueError, batch_id: Option<String>) -> TakeError {
        match error {
            EnqueueError::Reused => TakeError::Reused { batch_id: batch_id.unwrap_or_default() },
            EnqueueError::Full => TakeError::QueueFull { batch_id, retry_after: self.queue.retry_after() },
            EnqueueError::NotWritable => TakeError::NotWritable { batch_id },
            EnqueueError::OutcomeUnknown => TakeError::OutcomeUnknown { batch_id: batch_id.unwrap_or_default() },
        }
    }
}

fn count_taken(books: &BookMetrics, source: Source, head: &crate::batch::BatchHead, rejected: &[RejectReason]) {
    books.events_received_total.get(source).inc_by(head.received.into());
    books.events_accepted_total.get(source).inc_by(head.accepted.into());
    rejected.iter().for_each(|code| books.events_rejected_total.get(*code).inc());
}

fn count_refused(books: &BookMetrics, source: Source, errors: &[EventError]) {
    books.events_received_total.get(source).inc_by(errors.len() as u64);
    errors.iter().for_each(|error| books.events_rejected_total.get(error.code).inc());
}

#[cfg(test)]
mod tests;
