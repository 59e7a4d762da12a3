//! The calls that reach the disk and may fail there.

use std::{
    fs::File,
    io::{self, IoSlice},
    time::Instant,
};

use prometheus::Histogram;
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::{Errno, pwritev},
};

/// The most slices that one call takes.
const MOST_SLICES: usize = 1024;

/// Writes and syncs; tests make it fail.
#[derive(Debug)]
pub(super) struct Disk {
    fsync_seconds: Histogram,
    #[cfg(test)]
    pub faults: faults::Faults,
}

impl Disk {
    pub fn new(fsync_seconds: Histogram) -> Self {
        Self {
            fsync_seconds,
            #[cfg(test)]
            faults: faults::Faults::default(),
        }
    }

    /// Writes all slices at `offset`, one after the other, without copying them. An error may leave a part behind.
    pub fn write(&self, file: &File, slices: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut rest = slices;
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let count = rest.len().min(MOST_SLICES);
            #[cfg(test)]
            let count = self.faults.before_write(file, &rest[..count], offset)?;
            match pwritev(file, &rest[..count], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes a file's bytes durable. After an error the kernel may have dropped them, and a second try would not say so.
    pub fn sync(&self, file: &File) -> io::Result<()> {
        let started = Instant::now();
        #[cfg(test)]
        self.faults.before_sync()?;
        let outcome = file.sync_data();
        self.fsync_seconds.observe(started.elapsed().as_secs_f64());
        outcome
    }

    /// Takes the room for a file, so that later writes neither run out of it nor move the file's end.
    pub fn preallocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before_preallocate(bytes)?;
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(bytes),
            Err(error) => Err(error.into()),
        }
    }
}

/// Faults that tests cause.
#[cfg(test)]
pub(super) mod faults {
    use std::{
        fs::File,
        io::{self, IoSlice},
        sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    };

    use rustix::io::{Errno, pwritev};

    /// How many of the next calls fail.
    #[derive(Debug, Default)]
    pub struct Faults {
        /// Writes that put half of their slices down and then find the disk full.
        pub short_writes: AtomicU32,
        /// Syncs that fail.
        pub failing_syncs: AtomicU32,
        /// A file larger than this finds no room; 0 is no limit.
        pub largest_file: AtomicU64,
    }

    fn take(count: &AtomicU32) -> bool {
        count.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    impl Faults {
        pub fn before_write(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
            if take(&self.short_writes) {
                pwritev(file, &slices[..slices.len().div_ceil(2)], offset)?;
                return Err(Errno::NOSPC.into());
            }
            Ok(slices.len())
        }

        pub fn before_sync(&self) -> io::Result<()> {
            if take(&self.failing_syncs) {
                return Err(Errno::IO.into());
            }
            Ok(())
        }

        pub fn before_preallocate(&self, bytes: u64) -> io::Result<()> {
            let largest = self.largest_file.load(SeqCst);
            if largest != 0 && bytes > largest {
                return Err(Errno::NOSPC.into());
            }
            Ok(())
        }
    }
}
