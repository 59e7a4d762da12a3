//! PostgreSQL: writes a flush, which is one transaction.

pub mod sqlstate;

use crate::{
    batch::{ClaimedBatch, KnownBatch},
    time::Month,
};
use sqlstate::{ErrorOutcome, QuarantineReason};

/// What became of one batch of a flush.
#[derive(Clone, Debug)]
pub struct BatchOutcome {
    /// The batch as the ledger has it now; it is final.
    pub known: KnownBatch,
    /// Events of it that this flush stored.
    pub committed: u32,
    /// Events of it that were stored before, by this flush's account.
    pub duplicates: u32,
    /// Events of it that this flush put into quarantine, by reason.
    pub quarantined: Vec<(QuarantineReason, u32)>,
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
pub struct PostgresSink {}

impl PostgresSink {
    /// Writes the batches' events, their ledger rows and their quarantined events in one transaction.
    ///
    /// Returns one outcome for each batch, in their order. Twice for one batch changes nothing: the second time it is
    /// settled from the ledger.
    ///
    /// # Errors
    /// [`FlushError`] says what to do next.
    pub async fn write(&self, _batches: &[ClaimedBatch]) -> Result<Vec<BatchOutcome>, FlushError> {
        todo!()
    }
}
