//! `forebay import`: sends a file of events through the HTTP API and waits until each of them has landed.
//!
//! A file is cut into batches in the same way each time, and a batch's id is made of the run's and its number. So an
//! interrupted run goes on where it was: batches known to have landed are skipped, all others are sent under the ids
//! that they had, which is safe whatever became of them. Does not judge events; the server does.

mod answer;
mod args;
mod csv;
mod progress;
mod read;
mod report;
mod retry;
mod send;

#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::Context;
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use args::Args;

use crate::exit::Outcome;
use args::Rows;
use progress::{Pin, Progress};
use read::{Batch, Input};
use report::{RejectedList, Report};
use send::Sender;

/// Batches on their way at the same time: more than the lanes of a server take, so that none of them waits for us.
const IN_FLIGHT: usize = 32;
/// Bytes of bodies on their way at the same time, more only for a single batch.
const IN_FLIGHT_BYTES: usize = 64 << 20;
/// Batches that are read ahead.
const READ_AHEAD: usize = 4;

/// What became of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    accepted: u64,
    committed: u64,
    duplicates: u64,
    rejected: u64,
    quarantined: u64,
}

/// An event that was refused, as it is listed for the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rejected {
    /// Line of the input that it begins at, from 1.
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    event_id: Option<String>,
    code: String,
    detail: String,
    pointer: String,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.committed += other.committed;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
        self.quarantined += other.quarantined;
    }
}

/// Sends the file, shows how far it is on stderr, and prints what became of the events on stdout.
///
/// # Errors
/// A [`SettingError`](crate::settings::SettingError) is the caller's: exit code 2. All others stop the import with exit
/// code 1: the file can't be read, or the server refuses in a way that sending again does not mend.
pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let format = args.format()?;
    let key = args.api_key()?;
    if format.rows == Rows::Ndjson && args.service_name.is_some() {
        eprintln!("--service-name is for CSV and changes nothing here: an event of NDJSON names its own");
    }
    let input = Input::open(&args, &format)?;
    let mut progress = match Pin::of(&args, &format) {
        Some(pin) => Progress::open(&args.beside(".forebay-import"), pin?)?,
        None => Progress::none(),
    };
    let mut rejected = RejectedList::open(args.beside(".rejected.ndjson"), &progress)?;
    let report = Report::start(&args, &input, &progress);
    let sender = Sender::new(&args, key, &report)?;
    let mut has_sent = progress.before().0 > 0;
    let ended = send_all(input, &sender, &report, &mut progress, &mut rejected, &mut has_sent).await;
    report.close();
    if let (Err(_), false) = (&ended, has_sent) {
        progress.remove(); // It would be in the way of the file once that is mended.
        return ended.map(|_| Outcome::NotDone);
    }
    let hint = match &ended {
        Ok(true) => None,
        _ if progress.path().is_some() => Some("Run the same command again to go on from here."),
        _ => Some("There is no note of how far it came; events that have a timestamp may be sent again safely."),
    };
    if let Some(hint) = hint {
        eprintln!("Stopped; {} events have landed. {hint}", report.landed());
    }
    if !ended? {
        return Ok(Outcome::Interrupted);
    }
    progress.remove();
    println!("{}", report.summary(&rejected));
    Ok(if report.all_landed() { Outcome::Done } else { Outcome::NotDone })
}

/// Returns whether it came to the end; `false` = Ctrl-C.
async fn send_all(
    input: Input,
    sender: &Sender<'_>,
    report: &Report,
    progress: &mut Progress,
    rejected: &mut RejectedList,
    has_sent: &mut bool,
) -> anyhow::Result<bool> {
    let mut batches = read_ahead(input)?;
    let mut in_flight = FuturesUnordered::new();
    let mut in_flight_bytes = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut at_end = false;
    let mut unreadable = None;
    while !at_end || !in_flight.is_empty() {
        let has_room = in_flight.len() < IN_FLIGHT && (in_flight_bytes < IN_FLIGHT_BYTES || in_flight.is_empty());
        tokio::select! {
            _ = &mut interrupt => return Ok(false),
            Some((batch, delivered)) = in_flight.next(), if !in_flight.is_empty() => {
                let (batch, delivered): (Batch, anyhow::Result<answer::Delivered>) = (batch, delivered);
                in_flight_bytes -= batch.body.len();
                let mut delivered = delivered
                    .with_context(|| format!("send lines {} to {}", batch.first_line, batch.last_line))?;
                delivered.refuse(batch.refused);
                // First the list, then the note: a run that dies between them lists those events once more, and once.
                rejected.add(&delivered.rejected)?;
                progress.note(batch.number, [batch.first_line, batch.last_line], delivered.tally)?;
                report.add(delivered.tally);
            }
            batch = batches.recv(), if has_room && !at_end => match batch {
                Some(Ok(batch)) if progress.is_done(batch.number) => {}
                Some(Ok(batch)) => {
                    *has_sent = true;
                    in_flight_bytes += batch.body.len();
                    let id = progress.batch_id(batch.number);
                    in_flight.push(async move {
                        let delivered = sender.deliver(&id, &batch).await;
                        (batch, delivered)
                    });
                }
                // What was read before still lands.
                Some(Err(error)) => (at_end, unreadable) = (true, Some(error)),
                None => at_end = true,
            },
            _ = tick.tick() => report.show(),
        }
    }
    unreadable.map_or(Ok(true), Err)
}

/// Reads in a thread of its own, which nothing waits for: a read from the standard input may never end.
fn read_ahead(input: Input) -> anyhow::Result<mpsc::Receiver<anyhow::Result<Batch>>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::Builder::new()
        .name("import".into())
        .spawn(move || {
            for batch in input {
                if sender.blocking_send(batch).is_err() {
                    return; // Nobody listens any more.
                }
            }
        })
        .context("start the reader")?;
    Ok(receiver)
}
