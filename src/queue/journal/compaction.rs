//! Moves the live records of mostly dead segments to the journal's end, so that one batch that waits for long does not
//! keep a whole segment of the disk.
//!
//! A copy is synced before the queue is asked to take it in place of the old record, so a crash at any point leaves one
//! copy at least; two are replayed as two and the queue drops the second. Works in steps, so that appends between them
//! don't wait for long.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{
    header::HEADER_BYTES,
    position::Position,
    record::{Parts, StoredRecord, body_crc},
    scan::{Found, Scan},
    segment::Segment,
    store::Store,
    tail::{Purpose, Tail},
};

/// How often it is looked for something to move.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A segment is left alone for this long after it closed, while there is much room: it may become free by itself.
const SETTLE_TIME: Duration = Duration::from_secs(10);
/// A segment with a record that could not be moved is tried again after this long.
const REST: Duration = Duration::from_secs(10);
/// Bytes that one step looks at, and bytes that it copies.
const SCANNED_A_STEP: u64 = 8 << 20;
const COPIED_A_STEP: u64 = 1 << 20;

/// What the choice is made by.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    epoch: u64,
    file_bytes: u64,
    live_bytes: u64,
    /// How long ago it closed.
    closed_for: Duration,
    /// A record of it could not be moved a moment ago.
    rests: bool,
}

/// Returns the segment to empty: the oldest that is mostly dead, once more than half of all used bytes are.
fn choose(closed: &[Candidate], used_bytes: u64, live_bytes: u64, limit_bytes: u64) -> Option<usize> {
    if live_bytes * 2 >= used_bytes {
        return None;
    }
    let is_tight = used_bytes * 4 > limit_bytes;
    let worth = |candidate: &Candidate| {
        candidate.live_bytes * 2 < candidate.file_bytes
            && !candidate.rests
            && (is_tight || candidate.closed_for >= SETTLE_TIME)
    };
    let eligible = closed.iter().enumerate().filter(|(_, candidate)| worth(candidate));
    eligible.min_by_key(|(_, candidate)| candidate.epoch).map(|(index, _)| index)
}

/// The work in hand.
#[derive(Debug)]
pub(super) struct Compaction {
    store: Arc<Store>,
    /// The segment that is being emptied, and how far it was looked at.
    running: Option<(Arc<Segment>, u64)>,
    /// Epochs of segments that are left alone, and until when.
    resting: HashMap<u64, Instant>,
    looked_at: Instant,
}

