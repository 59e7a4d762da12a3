//! The rows of a flush in the order of the index, without their doubles. Pure; no row is copied.
//!
//! One order for all lanes: inserts go to the right edge of the index, and two flushes that share events wait for each
//! other instead of locking each other out.

use crate::{
    row::{self, Row},
    time::Month,
};

/// A row and where it came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlushRow<'a> {
    timestamp: i64,
    /// The first bytes of the event's id: most comparisons of equal timestamps end here.
    prefix: u64,
    /// The row.
    pub row: Row<'a>,
    /// Its batch's place in the flush.
    pub batch: u32,
    /// Its number in the batch, from 0.
    pub number: u32,
}

impl FlushRow<'_> {
    pub(super) fn month(&self) -> Month {
        crate::time::Timestamp::from_micros(self.timestamp).month()
    }

    fn is_double_of(&self, other: &Self) -> bool {
        self.timestamp == other.timestamp
            && self.prefix == other.prefix
            && self.row.key_bytes() == other.row.key_bytes()
    }
}

/// Returns the rows of batches, each given as its place in the flush and its bytes, in the order of the index. Among
/// doubles the batch that came first stands first.
pub(super) fn sorted<'a>(batches: impl Iterator<Item = (u32, &'a [u8])>) -> Vec<FlushRow<'a>> {
    let mut all = Vec::new();
    for (batch, bytes) in batches {
        all.extend((0..).zip(row::rows(bytes)).map(|(number, row)| FlushRow {
            timestamp: row.timestamp().as_micros(),
            prefix: prefix(row.key_bytes().0),
            row,
            batch,
            number,
        }));
    }
    all.sort_unstable_by(|a, b| {
        (a.timestamp, a.prefix)
            .cmp(&(b.timestamp, b.prefix))
            .then_with(|| a.row.key_bytes().cmp(&b.row.key_bytes()))
            .then_with(|| (a.batch, a.number).cmp(&(b.batch, b.number)))
    });
    all
}

fn prefix(event_id: &[u8]) -> u64 {
    let mut first = [0; 8];
    let length = event_id.len().min(8);
    first[..length].copy_from_slice(&event_id[..length]);
    u64::from_be_bytes(first)
}

/// Returns the first of each event among sorted rows.
pub(super) fn without_doubles<'a>(rows: impl Iterator<Item = FlushRow<'a>>) -> Vec<FlushRow<'a>> {
    let mut kept: Vec<FlushRow<'a>> = Vec::with_capacity(rows.size_hint().1.unwrap_or(0));
    for row in rows {
        if !kept.last().is_some_and(|last| last.is_double_of(&row)) {
            kept.push(row);
        }
    }
    kept
}

/// Cuts sorted rows into those of each month, months in order.
pub(super) fn by_month<'r, 'a>(rows: &'r [FlushRow<'a>]) -> Vec<(Month, &'r [FlushRow<'a>])> {
    let mut parts = Vec::new();
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let month = first.month();
        let end = month.plus(1).start().as_micros();
        let (part, after) = rest.split_at(rest.partition_point(|row| row.timestamp < end));
        parts.push((month, part));
        rest = after;
    }
    parts
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{
        row::{EventColumns, RowOrigin, encode_row},
        time::Timestamp,
    };

    pub(crate) fn encoded(events: &[(i64, &str, &str)]) -> Vec<u8> {
        let origin = RowOrigin { received_at: Timestamp::from_micros(7), batch: Uuid::from_u128(1), priority: 0 };
        let mut bytes = Vec::new();
        for (timestamp, event_id, service_name) in events {
            let event = EventColumns {
                timestamp: Timestamp::from_micros(*timestamp),
                event_id,
                service_name,
                event_type: "t",
                user_id: None,
                payload: "{}",
                metadata: None,
            };
            encode_row(&mut bytes, &origin, &event);
        }
        bytes
    }

    fn keys(rows: &[FlushRow<'_>]) -> Vec<(i64, String, String)> {
        let key = |row: &FlushRow<'_>| {
            let (event_id, service_name) = row.row.texts();
            (row.timestamp, event_id.to_owned(), service_name.to_owned())
        };
        rows.iter().map(key).collect()
    }

    #[test]
    fn first_batch_keeps_the_event_that_two_hold() {
        let batches = [encoded(&[(5, "b", "s"), (1, "a", "s")]), encoded(&[(1, "a", "s"), (1, "a", "other")])];
        let rows = sorted((0..).zip(batches.iter().map(Vec::as_slice)));
        let kept = without_doubles(rows.iter().copied());
        let places: Vec<_> = kept.iter().map(|row| (row.batch, row.number)).collect();
        assert_eq!(places, [(1, 1), (0, 1), (0, 0)]);
        // Once the first batch is left out, the second one's copy counts.
        let kept = without_doubles(rows.iter().copied().filter(|row| row.batch == 1));
        assert_eq!(kept.len(), 2);
    }

    proptest! {
        #[test]
        fn rows_stand_in_the_order_of_the_index_once_each(
            events in prop::collection::vec((0i64..3, "[ab]{0,10}", "[ab]{1,2}"), 0..60),
        ) {
            let events: Vec<_> = events.iter().map(|(at, id, service)| (*at, id.as_str(), service.as_str())).collect();
            let bytes = encoded(&events);
            let rows = without_doubles(sorted([(0, bytes.as_slice())].into_iter()).into_iter());
            let mut expected: Vec<_> = events.iter().map(|(at, id, service)| (*at, (*id).to_owned(), (*service).to_owned())).collect();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(keys(&rows), expected);
        }

        #[test]
        fn months_hold_all_rows_in_order(days in prop::collection::vec(-20_000i64..20_000, 0..50)) {
            let events: Vec<_> = days.iter().map(|day| (day * 86_400_000_000 - 1, "e", "s")).collect();
            let bytes = encoded(&events);
            let rows = sorted([(0, bytes.as_slice())].into_iter());
            let parts = by_month(&rows);
            prop_assert_eq!(parts.iter().map(|(_, part)| part.len()).sum::<usize>(), rows.len());
            prop_assert!(parts.windows(2).all(|pair| pair[0].0 < pair[1].0));
            for (month, part) in parts {
                prop_assert!(part.iter().all(|row| row.row.timestamp().month() == month));
            }
        }
    }
}
