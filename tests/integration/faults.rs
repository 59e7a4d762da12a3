//! Two servers, one database, several producers, and faults of many kinds at random: what was acknowledged lands once.
//!
//! The producers know only what callers are told. One seed decides all of it; it is printed, and `FOREBAY_TEST_SEED`
//! repeats it. `FOREBAY_TEST_SECONDS` lengthens the run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{
    client::Request,
    command::forebay,
    database::Database,
    events::{batch_as, event_at, id, now, unique},
    eventually::until,
    month::Month,
    node::Node,
    proxy::{CommitFault, Mode, Proxy},
    redis::Redis,
    settings::Settings,
};

/// What the producers were told.
#[derive(Debug, Default)]
struct Told {
    /// Accepted events of acknowledged batches, by batch id.
    acknowledged: BTreeMap<String, Vec<String>>,
    /// Every event that was ever sent.
    sent: BTreeSet<String>,
    /// Answers that no good input should get.
    wrong: Vec<String>,
}

/// Where the servers are now.
type Addresses = Arc<Mutex<[String; 2]>>;

/// Returns a batch: events of two months, some again, some that the door refuses, some that the table does.
fn make_batch(random: &mut StdRng, again: &[Value]) -> Vec<Value> {
    let last_month = Month::from_now(-1).noon(15);
    (0..random.random_range(1..40))
        .map(|_| match random.random_range(0..100) {
            0 => json!({"event_id": unique("bad")}),
            1 => again.choose(random).cloned().unwrap_or_else(|| event_at(&now())),
            2 => {
                let mut poison = event_at(&now());
                poison["event_type"] = json!("poison");
                poison
            }
            3..30 => event_at(&last_month),
            _ => event_at(&now()),
        })
        .collect()
}

/// Sends batches until told to stop; each is repeated, at either server, until there is an answer.
async fn produce(mut random: StdRng, addresses: Addresses, told: Arc<Mutex<Told>>, until: Instant) {
    let mut again = Vec::new();
    while Instant::now() < until {
        let (batch_id, events) = (unique("batch"), make_batch(&mut random, &again));
        told.lock().unwrap().sent.extend(events.iter().map(id));
        again.extend(events.iter().filter(|event| event.get("payload").is_some()).take(1).cloned());
        let priority = format!("priority={}", random.random_range(0..=10));
        let request = Request::json(&batch_as(&batch_id, &events)).query(&priority);
        loop {
            let address = addresses.lock().unwrap()[random.random_range(0..2)].clone();
            let answer = request.try_send(&address).await;
            let retry = answer.as_ref().is_none_or(|answer| answer.status == 503);
            if let Some(answer) = answer.filter(|_| !retry) {
                note(&mut told.lock().unwrap(), &batch_id, &events, &answer);
                break;
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(5..50))).await;
        }
    }
}

fn note(told: &mut Told, batch_id: &str, events: &[Value], answer: &crate::harness::answer::Answer) {
    let body = answer.json();
    let rejected: BTreeSet<u64> =
        body["errors"].as_array().into_iter().flatten().map(|error| error["index"].as_u64().unwrap()).collect();
    let accepted = events.iter().enumerate().filter(|(index, _)| !rejected.contains(&(*index as u64)));
    let accepted: Vec<String> = accepted.map(|(_, event)| id(event)).collect();
    match answer.status {
        200 | 202 => drop(told.acknowledged.insert(batch_id.to_owned(), accepted)),
        422 if accepted.is_empty() => {}
        _ => told.wrong.push(answer.to_string()),
    }
}

