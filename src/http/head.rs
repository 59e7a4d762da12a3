//! What a request to the ingest route says before its body is read.

use axum::http::{HeaderMap, request::Parts};
use url::form_urlencoded;

use super::{
    error::Code,
    media::{self, Coding},
    problem::{Problem, Result},
};
use crate::{
    batch::{Priority, is_batch_id},
    intake::parse::Format,
};

/// The readable head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The body's format.
    pub format: Format,
    /// How the body is compressed.
    pub coding: Coding,
    /// The id that the query or the header gives the batch.
    pub batch_id: Option<String>,
    /// The priority that the query gives it.
    pub priority: Option<Priority>,
    /// Whether one bad event refuses the batch.
    pub atomic: bool,
    /// The request's W3C trace context, where a valid one came.
    pub traceparent: Option<String>,
}

impl Head {
    /// Reads the head.
    ///
    /// # Errors
    /// 415, 422 for a value that is none, 400 when query and header name different ids.
    pub fn read(parts: &Parts) -> Result<Self> {
        let format = media::format(&parts.headers)?;
        let coding = media::coding(&parts.headers)?;
        let query = Query::read(parts.uri.query().unwrap_or_default())?;
        let header = idempotency_key(&parts.headers)?;
        if let (Some(query), Some(header)) = (&query.batch_id, &header)
            && query != header
        {
            let detail = format!("batch_id in the query is {query:?} and Idempotency-Key is {header:?}");
            return Err(Problem::new(Code::BatchIdMismatch, detail));
        }
        Ok(Self {
            format,
            coding,
            batch_id: query.batch_id.or(header),
            priority: query.priority,
            atomic: query.atomic.unwrap_or_default(),
            traceparent: traceparent(&parts.headers),
        })
    }
}

#[derive(Debug, Default)]
struct Query {
    batch_id: Option<String>,
    priority: Option<Priority>,
    atomic: Option<bool>,
}

impl Query {
    /// Reads the query; parameters that are not known are ignored.
    fn read(text: &str) -> Result<Self> {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match name.as_ref() {
                "batch_id" => once(&mut query.batch_id, batch_id(&value).ok_or_else(bad_batch_id)?, "batch_id")?,
                "priority" => {
                    let number = Some(value.as_ref()).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
                    let priority = number.and_then(|digits| Priority::try_from(digits.parse::<u8>().ok()?).ok());
                    let bad = || invalid("priority in the query must be a whole number from 0 to 10");
                    once(&mut query.priority, priority.ok_or_else(bad)?, "priority")?;
                }
                "atomic" => {
                    let bad = |_| invalid("atomic in the query must be true or false");
                    once(&mut query.atomic, value.parse().map_err(bad)?, "atomic")?;
                }
                _ => {}
            }
        }
        Ok(query)
    }
}

/// Sets what may be said twice, but not in two ways.
fn once<T: PartialEq>(slot: &mut Option<T>, value: T, name: &str) -> Result<()> {
    match slot {
        Some(before) if *before != value => Err(invalid(format!("{name} stands in the query twice, with two values"))),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> Box<Problem> {
    Problem::new(Code::InvalidBatch, detail)
}

fn bad_batch_id() -> Box<Problem> {
    invalid("batch_id must be 1 to 128 of A-Z a-z 0-9 . _ : ~ @ - and neither \".\" nor \"..\"")
}

fn batch_id(text: &str) -> Option<String> {
    is_batch_id(text).then(|| text.to_owned())
}

/// Reads `Idempotency-Key`: a structured string, or the bare id.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let mut key: Option<String> = None;
    for value in headers.get_all("idempotency-key") {
        // No id holds a character that a structured string escapes, so taking the quotes off is enough.
        let text = value.to_str().unwrap_or_default().trim();
        let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        let next = batch_id(bare).ok_or_else(bad_batch_id)?;
        if key.as_ref().is_some_and(|key| *key != next) {
            return Err(Problem::new(Code::BatchIdMismatch, "two Idempotency-Key headers name different ids"));
        }
        key = Some(next);
    }
    Ok(key)
}

/// Returns `traceparent` if it is one (W3C Trace Context §3.2) and the only one.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all("traceparent").iter();
    let text = values.next()?.to_str().ok()?.trim();
    let is_hex = |part: &str, len| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let mut fields = text.splitn(5, '-');
    let (version, trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    // A later version may add fields; this one has four.
    let valid = values.next().is_none()
        && is_hex(version, 2)
        && version != "ff"
        && (version != "00" || fields.next().is_none())
        && is_hex(trace, 32)
        && !is_zero(trace)
        && is_hex(parent, 16)
        && !is_zero(parent)
        && is_hex(flags, 2);
    valid.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};

    use super::*;

    fn read(uri: &str, headers: &[(&str, &str)]) -> std::result::Result<Head, Code> {
        let mut request = Request::post(uri).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Head::read(&request.body(Body::empty()).unwrap().into_parts().0).map_err(|problem| problem.code)
    }

    #[test]
    fn id_may_be_given_in_query_and_header() {
        for (uri, headers, expected) in [
            ("/", &[][..], Ok(None)),
            ("/?batch_id=a%3Ab", &[], Ok(Some("a:b"))),
            ("/?batch_id=a&x=1&batch_id=a", &[("idempotency-key", "a")], Ok(Some("a"))),
            ("/", &[("idempotency-key", "abc")], Ok(Some("abc"))),
            ("/", &[("idempotency-key", "\"abc\"")], Ok(Some("abc"))),
            ("/?batch_id=a", &[("idempotency-key", "b")], Err(Code::BatchIdMismatch)),
            ("/", &[("idempotency-key", "a"), ("idempotency-key", "b")], Err(Code::BatchIdMismatch)),
            ("/?batch_id=a&batch_id=b", &[], Err(Code::InvalidBatch)),
            ("/?batch_id=", &[], Err(Code::InvalidBatch)),
            ("/?batch_id=a%20b", &[], Err(Code::InvalidBatch)),
            ("/?batch_id=..", &[], Err(Code::InvalidBatch)),
            ("/", &[("idempotency-key", "")], Err(Code::InvalidBatch)),
            ("/", &[("idempotency-key", "\"a\\\"b\"")], Err(Code::InvalidBatch)),
        ] {
            let id = read(uri, headers).map(|head| head.batch_id);
            assert_eq!(id.as_ref().map(Option::as_deref), expected.as_ref().map(|id| *id), "{uri} {headers:?}");
        }
    }

    #[test]
    fn priority_and_atomic_are_checked() {
        let head = read("/?priority=10&atomic=true", &[]).unwrap();
        assert_eq!((head.priority.map(Priority::get), head.atomic), (Some(10), true));
        assert!(!read("/?atomic=false", &[]).unwrap().atomic);
        for uri in [
            "/?priority=11",
            "/?priority=-1",
            "/?priority=",
            "/?priority=1.0",
            "/?priority=%2B1",
            "/?priority=1&priority=2",
            "/?atomic=1",
            "/?atomic=",
            "/?atomic=true&atomic=false",
        ] {
            assert_eq!(read(uri, &[]), Err(Code::InvalidBatch), "{uri}");
        }
    }

    #[test]
    fn traceparent_is_taken_only_when_it_is_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (text, valid) in [
            (good, true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", false),
            ("", false),
        ] {
            let head = read("/", &[("traceparent", text)]).unwrap();
            assert_eq!(head.traceparent, valid.then(|| text.to_owned()), "{text}");
        }
        assert_eq!(read("/", &[("traceparent", good), ("traceparent", good)]).unwrap().traceparent, None);
    }
}
