//! On a real redis-server, which is stopped, frozen, emptied and filled.

mod server;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    batch::{BatchStatus, codec::tests::head},
    health::CheckStatus,
    metrics::Metrics,
    status::{LedgerUnavailable, StatusBoard},
    time::Clock,
};
use server::Server;

/// One replica's view of Redis.
struct Replica {
    redis: Redis,
    health: Arc<Health>,
    metrics: Metrics,
    tasks: Tasks,
}

impl Replica {
    fn start(server: &Server) -> Self {
        let tasks = Tasks::new(CancellationToken::new());
        let health = Arc::new(Health::new(Clock::default(), CheckStatus::Down));
        let metrics = Metrics::new();
        let signs = Signs { health: Arc::clone(&health), metrics: metrics.backend.clone() };
        let names = Names { key_prefix: "test:".into(), instance: "replica-1".into() };
        let redis = Redis::start(server.client(), names, Duration::from_secs(3600), signs, &tasks);
        Self { redis, health, metrics, tasks }
    }

    async fn until(&self, what: &str, is: impl FnMut(&Link) -> bool) {
        let mut link = self.redis.link.clone();
        let waited = timeout(Duration::from_secs(30), link.wait_for(is)).await;
        assert!(waited.is_ok(), "redis is never {what}, but {:?}", self.redis.link.borrow());
    }

    async fn until_up(&self) {
        self.until("up", |link| matches!(link, Link::Up(_))).await;
        assert_eq!((self.shown().0, self.metrics.backend.redis_up.get()), (CheckStatus::Up, 1));
    }

    async fn until_refused(&self, code: &str) {
        self.until(code, |link| matches!(link, Link::Refuses(why) if why == code)).await;
        let detail = format!("it refuses writes ({code})");
        assert_eq!((self.shown(), self.metrics.backend.redis_up.get()), ((CheckStatus::Down, Some(detail)), 0));
    }

    async fn until_unreachable(&self) {
        self.until("unreachable", |link| matches!(link, Link::Unreachable)).await;
        let detail = Some("it does not answer".to_owned());
        assert_eq!((self.shown(), self.metrics.backend.redis_up.get()), ((CheckStatus::Down, detail), 0));
    }

    fn shown(&self) -> (CheckStatus, Option<String>) {
        let check = self.health.report().checks.redis;
        (check.status, check.detail)
    }

    /// Looks with a limit that no test runs into, until the answer is as expected.
    async fn finds(&self, key: &BatchKey, status: BatchStatus) -> KnownBatch {
        let looked = timeout(Duration::from_secs(30), async {
            loop {
                match self.redis.find(key, Duration::from_secs(30)).await {
                    Some(known) if known.report.status == status => return known,
                    _ => tokio::task::yield_now().await,
                }
            }
        });
        looked.await.expect("the status gets there")
    }

    async fn end(self) {
        self.tasks.stop_token().cancel();
        self.tasks.ended().await;
    }
}

fn accepted(batch_id: &str) -> (BatchKey, KnownBatch) {
    let mut head = head();
    head.key.batch_id = batch_id.into();
    (head.key.clone(), KnownBatch::accepted(&head))
}

fn completed(known: &KnownBatch) -> KnownBatch {
    let mut known = known.clone();
    known.report.status = BatchStatus::Completed;
    known.report.committed = known.report.accepted;
    known
}

#[tokio::test]
async fn replica_learns_what_another_took_and_committed() {
    let server = Server::start().await;
    let (one, other) = (Replica::start(&server), Replica::start(&server));
    one.until_up().await;
    other.until_up().await;
    let (key, known) = accepted("orders-1");
    one.redis.note(&key, known.clone());
    assert_eq!(other.finds(&key, BatchStatus::Accepted).await, known);
    one.redis.note(&key, completed(&known));
    assert_eq!(other.finds(&key, BatchStatus::Completed).await, completed(&known));
    let ttl: i64 = server.command(&["TTL", "test:batch:shop/orders-1"]).await;
    assert!((1..=3600).contains(&ttl), "{ttl}");
    one.end().await;
    other.end().await;
}

#[tokio::test]
async fn replica_that_holds_a_copy_tells_what_another_committed() {
    let server = Server::start().await;
    let other = Replica::start(&server);
    other.until_up().await;
    let (key, known) = accepted("orders-9");
    let pending = known.clone();
    let url = format!("redis://127.0.0.1:{}/0", server.port);
    let config = crate::status::Config {
        redis_url: Some(url.into()),
        redis_url_file: None,
        redis_key_prefix: "test:".into(),
        status_ttl_seconds: 3600,
        ledger_retention_days: 30,
    };
    let board = StatusBoard::new(
        &config,
        Box::new(move |key| (key.batch_id == "orders-9").then(|| pending.clone())),
        Box::new(|_| Box::pin(std::future::ready(Err(LedgerUnavailable)))),
        "replica-2",
        Arc::clone(&other.health),
        other.metrics.backend.clone(),
        &other.tasks,
    )
    .unwrap();
    assert_eq!(board.find(&key).await.unwrap(), Some(known.clone()));
    other.redis.note(&key, completed(&known));
    let told = timeout(Duration::from_secs(30), async {
        // A look that was too slow for its 5 ms is made again a little later.
        while board.find(&key).await.unwrap() != Some(completed(&known)) {
            tokio::task::yield_now().await;
        }
    });
    assert!(told.await.is_ok());
    let mut reused = completed(&known);
    reused.content_hash = [9; 32];
    other.redis.note(&key, reused.clone());
    while other.finds(&key, BatchStatus::Completed).await != reused {}
    assert_eq!(board.find(&key).await.unwrap(), Some(known), "a batch with other content is another one");

    let mut unknown = head();
    unknown.key.batch_id = "orders-10".into();
    assert!(board.find(&unknown.key).await.is_err(), "nobody knows it, and the ledger can't be asked");
    other.redis.note(&unknown.key, KnownBatch::accepted(&unknown));
    other.finds(&unknown.key, BatchStatus::Accepted).await;
    assert_eq!(board.find(&unknown.key).await.unwrap(), Some(KnownBatch::accepted(&unknown)));
    other.end().await;
}

