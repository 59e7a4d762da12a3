//! The one task that keeps Redis: connects, writes, tells how Redis is, and tries again.
//!
//! Redis counts as up only while it takes writes: a write of our own each second proves it, so a replica that was
//! demoted or is full is told as down also when no batch comes. Any failure drops the connection, since the address may
//! lead elsewhere by now.

use std::{sync::Arc, time::Duration};

use ::redis::{AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Link, Names, Signs,
    outbox::{Note, Outbox},
    value,
};
use crate::health::CheckStatus;

/// How long Redis may take to connect and to answer a write. Nobody waits for it but this task.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Between two proofs that Redis takes writes.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// First and longest pause before the next try.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A connection that held this long starts the pauses anew.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Notes that are written at once.
const NOTES_AT_ONCE: usize = 256;
/// How long a status that is not final is kept: longer than a batch should ever wait.
const PENDING_TTL: Duration = Duration::from_secs(7 * 86_400);

/// Keeps the connection and writes what the outbox holds.
pub(super) struct Keeper {
    client: Client,
    names: Names,
    final_ttl: Duration,
    outbox: Arc<Outbox>,
    link: watch::Sender<Link>,
    signs: Signs,
}

/// Why Redis can't be used.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("no answer in time")]
    TooSlow,
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl Keeper {
    pub(super) fn new(
        client: Client,
        names: Names,
        final_ttl: Duration,
        outbox: Arc<Outbox>,
        link: watch::Sender<Link>,
        signs: Signs,
    ) -> Self {
        signs.show(CheckStatus::Down, Some("not reached yet".into()));
        Self { client, names, final_ttl, outbox, link, signs }
    }

    /// Runs until it is told to stop; then writes what is left, for a moment.
    pub(super) async fn run(self, stop: CancellationToken) {
        let (mut backoff, longest) = BACKOFF;
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let ended = tokio::select! {
                connected = self.connect() => match connected {
                    Ok(connection) => {
                        self.tell(Link::Up(connection.clone()), None);
                        self.serve(connection, &stop).await
                    }
                    Err(trouble) => Err(trouble),
                },
                () = stop.cancelled() => return,
            };
            let Err(trouble) = ended else { return };
            self.tell(trouble.link(), Some(&trouble));
            if begun.elapsed() > STEADY_AFTER {
                backoff = BACKOFF.0;
            }
            // Jitter: the other replicas lost their connection in the same moment.
            let pause = backoff.mul_f64(rand::random_range(0.5..=1.0));
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            backoff = (backoff * 2).min(longest);
        }
    }

    /// Returns a connection to a Redis that takes writes.
    async fn connect(&self) -> Result<MultiplexedConnection, Trouble> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_LIMIT))
            // Each call has a limit of its own.
            .set_response_timeout(None);
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = timeout(ANSWER_LIMIT, connecting).await.map_err(|_| Trouble::TooSlow)??;
        self.beat(&mut connection).await?;
        Ok(connection)
    }

    /// Writes what comes, until Redis fails or the task is told to stop.
    async fn serve(&self, mut connection: MultiplexedConnection, stop: &CancellationToken) -> Result<(), Trouble> {
        let mut next_beat = Instant::now() + BEAT_INTERVAL;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    // What a drain settled last. Whoever asks for the rest is told by the ledger.
                    let _ = timeout(ANSWER_LIMIT, self.write_all(&mut connection)).await;
                    return Ok(());
                }
                () = sleep_until(next_beat) => {
                    self.beat(&mut connection).await?;
                    next_beat = Instant::now() + BEAT_INTERVAL;
                }
                () = self.outbox.filled() => {
                    self.write_some(&mut connection).await?;
                }
            }
        }
    }

    /// Proves that Redis takes writes.
    async fn beat(&self, connection: &mut MultiplexedConnection) -> Result<(), Trouble> {
        let mut set = ::redis::cmd("SET");
        set.arg(format!("{}instance:{}", self.names.key_prefix, self.names.instance));
        set.arg(env!("CARGO_PKG_VERSION")).arg("EX").arg(60);
        timeout(ANSWER_LIMIT, set.exec_async(connection)).await.map_err(|_| Trouble::TooSlow)??;
        Ok(())
    }

    async fn write_all(&self, connection: &mut MultiplexedConnection) -> Result<(), Trouble> {
        while self.write_some(connection).await? {}
        Ok(())
    }

    /// Writes the oldest notes; returns whether there were any. What is not written stays in the outbox.
    async fn write_some(&self, connection: &mut MultiplexedConnection) -> Result<bool, Trouble> {
        let notes = self.outbox.take(NOTES_AT_ONCE);
        if notes.is_empty() {
            return Ok(false);
        }
        let written = self.write(connection, &notes).await;
        if written.is_err() {
            self.outbox.put_back(notes);
        }
        written.map(|()| true)
    }

    async fn write(&self, connection: &mut MultiplexedConnection, notes: &[Note]) -> Result<(), Trouble> {
        let mut pipeline = ::redis::pipe();
        for note in notes {
            let set = pipeline.cmd("SET").arg(value::key(&self.names.key_prefix, &note.key));
            set.arg(value::encode(&note.known, &self.names.instance));
            // Twice the same changes nothing, so a write whose answer was lost is simply sent again.
            match note.known.report.status.is_final() {
                true => set.arg("EX").arg(self.final_ttl.as_secs()),
                false => set.arg("NX").arg("EX").arg(PENDING_TTL.as_secs()),
            };
            set.ignore();
        }
        timeout(ANSWER_LIMIT, pipeline.exec_async(connection)).await.map_err(|_| Trouble::TooSlow)??;
        Ok(())
    }

    /// Tells how Redis is: to readers at each change, in the log once for each state.
    fn tell(&self, link: Link, trouble: Option<&Trouble>) {
        let changed = !self.link.borrow().is_same_state(&link);
        match &link {
            Link::Up(_) | Link::Unknown => self.signs.show(CheckStatus::Up, None),
            Link::Unreachable => self.signs.show(CheckStatus::Down, Some("it does not answer".into())),
            Link::Refuses(code) => self.signs.show(CheckStatus::Down, Some(format!("it refuses writes ({code})"))),
        }
        match trouble {
            Some(trouble) if changed => tracing::warn!(
                error = %trouble,
                "redis can't be used; statuses come from this replica and the ledger until it can",
            ),
            None if changed => tracing::info!("redis can be used"),
            _ => {}
        }
        self.link.send_replace(link);
    }
}

impl Trouble {
    fn link(&self) -> Link {
        match self {
            Self::Redis(error) if !error.is_io_error() => {
                Link::Refuses(error.code().unwrap_or("no error code").to_owned())
            }
            Self::Redis(_) | Self::TooSlow => Link::Unreachable,
        }
    }
}

impl Link {
    fn is_same_state(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Refuses(code), Self::Refuses(other)) => code == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Signs {
    fn show(&self, status: CheckStatus, detail: Option<String>) {
        self.metrics.redis_up.set(i64::from(status == CheckStatus::Up));
        self.health.set_redis(status, detail);
    }
}
