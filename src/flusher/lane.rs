//! One COPY lane: claims the most urgent batches, writes them, settles them.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    accumulator::{Decision, LINGER, View, decide},
    retry::{Permit, is_split, pause},
    settle::settle,
};
use crate::{
    health::CheckStatus,
    metrics::FlushOutcome,
    queue::{Claim, Loaded, schedule::Room},
    sinks::postgres::FlushError,
    time::Timestamp,
};

/// A lane looks round at least this often, which is its heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// One COPY lane.
pub(super) struct Lane {
    pub(super) number: usize,
    pub(super) shared: Arc<Shared>,
    /// Resolves when the queue may not be written any longer. What is in hand is left to the journal.
    pub(super) stop: CancellationToken,
}

/// Pause before a lane looks again whether it may begin at all.
const NOT_YET: Duration = Duration::from_millis(100);

/// A batch that fails alone rests for longer than the lanes pause then, so that the others get their turn.
const REST_STEPS: u32 = 3;

/// Returns at least half of the pause: with full jitter a lock that lasts would be asked for in a storm.
fn steady_pause(attempt: u32) -> Duration {
    pause(attempt, 0.5 + 0.5 * rand::random::<f64>())
}

/// What a lane does next.
enum Step {
    Flush { claim: Claim, is_probe: bool, is_small: bool },
    Wait(Duration),
    Ended,
}

impl Lane {
    /// Works until the stop token is canceled, or, in a drain, until nothing is left.
    pub(super) async fn run(self) {
        while !self.stop.is_cancelled() {
            self.shared.health.beat();
            match self.next_step().await {
                Step::Flush { claim, is_probe, is_small } => {
                    self.flush(claim, is_small).await;
                    if is_probe {
                        self.shared.gate().probe_ended();
                    }
                }
                Step::Wait(limit) => self.wait(limit.min(HEARTBEAT)).await,
                Step::Ended => return,
            }
        }
    }

