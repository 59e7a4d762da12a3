//! When a lane starts a flush, and how large it may be. Pure.
//!
//! Natural batching: an idle lane flushes what there is after a short linger; while lanes are busy the next flush grows.

use std::time::Duration;

/// How long an idle lane waits for company before a small flush. Longer only delays: flushes that wait longer gained
/// little over those that did not.
pub const LINGER: Duration = Duration::from_millis(5);

/// How many times `BATCH_SIZE` a flush may hold when there is a backlog.
const BACKLOG_FACTOR: u64 = 5;

/// What a lane sees when it is free.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Events that wait.
    pub waiting: u64,
    /// Whether the most urgent batch is due.
    pub is_due: bool,
    /// Another lane carries, or waits for, a flush smaller than `BATCH_SIZE`.
    pub small_is_taken: bool,
    /// The process stops: nothing is worth waiting for.
    pub is_draining: bool,
    /// Lanes in all.
    pub lanes: u32,
    /// `BATCH_SIZE`.
    pub batch_size: u32,
}

/// What a free lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Flush up to this many events now.
    Flush {
        /// Events at most.
        events: u32,
    },
    /// Wait for company as long as [`LINGER`], then flush what there is.
    Linger,
    /// Wait until more comes in, or a batch is due.
    Wait,
}

/// Decides what a free lane does.
pub fn decide(view: View) -> Decision {
    let batch_size = u64::from(view.batch_size);
    // With a backlog each lane takes its part of it, so that flushes are large and the lanes share the work.
    let share = view.waiting / u64::from(view.lanes.max(1));
    let events = share.clamp(batch_size, BACKLOG_FACTOR * batch_size) as u32;
    if view.waiting == 0 {
        Decision::Wait
    } else if view.waiting >= batch_size || view.is_due || view.is_draining {
        Decision::Flush { events }
    } else if view.small_is_taken {
        Decision::Wait
    } else {
        Decision::Linger
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: View =
        View { waiting: 10, is_due: false, small_is_taken: false, is_draining: false, lanes: 4, batch_size: 1000 };

    #[test]
    fn free_lane_decides_by_what_waits() {
        for (view, decision) in [
            (View { waiting: 0, ..CALM }, Decision::Wait),
            (View { waiting: 0, is_draining: true, ..CALM }, Decision::Wait),
            (CALM, Decision::Linger),
            (View { small_is_taken: true, ..CALM }, Decision::Wait),
            (View { small_is_taken: true, is_due: true, ..CALM }, Decision::Flush { events: 1000 }),
            (View { is_draining: true, ..CALM }, Decision::Flush { events: 1000 }),
            (View { waiting: 1000, small_is_taken: true, ..CALM }, Decision::Flush { events: 1000 }),
            (View { waiting: 12_000, ..CALM }, Decision::Flush { events: 3000 }),
            (View { waiting: 1_000_000, ..CALM }, Decision::Flush { events: 5000 }),
        ] {
            assert_eq!(decide(view), decision, "{view:?}");
        }
    }
}
