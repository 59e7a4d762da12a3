//! The most urgent batch goes first, and nobody starves.

use serde_json::Value;

use crate::harness::{
    client::Request,
    events::{batch_of_priority, events},
    month::Month,
    node::Node,
};

/// Starts a server with one lane and small flushes.
async fn one_lane(batch_size: u32, timeout_seconds: f64) -> Node {
    Node::start(|settings| {
        settings.set("FLUSH_WORKERS", 1).set("BATCH_SIZE", batch_size).set("BATCH_TIMEOUT_SECONDS", timeout_seconds);
    })
    .await
}

/// Occupies the one lane with a batch that can't be written until the lock is released.
async fn occupy(node: &Node) -> crate::harness::database::Lock {
    let lock = node.database.lock_leaf(Month::from_now(0)).await;
    node.accept(Request::json(&batch_of_priority(10, &events(1)))).await;
    lock.is_waited_for().await;
    lock
}

async fn post(node: &Node, priority: u8, event_count: usize) -> String {
    let receipt: Value = node.accept(Request::json(&batch_of_priority(priority, &events(event_count)))).await;
    receipt["batch_id"].as_str().unwrap().to_owned()
}

/// Returns the batches but for the one that occupied the lane, in the order of their commit, as
/// (number of the flush, priority).
async fn commits(node: &Node, first: &str) -> Vec<(usize, u8)> {
    node.is_idle().await;
    let sql = format!(
        "SELECT dense_rank() OVER (ORDER BY committed_at), priority FROM batches \
         WHERE accepted_at >= (SELECT accepted_at FROM batches WHERE batch_id = '{first}') ORDER BY committed_at, priority"
    );
    let rows = node.database.query(&sql).await;
    rows.iter()
        .map(|row| (row[0].as_ref().unwrap().parse().unwrap(), row[1].as_ref().unwrap().parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn stalled_batches_commit_in_the_order_of_priority() {
    // Far from being due, so that only the priority decides; each batch fills a flush.
    let node = one_lane(1, 3600.0).await;
    let lock = occupy(&node).await;
    let priorities = [0, 5, 10, 3, 7, 1, 9, 2, 8, 4, 6, 0, 10];
    let mut first = None;
    for priority in priorities {
        let id = post(&node, priority, 5).await;
        first.get_or_insert(id);
    }
    lock.release().await;

    let order = commits(&node, &first.unwrap()).await;

    let committed: Vec<u8> = order.iter().map(|(_, priority)| *priority).collect();
    let mut expected = priorities.to_vec();
    expected.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(committed, expected);
    assert!(order.last().unwrap().0 > 5, "all in one flush proves nothing: {order:?}");
    node.finish().await;
}

#[tokio::test]
async fn equal_priorities_commit_in_the_order_of_their_arrival() {
    let node = one_lane(1, 3600.0).await;
    let lock = occupy(&node).await;
    let mut sent = Vec::new();
    for _ in 0..8 {
        sent.push(post(&node, 4, 5).await);
    }
    lock.release().await;
    node.is_idle().await;
    let committed = node.database.texts("SELECT batch_id FROM batches WHERE priority = 4 ORDER BY committed_at").await;
    assert_eq!(committed, sent);
    node.finish().await;
}

#[tokio::test]
async fn old_batch_of_low_priority_goes_before_a_fresh_one_of_high_once_its_deadline_is_earlier() {
    let node = one_lane(4, 4.0).await;
    let lock = occupy(&node).await;
    let first = post(&node, 0, 1).await;
    for _ in 0..30 {
        post(&node, 0, 1).await;
    }
    // Due 4 s after their arrival; those of priority 7 are due 1.2 s after theirs. So after 2.8 s the old come first.
    let accepted_at = node.status(&first).await["accepted_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let turn = accepted_at + jiff::SignedDuration::from_millis(2_900);
    crate::harness::eventually::until("the old ones' deadline is earlier", async || jiff::Timestamp::now() > turn)
        .await;
    for _ in 0..31 {
        post(&node, 7, 1).await;
    }
    lock.release().await;

    let order = commits(&node, &first).await;

    let first_flush = |wanted: u8| order.iter().find(|(_, priority)| *priority == wanted).unwrap().0;
    assert!(first_flush(0) <= first_flush(7), "{order:?}");
    assert!(order.last().unwrap().0 > 2, "all in one flush proves nothing: {order:?}");
    node.finish().await;
}

#[tokio::test]
async fn overdue_flood_of_low_priority_leaves_half_of_each_flush_to_high() {
    let node = one_lane(4, 0.05).await;
    let lock = occupy(&node).await;
    let first = post(&node, 0, 1).await;
    for _ in 0..119 {
        post(&node, 0, 1).await;
    }
    for _ in 0..10 {
        post(&node, 9, 1).await;
    }
    lock.release().await;

    let order = commits(&node, &first).await;

    let last_flush = |wanted: u8| order.iter().rev().find(|(_, priority)| *priority == wanted).unwrap().0;
    // By deadline alone, the high ones would all come in the last flush.
    assert!(last_flush(9) < last_flush(0), "{order:?}");
    assert!(last_flush(9) <= 6, "half of the room of each flush is theirs: {order:?}");
    node.finish().await;
}

#[tokio::test]
async fn overdue_flood_of_high_priority_leaves_a_tenth_of_each_flush_to_low() {
    let node = one_lane(10, 0.05).await;
    let lock = occupy(&node).await;
    let first = post(&node, 9, 1).await;
    for _ in 0..299 {
        post(&node, 9, 1).await;
    }
    for _ in 0..5 {
        post(&node, 0, 1).await;
    }
    lock.release().await;

    let order = commits(&node, &first).await;

    let last_flush = |wanted: u8| order.iter().rev().find(|(_, priority)| *priority == wanted).unwrap().0;
    assert!(last_flush(0) < last_flush(9), "{order:?}");
    node.finish().await;
}

#[tokio::test]
async fn queue_is_shown_by_band() {
    let node = one_lane(1, 3600.0).await;
    let lock = occupy(&node).await;
    for priority in [0, 3, 4, 6, 7, 10] {
        post(&node, priority, 2).await;
    }
    let metrics = node.metrics().await;
    for (band, least) in [("low", 4.0), ("normal", 4.0), ("high", 5.0)] {
        assert_eq!(metrics.get(&format!("forebay_queue_events{{band=\"{band}\"}}")), least, "{band}");
        assert!(metrics.get(&format!("forebay_queue_bytes{{band=\"{band}\"}}")) > 0.0, "{band}");
    }
    assert_eq!(metrics.get("forebay_events_in_flight"), 13.0);
    lock.release().await;
    node.is_idle().await;
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("forebay_queue_events"), 0.0);
    assert_eq!(metrics.sum("forebay_commit_lag_seconds_count"), 7.0);
    node.finish().await;
}
