//! What is still to be written to Redis: bounded, and never waited for by who hands it in.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::batch::{BatchKey, KnownBatch};

/// Notes that wait for Redis; about 4 MiB. Some seconds of load, so that a restart of Redis loses little.
const MAX_NOTES: usize = 8192;

/// What is to be told of a batch.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) key: BatchKey,
    pub(super) known: KnownBatch,
}

/// Notes in their order. When it is full, the oldest are dropped: a batch's final status stands behind its first, so
/// the first is never what is left of it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    notes: Mutex<VecDeque<Note>>,
    filled: Notify,
}

impl Outbox {
    /// Adds a note. Never waits.
    pub(super) fn push(&self, note: Note) {
        let mut notes = self.lock();
        if notes.len() >= MAX_NOTES {
            notes.pop_front();
        }
        notes.push_back(note);
        drop(notes);
        self.filled.notify_one();
    }

    /// Takes the oldest notes, at most `count`.
    pub(super) fn take(&self, count: usize) -> Vec<Note> {
        let mut notes = self.lock();
        let count = count.min(notes.len());
        notes.drain(..count).collect()
    }

    /// Puts notes back that were taken and not written, as far as there is room.
    pub(super) fn put_back(&self, taken: Vec<Note>) {
        let mut notes = self.lock();
        for note in taken.into_iter().rev() {
            if notes.len() >= MAX_NOTES {
                break;
            }
            notes.push_front(note);
        }
    }

    /// Waits until there is a note. One task at a time may wait.
    pub(super) async fn filled(&self) {
        while self.lock().is_empty() {
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::codec::tests::head;

    fn note(number: usize) -> Note {
        let mut head = head();
        head.key.batch_id = number.to_string();
        Note { key: head.key.clone(), known: KnownBatch::accepted(&head) }
    }

    fn ids(notes: &[Note]) -> Vec<&str> {
        notes.iter().map(|note| note.key.batch_id.as_str()).collect()
    }

    #[test]
    fn full_outbox_drops_the_oldest() {
        let outbox = Outbox::default();
        (0..MAX_NOTES + 2).for_each(|number| outbox.push(note(number)));
        assert_eq!(ids(&outbox.take(2)), ["2", "3"]);
        assert_eq!(outbox.take(usize::MAX).len(), MAX_NOTES - 2);
    }

    #[test]
    fn what_is_put_back_stands_where_it_stood() {
        let outbox = Outbox::default();
        (0..4).for_each(|number| outbox.push(note(number)));
        let taken = outbox.take(2);
        outbox.put_back(taken);
        assert_eq!(ids(&outbox.take(9)), ["0", "1", "2", "3"]);
    }

    #[test]
    fn what_is_put_back_never_pushes_out_what_came_since() {
        let outbox = Outbox::default();
        outbox.push(note(0));
        outbox.push(note(1));
        let taken = outbox.take(2);
        (2..MAX_NOTES + 1).for_each(|number| outbox.push(note(number)));
        outbox.put_back(taken);
        assert_eq!(ids(&outbox.take(2)), ["1", "2"]);
        assert_eq!(outbox.take(usize::MAX).len(), MAX_NOTES - 2);
    }
}
