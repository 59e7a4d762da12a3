//! Which batches come next: 11 queues, one a priority, and the most urgent head first. Pure: time is handed in.
//!
//! Within a priority the order of deadlines is the order of arrival, so the smallest of 11 heads is the most urgent of
//! all. A batch of priority `p` is due at `accepted_at + BATCH_TIMEOUT_SECONDS × (10 − p) / 10`.

use std::{collections::VecDeque, time::Duration};

use super::journal::Position;
use crate::{
    batch::{Band, Priority},
    time::Timestamp,
};

/// Microseconds of one tick, in which the schedule counts time: fine enough for deadlines, and 4 bytes hold 2 years.
const TICK_MICROS: i64 = 16_000;
/// The clock's zero lies this long before the start: older batches are all equally old.
const PAST: Duration = Duration::from_secs(365 * 86_400);
/// Bytes of one unit in which the schedule counts the size of a batch.
const SIZE_UNIT: u64 = 2048;

/// What memory holds of a batch that waits: 16 bytes, however large the batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was accepted, in ticks.
    accepted: u32,
    /// Where it lies in the journal.
    pub position: Position,
    /// Its size in units, rounded up.
    size: u16,
    /// Its events that have a row.
    pub events: u16,
    /// Who is charged for it.
    pub account: u16,
}

impl Entry {
    /// Returns about how many bytes the batch takes in the journal; rounded up.
    pub fn bytes(&self) -> u64 {
        u64::from(self.size) * SIZE_UNIT
    }
}

/// What one flush may take.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Events.
    pub events: u32,
    /// Bytes of rows.
    pub bytes: u64,
}

impl Room {
    fn holds(self, entry: &Entry) -> bool {
        u32::from(entry.events) <= self.events && entry.bytes() <= self.bytes
    }

    fn take(&mut self, entry: &Entry) {
        self.events = self.events.saturating_sub(entry.events.into());
        self.bytes = self.bytes.saturating_sub(entry.bytes());
    }

    fn part(self, divisor: u32) -> Self {
        Self { events: self.events / divisor, bytes: self.bytes / u64::from(divisor) }
    }
}

/// Batches that wait, in the order in which they are due.
#[derive(Debug)]
pub struct Schedule {
    queues: [VecDeque<Entry>; Priority::COUNT],
    /// What a batch of priority 0 may wait.
    timeout: Duration,
    /// Where the ticks are counted from.
    zero: Timestamp,
    /// Events that wait.
    events: u64,
    /// Room that band low was owed by flushes in which none of its batches fitted.
    low_credit: u32,
    /// Room that the most urgent batch was owed by flushes whose shares left it too little.
    head_credit: u32,
}

impl Schedule {
    /// Returns an empty schedule; `now` is when the process started.
    pub fn new(timeout: Duration, now: Timestamp) -> Self {
        Self { queues: Default::default(), timeout, zero: now.minus(PAST), events: 0, low_credit: 0, head_credit: 0 }
    }

    /// Returns an empty schedule that counts time as this one does.
    pub fn beside(&self) -> Self {
        Self { queues: Default::default(), events: 0, low_credit: 0, head_credit: 0, ..*self }
    }

    /// Returns the entry of a batch.
    pub fn entry(&self, position: Position, accepted_at: Timestamp, events: u32, bytes: u64, account: u16) -> Entry {
        Entry {
            accepted: self.ticks(accepted_at),
            position,
            size: u16::try_from(bytes.div_ceil(SIZE_UNIT)).unwrap_or(u16::MAX),
            events: u16::try_from(events).unwrap_or(u16::MAX),
            account,
        }
    }

    fn ticks(&self, moment: Timestamp) -> u32 {
        let ticks = (moment.as_micros() - self.zero.as_micros()) / TICK_MICROS;
        u32::try_from(ticks.max(0)).unwrap_or(u32::MAX)
    }

    /// Returns when an entry was accepted, to the tick.
    pub fn accepted_at(&self, entry: &Entry) -> Timestamp {
        Timestamp::from_micros(self.zero.as_micros() + i64::from(entry.accepted) * TICK_MICROS)
    }

    fn deadline(&self, priority: usize, entry: &Entry) -> Timestamp {
        self.accepted_at(entry).plus(self.timeout * (10 - priority as u32) / 10)
    }

    /// Puts a batch where its age belongs: at the end, unless it was there before.
    pub fn push(&mut self, priority: Priority, entry: Entry) {
        let queue = &mut self.queues[usize::from(priority.get())];
        self.events += u64::from(entry.events);
        match queue.back() {
            Some(last) if last.accepted > entry.accepted => {
                let place = queue.partition_point(|other| other.accepted <= entry.accepted);
                queue.insert(place, entry);
            }
            _ => queue.push_back(entry),
        }
    }

    /// Puts batches before those that wait, in their order of age: what the journal held at start.
    pub fn push_replayed(&mut self, priority: Priority, mut entries: Vec<Entry>) {
        self.events += entries.iter().map(|entry| u64::from(entry.events)).sum::<u64>();
        let queue = &mut self.queues[usize::from(priority.get())];
        entries.extend(queue.iter());
        entries.sort_by_key(|entry| entry.accepted);
        *queue = entries.into();
    }

