//! One record: a prefix that tells it from anything else, the batch's head, its rows.
//!
//! The prefix bears the segment's random marker, which no payload can imitate, and a checksum of its own over the
//! lengths, the segment's epoch, the place and the body's checksum. So a length is believed only once it has been
//! verified, and a record that lies elsewhere than where it was written is none.

use bytes::Bytes;

use super::{header::field, position::UNIT};

/// Bytes of a record before its head.
pub(super) const PREFIX_BYTES: u64 = 32;

const HEAD_AT: usize = 16;
const ROWS_AT: usize = 20;
const BODY_CRC_AT: usize = 24;
const CRC_AT: usize = 28;

/// What the journal is given to keep of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The batch's head, encoded.
    pub head: Vec<u8>,
    /// The batch's rows.
    pub rows: Vec<u8>,
}

/// What the journal kept of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The batch's head, encoded.
    pub head: Bytes,
    /// The batch's rows.
    pub rows: Bytes,
}

/// Returns the bytes that a record takes in the journal.
pub const fn record_bytes(head_bytes: usize, rows_bytes: usize) -> u64 {
    (PREFIX_BYTES + head_bytes as u64 + rows_bytes as u64).next_multiple_of(UNIT)
}

/// Tells the records of one use of a segment's file from those of every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Ascends over all segments: the order in which records came.
    pub epoch: u64,
    /// Random; starts each record.
    pub marker: [u8; 16],
}

/// The parts of a record on their way to the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub head: &'a [u8],
    pub rows: &'a [u8],
    pub body_crc: u32,
}

impl Parts<'_> {
    pub fn bytes(&self) -> u64 {
        record_bytes(self.head.len(), self.rows.len())
    }

    /// Zeros that follow the record.
    pub fn padding(&self) -> usize {
        self.bytes() as usize - PREFIX_BYTES as usize - self.head.len() - self.rows.len()
    }

    /// Whether its lengths can be told in a prefix.
    pub fn fits_prefix(&self) -> bool {
        u32::try_from(self.head.len()).is_ok() && u32::try_from(self.rows.len()).is_ok()
    }
}

/// Returns the checksum of a record's head and rows.
pub(super) fn body_crc(head: &[u8], rows: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), rows)
}

/// What stands before a record's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub head_bytes: u32,
    pub rows_bytes: u32,
    pub body_crc: u32,
}

impl Prefix {
    /// Returns the prefix of a record whose lengths fit ([`Parts::fits_prefix`]).
    pub fn of(parts: &Parts<'_>) -> Self {
        Self { head_bytes: parts.head.len() as u32, rows_bytes: parts.rows.len() as u32, body_crc: parts.body_crc }
    }

    /// Returns the bytes that stand at `offset` of the segment.
    pub fn encode(&self, identity: &Identity, offset: u64) -> [u8; PREFIX_BYTES as usize] {
        let mut bytes = [0; PREFIX_BYTES as usize];
        bytes[..HEAD_AT].copy_from_slice(&identity.marker);
        bytes[HEAD_AT..ROWS_AT].copy_from_slice(&self.head_bytes.to_le_bytes());
        bytes[ROWS_AT..BODY_CRC_AT].copy_from_slice(&self.rows_bytes.to_le_bytes());
        bytes[BODY_CRC_AT..CRC_AT].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = seal(&bytes, identity, offset);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the prefix at the start of `bytes`, which stand at `offset` of the segment.
    pub fn decode(bytes: &[u8], identity: &Identity, offset: u64) -> Option<Self> {
        let bytes: &[u8; PREFIX_BYTES as usize] = bytes.first_chunk()?;
        let whole = bytes[..HEAD_AT] == identity.marker
            && u32::from_le_bytes(field(bytes, CRC_AT)) == seal(bytes, identity, offset);
        whole.then(|| Self {
            head_bytes: u32::from_le_bytes(field(bytes, HEAD_AT)),
            rows_bytes: u32::from_le_bytes(field(bytes, ROWS_AT)),
            body_crc: u32::from_le_bytes(field(bytes, BODY_CRC_AT)),
        })
    }

    /// Bytes of head and rows.
    pub fn body_bytes(&self) -> u64 {
        u64::from(self.head_bytes) + u64::from(self.rows_bytes)
    }

    /// Bytes of the whole record with its padding.
    pub fn record_bytes(&self) -> u64 {
        (PREFIX_BYTES + self.body_bytes()).next_multiple_of(UNIT)
    }
}

/// The prefix's own checksum.
fn seal(bytes: &[u8; PREFIX_BYTES as usize], identity: &Identity, offset: u64) -> u32 {
    let mut sealed = [0; CRC_AT + 16];
    sealed[..CRC_AT].copy_from_slice(&bytes[..CRC_AT]);
    sealed[CRC_AT..CRC_AT + 8].copy_from_slice(&identity.epoch.to_le_bytes());
    sealed[CRC_AT + 8..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c(&sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_read_only_whole_and_in_its_place() {
        let identity = Identity { epoch: 3, marker: [5; 16] };
        let prefix = Prefix { head_bytes: 10, rows_bytes: 100, body_crc: 77 };
        let bytes = prefix.encode(&identity, 4096);
        assert_eq!(Prefix::decode(&bytes, &identity, 4096), Some(prefix));
        assert_eq!(Prefix::decode(&bytes, &identity, 4160), None);
        assert_eq!(Prefix::decode(&bytes, &Identity { epoch: 4, ..identity }, 4096), None);
        assert_eq!(Prefix::decode(&bytes[..31], &identity, 4096), None);
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert_eq!(Prefix::decode(&damaged, &identity, 4096), None, "{at}");
        }
    }
}
