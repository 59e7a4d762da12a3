//! How a refused event is told of: the code, the sentence and the pointer.

use std::borrow::Cow;

use super::{
    limits,
    scan::{Fault, Kind, Malformed, Value},
};
use crate::event::RejectReason;

/// Characters of a caller's text that a sentence repeats.
const QUOTED_CHARACTERS: usize = 64;
/// A key that is longer is not repeated in a pointer, which then ends at what holds it.
const POINTED_KEY_BYTES: usize = 256;

/// Why one event is refused.
#[derive(Clone, Debug)]
pub(super) struct Rejection {
    pub(super) code: RejectReason,
    pub(super) detail: String,
    /// The end of the pointer: where in the event, empty for all of it.
    pub(super) path: String,
}

impl Rejection {
    /// Returns the rejection of a field whose name needs no escapes in a pointer.
    pub(super) fn of_field(code: RejectReason, name: &str, says: &str) -> Self {
        Self { code, detail: format!("{name} {says}"), path: format!("/{name}") }
    }

    /// Returns the rejection of an event that has a key twice.
    pub(super) fn doubled(key: &[u8]) -> Self {
        Self {
            code: RejectReason::DuplicateKey,
            detail: format!("the event has the key {} twice", quoted(&String::from_utf8_lossy(key))),
            path: step(key),
        }
    }

    /// Returns the rejection of what is no object.
    pub(super) fn no_object(value: &Value<'_>) -> Self {
        Self {
            code: RejectReason::NotAnObject,
            detail: format!("the event is {}, not an object", named(value.kind)),
            path: String::new(),
        }
    }

    /// Returns the rejection of a line that is not JSON.
    pub(super) fn malformed(line: &str, why: Malformed) -> Self {
        Self {
            code: RejectReason::MalformedJson,
            detail: format!("not JSON at column {}: {}", column(line, why.at), why.what),
            path: String::new(),
        }
    }

    /// Returns the rejection of a line that is not UTF-8.
    pub(super) fn no_utf8(error: std::str::Utf8Error) -> Self {
        Self {
            code: RejectReason::MalformedJson,
            detail: format!("byte {} of the line is not UTF-8", error.valid_up_to() + 1),
            path: String::new(),
        }
    }

    /// Returns the rejection of a field that can't be stored.
    pub(super) fn faulty(key: &[u8], fault: Fault) -> Self {
        let (code, says) = match fault {
            Fault::NulCharacter => (RejectReason::NulCharacter, "holds U+0000, which can't be stored".to_owned()),
            Fault::LoneSurrogate => {
                (RejectReason::LoneSurrogate, "holds half of a surrogate pair, which is no character".to_owned())
            }
            Fault::NumberOutOfRange => (
                RejectReason::NumberOutOfRange,
                format!(
                    "holds a number of more than {} digits or with an exponent beyond ±{}",
                    limits::NUMBER_DIGITS,
                    limits::NUMBER_EXPONENT
                ),
            ),
            Fault::NestingTooDeep => {
                (RejectReason::NestingTooDeep, format!("nests deeper than {} levels", limits::LEVELS))
            }
        };
        Self { code, detail: format!("{} {says}", shortened(&String::from_utf8_lossy(key))), path: step(key) }
    }
}

/// Returns what a value is, as a sentence names it.
pub(super) const fn named(kind: Kind) -> &'static str {
    match kind {
        Kind::Absent => "absent",
        Kind::Null => "null",
        Kind::Bool => "a boolean",
        Kind::Number => "a number",
        Kind::Text { .. } => "a string",
        Kind::List => "a list",
        Kind::Object => "an object",
    }
}

/// Returns the text as a sentence may repeat it: in quotes, and not all of it when it is long.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(QUOTED_CHARACTERS) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

/// Returns the step of an RFC 6901 pointer to a key.
pub(super) fn step(key: &[u8]) -> String {
    if key.len() > POINTED_KEY_BYTES {
        return String::new();
    }
    format!("/{}", String::from_utf8_lossy(key).replace('~', "~0").replace('/', "~1"))
}

/// Returns the line and the column, in characters and from 1, of a place in a text.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at];
    let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    let lines = memchr::memchr_iter(b'\n', before).count();
    (lines + 1, column(&text[start..], at - start))
}

/// Returns the column, in characters and from 1, of a place in a line.
fn column(line: &str, at: usize) -> usize {
    line.char_indices().take_while(|(start, _)| *start < at).count() + 1
}
