//! What became of a batch: this replica's queue and memory, Redis, the ledger.
//!
//! The ledger is the truth. Before a batch is in it, the replica that took the batch knows it, and the others learn of
//! it through Redis. A status must never go backwards: once a batch was told to be final, it stays so. Redis is never
//! waited for on the way of a batch, and a look into it has a limit of its own; without it nothing is missing but what
//! other replicas have not committed yet.

mod memory;
mod redis;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{BatchHead, BatchKey, KnownBatch},
    health::{CheckStatus, Health},
    metrics::BackendMetrics,
    settings::{SettingError, secret},
    shutdown::Tasks,
};
use memory::Memory;
use redis::Redis;

/// How long a caller who asks for a status waits for Redis.
const FIND_LIMIT: Duration = Duration::from_millis(200);
/// How long a batch that may be a repeat waits for Redis. Past it the ledger finds the repeat when it is written.
const REPEAT_LIMIT: Duration = Duration::from_millis(5);
/// How long a caller who asks for a status waits for the ledger, whatever the look-up's own limits are.
const LEDGER_LIMIT: Duration = Duration::from_secs(5);
/// Pause before the first and between the later looks for a batch that another replica writes.
const POLL_INTERVALS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// Settings of the status.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Status, Redis, ledger")]
#[group(skip)]
pub struct Config {
    /// Where Redis is: `redis://[user:password@]host[:port][/database]`. Without it, statuses come from this replica's memory and the ledger.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<SecretString>,

    /// File that holds `REDIS_URL`.
    #[arg(long, env = "REDIS_URL_FILE")]
    pub redis_url_file: Option<PathBuf>,

    /// What each key in Redis starts with.
    #[arg(long, env = "REDIS_KEY_PREFIX", default_value = "forebay:")]
    pub redis_key_prefix: String,

    /// Seconds that Redis keeps the status of a batch that is final.
    #[arg(long, env = "STATUS_TTL_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub status_ttl_seconds: u64,

    /// Days that the ledger (table batches) knows a batch. Sent again later, its events are still known by their own key.
    #[arg(long, env = "LEDGER_RETENTION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub ledger_retention_days: u32,
}

impl Config {
    /// Checks the settings, before a port opens.
    ///
    /// # Errors
    /// `REDIS_URL` is no address of a Redis, or its file can't be read.
    pub fn check(&self) -> Result<(), SettingError> {
        self.redis_client().map(drop)
    }

    /// Returns what connects to Redis, where one is configured. An empty `REDIS_URL` is none.
    fn redis_client(&self) -> Result<Option<::redis::Client>, SettingError> {
        let url = secret("REDIS_URL", self.redis_url.as_ref(), self.redis_url_file.as_ref())?;
        let Some(url) = url.filter(|url| !url.expose_secret().is_empty()) else {
            return Ok(None);
        };
        let opened = ::redis::Client::open(url.expose_secret());
        // The cause may hold the address, and with it the password: it stays out of the line.
        opened.map(Some).map_err(|_| {
            SettingError("REDIS_URL is not of the form redis://[user:password@]host[:port][/database]".into())
        })
    }
}

/// The ledger can't be asked, and nobody else knows the batch.
#[derive(Debug, thiserror::Error)]
#[error("the ledger can't be asked now")]
pub struct LedgerUnavailable;

/// Looks into this replica's queue. Must not wait.
pub type FindPending = Box<dyn Fn(&BatchKey) -> Option<KnownBatch> + Send + Sync>;

/// Looks into the ledger: a batch that is there is final. Bounds its own waiting.
pub type FindInLedger =
    Box<dyn Fn(BatchKey) -> BoxFuture<'static, Result<Option<KnownBatch>, LedgerUnavailable>> + Send + Sync>;

/// Tells what became of a batch.
pub struct StatusBoard {
    find_pending: FindPending,
    find_in_ledger: FindInLedger,
    /// What became final here, and who waits for it.
    memory: Arc<Memory>,
    /// What all replicas know, where Redis is configured.
    redis: Option<Redis>,
    /// Ends every wait: a drain answers with the status of now.
    stop: CancellationToken,
}

impl fmt::Debug for StatusBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusBoard").field("redis", &self.redis.is_some()).finish_non_exhaustive()
    }
}

impl StatusBoard {
    /// Returns a board that asks the queue and the ledger by these look-ups, and starts the task that keeps Redis.
    ///
    /// # Errors
    /// As [`Config::check`].
    pub fn new(
        config: &Config,
        find_pending: FindPending,
        find_in_ledger: FindInLedger,
        instance: &str,
        health: Arc<Health>,
        metrics: BackendMetrics,
        tasks: &Tasks,
    ) -> Result<Self, SettingError> {
        let ttl = Duration::from_secs(config.status_ttl_seconds);
        let redis = match config.redis_client()? {
            Some(client) => {
                let names = redis::Names { key_prefix: config.redis_key_prefix.clone(), instance: instance.to_owned() };
                Some(Redis::start(client, names, ttl, redis::Signs { health, metrics }, tasks))
            }
            None => {
                health.set_redis(CheckStatus::Off, None);
                None
            }
        };
        Ok(Self {
            find_pending,
            find_in_ledger,
            memory: Arc::new(Memory::new(ttl)),
            redis,
            stop: tasks.stop_token().clone(),
        })
    }

