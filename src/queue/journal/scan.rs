//! Walks the records of a segment, also past damage.
//!
//! A length is followed only from a prefix that verified. Where none does, the next place that bears the segment's
//! marker and verifies is searched. Reads go through a window of fixed size, so no length makes it allocate.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{
    position::UNIT,
    record::{Identity, PREFIX_BYTES, Prefix},
    segment::Segment,
};

const WINDOW: usize = 256 << 10;
const PAGE: usize = 4096;

/// What lies at a place of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A record starts at this offset; its prefix verified, its body was not looked at.
    Record(u64, Prefix),
    /// From here no prefix verifies, up to the next record or the end.
    Gap {
        /// Where it starts, which is where a record should.
        from: u64,
        /// Places in it that bear the marker: a record was there.
        marked: Vec<u64>,
    },
}

/// A walk in progress.
pub(super) struct Scan<'a> {
    window: Window<'a>,
    identity: Identity,
    offset: u64,
    limit: u64,
}

impl<'a> Scan<'a> {
    /// Starts at `offset`, where a record starts, and ends at `limit`.
    pub fn new(segment: &'a Segment, offset: u64, limit: u64) -> Self {
        Self { window: Window::new(&segment.file, limit), identity: segment.header.identity, offset, limit }
    }

    /// Where the next thing starts.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns what comes next.
    pub fn next(&mut self) -> Option<Found> {
        if self.offset >= self.limit {
            return None;
        }
        let from = self.offset;
        if let Some(prefix) = self.record_at(from) {
            self.offset = from + prefix.record_bytes();
            return Some(Found::Record(from, prefix));
        }
        let mut marked = Vec::new();
        while self.offset < self.limit {
            if self.is_marked(self.offset) {
                if self.record_at(self.offset).is_some() {
                    break;
                }
                marked.push(self.offset);
            }
            self.offset += UNIT;
        }
        self.offset = self.offset.min(self.limit);
        Some(Found::Gap { from, marked })
    }

    /// Reads a record's head into `head`, and returns whether head and rows are what was written.
    pub fn read_body(&mut self, start: u64, prefix: &Prefix, head: &mut Vec<u8>) -> bool {
        head.clear();
        let mut crc = 0;
        let mut at = start + PREFIX_BYTES;
        let head_end = at + u64::from(prefix.head_bytes);
        let end = at + prefix.body_bytes();
        while at < end {
            let until = if at < head_end { head_end } else { end };
            let part = self.window.at(at, until);
            if part.is_empty() {
                return false;
            }
            crc = crc32c::crc32c_append(crc, part);
            if at < head_end {
                head.extend_from_slice(part);
            }
            at += part.len() as u64;
        }
        crc == prefix.body_crc
    }

    fn record_at(&mut self, offset: u64) -> Option<Prefix> {
        let bytes = self.window.at(offset, offset + PREFIX_BYTES);
        Prefix::decode(bytes, &self.identity, offset).filter(|prefix| offset + prefix.record_bytes() <= self.limit)
    }

    fn is_marked(&mut self, offset: u64) -> bool {
        let marker = &self.identity.marker;
        self.window.at(offset, offset + marker.len() as u64) == marker
    }
}

/// A piece of the file in memory.
struct Window<'a> {
    file: &'a File,
    limit: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a File, limit: u64) -> Self {
        Self { file, limit, start: 0, bytes: Vec::new() }
    }

    /// Returns the bytes from `from` to `until`, or fewer: those that the window holds, none behind the limit. The
    /// length of a prefix always comes in one piece.
    fn at(&mut self, from: u64, until: u64) -> &[u8] {
        let end = self.start + self.bytes.len() as u64;
        let has_enough = from >= self.start && end >= until.min(from + PREFIX_BYTES);
        if !has_enough {
            self.fill(from);
        }
        let end = self.start + self.bytes.len() as u64;
        let range = (from - self.start) as usize..(until.min(end).max(from) - self.start) as usize;
        self.bytes.get(range).unwrap_or_default()
    }

    fn fill(&mut self, from: u64) {
        let wanted = self.limit.saturating_sub(from).min(WINDOW as u64) as usize;
        self.start = from;
        self.bytes.resize(wanted, 0);
        if let Err(error) = read_up_to(self.file, &mut self.bytes, from) {
            tracing::warn!(%error, "could not read a part of the journal");
            // What can't be read is as good as zeros: its checksum fails, and its neighbors are found.
            for (index, page) in self.bytes.chunks_mut(PAGE).enumerate() {
                page.fill(0);
                let _ = read_up_to(self.file, page, from + (index * PAGE) as u64);
            }
        }
    }
}

/// Fills `bytes`, as far as the file goes; the rest becomes zeros.
fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes[filled..].fill(0);
    Ok(())
}
