//! Decides which timestamps are taken, and collects the months of those that were.

use super::{
    Window,
    rejection::{Rejection, quoted},
};
use crate::{
    event::RejectReason,
    time::{Month, Timestamp},
};

/// 0001-01-01T00:00:00Z: leaves have no names for the years before.
const YEAR_1: Timestamp = Timestamp::from_micros(-62_135_596_800_000_000);
/// The last microsecond of the year 9999.
const YEAR_9999_END: Timestamp = Timestamp::from_micros(253_402_300_799_999_999);

/// The [`Window`], ready to be compared with the timestamps of one batch.
#[derive(Debug)]
pub(super) struct Times<'w> {
    oldest: Timestamp,
    newest: Timestamp,
    /// The start of the first month that was not pruned.
    kept_from: Timestamp,
    remade: &'w [Month],
    months: Months,
}

impl<'w> Times<'w> {
    pub(super) fn new(window: &'w Window) -> Self {
        Self {
            oldest: window.oldest.max(YEAR_1),
            newest: window.newest.min(YEAR_9999_END),
            kept_from: window.pruned_before.map_or(YEAR_1, Month::start),
            remade: &window.remade,
            months: Months::default(),
        }
    }

    /// Decides whether `timestamp`, which the caller wrote as `text` into the field `name`, is taken.
    pub(super) fn check(&mut self, timestamp: Timestamp, text: &str, name: &str) -> Result<(), Rejection> {
        let (code, why) = if timestamp < self.oldest {
            (RejectReason::TimestampTooOld, format!("is before {}, the earliest that is taken", self.oldest))
        } else if timestamp > self.newest {
            (RejectReason::TimestampTooNew, format!("is after {}, the latest that is taken", self.newest))
        } else if timestamp < self.kept_from {
            let month = self.months.at(timestamp);
            if self.remade.binary_search(&month).is_ok() {
                return Ok(());
            }
            (RejectReason::TimestampTooOld, format!("lies in {month}, which was pruned"))
        } else {
            return Ok(());
        };
        Err(Rejection { code, detail: format!("{} {why}", quoted(text)), path: format!("/{name}") })
    }

    /// Adds the month of a row.
    pub(super) fn add(&mut self, timestamp: Timestamp) {
        self.months.add(timestamp);
    }

    /// Returns the months of all rows, each once, ascending.
    pub(super) fn into_months(self) -> Vec<Month> {
        self.months.added
    }
}

/// Months in ascending order. The one that was asked for last is kept with its bounds, so that neighbors in time cost no
/// calendar.
#[derive(Debug)]
struct Months {
    added: Vec<Month>,
    last: Month,
    /// The bounds of `last`; empty at first.
    start: Timestamp,
    end: Timestamp,
    /// Whether `last` was added.
    is_added: bool,
}

impl Default for Months {
    fn default() -> Self {
        Self {
            added: Vec::new(),
            last: Month::from_number(0),
            start: Timestamp::from_micros(0),
            end: Timestamp::from_micros(0),
            is_added: false,
        }
    }
}

impl Months {
    fn at(&mut self, timestamp: Timestamp) -> Month {
        if timestamp < self.start || timestamp >= self.end {
            self.last = timestamp.month();
            (self.start, self.end) = (self.last.start(), self.last.plus(1).start());
            self.is_added = false;
        }
        self.last
    }

    fn add(&mut self, timestamp: Timestamp) {
        let month = self.at(timestamp);
        if self.is_added {
            return;
        }
        self.is_added = true;
        if let Err(place) = self.added.binary_search(&month) {
            self.added.insert(place, month);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn months_are_each_there_once_and_ascend(
            micros in prop::collection::vec(-62_135_596_800_000_000..253_402_300_799_999_999_i64, 0..50),
            near in prop::collection::vec(0..5_i64, 0..50),
        ) {
            let moments = micros.into_iter().chain(near.into_iter().map(|days| days * 15 * 86_400_000_000));
            let moments: Vec<_> = moments.map(Timestamp::from_micros).collect();
            let mut months = Months::default();
            for moment in &moments {
                months.add(*moment);
            }
            let expected: BTreeSet<Month> = moments.iter().map(|moment| moment.month()).collect();
            prop_assert_eq!(months.added, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
