//! What is open round a place: objects and lists, a bit each, so that depth costs next to no memory.

/// A stack of bits. The topmost 64 lie in a word; only what is deeper takes memory, an eighth of a byte a level.
#[derive(Debug, Default)]
pub(super) struct Levels {
    depth: usize,
    /// The topmost 1 to 64 levels, the last one lowest; set for an object.
    top: u64,
    /// All below, 64 a word.
    below: Vec<u64>,
}

impl Levels {
    pub(super) const fn depth(&self) -> usize {
        self.depth
    }

    /// Returns whether the innermost level is an object. Something must be open.
    pub(super) const fn in_object(&self) -> bool {
        self.top & 1 == 1
    }

    pub(super) fn open(&mut self, object: bool) {
        if self.depth != 0 && self.depth.is_multiple_of(64) {
            self.below.push(self.top);
        }
        self.top = self.top << 1 | u64::from(object);
        self.depth += 1;
    }

    /// Something must be open.
    pub(super) fn close(&mut self) {
        self.depth -= 1;
        self.top >>= 1;
        if self.depth.is_multiple_of(64) {
            self.top = self.below.pop().unwrap_or_default();
        }
    }
}
