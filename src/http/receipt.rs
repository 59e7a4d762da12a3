//! What a caller gets for a batch that was taken.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::prefer::{PREFERENCE_APPLIED, Prefer};
use crate::{
    batch::{BatchStatus, StatusReport},
    event::EventError,
};

/// What `POST /v1/ingest/batch` answers for a batch that is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Receipt {
    /// The batch's id: the caller's, or ours where none was given.
    #[schema(max_length = 128, pattern = "^[A-Za-z0-9._:~@-]{1,128}$")]
    pub batch_id: String,
    /// How far it is.
    pub status: BatchStatus,
    /// Events that were sent: accepted + rejected.
    pub received: u32,
    /// Events that are durable.
    pub accepted: u32,
    /// Events that were refused; `errors` says why, for each.
    pub rejected: u32,
    /// Events that were stored (200 only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed: Option<u32>,
    /// Events that had been stored before (200 only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<u32>,
    /// Events that PostgreSQL refused; they are kept aside with the reason (200 only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<u32>,
    /// What is wrong with each rejected event.
    pub errors: Vec<EventError>,
    /// Where the batch's status can be asked; the same as `Location`.
    pub status_url: String,
}

impl Receipt {
    /// Writes the receipt of a batch whose status is `report`.
    pub fn new(report: StatusReport, errors: Vec<EventError>) -> Self {
        let when_final = |count| report.status.is_final().then_some(count);
        Self {
            status: report.status,
            received: report.received,
            accepted: report.accepted,
            rejected: report.rejected,
            committed: when_final(report.committed),
            duplicates: when_final(report.duplicates),
            quarantined: when_final(report.quarantined),
            errors,
            status_url: status_url(&report.batch_id),
            batch_id: report.batch_id,
        }
    }

    /// Returns the answer: 200 when the batch is final, else 202.
    pub fn into_answer(self, prefer: Prefer) -> Response {
        let is_final = self.status.is_final();
        let status = if is_final { StatusCode::OK } else { StatusCode::ACCEPTED };
        let location = HeaderValue::try_from(&self.status_url);
        let mut response = (status, Json(self)).into_response();
        if let Ok(location) = location {
            response.headers_mut().insert(LOCATION, location);
        }
        if let Some(applied) = prefer.applied(is_final) {
            response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
        response
    }
}

/// Returns the path of a batch's status. In the id all but RFC 3986's unreserved characters are percent-encoded.
fn status_url(batch_id: &str) -> String {
    use std::fmt::Write;
    let mut url = String::with_capacity(batch_id.len() + 24);
    url.push_str("/v1/batch/");
    for byte in batch_id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url.push_str("/status");
    url
}

#[cfg(test)]
pub(super) mod tests {
    use axum::body::to_bytes;

    use super::*;
    use crate::{batch::Priority, event::RejectReason};

    pub fn report(status: BatchStatus) -> StatusReport {
        StatusReport {
            batch_id: "a:b@c~d".into(),
            status,
            priority: Priority::default(),
            received: 3,
            accepted: 2,
            rejected: 1,
            committed: 2,
            duplicates: 0,
            quarantined: 0,
            attempts: 1,
            accepted_at: "2026-01-01T00:00:00Z".into(),
            completed_at: None,
            last_error: None,
        }
    }

    async fn answer(status: BatchStatus, prefer: &'static str) -> String {
        let error = EventError {
            index: 1,
            event_id: None,
            code: RejectReason::NotAnObject,
            detail: "not an object".into(),
            pointer: "/events/1".into(),
        };
        let headers = [("prefer".parse().unwrap(), HeaderValue::from_static(prefer))];
        let prefer = Prefer::read(&headers.into_iter().collect());
        let answer = Receipt::new(report(status), vec![error]).into_answer(prefer);
        let mut text = format!("{}\n", answer.status().as_u16());
        for name in [LOCATION, PREFERENCE_APPLIED] {
            text += &format!("{name}: {:?}\n", answer.headers().get(&name));
        }
        text + std::str::from_utf8(&to_bytes(answer.into_body(), 9999).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn receipt_is_202_until_the_batch_is_final() {
        insta::assert_snapshot!(answer(BatchStatus::Accepted, "respond-async, wait=5").await, @r#"
        202
        location: Some("/v1/batch/a%3Ab%40c~d/status")
        preference-applied: Some("respond-async")
        {"batch_id":"a:b@c~d","status":"accepted","received":3,"accepted":2,"rejected":1,"errors":[{"index":1,"code":"not_an_object","detail":"not an object","pointer":"/events/1"}],"status_url":"/v1/batch/a%3Ab%40c~d/status"}
        "#);
        insta::assert_snapshot!(answer(BatchStatus::Processing, "wait=5").await, @r#"
        202
        location: Some("/v1/batch/a%3Ab%40c~d/status")
        preference-applied: None
        {"batch_id":"a:b@c~d","status":"processing","received":3,"accepted":2,"rejected":1,"errors":[{"index":1,"code":"not_an_object","detail":"not an object","pointer":"/events/1"}],"status_url":"/v1/batch/a%3Ab%40c~d/status"}
        "#);
        insta::assert_snapshot!(answer(BatchStatus::Completed, "respond-async, wait=99").await, @r#"
        200
        location: Some("/v1/batch/a%3Ab%40c~d/status")
        preference-applied: Some("wait=50")
        {"batch_id":"a:b@c~d","status":"completed","received":3,"accepted":2,"rejected":1,"committed":2,"duplicates":0,"quarantined":0,"errors":[{"index":1,"code":"not_an_object","detail":"not an object","pointer":"/events/1"}],"status_url":"/v1/batch/a%3Ab%40c~d/status"}
        "#);
        insta::assert_snapshot!(answer(BatchStatus::Failed, "").await, @r#"
        200
        location: Some("/v1/batch/a%3Ab%40c~d/status")
        preference-applied: None
        {"batch_id":"a:b@c~d","status":"failed","received":3,"accepted":2,"rejected":1,"committed":2,"duplicates":0,"quarantined":0,"errors":[{"index":1,"code":"not_an_object","detail":"not an object","pointer":"/events/1"}],"status_url":"/v1/batch/a%3Ab%40c~d/status"}
        "#);
    }
}
