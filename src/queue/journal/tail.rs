//! The end of the journal: the segment that is appended to, and where the next one comes from.
//!
//! Used by the writer's thread alone. Promises that an `Ok` position is durable, that nothing of a record that got an
//! error other than [`AppendError::OutcomeUnknown`] comes back, and that all files together stay within the budget.

use std::{
    io::{self, IoSlice},
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::{Duration, Instant},
};

use super::{
    AppendError,
    header::{HEADER_BYTES, Header},
    layout::{Layout, SMALLEST_SEGMENT},
    position::Position,
    record::{Identity, PREFIX_BYTES, Parts, Prefix},
    segment::Segment,
    spares::Spares,
    store::Store,
};

/// How often a disk in trouble is tried.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// What follows a record up to the next unit.
const PADDING: [u8; 64] = [0; 64];
/// A segment that closes with a larger part of it unused gives that back.
const WASTED_PART: u64 = 16;

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A new batch: leaves the reserve alone.
    Append,
    /// The copy of an old one: frees more than it takes.
    Compaction,
}

/// The end of the journal.
#[derive(Debug)]
pub(super) struct Tail {
    store: Arc<Store>,
    spares: Spares,
    active: Option<Active>,
    next_epoch: u64,
    writable: bool,
    probe_at: Instant,
}

/// The segment that is appended to.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    /// Where the next record goes; all before is synced.
    end: u64,
    /// Where its records must end.
    capacity: u64,
}

impl Active {
    fn room(&self) -> u64 {
        self.capacity - self.end
    }

    fn is_idle(&self) -> bool {
        self.end > HEADER_BYTES && self.segment.live.load(Relaxed) == 0
    }
}

impl Tail {
    /// Takes the first segment, if it can.
    pub fn new(store: Arc<Store>, spares: Spares, next_epoch: u64) -> Self {
        let mut tail = Self { store, spares, active: None, next_epoch, writable: true, probe_at: Instant::now() };
        tail.recover();
        tail
    }