    /// Puts in all that waits in another schedule that counts time as this one does.
    pub fn absorb(&mut self, other: Self) {
        for (priority, entries) in other.queues.into_iter().enumerate() {
            if !entries.is_empty() {
                self.push_replayed(priority_of(priority), entries.into());
            }
        }
    }

    /// Returns how many events wait.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Returns whether no batch waits.
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// Returns when the most urgent batch is due.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.most_urgent(|_| true).map(|(_, deadline)| deadline)
    }

    /// Returns when the oldest batch of a band that waits was accepted.
    pub fn oldest(&self, band: Band) -> Option<Timestamp> {
        let heads = priorities(band).filter_map(|priority| self.queues[priority].front());
        heads.map(|entry| self.accepted_at(entry)).min()
    }

    fn most_urgent(&self, admits: impl Fn(usize) -> bool) -> Option<(usize, Timestamp)> {
        // Of equal deadlines the higher priority goes first.
        let heads = self.queues.iter().enumerate().rev().filter(|(priority, _)| admits(*priority));
        let deadlines = heads.filter_map(|(priority, queue)| Some((priority, self.deadline(priority, queue.front()?))));
        deadlines.min_by_key(|(_, deadline)| *deadline)
    }

    /// Takes the batches of the next flush. One batch is always taken, however large; a batch is never split.
    ///
    /// Once the most urgent batch is overdue, more comes in than goes out, and deadlines alone would let all bands wait
    /// alike. Then half of the room goes to band high and a tenth to band low, as far as they have batches.
    pub fn take(&mut self, mut room: Room, now: Timestamp) -> Vec<(Priority, Entry)> {
        let mut taken = Vec::new();
        let is_overdue = self.next_deadline().is_some_and(|deadline| deadline < now);
        if is_overdue {
            let head = self.most_urgent(|_| true).and_then(|(queue, _)| self.queues[queue].front());
            if head.is_some_and(|head| u32::from(head.events) <= self.head_credit) {
                let none = Room { events: 0, bytes: 0 };
                self.take_from(|_| true, none, &mut room, &mut taken, true);
            }
            let high = room.part(2);
            let first = taken.is_empty();
            self.take_from(|priority| band_of(priority) == Band::High, high, &mut room, &mut taken, first);
            let tenth = room.part(10);
            self.low_credit = self.low_credit.saturating_add(tenth.events.max(1));
            let low = Room { events: self.low_credit, bytes: u64::MAX };
            let before = room.events;
            self.take_from(|priority| band_of(priority) == Band::Low, low, &mut room, &mut taken, false);
            self.low_credit = self.low_credit.saturating_sub(before - room.events);
            if self.oldest(Band::Low).is_none() {
                self.low_credit = 0;
            }
        }
        let all = room;
        let shared = taken.len();
        self.take_from(|_| true, all, &mut room, &mut taken, shared == 0);
        // A batch that is larger than what the shares ever leave over would wait, and all behind it, for as long as
        // urgent ones keep coming.
        self.head_credit = if is_overdue && taken.len() == shared && !self.is_empty() {
            self.head_credit.saturating_add(room.events.max(1))
        } else {
            0
        };
        taken
    }

    /// Takes from the queues that `admits`, within `share` and `room`; with `first` one batch even if it is too large.
    fn take_from(
        &mut self,
        admits: impl Fn(usize) -> bool,
        mut share: Room,
        room: &mut Room,
        taken: &mut Vec<(Priority, Entry)>,
        mut first: bool,
    ) {
        while let Some((priority, _)) = self.most_urgent(&admits) {
            let queue = &mut self.queues[priority];
            let Some(entry) = queue.front().filter(|entry| first || share.holds(entry) && room.holds(entry)).copied()
            else {
                return;
            };
            queue.pop_front();
            first = false;
            share.take(&entry);
            room.take(&entry);
            self.events -= u64::from(entry.events);
            taken.push((priority_of(priority), entry));
        }
    }

    /// Points the entry of a waiting batch at the place that it was moved to. Returns whether it was found.
    pub fn relocate(&mut self, priority: Priority, accepted_at: Timestamp, from: Position, to: Position) -> bool {
        let ticks = self.ticks(accepted_at);
        let queue = &mut self.queues[usize::from(priority.get())];
        let start = queue.partition_point(|entry| entry.accepted < ticks);
        let same_tick = queue.range_mut(start..).take_while(|entry| entry.accepted == ticks);
        match same_tick.into_iter().find(|entry| entry.position == from) {
            Some(entry) => {
                entry.position = to;
                true
            }
            None => false,
        }
    }
}

fn priority_of(index: usize) -> Priority {
    Priority::try_from(index as u8).expect("there are as many queues as priorities")
}

fn band_of(index: usize) -> Band {
    priority_of(index).band()
}

fn priorities(band: Band) -> impl Iterator<Item = usize> {
    (0..Priority::COUNT).filter(move |priority| band_of(*priority) == band)
}

#[cfg(test)]
mod tests;
