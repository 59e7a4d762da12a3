//! Puts the parts together, runs them until a signal comes or a part dies, then drains.
//!
//! Startup never waits for a server: the ports open once the journal is open, and batches are taken with PostgreSQL and
//! Redis away.

mod drain;
mod upkeep;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::{
    config::ServeConfig,
    db::Database,
    exit::Outcome,
    flusher::{self, Flusher},
    health::{CheckStatus, Health},
    http::{self, Listeners},
    intake::Intake,
    metrics::Metrics,
    queue::{
        Queue,
        journal::{self, Journal},
    },
    settings::SettingError,
    shutdown::{Signals, Tasks},
    sinks::postgres::{PostgresSink, find_in_ledger},
    status::{LedgerUnavailable, StatusBoard},
    time::Clock,
};

/// Makes a text from the API's address.
pub type Banner = Box<dyn Fn(SocketAddr) -> String + Send + Sync>;

/// What `serve` and `dev` do differently.
pub struct Surroundings {
    /// Where both ports are bound unless `HOST` is set.
    pub default_host: IpAddr,
    /// What is said on standard output once the ports are open, from the API's address.
    pub banner: Option<Banner>,
}

/// A running process.
struct App {
    config: ServeConfig,
    clock: Clock,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    database: Database,
    queue: Arc<Queue>,
    intake: Arc<Intake>,
    flusher: Flusher,
    server: http::Server,
    /// All long tasks; told to stop last.
    tasks: Tasks,
}

/// Checks every setting that needs no server. Nothing is opened before.
///
/// # Errors
/// The first setting that is wrong.
pub fn check(config: &ServeConfig) -> Result<(), SettingError> {
    config.check()?;
    config.status.check()?;
    Database::new(&config.database, &config.instance).map(drop)
}

/// Runs every part until a signal comes or a part ends, then drains.
///
/// # Errors
/// A wrong setting, a journal or port that can't be opened, or a part that died.
pub async fn serve(config: ServeConfig, surroundings: &Surroundings) -> anyhow::Result<Outcome> {
    check(&config)?;
    let signals = Signals::listen().context("listen for signals")?;
    let app = App::start(config, surroundings).await?;
    app.run(signals).await
}

impl App {
    async fn start(config: ServeConfig, surroundings: &Surroundings) -> anyhow::Result<Self> {
        let clock = Clock::default();
        let metrics = Arc::new(Metrics::new());
        let tasks = Tasks::new(CancellationToken::new());
        let redis = if config.status.redis_url.is_some() { CheckStatus::Down } else { CheckStatus::Off };
        let health = Arc::new(Health::new(clock, redis));

        let database = Database::new(&config.database, &config.instance)?;
        let lanes = database.effective_lanes(config.flusher.flush_workers);

        let journal_died = tasks.clone();
        let (journal, replay) = Journal::open(journal::Options {
            dir: config.queue.journal_dir.clone(),
            max_bytes: config.queue.journal_max_mb.bytes(),
            codec: crate::batch::codec::CODEC_VERSION,
            metrics: metrics.journal.clone(),
            health: Arc::clone(&health),
            on_failed: Box::new(move || journal_died.report_failed("journal")),
        })
        .context("JOURNAL_DIR")?;
        let timeout = config.flusher.batch_timeout_seconds.0;
        let queue = Queue::new(journal, &config.queue, timeout, clock, Arc::clone(&health), &metrics);

        let status = Self::status_board(&config, &queue, &database, &health, &metrics, &tasks)?;
        let intake = Intake::new(
            &config.intake,
            config.partitions.partition_retention,
            Arc::clone(&queue),
            Arc::clone(&status),
            metrics.books.clone(),
            clock,
        );
        let sink = PostgresSink::new(
            database.clone(),
            &config.instance,
            config.flusher.copy_timeout_seconds.0,
            metrics.flush.clone(),
        );
        let parts = flusher::Parts {
            queue: Arc::clone(&queue),
            sink: Arc::new(sink),
            status: Arc::clone(&status),
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
            clock,
        };

        let listeners = Listeners::bind(&config.http, surroundings.default_host).await?;
        let (api, admin) = (listeners.api_addr()?, listeners.admin_addr()?);
        tracing::info!(api = %api, admin = %admin, "listening");
        tracing::warn!("the API is open: whoever reaches its port may send events");
        if let Some(banner) = &surroundings.banner {
            println!("{}", banner(api));
        }
        let flusher = Flusher::start(&config.flusher, lanes, config.queue.flush_memory(), parts, &tasks);
        let served = http::Parts {
            intake: Arc::clone(&intake),
            status,
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
        };
        let server = http::Server::start(listeners, &config.http, served, &tasks);

        let retention = Duration::from_secs(u64::from(config.status.ledger_retention_days) * 86_400);
        let (replayed, replay_old) = (Arc::clone(&queue), config.replay_old);
        let reading = tasks.clone();
        tasks.spawn_once("journal replay", async move {
            let read = tokio::task::spawn_blocking(move || replayed.replay(replay, retention, replay_old)).await;
            if read.is_err() {
                reading.report_failed("journal replay");
            }
        });
        let app = Self { config, clock, health, metrics, database, queue, intake, flusher, server, tasks };
        app.start_upkeep();
        Ok(app)
    }

    fn status_board(
        config: &ServeConfig,
        queue: &Arc<Queue>,
        database: &Database,
        health: &Arc<Health>,
        metrics: &Metrics,
        tasks: &Tasks,
    ) -> Result<Arc<StatusBoard>, SettingError> {
        let pending = Arc::clone(queue);
        let ledger = database.clone();
        let board = StatusBoard::new(
            &config.status,
            Box::new(move |key| pending.find(key)),
            Box::new(move |key| {
                let database = ledger.clone();
                Box::pin(async move {
                    let found = find_in_ledger(&database, &key).await;
                    found.map_err(|error| {
                        tracing::debug!(error = %error, "the ledger can't be asked");
                        LedgerUnavailable
                    })
                })
            }),
            &config.instance,
            Arc::clone(health),
            metrics.backend.clone(),
            tasks,
        )?;
        Ok(Arc::new(board))
    }

    async fn run(self, mut signals: Signals) -> anyhow::Result<Outcome> {
        let failed = tokio::select! {
            signal = signals.next() => {
                tracing::info!(signal, "told to stop; a second signal ends it at once");
                None
            }
            part = self.tasks.part_failed() => {
                tracing::error!(part, "a part of the process died, so all of it stops");
                Some(part)
            }
        };
        self.drain(failed, signals).await
    }
}