    async fn wait(&self, limit: Duration) {
        tokio::select! {
            () = self.shared.queue.work() => {}
            () = tokio::time::sleep(limit) => {}
            () = self.shared.draining.cancelled(), if !self.shared.draining.is_cancelled() => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn next_step(&self) -> Step {
        let shared = &self.shared;
        let now = shared.clock.now();
        if !shared.health.index_read.load(Relaxed) || !shared.health.schema_seen.load(Relaxed) {
            return self.pause_until(now.plus(NOT_YET), now).await;
        }
        let permit = shared.gate().permit(now);
        let (halvings, is_probe) = match permit {
            Permit::Go { halvings, is_probe } => (halvings, is_probe),
            Permit::Wait { until } => return self.pause_until(until, now).await,
        };
        let step = self.claim(halvings, is_probe, now).await;
        if is_probe && !matches!(step, Step::Flush { .. }) {
            shared.gate().probe_ended();
        }
        step
    }

    /// Waits while nothing may be written, or another lane probes, without listening for work: that would spin. A drain
    /// is over for a lane that may not write what there is not.
    async fn pause_until(&self, until: Timestamp, now: Timestamp) -> Step {
        let shared = &self.shared;
        let is_draining = shared.draining.is_cancelled();
        if is_draining && shared.health.index_read.load(Relaxed) && shared.queue.waiting().0 == 0 {
            return Step::Ended;
        }
        tokio::select! {
            () = shared.draining.cancelled(), if !is_draining => Step::Wait(Duration::ZERO),
            () = tokio::time::sleep(until.since(now).min(HEARTBEAT)) => Step::Wait(Duration::ZERO),
            () = self.stop.cancelled() => Step::Ended,
        }
    }

    async fn claim(&self, halvings: u32, is_probe: bool, now: Timestamp) -> Step {
        let shared = &self.shared;
        let flush = |claim, is_small| Step::Flush { claim, is_probe, is_small };
        let room = |events: u32| Room { events: (events >> halvings).max(1), bytes: shared.flush_bytes >> halvings };
        if let Some(claim) = shared.queue.claim_probe(room(shared.config.batch_size), now) {
            return flush(claim, false);
        }
        let is_draining = shared.draining.is_cancelled();
        let (waiting, deadline) = shared.queue.waiting();
        let view = View {
            waiting,
            is_due: deadline.is_some_and(|deadline| deadline <= now),
            small_is_taken: shared.small_is_taken.load(Relaxed),
            is_draining,
            lanes: shared.lanes,
            batch_size: shared.config.batch_size,
        };
        match decide(view) {
            Decision::Flush { events } => match shared.queue.claim(room(events), now) {
                Some(claim) => {
                    // There may be enough left for a lane that went to sleep before it came in.
                    shared.queue.wake();
                    flush(claim, false)
                }
                None => Step::Wait(Duration::ZERO),
            },
            Decision::Linger if shared.small_is_taken.swap(true, Relaxed) => Step::Wait(Duration::ZERO),
            Decision::Linger => {
                tokio::select! {
                    () = tokio::time::sleep(LINGER) => {}
                    () = shared.draining.cancelled() => {}
                }
                match shared.queue.claim(room(shared.config.batch_size), shared.clock.now()) {
                    Some(claim) => flush(claim, true),
                    None => {
                        shared.small_is_taken.store(false, Relaxed);
                        Step::Wait(Duration::ZERO)
                    }
                }
            }
            Decision::Wait if is_draining && waiting == 0 => Step::Ended,
            Decision::Wait => {
                let due = deadline.into_iter().chain(shared.queue.next_probe()).min();
                Step::Wait(due.map_or(HEARTBEAT, |due| due.since(now).max(Duration::from_millis(1))))
            }
        }
    }

    async fn flush(&self, claim: Claim, is_small: bool) {
        let shared = &self.shared;
        let events = claim.events();
        // The permits are the lane's room in memory. A flush larger than a lane's share waits for the others' room; a
        // lane that waits holds none, so one alone always gets through.
        let kibibytes = u32::try_from(claim.bytes().div_ceil(1024)).unwrap_or(u32::MAX).min(shared.memory_kibibytes);
        let permit = shared.memory.acquire_many(kibibytes).await;
        let queue = Arc::clone(&shared.queue);
        let loaded = tokio::task::spawn_blocking(move || queue.load(claim)).await;
        // A panic while it read has left the batches in hand: they wait for the next start, and the lane dies aloud.
        let loaded = loaded.expect("reading the journal does not panic");
        if let Some(loaded) = loaded {
            let weight = events as f64 / f64::from(shared.config.batch_size);
            shared.busy.begin(self.number, weight, Instant::now());
            self.write(loaded).await;
            shared.busy.end(self.number, Instant::now());
        }
        drop(permit);
        if is_small {
            shared.small_is_taken.store(false, Relaxed);
            // Who came in meanwhile found the place of the small flush taken.
            shared.queue.wake();
        }
    }

    async fn write(&self, loaded: Loaded) {
        let shared = &self.shared;
        let (started, began) = (Instant::now(), shared.clock.now());
        let mut write = Box::pin(shared.sink.write(&loaded.batches));
        let result = loop {
            tokio::select! {
                result = &mut write => break result,
                () = tokio::time::sleep(HEARTBEAT) => shared.health.beat(),
                // The connection is dropped with the transaction in it; the batches stay in the journal.
                () = self.stop.cancelled() => return,
            }
        };
        drop(write);
        match result {
            Ok(outcomes) => {
                shared.gate().succeeded();
                settle(shared, &loaded, &outcomes, started.elapsed());
                shared.publish_gate();
                shared.metrics.flushes_total.get(FlushOutcome::Committed).inc();
            }
            Err(error) => self.give_back(loaded, error, began).await,
        }
    }

    async fn give_back(&self, loaded: Loaded, error: FlushError, began: Timestamp) {
        let shared = &self.shared;
        let now = shared.clock.now();
        let cause = error.source.as_ref().map(|source| format!("{source:#}")).unwrap_or_default();
        let class = error.outcome.class;
        if let Some(month) = error.month {
            let attempt = loaded.batches.iter().map(|batch| batch.attempt).max().unwrap_or(1);
            let pause = steady_pause(attempt);
            tracing::warn!(
                month = %month, error.class = class.as_str(), error = cause, advice = error.advice,
                retry_ms = pause.as_millis() as u64, "month can't be written now, so its batches wait"
            );
            shared.metrics.flushes_total.get(FlushOutcome::Parked).inc();
            shared.queue.park(loaded, class, month, now.plus(pause), error.advice);
            shared.publish_gate();
            return;
        }
        let (pause, opened, trouble) = {
            let mut gate = shared.gate();
            let was_open = gate.is_open();
            let pause = gate.failed(error.outcome, error.advice.clone(), began, now, rand::random());
            (pause, gate.is_open() && !was_open, gate.trouble())
        };
        shared.publish_gate();
        tracing::warn!(
            error.class = class.as_str(),
            error.action = error.outcome.action.as_str(),
            error = cause,
            advice = error.advice,
            retry_ms = pause.as_millis() as u64,
            "flush did not commit, so its batches wait"
        );
        if opened {
            shared.health.set_database(CheckStatus::Down, trouble);
        }
        shared.metrics.flushes_total.get(FlushOutcome::Retried).inc();
        let attempt = loaded.batches.iter().map(|batch| batch.attempt).max().unwrap_or(1);
        let rest = if loaded.batches.len() > 1 { pause } else { steady_pause(attempt + REST_STEPS) };
        let rest_until = is_split(error.outcome, attempt).then(|| now.plus(rest));
        shared.queue.release(loaded, class, rest_until);
        tokio::select! {
            () = tokio::time::sleep(pause.min(HEARTBEAT)) => {}
            () = shared.draining.cancelled(), if !shared.draining.is_cancelled() => {}
            () = self.stop.cancelled() => {}
        }
    }
}
