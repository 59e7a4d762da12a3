//! `POST /v1/ingest/batch`: reads a batch, hands it to the intake, and answers once it is durable.
//!
//! What needs no body is checked before the body is read. Memory for the body is had at once or not at all, and given
//! back before a caller who prefers to waits.

use std::sync::Arc;

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    http::{header::EXPECT, request::Parts},
    response::Response,
};
use bytes::Bytes;

use super::{
    Api, CALLER, Peer, body,
    error::Code,
    head::Head,
    media::Coding,
    memory::Permit,
    openapi::{CloudEventBatch, IngestBatch, IngestEvent},
    prefer::Prefer,
    problem::{Problem, Result},
    receipt::Receipt,
};
use crate::{
    intake::{Delivery, Taken},
    metrics::Source,
};

/// A body that holds its memory permit for as long as anybody holds it: a batch is taken to its end also when its
/// caller goes away, and with the caller the request.
struct PermittedBody {
    bytes: Bytes,
    _permit: Arc<Permit>,
}

impl AsRef<[u8]> for PermittedBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Takes a batch of events.
///
/// The answer comes once the batch is durable; its events are committed soon after. Sending a batch again under the
/// same `batch_id` is safe. One bad event never fails its neighbors: it is listed in `errors`.
#[utoipa::path(
    post,
    path = "/v1/ingest/batch",
    tag = "batches",
    operation_id = "ingestBatch",
    params(
        ("batch_id" = Option<String>, Query, max_length = 128, pattern = "^[A-Za-z0-9._:~@-]{1,128}$",
            description = "The caller's id for the batch; neither `.` nor `..`."),
        ("priority" = Option<u8>, Query, minimum = 0, maximum = 10,
            description = "How urgent the batch is; 0 (the default) to 10 (the most urgent)."),
        ("atomic" = Option<bool>, Query, description = "One bad event refuses the whole batch."),
        ("Idempotency-Key" = Option<String>, Header,
            description = "One more way to say `batch_id`: bare, or as a structured string in quotes."),
        ("Prefer" = Option<String>, Header, example = "wait=5",
            description = "`wait=SECONDS` (at most 50) holds the answer until the batch is final; `respond-async` does not."),
        ("Content-Encoding" = Option<String>, Header, description = "`gzip` or `zstd`."),
        ("X-Request-Id" = Option<String>, Header, max_length = 64, pattern = "^[A-Za-z0-9._-]{1,64}$",
            description = "Taken over into the answer and the log."),
        ("traceparent" = Option<String>, Header, description = "W3C trace context; kept with the batch."),
    ),
    request_body(
        description = "At most 16 MiB, 64 MiB decompressed and 10,000 events, unless the server is set otherwise. NDJSON is an event a line; schema and example are a line's.",
        content(
            (IngestBatch = "application/json", example = json!({
                "batch_id": "orders-17",
                "events": [{
                    "event_id": "evt_123", "service_name": "checkout", "event_type": "order_placed",
                    "timestamp": "2026-01-05T10:00:00Z", "payload": {"order": 4711}, "user_id": "u-9",
                }],
            })),
            (IngestEvent = "application/x-ndjson", example = json!({
                "event_id": "evt_123", "service_name": "checkout", "event_type": "order_placed",
                "timestamp": "2026-01-05T10:00:00Z", "payload": {"order": 4711},
            })),
            (CloudEventBatch = "application/cloudevents-batch+json", example = json!([{
                "specversion": "1.0", "id": "evt_123", "source": "checkout", "type": "order_placed",
                "time": "2026-01-05T10:00:00Z", "data": {"order": 4711},
            }])),
        ),
    ),
    responses(
        (status = 200, body = Receipt, description = "The batch is final: it became so while the answer was held, or it is a repeat.",
            headers(
                ("Location" = String, description = "The same as `status_url`."),
                ("Preference-Applied" = String, description = "`wait=SECONDS`, if that was asked for."),
            ),
            example = json!({
                "batch_id": "orders-17", "status": "completed", "received": 2, "accepted": 2, "rejected": 0,
                "committed": 2, "duplicates": 0, "quarantined": 0, "errors": [],
                "status_url": "/v1/batch/orders-17/status",
            })),
        (status = 202, body = Receipt, description = "The batch is durable; its commit follows.",
            headers(
                ("Location" = String, description = "The same as `status_url`."),
                ("Preference-Applied" = String, description = "`respond-async`, if that was asked for."),
            ),
            example = json!({
                "batch_id": "orders-17", "status": "accepted", "received": 2, "accepted": 1, "rejected": 1,
                "errors": [{
                    "index": 1, "event_id": "evt_124", "code": "invalid_timestamp",
                    "detail": "\"2026-13-01T00:00:00Z\" is not an RFC 3339 time", "pointer": "/events/1/timestamp",
                }],
                "status_url": "/v1/batch/orders-17/status",
            })),
    ),
)]
pub(super) async fn ingest(State(api): State<Arc<Api>>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let prefer = Prefer::read(&parts.headers);
    let Taken { known, errors } = receive(&api, &parts, body).await?;
    let mut report = known.report;
    if let (false, Some(limit)) = (report.status.is_final(), prefer.limit()) {
        let key = api.key(&report.batch_id);
        tokio::select! {
            biased;
            () = api.end_waits.cancelled() => {}
            found = api.status.wait(&key, limit) => {
                // When the ledger can't be asked, what was known when the batch was taken still holds.
                if let Ok(Some(known)) = found {
                    report = known.report;
                }
            }
        }
    }
    Ok(Receipt::new(report, errors).into_answer(prefer))
}

