//! A batch's status goes accepted → processing → completed or failed, never backwards, and every replica knows it.

use serde_json::{Value, json};

use crate::harness::{
    client::Request,
    events::{batch_as, events, unique},
    eventually::{eventually, until},
    month::Month,
    node::Node,
    redis::Redis,
    settings::Settings,
};

fn settings_with(redis: Option<&Redis>, settings: &mut Settings) {
    settings.set("FLUSH_WORKERS", 1);
    if let Some(redis) = redis {
        settings.set("REDIS_URL", redis.url());
    }
}

async fn goes_through_its_states(redis: Option<Redis>) {
    let node = Node::start(|settings| settings_with(redis.as_ref(), settings)).await;
    let lock = node.database.lock_leaf(Month::from_now(0)).await;
    node.accept(Request::json(&batch_as("first", &events(1)))).await;
    lock.is_waited_for().await;
    // The lock may be waited for by another session too: only now is the one lane surely busy.
    let first = node.is_in_state("first", "processing").await;
    let mut sent = events(2);
    sent.push(json!({}));
    node.send(Request::json(&batch_as("second", &sent)).query("priority=2")).await.is(202);

    let second = node.status("second").await;

    assert!(first["attempts"].as_u64().unwrap() >= 1, "{first}");
    assert_eq!((&second["status"], &second["attempts"]), (&json!("accepted"), &json!(0)));
    assert_eq!((&second["received"], &second["accepted"], &second["rejected"]), (&json!(3), &json!(2), &json!(1)));
    assert_eq!((&second["committed"], second.get("completed_at")), (&json!(0), None));
    lock.release().await;
    let done = node.is_final("second").await;
    assert_eq!((&done["status"], &done["committed"], &done["priority"]), (&json!("completed"), &json!(2), &json!(2)));
    assert_eq!((&done["rejected"], done["attempts"].as_u64().unwrap() >= 1), (&json!(1), true));
    let moment = |name: &str| done[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(moment("completed_at") >= moment("accepted_at"));
    assert_eq!(done["accepted_at"], second["accepted_at"]);
    node.finish().await;
}

#[tokio::test]
async fn status_goes_through_its_states_without_redis() {
    goes_through_its_states(None).await;
}

#[tokio::test]
async fn status_goes_through_its_states_with_redis() {
    goes_through_its_states(Some(Redis::start().await)).await;
}

#[tokio::test]
async fn another_replica_knows_a_batch_in_hand_through_redis() {
    let redis = Redis::start().await;
    let first = Node::start(|settings| settings_with(Some(&redis), settings)).await;
    let second = Node::on(&first.database, |settings| settings_with(Some(&redis), settings)).await;
    let lock = first.database.lock_leaf(Month::from_now(0)).await;
    first.accept(Request::json(&batch_as("orders-17", &events(2)))).await;
    lock.is_waited_for().await;

    let seen = eventually("the other replica knows it", async || {
        let answer = second.send(Request::status("orders-17")).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;

    assert!(["accepted", "processing"].contains(&seen["status"].as_str().unwrap()), "{seen}");
    assert_eq!((&seen["received"], &seen["accepted"]), (&json!(2), &json!(2)));
    let waiting = Request::status("orders-17").wait(50);
    let (waited, ()) = tokio::join!(second.send(waiting), lock.release());
    assert_eq!(waited.is(200)["status"], "completed");
    assert_eq!(waited.must_have("preference-applied"), "wait=50");
    second.finish().await;
    first.finish().await;
}

#[tokio::test]
async fn another_replica_knows_a_batch_by_the_ledger_without_redis() {
    let first = Node::start(|_| ()).await;
    let second = Node::on(&first.database, |_| ()).await;
    let lock = first.database.lock_leaf(Month::from_now(0)).await;
    let receipt = first.ingest(&events(2)).await;
    let id = receipt["batch_id"].as_str().unwrap();

    let unknown = second.send(Request::status(id)).await;
    unknown.is_problem(404, "unknown_batch");
    assert_eq!(unknown.must_have("retry-after"), "1");

    lock.is_waited_for().await;
    lock.release().await;
    first.is_final(id).await;
    assert_eq!(second.status(id).await["committed"], 2);
    second.finish().await;
    first.finish().await;
}

#[tokio::test]
async fn final_status_survives_the_process() {
    let mut node = Node::start(|_| ()).await;
    node.is_committed(&node.accept(Request::json(&batch_as("orders-17", &events(2))).query("priority=5")).await).await;
    let before = node.status("orders-17").await;
    assert_eq!(node.stop().await, 0);
    node.restart(|_| ()).await;
    let mut after = node.status("orders-17").await;
    // What the ledger can't hold to the last digit is not compared.
    for name in ["accepted_at", "completed_at"] {
        after[name] = before[name].clone();
    }
    assert_eq!(after, before);
    node.finish().await;
}

#[tokio::test]
async fn redis_holds_one_value_a_batch_with_a_time_to_live() {
    let redis = Redis::start().await;
    let prefix = "staging:";
    let node = Node::start(|settings| {
        settings_with(Some(&redis), settings);
        settings.set("REDIS_KEY_PREFIX", prefix).set("STATUS_TTL_SECONDS", 1000);
    })
    .await;
    let lock = node.database.lock_leaf(Month::from_now(0)).await;
    let id = unique("orders");
    node.accept(Request::json(&batch_as(&id, &events(2)))).await;
    lock.is_waited_for().await;
    let key = eventually("Redis knows it", async || redis.keys(&format!("{prefix}*{id}*")).await.pop()).await;
    let (_, seconds) = redis.value(&key).await;
    assert!((1001..=7 * 86_400).contains(&seconds), "{seconds}");
    lock.release().await;
    node.is_final(&id).await;
    until("Redis has the final value", async || {
        let (value, seconds) = redis.value(&key).await;
        value.contains("completed") && (1..=1000).contains(&seconds)
    })
    .await;
    assert_eq!(redis.keys(&format!("*{id}*")).await, [key]);
    assert!(redis.keys("*").await.iter().all(|key| key.starts_with(prefix)));
    node.finish().await;
}

#[tokio::test]
async fn ingest_and_status_work_while_redis_is_away() {
    let mut redis = Redis::start().await;
    let node = Node::start(|settings| settings_with(Some(&redis), settings)).await;
    until("redis is up", async || node.metrics().await.get("forebay_redis_up") == 1.0).await;
    assert_eq!(node.health().await.is(200)["checks"]["redis"]["status"], "up");

    redis.kill();
    let killed = node.accept(Request::json(&batch_as("killed", &events(2)))).await;
    node.is_committed(&killed).await;
    until("health tells it", async || {
        let health = node.health().await.is(200);
        health["status"] == "degraded" && health["checks"]["redis"]["status"] == "down"
    })
    .await;
    assert_eq!(node.probe("/readyz").await, Some(200));
    assert_eq!(node.metrics().await.get("forebay_redis_up"), 0.0);

    redis.start_again().await;
    until("redis is up again", async || node.health().await.is(200)["status"] == "healthy").await;

    redis.pause();
    let frozen = node.accept(Request::json(&batch_as("frozen", &events(2)))).await;
    node.is_committed(&frozen).await;
    node.send(Request::status("never-sent")).await.is_problem(404, "unknown_batch");
    redis.resume();
    redis.flush_all().await;
    assert_eq!(node.status("frozen").await["status"], "completed");
    node.finish().await;
}

#[tokio::test]
async fn waiting_for_an_unknown_batch_ends_in_404_and_leaves_its_id_free() {
    let node = Node::start(|_| ()).await;
    let wait = Request::status("orders-17").wait(1);
    let answer = node.send(wait).await;
    answer.is_problem(404, "unknown_batch");
    assert_eq!(answer.must_have("retry-after"), "1");
    let receipt: Value = node.accept(Request::json(&batch_as("orders-17", &events(1)))).await;
    node.is_committed(&receipt).await;
    node.finish().await;
}
