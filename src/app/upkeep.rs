//! What is done from time to time: looking at PostgreSQL, looking after the leaves, bringing gauges up to date.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::App;
use crate::{
    db::{
        self, Database,
        migrate::migrate,
        schema::{SchemaState, check_schema},
    },
    flusher::Flusher,
    health::{CheckStatus, Health},
    intake::Intake,
    metrics::BackendMetrics,
    partitions,
    time::Clock,
};

/// Pause between two looks at PostgreSQL.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// What one look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// What making the leaves ahead may take: each waits for locks, several times.
const MAKE_LIMIT: Duration = Duration::from_secs(300);
/// Pause between two rounds over the leaves, unless one failed.
const LEAVES_INTERVAL: Duration = Duration::from_secs(3600);
/// Pause between two looks at what was pruned.
const PRUNED_INTERVAL: Duration = Duration::from_secs(10);
/// Pause between two samples of the gauges.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Samples between two values of the busy ratio.
const BUSY_SAMPLES: u32 = 5;
/// A file of this name in the journal's folder says that this replica has seen usable tables and rights, so that a
/// restart during an outage of PostgreSQL is ready.
const SCHEMA_SEEN: &str = "schema-seen";

impl App {
    pub(super) fn start_upkeep(&self) {
        let seen = self.config.queue.journal_dir.join(SCHEMA_SEEN);
        if seen.exists() {
            self.health.schema_seen.store(true, Relaxed);
        }
        let look = Look {
            database: self.database.clone(),
            health: Arc::clone(&self.health),
            flusher: self.flusher.clone(),
            must_migrate: self.config.migrate,
            seen,
        };
        self.tasks.spawn_endless("database watch", look.run());
        let warm = self.database.clone();
        self.tasks.spawn_once("connections", async move { warm.warm().await });
        let leaves = Leaves {
            database: self.database.clone(),
            ahead: self.config.partitions.partitions_ahead,
            clock: self.clock,
            health: Arc::clone(&self.health),
            intake: Arc::clone(&self.intake),
            metrics: self.metrics.backend.clone(),
        };
        self.tasks.spawn_endless("partitions", leaves.run());
        let (queue, flusher, database) = (Arc::clone(&self.queue), self.flusher.clone(), self.database.clone());
        let backend = self.metrics.backend.clone();
        self.tasks.spawn_endless("samples", async move {
            for round in 0u32.. {
                queue.sample();
                database.report(&backend);
                if round.is_multiple_of(BUSY_SAMPLES) {
                    flusher.sample();
                }
                tokio::time::sleep(SAMPLE_INTERVAL).await;
            }
        });
    }
}

/// Looks at PostgreSQL from time to time: does it answer, are tables and rights usable?
struct Look {
    database: Database,
    health: Arc<Health>,
    flusher: Flusher,
    must_migrate: bool,
    seen: PathBuf,
}

impl Look {
    async fn run(mut self) {
        loop {
            self.look().await;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn look(&mut self) {
        if self.must_migrate {
            match migrate(&self.database).await {
                Ok(_) => self.must_migrate = false,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "can't migrate yet");
                    self.health.set_database(CheckStatus::Down, Some("can't be migrated yet; see the log".into()));
                    return;
                }
            }
        }
        // A server that took the question and never answers must not blind this replica to one that does.
        let looked = tokio::time::timeout(LOOK_LIMIT, check_schema(&self.database)).await;
        match looked.unwrap_or(Err(db::Error::Deadline)) {
            Ok(SchemaState::Usable { advice }) => {
                self.note_seen();
                match self.flusher.trouble() {
                    Some(trouble) => self.health.set_database(CheckStatus::Down, Some(trouble)),
                    None => self.health.set_database(CheckStatus::Up, advice),
                }
            }
            Ok(SchemaState::Unusable { advice }) => self.health.set_database(CheckStatus::Down, Some(advice)),
            Err(error) => {
                tracing::debug!(error = %error, "postgres does not answer");
                self.health.set_database(CheckStatus::Down, Some("does not answer".into()));
            }
        }
    }

    fn note_seen(&self) {
        if !self.health.schema_seen.swap(true, Relaxed) {
            tracing::info!("tables and rights are usable");
            write_seen(&self.seen);
        }
    }
}

fn write_seen(path: &Path) {
    if let Err(error) = std::fs::write(path, b"") {
        tracing::warn!(error = %error, "can't note that the tables were seen, so a restart has to see them again");
    }
}

/// Looks after the leaves: those ahead are made, and the door learns what was pruned.
struct Leaves {
    database: Database,
    ahead: u32,
    clock: Clock,
    health: Arc<Health>,
    intake: Arc<Intake>,
    metrics: BackendMetrics,
}

impl Leaves {
    async fn run(self) {
        let mut next_round = tokio::time::Instant::now();
        loop {
            if self.health.schema_seen.load(Relaxed) {
                if tokio::time::Instant::now() >= next_round && self.make_ahead().await {
                    next_round = tokio::time::Instant::now() + LEAVES_INTERVAL;
                }
                self.look().await;
                tokio::time::sleep(PRUNED_INTERVAL).await;
            } else {
                tokio::time::sleep(SAMPLE_INTERVAL).await;
            }
        }
    }

    /// Makes the leaves ahead; pruning is left to the command.
    async fn make_ahead(&self) -> bool {
        let making = partitions::make_ahead(&self.database, self.clock.now(), self.ahead);
        let made = tokio::time::timeout(MAKE_LIMIT, making).await;
        match made.unwrap_or(Err(db::Error::Deadline.into())) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "can't make the leaves ahead, so it is tried again");
                false
            }
        }
    }

    async fn look(&self) {
        let looked = tokio::time::timeout(LOOK_LIMIT, partitions::facts(&self.database, self.clock.now())).await;
        match looked.unwrap_or(Err(db::Error::Deadline)) {
            Ok(facts) => {
                self.intake.set_pruned(facts.pruned_before, facts.remade);
                self.metrics.partitions_ahead.set(facts.ahead.into());
                let success = facts.last_success.map_or(0.0, |moment| moment.as_micros() as f64 / 1e6);
                self.metrics.partition_maintenance_last_success_timestamp_seconds.set(success);
            }
            Err(error) => tracing::debug!(error = %error, "can't look at the leaves"),
        }
    }
}
