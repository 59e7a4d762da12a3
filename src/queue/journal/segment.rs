//! One segment: a file of records, and what is known of them.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use bytes::Bytes;
use rustix::{buffer::spare_capacity, io::pread};

use super::{
    header::Header,
    marks::Marks,
    record::{PREFIX_BYTES, Prefix, StoredRecord},
};

/// What one read brings: the prefix with the head of nearly every batch, and the rows of a small one.
const FIRST_READ: usize = 4096;
/// The most that one read brings while record sizes are looked up.
const SIZES_READ: usize = 16 << 10;

/// A file of records. Shared by all that read from it; only the writer appends.
#[derive(Debug)]
pub(super) struct Segment {
    pub slot: u32,
    pub header: Header,
    pub file: File,
    /// Bytes of the file.
    pub file_bytes: AtomicU64,
    /// Where its records end; what claims to reach beyond is none.
    pub end: AtomicU64,
    /// Its share in the journal's used bytes.
    pub counted: AtomicU64,
    /// Records that are not done.
    pub live: AtomicU32,
    state: Mutex<State>,
}

/// What changes together.
#[derive(Debug)]
pub(super) struct State {
    pub marks: Marks,
    /// Bytes of the records that are not done.
    pub live_bytes: u64,
    /// Since when nothing is appended.
    pub closed_at: Option<Instant>,
    /// All that it held when the process started has been replayed.
    pub replayed: bool,
    /// Records that could not be read: the file is kept.
    pub damaged: u64,
    /// All is done, and the file is on its way to be free.
    pub retired: bool,
}

impl Segment {
    /// Returns a segment that nothing is known to live in yet.
    pub fn new(slot: u32, header: Header, file: File, file_bytes: u64, end: u64) -> Self {
        Self {
            slot,
            header,
            file,
            file_bytes: AtomicU64::new(file_bytes),
            end: AtomicU64::new(end),
            counted: AtomicU64::new(0),
            live: AtomicU32::new(0),
            state: Mutex::new(State {
                marks: Marks::new(),
                live_bytes: 0,
                closed_at: None,
                replayed: false,
                damaged: 0,
                retired: false,
            }),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one record. Its checksum was compared at replay, or it was written by this process.
    pub fn read(&self, offset: u64) -> io::Result<StoredRecord> {
        let (prefix, head, rows) = self.read_body(offset, true)?;
        debug_assert_eq!(head.len() + rows.len(), prefix.body_bytes() as usize);
        Ok(StoredRecord { head, rows })
    }

    /// Reads the head of one record.
    pub fn read_head(&self, offset: u64) -> io::Result<Bytes> {
        self.read_body(offset, false).map(|(_, head, _)| head)
    }

    /// Reads the prefix of one record, its head and, where asked to, its rows.
    pub fn read_body(&self, offset: u64, with_rows: bool) -> io::Result<(Prefix, Bytes, Bytes)> {
        let mut first = [0; FIRST_READ];
        let length = pread(&self.file, &mut first[..], offset)?;
        let prefix = self.prefix(&first[..length], offset)?;
        let head_bytes = prefix.head_bytes as usize;
        let wanted = if with_rows { prefix.body_bytes() as usize } else { head_bytes };
        let mut body = Vec::with_capacity(wanted.max(1));
        let start = PREFIX_BYTES as usize;
        body.extend_from_slice(&first[start..length.min(start + wanted)]);
        while body.len() < wanted {
            let at = offset + PREFIX_BYTES + body.len() as u64;
            if pread(&self.file, spare_capacity(&mut body), at)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        body.truncate(wanted);
        let mut head = Bytes::from(body);
        let rows = head.split_off(head_bytes);
        Ok((prefix, head, rows))
    }

    fn prefix(&self, bytes: &[u8], offset: u64) -> io::Result<Prefix> {
        Prefix::decode(bytes, &self.header.identity, offset)
            .filter(|prefix| offset + prefix.record_bytes() <= self.end.load(Relaxed))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no record of the journal starts there"))
    }

    /// Calls `each` with the bytes that the records at these offsets take; the offsets ascend. What can't be read takes 0.
    pub fn record_sizes(&self, offsets: impl Iterator<Item = u64> + Clone, mut each: impl FnMut(u64, u64)) {
        let mut window = Vec::new();
        let mut window_at = 0;
        let mut ahead = offsets.clone().peekable();
        for offset in offsets {
            let known = window_at..window_at + window.len() as u64;
            if !known.contains(&offset) || offset + PREFIX_BYTES > known.end {
                // As far as the last one that is near, so that records done together are read together.
                let mut until = offset + PREFIX_BYTES;
                while let Some(next) = ahead.next_if(|next| *next <= offset + (SIZES_READ as u64) - PREFIX_BYTES) {
                    until = until.max(next + PREFIX_BYTES);
                }
                window_at = offset;
                window.resize((until - offset) as usize, 0);
                let length = self.file.read_at(&mut window, offset).unwrap_or(0);
                window.truncate(length);
            }
            let bytes = window.get((offset - window_at) as usize..).unwrap_or_default();
            each(offset, self.prefix(bytes, offset).map_or(0, |prefix| prefix.record_bytes()));
        }
    }
}
