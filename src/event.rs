//! What the door says of an event that it refuses.

use serde::Serialize;
use utoipa::ToSchema;

use crate::label::label;

label! {
    /// Why an event was refused at the door. The name is the `code` that the caller sees.
    pub enum RejectReason("reason") {
        /// The event is not a JSON object.
        NotAnObject = "not_an_object",
        /// A line of NDJSON is not JSON.
        MalformedJson = "malformed_json",
        /// A field of the event stands there twice.
        DuplicateKey = "duplicate_key",
        /// A required field is not there.
        MissingField = "missing_field",
        /// A field has another type than it must.
        WrongType = "wrong_type",
        /// A required text is empty.
        EmptyField = "empty_field",
        /// A text is longer than its limit.
        FieldTooLong = "field_too_long",
        /// A text holds U+0000, which PostgreSQL can't store.
        NulCharacter = "nul_character",
        /// A text holds half of a surrogate pair, which is no character.
        LoneSurrogate = "lone_surrogate",
        /// A number that `jsonb` can't hold, or that is longer than the limit.
        NumberOutOfRange = "number_out_of_range",
        /// Objects and arrays lie deeper in each other than the limit.
        NestingTooDeep = "nesting_too_deep",
        /// The timestamp is not an RFC 3339 time with an offset.
        InvalidTimestamp = "invalid_timestamp",
        /// The timestamp is older than what is taken or kept.
        TimestampTooOld = "timestamp_too_old",
        /// The timestamp lies further ahead than clocks differ.
        TimestampTooNew = "timestamp_too_new",
        /// A `CloudEvent` of a kind that can't be stored.
        UnsupportedEvent = "unsupported_event",
        /// The API key may not write for this service.
        ForbiddenService = "forbidden_service",
        /// A good event, refused with its batch.
        Atomic = "atomic",
    }
}

/// What is wrong with one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventError {
    /// The event's index in the batch as sent, from 0.
    pub index: u32,
    /// The event's id, where it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// What is wrong, for programs.
    #[schema(value_type = String, example = "invalid_timestamp")]
    pub code: RejectReason,
    /// What is wrong, for people.
    pub detail: String,
    /// Where: an RFC 6901 pointer into the body as sent.
    pub pointer: String,
}