/// Reads the batch and hands it over. A body that is refused is let go of in a way that lets the answer arrive.
async fn receive(api: &Api, parts: &Parts, mut body: Body) -> Result<Taken> {
    let mut awaits_continue = parts.headers.contains_key(EXPECT);
    match read(api, parts, &mut body, &mut awaits_continue).await {
        Ok((delivery, permit)) => {
            let taken = api.intake.take(delivery).await;
            drop(permit);
            Ok(taken?)
        }
        Err(mut problem) => {
            body::let_go(body, parts.version, awaits_continue, &mut problem).await;
            Err(problem)
        }
    }
}

async fn read(
    api: &Api,
    parts: &Parts,
    body: &mut Body,
    awaits_continue: &mut bool,
) -> Result<(Delivery, Arc<Permit>)> {
    let head = Head::read(parts)?;
    let about = |problem: Box<Problem>| problem.about(head.batch_id.clone());
    let length = body.size_hint().exact();
    if length.is_some_and(|length| length > api.limits.request) {
        return Err(about(body::too_large(api.limits.request)));
    }
    if api.stop_accepting.is_cancelled() {
        return Err(about(stopping()));
    }
    let admission_key = parts.extensions.get::<Peer>().map(Peer::admission_key).unwrap_or_default();
    // What a compressed body will be is not known; four times is usual for events.
    let factor = if head.coding == Coding::Identity { 1 } else { 4 };
    let about_bytes = length.unwrap_or_default().saturating_mul(factor);
    api.intake.admit(&admission_key, head.priority, about_bytes).map_err(|error| about(error.into()))?;
    let permit = body::permit(&api.memory, head.coding, length).map_err(about)?;
    *awaits_continue = false;
    let (bytes, permit) = body::read(body, head.coding, &api.limits, permit).await.map_err(about)?;
    let permit = Arc::new(permit);
    let permitted = PermittedBody { bytes, _permit: Arc::clone(&permit) };
    let delivery = Delivery {
        source: Source::Http,
        caller: CALLER.to_owned(),
        admission_key,
        format: head.format,
        body: Bytes::from_owner(permitted),
        batch_ids: head.batch_id.into_iter().collect(),
        priority: head.priority,
        atomic: head.atomic,
        traceparent: head.traceparent,
    };
    Ok((delivery, permit))
}

fn stopping() -> Box<Problem> {
    let detail = "this replica is stopping; nothing was stored, send the batch again with the same batch_id";
    Problem::new(Code::Unavailable, detail).retry_after(std::time::Duration::from_secs(1))
}
