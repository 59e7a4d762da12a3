//! What a body is written in and how it is compressed, from its headers.

use std::fmt;

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE},
};

use super::{
    error::Code,
    problem::{Problem, Result},
};
use crate::intake::parse::Format;

/// The types that are taken, as `Accept-Post` lists them.
pub const TYPES: &str = "application/json, application/x-ndjson, application/cloudevents-batch+json";

/// The codings that are taken, as `Accept-Encoding` lists them.
pub const CODINGS: &str = "gzip, zstd, identity";

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878, with a window of at most 8 MiB.
    Zstd,
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// Reads `Content-Type`.
///
/// # Errors
/// 415 with `Accept-Post` when it is missing, unreadable, unknown, or its charset is not UTF-8.
pub fn format(headers: &HeaderMap) -> Result<Format> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let text = values.next().and_then(|value| value.to_str().ok());
    text.filter(|_| values.next().is_none()).and_then(read_type).ok_or_else(|| {
        Problem::new(
            Code::UnsupportedMediaType,
            format!("the body must be one of {TYPES}, in UTF-8, and Content-Type must say so"),
        )
        .header(HeaderName::from_static("accept-post"), HeaderValue::from_static(TYPES))
    })
}

fn read_type(text: &str) -> Option<Format> {
    let mut parts = text.split(';');
    let media = parts.next()?.trim();
    let format = [
        ("application/json", Format::Json),
        ("application/x-ndjson", Format::Ndjson),
        ("application/cloudevents-batch+json", Format::CloudEvents),
    ]
    .into_iter()
    .find_map(|(name, format)| media.eq_ignore_ascii_case(name).then_some(format))?;
    let is_utf8 = parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
        !name.trim().eq_ignore_ascii_case("charset") || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    is_utf8.then_some(format)
}

/// Reads `Content-Encoding`.
///
/// # Errors
/// 415 with `Accept-Encoding` when the coding is unknown, or there are two.
pub fn coding(headers: &HeaderMap) -> Result<Coding> {
    let refused = || {
        Problem::new(
            Code::UnsupportedMediaType,
            format!("the body must be compressed once or not at all, with one of {CODINGS}"),
        )
        .header(ACCEPT_ENCODING, HeaderValue::from_static(CODINGS))
    };
    let mut found = Coding::Identity;
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.to_str().map_err(|_| refused())?.split(',').map(str::trim) {
            let coding = match name.to_ascii_lowercase().as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "zstd" => Coding::Zstd,
                _ => return Err(refused()),
            };
            if found != Coding::Identity {
                return Err(refused());
            }
            found = coding;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (name.clone(), HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn types_are_known_by_name_and_charset() {
        for (lines, expected) in [
            (&["application/json"][..], Some(Format::Json)),
            (&["Application/JSON; charset=UTF-8"], Some(Format::Json)),
            (&["application/json;charset=\"utf-8\"; x=1"], Some(Format::Json)),
            (&["application/x-ndjson"], Some(Format::Ndjson)),
            (&["application/cloudevents-batch+json; charset=utf-8"], Some(Format::CloudEvents)),
            (&["application/json; charset=latin1"], None),
            (&["application/cloudevents+json"], None),
            (&["text/plain"], None),
            (&[""], None),
            (&[], None),
            (&["application/json", "application/x-ndjson"], None),
        ] {
            let format = format(&headers(CONTENT_TYPE, lines));
            assert_eq!(format.as_ref().ok(), expected.as_ref(), "{lines:?}");
            if let Err(problem) = format {
                assert_eq!(problem.headers, [(HeaderName::from_static("accept-post"), TYPES.parse().unwrap())]);
            }
        }
    }

    #[test]
    fn one_coding_is_taken() {
        for (lines, expected) in [
            (&[][..], Some(Coding::Identity)),
            (&["identity"], Some(Coding::Identity)),
            (&["GZIP"], Some(Coding::Gzip)),
            (&["x-gzip"], Some(Coding::Gzip)),
            (&["identity, zstd"], Some(Coding::Zstd)),
            (&["br"], None),
            (&["gzip, gzip"], None),
            (&["gzip", "zstd"], None),
        ] {
            let coding = coding(&headers(CONTENT_ENCODING, lines));
            assert_eq!(coding.as_ref().ok(), expected.as_ref(), "{lines:?}");
            if let Err(problem) = coding {
                assert_eq!(problem.headers, [(ACCEPT_ENCODING, CODINGS.parse().unwrap())]);
            }
        }
    }
}
