//! Durable, ordered, bounded: what lies between the 202 and the COPY.
//!
//! A batch enters the schedule, and counts as known, only after its fdatasync; it leaves the queue only by
//! [`Queue::complete`], once its fate is recorded in PostgreSQL. Rows stay in the journal: memory holds some 30 bytes a
//! batch, however long the queue is. Which batch is next, and who may come in, are decided by pure code beside this
//! ([`schedule`], [`admission`]).

pub mod admission;
mod claim;
mod enqueue;
mod index;
pub mod journal;
mod parked;
mod sample;
pub mod schedule;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use claim::{Claim, Loaded};
pub use enqueue::EnqueueError;
use tokio::sync::Notify;

use self::{
    admission::Admission,
    enqueue::Unsynced,
    index::Index,
    journal::{Journal, Position},
    parked::{Parked, Resting},
    schedule::Schedule,
};
use crate::{
    batch::{Band, BatchHead, BatchKey, BatchStatus, KnownBatch, Priority},
    health::Health,
    metrics::{BookMetrics, Metrics, QueueMetrics},
    settings::Mebibytes,
    sinks::postgres::sqlstate::ErrorClass,
    time::{Clock, Month, Timestamp},
};

/// Settings of the queue.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Journal")]
#[group(skip)]
pub struct Config {
    /// Folder where batches are kept until they are committed, on a disk that outlives the process. One process owns it.
    #[arg(long, env = "JOURNAL_DIR", default_value = "./journal")]
    pub journal_dir: PathBuf,

    /// MiB that the journal's files may take. When they are used up, new batches are refused with 503.
    #[arg(long, env = "JOURNAL_MAX_MB", default_value = "4096")]
    pub journal_max_mb: Mebibytes,

    /// MiB of memory for the journal's index and for the rows that are being written.
    #[arg(long, env = "QUEUE_MEMORY_MB", default_value = "256")]
    pub queue_memory_mb: Mebibytes,
}

impl Config {
    /// Returns the bytes that the flushes of all lanes may hold together: half of the memory; the index has the rest.
    pub const fn flush_memory(&self) -> u64 {
        self.queue_memory_mb.bytes() / 2
    }
}

/// The queue. One for the process, shared by the door and the lanes.
#[derive(Debug)]
pub struct Queue {
    journal: Journal,
    clock: Clock,
    health: Arc<Health>,
    books: BookMetrics,
    metrics: QueueMetrics,
    /// Batches that the index may hold before the door closes.
    index_limit: u64,
    /// Bytes of rows above which a batch could never be flushed.
    largest_batch: u64,
    state: Mutex<State>,
    /// Told whenever a batch came in or went back.
    work: Notify,
}

#[derive(Debug)]
struct State {
    schedule: Schedule,
    index: Index,
    admission: Admission,
    /// Batches on their way to the disk, by what their callers call them.
    unsynced: HashMap<BatchKey, Unsynced>,
    /// Bytes of those batches.
    unsynced_bytes: u64,
    /// Batches that a lane has, or had, in hand.
    tried: HashMap<Position, Tried>,
    /// Months that are in trouble, with their batches.
    parked: BTreeMap<Month, Parked>,
    /// Flushes that failed again: each half is tried by itself, down to one batch, and the others go on.
    resting: Vec<Resting>,
    /// Batches that wait for a person: older than what the ledger remembers, or unreadable.
    held: Schedule,
}

/// What the note of a batch's tries takes in memory, counted as batches of the index: each batch of a month that stays
/// parked has one.
const TRIED_AS_BATCHES: usize = 2;

/// How a batch's tries to be written went.
#[derive(Clone, Copy, Debug)]
struct Tried {
    priority: Priority,
    accepted_at: Timestamp,
    attempts: u32,
    last_error: Option<ErrorClass>,
    /// A lane has it now.
    in_hand: bool,
}

