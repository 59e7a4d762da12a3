//! The door in front of a real journal, without PostgreSQL.

use clap::Parser;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    health::{CheckStatus, Health},
    metrics::Metrics,
    queue::journal::{self, Journal},
    shutdown::Tasks,
};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    intake: Config,
    #[command(flatten)]
    queue: crate::queue::Config,
    #[command(flatten)]
    status: crate::status::Config,
}

struct Door {
    intake: Arc<Intake>,
    metrics: Metrics,
    queue: Arc<Queue>,
    _folder: tempfile::TempDir,
}

impl Door {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Cli::parse_from(["forebay"]);
        let (metrics, clock) = (Metrics::new(), Clock::default());
        let health = Arc::new(Health::new(clock, CheckStatus::Off));
        let (journal, replay) = Journal::open(journal::Options {
            dir: folder.path().to_owned(),
            max_bytes: 64 << 20,
            codec: crate::batch::codec::CODEC_VERSION,
            metrics: metrics.journal.clone(),
            health: Arc::clone(&health),
            on_failed: Box::new(|| panic!("the writer died")),
        })
        .unwrap();
        let timeout = Duration::from_secs(30);
        let queue = Queue::new(journal, &config.queue, timeout, clock, Arc::clone(&health), &metrics);
        queue.replay(replay, timeout, false);
        let pending = Arc::clone(&queue);
        let status = crate::status::StatusBoard::new(
            &config.status,
            Box::new(move |key| pending.find(key)),
            Box::new(|_| Box::pin(std::future::ready(Ok(None)))),
            "replica-1",
            health,
            metrics.backend.clone(),
            &Tasks::new(CancellationToken::new()),
        )
        .unwrap();
        let books = metrics.books.clone();
        let intake = Intake::new(&config.intake, None, Arc::clone(&queue), Arc::new(status), books, clock);
        Self { intake, metrics, queue, _folder: folder }
    }

    async fn send(&self, events: &str, atomic: bool) -> Result<Taken, TakeError> {
        let delivery = Delivery {
            source: Source::Http,
            caller: String::new(),
            admission_key: "127.0.0.1".into(),
            format: Format::Json,
            body: format!(r#"{{"events":[{events}]}}"#).into(),
            batch_ids: vec!["orders-17".into()],
            priority: None,
            atomic,
            traceparent: None,
        };
        self.intake.take(delivery).await
    }

    fn received(&self) -> u64 {
        self.metrics.books.events_received_total.get(Source::Http).get()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn event(id: &str) -> String {
    let now = Clock::default().now();
    format!(r#"{{"event_id":"{id}","service_name":"s","event_type":"t","payload":{{}},"timestamp":"{now}"}}"#)
}

#[tokio::test]
async fn repeat_is_known_though_its_events_would_be_refused_by_now() {
    let door = Door::open();
    let events = event("a");
    let first = door.send(&events, false).await.unwrap();
    let received = door.received();
    let after = Clock::default().now().month().plus(1);
    door.intake.set_pruned(Some(after), Vec::new());
    for atomic in [false, true] {
        let again = door.send(&events, atomic).await.unwrap();
        assert_eq!(again.known, first.known);
        let codes: Vec<_> = again.errors.iter().map(|error| error.code).collect();
        assert_eq!(codes, [RejectReason::TimestampTooOld]);
    }
    assert_eq!(door.received(), received, "no counter moves");
    let other = door.send(&event("b"), false).await;
    assert!(matches!(other, Err(TakeError::Refused(Refusal::InvalidBatch { .. }))));
    assert_eq!(door.received(), received + 1);
}
