//! The note of how far an import came: `FILE.forebay-import`.
//!
//! Its first line pins what the run was about: the file's size and time, the options, and the run's id, of which the
//! ids of all batches are made. Each further line is a batch whose events have landed. Lines are appended as a whole;
//! one that a crash cut is cut off.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Tally,
    args::{Args, Format},
    read::BATCH_EVENTS,
};

/// What a run is about. A note of another is refused: its batches would be others under the same ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pin {
    size: u64,
    modified_nanos: u64,
    url: String,
    service_name: Option<String>,
    priority: u8,
    batch_events: usize,
}

impl Pin {
    /// Returns what a run with these arguments is about; `None` where the input can't be read a second time.
    pub fn of(args: &Args, format: &Format) -> Option<anyhow::Result<Self>> {
        if args.is_stdin() {
            return None;
        }
        let meta = match fs::metadata(&args.file).with_context(|| format!("open {}", args.file.display())) {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => return None,
            Err(error) => return Some(Err(error)),
        };
        let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let service_name = args.service_name.clone().unwrap_or_else(|| format.stem.clone());
        Some(Ok(Self {
            size: meta.len(),
            // Wraps in the year 2554, which still tells two moments apart.
            modified_nanos: modified.unwrap_or_default().as_nanos() as u64,
            url: args.url.to_string(),
            service_name: (format.rows == super::args::Rows::Csv).then_some(service_name),
            priority: args.priority.unwrap_or(0),
            batch_events: BATCH_EVENTS,
        }))
    }

    /// Returns in what another run differs from this one.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        [
            ((self.size, self.modified_nanos) != (other.size, other.modified_nanos), "the file has changed since"),
            (self.url != other.url, "it went to another --url"),
            (self.service_name != other.service_name, "it had another --service-name"),
            (self.priority != other.priority, "it had another --priority"),
            (self.batch_events != other.batch_events, "another release of forebay began it"),
        ]
        .into_iter()
        .find_map(|(differs, what)| differs.then_some(what))
    }
}

#[derive(Serialize, Deserialize)]
struct FirstLine {
    run: Uuid,
    #[serde(flatten)]
    pin: Pin,
}

#[derive(Serialize, Deserialize)]
struct BatchLine {
    batch: u32,
    lines: [u64; 2],
    #[serde(flatten)]
    tally: Tally,
}

/// How far an import is.
#[derive(Debug)]
pub(super) struct Progress {
    run: Uuid,
    /// Batches that have landed.
    done: HashSet<u32>,
    /// Their first and last lines in the input.
    lines: BTreeMap<u64, u64>,
    tally: Tally,
    /// `None` where no note is kept.
    note: Option<(PathBuf, File)>,
}

impl Progress {
    /// Starts a run of which no note is kept.
    pub fn none() -> Self {
        Self { run: Uuid::now_v7(), done: HashSet::new(), lines: BTreeMap::new(), tally: Tally::default(), note: None }
    }

