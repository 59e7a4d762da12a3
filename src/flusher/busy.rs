//! How busy the lanes are: busy time × min(1, rows ÷ `BATCH_SIZE`), so that many tiny flushes don't look like
//! saturation.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The time that lanes worked since it was last asked for.
#[derive(Debug)]
pub struct Busy(Mutex<State>);

#[derive(Debug)]
struct State {
    /// When each lane's flush began, or was last counted, with its weight.
    running: Vec<Option<(Instant, f64)>>,
    worked: Duration,
    since: Instant,
}

impl Busy {
    /// Returns the account of so many lanes.
    pub fn new(lanes: usize, now: Instant) -> Self {
        Self(Mutex::new(State { running: vec![None; lanes], worked: Duration::ZERO, since: now }))
    }

    /// Says that a lane's flush began; its weight is rows ÷ `BATCH_SIZE`, at most 1.
    pub fn begin(&self, lane: usize, weight: f64, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).running[lane] = Some((now, weight.min(1.0)));
    }

    /// Says that a lane's flush ended.
    pub fn end(&self, lane: usize, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((begun, weight)) = state.running[lane].take() {
            state.worked += now.duration_since(begun).mul_f64(weight);
        }
    }

    /// Returns the ratio, 0 to 1, since it was last asked for; flushes that go on are counted up to now.
    pub fn ratio(&self, now: Instant) -> f64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { running, worked, since } = &mut *state;
        for (begun, weight) in running.iter_mut().flatten() {
            *worked += now.duration_since(*begun).mul_f64(*weight);
            *begun = now;
        }
        let all = now.duration_since(*since).as_secs_f64() * running.len() as f64;
        let ratio = if all > 0.0 { worked.as_secs_f64() / all } else { 0.0 };
        (*worked, *since) = (Duration::ZERO, now);
        ratio.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_flushes_count_by_their_size() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let busy = Busy::new(2, start);
        busy.begin(0, 0.5, at(0));
        busy.end(0, at(4));
        busy.begin(1, 3.0, at(5));
        assert!((busy.ratio(at(10)) - 7.0 / 20.0).abs() < 1e-9);
        assert!((busy.ratio(at(20)) - 0.5).abs() < 1e-9, "the flush that goes on is counted further");
        busy.end(1, at(20));
        assert_eq!(busy.ratio(at(30)), 0.0);
    }
}