impl Compaction {
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, running: None, resting: HashMap::new(), looked_at: Instant::now() }
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Does a bounded piece of work, if there is any.
    pub fn step(&mut self, tail: &mut Tail) {
        if self.running.is_none() && self.looked_at.elapsed() >= LOOK_INTERVAL {
            self.look();
        }
        if let Some((victim, offset)) = self.running.take() {
            self.running = self.move_some(tail, &victim, offset).map(|offset| (victim, offset));
        }
    }

    /// Works until nothing is worth moving.
    #[cfg(test)]
    pub fn run_out(&mut self, tail: &mut Tail) {
        loop {
            self.looked_at = Instant::now() - LOOK_INTERVAL;
            self.step(tail);
            if self.running.is_none() {
                self.look();
                if self.running.is_none() {
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        let now = Instant::now();
        self.looked_at = now;
        self.resting.retain(|_, until| *until > now);
        if self.store.relocate.get().is_none() {
            return;
        }
        let mut live_bytes = 0;
        let mut closed = Vec::new();
        let mut segments = Vec::new();
        for segment in self.store.segments() {
            let state = segment.state();
            // What has not been replayed yet counts as live.
            live_bytes += match state.replayed {
                true => state.live_bytes,
                false => segment.counted.load(Relaxed),
            };
            let Some(closed_at) = state.closed_at.filter(|_| state.replayed) else {
                continue;
            };
            let epoch = segment.header.identity.epoch;
            closed.push(Candidate {
                epoch,
                file_bytes: segment.file_bytes.load(Relaxed),
                live_bytes: state.live_bytes,
                closed_for: now.saturating_duration_since(closed_at),
                rests: self.resting.contains_key(&epoch),
            });
            drop(state);
            segments.push(segment);
        }
        let (used, limit) = (self.store.used_bytes(), self.store.limit_bytes());
        self.running =
            choose(&closed, used, live_bytes, limit).map(|index| (segments.swap_remove(index), HEADER_BYTES));
    }

    /// Moves records from `offset` on; returns where to go on, or nothing at the segment's end.
    fn move_some(&mut self, tail: &mut Tail, victim: &Arc<Segment>, offset: u64) -> Option<u64> {
        let mut found = Vec::new();
        let mut copied = 0;
        let mut scan = Scan::new(victim, offset, victim.end.load(Relaxed));
        while copied < COPIED_A_STEP && scan.offset() - offset < SCANNED_A_STEP {
            let Some(place) = scan.next() else { break };
            let Found::Record(start, prefix) = place else { continue };
            let position = Position::new(victim.slot, start);
            if victim.state().marks.is_done(position.unit()) {
                continue;
            }
            match victim.read(start) {
                // A damaged record must not get a new checksum that says it is whole.
                Ok(record) if body_crc(&record.head, &record.rows) == prefix.body_crc => {
                    copied += prefix.record_bytes();
                    found.push((position, prefix.body_crc, record));
                }
                _ => {
                    tracing::error!(segment = victim.slot, "a batch in the journal can't be read");
                    return self.rest(victim, Duration::from_secs(3600));
                }
            }
        }
        let reached = scan.offset();
        let at_end = reached >= victim.end.load(Relaxed);
        if !self.relocate(tail, &found) || at_end && victim.live.load(Relaxed) > 0 {
            return self.rest(victim, REST);
        }
        (!at_end).then_some(reached)
    }

    /// Copies records and asks the queue to take the copies; returns whether there was room for all.
    fn relocate(&self, tail: &mut Tail, found: &[(Position, u32, StoredRecord)]) -> bool {
        let Some(queue) = self.store.relocate.get().and_then(std::sync::Weak::upgrade) else {
            return false;
        };
        let parts: Vec<Parts<'_>> = found
            .iter()
            .map(|(_, body_crc, record)| Parts { head: &record.head, rows: &record.rows, body_crc: *body_crc })
            .collect();
        let mut done = Vec::with_capacity(found.len());
        let mut all = true;
        tail.append(&parts, Purpose::Compaction, |index, outcome| match outcome {
            Ok(to) => {
                let from = found[index].0;
                done.push(if queue.relocate(from, to) { from } else { to });
            }
            Err(_) => all = false,
        });
        self.store.complete(&done);
        all
    }

    fn rest(&mut self, segment: &Segment, time: Duration) -> Option<u64> {
        self.resting.insert(segment.header.identity.epoch, Instant::now() + time);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(epoch: u64, live_bytes: u64) -> Candidate {
        Candidate { epoch, file_bytes: 100, live_bytes, closed_for: Duration::from_secs(60), rests: false }
    }

    #[test]
    fn oldest_mostly_dead_segment_is_emptied() {
        let closed = [candidate(3, 10), candidate(1, 90), candidate(2, 40)];
        assert_eq!(choose(&closed, 300, 140, 400), Some(2));
        assert_eq!(choose(&closed, 300, 150, 400), None, "half of all is live");
    }

    #[test]
    fn what_is_not_worth_it_is_left_alone() {
        let rests = Candidate { rests: true, ..candidate(1, 10) };
        let fresh = Candidate { closed_for: Duration::ZERO, ..candidate(2, 10) };
        assert_eq!(choose(&[rests, candidate(3, 50)], 300, 60, 400), None);
        assert_eq!(choose(&[fresh], 100, 10, 1000), None, "there is much room yet");
        assert_eq!(choose(&[fresh], 300, 10, 1000), Some(0));
    }
}
