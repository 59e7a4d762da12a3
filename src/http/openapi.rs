//! The OpenAPI document: routes and answers from the handlers, errors from the table of codes.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use utoipa::{
    OpenApi, ToSchema,
    openapi::{
        Content, ContentBuilder, Header, HttpMethod, ObjectBuilder, Ref, RefOr, Response, Schema, Type,
        example::ExampleBuilder, path::Operation,
    },
};

use super::{docs, error::Code, health, ingest, metrics::Route, problem::Problem, status};
use crate::event::{EventError, RejectReason};

/// Events in a batch, unless the server is set otherwise.
const MAX_EVENTS: usize = 10_000;

/// The body of a batch as `application/json`. Unknown fields are ignored.
#[derive(Debug, ToSchema)]
pub struct IngestBatch {
    /// The events.
    #[schema(min_items = 1, max_items = 10_000)]
    pub events: Vec<IngestEvent>,
    /// The caller's id for the batch; neither `.` nor `..`. Unset, the server makes one.
    #[schema(max_length = 128, pattern = "^[A-Za-z0-9._:~@-]{1,128}$", example = "orders-17")]
    pub batch_id: Option<String>,
    /// How urgent the batch is; 10 is the most urgent.
    #[schema(minimum = 0, maximum = 10, default = 0)]
    pub priority: Option<u8>,
}

/// An event. It is known by `service_name`, `event_id` and `timestamp`, and stored once.
#[derive(Debug, ToSchema)]
pub struct IngestEvent {
    /// The event's id; at most 256 bytes. A UUIDv7 is a good one.
    #[schema(min_length = 1, max_length = 256, example = "evt_123")]
    pub event_id: String,
    /// The service that it comes from; at most 128 bytes.
    #[schema(min_length = 1, max_length = 128, example = "checkout")]
    pub service_name: String,
    /// What happened; at most 128 bytes.
    #[schema(min_length = 1, max_length = 128, example = "order_placed")]
    pub event_type: String,
    /// What belongs to it; objects and arrays at most 64 deep.
    #[schema(value_type = Object)]
    pub payload: Value,
    /// When it happened, RFC 3339 with an offset. Unset, it is the moment the batch was accepted, and the event is safe
    /// to send again only under its batch's id.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-01-05T10:00:00Z")]
    pub timestamp: Option<String>,
    /// What else is known of it; objects and arrays at most 64 deep.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
    /// Whom it is about; at most 128 bytes. Unset, it is `payload.user_id` where that is a string.
    #[schema(max_length = 128)]
    pub user_id: Option<String>,
}

/// The body of a batch as `application/cloudevents-batch+json`.
#[derive(Debug, ToSchema)]
pub struct CloudEventBatch(pub Vec<CloudEvent>);

/// An event as CloudEvents 1.0 writes it. Attributes beside these become `metadata`.
#[derive(Debug, ToSchema)]
pub struct CloudEvent {
    /// `1.0`.
    #[schema(example = "1.0")]
    pub specversion: String,
    /// Becomes `event_id`.
    #[schema(min_length = 1, max_length = 256)]
    pub id: String,
    /// Becomes `service_name`.
    #[schema(min_length = 1, max_length = 128)]
    pub source: String,
    /// Becomes `event_type`.
    #[schema(min_length = 1, max_length = 128)]
    pub r#type: String,
    /// Becomes `timestamp`.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub time: Option<String>,
    /// Becomes `payload`; an object.
    #[schema(value_type = Object)]
    pub data: Value,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "forebay",
        description = "Takes batches of events, makes them durable before it answers, and lands each exactly once in PostgreSQL.\n\nEvery error is an RFC 9457 problem; programs switch on its `code`. Retry on 408, 429, 502, 503, 504 and a broken connection, with the same `batch_id` and not before `Retry-After`.",
    ),
    paths(ingest::ingest, status::status, health::health, health::metrics, docs::index, docs::openapi),
    components(schemas(Problem)),
    tags((name = "batches", description = "Sending events."), (name = "operation", description = "Running the server.")),
)]
struct Handlers;

/// What can go wrong on each route, besides what is no route or no method of one.
const fn errors(route: Route) -> &'static [Code] {
    match route {
        Route::Ingest => &[
            Code::MalformedJson,
            Code::BatchIdMismatch,
            Code::BodyTimeout,
            Code::BatchIdReused,
            Code::TooLarge,
            Code::UnsupportedMediaType,
            Code::InvalidBatch,
            Code::Internal,
            Code::QueueFull,
            Code::Unavailable,
        ],
        Route::Status => &[Code::UnknownBatch, Code::Internal, Code::Unavailable],
        _ => &[Code::Internal],
    }
}

/// Returns the document as JSON.
pub fn openapi_json() -> String {
    document().to_pretty_json().expect("the document is plain data")
}

/// Returns the document.
pub fn document() -> &'static utoipa::openapi::OpenApi {
    static DOCUMENT: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(build);
    &DOCUMENT
}

