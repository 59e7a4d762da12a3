//! RFC 9457 problems: the body of every error.
//!
//! A handler returns a [`Problem`]; the outermost layer writes it out, because it knows the request's id.

use std::{borrow::Cow, time::Duration};

use axum::{
    body::Body,
    http::{
        HeaderName, HeaderValue,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Code;
use crate::event::EventError;

/// What a handler returns when it can't do what was asked.
pub type Result<T> = std::result::Result<T, Box<Problem>>;

/// The shortest and the longest base of `Retry-After`, before jitter.
const RETRY_SECONDS: (u64, u64) = (1, 30);

/// Why a request was refused: `application/problem+json`. More fields may come; ignore those that you don't know.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// The status's own phrase.
    #[schema(value_type = String)]
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, for programs.
    pub code: Code,
    /// What went wrong, for people.
    #[schema(value_type = String)]
    pub detail: Cow<'static, str>,
    /// The batch's id, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    /// The limit that was passed (413).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What `limit` counts: `bytes` or `events` (413).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub unit: Option<&'static str>,
    /// Whole seconds to wait before the request is sent again (429, 503); the same as the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// Where in the body: an RFC 6901 pointer (422).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The same as the header `X-Request-Id`.
    pub request_id: String,
    /// What is wrong with the events, one object each (422).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<EventError>,
    /// Headers that go with it.
    #[serde(skip)]
    #[schema(ignore)]
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether the connection can't be used for another request.
    #[serde(skip)]
    #[schema(ignore)]
    pub(super) close: bool,
}

impl Problem {
    /// Returns a problem of this kind.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Box<Self> {
        let (status, title) = code.status();
        Box::new(Self {
            title,
            status: status.as_u16(),
            code,
            detail: detail.into(),
            batch_id: None,
            limit: None,
            unit: None,
            retry_after: None,
            pointer: None,
            request_id: String::new(),
            errors: Vec::new(),
            headers: Vec::new(),
            close: false,
        })
    }

    /// Adds the batch's id, unless it has one.
    pub fn about(mut self: Box<Self>, batch_id: Option<String>) -> Box<Self> {
        if self.batch_id.is_none() {
            self.batch_id = batch_id;
        }
        self
    }

    /// Adds the limit that was passed.
    pub fn limit(mut self: Box<Self>, limit: u64, unit: &'static str) -> Box<Self> {
        self.limit = Some(limit);
        self.unit = Some(unit);
        self
    }

    /// Adds when to come back: about `base`, spread so that callers do not come back together.
    pub fn retry_after(mut self: Box<Self>, base: Duration) -> Box<Self> {
        let seconds = spread(base);
        self.retry_after = Some(seconds);
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a header.
    pub fn header(mut self: Box<Self>, name: HeaderName, value: HeaderValue) -> Box<Self> {
        self.headers.push((name, value));
        self
    }

    /// Writes the problem out. `Connection: close` and `X-Request-Id` are left to the layer that calls this.
    pub(super) fn render(mut self: Box<Self>, request_id: &str, response: &mut Response) {
        self.request_id = request_id.to_owned();
        let headers = response.headers_mut();
        for (name, value) in self.headers.drain(..) {
            headers.insert(name, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let body = serde_json::to_vec(&self).expect("a problem is plain data");
        headers.insert(axum::http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = Body::from(body);
        if response.status().canonical_reason() != Some(self.title) {
            let phrase = hyper::ext::ReasonPhrase::from_static(self.title.as_bytes());
            response.extensions_mut().insert(phrase);
        }
    }
}

/// Returns whole seconds, at least 1: `base` within 1 to 30 s, times a random 1 to 2.
fn spread(base: Duration) -> u64 {
    let base = base.as_secs_f64().clamp(RETRY_SECONDS.0 as f64, RETRY_SECONDS.1 as f64);
    (base * rand::random_range(1.0..=2.0)).round() as u64
}

impl IntoResponse for Box<Problem> {
    fn into_response(self) -> Response {
        let mut response = self.code.status().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_spread_and_bounded() {
        for (base, range) in [(0, 1..=2), (7, 7..=14), (300, 30..=60)] {
            let values: Vec<u64> = (0..200).map(|_| spread(Duration::from_secs(base))).collect();
            assert!(values.iter().all(|value| range.contains(value)), "{base}: {values:?}");
            assert!(values.iter().any(|value| *value != values[0]), "{base}");
        }
    }

    #[test]
    fn titles_are_the_phrases_of_their_statuses() {
        for code in Code::ALL {
            let (status, title) = code.status();
            let newer = [(413, "Content Too Large"), (422, "Unprocessable Content")];
            let known = newer.iter().find(|(number, _)| *number == status.as_u16());
            assert_eq!(Some(title), known.map(|(_, phrase)| *phrase).or(status.canonical_reason()));
        }
    }
}
