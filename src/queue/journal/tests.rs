//! The journal on a real folder: what each test file promises is in its name.

mod damage;
mod faults;
mod model;
mod promises;
mod room;

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
};

use tempfile::TempDir;

use super::*;
use crate::{health::CheckStatus, metrics::Metrics, time::Clock};

/// Segments of 64 KiB, 15 of them.
const SMALL: u64 = 1 << 20;
const SEGMENT: u64 = 64 << 10;

/// An open journal and what it says of itself.
struct Bench {
    journal: Journal,
    metrics: JournalMetrics,
    health: Arc<Health>,
}

type Told = Vec<(Position, Vec<u8>)>;

fn options(dir: &Path, max_bytes: u64) -> Options {
    Options {
        dir: dir.to_owned(),
        max_bytes,
        metrics: Metrics::new().journal,
        health: Arc::new(Health::new(Clock::default(), CheckStatus::Off)),
        codec: 1,
        on_failed: Box::new(|| panic!("the writer died")),
    }
}

impl Bench {
    /// Opens a journal and leaves its replay to the caller.
    fn open_with(dir: &Path, max_bytes: u64) -> (Self, Replay) {
        let options = options(dir, max_bytes);
        let (metrics, health) = (options.metrics.clone(), options.health.clone());
        let (journal, replay) = Journal::open(options).unwrap();
        let bench = Self { journal, metrics, health };
        (bench, replay)
    }

    /// Opens a journal and replays it.
    fn open(dir: &Path, max_bytes: u64) -> (Self, Told, ReplayReport) {
        let (bench, replay) = Self::open_with(dir, max_bytes);
        let (told, report) = told(replay);
        (bench, told, report)
    }

    fn append(&self, head: &[u8], rows: &[u8]) -> Result<Position, AppendError> {
        self.append_all(&[(head, rows)])[0]
    }

    /// Appends without waiting between them, then waits for all.
    fn append_all(&self, records: &[(&[u8], &[u8])]) -> Vec<Result<Position, AppendError>> {
        let (sender, receiver) = mpsc::channel();
        for (index, (head, rows)) in records.iter().enumerate() {
            let sender = sender.clone();
            let record = Record { head: head.to_vec(), rows: rows.to_vec() };
            self.journal.append(record, Box::new(move |outcome| sender.send((index, outcome)).unwrap()));
        }
        drop(sender);
        let answers: Vec<_> = receiver.iter().collect();
        assert!(answers.iter().map(|(index, _)| *index).eq(0..records.len()), "in order");
        answers.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn is_writable(&self) -> bool {
        self.health.journal_writable.load(Relaxed)
    }
}

fn told(replay: Replay) -> (Told, ReplayReport) {
    let mut told = Vec::new();
    let report = replay.run(|position, head, bytes| {
        assert!(bytes >= 64 && bytes % 64 == 0);
        told.push((position, head.to_vec()));
    });
    assert_eq!(report.records, told.len() as u64);
    (told, report)
}

fn heads(told: &Told) -> Vec<&[u8]> {
    told.iter().map(|(_, head)| head.as_slice()).collect()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Copies the folder as a kill at this moment would leave it.
fn snapshot(dir: &Path) -> TempDir {
    let copy = folder();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// The writer may remove a file meanwhile.
fn folder_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap();
    entries.filter_map(|entry| Some(entry.unwrap().metadata().ok()?.len())).sum()
}

fn segment_file(dir: &Path, position: Position) -> std::path::PathBuf {
    dir.join(format!("{:08}.segment", position.slot()))
}

fn marks_file(dir: &Path, position: Position) -> std::path::PathBuf {
    dir.join(format!("{:08}.done", position.slot()))
}

/// Changes bytes of a file in place.
fn change(path: &Path, from: u64, change: impl FnOnce(&mut [u8])) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes[from as usize..]);
    fs::write(path, bytes).unwrap();
}
