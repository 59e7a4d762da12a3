//! What PostgreSQL refuses after the 202 goes to quarantine, with a reason; its neighbors commit.

use serde_json::{Value, json};

use crate::harness::{
    client::Request,
    events::{batch_as, event, event_at, event_with, events, id},
    eventually::until,
    month::Month,
    node::Node,
};

/// A rule that comes to a live table and refuses what the door let in.
const REFUSE_POISON: &str = "ALTER TABLE events ADD CONSTRAINT no_poison CHECK (event_type <> 'poison') NOT VALID";

fn poison() -> Value {
    event_with("event_type", json!("poison"))
}

#[tokio::test]
async fn refused_row_is_quarantined_and_its_neighbors_commit() {
    let node = Node::start(|_| ()).await;
    node.database.query(REFUSE_POISON).await;
    let mut sent = events(50);
    sent[17] = poison();
    sent[17]["payload"] = json!({"b": 1, "a": [1.50, "ä"]});

    let receipt = node.accept(Request::json(&batch_as("orders-17", &sent))).await;

    let status = node.is_final("orders-17").await;
    assert_eq!((&status["status"], &status["committed"]), (&json!("completed"), &json!(49)));
    assert_eq!((&status["quarantined"], &status["duplicates"]), (&json!(1), &json!(0)));
    assert_eq!(receipt["accepted"], 50);
    assert_eq!(node.database.event_count().await, 49);
    let rows = node
        .database
        .query(
            "SELECT q.batch_id, index, service_name, event_id, reason, convert_from(event, 'UTF8'), detail, \
             q.batch = b.batch FROM quarantine q JOIN batches b USING (caller, batch_id)",
        )
        .await;
    assert_eq!(rows.len(), 1);
    let column = |number: usize| rows[0][number].as_deref().unwrap();
    assert_eq!((column(0), column(1), column(2)), ("orders-17", "17", "checkout"));
    assert_eq!((column(3), column(4), column(7)), (id(&sent[17]).as_str(), "data", "t"));
    let kept: Value = serde_json::from_str(column(5)).unwrap();
    assert_eq!((&kept["payload"], &kept["event_type"]), (&sent[17]["payload"], &json!("poison")));
    assert!(column(5).contains(&sent[17]["payload"].to_string()), "the payload is kept byte for byte");
    let metrics = node.metrics().await;
    assert_eq!(metrics.get(r#"forebay_events_quarantined_total{reason="data"}"#), 1.0);
    assert!(metrics.get(r#"forebay_copy_errors_total{class="data",action="isolate"}"#) >= 1.0);
    node.finish().await;
}

#[tokio::test]
async fn batch_of_nothing_but_refused_rows_has_failed() {
    let node = Node::start(|_| ()).await;
    node.database.query(REFUSE_POISON).await;
    let sent: Vec<Value> = (0..3).map(|_| poison()).collect();

    let answer = node.send(Request::json(&batch_as("orders-17", &sent)).wait(50)).await;

    let receipt = answer.is(200);
    assert_eq!((&receipt["status"], &receipt["quarantined"]), (&json!("failed"), &json!(3)));
    assert_eq!(answer.must_have("preference-applied"), "wait=50");
    assert_eq!(node.database.event_count().await, 0);
    // A repeat tells the same, and adds nothing.
    let repeat = node.send(Request::json(&batch_as("orders-17", &sent))).await.is(200);
    assert_eq!(repeat["status"], "failed");
    assert_eq!(node.database.number("SELECT count(*) FROM quarantine").await, 3);
    node.finish().await;
}

#[tokio::test]
async fn many_refused_rows_among_many_good_ones_are_each_found() {
    let node = Node::start(|_| ()).await;
    node.database.query(REFUSE_POISON).await;
    let mut sent = events(400);
    for index in (0..400).step_by(20) {
        sent[index] = poison();
    }
    node.accept(Request::json(&batch_as("mixed", &sent))).await;
    let clean = node.ingest(&events(10)).await;

    let status = node.is_final("mixed").await;

    assert_eq!((&status["committed"], &status["quarantined"]), (&json!(380), &json!(20)));
    node.is_committed(&clean).await;
    let indexes = node.database.texts("SELECT index FROM quarantine ORDER BY index").await;
    assert_eq!(indexes, (0..400).step_by(20).map(|index| index.to_string()).collect::<Vec<_>>());
    assert_eq!(node.database.event_count().await, 390);
    node.finish().await;
}

#[tokio::test]
async fn refused_row_beside_rejected_and_doubled_ones_keeps_its_index_as_sent() {
    let node = Node::start(|_| ()).await;
    node.database.query(REFUSE_POISON).await;
    let doubled = event();
    let sent =
        [json!({}), doubled.clone(), json!(5), doubled, poison(), event_at(&Month::from_now(-1).noon(9)), poison()];

    node.send(Request::json(&batch_as("orders-17", &sent))).await.is(202);

    let status = node.is_final("orders-17").await;
    let counts: Vec<u64> = ["received", "accepted", "rejected", "committed", "duplicates", "quarantined"]
        .iter()
        .map(|name| status[name].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [7, 5, 2, 2, 1, 2]);
    let indexes = node.database.texts("SELECT index FROM quarantine ORDER BY index").await;
    assert_eq!(indexes, ["4", "6"]);
    node.finish().await;
}

#[tokio::test]
async fn quarantined_batch_that_is_replayed_adds_nothing() {
    let mut node = Node::start(|_| ()).await;
    node.database.query(REFUSE_POISON).await;
    let sent = [event(), poison()];
    node.accept(Request::json(&batch_as("orders-17", &sent))).await;
    node.is_final("orders-17").await;
    // The mark in the journal is not synced at once: a kill may have it written again.
    node.kill();
    node.restart(|_| ()).await;
    node.send(Request::json(&batch_as("orders-17", &sent))).await;
    until("nothing is in flight", async || node.metrics().await.get("forebay_events_in_flight") == 0.0).await;
    assert_eq!(node.database.number("SELECT count(*) FROM quarantine").await, 1);
    assert_eq!(node.database.event_count().await, 1);
    let status = node.is_final("orders-17").await;
    assert_eq!((&status["committed"], &status["quarantined"]), (&json!(1), &json!(1)));
    node.finish().await;
}