#[tokio::test]
async fn late_note_never_takes_a_status_back() {
    let server = Server::start().await;
    let replica = Replica::start(&server);
    replica.until_up().await;
    let (key, known) = accepted("orders-2");
    replica.redis.note(&key, completed(&known));
    replica.redis.note(&key, known);
    let (last, known) = accepted("orders-3");
    replica.redis.note(&last, known);
    replica.finds(&last, BatchStatus::Accepted).await; // So the note before it has been written too.
    replica.finds(&key, BatchStatus::Completed).await;
    let ttl: i64 = server.command(&["TTL", "test:batch:shop/orders-3"]).await;
    assert!((3601..=7 * 86_400).contains(&ttl), "{ttl}");
    replica.end().await;
}

#[tokio::test]
async fn redis_that_dies_and_returns_empty_is_used_again() {
    let mut server = Server::start().await;
    let replica = Replica::start(&server);
    replica.until_up().await;
    server.kill().await;
    replica.until_unreachable().await;
    let (key, known) = accepted("orders-4");
    assert_eq!(replica.redis.find(&key, Duration::from_secs(30)).await, None);
    replica.redis.note(&key, completed(&known));
    server.restart_empty().await;
    replica.until_up().await;
    replica.finds(&key, BatchStatus::Completed).await;
    replica.end().await;
}

#[tokio::test]
async fn frozen_redis_holds_nobody_up() {
    let server = Server::start().await;
    let replica = Replica::start(&server);
    replica.until_up().await;
    server.signal(rustix::process::Signal::STOP);
    let (key, known) = accepted("orders-5");
    // It would never answer: a look that waited for it would not return.
    assert_eq!(replica.redis.find(&key, QUICK_LIMIT).await, None);
    assert!(replica.redis.is_slow(Instant::now()), "the next quick looks are spared");
    assert!(!replica.redis.is_slow(Instant::now() + SLOW_PAUSE));
    assert_eq!(replica.redis.find(&key, Duration::from_millis(50)).await, None);
    for _ in 0..20_000 {
        replica.redis.note(&key, completed(&known));
    }
    replica.until_unreachable().await;
    server.signal(rustix::process::Signal::CONT);
    replica.until_up().await;
    replica.finds(&key, BatchStatus::Completed).await;
    replica.end().await;
}

#[tokio::test]
async fn redis_that_pauses_its_clients_is_told_as_down() {
    let server = Server::start().await;
    let replica = Replica::start(&server);
    replica.until_up().await;
    let () = server.command(&["CLIENT", "PAUSE", "600000", "WRITE"]).await;
    replica.until_unreachable().await;
    let () = server.command(&["CLIENT", "UNPAUSE"]).await;
    replica.until_up().await;
    replica.end().await;
}

#[tokio::test]
async fn read_only_redis_is_told_and_left() {
    let server = Server::start().await;
    let replica = Replica::start(&server);
    replica.until_up().await;
    let () = server.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let (key, known) = accepted("orders-6");
    replica.redis.note(&key, known.clone());
    replica.until_refused("READONLY").await;
    let () = server.command(&["REPLICAOF", "NO", "ONE"]).await;
    replica.until_up().await;
    replica.finds(&key, BatchStatus::Accepted).await;
    replica.end().await;
}

#[tokio::test]
async fn full_redis_is_told_and_left() {
    let server = Server::start().await;
    let replica = Replica::start(&server);
    replica.until_up().await;
    let () = server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let (key, known) = accepted("orders-7");
    replica.redis.note(&key, completed(&known));
    replica.until_refused("OOM").await;
    let () = server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    replica.until_up().await;
    replica.finds(&key, BatchStatus::Completed).await;
    replica.end().await;
}

#[tokio::test]
async fn emptied_redis_knows_nothing_and_works_on() {
    let server = Server::start().await;
    let replica = Replica::start(&server);
    replica.until_up().await;
    let (key, known) = accepted("orders-8");
    replica.redis.note(&key, known.clone());
    replica.finds(&key, BatchStatus::Accepted).await;
    let () = server.command(&["FLUSHALL"]).await;
    assert_eq!(replica.redis.find(&key, Duration::from_secs(30)).await, None);
    replica.redis.note(&key, completed(&known));
    replica.finds(&key, BatchStatus::Completed).await;
    replica.end().await;
}

#[tokio::test]
async fn what_was_noted_before_the_end_is_written() {
    let server = Server::start().await;
    let (replica, other) = (Replica::start(&server), Replica::start(&server));
    replica.until_up().await;
    other.until_up().await;
    let batches: Vec<_> = (0..1000).map(|number| accepted(&format!("orders-{number}"))).collect();
    batches.iter().for_each(|(key, known)| replica.redis.note(key, completed(known)));
    replica.end().await;
    for (key, _) in &batches {
        assert!(other.redis.find(key, Duration::from_secs(30)).await.is_some(), "{key:?}");
    }
    other.end().await;
}
