//! Cuts a file of events into batches, each one's body NDJSON.
//!
//! Must cut a file in the same way each time: a resumed run sends a batch under the id that it had, and the server
//! refuses an id whose content has changed.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::Context;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::{
    Rejected,
    args::{Args, Format, Packing, Rows},
    csv::CsvRows,
};

/// Events in a batch: what one flush holds when the server is calm.
pub(super) const BATCH_EVENTS: usize = 1000;
/// Bytes in a batch, more only for a single event. Half of what a server takes by default.
const BATCH_BYTES: usize = 8 << 20;
/// Bytes in a line. No server takes an event of that size; this bounds our memory.
const LINE_BYTES: u64 = 64 << 20;

/// Events that are sent together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// From 0, in the order of the file.
    pub number: u32,
    /// Where its first event begins, from 1.
    pub first_line: u64,
    /// Where its last event begins.
    pub last_line: u64,
    /// A line for each event.
    pub body: Bytes,
    /// Where each event of the body begins in the file.
    pub lines: Vec<u64>,
    /// Events that can't be put into the body.
    pub refused: Vec<Rejected>,
}

/// The file, as an iterator of its batches.
pub(super) struct Input {
    name: String,
    events: Events,
    /// Bytes of the file that were read.
    read: Arc<AtomicU64>,
    /// The next event, which did not fit into the batch before.
    pending: Option<(u64, Option<Rejected>)>,
    line: Vec<u8>,
    next_number: u32,
    ended: bool,
}

enum Events {
    Ndjson { reader: Box<dyn BufRead + Send>, line: u64 },
    Csv(CsvRows<Box<dyn Read + Send>>),
}

impl Input {
    /// Opens the file and, for CSV, reads its header.
    ///
    /// # Errors
    /// It can't be read, or has other columns.
    pub fn open(args: &Args, format: &Format) -> anyhow::Result<Self> {
        let name = args.file.display().to_string();
        let read = Arc::new(AtomicU64::new(0));
        let raw: Box<dyn Read + Send> = if args.is_stdin() {
            Box::new(io::stdin())
        } else {
            let file = File::open(&args.file).with_context(|| format!("open {name}"))?;
            anyhow::ensure!(!file.metadata()?.is_dir(), "{name} is a folder");
            Box::new(file)
        };
        let counted = Counted { inner: raw, read: Arc::clone(&read) };
        let plain: Box<dyn Read + Send> = match format.packing {
            Packing::Plain => Box::new(counted),
            Packing::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 16, counted))),
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::new(counted).context("read zstd")?),
        };
        let service = args.service_name.as_deref().unwrap_or(&format.stem);
        let events = match format.rows {
            Rows::Ndjson => Events::Ndjson { reader: Box::new(BufReader::with_capacity(1 << 16, plain)), line: 0 },
            Rows::Csv => Events::Csv(CsvRows::new(plain, service).with_context(|| format!("read {name}"))?),
        };
        Ok(Self { name, events, read, pending: None, line: Vec::new(), next_number: 0, ended: false })
    }

    /// Returns the count of bytes that were read, which goes on while the file is.
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }

    fn next_batch(&mut self) -> anyhow::Result<Option<Batch>> {
        let mut batch = Batch { number: self.next_number, ..Batch::default() };
        let mut body = Vec::new();
        while batch.lines.len() + batch.refused.len() < BATCH_EVENTS {
            let event = match self.pending.take() {
                Some(event) => Some(event),
                None => self.events.next(&mut self.line)?,
            };
            let Some((line, refused)) = event else {
                break;
            };
            if !batch.lines.is_empty() && body.len() + self.line.len() > BATCH_BYTES {
                self.pending = Some((line, refused));
                break;
            }
            if batch.first_line == 0 {
                batch.first_line = line;
            }
            batch.last_line = line;
            match refused {
                Some(refused) => batch.refused.push(refused),
                None => {
                    body.extend_from_slice(&self.line);
                    body.push(b'\n');
                    batch.lines.push(line);
                }
            }
        }
        batch.body = body.into();
        self.next_number += 1;
        Ok((batch.first_line > 0).then_some(batch))
    }
}

impl Iterator for Input {
    type Item = anyhow::Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let batch = self.next_batch().with_context(|| format!("read {}", self.name)).transpose();
        self.ended = !matches!(batch, Some(Ok(_)));
        batch
    }
}

impl Events {
    fn next(&mut self, buffer: &mut Vec<u8>) -> anyhow::Result<Option<(u64, Option<Rejected>)>> {
        let (reader, line) = match self {
            Self::Csv(rows) => return rows.next(buffer),
            Self::Ndjson { reader, line } => (reader, line),
        };
        loop {
            buffer.clear();
            if reader.by_ref().take(LINE_BYTES).read_until(b'\n', buffer)? == 0 {
                return Ok(None);
            }
            *line += 1;
            anyhow::ensure!((buffer.len() as u64) < LINE_BYTES, "line {line} is longer than {} MiB", LINE_BYTES >> 20);
            if buffer.last() == Some(&b'\n') {
                buffer.pop();
            }
            if *line == 1 && buffer.starts_with(b"\xef\xbb\xbf") {
                buffer.drain(..3); // A byte-order mark, which some editors write.
            }
            if !buffer.trim_ascii().is_empty() {
                return Ok(Some((*line, None)));
            }
        }
    }
}

/// Counts the bytes that pass.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.read.fetch_add(length as u64, Relaxed);
        Ok(length)
    }
}