    /// Goes on with the run that the note at `path` tells of, or starts one.
    ///
    /// Where the note can't be written (the file lies in a folder that can only be read), the run goes on without.
    ///
    /// # Errors
    /// The note is that of another run, or another process goes on with it at this moment.
    pub fn open(path: &Path, pin: Pin) -> anyhow::Result<Self> {
        let mut options = OpenOptions::new();
        let file = match options.read(true).write(true).create(true).truncate(false).open(path) {
            Ok(file) => file,
            Err(error) => {
                let path = path.display();
                eprintln!("can't write {path} ({error}): should this run be interrupted, it can't be resumed");
                return Ok(Self::none());
            }
        };
        let name = path.display();
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => anyhow::bail!("another import of this file is running ({name} is locked)"),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {name}")),
            Ok(()) => {}
        }
        Self::read(path, file, pin).with_context(|| format!("read {name}, the note of an import that was interrupted"))
    }

    fn read(path: &Path, mut file: File, pin: Pin) -> anyhow::Result<Self> {
        let mut progress = Self::none();
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64)?;
        file.seek(io::SeekFrom::End(0))?;
        let mut lines = text[..whole].lines();
        match lines.next() {
            Some(first) => {
                let first: FirstLine =
                    serde_json::from_str(first).context("it is not one; delete it to start from the beginning")?;
                if let Some(difference) = pin.difference(&first.pin) {
                    anyhow::bail!("{difference}; delete the note to start from the beginning");
                }
                progress.run = first.run;
            }
            None => {
                append(&mut file, &FirstLine { run: progress.run, pin })?;
                // The run's id must outlive us: with another one, batches in doubt would be new ones.
                file.sync_all()?;
            }
        }
        for line in lines {
            let line: BatchLine = serde_json::from_str(line).context("a line of it is damaged")?;
            progress.done.insert(line.batch);
            progress.lines.insert(line.lines[0], line.lines[1]);
            progress.tally += line.tally;
        }
        progress.note = Some((path.to_owned(), file));
        Ok(progress)
    }

    /// Returns where the note is, if one is kept.
    pub fn path(&self) -> Option<&Path> {
        self.note.as_ref().map(|(path, _)| path.as_path())
    }

    /// Returns the id of a batch: the same in each run that goes on with this one.
    pub fn batch_id(&self, number: u32) -> String {
        format!("import-{}-{number:06}", self.run)
    }

    /// Returns whether a batch has landed.
    pub fn is_done(&self, number: u32) -> bool {
        self.done.contains(&number)
    }

    /// Returns whether a line of the input belongs to a batch that has landed.
    pub fn is_line_done(&self, line: u64) -> bool {
        self.lines.range(..=line).next_back().is_some_and(|(_, last)| line <= *last)
    }

    /// Returns how many batches had landed before, and what became of their events.
    pub fn before(&self) -> (usize, Tally) {
        (self.done.len(), self.tally)
    }

    /// Notes that a batch has landed, or was refused for good.
    ///
    /// # Errors
    /// The note can't be written.
    pub fn note(&mut self, batch: u32, lines: [u64; 2], tally: Tally) -> anyhow::Result<()> {
        match &mut self.note {
            Some((path, file)) => {
                append(file, &BatchLine { batch, lines, tally }).with_context(|| format!("write {}", path.display()))
            }
            None => Ok(()),
        }
    }

    /// Removes the note: the run came to its end.
    pub fn remove(self) {
        if let Some((path, _)) = self.note
            && let Err(error) = fs::remove_file(&path)
        {
            eprintln!("can't remove {} ({error}): delete it by hand", path.display());
        }
    }
}

fn append(file: &mut File, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    file.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin() -> Pin {
        Pin {
            size: 7,
            modified_nanos: 1 << 60,
            url: "http://localhost:8000/".into(),
            service_name: Some("s".into()),
            priority: 0,
            batch_events: BATCH_EVENTS,
        }
    }

    fn landed(committed: u64) -> Tally {
        Tally { accepted: committed, committed, ..Tally::default() }
    }

    #[test]
    fn interrupted_run_goes_on_with_its_ids_and_totals() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv.forebay-import");
        let mut first = Progress::open(&path, pin()).unwrap();
        first.note(1, [1002, 2001], landed(1000)).unwrap();
        first.note(4, [4002, 5001], landed(900)).unwrap();
        let id = first.batch_id(3);
        drop(first);
        // A crash in the middle of a line.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"batch\":2,\"li").unwrap();

        let mut second = Progress::open(&path, pin()).unwrap();
        assert_eq!(second.batch_id(3), id);
        assert!(crate::batch::is_batch_id(&id), "{id}");
        assert_eq!(second.before(), (2, landed(1900)));
        assert_eq!([0, 1, 2, 4].map(|number| second.is_done(number)), [false, true, false, true]);
        assert_eq!([1001, 1002, 2001, 3000].map(|line| second.is_line_done(line)), [false, true, true, false]);
        second.note(2, [2002, 3001], landed(1000)).unwrap();
        drop(second);
        let third = Progress::open(&path, pin()).unwrap();
        assert_eq!(third.before(), (3, landed(2900)));
        third.remove();
        assert!(!path.exists());
    }

    #[test]
    fn note_of_another_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        drop(Progress::open(&path, pin()).unwrap());
        for (other, told) in [
            (Pin { size: 8, ..pin() }, "the file has changed since"),
            (Pin { url: "http://b/".into(), ..pin() }, "another --url"),
            (Pin { service_name: None, ..pin() }, "another --service-name"),
            (Pin { priority: 3, ..pin() }, "another --priority"),
        ] {
            let error = format!("{:#}", Progress::open(&path, other).unwrap_err());
            assert!(error.contains(told) && error.contains("delete the note"), "{error}");
        }
        fs::write(&path, "something else\n").unwrap();
        assert!(format!("{:#}", Progress::open(&path, pin()).unwrap_err()).contains("it is not one"));
    }

    #[test]
    fn file_is_imported_by_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        let _first = Progress::open(&path, pin()).unwrap();
        let error = Progress::open(&path, pin()).unwrap_err().to_string();
        assert!(error.starts_with("another import of this file is running"), "{error}");
    }
}
