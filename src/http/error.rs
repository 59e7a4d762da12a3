//! What can go wrong with a request: one table from a code to its status and title, and from the intake's errors to
//! the problem that the caller sees.

use std::time::Duration;

use axum::http::StatusCode;

use super::problem::Problem;
use crate::{
    intake::{TakeError, parse::Refusal},
    label::label,
    status::LedgerUnavailable,
};

label! {
    /// What went wrong. Programs switch on this alone; the set is closed.
    #[derive(utoipa::ToSchema)]
    #[schema(rename_all = "snake_case")]
    pub enum Code("code") {
        /// The body is not one JSON document in UTF-8, or its compression is broken.
        MalformedJson = "malformed_json",
        /// Query, header and body name different ids.
        BatchIdMismatch = "batch_id_mismatch",
        /// No such batch is known here, or it is not committed yet.
        UnknownBatch = "unknown_batch",
        /// No such path.
        NotFound = "not_found",
        /// The path has no such method.
        MethodNotAllowed = "method_not_allowed",
        /// The body did not arrive in time.
        BodyTimeout = "body_timeout",
        /// The id belongs to a batch with other content.
        BatchIdReused = "batch_id_reused",
        /// Bytes, decompressed bytes or events over the limit.
        TooLarge = "too_large",
        /// Type, charset or coding of the body are not known.
        UnsupportedMediaType = "unsupported_media_type",
        /// Readable, but refused whole.
        InvalidBatch = "invalid_batch",
        /// A bug of ours; the outcome is unknown.
        Internal = "internal",
        /// The queue has no room.
        QueueFull = "queue_full",
        /// Batches can't be taken now.
        Unavailable = "unavailable",
    }
}

impl Code {
    /// Returns the status that goes with the code, and the status's own phrase.
    pub const fn status(self) -> (StatusCode, &'static str) {
        match self {
            Self::MalformedJson | Self::BatchIdMismatch => (StatusCode::BAD_REQUEST, "Bad Request"),
            Self::UnknownBatch | Self::NotFound => (StatusCode::NOT_FOUND, "Not Found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "Request Timeout"),
            Self::BatchIdReused => (StatusCode::CONFLICT, "Conflict"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Content Too Large"),
            Self::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type"),
            Self::InvalidBatch => (StatusCode::UNPROCESSABLE_ENTITY, "Unprocessable Content"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
            Self::QueueFull | Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
        }
    }
}

/// When to come back while the journal's disk is in trouble, or the ledger away, or this replica stopping.
pub(super) const OUTAGE_RETRY: Duration = Duration::from_secs(5);

impl From<TakeError> for Box<Problem> {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Refused(refusal) => refusal.into(),
            TakeError::Reused { batch_id } => {
                Problem::new(Code::BatchIdReused, "batch_id belongs to a batch with other content; nothing was stored")
                    .about(Some(batch_id))
            }
            TakeError::QueueFull { batch_id, retry_after } => Problem::new(
                Code::QueueFull,
                "the queue is full; nothing was stored, send the batch again with the same batch_id",
            )
            .retry_after(retry_after)
            .about(batch_id),
            TakeError::NotWritable { batch_id } => Problem::new(
                Code::Unavailable,
                "the journal can't be written; nothing was stored, send the batch again with the same batch_id",
            )
            .retry_after(OUTAGE_RETRY)
            .about(batch_id),
            TakeError::OutcomeUnknown { batch_id } => Problem::new(
                Code::Unavailable,
                "the journal's disk failed and the outcome is unknown: send the batch again with the same batch_id",
            )
            .retry_after(OUTAGE_RETRY)
            .about(Some(batch_id)),
        }
    }
}

impl From<Refusal> for Box<Problem> {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::MalformedJson { detail } => Problem::new(Code::MalformedJson, detail),
            Refusal::BatchIdMismatch { detail } => Problem::new(Code::BatchIdMismatch, detail),
            Refusal::TooManyEvents { limit } => {
                let detail = format!("the batch holds more than {limit} events; send it as several");
                Problem::new(Code::TooLarge, detail).limit(limit.into(), "events")
            }
            Refusal::InvalidBatch { detail, pointer, batch_id, errors, .. } => {
                let mut problem = Problem::new(Code::InvalidBatch, detail).about(batch_id);
                problem.pointer = pointer;
                problem.errors = errors;
                problem
            }
        }
    }
}

impl From<LedgerUnavailable> for Box<Problem> {
    fn from(_: LedgerUnavailable) -> Self {
        Problem::new(Code::Unavailable, "this replica does not know the batch, and the ledger can't be asked now")
            .retry_after(OUTAGE_RETRY)
    }
}
