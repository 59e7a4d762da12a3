//! The journal's folder: one process owns it; what lies there is looked at before anything is changed.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock, fstatfs};

use super::{
    OpenError,
    header::{HEADER_BYTES, HeaderState},
    marks::{self, Summary},
    position::SLOTS,
};

const LOCK: &str = "lock";
const PROBE: &str = "probe";
const SEGMENT: &str = ".segment";
const MARKS: &str = ".done";
const ASIDE: &str = ".segment.damaged-";

/// The folder, and the lock on it, which is held as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    handle: File,
    _lock: File,
}

/// A segment's file as it was found.
#[derive(Debug)]
pub(super) struct FoundFile {
    pub slot: u32,
    pub file: File,
    pub bytes: u64,
    pub state: HeaderState,
    /// Both copies of the header are as they were written.
    pub header_is_whole: bool,
    /// What the marks beside it say.
    pub summary: Option<Summary>,
}

/// All that was found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub files: Vec<FoundFile>,
    /// Bytes of damaged files that were kept.
    pub aside_bytes: u64,
    /// Slots that have marks and no segment.
    pub lone_marks: Vec<u32>,
}

impl Folder {
    /// Makes the folder if need be, and locks it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io { path: path.to_owned(), source };
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new("."))).and_then(|parent| parent.sync_all()).map_err(failed)?;
        }
        let handle = File::open(path).map_err(failed)?;
        let lock = private().create(true).open(path.join(LOCK)).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::InUse(path.to_owned())),
            Err(error) => return Err(failed(error.into())),
        }
        warn_if_volatile(path, &handle);
        Ok(Self { path: path.to_owned(), handle, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn segment_path(&self, slot: u32) -> PathBuf {
        self.path.join(format!("{slot:08}{SEGMENT}"))
    }

    pub fn marks_path(&self, slot: u32) -> PathBuf {
        self.path.join(format!("{slot:08}{MARKS}"))
    }

    /// Where a damaged segment may be kept; nothing lies there yet.
    pub fn free_aside_path(&self, slot: u32, epoch: u64) -> PathBuf {
        let name = format!("{slot:08}{ASIDE}{epoch}");
        let more = (1..).map(|number| format!("{name}-{number}"));
        std::iter::once(name.clone())
            .chain(more)
            .map(|name| self.path.join(name))
            .find(|path| !path.exists())
            .unwrap_or_default()
    }

    /// Makes a file for a segment. There is none in that slot.
    pub fn create_segment(&self, slot: u32) -> io::Result<File> {
        private().create_new(true).open(self.segment_path(slot))
    }

    /// Removes a segment's files; returns whether its slot is free now.
    pub fn remove(&self, slot: u32) -> bool {
        // Marks without a segment are removed at the next start; a segment without marks would be replayed.
        let mut free = true;
        for path in [self.segment_path(slot), self.marks_path(slot)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(file = %path.display(), %error, "could not remove a file of the journal");
                    free = false;
                }
                _ => {}
            }
        }
        free
    }

    /// Makes the names of new files durable.
    pub fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    /// Writes and syncs a small file of its own: whether the folder takes writes.
    pub fn probe(&self) -> io::Result<()> {
        let path = self.path.join(PROBE);
        let probe = || {
            let file = private().create(true).truncate(true).open(&path)?;
            file.write_all_at(&[1; 4096], 0)?;
            file.sync_data()
        };
        let outcome = probe();
        let removed = fs::remove_file(&path);
        outcome.and(removed)
    }

    /// Looks at every file and changes none.
    pub fn survey(&self) -> Result<Survey, OpenError> {
        let mut survey = Survey::default();
        let mut marks = Vec::new();
        let failed = |path: &Path, source| OpenError::Io { path: path.to_owned(), source };
        for entry in fs::read_dir(&self.path).map_err(|error| failed(&self.path, error))? {
            let entry = entry.map_err(|error| failed(&self.path, error))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let look = |error| failed(&entry.path(), error);
            if name.contains(ASIDE) {
                survey.aside_bytes += entry.metadata().map_err(look)?.len();
            } else if let Some(slot) = slot_of(name, SEGMENT) {
                survey.files.push(self.look_at(slot, &entry.path()).map_err(look)?);
            } else if let Some(slot) = slot_of(name, MARKS) {
                marks.push(slot);
            }
        }
        marks.retain(|slot| survey.files.iter().all(|file| file.slot != *slot));
        survey.lone_marks = marks;
        Ok(survey)
    }

    fn look_at(&self, slot: u32, path: &Path) -> io::Result<FoundFile> {
        let file = private().open(path)?;
        let bytes = file.metadata()?.len();
        let mut header = [0; HEADER_BYTES as usize];
        let length = bytes.min(HEADER_BYTES) as usize;
        // What can't be read is a broken header, which the marks may stand in for.
        let state = match file.read_exact_at(&mut header[..length], 0) {
            Ok(()) => HeaderState::of(&header),
            Err(_) => HeaderState::Broken,
        };
        Ok(FoundFile {
            slot,
            file,
            bytes,
            header_is_whole: matches!(state, HeaderState::Used(found) if found.encode() == header),
            state,
            summary: marks::read_summary(&self.marks_path(slot)),
        })
    }
}

fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    options
}

/// Returns the slot in a name such as `00000017.segment`.
fn slot_of(name: &str, ending: &str) -> Option<u32> {
    let digits = name.strip_suffix(ending)?;
    let slot = digits.parse().ok()?;
    (digits.len() >= 8 && slot < SLOTS).then_some(slot)
}

/// Says so when the folder lies where a restart may lose it.
fn warn_if_volatile(path: &Path, handle: &File) {
    const VOLATILE: [(u64, &str); 3] = [(0x0102_1994, "tmpfs"), (0x794c_7630, "overlay"), (0x6969, "nfs")];
    let Ok(stat) = fstatfs(handle) else { return };
    if let Some((_, kind)) = VOLATILE.iter().find(|(magic, _)| *magic == stat.f_type as u64) {
        tracing::warn!(
            journal.dir = %path.display(), filesystem = kind,
            "the journal does not lie on a local disk: acknowledged batches may be lost with it"
        );
    }
}
