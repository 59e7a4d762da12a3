//! `Prefer` (RFC 7240): whether a caller wants to wait until its batch is final.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The header that tells which preference was followed.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Seconds that an answer is held at most: less than the time-out of any proxy.
pub const MAX_WAIT_SECONDS: u64 = 50;

/// The preferences that are known here. Others, and what can't be read, are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// `wait`, in seconds, no more than [`MAX_WAIT_SECONDS`].
    pub wait: Option<u64>,
    /// `respond-async`.
    pub respond_async: bool,
}

impl Prefer {
    /// Reads the headers; where a preference stands twice, the first counts.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let mut wait_seen = false;
        for line in headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()) {
            for preference in split(line, ',') {
                let token = split(preference, ';').next().unwrap_or_default();
                let (name, value) = token.split_once('=').unwrap_or((token, ""));
                let name = name.trim();
                if name.eq_ignore_ascii_case("respond-async") {
                    prefer.respond_async = true;
                } else if name.eq_ignore_ascii_case("wait") && !wait_seen {
                    wait_seen = true;
                    prefer.wait = seconds(value);
                }
            }
        }
        prefer
    }

    /// Returns how long to wait, if that was asked for.
    pub fn limit(self) -> Option<Duration> {
        self.wait.map(Duration::from_secs)
    }

    /// Returns what to tell back of an answer that is final (200) or not (202).
    pub fn applied(self, is_final: bool) -> Option<HeaderValue> {
        match (is_final, self.wait) {
            (true, Some(wait)) => HeaderValue::try_from(format!("wait={wait}")).ok(),
            (false, _) if self.respond_async => Some(HeaderValue::from_static("respond-async")),
            _ => None,
        }
    }
}

/// Splits at `separator`, but not inside of a quoted string.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        let separates = c == separator && !quoted;
        if !std::mem::take(&mut escaped) {
            match c {
                '"' => quoted = !quoted,
                '\\' if quoted => escaped = true,
                _ => {}
            }
        }
        separates
    })
}

/// Reads whole seconds, bare or quoted, and caps them.
fn seconds(value: &str) -> Option<u64> {
    let value = value.trim();
    let digits = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let readable = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // So many digits that they overflow are still a readable number, and capped.
    readable.then(|| digits.parse().unwrap_or(u64::MAX).min(MAX_WAIT_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&'static str]) -> (Option<u64>, bool) {
        let headers = lines.iter().map(|line| ("prefer".parse().unwrap(), HeaderValue::from_static(line)));
        let prefer = Prefer::read(&headers.collect());
        (prefer.wait, prefer.respond_async)
    }

    #[test]
    fn preferences_are_read_and_the_unreadable_ignored() {
        for (lines, expected) in [
            (&[][..], (None, false)),
            (&["wait=5"], (Some(5), false)),
            (&["WAIT = \"7\""], (Some(7), false)),
            (&["wait=0"], (Some(0), false)),
            (&["wait=51"], (Some(50), false)),
            (&["wait=99999999999999999999999"], (Some(50), false)),
            (&["respond-async, wait=10"], (Some(10), true)),
            (&["respond-async", "wait=10"], (Some(10), true)),
            (&["Respond-Async; x=1"], (None, true)),
            (&["return=minimal; a=\"wait=3, wait=4\", wait=5;q"], (Some(5), false)),
            (&["wait=5, wait=9"], (Some(5), false)),
            (&["wait=-1"], (None, false)),
            (&["wait=1.5"], (None, false)),
            (&["wait"], (None, false)),
            (&["wait="], (None, false)),
            (&["await=5, \"wait=5"], (None, false)),
            (&[",,;=,"], (None, false)),
        ] {
            assert_eq!(read(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn wait_is_told_back_only_for_what_is_final() {
        let both = Prefer { wait: Some(3), respond_async: true };
        assert_eq!(both.applied(true).unwrap(), "wait=3");
        assert_eq!(both.applied(false).unwrap(), "respond-async");
        assert_eq!(Prefer { wait: Some(3), respond_async: false }.applied(false), None);
        assert_eq!(Prefer { wait: None, respond_async: true }.applied(true), None);
    }
}
