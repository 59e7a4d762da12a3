//! When the lanes may try again after trouble that is nobody's row and no single month's. Pure: time and chance are
//! handed in.

use std::time::Duration;

use crate::{
    sinks::postgres::sqlstate::{Action, ErrorClass, ErrorOutcome},
    time::Timestamp,
};

/// The first pause; it doubles with each failure in a row.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);
/// Failures in a row after which one lane alone probes.
const CIRCUIT: u32 = 3;

/// Returns how long to pause after so many failures in a row: exponential with full jitter, `chance` in 0 to 1.
///
/// Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
pub fn pause(failures: u32, chance: f64) -> Duration {
    let ceiling = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(LONGEST);
    ceiling.mul_f64(chance.clamp(0.0, 1.0))
}

/// Returns whether one batch of a flush that failed may be in the way of the others, as far as can be told.
///
/// It is not the first time, the server is not away, and it is not everybody's trouble. Then each half of the flush is
/// tried by itself, so that the troublemaker ends up alone, however urgent it is.
pub fn is_split(outcome: ErrorOutcome, attempt: u32) -> bool {
    use ErrorClass::{Cancelled, Conflict, Data, Deadline, Duplicate, Encoding, Lock, Unknown};
    let may_be_a_batchs =
        matches!(outcome.class, Cancelled | Conflict | Data | Deadline | Duplicate | Encoding | Lock | Unknown);
    attempt > 1 && may_be_a_batchs && outcome.action != Action::Hold
}

/// What a lane may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Flush; its events are halved `halvings` times.
    Go {
        /// How often the flush is halved, so that a troublemaker ends up alone.
        halvings: u32,
        /// The lane probes for all.
        is_probe: bool,
    },
    /// Look again then, or when told.
    Wait {
        /// When to look again.
        until: Timestamp,
    },
}

/// Whether PostgreSQL can be written, as far as the lanes know.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// Failures in a row.
    failures: u32,
    /// The last failure, and how often it came in a row.
    last: Option<(ErrorOutcome, u32)>,
    /// When the last failure that counts came.
    last_at: Option<Timestamp>,
    /// No flush starts before.
    retry_at: Option<Timestamp>,
    /// A lane is probing.
    is_probing: bool,
    /// What a person must do before anything is written again.
    hold: Option<String>,
    /// What a person may do about the last failure.
    advice: Option<String>,
}

impl Gate {
    /// Decides whether a lane may flush now.
    pub fn permit(&mut self, now: Timestamp) -> Permit {
        let halvings = self.last.map_or(0, |(_, times)| times.saturating_sub(1).min(16));
        if !self.is_open() {
            return Permit::Go { halvings, is_probe: false };
        }
        let until = self.retry_at.unwrap_or(now);
        if self.is_probing || until > now {
            return Permit::Wait { until: until.max(now.plus(FIRST)) };
        }
        self.is_probing = true;
        Permit::Go { halvings, is_probe: true }
    }

    /// Returns whether one lane alone probes.
    pub fn is_open(&self) -> bool {
        self.failures >= CIRCUIT || self.hold.is_some()
    }

    /// Returns what a person must do, when everything waits for that.
    pub fn hold(&self) -> Option<&str> {
        self.hold.as_deref()
    }

    /// Returns what is wrong, while one lane alone probes.
    pub fn trouble(&self) -> Option<String> {
        let (last, _) = self.last.filter(|_| self.is_open())?;
        let advice = self.hold.clone().or_else(|| self.advice.clone());
        Some(advice.unwrap_or_else(|| format!("flushes fail ({})", last.class.as_str())))
    }

    /// Says that a lane's probe had nothing to write.
    pub fn probe_ended(&mut self) {
        self.is_probing = false;
    }

    /// Says that a flush committed: all is well.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Forgets how long to pause: the process stops, and the next try may be its last.
    pub fn hurry(&mut self) {
        self.retry_at = None;
        self.failures = self.failures.min(CIRCUIT);
    }

