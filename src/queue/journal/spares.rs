//! Where segments' files come from and go to: free ones are kept for the next segments, within the budget.
//!
//! A recycled file has its room on the disk already, which makes the sync after a write cheaper.

use std::{fs::File, io, sync::atomic::Ordering::Relaxed};

use super::{
    folder::Folder, header::HEADER_BYTES, layout::Layout, marks, position::SLOTS, segment::Segment, store::Store,
    tail::Purpose,
};

/// Free files that are kept; more are deleted.
const MOST_SPARES: usize = 4;

/// The slots that have a file, and the free files among them.
#[derive(Debug)]
pub(super) struct Spares {
    taken: Vec<bool>,
    /// All of the usual size.
    idle: Vec<(u32, File)>,
}

impl Spares {
    pub fn new() -> Self {
        Self { taken: vec![false; SLOTS as usize], idle: Vec::new() }
    }

    /// Says that a slot has a file.
    pub fn take_slot(&mut self, slot: u32) {
        self.taken[slot as usize] = true;
    }

    /// Takes in a free file, which is in the count of all files already.
    pub fn add(&mut self, store: &Store, slot: u32, file: File, file_bytes: u64) {
        if file_bytes == store.layout.segment_bytes && self.idle.len() < MOST_SPARES {
            self.idle.push((slot, file));
        } else {
            self.drop_file(store, slot, file_bytes);
        }
    }

    /// Returns whether the budget has room for `cost` bytes more; spares are no obstacle.
    pub fn has_room(&self, store: &Store, cost: u64, purpose: Purpose) -> bool {
        let spare = self.idle.len() as u64 * Layout::cost(store.layout.segment_bytes);
        let reserve = match purpose {
            Purpose::Append => store.layout.reserve_bytes(),
            Purpose::Compaction => 0,
        };
        store.files.load(Relaxed).saturating_sub(spare) + cost + reserve <= store.layout.max_bytes
    }

    /// Returns a file of that size, and its slot.
    pub fn take(&mut self, store: &Store, file_bytes: u64) -> io::Result<(u32, File)> {
        if file_bytes == store.layout.segment_bytes
            && let Some(spare) = self.idle.pop()
        {
            return Ok(spare);
        }
        let cost = Layout::cost(file_bytes);
        while store.files.load(Relaxed) + cost > store.layout.max_bytes
            && let Some((slot, _)) = self.idle.pop()
        {
            self.drop_file(store, slot, store.layout.segment_bytes);
        }
        let slot = self.taken.iter().position(|taken| !taken);
        let slot = slot.ok_or_else(|| io::Error::other("the journal has no slot left for a segment"))? as u32;
        let file = store.folder.create_segment(slot)?;
        self.take_slot(slot);
        store.files.fetch_add(cost, Relaxed);
        let prepared = store.disk.preallocate(&file, file_bytes).and_then(|()| store.folder.sync());
        match prepared {
            Ok(()) => Ok((slot, file)),
            Err(error) => {
                self.drop_file(store, slot, file_bytes);
                Err(error)
            }
        }
    }

    /// Deletes a segment's files. If that fails, the slot stays taken, and the next start looks at it.
    pub fn drop_file(&mut self, store: &Store, slot: u32, file_bytes: u64) {
        if store.folder.remove(slot) {
            self.taken[slot as usize] = false;
            store.files.fetch_sub(Layout::cost(file_bytes), Relaxed);
        }
    }

    /// Takes back the file of a segment in which all is done.
    pub fn recycle(&mut self, store: &Store, segment: &Segment) {
        let (slot, file_bytes) = (segment.slot, segment.file_bytes.load(Relaxed));
        if segment.state().damaged > 0 {
            let aside = set_aside(store, slot, segment.header.identity.epoch, file_bytes);
            self.taken[slot as usize] = !aside;
            return;
        }
        let worth_keeping = file_bytes == store.layout.segment_bytes && self.idle.len() < MOST_SPARES;
        match worth_keeping.then(|| wipe(&store.folder, segment)) {
            Some(Ok(file)) => self.add(store, slot, file, file_bytes),
            _ => self.drop_file(store, slot, file_bytes),
        }
    }
}

/// Says in a segment's files that they are free.
fn wipe(folder: &Folder, segment: &Segment) -> io::Result<File> {
    use std::os::unix::fs::FileExt;
    // The marks first: without the header they would tell of records that are gone.
    marks::clear_summary(&folder.marks_path(segment.slot))?;
    segment.file.write_all_at(&[0; HEADER_BYTES as usize], 0)?;
    segment.file.try_clone()
}

/// Keeps a damaged file under another name, for a person to look at; returns whether the slot is free.
pub(super) fn set_aside(store: &Store, slot: u32, epoch: u64, file_bytes: u64) -> bool {
    let path = store.folder.free_aside_path(slot, epoch);
    if let Err(error) = std::fs::rename(store.folder.segment_path(slot), &path) {
        tracing::warn!(file = %path.display(), %error, "could not set a damaged file of the journal aside");
        return false;
    }
    let _ = std::fs::remove_file(store.folder.marks_path(slot));
    let marks_bytes = Layout::cost(file_bytes) - file_bytes;
    store.files.fetch_sub(marks_bytes, Relaxed);
    store.aside.fetch_add(file_bytes, Relaxed);
    tracing::error!(
        file = %path.display(),
        "set a damaged file of the journal aside: look at it, then delete it, since it takes room of the budget"
    );
    true
}
