//! `GET /v1/batch/{batch_id}/status`: what became of a batch.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};

use super::{
    Api,
    error::Code,
    prefer::{PREFERENCE_APPLIED, Prefer},
    problem::{Problem, Result},
};
use crate::batch::{StatusReport, is_batch_id};

/// Tells what became of a batch.
///
/// 404 means: not known to this replica, and not committed yet or pruned. It may be asked again.
#[utoipa::path(
    get,
    path = "/v1/batch/{batch_id}/status",
    tag = "batches",
    operation_id = "batchStatus",
    params(
        ("batch_id" = String, Path, max_length = 128, pattern = "^[A-Za-z0-9._:~@-]{1,128}$",
            description = "The batch's id, percent-encoded."),
        ("Prefer" = Option<String>, Header, example = "wait=5",
            description = "`wait=SECONDS` (at most 50) holds the answer until the batch is final."),
        ("X-Request-Id" = Option<String>, Header, max_length = 64, pattern = "^[A-Za-z0-9._-]{1,64}$",
            description = "Taken over into the answer and the log."),
    ),
    responses(
        (status = 200, body = StatusReport, description = "How far the batch is.",
            headers(
                ("Preference-Applied" = String, description = "`wait=SECONDS`, if that was asked for and the batch is final."),
                ("Cache-Control" = String, description = "`no-store`."),
            ),
            example = json!({
                "batch_id": "orders-17", "status": "completed", "priority": 0, "received": 2, "accepted": 2,
                "rejected": 0, "committed": 2, "duplicates": 0, "quarantined": 0, "attempts": 1,
                "accepted_at": "2026-01-05T10:00:00.000123Z", "completed_at": "2026-01-05T10:00:00.021456Z",
            })),
    ),
)]
pub(super) async fn status(
    State(api): State<Arc<Api>>,
    path: std::result::Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response> {
    // `respond-async` is about a 202, which this route does not have.
    let prefer = Prefer { respond_async: false, ..Prefer::read(&headers) };
    // What can't be an id names no batch.
    let batch_id = path.ok().map(|Path(id)| id).filter(|id| is_batch_id(id)).ok_or_else(unknown)?;
    let key = api.key(&batch_id);
    let known = match prefer.limit() {
        None => api.status.find(&key).await?,
        Some(limit) => tokio::select! {
            biased;
            () = api.end_waits.cancelled() => api.status.find(&key).await?,
            found = api.status.wait(&key, limit) => found?,
        },
    };
    let report = known.ok_or_else(|| unknown().about(Some(batch_id)))?.report;
    let applied = prefer.applied(report.status.is_final());
    let mut response = Json(report).into_response();
    if let Some(applied) = applied {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

fn unknown() -> Box<Problem> {
    let detail = "no batch of this id is known to this replica, or it is not committed yet, or it was pruned";
    Problem::new(Code::UnknownBatch, detail).header(RETRY_AFTER, HeaderValue::from_static("1"))
}