impl Queue {
    /// Returns an empty queue over an open journal; `timeout` is what a batch of priority 0 may wait.
    pub fn new(
        journal: Journal,
        config: &Config,
        timeout: Duration,
        clock: Clock,
        health: Arc<Health>,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let schedule = Schedule::new(timeout, clock.now());
        metrics.queue.queue_limit_bytes.set(journal.limit_bytes() as i64);
        let queue = Arc::new(Self {
            journal,
            clock,
            health,
            books: metrics.books.clone(),
            metrics: metrics.queue.clone(),
            index_limit: config.queue_memory_mb.bytes() / 2 / index::BYTES_PER_BATCH,
            largest_batch: config.flush_memory(),
            state: Mutex::new(State {
                held: schedule.beside(),
                schedule,
                index: Index::default(),
                admission: Admission::default(),
                unsynced: HashMap::new(),
                unsynced_bytes: 0,
                tried: HashMap::new(),
                parked: BTreeMap::new(),
                resting: Vec::new(),
            }),
            work: Notify::new(),
        });
        let weak = Arc::downgrade(&queue);
        let relocate: std::sync::Weak<dyn journal::Relocate> = weak;
        queue.journal.set_relocate(relocate);
        queue
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held has already ended the process's parts that matter.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once a batch may have come in or gone back.
    pub async fn work(&self) {
        self.work.notified().await;
    }

    /// Returns what is known of a batch that waits or is being written.
    pub fn find(&self, key: &BatchKey) -> Option<KnownBatch> {
        self.known(&self.lock(), key).map(|(head, tried)| pending(&head, tried))
    }

    /// Looks a batch up among those that are durable. Reads the head of each candidate, which is nearly always none.
    fn known(&self, state: &State, key: &BatchKey) -> Option<(BatchHead, Option<Tried>)> {
        state.index.candidates(key).find_map(|position| {
            let head = self.head(position).filter(|head| head.key == *key)?;
            Some((head, state.tried.get(&position).copied()))
        })
    }

    fn head(&self, position: Position) -> Option<BatchHead> {
        let bytes = self.journal.read_head(position).ok()?;
        BatchHead::decode(&bytes).ok()
    }

    /// Tells a lane that waits that it should look again.
    pub fn wake(&self) {
        self.work.notify_one();
    }

    /// Returns how many bytes wait or are on their way, as a part of what the journal may take; or the same of the
    /// index, whichever is fuller.
    fn fill(&self, state: &State) -> f64 {
        let bytes =
            (self.journal.used_bytes() + state.unsynced_bytes) as f64 / self.journal.limit_bytes().max(1) as f64;
        let entries = state.index.len() + state.unsynced.len() + state.tried.len() * TRIED_AS_BATCHES;
        let batches = entries as f64 / self.index_limit.max(1) as f64;
        bytes.max(batches)
    }

    fn count_in(&self, band: Band, events: u32, bytes: u64) {
        self.metrics.queue_events.get(band).add(events.into());
        self.metrics.queue_bytes.get(band).add(bytes as i64);
        self.books.events_in_flight.add(events.into());
    }

    fn count_out(&self, band: Band, events: u32, bytes: u64) {
        self.metrics.queue_events.get(band).sub(events.into());
        self.metrics.queue_bytes.get(band).sub(bytes as i64);
        self.books.events_in_flight.sub(events.into());
    }

    /// Writes down what must be, and lets go of the journal. What is queued stays in it.
    pub fn close(&self) {
        self.journal.close();
    }
}

/// Returns the status of a batch that is not final.
fn pending(head: &BatchHead, tried: Option<Tried>) -> KnownBatch {
    let mut known = KnownBatch::accepted(head);
    if let Some(tried) = tried {
        known.report.status = BatchStatus::Processing;
        known.report.attempts = tried.attempts;
        known.report.last_error = tried.last_error.map(|class| class.as_str().to_owned());
    }
    known
}

/// The journal moves a record; the queue points at the new place, unless a lane has the batch in hand.
impl journal::Relocate for Queue {
    fn relocate(&self, from: Position, to: Position) -> bool {
        let Some(head) = self.head(to) else { return false };
        let mut state = self.lock();
        if state.tried.get(&from).is_some_and(|tried| tried.in_hand) {
            return false;
        }
        let State { schedule, index, parked, resting, held, tried, .. } = &mut *state;
        let set_aside = parked.values_mut().map(|month| &mut month.waiting).chain([held]);
        let moved = [schedule]
            .into_iter()
            .chain(set_aside)
            .any(|waiting| waiting.relocate(head.priority, head.accepted_at, from, to))
            || resting
                .iter_mut()
                .flat_map(|resting| &mut resting.entries)
                .find(|(_, entry)| entry.position == from)
                .map(|(_, entry)| entry.position = to)
                .is_some();
        if moved {
            index.relocate(&head.key, from, to);
            if let Some(record) = tried.remove(&from) {
                tried.insert(to, record);
            }
        }
        moved
    }
}
