//! What became of a batch: memory, Redis, ledger.

use std::path::PathBuf;

use secrecy::SecretString;

/// Settings of the status.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where Redis is. Without it, statuses come from this replica's memory and the ledger.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<SecretString>,

    /// File that holds `REDIS_URL`.
    #[arg(long, env = "REDIS_URL_FILE")]
    pub redis_url_file: Option<PathBuf>,

    /// What each of our keys in Redis starts with.
    #[arg(long, env = "REDIS_KEY_PREFIX", default_value = "forebay:")]
    pub redis_key_prefix: String,

    /// Seconds that Redis keeps the status of a batch that is final.
    #[arg(long, env = "STATUS_TTL_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub status_ttl_seconds: u64,

    /// Days that the ledger knows a batch. Sent again later, its events are still known by their own key.
    #[arg(long, env = "LEDGER_RETENTION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub ledger_retention_days: u32,
}

use std::time::Duration;

use crate::batch::{BatchHead, BatchKey, KnownBatch};

/// The ledger can't be asked, and nobody else knows the batch.
#[derive(Debug, thiserror::Error)]
#[error("the ledger can't be asked now")]
pub struct LedgerUnavailable;

/// Tells what became of a batch.
#[derive(Debug)]
pub struct StatusBoard {}

impl StatusBoard {
    /// Returns a batch's status of now: from this replica's queue and memory, Redis, the ledger.
    ///
    /// # Errors
    /// [`LedgerUnavailable`] when only the ledger could know, and it can't be asked.
    pub async fn find(&self, _key: &BatchKey) -> Result<Option<KnownBatch>, LedgerUnavailable> {
        todo!()
    }

    /// Returns what this replica knows of a batch at once: queue, memory, and Redis if it answers within 5 ms.
    pub async fn find_repeat(&self, _key: &BatchKey) -> Option<KnownBatch> {
        todo!()
    }

    /// Waits until a batch is final, at most `limit`; returns its status then, as [`StatusBoard::find`] does.
    ///
    /// # Errors
    /// As [`StatusBoard::find`].
    pub async fn wait(&self, _key: &BatchKey, _limit: Duration) -> Result<Option<KnownBatch>, LedgerUnavailable> {
        todo!()
    }

    /// Notes that a batch is about to become durable. Never waits.
    pub fn note_accepted(&self, _head: &BatchHead) {
        todo!()
    }

    /// Notes that a batch is final, and wakes who waits for it. Never waits.
    pub fn note_final(&self, _key: &BatchKey, _known: &KnownBatch) {
        todo!()
    }
}
