//! The way in: admit, append, and only after the fdatasync schedule and answer; and what the journal held at start.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    Queue, State,
    journal::{AppendError, Position, Record, Replay},
    pending,
    schedule::Entry,
};
use crate::{
    batch::{BatchHead, EncodedBatch, KnownBatch, Priority},
    metrics::Source,
    time::Timestamp,
};

/// Why a batch was not taken. It is not in the queue, unless the outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// Another batch bears this id.
    #[error("another batch bears this id")]
    Reused,
    /// No room for its band, or its caller has too much of it.
    #[error("the queue is full")]
    Full,
    /// The journal takes no writes; nothing of the batch was kept.
    #[error("the journal can't be written")]
    NotWritable,
    /// The disk failed while the batch was written: it may turn up at the next start.
    #[error("the journal's disk failed, so the outcome is unknown")]
    OutcomeUnknown,
}

/// What became of an append; all who sent the batch meanwhile wait for it.
type Outcome = Option<Result<(), EnqueueError>>;

/// A batch on its way to the disk.
#[derive(Debug)]
pub(super) struct Unsynced {
    content_hash: [u8; 32],
    outcome: watch::Receiver<Outcome>,
}

impl Queue {
    /// Returns whether a batch of about `bytes` bytes could come in now.
    ///
    /// # Errors
    /// [`EnqueueError::Full`] or [`EnqueueError::NotWritable`].
    pub fn admit(&self, account: &str, priority: Priority, bytes: u64) -> Result<(), EnqueueError> {
        if !self.health.journal_writable.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(EnqueueError::NotWritable);
        }
        self.admit_to(&mut self.lock(), account, priority, bytes)
    }

    fn admit_to(&self, state: &mut State, account: &str, priority: Priority, bytes: u64) -> Result<(), EnqueueError> {
        let fill = self.fill(state);
        let is_closed = state.admission.update(fill);
        self.health.queue_full.store(is_closed, std::sync::atomic::Ordering::Relaxed);
        self.metrics.queue_fill_ratio.set(fill.min(1.0));
        let checked = state.admission.check(account, priority.band(), bytes, self.journal.limit_bytes());
        checked.map_err(|refused| {
            tracing::debug!(?refused, priority = priority.get(), "refused a batch");
            EnqueueError::Full
        })
    }

    /// Makes a batch durable and schedules it; returns its status of now. A repeat of a batch that is not durable yet
    /// joins its wait.
    ///
    /// Once begun it runs to its end, also when the future is dropped. `on_durable` runs on the journal's thread right
    /// after the fdatasync, before anybody is answered; not for a repeat.
    ///
    /// # Errors
    /// [`EnqueueError`] says why it was not taken.
    pub async fn enqueue(
        self: &Arc<Self>,
        batch: EncodedBatch,
        account: &str,
        on_durable: impl FnOnce(&BatchHead) + Send + 'static,
    ) -> Result<KnownBatch, EnqueueError> {
        let head = Arc::new(batch.head);
        let (is_repeat, mut outcome) = match self.begin(&head, batch.rows, account, on_durable)? {
            Begun::Known(known) => return Ok(*known),
            Begun::Joined(outcome) => (true, outcome),
            Begun::Appending(outcome) => (false, outcome),
        };
        // The sender is dropped unsent only when the writer died, and then the process ends.
        let result = outcome
            .wait_for(Option::is_some)
            .await
            .map_or(Err(EnqueueError::OutcomeUnknown), |outcome| outcome.unwrap_or(Err(EnqueueError::OutcomeUnknown)));
        result?;
        Ok(is_repeat.then(|| self.find(&head.key)).flatten().unwrap_or_else(|| pending(&head, None)))
    }

    fn begin(
        self: &Arc<Self>,
        head: &Arc<BatchHead>,
        rows: Vec<u8>,
        account: &str,
        on_durable: impl FnOnce(&BatchHead) + Send + 'static,
    ) -> Result<Begun, EnqueueError> {
        let same = |content_hash| {
            if content_hash == head.content_hash { Ok(()) } else { Err(EnqueueError::Reused) }
        };
        let record = Record { head: head.encode(), rows };
        let bytes = (record.head.len() + record.rows.len()) as u64;
        let band = head.priority.band();
        let (sender, receiver) = watch::channel(None);
        let mut state = self.lock();
        if let Some(unsynced) = state.unsynced.get(&head.key) {
            return same(unsynced.content_hash).map(|()| Begun::Joined(unsynced.outcome.clone()));
        }
        if let Some((known, tried)) = self.known(&state, &head.key) {
            return same(known.content_hash).map(|()| Begun::Known(Box::new(pending(&known, tried))));
        }
        if bytes > self.largest_batch {
            return Err(EnqueueError::Full);
        }
        self.admit_to(&mut state, account, head.priority, bytes)?;
        let mut entry = state.schedule.entry(Position::from_raw(0), head.accepted_at, head.accepted, bytes, 0);
        entry.account = state.admission.charge(account, band, entry.bytes());
        state.unsynced_bytes += entry.bytes();
        let unsynced = Unsynced { content_hash: head.content_hash, outcome: receiver.clone() };
        state.unsynced.insert(head.key.clone(), unsynced);
        drop(state);

        let (queue, head) = (Arc::clone(self), Arc::clone(head));
        let done = move |result: Result<Position, AppendError>| {
            let result = queue.appended(&head, entry, result);
            if result.is_ok() {
                on_durable(&head);
            }
            sender.send_replace(Some(result));
        };
        self.journal.append(record, Box::new(done));
        Ok(Begun::Appending(receiver))
    }

    /// Runs on the journal's thread once the batch's fdatasync is over.
    fn appended(
        &self,
        head: &BatchHead,
        mut entry: Entry,
        result: Result<Position, AppendError>,
    ) -> Result<(), EnqueueError> {
        let band = head.priority.band();
        let mut state = self.lock();
        state.unsynced.remove(&head.key);
        state.unsynced_bytes -= entry.bytes();
        match result {
            Ok(position) => {
                entry.position = position;
                state.index.insert(&head.key, position);
                state.schedule.push(head.priority, entry);
                drop(state);
                self.count_in(band, head.accepted, entry.bytes());
                self.wake();
                Ok(())
            }
            Err(error) => {
                state.admission.discharge(entry.account, band, entry.bytes());
                Err(match error {
                    AppendError::Full => EnqueueError::Full,
                    AppendError::OutcomeUnknown => EnqueueError::OutcomeUnknown,
                    AppendError::NotWritable | AppendError::Closed => EnqueueError::NotWritable,
                })
            }
        }
    }

    /// Reads what the journal held at start, and schedules it before what has come in since. Blocks; run it once.
    ///
    /// Batches older than `retention` are held, unless `replay_old`: the ledger has forgotten batches of that age.
    pub fn replay(&self, replay: Replay, retention: Duration, replay_old: bool) {
        let started = std::time::Instant::now();
        let oldest = self.clock.now().minus(retention);
        let mut found: Vec<Vec<Entry>> = vec![Vec::new(); Priority::COUNT];
        let (mut batches, mut events, mut held) = (0u64, 0u64, 0u64);
        let report = replay.run(|position, bytes, size| {
            let Ok(head) = BatchHead::decode(bytes) else {
                tracing::error!(
                    journal.position = position.get(),
                    "a batch in the journal can't be read, so it is left"
                );
                return;
            };
            if self.is_copy(&head, position) {
                self.journal.complete(&[position]);
                return;
            }
            let entry = self.note_replayed(&head, position, size);
            batches += 1;
            events += u64::from(head.accepted);
            if head.accepted_at < oldest && !replay_old {
                held += 1;
                self.lock().held.push(head.priority, entry);
            } else {
                found[usize::from(head.priority.get())].push(entry);
            }
        });
        let mut state = self.lock();
        for (priority, entries) in (0u8..).zip(found) {
            let priority = Priority::try_from(priority).expect("there are as many queues as priorities");
            state.schedule.push_replayed(priority, entries);
        }
        drop(state);
        self.health.index_read.store(true, std::sync::atomic::Ordering::Relaxed);
        self.wake();
        tracing::info!(
            journal.batches = batches,
            journal.events = events,
            journal.damaged = report.damaged,
            journal.torn_bytes = report.torn_bytes,
            elapsed_ms = started.elapsed().as_millis() as u64,
            "read the journal"
        );
        if held > 0 {
            tracing::error!(
                journal.batches = held,
                "batches lay in the journal for longer than the ledger remembers: start with --replay-old to send them"
            );
        }
    }

    /// Returns whether a record is the second copy of a batch: the process died while it moved it.
    fn is_copy(&self, head: &BatchHead, position: Position) -> bool {
        let state = self.lock();
        let mut others = state.index.candidates(&head.key).filter(|other| *other != position);
        others.any(|other| self.head(other).is_some_and(|known| known.key == head.key && known.batch == head.batch))
    }

    fn note_replayed(&self, head: &BatchHead, position: Position, size: u64) -> Entry {
        let band = head.priority.band();
        let mut state = self.lock();
        let mut entry = state.schedule.entry(position, head.accepted_at, head.accepted, size, 0);
        entry.account = state.admission.charge(&head.key.caller, band, entry.bytes());
        state.index.insert(&head.key, position);
        drop(state);
        self.books.events_accepted_total.get(Source::Replay).inc_by(head.accepted.into());
        self.books.events_received_total.get(Source::Replay).inc_by(head.accepted.into());
        self.count_in(band, head.accepted, entry.bytes());
        entry
    }

    /// Returns about how long until the queue takes batches again, by how fast it empties; for `Retry-After`.
    pub fn retry_after(&self) -> Duration {
        let oldest = self.lock().schedule.next_deadline();
        let behind = oldest.map_or(Duration::ZERO, |deadline: Timestamp| self.clock.now().since(deadline));
        (behind / 10).clamp(Duration::from_secs(1), Duration::from_secs(30))
    }
}

enum Begun {
    Known(Box<KnownBatch>),
    Joined(watch::Receiver<Outcome>),
    Appending(watch::Receiver<Outcome>),
}
