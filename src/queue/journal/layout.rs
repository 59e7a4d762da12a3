//! How the budget is cut into segments. Pure arithmetic.

use super::{
    header::HEADER_BYTES,
    marks,
    position::{SLOTS, UNIT, UNITS_PER_SLOT},
};

/// The largest segment: large enough that opening one is rare, small enough to be freed soon.
pub(super) const LARGEST_SEGMENT: u64 = UNITS_PER_SLOT as u64 * UNIT;
/// The smallest segment: one is taken where the budget or the disk has no room for more.
pub(super) const SMALLEST_SEGMENT: u64 = 64 << 10;
/// A segment is this part of the budget, so that a few half-empty ones matter little.
const SEGMENTS_IN_BUDGET: u64 = 32;
/// Segments that only compaction may take, so that it can always finish one.
const RESERVE: u64 = 2;
/// Room for the lock, the probe and the notes of others in the folder.
const OTHER_FILES: u64 = 16 << 10;

/// Sizes that follow from the budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Bytes that all files may take.
    pub max_bytes: u64,
    /// Bytes of a usual segment.
    pub segment_bytes: u64,
}

impl Layout {
    pub fn new(max_bytes: u64) -> Self {
        let part = (max_bytes / SEGMENTS_IN_BUDGET).clamp(SMALLEST_SEGMENT, LARGEST_SEGMENT);
        Self {
            max_bytes: max_bytes.min(u64::from(SLOTS) * LARGEST_SEGMENT).saturating_sub(OTHER_FILES),
            segment_bytes: 1 << part.ilog2(),
        }
    }

    /// Bytes of a segment's two files.
    pub fn cost(file_bytes: u64) -> u64 {
        file_bytes + marks::file_bytes(file_bytes)
    }

    /// Bytes that records may take while `aside_bytes` lie there that are no journal any more.
    pub fn limit_bytes(&self, aside_bytes: u64) -> u64 {
        let segments = self.max_bytes.saturating_sub(aside_bytes) / Self::cost(self.segment_bytes);
        segments.saturating_sub(RESERVE) * self.segment_bytes
    }

    /// The bytes that only compaction may take.
    pub fn reserve_bytes(&self) -> u64 {
        RESERVE * Self::cost(self.segment_bytes)
    }

    /// The size of the file for a record of `record_bytes`: a usual segment, or one of its own for a larger record.
    pub fn file_bytes_for(&self, record_bytes: u64) -> u64 {
        self.segment_bytes.max(HEADER_BYTES + record_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_cut_into_dozens_of_segments() {
        for mebibytes in [1_u64, 2, 8, 33, 100, 1000, 4096, 100_000, 16_777_216] {
            let layout = Layout::new(mebibytes << 20);
            let segments = layout.max_bytes / Layout::cost(layout.segment_bytes);
            assert!(segments >= 15 && segments <= u64::from(SLOTS), "{mebibytes}: {segments}");
            assert!(layout.limit_bytes(0) + layout.reserve_bytes() <= layout.max_bytes, "{mebibytes}");
            assert!(layout.segment_bytes.is_power_of_two() && layout.segment_bytes <= LARGEST_SEGMENT);
        }
        assert_eq!(Layout::new(4096 << 20).segment_bytes, 64 << 20);
    }
}
