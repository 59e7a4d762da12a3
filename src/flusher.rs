//! Takes batches from the queue, writes them, settles them.

use crate::config::{Mebibytes, Seconds};

/// Settings of the flusher.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Events that end a flush when the queue is calm; with a backlog a flush holds up to five times as many.
    #[arg(long, env = "BATCH_SIZE", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub batch_size: u32,

    /// Seconds after which a batch of priority 0 is due; one of priority 10 is due at once.
    #[arg(long, env = "BATCH_TIMEOUT_SECONDS", default_value = "30")]
    pub batch_timeout_seconds: Seconds,

    /// MiB of rows that end a flush.
    #[arg(long, env = "MAX_BATCH_MEMORY_MB", default_value = "100")]
    pub max_batch_memory_mb: Mebibytes,

    /// COPY lanes: flushes that are written at the same time, each on a connection of its own.
    #[arg(long, env = "FLUSH_WORKERS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub flush_workers: u32,

    /// Seconds that one COPY may take before its connection is dropped and the flush tried again.
    ///
    /// `statement_timeout` does not fire while the server waits for rows, so without this a dead network would hold a
    /// lane for good. Too low a value interrupts a database that is busy but well.
    #[arg(long, env = "COPY_TIMEOUT_SECONDS", default_value = "30")]
    pub copy_timeout_seconds: Seconds,
}
