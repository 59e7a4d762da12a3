//! Takes batches from the queue, writes them, settles them: the lanes.
//!
//! What to do next is decided by pure code ([`accumulator`], [`retry`]); a lane obeys. A batch is settled only once its
//! transaction has committed; whatever else happens, it goes back to the queue.

pub mod accumulator;
mod busy;
mod lane;
pub mod retry;
mod settle;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Instant,
};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::{busy::Busy, lane::Lane, retry::Gate};
use crate::{
    health::Health,
    metrics::{BookMetrics, FlushMetrics, Metrics},
    queue::Queue,
    settings::{Mebibytes, Seconds},
    shutdown::Tasks,
    sinks::postgres::PostgresSink,
    status::StatusBoard,
    time::Clock,
};

/// Settings of the flusher.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Flushes")]
#[group(skip)]
pub struct Config {
    /// Events that end a flush (one transaction) when the queue is calm; with a backlog a flush holds up to five times as many.
    #[arg(long, env = "BATCH_SIZE", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub batch_size: u32,

    /// Seconds after which a batch of priority 0 is due; one of priority 10 is due at once. An idle server does not wait so long.
    #[arg(long, env = "BATCH_TIMEOUT_SECONDS", default_value = "30")]
    pub batch_timeout_seconds: Seconds,

    /// MiB of rows that end a flush.
    #[arg(long, env = "MAX_BATCH_MEMORY_MB", default_value = "100")]
    pub max_batch_memory_mb: Mebibytes,

    /// Lanes: flushes that are written at the same time, each on a connection of its own.
    #[arg(long, env = "FLUSH_WORKERS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub flush_workers: u32,

    /// Seconds that one COPY may take before its connection is dropped and the flush tried again.
    ///
    /// `statement_timeout` does not fire while the server waits for rows, so without this a dead network would hold a
    /// lane for good. Too low a value interrupts a database that is busy but well.
    #[arg(long, env = "COPY_TIMEOUT_SECONDS", default_value = "30")]
    pub copy_timeout_seconds: Seconds,
}

/// What the flusher needs of the other parts.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where batches come from.
    pub queue: Arc<Queue>,
    /// Where they are written.
    pub sink: Arc<PostgresSink>,
    /// Who is told what became of them.
    pub status: Arc<StatusBoard>,
    /// Where the lanes' heartbeat goes.
    pub health: Arc<Health>,
    /// What they count.
    pub metrics: Arc<Metrics>,
    /// What time it is.
    pub clock: Clock,
}

/// What the lanes share.
#[derive(Debug)]
struct Shared {
    config: Config,
    lanes: u32,
    /// Bytes of rows that one flush may hold, unless a single batch is larger.
    flush_bytes: u64,
    /// KiB of rows that all flushes may hold together.
    memory: Semaphore,
    memory_kibibytes: u32,
    queue: Arc<Queue>,
    sink: Arc<PostgresSink>,
    status: Arc<StatusBoard>,
    health: Arc<Health>,
    books: BookMetrics,
    metrics: FlushMetrics,
    clock: Clock,
    gate: Mutex<Gate>,
    busy: Busy,
    /// A lane carries, or waits for, a flush smaller than `BATCH_SIZE`.
    small_is_taken: AtomicBool,
    /// Canceled when the queue is to be written without linger.
    draining: CancellationToken,
}

impl Shared {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the gate's state to the outside.
    fn publish_gate(&self) {
        let month_is_held = self.queue.parked_advice().is_some();
        let gate = self.gate();
        self.metrics.circuit_open.set(gate.is_open().into());
        self.metrics.on_hold.set((month_is_held || gate.hold().is_some()).into());
    }
}

/// The lanes.
#[derive(Clone, Debug)]
pub struct Flusher {
    shared: Arc<Shared>,
    tasks: Tasks,
    /// Lanes that run; the drain is over when none is left.
    lanes: tokio_util::task::TaskTracker,
}

impl Flusher {
    /// Starts so many lanes. They end when `tasks` are told to stop, or after [`Flusher::drain`].
    pub fn start(config: &Config, lanes: u32, flush_memory: u64, parts: Parts, tasks: &Tasks) -> Self {
        let memory_kibibytes = u32::try_from(flush_memory / 1024).unwrap_or(u32::MAX);
        let share = flush_memory / u64::from(lanes.max(1));
        let shared = Arc::new(Shared {
            config: config.clone(),
            lanes,
            flush_bytes: config.max_batch_memory_mb.bytes().min(share),
            memory: Semaphore::new(memory_kibibytes as usize),
            memory_kibibytes,
            queue: parts.queue,
            sink: parts.sink,
            status: parts.status,
            health: parts.health,
            books: parts.metrics.books.clone(),
            metrics: parts.metrics.flush.clone(),
            clock: parts.clock,
            gate: Mutex::default(),
            busy: Busy::new(lanes as usize, Instant::now()),
            small_is_taken: AtomicBool::new(false),
            draining: CancellationToken::new(),
        });
        let tracker = tokio_util::task::TaskTracker::new();
        for number in 0..lanes as usize {
            let lane = Lane { number, shared: Arc::clone(&shared), stop: tasks.stop_token().clone() };
            let draining = shared.draining.clone();
            let stop = tasks.stop_token().clone();
            let running = tracker.token();
            tasks.spawn("lane", async move {
                lane.run().await;
                drop(running);
                if draining.is_cancelled() {
                    // A drained lane ends early, as it was told to; to its watcher that would be a death.
                    stop.cancelled().await;
                }
            });
        }
        Self { shared, tasks: tasks.clone(), lanes: tracker }
    }

    /// Returns how busy the lanes were since this was last asked, 0 to 1, and shows it as a metric.
    pub fn sample(&self) {
        self.shared.metrics.flush_busy_ratio.set(self.shared.busy.ratio(Instant::now()));
    }

    /// Writes what is queued, without linger; returns once nothing that can be written is left. What waits for the end
    /// of a pause is tried at once.
    pub async fn drain(&self) {
        self.shared.gate().hurry();
        self.shared.queue.hurry();
        self.shared.draining.cancel();
        self.lanes.close();
        tokio::select! {
            () = self.lanes.wait() => {}
            () = self.tasks.stop_token().cancelled() => {}
        }
    }

    /// Returns what is wrong while flushes fail, or what a person must do before a month is written again.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.shared.gate().trouble();
        trouble.or_else(|| self.shared.queue.parked_advice())
    }
}
