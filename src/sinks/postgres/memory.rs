//! What a sink remembers of errors from flush to flush: what comes again is no accident.

use std::time::{Duration, Instant};

use uuid::Uuid;

/// The same refusal from so many services within a minute is not the rows' fault.
const SERVICES: usize = 3;
const MINUTE: Duration = Duration::from_secs(60);
/// A wrong encoding in one batch is forgotten after this; in a second one before that it is our own fault.
const HOUR: Duration = Duration::from_secs(3600);

/// What a sink remembers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The last SQLSTATE, and how often it came in a row.
    last: Option<(String, u32)>,
    /// The batch whose encoding was refused, and when.
    encoding: Option<(Uuid, Instant)>,
    /// What was refused, whose it was, and when.
    refusals: Vec<(String, String, Instant)>,
}

impl Memory {
    /// Notes an error; returns how often it came in a row, 1 at the first.
    pub(super) fn note_error(&mut self, sqlstate: &str) -> u32 {
        let count = match &self.last {
            Some((last, count)) if last == sqlstate => count + 1,
            _ => 1,
        };
        self.last = Some((sqlstate.to_owned(), count));
        count
    }

    /// Returns how often the last error came in a row, when it is this one.
    pub(super) fn in_a_row(&self, sqlstate: &str) -> u32 {
        self.last.as_ref().filter(|(last, _)| last == sqlstate).map_or(1, |(_, count)| *count)
    }

    /// Notes a commit.
    pub(super) fn note_commit(&mut self) {
        self.last = None;
    }

    /// Notes that a row of a batch was refused as wrongly encoded; returns whether another batch's was before.
    pub(super) fn note_encoding(&mut self, batch: Uuid, now: Instant) -> bool {
        let first = self.encoding.filter(|(_, at)| now.duration_since(*at) < HOUR);
        let (known, _) = *self.encoding.insert(first.unwrap_or((batch, now)));
        known != batch
    }

    /// Notes that a service's row was refused; returns whether the same happened to too many services lately.
    pub(super) fn note_refusal(&mut self, refusal: &str, service: &str, now: Instant) -> bool {
        let is_same = |other: &(String, String, Instant)| other.0 == refusal && other.1 == service;
        self.refusals.retain(|other| now.duration_since(other.2) < MINUTE && !is_same(other));
        self.refusals.push((refusal.to_owned(), service.to_owned(), now));
        self.refusals.iter().filter(|other| other.0 == refusal).count() >= SERVICES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_breaks_the_row_of_errors() {
        let mut memory = Memory::default();
        assert_eq!((memory.note_error("26000"), memory.note_error("26000")), (1, 2));
        assert_eq!(memory.in_a_row("26000"), 2);
        memory.note_commit();
        assert_eq!(memory.note_error("26000"), 1);
        assert_eq!(memory.note_error("P0001"), 1);
        assert_eq!(memory.in_a_row("26000"), 1);
    }

    #[test]
    fn same_refusal_from_three_services_within_a_minute_is_the_schemas() {
        let mut memory = Memory::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!memory.note_refusal("x", "a", at(0)));
        assert!(!memory.note_refusal("x", "b", at(1)));
        assert!(!memory.note_refusal("x", "a", at(2)));
        assert!(!memory.note_refusal("y", "c", at(3)));
        assert!(memory.note_refusal("x", "c", at(4)));
        assert!(!memory.note_refusal("x", "d", at(70)));
    }

    #[test]
    fn wrong_encoding_of_another_batch_is_told() {
        let mut memory = Memory::default();
        let start = Instant::now();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert!(!memory.note_encoding(one, start));
        assert!(!memory.note_encoding(one, start));
        assert!(memory.note_encoding(two, start));
        assert!(!memory.note_encoding(two, start + HOUR * 2));
    }
}
