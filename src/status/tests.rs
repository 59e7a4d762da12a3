use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use clap::Parser;
use tokio::sync::Notify;

use super::*;
use crate::batch::BatchStatus;
use crate::{batch::codec::tests::head, metrics::Metrics, time::Clock};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    status: Config,
}

fn config(arguments: &[&str]) -> Config {
    Cli::parse_from([&["forebay"], arguments].concat()).status
}

/// What the queue and the ledger of a board know.
#[derive(Default)]
struct Around {
    pending: Mutex<Option<KnownBatch>>,
    /// Nothing = the ledger can't be asked.
    ledger: Mutex<Option<Option<KnownBatch>>>,
    ledger_looks: AtomicUsize,
    ledger_asked: Notify,
}

fn set<T>(place: &Mutex<T>, value: T) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

/// A board without Redis.
fn board(around: &Arc<Around>) -> Arc<StatusBoard> {
    let (queue, ledger) = (Arc::clone(around), Arc::clone(around));
    let tasks = Tasks::new(CancellationToken::new());
    let board = StatusBoard::new(
        &config(&[]),
        Box::new(move |_| queue.pending.lock().unwrap().clone()),
        Box::new(move |_| {
            ledger.ledger_looks.fetch_add(1, SeqCst);
            ledger.ledger_asked.notify_one();
            let found = ledger.ledger.lock().unwrap().clone().ok_or(LedgerUnavailable);
            Box::pin(std::future::ready(found))
        }),
        "replica-1",
        Arc::new(Health::new(Clock::default(), CheckStatus::Off)),
        Metrics::new().backend,
        &tasks,
    );
    Arc::new(board.unwrap())
}

fn accepted() -> KnownBatch {
    KnownBatch::accepted(&head())
}

fn completed() -> KnownBatch {
    let mut known = accepted();
    known.report.status = BatchStatus::Completed;
    known
}

fn status(found: Result<Option<KnownBatch>, LedgerUnavailable>) -> Result<Option<BatchStatus>, &'static str> {
    found.map(|known| known.map(|known| known.report.status)).map_err(|_| "unavailable")
}

#[tokio::test]
async fn status_comes_from_who_knows_most() {
    let (around, key) = (Arc::new(Around::default()), head().key);
    let board = board(&around);
    assert_eq!(status(board.find(&key).await), Err("unavailable"));
    set(&around.ledger, Some(None));
    assert_eq!(status(board.find(&key).await), Ok(None));
    set(&around.pending, Some(accepted()));
    set(&around.ledger, None);
    assert_eq!(status(board.find(&key).await), Ok(Some(BatchStatus::Accepted)), "the ledger is not needed");
    board.note_final(&key, &completed());
    assert_eq!(status(board.find(&key).await), Ok(Some(BatchStatus::Completed)), "what is final wins");
    set(&around.pending, None);
    assert_eq!(status(board.find(&key).await), Ok(Some(BatchStatus::Completed)));
}

#[tokio::test]
async fn repeat_is_known_without_the_ledger() {
    let (around, key) = (Arc::new(Around::default()), head().key);
    let board = board(&around);
    set(&around.ledger, Some(Some(completed())));
    assert_eq!(board.find_repeat(&key).await, None);
    set(&around.pending, Some(accepted()));
    assert_eq!(board.find_repeat(&key).await, Some(accepted()));
    board.note_final(&key, &completed());
    assert_eq!(board.find_repeat(&key).await, Some(completed()));
    assert_eq!(around.ledger_looks.load(SeqCst), 0);
}

/// A limit that no test runs into: a wait that is not woken hangs.
const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn wait_ends_when_the_batch_is_final() {
    let (around, key) = (Arc::new(Around::default()), head().key);
    let board = board(&around);
    set(&around.pending, Some(accepted()));
    let settling = async {
        set(&around.pending, None);
        board.note_final(&key, &completed());
    };
    let (found, ()) = tokio::join!(board.wait(&key, LONG), settling);
    assert_eq!(status(found), Ok(Some(BatchStatus::Completed)));
    assert_eq!(around.ledger_looks.load(SeqCst), 0, "who waits asks no database");
}

#[tokio::test]
async fn wait_ends_at_its_limit_with_the_status_of_then() {
    let (around, key) = (Arc::new(Around::default()), head().key);
    let board = board(&around);
    set(&around.pending, Some(accepted()));
    let claiming = async {
        let mut claimed = accepted();
        claimed.report.status = BatchStatus::Processing;
        set(&around.pending, Some(claimed));
    };
    let (found, ()) = tokio::join!(board.wait(&key, Duration::from_millis(20)), claiming);
    assert_eq!(status(found), Ok(Some(BatchStatus::Processing)));
}

#[tokio::test]
async fn wait_for_another_replicas_batch_asks_again_until_it_is_final() {
    let (around, key) = (Arc::new(Around::default()), head().key);
    let board = board(&around);
    // Stands for what Redis says before the commit.
    set(&around.ledger, Some(Some(accepted())));
    let committing = async {
        around.ledger_asked.notified().await;
        set(&around.ledger, None); // An outage in the middle is waited out too.
        around.ledger_asked.notified().await;
        set(&around.ledger, Some(Some(completed())));
    };
    let (found, ()) = tokio::join!(board.wait(&key, LONG), committing);
    assert_eq!(status(found), Ok(Some(BatchStatus::Completed)));
}

#[tokio::test]
async fn wait_for_an_unknown_batch_ends_at_once() {
    let (around, key) = (Arc::new(Around::default()), head().key);
    let board = board(&around);
    assert_eq!(status(board.wait(&key, LONG).await), Err("unavailable"));
    set(&around.ledger, Some(None));
    assert_eq!(status(board.wait(&key, LONG).await), Ok(None));
}

#[tokio::test]
async fn drain_ends_the_wait_with_the_status_of_now() {
    let (around, key) = (Arc::new(Around::default()), head().key);
    let board = board(&around);
    set(&around.pending, Some(accepted()));
    let stopping = async { board.stop.cancel() };
    let (found, ()) = tokio::join!(board.wait(&key, LONG), stopping);
    assert_eq!(status(found), Ok(Some(BatchStatus::Accepted)));
}

#[test]
fn wrong_redis_url_is_refused_without_telling_it() {
    for url in ["localhost:6379", "http://:secret@host", "redis://:secret@host:port", "rediss://:secret@host"] {
        let error = config(&["--redis-url", url]).check().unwrap_err().to_string();
        assert!(error.starts_with("REDIS_URL ") && !error.contains("secret"), "{error}");
    }
    for url in ["", "redis://localhost", "redis://user:secret@[::1]:6380/3"] {
        config(&["--redis-url", url]).check().unwrap();
    }
}
