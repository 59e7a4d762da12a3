//! What to do with an answer, and how long to wait before the next try. Pure.

use std::time::Duration;

/// What an answer means for what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The fate of each event is known.
    Final,
    /// The events are durable; their fate is to be asked for.
    Durable,
    /// Sent again, it may pass.
    Again,
    /// The batch can't be taken as a whole, so its parts tell more.
    Split,
    /// Every event was refused, each for its own reason.
    AllRefused,
    /// The server does not know the batch.
    Unknown,
    /// Sending again changes nothing.
    Stop,
}

/// Judges the answer to a POST; `code` and `lists_events` are those of its problem.
pub(super) fn judge_post(status: u16, code: &str, lists_events: bool) -> Verdict {
    match (status, code) {
        (200, _) => Verdict::Final,
        (202, _) => Verdict::Durable,
        (408 | 429 | 502 | 503 | 504, _) => Verdict::Again,
        (413, _) | (400, "malformed_json") => Verdict::Split,
        (422, _) if lists_events => Verdict::AllRefused,
        _ => Verdict::Stop,
    }
}

/// Judges the answer to a question for the status; `is_final` is what a 200 says.
pub(super) fn judge_status(status: u16, is_final: bool) -> Verdict {
    match status {
        200 if is_final => Verdict::Final,
        200 => Verdict::Durable,
        404 => Verdict::Unknown,
        408 | 429 | 502..=504 => Verdict::Again,
        _ => Verdict::Stop,
    }
}

/// Returns how long to wait after `failures` failures in a row: full jitter under a bound that doubles from 0.5 s to
/// 30 s, and never less than the server asks for. `random` lies in 0 to 1.
pub(super) fn delay(failures: u32, retry_after: Option<Duration>, random: f64) -> Duration {
    let bound = (0.5 * f64::from(1u32 << failures.saturating_sub(1).min(10))).min(30.0);
    Duration::from_secs_f64(bound * random).max(retry_after.unwrap_or_default())
}

/// Reads a `Retry-After`: seconds, or a date, which proxies send.
pub(super) fn read_retry_after(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_leads_to_its_action() {
        for (status, code, verdict) in [
            (200, "", Verdict::Final),
            (202, "", Verdict::Durable),
            (400, "malformed_json", Verdict::Split),
            (400, "batch_id_mismatch", Verdict::Stop),
            (401, "unauthorized", Verdict::Stop),
            (403, "forbidden", Verdict::Stop),
            (408, "body_timeout", Verdict::Again),
            (409, "batch_id_reused", Verdict::Stop),
            (413, "too_large", Verdict::Split),
            (413, "", Verdict::Split),
            (429, "rate_limited", Verdict::Again),
            (500, "internal", Verdict::Stop),
            (502, "", Verdict::Again),
            (503, "queue_full", Verdict::Again),
            (504, "", Verdict::Again),
        ] {
            assert_eq!(judge_post(status, code, false), verdict, "{status} {code}");
        }
        assert_eq!(judge_post(422, "invalid_batch", true), Verdict::AllRefused);
        assert_eq!(judge_post(422, "invalid_batch", false), Verdict::Stop);
        assert_eq!(judge_status(200, false), Verdict::Durable);
        assert_eq!(judge_status(404, false), Verdict::Unknown);
        assert_eq!(judge_status(503, false), Verdict::Again);
        assert_eq!(judge_status(401, false), Verdict::Stop);
    }

    #[test]
    fn wait_doubles_up_to_its_bound_and_respects_the_server() {
        let seconds: Vec<_> = (1..=9).map(|failures| delay(failures, None, 1.0).as_secs_f64()).collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        assert_eq!(delay(u32::MAX, None, 1.0), Duration::from_secs(30));
        assert_eq!(delay(3, None, 0.25), Duration::from_millis(500));
        let asked = Some(Duration::from_secs(7));
        assert_eq!((delay(1, asked, 1.0), delay(9, asked, 1.0)), (Duration::from_secs(7), Duration::from_secs(30)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(read_retry_after("7", now), Some(Duration::from_secs(7)));
        assert_eq!(read_retry_after("Thu, 01 Jan 2026 00:00:09 GMT", now), Some(Duration::from_secs(9)));
        assert_eq!(read_retry_after("Wed, 31 Dec 2025 00:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(read_retry_after("soon", now), None);
    }
}
