//! What the writer, the replay and the readers share: the segments, what is live in them, and what they take.

use std::{
    io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    Relocate,
    disk::Disk,
    folder::Folder,
    layout::Layout,
    marks::Summary,
    position::{Position, SLOTS},
    segment::Segment,
};
use crate::{health::Health, metrics::JournalMetrics};

/// No segment is being appended to.
const NO_SLOT: u32 = u32::MAX;

/// The journal's state.
#[derive(Debug)]
pub(super) struct Store {
    pub folder: Folder,
    pub layout: Layout,
    pub codec: u16,
    pub disk: Disk,
    pub metrics: JournalMetrics,
    pub health: Arc<Health>,
    pub relocate: OnceLock<Weak<dyn Relocate>>,
    /// The journal is closing: a replay ends early.
    pub stopping: AtomicBool,
    /// Bytes of all files in the folder.
    pub files: AtomicU64,
    /// Those of them that are damaged segments kept aside.
    pub aside: AtomicU64,
    slots: RwLock<Vec<Option<Arc<Segment>>>>,
    active: AtomicU32,
    used: AtomicU64,
    retired: Mutex<Vec<Arc<Segment>>>,
    mark_failed: AtomicBool,
}

impl Store {
    pub fn new(
        folder: Folder,
        layout: Layout,
        codec: u16,
        metrics: JournalMetrics,
        health: Arc<Health>,
        aside_bytes: u64,
    ) -> Self {
        Self {
            folder,
            layout,
            codec,
            disk: Disk::new(metrics.journal_fsync_seconds.clone()),
            metrics,
            health,
            relocate: OnceLock::new(),
            stopping: AtomicBool::new(false),
            files: AtomicU64::new(aside_bytes),
            aside: AtomicU64::new(aside_bytes),
            slots: RwLock::new(vec![None; SLOTS as usize]),
            active: AtomicU32::new(NO_SLOT),
            used: AtomicU64::new(0),
            retired: Mutex::default(),
            mark_failed: AtomicBool::new(false),
        }
    }