/// One fault of a kind; returns once it is over.
async fn strike(
    kind: usize,
    random: &mut StdRng,
    nodes: &mut [Node; 2],
    addresses: &Addresses,
    proxy: &Proxy,
    redis: &mut Redis,
) -> &'static str {
    let which = random.random_range(0..2);
    let pause = Duration::from_millis(random.random_range(50..800));
    let database = Arc::clone(&nodes[0].database);
    match kind {
        0 | 1 => {
            if kind == 0 {
                nodes[which].kill();
            } else {
                assert_eq!(nodes[which].stop().await, 0);
            }
            nodes[which].restart_unready(|_| ()).await;
            addresses.lock().unwrap()[which] = nodes[which].api().to_owned();
            if kind == 0 { "kill" } else { "terminate" }
        }
        2 => {
            nodes[which].process().signal(Signal::STOP);
            tokio::time::sleep(pause).await;
            nodes[which].process().signal(Signal::CONT);
            "stop"
        }
        3 => {
            proxy.set(Mode::Reset);
            tokio::time::sleep(pause).await;
            proxy.set(Mode::Forward);
            "reset"
        }
        4 => {
            proxy.set(Mode::Silent);
            tokio::time::sleep(pause).await;
            proxy.set(Mode::Reset);
            tokio::time::sleep(Duration::from_millis(20)).await;
            proxy.set(Mode::Forward);
            "silence"
        }
        5 => {
            let fault = if random.random() { CommitFault::DropAnswer } else { CommitFault::DropCommit };
            let before = proxy.commits_struck();
            proxy.strike_commits(fault, 3);
            until("a COMMIT is struck", async || proxy.commits_struck() > before).await;
            "lost commit"
        }
        6 => {
            let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                          WHERE datname = current_database() AND application_name LIKE 'forebay%'";
            database.query(others).await;
            "terminated backends"
        }
        7 => {
            let lock = database.lock_leaf(Month::from_now(0)).await;
            tokio::time::sleep(pause).await;
            lock.release().await;
            "lock"
        }
        8 => {
            redis.kill();
            tokio::time::sleep(pause).await;
            redis.start_again().await;
            "redis killed"
        }
        _ => {
            let maintain = forebay(&["partitions", "maintain"]).env("DATABASE_URL", database.url());
            maintain.run().await.succeeded();
            "maintain"
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_under_faults_land_each_acknowledged_event_once() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = setting("FOREBAY_TEST_SEED").unwrap_or_else(|| rand::rng().random());
    println!("FOREBAY_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let end = Instant::now() + Duration::from_secs(setting("FOREBAY_TEST_SECONDS").unwrap_or(10));

    let database = Arc::new(Database::create().await);
    let refuse = "ALTER TABLE events ADD CONSTRAINT no_poison CHECK (event_type <> 'poison') NOT VALID";
    database.query(refuse).await;
    let proxy = Proxy::start(database.server_port()).await;
    let mut redis = Redis::start().await;
    let set = |settings: &mut Settings| {
        settings
            .set("DATABASE_URL", database.url_at(proxy.port()))
            .set("REDIS_URL", redis.url())
            .set("COPY_TIMEOUT_SECONDS", 5);
    };
    let mut nodes = [Node::on(&database, set).await, Node::on(&database, set).await];
    let addresses: Addresses = Arc::new(Mutex::new([nodes[0].api().to_owned(), nodes[1].api().to_owned()]));
    let told = Arc::new(Mutex::new(Told::default()));
    let mut producers = JoinSet::new();
    for _ in 0..4 {
        let random = StdRng::seed_from_u64(random.random());
        producers.spawn(produce(random, Arc::clone(&addresses), Arc::clone(&told), end));
    }
    let mut struck: BTreeMap<&str, u32> = BTreeMap::new();
    let mut kinds = (0..10).cycle();
    while Instant::now() < end {
        // Each kind comes at least once in a round; how long and whom it hits is random.
        let kind = kinds.next().unwrap();
        let name = strike(kind, &mut random, &mut nodes, &addresses, &proxy, &mut redis).await;
        *struck.entry(name).or_default() += 1;
    }
    while let Some(ended) = producers.join_next().await {
        ended.unwrap();
    }
    println!("{struck:?}");

    for node in &nodes {
        node.is_ready().await;
        node.is_idle().await;
        node.books_balance().await;
    }
    let told = Arc::try_unwrap(told).unwrap().into_inner().unwrap();
    println!("{} batches, {} events", told.acknowledged.len(), told.sent.len());
    assert_eq!(told.wrong, Vec::<String>::new());
    assert!(told.acknowledged.len() > 20, "too few batches to prove anything");
    let stored = database.event_ids().await;
    let distinct: BTreeSet<String> = stored.iter().cloned().collect();
    assert_eq!(stored.len(), distinct.len(), "an event is stored twice");
    let quarantined = database.texts("SELECT DISTINCT event_id FROM quarantine").await;
    let landed: BTreeSet<String> = distinct.iter().cloned().chain(quarantined).collect();
    let lost: Vec<_> = told.acknowledged.values().flatten().filter(|id| !landed.contains(*id)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(landed.is_subset(&told.sent), "events that nobody sent");
    let settled: BTreeSet<String> = database.texts("SELECT batch_id FROM batches").await.into_iter().collect();
    let open: Vec<_> = told.acknowledged.keys().filter(|id| !settled.contains(*id)).collect();
    assert!(open.is_empty(), "acknowledged and not in the ledger: {open:?}");
    for batch_id in told.acknowledged.keys().step_by(20) {
        nodes[0].is_final(batch_id).await;
    }
    forebay(&["verify"]).env("DATABASE_URL", database.url()).run().await.succeeded();
    drop(database);
    let [first, second] = nodes;
    second.finish().await;
    first.finish().await;
}