fn build() -> utoipa::openapi::OpenApi {
    let mut document = Handlers::openapi();
    let paths = &mut document.paths;
    if let Some(mut operation) = paths.paths.get("/metrics").and_then(|item| item.get.clone()) {
        operation.operation_id = Some("v1Metrics".into());
        paths.add_path_operation(Route::V1Metrics.as_str(), vec![HttpMethod::Get], operation);
    }
    if let Some(RefOr::T(Schema::Array(list))) =
        document.components.as_mut().and_then(|components| components.schemas.get_mut("CloudEventBatch"))
    {
        (list.min_items, list.max_items) = (Some(1), Some(MAX_EVENTS));
    }
    for (path, item) in &mut paths.paths {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            add_errors(operation, errors(Route::of(path)));
        }
    }
    document
}

/// Adds the problems to an operation's answers, one answer for all codes of a status.
fn add_errors(operation: &mut Operation, codes: &[Code]) {
    let responses = &mut operation.responses.responses;
    for code in codes {
        let (status, title) = code.status();
        let response = responses.entry(status.as_u16().to_string());
        let RefOr::T(response) = response.or_insert_with(|| RefOr::T(Response::new(title))) else {
            continue;
        };
        let media = "application/problem+json".to_owned();
        let schema = Ref::from_schema_name("Problem");
        let content = response.content.entry(media).or_insert_with(|| Content::new(Some(schema)));
        let example = ExampleBuilder::new().summary(code.as_str()).value(Some(example(*code)));
        let mut examples = std::mem::take(&mut content.examples);
        examples.insert(code.as_str().to_owned(), example.build().into());
        *content = ContentBuilder::from(content.clone()).examples_from_iter(examples).build();
        let names: &[(&str, &str)] = match code {
            Code::UnsupportedMediaType => &[
                ("Accept-Post", "The types that are taken, when the type was wrong."),
                ("Accept-Encoding", "The codings that are taken, when the coding was wrong."),
            ],
            Code::QueueFull | Code::Unavailable | Code::UnknownBatch => &[("Retry-After", "Seconds.")],
            Code::BodyTimeout => &[("Connection", "`close`.")],
            _ => &[],
        };
        for (name, description) in names {
            response.headers.insert((*name).to_owned(), header(description));
        }
    }
    for response in responses.values_mut() {
        if let RefOr::T(response) = response {
            let description = "The request's id: the one that was sent, if it was fit, else a UUIDv7.";
            response.headers.insert("X-Request-Id".to_owned(), header(description));
        }
    }
}

fn header(description: &str) -> Header {
    let mut header = Header::new(ObjectBuilder::new().schema_type(Type::String));
    header.description = Some(description.to_owned());
    header
}

/// Returns what a problem of this code looks like.
fn example(code: Code) -> Value {
    let detail = match code {
        Code::MalformedJson => "the body is not JSON: expected `,` or `}` at line 3 column 7",
        Code::BatchIdMismatch => "batch_id in the query is \"orders-17\" and Idempotency-Key is \"orders-18\"",
        Code::UnknownBatch => {
            "no batch of this id is known to this replica, or it is not committed yet, or it was pruned"
        }
        Code::NotFound => "there is nothing at this path",
        Code::MethodNotAllowed => "the path has no such method; Allow lists those that it has",
        Code::BodyTimeout => "the body did not arrive within 15 s; nothing was stored",
        Code::BatchIdReused => "batch_id belongs to a batch with other content; nothing was stored",
        Code::TooLarge => "the body is larger than 16777216 bytes",
        Code::UnsupportedMediaType => {
            "the body must be compressed once or not at all, with one of gzip, zstd, identity"
        }
        Code::InvalidBatch => "atomic was asked for and 1 of 2 events can't be stored; nothing was stored",
        Code::Internal => "a bug of ours; the outcome is unknown, and the log has the cause under the request id",
        Code::QueueFull => "the queue is full; nothing was stored, send the batch again with the same batch_id",
        Code::Unavailable => {
            "this replica is stopping; nothing was stored, send the batch again with the same batch_id"
        }
    };
    let mut problem = Problem::new(code, detail);
    problem.request_id = "0199f0c2-7d1e-7a40-9d0c-5f3b1a0c2e11".to_owned();
    match code {
        Code::TooLarge => problem = problem.limit(16 << 20, "bytes"),
        Code::QueueFull | Code::Unavailable => problem.retry_after = Some(7),
        Code::InvalidBatch => {
            let error = |index, event_id: &str, code, detail: &str, pointer: &str| EventError {
                index,
                event_id: Some(event_id.to_owned()),
                code,
                detail: detail.to_owned(),
                pointer: pointer.to_owned(),
            };
            let time = "\"2026-13-01T00:00:00Z\" is not an RFC 3339 time";
            problem.errors = vec![
                error(0, "evt_123", RejectReason::Atomic, "good, but refused with its batch", "/events/0"),
                error(1, "evt_124", RejectReason::InvalidTimestamp, time, "/events/1/timestamp"),
            ];
        }
        _ => {}
    }
    serde_json::to_value(problem).unwrap_or_else(|_| json!(Map::new()))
}

#[cfg(test)]
mod tests;
