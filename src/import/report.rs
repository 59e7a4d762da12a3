//! Tells the user how far an import is, what it waits for, and how it ended.

use std::{
    fs::{self, File, OpenOptions},
    io::{IsTerminal, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};

use super::{Args, Rejected, Tally, progress::Progress, read::Input};

/// How often a line tells how far it is, where there is no terminal to draw on.
const LINE_INTERVAL: Duration = Duration::from_secs(2);
/// How often the user is told what is waited for.
const WAITING_INTERVAL: Duration = Duration::from_secs(5);

/// What the user sees.
pub(super) struct Report {
    url: String,
    /// Bytes of the file; unknown for the standard input.
    size: Option<u64>,
    read: Arc<AtomicU64>,
    begun: Instant,
    /// `None` where stderr is no terminal.
    bar: Option<ProgressBar>,
    state: Mutex<State>,
    /// Batches that had landed before.
    resumed: usize,
}

struct State {
    tally: Tally,
    /// Events of this run alone.
    sent: u64,
    line_at: Instant,
    waiting_at: Option<Instant>,
}

impl Report {
    /// Begins to tell. Totals go on from those of the runs before.
    pub fn start(args: &Args, input: &Input, progress: &Progress) -> Self {
        let (resumed, tally) = progress.before();
        let meta = fs::metadata(&args.file).ok().filter(fs::Metadata::is_file);
        let size = meta.map(|meta| meta.len()).filter(|_| !args.is_stdin());
        let bar = std::io::stderr().is_terminal().then(|| draw_bar(size));
        if resumed > 0 {
            eprintln!("Goes on with an import that was interrupted: {resumed} batches have landed");
        }
        let begun = Instant::now();
        let state = State { tally, sent: 0, line_at: begun, waiting_at: None };
        Self {
            url: args.url.to_string(),
            size,
            read: input.bytes_read(),
            begun,
            bar,
            state: Mutex::new(state),
            resumed,
        }
    }

    /// Adds a batch whose fate is known.
    pub fn add(&self, tally: Tally) {
        let mut state = self.state();
        state.tally += tally;
        state.sent += tally.accepted + tally.rejected;
    }

    /// Draws the bar, or prints a line when it is time to.
    pub fn show(&self) {
        let mut state = self.state();
        let read = self.read.load(Relaxed);
        let rate = HumanCount(self.rate(&state));
        let seen = HumanCount(state.tally.accepted + state.tally.rejected);
        if let Some(bar) = &self.bar {
            bar.set_position(read);
            bar.set_message(format!("{seen} events, {rate}/s"));
        } else if state.line_at.elapsed() >= LINE_INTERVAL {
            state.line_at = Instant::now();
            let place = self.size.map_or(String::new(), |size| format!(", {}", self.place(read, size)));
            eprintln!("{seen} events, {rate}/s{place}");
        }
    }

    fn place(&self, read: u64, size: u64) -> String {
        let part = read as f64 / size.max(1) as f64;
        let left = self.begun.elapsed().as_secs_f64() * (1.0 - part) / part.max(0.001);
        format!("{:.0} % of the file read, about {} left", part * 100.0, HumanDuration(Duration::from_secs_f64(left)))
    }

    /// Says, now and then, what is waited for.
    pub fn waiting(&self, reason: &str) {
        let mut state = self.state();
        if state.waiting_at.is_some_and(|at| at.elapsed() < WAITING_INTERVAL) {
            return;
        }
        state.waiting_at = Some(Instant::now());
        let line = format!("Waiting for {}: {reason}", self.url);
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the bar away.
    pub fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Returns how many events have landed.
    pub fn landed(&self) -> u64 {
        let state = self.state();
        state.tally.committed + state.tally.duplicates
    }

    /// Returns whether each event has landed.
    pub fn all_landed(&self) -> bool {
        let tally = self.state().tally;
        tally.rejected == 0 && tally.committed + tally.duplicates == tally.accepted
    }

    /// Returns what became of the events, and where those are that did not land.
    pub fn summary(&self, rejected: &RejectedList) -> String {
        let state = self.state();
        let Tally { accepted, committed, duplicates, rejected: refused, quarantined } = state.tally;
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = HumanCount(self.rate(&state));
        let mut text = format!(
            "accepted: {accepted}, committed: {committed}, duplicates: {duplicates}, rejected: {refused}, \
             quarantined: {quarantined}; in {seconds:.1} s ({rate} events/s)"
        );
        if self.resumed > 0 {
            text.push_str(&format!("\n{} batches of it had landed before this run", self.resumed));
        }
        if refused > 0 {
            text.push_str(&format!("\nthe rejected events are listed in {}", rejected.path.display()));
        }
        if quarantined > 0 {
            text.push_str("\nthe quarantined events are in the table quarantine, each with its reason");
        }
        text
    }

    fn rate(&self, state: &State) -> u64 {
        (state.sent as f64 / self.begun.elapsed().as_secs_f64().max(0.001)) as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn draw_bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{bar:30} {percent:>3} %  {msg}  {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    // The templates are constants; one that could not be read would leave the default style.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The list of rejected events: a line of JSON for each.
pub(super) struct RejectedList {
    path: PathBuf,
    file: Option<File>,
}

impl RejectedList {
    /// Prepares the list. That of a run before is removed; from that of a resumed run goes what will be sent again.
    ///
    /// # Errors
    /// The list of a resumed run can't be written.
    pub fn open(path: PathBuf, progress: &Progress) -> anyhow::Result<Self> {
        if progress.before().0 == 0 {
            let _ = fs::remove_file(&path); // Mostly it is not there.
        } else if let Ok(text) = fs::read_to_string(&path) {
            let is_known = |line: &&str| {
                serde_json::from_str::<Rejected>(line).is_ok_and(|event| progress.is_line_done(event.line))
            };
            let known: String = text.lines().filter(is_known).flat_map(|line| [line, "\n"]).collect();
            fs::write(&path, known).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(Self { path, file: None })
    }

    /// Adds events. The file is made for the first of them; in the current folder, where that of the input can't be
    /// written.
    ///
    /// # Errors
    /// It can't be written.
    pub fn add(&mut self, rejected: &[Rejected]) -> anyhow::Result<()> {
        if rejected.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        for event in rejected {
            serde_json::to_writer(&mut text, event)?;
            text.push(b'\n');
        }
        if self.file.is_none() {
            let open = |path: &PathBuf| OpenOptions::new().append(true).create(true).open(path);
            let file = open(&self.path).or_else(|error| {
                self.path = self.path.file_name().map(PathBuf::from).ok_or(error)?;
                open(&self.path)
            });
            self.file = Some(file.with_context(|| format!("create {}", self.path.display()))?);
        }
        if let Some(file) = &mut self.file {
            file.write_all(&text).with_context(|| format!("write {}", self.path.display()))?;
        }
        Ok(())
    }
}
