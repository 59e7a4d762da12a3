//! The journal: makes records durable, gives them back, and forgets them once they are done.
//!
//! It lies below the queue and knows nothing of batches but their bytes. It must answer an append only after its
//! fdatasync; must never lose a record that it answered for, whatever happens to the process; and must never take more
//! of the disk than its budget. What was damaged on the disk is skipped, counted, and kept aside.
//!
//! Segments are files of a fixed size, each used from its start to its end, then closed, then free once all of its
//! records are done. One thread appends ([`writer`]); any may read and mark records done.

mod compaction;
mod disk;
mod folder;
mod header;
mod layout;
mod marks;
mod position;
mod record;
mod replay;
mod scan;
mod segment;
mod spares;
mod start;
mod store;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::Ordering::Relaxed,
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
};

pub use position::Position;
pub use record::{Record, StoredRecord, record_bytes};
pub use replay::{Replay, ReplayReport};

use self::{
    store::Store,
    writer::{Answer, Command, Pending, Writer},
};
use crate::{health::Health, metrics::JournalMetrics};

/// What a journal is opened with.
pub struct Options {
    /// Its folder; made if need be.
    pub dir: PathBuf,
    /// Bytes that its files may take.
    pub max_bytes: u64,
    /// What it counts.
    pub metrics: JournalMetrics,
    /// Where it says whether it can be written.
    pub health: Arc<Health>,
    /// The codec of the records: [`crate::batch::codec::CODEC_VERSION`].
    pub codec: u16,
    /// Called when the writer's thread dies: nothing will be appended any more, so the process must end.
    pub on_failed: Box<dyn Fn() + Send + Sync>,
}

/// Why a journal can't be opened. What it holds was not changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process owns the folder.
    #[error("the journal in {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Another release wrote it: only that release can land what it holds.
    #[error("{} was written by another release (codec {codec}): run that release until it is empty", path.display())]
    UnknownCodec {
        /// The first such file.
        path: PathBuf,
        /// Its codec.
        codec: u16,
    },
    /// The folder can't be made, read or locked.
    #[error("can't open the journal at {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a record is not in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk refuses; nothing of the record is stored.
    #[error("the journal can't be written")]
    NotWritable,
    /// The disk failed in the middle; the record may come back at the next start.
    #[error("the journal could not be synced: whether the record is stored is unknown")]
    OutcomeUnknown,
    /// The budget has no room.
    #[error("the journal is full")]
    Full,
    /// The journal is closed; nothing of the record is stored.
    #[error("the journal is closed")]
    Closed,
}

/// Told, once, where a record lies now that it is durable, or why it is not.
pub type Done = Box<dyn FnOnce(Result<Position, AppendError>) + Send>;

/// The queue, as compaction needs it.
pub trait Relocate: Send + Sync {
    /// Asks to take the copy at `to` in place of the record at `from`. False means that the record is claimed or done:
    /// then the copy is dropped. Called on the writer's thread, which appends nothing meanwhile.
    fn relocate(&self, from: Position, to: Position) -> bool;
}

impl fmt::Debug for dyn Relocate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relocate")
    }
}

/// An open journal. Clones are the same journal; the last one to go ends it as a crash would, unless it was closed.
#[derive(Clone)]
pub struct Journal(Arc<Handle>);

struct Handle {
    store: Arc<Store>,
    commands: Mutex<Option<Sender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Opens the journal, or makes one. Appends work at once; what it held is told by the [`Replay`].
    ///
    /// A disk that can't be written is no error here: what the journal holds can be read all the same.
    ///
    /// # Errors
    /// The folder is in use, holds what another release wrote, or can't be read or locked.
    pub fn open(mut options: Options) -> Result<(Self, Replay), OpenError> {
        let on_failed = std::mem::replace(&mut options.on_failed, Box::new(|| {}));
        let dir = options.dir.clone();
        let started = start::start(options)?;
        let (commands, receiver) = channel();
        let writer = Writer::new(started.store.clone(), started.tail, receiver);
        let run = move || {
            if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                tracing::error!("the journal's writer died");
                on_failed();
            }
        };
        let thread = thread::Builder::new().name("journal".into()).spawn(run);
        let thread = thread.map_err(|source| OpenError::Io { path: dir, source })?;
        let handle =
            Handle { store: started.store, commands: Mutex::new(Some(commands)), thread: Mutex::new(Some(thread)) };
        Ok((Self(Arc::new(handle)), started.replay))
    }

    /// Says who is asked when records move. Without it, nothing is compacted.
    pub fn set_relocate(&self, queue: Weak<dyn Relocate>) {
        // A second queue on one journal would be a mistake; the first one keeps it.
        let _ = self.0.store.relocate.set(queue);
    }

    /// Hands a record to the writer. `done` runs on its thread after the fdatasync, in the order of the appends.
    pub fn append(&self, record: Record, done: Done) {
        let pending =
            Pending { body_crc: record::body_crc(&record.head, &record.rows), record, answer: Answer::new(done) };
        self.0.tell(Command::Append(pending));
    }

    /// Reads a record that is not done.
    ///
    /// # Errors
    /// The disk refuses, or no record starts there.
    pub fn read(&self, position: Position) -> io::Result<StoredRecord> {
        self.0.store.segment_of(position)?.read(position.offset())
    }

    /// Reads the head of a record that is not done.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub fn read_head(&self, position: Position) -> io::Result<Vec<u8>> {
        let segment = self.0.store.segment_of(position)?;
        segment.read_head(position.offset()).map(Vec::from)
    }

    /// Marks records done, once their fate is recorded elsewhere. A mark that can't be written is only logged: at the
    /// next start that record is replayed.
    pub fn complete(&self, positions: &[Position]) {
        if self.0.store.complete(positions) {
            self.0.tell(Command::Tidy);
        }
    }

    /// Returns the bytes that records take, done ones too as long as their segment is not free.
    pub fn used_bytes(&self) -> u64 {
        self.0.store.used_bytes()
    }

    /// Returns the bytes that records may take.
    pub fn limit_bytes(&self) -> u64 {
        self.0.store.limit_bytes()
    }

    /// Appends what was handed in, makes the marks durable, and ends the writer. Appends after it are `Closed`; reading
    /// and marking still work. Must not be called on the writer's thread.
    pub fn close(&self) {
        self.0.store.stopping.store(true, Relaxed);
        self.0.tell(Command::Close);
        self.0.join();
    }

    /// Waits until compaction has nothing left to do.
    #[cfg(test)]
    fn settle(&self) {
        let (sender, receiver) = channel();
        self.0.tell(Command::Settle(sender));
        let _ = receiver.recv();
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Journal").field(&self.0.store.folder.path()).finish()
    }
}

impl Handle {
    fn tell(&self, command: Command) {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Whoever waits for a command that nobody takes is told by its drop.
        if let Some(commands) = commands {
            let _ = commands.send(command);
        }
    }

    fn join(&self) {
        drop(self.commands.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last handle may go with the last answer, on the writer's own thread.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.join();
    }
}
