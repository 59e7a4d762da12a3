//! Tells what the journal held when it was opened, once, while appends already work.
//!
//! Every record that is whole and not done is told, in the order in which it was written. One that is not whole is
//! counted and its file is kept; one that nobody was told is durable is a torn tail, and is cut off.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use super::{
    header::HEADER_BYTES,
    marks::Summary,
    position::{Position, UNIT},
    scan::{Found, Scan},
    segment::Segment,
    store::Store,
};

/// What a replay came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// Records that were told.
    pub records: u64,
    /// Records, or segments whose header is gone, that could not be read.
    pub damaged: u64,
    /// Bytes of unfinished records that were cut off.
    pub torn_bytes: u64,
}

/// What was there at open, to be told by [`Replay::run`].
#[derive(Debug)]
pub struct Replay {
    store: Arc<Store>,
    /// By epoch.
    segments: Vec<(Arc<Segment>, Option<Summary>)>,
    /// Files that were set aside at open.
    broken_files: u64,
}

impl Replay {
    pub(super) fn new(store: Arc<Store>, segments: Vec<(Arc<Segment>, Option<Summary>)>, broken_files: u64) -> Self {
        Self { store, segments, broken_files }
    }

    /// Calls `each` with the position, the head and the bytes of every record that is not done. It ends early when the
    /// journal is closed.
    pub fn run(self, mut each: impl FnMut(Position, &[u8], u64)) -> ReplayReport {
        let mut report = ReplayReport { damaged: self.broken_files, ..ReplayReport::default() };
        let last = self.segments.len().saturating_sub(1);
        for (index, (segment, summary)) in self.segments.iter().enumerate() {
            let damaged_before = report.damaged;
            let mut visit = Visit::new(&self.store, segment, *summary, index == last);
            let finished = visit.walk(&mut report, &mut each);
            let damaged = report.damaged - damaged_before;
            self.store.metrics.journal_damaged_records_total.inc_by(damaged);
            if !finished {
                break;
            }
            visit.settle(damaged, &mut report);
        }
        report
    }
}

/// Syncs a segment that a kill left open: a repeat of a batch in it is told that the batch is durable.
fn sync(store: &Store, segment: &Segment) -> bool {
    let outcome = store.disk.sync(&segment.file);
    if let Err(error) = &outcome {
        tracing::warn!(segment = segment.slot, %error, "could not sync a segment of the journal again");
    }
    outcome.is_ok()
}

/// The replay of one segment.
struct Visit<'a> {
    store: &'a Store,
    segment: &'a Arc<Segment>,
    closed: bool,
    /// Everything before was synced.
    synced: u64,
    /// Where the walk ends.
    limit: u64,
    /// Bytes of the file.
    file_bytes: u64,
    /// Where the last whole record ends.
    valid_end: u64,
    /// What does not verify behind it is a torn tail where it was never synced, else damage.
    may_be_torn: bool,
    /// Starts of records behind `valid_end` that don't verify, and whether they bear the marker.
    doubtful: Vec<(u64, bool)>,
}

impl<'a> Visit<'a> {
    fn new(store: &'a Store, segment: &'a Arc<Segment>, summary: Option<Summary>, is_last: bool) -> Self {
        let file_bytes = segment.file_bytes.load(Relaxed);
        let closed = summary.is_some_and(|summary| summary.closed);
        let synced = summary.map_or(HEADER_BYTES, |summary| summary.synced);
        let is_bounded = closed || !sync(store, segment) && summary.is_some();
        Self {
            store,
            segment,
            closed,
            synced,
            limit: if is_bounded { file_bytes.min(synced) } else { file_bytes },
            file_bytes,
            valid_end: HEADER_BYTES,
            may_be_torn: summary.is_some() || is_last,
            doubtful: Vec::new(),
        }
    }

    /// Returns whether it came to the end.
    fn walk(&mut self, report: &mut ReplayReport, each: &mut impl FnMut(Position, &[u8], u64)) -> bool {
        let segment = self.segment;
        let path = self.store.folder.marks_path(segment.slot);
        // Marks that can't be read are no marks.
        let _ = segment.state().marks.load(&path, &segment.header.identity, self.file_bytes);
        let is_done = |offset| {
            let unit = Position::new(segment.slot, offset).unit();
            segment.state().marks.is_done(unit)
        };
        let mut head = Vec::new();
        let mut scan = Scan::new(segment, HEADER_BYTES, self.limit);
        while let Some(found) = scan.next() {
            if self.store.stopping.load(Relaxed) {
                return false;
            }
            let (start, prefix) = match found {
                Found::Record(start, prefix) => (start, prefix),
                Found::Gap { from, marked } => {
                    // Done or not: how far a record reaches whose prefix is gone nobody knows.
                    let first = (!marked.contains(&from)).then_some((from, false));
                    self.doubtful.extend(first);
                    self.doubtful.extend(marked.into_iter().map(|start| (start, true)));
                    continue;
                }
            };
            let done = is_done(start);
            if !done && !scan.read_body(start, &prefix, &mut head) {
                self.doubtful.push((start, true));
                continue;
            }
            report.damaged += self.doubtful.drain(..).count() as u64;
            self.valid_end = start + prefix.record_bytes();
            if !done {
                segment.live.fetch_add(1, Relaxed);
                segment.state().live_bytes += prefix.record_bytes();
                report.records += 1;
                each(Position::new(segment.slot, start), &head, prefix.record_bytes());
            }
        }
        self.judge_tail(report);
        true
    }

    /// Tells damage from a torn tail in what did not verify at the end.
    fn judge_tail(&mut self, report: &mut ReplayReport) {
        let is_lost = |&(start, marked): &(u64, bool)| start < self.synced || marked && !self.may_be_torn;
        report.damaged += self.doubtful.iter().filter(|start| is_lost(start)).count() as u64;
        if self.doubtful.is_empty() && self.file_bytes < self.synced {
            report.damaged += 1;
        }
    }

    /// Closes the segment, cuts its torn tail, and frees it if nothing in it lives.
    fn settle(&self, damaged: u64, report: &mut ReplayReport) {
        let segment = self.segment;
        let torn = self.doubtful.iter().rfind(|(start, marked)| *marked && *start >= self.synced);
        let end = self.valid_end.max(self.synced.min(self.file_bytes));
        if !self.closed {
            segment.end.store(end, Relaxed);
            self.store.store_summary(segment, true);
        }
        if let Some((start, _)) = torn.filter(|_| self.may_be_torn) {
            report.torn_bytes += start + UNIT - end.min(*start);
            match self.store.cut(segment, end) {
                Ok(()) => self.store.count(segment, end),
                Err(error) => tracing::warn!(%error, "could not cut the torn tail of the journal"),
            }
        }
        if damaged > 0 {
            tracing::error!(
                segment = segment.slot,
                records = damaged,
                "the journal is damaged: what can't be read is lost, and its file is kept"
            );
        }
        self.store.settle(segment, |state| {
            state.damaged += damaged;
            state.replayed = true;
            state.closed_at = Some(Instant::now());
        });
    }
}
