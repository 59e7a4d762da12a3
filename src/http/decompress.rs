//! Makes a body from the bytes that come, within a limit and within the memory that its permit covers.
//!
//! A stream that is broken, cut short or followed by something else is an error. What would pass a limit stops there:
//! nothing is made beyond it.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{media::Coding, memory::Permit};

/// Bytes that a zstd stream may look back, as a power of two: 8 MiB (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 23;
/// What the first allocation holds.
const FIRST_BYTES: usize = 16 << 10;
/// Room that one step of zstd is given.
const ZSTD_STEP: usize = 64 << 10;

/// Why a body can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is larger than its limit.
    TooLarge,
    /// The memory for bodies is used up.
    NoMemory,
    /// The compressed stream is broken.
    Broken,
}

/// A body as far as it is made.
#[derive(Debug)]
pub struct Output {
    bytes: Vec<u8>,
    limit: usize,
    permit: Permit,
    /// Memory beside the body: what the decoder holds.
    beside: u64,
    /// Why writing failed, where an [`io::Error`] can't tell.
    fault: Option<Fault>,
}

impl Output {
    /// Returns an empty body of at most `limit` bytes.
    pub fn new(limit: u64, permit: Permit) -> Self {
        Self {
            bytes: Vec::new(),
            limit: usize::try_from(limit).unwrap_or(usize::MAX - 1),
            permit,
            beside: 0,
            fault: None,
        }
    }

    /// Makes room for `more` bytes. The permit covers twice the room, because the encoded rows are about as large.
    pub fn reserve(&mut self, more: usize) -> Result<(), Fault> {
        let needed = self.bytes.len() + more;
        if needed <= self.bytes.capacity() {
            return Ok(());
        }
        let generous = needed.max(self.bytes.capacity() * 2).max(FIRST_BYTES).min(self.limit.max(needed));
        for capacity in [generous, needed] {
            if self.permit.cover(2 * capacity as u64 + self.beside) {
                self.bytes.reserve_exact(capacity - self.bytes.len());
                return Ok(());
            }
        }
        Err(Fault::NoMemory)
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), Fault> {
        if self.bytes.len() + piece.len() > self.limit {
            return Err(Fault::TooLarge);
        }
        self.reserve(piece.len())?;
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Returns the body, with the permit to hold until it is let go of.
    pub fn into_parts(self) -> (Bytes, Permit) {
        (self.bytes.into(), self.permit)
    }
}

impl Write for Output {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        match self.append(piece) {
            Ok(()) => Ok(piece.len()),
            Err(fault) => {
                self.fault = Some(fault);
                Err(io::Error::other("the body can't grow"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Turns what comes into the body.
pub enum Decoder {
    /// As it comes.
    Identity(Output),
    /// gzip, of one member or more.
    Gzip(Box<MultiGzDecoder<Output>>),
    /// zstd, of one frame or more.
    Zstd {
        /// zstd's state.
        context: DCtx<'static>,
        /// Whether the last frame is complete.
        at_end: bool,
        /// The body so far.
        output: Output,
    },
}

impl Decoder {
    /// Returns a decoder that has read nothing.
    pub fn new(coding: Coding, output: Output) -> Self {
        match coding {
            Coding::Identity => Self::Identity(output),
            Coding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(output))),
            Coding::Zstd => {
                let mut context = DCtx::create();
                context
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
                    .expect("8 MiB is a window that zstd knows");
                Self::Zstd { context, at_end: false, output }
            }
        }
    }

    /// Makes room for the whole body, whose length was told.
    ///
    /// # Errors
    /// [`Fault::NoMemory`].
    pub fn expect(&mut self, length: u64) -> Result<(), Fault> {
        match self {
            Self::Identity(output) => output.reserve(usize::try_from(length).map_err(|_| Fault::NoMemory)?),
            Self::Gzip(_) | Self::Zstd { .. } => Ok(()),
        }
    }

    /// Returns the bytes made so far.
    pub fn made(&self) -> usize {
        match self {
            Self::Identity(output) | Self::Zstd { output, .. } => output.bytes.len(),
            Self::Gzip(decoder) => decoder.get_ref().bytes.len(),
        }
    }

    /// Reads the next piece.
    ///
    /// # Errors
    /// [`Fault`]; the decoder can't be used any more.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Fault> {
        match self {
            Self::Identity(output) => output.append(piece),
            Self::Gzip(decoder) => {
                decoder.write_all(piece).map_err(|_| decoder.get_ref().fault.unwrap_or(Fault::Broken))
            }
            Self::Zstd { context, at_end, output } => feed_zstd(context, at_end, output, piece),
        }
    }

    /// Returns the whole body.
    ///
    /// # Errors
    /// [`Fault`], also when the stream is cut short.
    pub fn finish(self) -> Result<Output, Fault> {
        match self {
            Self::Identity(output) => Ok(output),
            Self::Gzip(mut decoder) => match decoder.try_finish() {
                // After a successful end this only takes the output out.
                Ok(()) => decoder.finish().map_err(|_| Fault::Broken),
                Err(_) => Err(decoder.get_ref().fault.unwrap_or(Fault::Broken)),
            },
            Self::Zstd { at_end: true, output, .. } => Ok(output),
            Self::Zstd { at_end: false, .. } => Err(Fault::Broken),
        }
    }
}

fn feed_zstd(context: &mut DCtx<'_>, at_end: &mut bool, output: &mut Output, piece: &[u8]) -> Result<(), Fault> {
    let mut input = InBuffer::around(piece);
    loop {
        // One byte more than the limit, so that a body of just the limit is told from one that goes on.
        let room = (output.limit + 1 - output.bytes.len()).min(ZSTD_STEP);
        output.reserve(room)?;
        let start = output.bytes.len();
        let mut buffer = OutBuffer::around_pos(&mut output.bytes, start);
        let hint = context.decompress_stream(&mut buffer, &mut input).map_err(|_| Fault::Broken)?;
        if output.bytes.len() > output.limit {
            return Err(Fault::TooLarge);
        }
        *at_end = hint == 0;
        output.beside = context.sizeof() as u64;
        if !output.permit.cover(2 * output.bytes.capacity() as u64 + output.beside) {
            return Err(Fault::NoMemory);
        }
        // Spare room means that zstd holds nothing back.
        if input.pos() == piece.len() && output.bytes.len() < output.bytes.capacity() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
