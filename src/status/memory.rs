//! The batches that became final here lately, and who waits for one.
//!
//! Bounded by number and by age. A record takes some 120 bytes, so that full memory stays below 16 MiB: a batch's key
//! is kept as its hash, moments as numbers.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    batch::{BatchKey, BatchStatus, KnownBatch, Priority, StatusReport},
    time::Timestamp,
};

/// Batches that are remembered; what is older is asked of Redis or the ledger.
const MAX_RECORDS: usize = 65_536;

/// What this replica remembers of final batches.
#[derive(Debug)]
pub(super) struct Memory {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    finals: Finals,
    /// One channel for all who wait for a batch.
    waiting: HashMap<BatchKey, watch::Sender<Option<KnownBatch>>>,
}

impl Memory {
    /// Returns an empty memory that keeps a batch for `ttl`.
    pub(super) fn new(ttl: Duration) -> Self {
        let finals = Finals::new(ttl, MAX_RECORDS);
        let waiting = HashMap::new();
        Self { inner: Mutex::new(Inner { finals, waiting }) }
    }

    /// Returns a batch that became final here.
    pub(super) fn find(&self, key: &BatchKey, now: Instant) -> Option<KnownBatch> {
        self.lock().finals.find(key, now)
    }

    /// Remembers a batch that is final, and wakes who waits for it.
    pub(super) fn note_final(&self, key: &BatchKey, known: &KnownBatch, now: Instant) {
        let sender = {
            let mut inner = self.lock();
            inner.finals.insert(key, known, now);
            inner.waiting.remove(key)
        };
        if let Some(sender) = sender {
            sender.send_replace(Some(known.clone()));
        }
    }

    /// Registers one who waits. What becomes final from now on wakes it.
    pub(super) fn register(self: &Arc<Self>, key: &BatchKey) -> Waiter {
        let mut inner = self.lock();
        let sender = inner.waiting.entry(key.clone()).or_insert_with(|| watch::Sender::new(None));
        let receiver = Some(sender.subscribe());
        Waiter { memory: Arc::clone(self), key: key.clone(), receiver }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits for a batch. Dropping it ends the registration.
#[derive(Debug)]
pub(super) struct Waiter {
    memory: Arc<Memory>,
    key: BatchKey,
    receiver: Option<watch::Receiver<Option<KnownBatch>>>,
}

impl Waiter {
    /// Waits until the batch is final; may be dropped and called again.
    pub(super) async fn woken(&mut self) -> KnownBatch {
        if let Some(receiver) = &mut self.receiver
            && let Ok(known) = receiver.wait_for(Option::is_some).await
            && let Some(known) = known.clone()
        {
            return known;
        }
        // The sender ends only once it has sent, so this is never reached; to wait on is right in any case.
        std::future::pending().await
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.receiver = None;
        let mut inner = self.memory.lock();
        if inner.waiting.get(&self.key).is_some_and(|sender| sender.receiver_count() == 0) {
            inner.waiting.remove(&self.key);
        }
    }
}

/// Final batches in the order in which they became so.
#[derive(Debug)]
struct Finals {
    ttl: Duration,
    max_records: usize,
    records: VecDeque<Record>,
    /// How many records were dropped so far: the number of the first that is left.
    dropped: u64,
    /// Where a batch's record is, counted from the first there ever was.
    index: HashMap<KeyHash, u64>,
}

type KeyHash = [u8; 16];

/// Names a batch in 128 bits. Ids come from outside, so it is a hash in which nobody finds two keys of one value.
fn hash_key(key: &BatchKey) -> KeyHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.caller.len() as u64).to_le_bytes());
    hasher.update(key.caller.as_bytes());
    hasher.update(key.batch_id.as_bytes());
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    hash
}

impl Finals {
    fn new(ttl: Duration, max_records: usize) -> Self {
        Self { ttl, max_records, records: VecDeque::new(), dropped: 0, index: HashMap::new() }
    }

    fn find(&self, key: &BatchKey, now: Instant) -> Option<KnownBatch> {
        let number = self.index.get(&hash_key(key))?;
        let record = self.records.get((number - self.dropped) as usize)?;
        (now < record.noted_at + self.ttl).then(|| record.to_known(&key.batch_id))
    }

    /// Remembers a batch. One that is remembered already is replaced, and keeps its age.
    fn insert(&mut self, key: &BatchKey, known: &KnownBatch, now: Instant) {
        let hash = hash_key(key);
        let Some(record) = Record::new(hash, known, now) else {
            return;
        };
        while self.records.front().is_some_and(|oldest| oldest.noted_at + self.ttl <= now) {
            self.drop_oldest();
        }
        if let Some(number) = self.index.get(&hash) {
            let kept = &mut self.records[(number - self.dropped) as usize];
            *kept = Record { noted_at: kept.noted_at, ..record };
            return;
        }
        while self.records.len() >= self.max_records {
            self.drop_oldest();
        }
        self.index.insert(hash, self.dropped + self.records.len() as u64);
        self.records.push_back(record);
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.records.pop_front() {
            self.index.remove(&oldest.key);
            self.dropped += 1;
        }
    }
}

/// What is kept of a final batch.
#[derive(Debug)]
struct Record {
    key: KeyHash,
    noted_at: Instant,
    content_hash: [u8; 32],
    status: BatchStatus,
    priority: Priority,
    received: u32,
    accepted: u32,
    rejected: u32,
    committed: u32,
    duplicates: u32,
    quarantined: u32,
    attempts: u32,
    accepted_at: Timestamp,
    completed_at: Option<Timestamp>,
    last_error: Option<Box<str>>,
}

impl Record {
    /// Returns the record of a batch; nothing when it is not final.
    fn new(key: KeyHash, known: &KnownBatch, noted_at: Instant) -> Option<Self> {
        let moment = |text: &str| text.parse::<jiff::Timestamp>().ok().map(Timestamp::from);
        let report = &known.report;
        report.status.is_final().then_some(())?;
        Some(Self {
            key,
            noted_at,
            content_hash: known.content_hash,
            status: report.status,
            priority: report.priority,
            received: report.received,
            accepted: report.accepted,
            rejected: report.rejected,
            committed: report.committed,
            duplicates: report.duplicates,
            quarantined: report.quarantined,
            attempts: report.attempts,
            accepted_at: moment(&report.accepted_at)?,
            completed_at: report.completed_at.as_deref().and_then(moment),
            last_error: report.last_error.as_deref().map(Box::from),
        })
    }

    fn to_known(&self, batch_id: &str) -> KnownBatch {
        KnownBatch {
            content_hash: self.content_hash,
            report: StatusReport {
                batch_id: batch_id.to_owned(),
                status: self.status,
                priority: self.priority,
                received: self.received,
                accepted: self.accepted,
                rejected: self.rejected,
                committed: self.committed,
                duplicates: self.duplicates,
                quarantined: self.quarantined,
                attempts: self.attempts,
                accepted_at: self.accepted_at.to_string(),
                completed_at: self.completed_at.map(|moment| moment.to_string()),
                last_error: self.last_error.as_deref().map(str::to_owned),
            },
        }
    }
}

#[cfg(test)]
mod tests;
