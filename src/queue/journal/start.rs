//! Opens the folder: looks at everything, refuses what it does not know, and only then changes anything.

use std::{
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    OpenError, Options,
    folder::{Folder, FoundFile, Survey},
    header::{HEADER_BYTES, Header, HeaderState},
    layout::Layout,
    marks::Summary,
    replay::Replay,
    segment::Segment,
    spares::{Spares, set_aside},
    store::Store,
    tail::Tail,
};

/// The parts of an open journal.
pub(super) struct Started {
    pub store: Arc<Store>,
    pub tail: Tail,
    pub replay: Replay,
}

/// Opens or makes a journal.
pub(super) fn start(options: Options) -> Result<Started, OpenError> {
    let folder = Folder::open(&options.dir)?;
    let survey = folder.survey()?;
    refuse_other_codecs(&folder, &survey, options.codec)?;
    let layout = Layout::new(options.max_bytes);
    let Options { codec, metrics, health, .. } = options;
    let store = Arc::new(Store::new(folder, layout, codec, metrics, health, survey.aside_bytes));
    for slot in survey.lone_marks {
        store.folder.remove(slot);
    }
    let mut spares = Spares::new();
    let mut segments = Vec::new();
    let mut broken_files = 0;
    for found in survey.files {
        spares.take_slot(found.slot);
        store.files.fetch_add(Layout::cost(found.bytes), Relaxed);
        if let Some(header) = header_of(&found) {
            segments.push(take_in(&store, found, header));
        } else if found.state == HeaderState::Free {
            spares.add(&store, found.slot, found.file, found.bytes);
        } else {
            broken_files += 1;
            let _ = set_aside(&store, found.slot, 0, found.bytes);
        }
    }
    store.metrics.journal_damaged_records_total.inc_by(broken_files);
    segments.sort_unstable_by_key(|(segment, _)| segment.header.identity.epoch);
    let next_epoch = segments.last().map_or(1, |(segment, _)| segment.header.identity.epoch + 1);
    Ok(Started {
        tail: Tail::new(store.clone(), spares, next_epoch),
        replay: Replay::new(store.clone(), segments, broken_files),
        store,
    })
}

/// Another release's records must stay as they are, for that release to land them.
fn refuse_other_codecs(folder: &Folder, survey: &Survey, codec: u16) -> Result<(), OpenError> {
    for found in &survey.files {
        let other = match (found.state, header_of(found)) {
            (_, Some(header)) => header.codec,
            (HeaderState::Foreign(other), None) => other,
            _ => continue,
        };
        if other != codec {
            return Err(OpenError::UnknownCodec { path: folder.segment_path(found.slot), codec: other });
        }
    }
    Ok(())
}

/// The file's own header, or where that is gone the one that its marks repeat.
fn header_of(found: &FoundFile) -> Option<Header> {
    match found.state {
        HeaderState::Used(header) => Some(header),
        _ => found.summary.map(|summary| summary.header),
    }
}

fn take_in(store: &Store, found: FoundFile, header: Header) -> (Arc<Segment>, Option<Summary>) {
    if !found.header_is_whole {
        let mended = found.file.write_all_at(&header.encode(), 0).is_ok();
        tracing::warn!(
            segment = found.slot,
            mended,
            "the header of a segment of the journal was damaged, and a copy of it was whole"
        );
    }
    let summary = found.summary.filter(|summary| summary.header.identity == header.identity);
    let end = match summary {
        Some(summary) if summary.closed => summary.synced.max(HEADER_BYTES),
        _ => found.bytes,
    };
    let segment = Arc::new(Segment::new(found.slot, header, found.file, found.bytes, end));
    store.insert(segment.clone());
    store.count(&segment, found.bytes);
    (segment, summary)
}
