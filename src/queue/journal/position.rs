//! Where a record lies, in 32 bits, so that an index of millions of them stays small.

/// Records start at multiples of this many bytes.
pub(super) const UNIT: u64 = 64;
/// Places for segments. Each has as many units as the largest segment, whatever the size of its file, so that another
/// budget at the next start leaves every position as it was.
pub(super) const SLOTS: u32 = 1 << (32 - UNIT_BITS);
/// Units of a slot: those of the largest segment.
pub(super) const UNITS_PER_SLOT: u32 = 1 << UNIT_BITS;

const UNIT_BITS: u32 = 20;

/// Where a record starts in the journal: 64-byte units, counted over all segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u32);

impl Position {
    /// Returns the position as a number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the position that [`Position::get`] gave as a number.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// Returns the position `offset` bytes into the segment at `slot`.
    pub(super) const fn new(slot: u32, offset: u64) -> Self {
        Self((slot << UNIT_BITS) | (offset / UNIT) as u32)
    }

    pub(super) const fn slot(self) -> u32 {
        self.0 >> UNIT_BITS
    }

    /// The unit within its segment.
    pub(super) const fn unit(self) -> u32 {
        self.0 & (UNITS_PER_SLOT - 1)
    }

    /// The bytes from the start of its segment's file.
    pub(super) const fn offset(self) -> u64 {
        self.unit() as u64 * UNIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_keeps_slot_and_offset() {
        for (slot, offset) in [(0, 4096), (1, 64), (SLOTS - 1, u64::from(UNITS_PER_SLOT - 1) * UNIT)] {
            let position = Position::from_raw(Position::new(slot, offset).get());
            assert_eq!((position.slot(), position.offset()), (slot, offset));
        }
    }
}