    /// Returns the segment that the position lies in.
    pub fn segment(&self, slot: u32) -> Option<Arc<Segment>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(slot as usize).cloned().flatten()
    }

    /// As [`Store::segment`], for one who holds a position and so knows that there is one.
    pub fn segment_of(&self, position: Position) -> io::Result<Arc<Segment>> {
        self.segment(position.slot())
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "that segment of the journal is free"))
    }

    /// Returns every segment in use.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.iter().flatten().cloned().collect()
    }

    /// Takes in a segment.
    pub fn insert(&self, segment: Arc<Segment>) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let slot = segment.slot as usize;
        slots[slot] = Some(segment);
    }

    /// Says which segment is appended to.
    pub fn set_active(&self, slot: Option<u32>) {
        self.active.store(slot.unwrap_or(NO_SLOT), Relaxed);
    }

    /// Returns the bytes that records take: files of closed segments, and what is written of the active one, unless all
    /// of that is done.
    pub fn used_bytes(&self) -> u64 {
        let idle = self
            .segment(self.active.load(Relaxed))
            .map_or(0, |active| if active.live.load(Relaxed) == 0 { active.counted.load(Relaxed) } else { 0 });
        self.used.load(Relaxed).saturating_sub(idle)
    }

    /// Returns the bytes that records may take.
    pub fn limit_bytes(&self) -> u64 {
        self.layout.limit_bytes(self.aside.load(Relaxed))
    }

    /// Changes what a segment counts for in the used bytes.
    pub fn count(&self, segment: &Segment, bytes: u64) {
        let before = segment.counted.swap(bytes, Relaxed);
        self.used.fetch_add(bytes.wrapping_sub(before), Relaxed);
        self.show_used();
    }

    fn show_used(&self) {
        self.metrics.journal_bytes.set(self.used_bytes() as i64);
    }

    /// Cuts a segment's file.
    pub fn cut(&self, segment: &Segment, bytes: u64) -> io::Result<()> {
        segment.file.set_len(bytes)?;
        let before = segment.file_bytes.swap(bytes, Relaxed);
        self.files.fetch_sub(Layout::cost(before) - Layout::cost(bytes), Relaxed);
        Ok(())
    }

    /// Marks records done; returns whether a segment became free.
    pub fn complete(&self, positions: &[Position]) -> bool {
        let mut sorted = positions.to_vec();
        sorted.sort_unstable();
        let mut freed = false;
        for group in sorted.chunk_by(|one, other| one.slot() == other.slot()) {
            if let Some(segment) = group.first().and_then(|position| self.segment(position.slot())) {
                freed |= self.complete_in(&segment, group);
            }
        }
        self.show_used();
        freed
    }

    fn complete_in(&self, segment: &Arc<Segment>, group: &[Position]) -> bool {
        let mut sizes = Vec::with_capacity(group.len());
        segment.record_sizes(group.iter().map(|position| position.offset()), |_, bytes| sizes.push(bytes));
        let file_bytes = segment.file_bytes.load(Relaxed);
        let mut state = segment.state();
        for (position, bytes) in group.iter().zip(sizes) {
            if state.marks.set(position.unit(), file_bytes) {
                state.live_bytes = state.live_bytes.saturating_sub(bytes);
                // A mark for what is no live record must not wrap the count.
                let _ = segment.live.fetch_update(Relaxed, Relaxed, |live| live.checked_sub(1));
            }
        }
        let path = self.folder.marks_path(segment.slot);
        let units = group.iter().map(|position| position.unit());
        let stored = state.marks.store(&path, &segment.header.identity, units);
        self.note_mark(stored);
        let free = self.retire_if_done(segment, &mut state);
        drop(state);
        if free {
            self.remove(segment);
        }
        free
    }

    /// Writes down how far a segment is synced, and whether it is closed.
    pub fn store_summary(&self, segment: &Segment, closed: bool) {
        let summary = Summary { header: segment.header, synced: segment.end.load(Relaxed), closed };
        let stored = segment.state().marks.store_summary(&self.folder.marks_path(segment.slot), &summary);
        self.note_mark(stored);
    }

    /// Makes a segment's marks durable.
    pub fn sync_marks(&self, segment: &Segment) {
        let synced = segment.state().marks.sync();
        self.note_mark(synced);
    }

    /// Marks that can't be written block nothing: their batches are replayed, and the ledger knows them.
    fn note_mark(&self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.mark_failed.store(false, Relaxed),
            Err(error) if !self.mark_failed.swap(true, Relaxed) => {
                tracing::warn!(%error, "could not mark batches done in the journal: a restart will replay them");
            }
            Err(_) => {}
        }
    }

    /// Says that a segment's records have ended, or have all been replayed; frees it if all are done.
    pub fn settle(&self, segment: &Arc<Segment>, change: impl FnOnce(&mut super::segment::State)) {
        let mut state = segment.state();
        change(&mut state);
        let free = self.retire_if_done(segment, &mut state);
        drop(state);
        if free {
            self.remove(segment);
        }
    }

    fn retire_if_done(&self, segment: &Segment, state: &mut super::segment::State) -> bool {
        let done = state.closed_at.is_some() && state.replayed && segment.live.load(Relaxed) == 0;
        done && !std::mem::replace(&mut state.retired, true)
    }

    /// Takes a segment out; its file is the writer's to recycle.
    fn remove(&self, segment: &Arc<Segment>) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots[segment.slot as usize] = None;
        drop(slots);
        self.count(segment, 0);
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.push(segment.clone());
    }

    /// Returns the segments that became free since the last call.
    pub fn take_retired(&self) -> Vec<Arc<Segment>> {
        std::mem::take(&mut *self.retired.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
