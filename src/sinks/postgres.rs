//! PostgreSQL: writes a flush, which is one transaction.
//!
//! [`PostgresSink::write`] goes through it as often as it can mend by itself what stands in the way: doubles, a missing
//! leaf, a refused row. Anything else is the flusher's to decide; nothing of the flush is written then.

mod attempt;
mod copy;
mod failure;
mod isolate;
mod land;
mod ledger;
mod memory;
mod merge;
mod order;
pub mod quarantine;
pub mod sqlstate;
mod staging;
pub mod verify;
mod write;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use ledger::find_in_ledger;

use crate::{batch::KnownBatch, db::Database, metrics::FlushMetrics, time::Month};
use memory::Memory;
use sqlstate::{ErrorOutcome, QuarantineReason};
use staging::Doubles;

/// What became of one batch of a flush.
#[derive(Clone, Debug)]
pub struct BatchOutcome {
    /// The batch as the ledger has it now, or, where its id is another batch's, what became of it; it is final.
    pub known: KnownBatch,
    /// Events of it that this flush stored.
    pub committed: u32,
    /// Events of it that were stored before, by this flush's account.
    pub duplicates: u32,
    /// Events of it that this flush put into quarantine, by reason.
    pub quarantined: Vec<(QuarantineReason, u32)>,
}

impl BatchOutcome {
    /// Returns whether the ledger knows another batch by its id.
    pub fn is_reused(&self) -> bool {
        let mut reasons = self.quarantined.iter().map(|(reason, _)| *reason);
        reasons.any(|reason| reason == QuarantineReason::BatchIdReused)
    }
}

/// Why a flush did not commit; nothing of it was written, or (`commit_unknown`) the next try finds out.
#[derive(Debug, thiserror::Error)]
#[error("the flush did not commit: {}", .outcome.class.as_str())]
pub struct FlushError {
    /// What kind of trouble it is and what is done about it.
    pub outcome: ErrorOutcome,
    /// The month that the trouble is confined to, where it is: that month is parked, the others go on.
    pub month: Option<Month>,
    /// What a person must do, where that is known; holds no data of a caller.
    pub advice: Option<String>,
    /// The cause, for the log.
    #[source]
    pub source: Option<anyhow::Error>,
}

/// Writes flushes. One for all lanes.
#[derive(Debug)]
pub struct PostgresSink {
    database: Database,
    instance: String,
    /// What one statement may take: `COPY_TIMEOUT_SECONDS`.
    timeout: Duration,
    /// What begins each transaction.
    begin: String,
    metrics: FlushMetrics,
    /// How often flushes meet events that are stored already.
    doubles: Doubles,
    memory: Mutex<Memory>,
    /// Held by the one flush that goes row by row.
    row_by_row: tokio::sync::Mutex<()>,
}

/// The longest wait for a lock: DDL nearby must not hold a lane for long.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns what begins a transaction. A lock that is not got must be told as such, because it names its month, before
/// the deadline of the whole statement runs out. Neither READ WRITE nor READ ONLY: a server that was told to take no
/// writes must be able to say so (25006).
fn begin(copy_timeout: Duration) -> String {
    let millis = LOCK_TIMEOUT.min(copy_timeout / 2).as_millis().max(1);
    format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {millis}")
}

impl PostgresSink {
    /// Returns a sink that writes to this database, as `instance`; one statement may take `copy_timeout`.
    pub fn new(database: Database, instance: &str, copy_timeout: Duration, metrics: FlushMetrics) -> Self {
        Self {
            database,
            instance: instance.to_owned(),
            timeout: copy_timeout,
            begin: begin(copy_timeout),
            metrics,
            doubles: Doubles::default(),
            memory: Mutex::default(),
            row_by_row: tokio::sync::Mutex::default(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
