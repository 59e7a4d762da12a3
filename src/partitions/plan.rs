//! Which leaves to make and which to prune: pure. A moment and the months that are there go in, months come out.

use super::Retention;
use crate::time::{Month, Timestamp};

/// What to do about the leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Months without a leaf that need one, ascending.
    pub make: Vec<Month>,
    /// Months whose leaf lies wholly before what is kept, ascending.
    pub prune: Vec<Month>,
}

/// Plans the leaves: the current month and `ahead` after it have one, and with a retention those wholly older than it
/// go. The month being written is never among those.
pub fn plan(now: Timestamp, ahead: u32, retention: Option<Retention>, existing: &[Month]) -> Plan {
    let current = now.month();
    let wanted = (0..=ahead as i32).map(|months| current.plus(months));
    let make = wanted.filter(|month| !existing.contains(month)).collect();
    let prune = retention.map_or_else(Vec::new, |retention| beyond(now, retention, existing));
    Plan { make, prune }
}

/// Returns the months, ascending, whose leaf ends before the first moment that is kept.
pub fn beyond(now: Timestamp, retention: Retention, existing: &[Month]) -> Vec<Month> {
    let oldest_kept = retention.oldest_kept(now);
    let is_beyond = |month: &Month| month.plus(1).start() <= oldest_kept && *month < now.month();
    let mut months: Vec<_> = existing.iter().copied().filter(is_beyond).collect();
    months.sort_unstable();
    months.dedup();
    months
}

/// Returns how many months after the current one have a leaf, up to the first that has none.
pub fn months_ahead(now: Timestamp, existing: &[Month]) -> u32 {
    let current = now.month();
    (1..).take_while(|months| existing.contains(&current.plus(*months))).count() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn retention() -> impl Strategy<Value = Retention> {
        prop_oneof![(1u32..100).prop_map(Retention::Months), (1u32..4000).prop_map(Retention::Days)]
    }

    proptest! {
        #[test]
        fn leaves_ahead_cover_each_instant_once(seconds in 0i64..4_000_000_000, ahead in 0u32..24, there in 0i32..30) {
            let now = Timestamp::from_micros(seconds * 1_000_000);
            let mut months: Vec<_> = (0..there).step_by(2).map(|months| now.month().plus(months)).collect();
            months.extend(plan(now, ahead, None, &months).make);
            months.sort_unstable();
            let wanted: Vec<_> = months.iter().copied().take(ahead as usize + 1).collect();
            prop_assert!(wanted[0].start() <= now && now < wanted[0].plus(1).start());
            for pair in wanted.windows(2) {
                prop_assert_eq!(pair[0].plus(1), pair[1]);
            }
            prop_assert_eq!(plan(now, ahead, None, &months), Plan::default());
            prop_assert!(months_ahead(now, &months) >= ahead);
        }

        #[test]
        fn nothing_kept_is_pruned_nor_the_month_being_written(
            seconds in 1_000_000_000i64..4_000_000_000,
            retention in retention(),
        ) {
            let now = Timestamp::from_micros(seconds * 1_000_000);
            let existing: Vec<_> = (-500..5).map(|months| now.month().plus(months)).collect();
            let pruned = plan(now, 3, Some(retention), &existing).prune;
            for month in &existing {
                let last = Timestamp::from_micros(month.plus(1).start().as_micros() - 1);
                let is_kept = last >= retention.oldest_kept(now) || *month >= now.month();
                prop_assert_eq!(pruned.contains(month), !is_kept);
            }
        }
    }
}
