//! What the replicas tell each other through Redis: one value a batch.
//!
//! A batch is written at most twice: when it is durable, unless it is there already, and when it is final, over
//! whatever is there. So what is read never goes backwards. Writes go through a bounded [`Outbox`] and one task
//! ([`keeper`]); nobody waits for them, and what does not fit is dropped: the ledger knows the batch in the end.
//!
//! Redis may be away, slow, stopped, emptied, read-only or full at any moment. Then reads know nothing, within their
//! limit, and the task tries again until Redis takes writes.

mod keeper;
mod outbox;
mod value;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::redis::{Client, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    batch::{BatchKey, KnownBatch},
    health::Health,
    metrics::BackendMetrics,
    shutdown::Tasks,
};
use outbox::{Note, Outbox};

/// How long quick looks are spared after one that Redis did not answer in time, so that a slow Redis costs a batch a
/// second its few milliseconds, and the others nothing.
const SLOW_PAUSE: Duration = Duration::from_secs(1);
/// Limits up to this one are quick looks.
const QUICK_LIMIT: Duration = Duration::from_millis(5);

/// How our keys and values name us.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// What each key starts with.
    pub(super) key_prefix: String,
    /// This replica.
    pub(super) instance: String,
}

/// Where it is shown how Redis is.
#[derive(Debug)]
pub(super) struct Signs {
    pub(super) health: Arc<Health>,
    pub(super) metrics: BackendMetrics,
}

/// How Redis is.
#[derive(Clone, Debug, Default)]
pub(super) enum Link {
    /// Not reached since the process started.
    #[default]
    Unknown,
    /// It takes writes.
    Up(MultiplexedConnection),
    /// It does not answer.
    Unreachable,
    /// It answers, and refuses writes with this error code of Redis.
    Refuses(String),
}

/// The status of batches in Redis.
#[derive(Debug)]
pub(super) struct Redis {
    names: Names,
    link: watch::Receiver<Link>,
    outbox: Arc<Outbox>,
    /// Until when quick looks are spared.
    slow_until: Mutex<Option<Instant>>,
}

impl Redis {
    /// Starts the task that connects and writes. Must not fail or wait: Redis may be away.
    pub(super) fn start(client: Client, names: Names, final_ttl: Duration, signs: Signs, tasks: &Tasks) -> Self {
        let outbox = Arc::new(Outbox::default());
        let (teller, link) = watch::channel(Link::default());
        let keeper = keeper::Keeper::new(client, names.clone(), final_ttl, Arc::clone(&outbox), teller, signs);
        tasks.spawn("redis", keeper.run(tasks.stop_token().clone()));
        Self { names, link, outbox, slow_until: Mutex::new(None) }
    }

    /// Hands in what a batch's status is now: accepted, or final. Never waits.
    pub(super) fn note(&self, key: &BatchKey, known: KnownBatch) {
        self.outbox.push(Note { key: key.clone(), known });
    }

    /// Returns what Redis knows of a batch; nothing when it does not answer within `limit`.
    pub(super) async fn find(&self, key: &BatchKey, limit: Duration) -> Option<KnownBatch> {
        let Link::Up(mut connection) = self.link.borrow().clone() else {
            return None;
        };
        let is_quick = limit <= QUICK_LIMIT;
        if is_quick && self.is_slow(Instant::now()) {
            return None;
        }
        let mut get = ::redis::cmd("GET");
        get.arg(value::key(&self.names.key_prefix, key));
        match timeout(limit, get.query_async::<Option<Vec<u8>>>(&mut connection)).await {
            Ok(Ok(found)) => value::decode(&found?, key),
            // The task sees it too, and tells.
            Ok(Err(_)) => None,
            Err(_) => {
                if is_quick {
                    *self.slow_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + SLOW_PAUSE);
                }
                None
            }
        }
    }

    fn is_slow(&self, now: Instant) -> bool {
        let until = *self.slow_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests;
