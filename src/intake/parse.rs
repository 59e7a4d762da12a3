//! From a body to an encoded batch: pure, no I/O.
//!
//! Each event is read in one pass over its bytes and judged on its own; a good one becomes its row at once. Payload and
//! metadata are kept byte for byte and are never built into a tree, but what PostgreSQL's `jsonb` would refuse must not
//! get past here: it would cost a flush its COPY.

mod cloudevents;
mod collector;
mod envelope;
mod event;
mod keys;
pub mod limits;
mod ndjson;
mod rejection;
mod scan;
mod timestamp;
mod window;

use crate::{
    batch::{EncodedBatch, Priority},
    event::EventError,
    time::{Month, Timestamp},
};

/// What a body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`: an envelope with `events`.
    Json,
    /// `application/x-ndjson`: an event a line.
    Ndjson,
    /// `application/cloudevents-batch+json`.
    CloudEvents,
}

/// Which timestamps are taken.
#[derive(Clone, Debug)]
pub struct Window {
    /// The earliest moment that is taken (`EVENT_MAX_AGE_DAYS` and the retention).
    pub oldest: Timestamp,
    /// The latest moment that is taken.
    pub newest: Timestamp,
    /// Months before this one were pruned: only those in `remade` are taken.
    pub pruned_before: Option<Month>,
    /// Pruned months whose leaf was made again by hand, ascending.
    pub remade: Vec<Month>,
}

/// What is known of a batch besides its body.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The body's format.
    pub format: Format,
    /// The decompressed body.
    pub body: &'a [u8],
    /// Whose batch it is.
    pub caller: &'a str,
    /// `?batch_id=` and `Idempotency-Key`, where given; already checked to be batch ids.
    pub batch_ids: &'a [String],
    /// `?priority=`, where given. By it the queue was asked for room, so the envelope must not name another.
    pub priority: Option<Priority>,
    /// `?atomic=true`: one bad event refuses the batch.
    pub atomic: bool,
    /// The moment of now: the batch's `accepted_at`.
    pub accepted_at: Timestamp,
    /// The request's W3C trace context, where a valid one came.
    pub traceparent: Option<String>,
    /// Which timestamps are taken.
    pub window: &'a Window,
    /// Events that one batch may hold.
    pub max_events: u32,
}

/// A batch that can be stored, with what was wrong with some of its events.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The batch; it has at least one row.
    pub batch: EncodedBatch,
    /// One for each rejected event, in their order.
    pub errors: Vec<EventError>,
    /// Whether the caller chose the batch's id.
    pub id_is_callers: bool,
}

/// Why a batch is refused whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not one JSON document in UTF-8: 400.
    #[error("{detail}")]
    MalformedJson {
        /// What is wrong and where.
        detail: String,
    },
    /// Header, query and body name different ids: 400.
    #[error("{detail}")]
    BatchIdMismatch {
        /// Which ids.
        detail: String,
    },
    /// More events than a batch may hold: 413.
    #[error("the batch holds more than {limit} events")]
    TooManyEvents {
        /// How many it may hold.
        limit: u32,
    },
    /// Right JSON of the wrong shape, or no event that can be stored: 422.
    #[error("{detail}")]
    InvalidBatch {
        /// What is wrong.
        detail: String,
        /// Where in the body, when it is the envelope.
        pointer: Option<String>,
        /// The batch's id, where it was read.
        batch_id: Option<String>,
        /// BLAKE3 of the events, when it is the events: a repeat is known by it.
        content_hash: Option<Box<[u8; 32]>>,
        /// One for each event, when it is the events; else empty.
        errors: Vec<EventError>,
    },
}

/// Reads a body, validates each event on its own and encodes those that are good.
///
/// # Errors
/// [`Refusal`] when nothing of the batch can be stored.
pub fn parse(request: &Request<'_>) -> Result<Parsed, Refusal> {
    check_ids(request.batch_ids)?;
    if request.body.starts_with("\u{feff}".as_bytes()) {
        return Err(Refusal::MalformedJson { detail: "the body starts with a byte-order mark".to_owned() });
    }
    match request.format {
        Format::Json => envelope::parse(request),
        Format::Ndjson => ndjson::parse(request),
        Format::CloudEvents => cloudevents::parse(request),
    }
}

/// Returns the one id that all of `ids` are.
fn check_ids<'i>(ids: impl IntoIterator<Item = &'i String>) -> Result<Option<&'i str>, Refusal> {
    let mut ids = ids.into_iter();
    let Some(id) = ids.next() else {
        return Ok(None);
    };
    match ids.find(|other| *other != id) {
        None => Ok(Some(id)),
        Some(other) => {
            Err(Refusal::BatchIdMismatch { detail: format!("the batch was given two ids, {id:?} and {other:?}") })
        }
    }
}

fn utf8(body: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(body).map_err(|error| Refusal::MalformedJson {
        detail: format!("byte {} of the body is not UTF-8", error.valid_up_to() + 1),
    })
}

fn malformed(text: &str, why: scan::Malformed) -> Refusal {
    let (line, column) = rejection::line_and_column(text, why.at);
    Refusal::MalformedJson { detail: format!("the body is not JSON at line {line}, column {column}: {}", why.what) }
}

#[cfg(test)]
mod tests;
