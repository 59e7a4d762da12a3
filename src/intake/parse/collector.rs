//! Gathers the events of one batch: rows of the good, errors of the bad, and what the head says of all.

use uuid::Uuid;

use super::{
    Parsed, Refusal, Request,
    event::{Fields, Names, Scratch},
    rejection::Rejection,
    window::Times,
};
use crate::{
    batch::{BatchHead, BatchKey, EncodedBatch, Priority},
    event::{EventError, RejectReason},
    row::{self, RowOrigin},
    time::Timestamp,
};

/// What the batch as a whole said of itself.
#[derive(Debug)]
pub(super) struct Sent {
    /// The caller's own id, where one was given.
    pub(super) batch_id: Option<String>,
    pub(super) priority: Priority,
    /// BLAKE3 of the events as they were sent.
    pub(super) content_hash: [u8; 32],
}

/// The events of one batch so far.
#[derive(Debug)]
pub(super) struct Collector<'r> {
    request: &'r Request<'r>,
    names: &'static Names,
    /// Where the events stand in the body: the pointers' beginning.
    place: &'static str,
    origin: RowOrigin,
    times: Times<'r>,
    scratch: Scratch,
    rows: Vec<u8>,
    errors: Vec<EventError>,
    received: u32,
    accepted: u32,
    first_timestamp: Timestamp,
    last_timestamp: Timestamp,
}

impl<'r> Collector<'r> {
    pub(super) fn new(request: &'r Request<'r>, names: &'static Names, place: &'static str) -> Self {
        Self {
            request,
            names,
            place,
            origin: RowOrigin {
                received_at: request.accepted_at,
                batch: new_id(request.accepted_at),
                priority: request.priority.unwrap_or_default().get(),
            },
            times: Times::new(request.window),
            scratch: Scratch::default(),
            // A row is about as long as the event that it is made of.
            rows: Vec::with_capacity(request.body.len()),
            errors: Vec::new(),
            received: 0,
            accepted: 0,
            first_timestamp: Timestamp::from_micros(i64::MAX),
            last_timestamp: Timestamp::from_micros(i64::MIN),
        }
    }

    /// Counts an event that begins.
    pub(super) const fn begin(&mut self) -> Result<(), Refusal> {
        if self.received == self.request.max_events {
            let limit = self.request.max_events;
            return Err(Refusal::TooManyEvents { limit });
        }
        self.received += 1;
        Ok(())
    }

    /// Takes the event that began last, or refuses it.
    pub(super) fn take(&mut self, mut fields: Fields<'_>) {
        let accepted_at = self.request.accepted_at;
        match fields.columns(self.names, &mut self.scratch, &mut self.times, accepted_at) {
            Ok(columns) => {
                row::encode_row(&mut self.rows, &self.origin, &columns);
                self.accepted += 1;
                self.first_timestamp = self.first_timestamp.min(columns.timestamp);
                self.last_timestamp = self.last_timestamp.max(columns.timestamp);
                self.times.add(columns.timestamp);
            }
            Err(rejection) => {
                let event_id = fields.readable_id(&mut self.scratch);
                self.reject(event_id, rejection);
            }
        }
    }

    /// Refuses the event that began last.
    pub(super) fn reject(&mut self, event_id: Option<String>, rejection: Rejection) {
        let index = self.received - 1;
        self.errors.push(EventError {
            index,
            event_id,
            code: rejection.code,
            detail: rejection.detail,
            pointer: format!("{}/{index}{}", self.place, rejection.path),
        });
    }

    /// Makes the batch, or refuses it when it is empty, all bad, or bad in parts and atomic.
    pub(super) fn finish(mut self, sent: Sent) -> Result<Parsed, Refusal> {
        if let Some(detail) = self.refused_whole() {
            return Err(Refusal::InvalidBatch {
                detail,
                pointer: (self.received == 0).then(|| self.place.to_owned()),
                batch_id: sent.batch_id,
                content_hash: Some(Box::new(sent.content_hash)),
                errors: self.all_errors(),
            });
        }
        if sent.priority.get() != self.origin.priority {
            row::set_priority(&mut self.rows, sent.priority.get());
        }
        let id_is_callers = sent.batch_id.is_some();
        let key = BatchKey {
            caller: self.request.caller.to_owned(),
            batch_id: sent.batch_id.unwrap_or_else(|| self.origin.batch.to_string()),
        };
        let head = BatchHead {
            key,
            batch: self.origin.batch,
            content_hash: sent.content_hash,
            priority: sent.priority,
            received: self.received,
            accepted: self.accepted,
            rejected: self.errors.iter().map(|error| error.index).collect(),
            accepted_at: self.request.accepted_at,
            first_timestamp: self.first_timestamp,
            last_timestamp: self.last_timestamp,
            months: self.times.into_months(),
            traceparent: self.request.traceparent.clone(),
        };
        Ok(Parsed { batch: EncodedBatch { head, rows: self.rows }, errors: self.errors, id_is_callers })
    }

    fn refused_whole(&self) -> Option<String> {
        let (bad, received) = (self.errors.len(), self.received);
        if received == 0 {
            Some("the batch holds no events".to_owned())
        } else if self.request.atomic && bad > 0 {
            Some(format!("atomic was asked for and {bad} of {received} events can't be stored; nothing was stored"))
        } else if self.accepted == 0 {
            Some(match received {
                1 => "the batch's one event can't be stored".to_owned(),
                _ => format!("none of the batch's {received} events can be stored"),
            })
        } else {
            None
        }
    }

    /// Returns an error for each event of a batch that is refused whole, in their order.
    fn all_errors(&mut self) -> Vec<EventError> {
        let mut bad = std::mem::take(&mut self.errors).into_iter().peekable();
        let mut good = row::rows(&self.rows);
        let all = (0..self.received).filter_map(|index| {
            if let Some(error) = bad.next_if(|error| error.index == index) {
                return Some(error);
            }
            Some(EventError {
                index,
                event_id: Some(good.next()?.event_id().to_owned()),
                code: RejectReason::Atomic,
                detail: "good, but refused with its batch".to_owned(),
                pointer: format!("{}/{index}", self.place),
            })
        });
        all.collect()
    }
}

/// Returns a UUIDv7 of the moment `now`.
fn new_id(now: Timestamp) -> Uuid {
    let micros = u64::try_from(now.as_micros()).unwrap_or_default();
    let nanos = (micros % 1_000_000) as u32 * 1000;
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos))
}
