//! Which records of a segment are done, and how far it was synced: the file `SLOT.done` beside `SLOT.segment`.
//!
//! Blocks of 512 bytes, each with the segment's marker and a checksum of its own: one that is torn, damaged or left from
//! an earlier use of the slot is not believed. That loses marks, which only replays batches; it never makes one up. Block
//! 0 repeats the segment's header and holds the synced length, so that damage behind an acknowledged record is known
//! from a tail that nobody was told of.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use super::{
    header::{Header, field},
    position::{UNIT, UNITS_PER_SLOT},
    record::Identity,
};

const BLOCK: usize = 512;
const CRC_AT: usize = 16;
const NUMBER_AT: usize = 20;
const PAYLOAD_AT: usize = 24;
/// Bytes of bits in a block.
const PAYLOAD: usize = BLOCK - PAYLOAD_AT;

type Block = [u8; BLOCK];

/// Returns the most bytes that the marks of a segment's file can take.
pub(super) const fn file_bytes(segment_file_bytes: u64) -> u64 {
    (1 + bits_bytes(segment_file_bytes).div_ceil(PAYLOAD) as u64) * BLOCK as u64
}

const fn bits_bytes(segment_file_bytes: u64) -> usize {
    let units = segment_file_bytes.div_ceil(UNIT);
    let units = if units < UNITS_PER_SLOT as u64 { units } else { UNITS_PER_SLOT as u64 };
    (units as usize).div_ceil(8)
}

/// What block 0 says of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// The segment's header once more.
    pub header: Header,
    /// Everything before this offset was synced.
    pub synced: u64,
    /// Nothing is appended any more; `synced` is where the records end.
    pub closed: bool,
}

/// The bits of one segment. They take memory only once one is set.
#[derive(Debug)]
pub(super) struct Marks {
    bits: Vec<u8>,
    file: Option<File>,
    /// Something was written since the last fsync.
    pub unsynced: bool,
}

impl Marks {
    pub fn new() -> Self {
        Self { bits: Vec::new(), file: None, unsynced: false }
    }

    /// Reads what there is; what can't be read counts as not done.
    pub fn load(&mut self, path: &Path, identity: &Identity, segment_file_bytes: u64) -> io::Result<()> {
        let bytes = std::fs::read(path)?;
        let (blocks, _) = bytes.as_chunks::<BLOCK>();
        for (number, block) in blocks.iter().enumerate().skip(1) {
            let Some(payload) = open_block(block, identity, number as u32) else {
                continue;
            };
            self.bits.resize(bits_bytes(segment_file_bytes), 0);
            let at = (number - 1) * PAYLOAD;
            let Some(bits) = self.bits.get_mut(at..) else { break };
            let length = bits.len().min(PAYLOAD);
            bits[..length].copy_from_slice(&payload[..length]);
        }
        Ok(())
    }

    pub fn is_done(&self, unit: u32) -> bool {
        let byte = self.bits.get(unit as usize / 8).copied().unwrap_or_default();
        byte & (1 << (unit % 8)) != 0
    }

    /// Sets a bit in memory; returns whether it was not set before.
    pub fn set(&mut self, unit: u32, segment_file_bytes: u64) -> bool {
        if self.bits.is_empty() {
            self.bits = vec![0; bits_bytes(segment_file_bytes)];
        }
        let bit = 1 << (unit % 8);
        match self.bits.get_mut(unit as usize / 8) {
            Some(byte) if *byte & bit == 0 => {
                *byte |= bit;
                true
            }
            _ => false,
        }
    }

    /// Writes the blocks that hold these units, which ascend, to the page cache.
    pub fn store(&mut self, path: &Path, identity: &Identity, units: impl Iterator<Item = u32>) -> io::Result<()> {
        let mut last = None;
        for unit in units {
            let number = 1 + unit as usize / 8 / PAYLOAD;
            if last.replace(number) == Some(number) {
                continue;
            }
            let Some(bits) = self.bits.get((number - 1) * PAYLOAD..) else {
                break;
            };
            let block = seal_block(&bits[..bits.len().min(PAYLOAD)], identity, number as u32);
            self.write(path, &block, number)?;
        }
        Ok(())
    }

    /// Writes block 0 to the page cache.
    pub fn store_summary(&mut self, path: &Path, summary: &Summary) -> io::Result<()> {
        let mut payload = [0; 27];
        payload[..8].copy_from_slice(&summary.header.identity.epoch.to_le_bytes());
        payload[8..16].copy_from_slice(&summary.header.file_bytes.to_le_bytes());
        payload[16..24].copy_from_slice(&summary.synced.to_le_bytes());
        payload[24..26].copy_from_slice(&summary.header.codec.to_le_bytes());
        payload[26] = u8::from(summary.closed);
        self.write(path, &seal_block(&payload, &summary.header.identity, 0), 0)
    }

