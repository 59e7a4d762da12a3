//! The first 4096 bytes of a segment: who it is, written twice, so that one flipped byte does not lose its records.

use super::record::Identity;

/// Bytes before the first record.
pub(super) const HEADER_BYTES: u64 = 4096;

const COPIES_AT: [usize; 2] = [0, 2048];
const MAGIC: [u8; 8] = *b"forebayJ";
const CODEC_AT: usize = 8;
const CRC_AT: usize = 12;
const EPOCH_AT: usize = 16;
const MARKER_AT: usize = 24;
const SIZE_AT: usize = 40;
const END: usize = 48;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The codec of its records.
    pub codec: u16,
    /// Whose records they are.
    pub identity: Identity,
    /// Bytes of the file when it was opened.
    pub file_bytes: u64,
}

/// What the first bytes of a file tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderState {
    /// A segment with records.
    Used(Header),
    /// Zeros: nothing is kept here.
    Free,
    /// Both copies bear our magic and another codec, and neither verifies: it may be a layout of another release.
    Foreign(u16),
    /// None of these.
    Broken,
}

impl Header {
    /// Returns the bytes that start the file.
    pub fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut copy = [0; END];
        copy[..CODEC_AT].copy_from_slice(&MAGIC);
        copy[CODEC_AT..CODEC_AT + 2].copy_from_slice(&self.codec.to_le_bytes());
        copy[EPOCH_AT..MARKER_AT].copy_from_slice(&self.identity.epoch.to_le_bytes());
        copy[MARKER_AT..SIZE_AT].copy_from_slice(&self.identity.marker);
        copy[SIZE_AT..END].copy_from_slice(&self.file_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&copy);
        copy[CRC_AT..EPOCH_AT].copy_from_slice(&crc.to_le_bytes());
        let mut bytes = [0; HEADER_BYTES as usize];
        for at in COPIES_AT {
            bytes[at..at + END].copy_from_slice(&copy);
        }
        bytes
    }

    fn decode(copy: &[u8; END]) -> Option<Self> {
        let mut plain = *copy;
        plain[CRC_AT..EPOCH_AT].fill(0);
        let whole = copy[..CODEC_AT] == MAGIC && field(copy, CRC_AT) == crc32c::crc32c(&plain).to_le_bytes();
        whole.then(|| Self {
            codec: u16::from_le_bytes(field(copy, CODEC_AT)),
            identity: Identity { epoch: u64::from_le_bytes(field(copy, EPOCH_AT)), marker: field(copy, MARKER_AT) },
            file_bytes: u64::from_le_bytes(field(copy, SIZE_AT)),
        })
    }
}

impl HeaderState {
    /// Reads the first bytes of a file; missing ones are zeros.
    ///
    /// Where both copies verify and differ, the machine stopped while the file was taken for new records: the higher
    /// epoch counts, and it has none yet.
    pub fn of(bytes: &[u8; HEADER_BYTES as usize]) -> Self {
        let copies = COPIES_AT.map(|at| field::<END>(bytes, at));
        let newest = copies.iter().filter_map(Header::decode);
        if let Some(header) = newest.max_by_key(|header| header.identity.epoch) {
            return Self::Used(header);
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Self::Free;
        }
        let [first, second] = copies.map(|copy| (copy[..CODEC_AT] == MAGIC).then(|| field(&copy, CODEC_AT)));
        match first {
            Some(codec) if first == second => Self::Foreign(u16::from_le_bytes(codec)),
            _ => Self::Broken,
        }
    }
}

/// Returns the `N` bytes at `at`, which the caller knows to be there.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has the array's length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header { codec: 1, identity: Identity { epoch: 7, marker: [9; 16] }, file_bytes: 1 << 20 }
    }

    #[test]
    fn any_one_flipped_byte_leaves_the_header_readable() {
        let bytes = header().encode();
        for at in (0..END).chain(2048..2048 + END) {
            let mut damaged = bytes;
            damaged[at] ^= 0x40;
            assert_eq!(HeaderState::of(&damaged), HeaderState::Used(header()), "{at}");
        }
    }

    #[test]
    fn zeros_are_free_and_noise_is_broken() {
        assert_eq!(HeaderState::of(&[0; 4096]), HeaderState::Free);
        assert_eq!(HeaderState::of(&[7; 4096]), HeaderState::Broken);
    }

    #[test]
    fn header_of_another_layout_is_foreign() {
        let mut bytes = header().encode();
        for at in COPIES_AT {
            bytes[at + CODEC_AT] = 2;
        }
        assert_eq!(HeaderState::of(&bytes), HeaderState::Foreign(2));
    }
}