    /// Says that a flush that began at `began` failed; returns how long its lane pauses. What had begun before the last
    /// failure fell to the same trouble, and counts no further.
    pub fn failed(
        &mut self,
        outcome: ErrorOutcome,
        advice: Option<String>,
        began: Timestamp,
        now: Timestamp,
        chance: f64,
    ) -> Duration {
        if outcome.action != Action::Hold && self.last_at.is_some_and(|last| began <= last) {
            return self.retry_at.map_or(Duration::ZERO, |retry_at| retry_at.since(now));
        }
        self.failures += 1;
        self.last_at = Some(now);
        self.last = match self.last {
            Some((last, times)) if last == outcome => Some((last, times + 1)),
            _ => Some((outcome, 1)),
        };
        let pause = match outcome.action {
            Action::Hold => {
                self.hold = Some(advice.unwrap_or_else(|| "see the log".to_owned()));
                LONGEST
            }
            _ => {
                self.advice = advice;
                pause(self.failures, chance)
            }
        };
        self.retry_at = Some(now.plus(pause));
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: ErrorOutcome = ErrorOutcome { class: ErrorClass::Connection, action: Action::Reconnect };
    const HELD: ErrorOutcome = ErrorOutcome { class: ErrorClass::Schema, action: Action::Hold };
    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn at(second: u64) -> Timestamp {
        NOW.plus(Duration::from_secs(second))
    }

    #[test]
    fn pause_doubles_up_to_its_limit() {
        let full: Vec<_> = [1, 2, 3, 9, 10, 100].map(|failures| pause(failures, 1.0).as_millis()).into();
        assert_eq!(full, [100, 200, 400, 25_600, 30_000, 30_000]);
        assert_eq!(pause(5, 0.0), Duration::ZERO);
    }

    #[test]
    fn third_failure_leaves_one_lane_probing_and_a_commit_frees_all() {
        let mut gate = Gate::default();
        for second in 0..3 {
            assert!(matches!(gate.permit(NOW), Permit::Go { is_probe: false, .. }));
            gate.failed(LOST, None, at(second), at(second), 1.0);
        }
        assert!(gate.is_open());
        assert_eq!(gate.trouble().as_deref(), Some("flushes fail (connection)"));
        assert!(matches!(gate.permit(NOW), Permit::Wait { .. }), "the pause is not over");
        let later = at(3);
        assert!(matches!(gate.permit(later), Permit::Go { is_probe: true, .. }));
        assert!(matches!(gate.permit(later), Permit::Wait { .. }), "somebody probes");
        gate.succeeded();
        assert_eq!(gate.permit(later), Permit::Go { halvings: 0, is_probe: false });
    }

    #[test]
    fn same_error_again_halves_the_flush() {
        let mut gate = Gate::default();
        gate.failed(LOST, None, at(0), at(0), 0.0);
        assert!(matches!(gate.permit(at(0)), Permit::Go { halvings: 0, .. }));
        gate.failed(LOST, None, at(1), at(1), 0.0);
        assert!(matches!(gate.permit(at(1)), Permit::Go { halvings: 1, .. }));
    }

    #[test]
    fn one_blip_that_strikes_every_lane_counts_once() {
        let mut gate = Gate::default();
        let pause = gate.failed(LOST, None, at(0), at(5), 1.0);
        for began in 1..5 {
            assert_eq!(gate.failed(LOST, None, at(began), at(5), 1.0), pause, "it began before the blip");
        }
        assert!(!gate.is_open());
        gate.failed(LOST, None, at(6), at(7), 1.0);
        gate.failed(LOST, None, at(8), at(9), 1.0);
        assert!(gate.is_open());
    }

    #[test]
    fn drain_tries_at_once_however_long_the_pause_was_to_be() {
        let mut gate = Gate::default();
        for second in 0..9 {
            gate.failed(LOST, None, at(second), at(second), 1.0);
        }
        assert!(matches!(gate.permit(at(9)), Permit::Wait { .. }));
        gate.hurry();
        assert!(matches!(gate.permit(at(9)), Permit::Go { is_probe: true, .. }));
    }

    #[test]
    fn flush_that_fails_again_is_split_unless_the_trouble_is_everybodys() {
        let outcome = |class, action| ErrorOutcome { class, action };
        let locked = outcome(ErrorClass::Lock, Action::Retry);
        assert!(is_split(locked, 2));
        assert!(!is_split(locked, 1), "once may be an accident");
        assert!(!is_split(LOST, 9));
        assert!(!is_split(HELD, 9));
        assert!(!is_split(outcome(ErrorClass::Unknown, Action::Hold), 9));
    }

    #[test]
    fn hold_stops_all_lanes_at_once_and_says_why() {
        let mut gate = Gate::default();
        let pause = gate.failed(HELD, Some("run forebay migrate".into()), NOW, NOW, 0.0);
        assert_eq!((pause, gate.hold()), (LONGEST, Some("run forebay migrate")));
        assert!(matches!(gate.permit(NOW), Permit::Wait { .. }));
        assert!(matches!(gate.permit(NOW.plus(LONGEST)), Permit::Go { is_probe: true, .. }));
    }
}