    fn write(&mut self, path: &Path, block: &Block, number: usize) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            slot => slot.insert(open(path)?),
        };
        self.unsynced = true;
        file.write_all_at(block, (number * BLOCK) as u64)
    }

    /// Makes what was written durable.
    pub fn sync(&mut self) -> io::Result<()> {
        if let Some(file) = self.file.as_ref().filter(|_| self.unsynced) {
            // Not fdatasync: those are the segments' own, and are counted and waited for.
            file.sync_all()?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Closes the file; it is opened again when there is more to mark.
    pub fn put_away(&mut self) {
        self.file = None;
    }
}

/// Takes back what block 0 says, so that a free file is not taken for a damaged one.
pub(super) fn clear_summary(path: &Path) -> io::Result<()> {
    open(path)?.write_all_at(&[0; BLOCK], 0)
}

/// Reads what block 0 says, where it can be believed.
pub(super) fn read_summary(path: &Path) -> Option<Summary> {
    let mut block = [0; BLOCK];
    File::open(path).ok()?.read_exact_at(&mut block, 0).ok()?;
    let identity = Identity { epoch: u64::from_le_bytes(field(&block, PAYLOAD_AT)), marker: field(&block, 0) };
    let payload = open_block(&block, &identity, 0)?;
    Some(Summary {
        header: Header {
            codec: u16::from_le_bytes(field(payload, 24)),
            identity,
            file_bytes: u64::from_le_bytes(field(payload, 8)),
        },
        synced: u64::from_le_bytes(field(payload, 16)),
        closed: payload[26] != 0,
    })
    .filter(|_| identity.epoch != 0)
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).mode(0o600);
    options.open(path)
}

fn seal_block(payload: &[u8], identity: &Identity, number: u32) -> Block {
    let mut block = [0; BLOCK];
    block[..CRC_AT].copy_from_slice(&identity.marker);
    block[NUMBER_AT..PAYLOAD_AT].copy_from_slice(&number.to_le_bytes());
    block[PAYLOAD_AT..PAYLOAD_AT + payload.len()].copy_from_slice(payload);
    let crc = block_crc(&block);
    block[CRC_AT..NUMBER_AT].copy_from_slice(&crc.to_le_bytes());
    block
}

fn open_block<'a>(block: &'a Block, identity: &Identity, number: u32) -> Option<&'a [u8]> {
    let whole = block[..CRC_AT] == identity.marker
        && field(block, NUMBER_AT) == number.to_le_bytes()
        && field(block, CRC_AT) == block_crc(block).to_le_bytes();
    whole.then_some(&block[PAYLOAD_AT..])
}

fn block_crc(block: &Block) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..CRC_AT]), &block[NUMBER_AT..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity { epoch: 4, marker: [6; 16] };
    const SIZE: u64 = 1 << 20;

    fn loaded(path: &Path, identity: &Identity) -> Marks {
        let mut marks = Marks::new();
        marks.load(path, identity, SIZE).unwrap();
        marks
    }

    #[test]
    fn marks_come_back_for_their_own_segment_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.done");
        let mut marks = Marks::new();
        let units = [64, 65, 5000, 16_383];
        assert!(units.iter().all(|unit| marks.set(*unit, SIZE)) && !marks.set(64, SIZE));
        marks.store(&path, &IDENTITY, units.into_iter()).unwrap();
        let back = loaded(&path, &IDENTITY);
        let done: Vec<u32> = (0..20_000).filter(|unit| back.is_done(*unit)).collect();
        assert_eq!(done, units);
        let other = Identity { marker: [7; 16], ..IDENTITY };
        assert!(!loaded(&path, &other).is_done(64));
        assert!(std::fs::metadata(&path).unwrap().len() <= file_bytes(SIZE));
    }

    #[test]
    fn damaged_marks_are_no_marks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.done");
        let mut marks = Marks::new();
        marks.set(64, SIZE);
        marks.store(&path, &IDENTITY, [64].into_iter()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for at in BLOCK..2 * BLOCK {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            std::fs::write(&path, damaged).unwrap();
            let back = loaded(&path, &IDENTITY);
            assert_eq!((0..20_000).find(|unit| back.is_done(*unit)), None, "{at}");
        }
    }
}
