//! Durable, ordered, bounded: what lies between the 202 and the COPY.

pub mod journal;

use std::path::PathBuf;

use crate::config::Mebibytes;

/// Settings of the queue.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Folder of the journal. One process owns it.
    #[arg(long, env = "JOURNAL_DIR", default_value = "./journal")]
    pub journal_dir: PathBuf,

    /// MiB that the journal's files may take. When they are used up, new batches are refused with 503.
    #[arg(long, env = "JOURNAL_MAX_MB", default_value = "4096")]
    pub journal_max_mb: Mebibytes,

    /// MiB of memory for the journal's index and the flush buffers of all lanes.
    #[arg(long, env = "QUEUE_MEMORY_MB", default_value = "256")]
    pub queue_memory_mb: Mebibytes,
}