    /// Appends records in their order; calls `settled` with the place of each, once it is durable, or why it is not.
    pub fn append(
        &mut self,
        records: &[Parts<'_>],
        purpose: Purpose,
        mut settled: impl FnMut(usize, Result<Position, AppendError>),
    ) {
        let mut at = 0;
        while let Some(first) = records.get(at) {
            let mut room = match self.make_room(first, purpose) {
                Ok(room) => room,
                Err(error) => {
                    settled(at, Err(error));
                    at += 1;
                    continue;
                }
            };
            let mut until = at;
            while let Some(record) = records.get(until).filter(|record| record.bytes() <= room && record.fits_prefix())
            {
                room -= record.bytes();
                until += 1;
            }
            let run = &records[at..until];
            match self.write(run) {
                Ok(mut offset) => {
                    let slot = self.active.as_ref().map_or(0, |active| active.segment.slot);
                    for (index, record) in run.iter().enumerate() {
                        settled(at + index, Ok(Position::new(slot, offset)));
                        offset += record.bytes();
                    }
                }
                Err(error) => {
                    // First, so that whoever sends the batch again finds a journal that works, if one can.
                    self.recover();
                    (at..until).for_each(|index| settled(index, Err(error)));
                }
            }
            at = until;
        }
    }

    /// Sees to it that a record fits into the active segment; returns the room there.
    fn make_room(&mut self, record: &Parts<'_>, purpose: Purpose) -> Result<u64, AppendError> {
        if !self.writable {
            return Err(AppendError::NotWritable);
        }
        if !record.fits_prefix() {
            return Err(AppendError::Full);
        }
        let bytes = record.bytes();
        if let Some(active) = self.active.as_ref().filter(|active| active.is_idle())
            && (active.room() < bytes || active.end - HEADER_BYTES >= active.room())
        {
            self.close_active();
        }
        self.tidy();
        // Once compaction had to take of the reserve, the room that is left in its segment is for compaction too.
        let reserve_is_whole = self.spares.has_room(&self.store, 0, purpose);
        if let Some(active) = self.active.as_ref().filter(|active| active.room() >= bytes) {
            return if reserve_is_whole { Ok(active.room()) } else { Err(AppendError::Full) };
        }
        let file_bytes = self.store.layout.file_bytes_for(bytes);
        if !self.spares.has_room(&self.store, Layout::cost(file_bytes), purpose) {
            return Err(AppendError::Full);
        }
        self.close_active();
        match self.open_segment(file_bytes, bytes) {
            Ok(room) => Ok(room),
            Err(error) => {
                self.trouble("take a new segment", &error);
                Err(AppendError::NotWritable)
            }
        }
    }

    /// Writes records that fit, and syncs them; returns the offset of the first.
    fn write(&mut self, run: &[Parts<'_>]) -> Result<u64, AppendError> {
        let Some(active) = &mut self.active else {
            return Err(AppendError::NotWritable);
        };
        let segment = active.segment.clone();
        let start = active.end;
        let mut end = start;
        let mut prefixes = Vec::with_capacity(run.len());
        for record in run {
            prefixes.push(Prefix::of(record).encode(&segment.header.identity, end));
            end += record.bytes();
        }
        let mut slices = Vec::with_capacity(4 * run.len());
        for (record, prefix) in run.iter().zip(&prefixes) {
            debug_assert_eq!(prefix.len() as u64, PREFIX_BYTES);
            for part in [prefix, record.head, record.rows, &PADDING[..record.padding()]] {
                slices.push(IoSlice::new(part));
            }
        }
        if let Err(error) = self.store.disk.write(&segment.file, &mut slices, start) {
            let taken_back = self.abandon_active();
            self.trouble("write to the journal", &error);
            return Err(match taken_back {
                Ok(()) => AppendError::NotWritable,
                Err(_) => AppendError::OutcomeUnknown,
            });
        }
        if let Err(error) = self.store.disk.sync(&segment.file) {
            // What the kernel kept of it nobody knows: the same file must not be believed again.
            let _ = self.abandon_active();
            self.trouble("sync the journal", &error);
            return Err(AppendError::OutcomeUnknown);
        }
        active.end = end;
        segment.end.store(end, Relaxed);
        segment.live.fetch_add(run.len() as u32, Relaxed);
        segment.state().live_bytes += end - start;
        self.store.count(&segment, end);
        self.store.store_summary(&segment, false);
        Ok(start)
    }

    /// Ends the active segment where its last good record ends, so that nothing after it can come back.
    fn abandon_active(&mut self) -> io::Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        let outcome = self.store.cut(&active.segment, active.end);
        if let Err(error) = &outcome {
            tracing::error!(%error, "could not cut a segment of the journal behind its last good record");
        }
        self.close_active();
        outcome
    }

    /// Closes the active segment, whose records are all synced.
    pub fn close_active(&mut self) {
        let Some(Active { segment, end, .. }) = self.active.take() else {
            return;
        };
        self.store.set_active(None);
        let file_bytes = segment.file_bytes.load(Relaxed);
        let kept = end.next_multiple_of(4096).min(file_bytes);
        let wasteful = file_bytes - kept > file_bytes / WASTED_PART && segment.live.load(Relaxed) > 0;
        if wasteful && let Err(error) = self.store.cut(&segment, kept) {
            tracing::warn!(%error, "could not give back the unused end of a segment of the journal");
        }
        self.store.store_summary(&segment, true);
        self.store.sync_marks(&segment);
        self.store.count(&segment, segment.file_bytes.load(Relaxed));
        self.store.settle(&segment, |state| {
            state.marks.put_away();
            state.closed_at = Some(Instant::now());
        });
    }

    /// Takes a new segment; returns the room in it. A full disk may still have room for a smaller one.
    fn open_segment(&mut self, file_bytes: u64, record_bytes: u64) -> io::Result<u64> {
        self.tidy();
        let least = SMALLEST_SEGMENT.max(HEADER_BYTES + record_bytes);
        let mut file_bytes = file_bytes;
        let (slot, file) = loop {
            match self.spares.take(&self.store, file_bytes) {
                Ok(taken) => break taken,
                Err(error) if error.kind() == io::ErrorKind::StorageFull && file_bytes > least => {
                    file_bytes = (file_bytes / 4).max(least);
                }
                Err(error) => return Err(error),
            }
        };
        let header = Header {
            codec: self.store.codec,
            identity: Identity { epoch: self.next_epoch, marker: rand::random() },
            file_bytes,
        };
        // Durable before the first record: else, after a power cut, the header of the file's last use could stand over
        // records that are not its own.
        let disk = &self.store.disk;
        let written = disk.write(&file, &mut [IoSlice::new(&header.encode())], 0).and_then(|()| disk.sync(&file));
        if let Err(error) = written {
            self.spares.drop_file(&self.store, slot, file_bytes);
            return Err(error);
        }
        self.next_epoch += 1;
        let segment = Arc::new(Segment::new(slot, header, file, file_bytes, HEADER_BYTES));
        segment.state().replayed = true;
        self.store.insert(segment.clone());
        self.store.set_active(Some(slot));
        self.store.store_summary(&segment, false);
        self.active = Some(Active { segment, end: HEADER_BYTES, capacity: file_bytes });
        Ok(file_bytes - HEADER_BYTES)
    }

    /// Recycles what became free.
    pub fn tidy(&mut self) {
        for segment in self.store.take_retired() {
            self.spares.recycle(&self.store, &segment);
        }
    }

    /// Notes that the disk refused.
    fn trouble(&mut self, what: &str, error: &io::Error) {
        if self.writable {
            tracing::error!(journal.dir = %self.store.folder.path().display(), %error, "could not {what}");
        }
        self.writable = false;
        self.probe_at = Instant::now() + PROBE_INTERVAL;
        self.store.health.journal_writable.store(false, SeqCst);
    }

    /// Tries the disk again if it is in trouble and it is time to.
    pub fn probe(&mut self) {
        if !self.writable && Instant::now() >= self.probe_at {
            self.recover();
        }
    }

    /// Takes a new segment, or where the budget has none left writes a small file: either tells how the disk is.
    fn recover(&mut self) {
        let file_bytes = self.store.layout.segment_bytes;
        let has_room = self.spares.has_room(&self.store, Layout::cost(file_bytes), Purpose::Append);
        let outcome = if self.active.is_some() || !has_room {
            self.store.folder.probe()
        } else {
            self.open_segment(file_bytes, 0).map(|_| ())
        };
        match outcome {
            Ok(()) => {
                if !std::mem::replace(&mut self.writable, true) {
                    tracing::info!("the journal can be written again");
                }
                self.store.health.journal_writable.store(true, SeqCst);
            }
            Err(error) => self.trouble("take a segment for the journal", &error),
        }
    }
}