    /// Returns a batch's status of now: from this replica's queue and memory, Redis, the ledger.
    ///
    /// # Errors
    /// [`LedgerUnavailable`] when only the ledger could know, and it can't be asked.
    pub async fn find(&self, key: &BatchKey) -> Result<Option<KnownBatch>, LedgerUnavailable> {
        if let Some(here) = self.find_here(key) {
            if here.report.status.is_final() {
                return Ok(Some(here));
            }
            // Another replica may hold a copy of the batch and have committed it: who was told so there must not be
            // told less here.
            let shared = self.find_in_redis(key, REPEAT_LIMIT).await;
            // A batch with other content that bears the same id is another one.
            let is_copy = |known: &KnownBatch| known.content_hash == here.content_hash;
            let settled = shared.filter(|known| known.report.status.is_final() && is_copy(known));
            return Ok(Some(settled.unwrap_or(here)));
        }
        let shared = self.find_in_redis(key, FIND_LIMIT).await;
        if shared.as_ref().is_some_and(|known| known.report.status.is_final()) {
            return Ok(shared);
        }
        let recorded = timeout(LEDGER_LIMIT, (self.find_in_ledger)(key.clone())).await;
        match recorded.unwrap_or(Err(LedgerUnavailable)) {
            Ok(Some(recorded)) => Ok(Some(recorded)),
            Ok(None) => Ok(shared),
            Err(LedgerUnavailable) if shared.is_some() => Ok(shared),
            Err(LedgerUnavailable) => Err(LedgerUnavailable),
        }
    }

    /// Returns what this replica knows of a batch at once: queue, memory, and Redis if it answers within 5 ms.
    pub async fn find_repeat(&self, key: &BatchKey) -> Option<KnownBatch> {
        match self.find_here(key) {
            Some(here) => Some(here),
            None => self.find_in_redis(key, REPEAT_LIMIT).await,
        }
    }

    /// Waits until a batch is final, at most `limit`; returns its status then, as [`StatusBoard::find`] does.
    ///
    /// A batch that nobody knows, and the beginning of a drain, end the wait at once. Nothing is held meanwhile: no
    /// lane, and no connection but for the moment of a look.
    ///
    /// # Errors
    /// As [`StatusBoard::find`].
    pub async fn wait(&self, key: &BatchKey, limit: Duration) -> Result<Option<KnownBatch>, LedgerUnavailable> {
        let deadline = Instant::now() + limit;
        // Registered before the first look, so that what becomes final between the two is not missed.
        let mut waiter = self.memory.register(key);
        let Some(mut known) = self.find(key).await? else {
            return Ok(None);
        };
        let (mut interval, longest) = POLL_INTERVALS;
        while !known.report.status.is_final() && Instant::now() < deadline {
            // A batch that waits here wakes us; one that another replica writes must be asked for.
            let is_here = (self.find_pending)(key).is_some();
            let until = if is_here { deadline } else { deadline.min(Instant::now() + interval) };
            tokio::select! {
                woken = waiter.woken() => return Ok(Some(woken)),
                () = self.stop.cancelled() => break,
                () = sleep_until(until) => {}
            }
            if let Ok(Ok(Some(found))) = timeout_at(deadline, self.find(key)).await
                && found.report.status >= known.report.status
            {
                known = found;
            }
            interval = (interval * 3 / 2).min(longest);
        }
        Ok(Some(self.find_here(key).filter(|here| here.report.status >= known.report.status).unwrap_or(known)))
    }

    /// Notes that a batch is durable, for the other replicas. Never waits.
    ///
    /// Must be called only after its fdatasync: a repeat that finds the note, on any replica, is acknowledged by it.
    pub fn note_accepted(&self, head: &BatchHead) {
        if let Some(redis) = &self.redis {
            redis.note(&head.key, KnownBatch::accepted(head));
        }
    }

    /// Notes that a batch is final, and wakes who waits for it. Never waits.
    ///
    /// Must be called before the batch leaves the queue, so that at each moment one of the two knows it.
    pub fn note_final(&self, key: &BatchKey, known: &KnownBatch) {
        self.memory.note_final(key, known, Instant::now());
        if let Some(redis) = &self.redis {
            redis.note(key, known.clone());
        }
    }

    /// Notes that a batch is final whose id the ledger gave to another one, and wakes who waits for it. The other replicas
    /// go on telling what became of that other one.
    ///
    /// Must be called before the batch leaves the queue.
    pub fn note_final_here(&self, key: &BatchKey, known: &KnownBatch) {
        self.memory.note_final(key, known, Instant::now());
    }

    /// Looks into the queue, then into memory: a batch goes from the one to the other. What is final wins.
    fn find_here(&self, key: &BatchKey) -> Option<KnownBatch> {
        let pending = (self.find_pending)(key);
        self.memory.find(key, Instant::now()).or(pending)
    }

    async fn find_in_redis(&self, key: &BatchKey, limit: Duration) -> Option<KnownBatch> {
        self.redis.as_ref()?.find(key, limit).await
    }
}

#[cfg(test)]
mod tests;
