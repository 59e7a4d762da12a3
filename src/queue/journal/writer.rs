//! The one thread that changes the journal's end: it writes what waits, syncs it once, and answers.
//!
//! An append that is alone never waits for company. When the last sync carried several, the next waits up to a
//! millisecond for as many: each sync costs the same however much it carries.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    time::{Duration, Instant},
};

use super::{
    AppendError, Done,
    compaction::Compaction,
    position::Position,
    record::{Parts, Record},
    store::Store,
    tail::{PROBE_INTERVAL, Purpose, Tail},
};

/// The longest that a group waits for company.
const LINGER: Duration = Duration::from_millis(1);
/// Records and bytes that end a group: what comes later waits for the next sync, not this one for it.
const MOST_RECORDS: usize = 4096;
const MOST_BYTES: u64 = 16 << 20;

/// What the writer is told.
pub(super) enum Command {
    /// Append a record.
    Append(Pending),
    /// A segment became free.
    Tidy,
    /// Append what was handed in before this, then end.
    Close,
    /// Compact and tidy up as far as it goes, then say so.
    #[cfg(test)]
    Settle(std::sync::mpsc::Sender<()>),
}

/// A record on its way.
pub(super) struct Pending {
    pub record: Record,
    pub body_crc: u32,
    pub answer: Answer,
}

fn bytes_of(pending: &Pending) -> u64 {
    parts(&pending.record, pending.body_crc).bytes()
}

fn parts(record: &Record, body_crc: u32) -> Parts<'_> {
    Parts { head: &record.head, rows: &record.rows, body_crc }
}

/// Whom to tell. It is told exactly once, also when the writer dies.
pub(super) struct Answer {
    done: Option<Done>,
    if_dropped: AppendError,
}

impl Answer {
    pub fn new(done: Done) -> Self {
        Self { done: Some(done), if_dropped: AppendError::Closed }
    }

    fn give(&mut self, outcome: Result<Position, AppendError>) {
        if let Some(done) = self.done.take() {
            done(outcome);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.give(Err(self.if_dropped));
    }
}

/// The writer's state.
pub(super) struct Writer {
    store: Arc<Store>,
    tail: Tail,
    compaction: Compaction,
    commands: Receiver<Command>,
    /// Records that the last sync carried.
    last_group: usize,
    closing: bool,
    #[cfg(test)]
    settlers: Vec<std::sync::mpsc::Sender<()>>,
}

impl Writer {
    pub fn new(store: Arc<Store>, tail: Tail, commands: Receiver<Command>) -> Self {
        Self {
            compaction: Compaction::new(store.clone()),
            store,
            tail,
            commands,
            last_group: 0,
            closing: false,
            #[cfg(test)]
            settlers: Vec::new(),
        }
    }

    /// Works until it is told to close, or nobody is left who could append.
    pub fn run(mut self) {
        while !self.closing {
            let wait = if self.compaction.is_running() { Duration::ZERO } else { PROBE_INTERVAL };
            match self.commands.recv_timeout(wait) {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody said to close: leave everything as a crash would, for the replay to sort out.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.tail.probe();
            self.tail.tidy();
            self.compaction.step(&mut self.tail);
            #[cfg(test)]
            for settler in std::mem::take(&mut self.settlers) {
                self.compaction.run_out(&mut self.tail);
                self.tail.tidy();
                let _ = settler.send(());
            }
        }
        self.close();
    }

    fn obey(&mut self, command: Command) {
        if let Some(first) = self.note(command) {
            let group = self.gather(first);
            self.append(group);
        }
    }

    /// Returns the record to append, if the command has one.
    fn note(&mut self, command: Command) -> Option<Pending> {
        match command {
            Command::Append(pending) => return Some(pending),
            Command::Tidy => {}
            Command::Close => self.closing = true,
            #[cfg(test)]
            Command::Settle(settler) => self.settlers.push(settler),
        }
        None
    }

    /// Takes what waits.
    fn gather(&mut self, first: Pending) -> Vec<Pending> {
        let deadline = (self.last_group > 1).then(|| Instant::now() + LINGER);
        let mut bytes = bytes_of(&first);
        let mut group = vec![first];
        while group.len() < MOST_RECORDS && bytes < MOST_BYTES && !self.closing {
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) if group.len() < self.last_group => {
                    let left = deadline.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
                    match self.commands.recv_timeout(left) {
                        Ok(command) => command,
                        Err(_) => break,
                    }
                }
                Err(_) => break,
            };
            if let Some(pending) = self.note(command) {
                bytes += bytes_of(&pending);
                group.push(pending);
            }
        }
        self.last_group = group.len();
        group
    }

    fn append(&mut self, group: Vec<Pending>) {
        let (records, mut answers): (Vec<_>, Vec<_>) =
            group.into_iter().map(|pending| ((pending.record, pending.body_crc), pending.answer)).unzip();
        for answer in &mut answers {
            answer.if_dropped = AppendError::OutcomeUnknown;
        }
        let parts: Vec<Parts<'_>> = records.iter().map(|(record, body_crc)| parts(record, *body_crc)).collect();
        self.tail.append(&parts, Purpose::Append, |index, outcome| answers[index].give(outcome));
    }

    /// Appends what is left, and makes the marks durable.
    fn close(mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
        }
        self.tail.close_active();
        self.tail.tidy();
        for segment in self.store.segments() {
            self.store.sync_marks(&segment);
        }
    }
}
