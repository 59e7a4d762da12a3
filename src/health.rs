//! What the probes and `/v1/health` answer from: flags that tasks keep up to date, never a query for each request.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
};

use serde::Serialize;
use utoipa::ToSchema;

use crate::time::{Clock, Timestamp};

/// The flusher's heartbeat may be this old before the process counts as hung.
const HEARTBEAT_MAX_AGE_MICROS: i64 = 60_000_000;

/// How the process is, on the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overall {
    /// All is well.
    Healthy,
    /// Batches are taken, but something behind is away or full.
    Degraded,
    /// Batches can't be taken.
    Unhealthy,
}

/// How one part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// It works.
    Up,
    /// It does not.
    Down,
    /// It is not configured.
    Off,
    /// It takes no more for now.
    Full,
}

/// How one part is, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Check {
    /// How it is.
    pub status: CheckStatus,
    /// What is wrong and what a person must do, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The parts that are looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Checks {
    /// PostgreSQL.
    pub database: Check,
    /// Redis.
    pub redis: Check,
    /// The journal's disk.
    pub journal: Check,
    /// The queue's room.
    pub queue: Check,
}

/// What `GET /v1/health` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HealthReport {
    /// How the process is, on the whole.
    pub status: Overall,
    /// How its parts are.
    pub checks: Checks,
    /// The release.
    pub version: &'static str,
    /// Seconds since the process started.
    pub uptime_seconds: u64,
}

/// The state that probes read. Each part sets its own flags.
#[derive(Debug)]
pub struct Health {
    clock: Clock,
    started_at: Timestamp,
    /// The journal's folder takes writes.
    pub journal_writable: AtomicBool,
    /// What the journal held at start has been read.
    pub index_read: AtomicBool,
    /// This replica has seen usable tables and rights at least once.
    pub schema_seen: AtomicBool,
    /// The orderly stop has begun.
    pub draining: AtomicBool,
    /// Band low or high is closed.
    pub queue_full: AtomicBool,
    /// When a lane last went round its loop, in microseconds since 1970.
    heartbeat: AtomicI64,
    database: Mutex<Check>,
    redis: Mutex<Check>,
}

fn up() -> Check {
    Check { status: CheckStatus::Up, detail: None }
}

impl Health {
    /// Returns the state of a process that has just started.
    pub fn new(clock: Clock, redis: CheckStatus) -> Self {
        let now = clock.now();
        Self {
            clock,
            started_at: now,
            journal_writable: AtomicBool::new(true),
            index_read: AtomicBool::new(false),
            schema_seen: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            queue_full: AtomicBool::new(false),
            heartbeat: AtomicI64::new(now.as_micros()),
            database: Mutex::new(Check { status: CheckStatus::Down, detail: Some("not reached yet".into()) }),
            redis: Mutex::new(Check { status: redis, detail: None }),
        }
    }

    /// Says that a lane went round its loop.
    pub fn beat(&self) {
        self.heartbeat.store(self.clock.now().as_micros(), Relaxed);
    }

    /// Says how PostgreSQL is; `detail` names no host and no SQL but what a person must do.
    pub fn set_database(&self, status: CheckStatus, detail: Option<String>) {
        *self.database.lock().unwrap_or_else(PoisonError::into_inner) = Check { status, detail };
    }

    /// Says how Redis is.
    pub fn set_redis(&self, status: CheckStatus, detail: Option<String>) {
        *self.redis.lock().unwrap_or_else(PoisonError::into_inner) = Check { status, detail };
    }

    /// Returns whether the flusher's heartbeat is young enough: `/livez`.
    pub fn is_live(&self) -> bool {
        self.clock.now().as_micros() - self.heartbeat.load(Relaxed) < HEARTBEAT_MAX_AGE_MICROS
    }

    /// Returns why the replica should get no requests, or nothing when it should: `/readyz`.
    pub fn not_ready_because(&self) -> Option<&'static str> {
        let reasons = [
            (self.draining.load(Relaxed), "draining"),
            (!self.journal_writable.load(Relaxed), "the journal can't be written"),
            (!self.index_read.load(Relaxed), "the journal is being read"),
            (!self.schema_seen.load(Relaxed), "usable tables and rights in PostgreSQL have not been seen yet"),
            (!self.is_live(), "no lane is alive"),
        ];
        reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason))
    }

    /// Returns what `GET /v1/health` answers.
    pub fn report(&self) -> HealthReport {
        let journal = match (self.journal_writable.load(Relaxed), self.index_read.load(Relaxed)) {
            (true, true) => up(),
            (false, _) => Check { status: CheckStatus::Down, detail: Some("the journal can't be written".into()) },
            (true, false) => Check { status: CheckStatus::Down, detail: Some("the journal is being read".into()) },
        };
        let queue = match self.queue_full.load(Relaxed) {
            true => Check { status: CheckStatus::Full, detail: Some("new batches are refused for now".into()) },
            false => up(),
        };
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let redis = self.redis.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let checks = Checks { database, redis, journal, queue };
        let well = |check: &Check| matches!(check.status, CheckStatus::Up | CheckStatus::Off);
        let status = if self.draining.load(Relaxed) || !well(&checks.journal) {
            Overall::Unhealthy
        } else if [&checks.database, &checks.redis, &checks.queue].into_iter().all(well) {
            Overall::Healthy
        } else {
            Overall::Degraded
        };
        let uptime_seconds = self.clock.now().since(self.started_at).as_secs();
        HealthReport { status, checks, version: env!("CARGO_PKG_VERSION"), uptime_seconds }
    }
}
