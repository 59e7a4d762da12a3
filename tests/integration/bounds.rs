//! Memory is bounded, and what has no room is refused with an answer that says when to come back.

use serde_json::Value;

use crate::harness::{
    client::Request,
    events::{batch, batch_as, events, unique},
    eventually::until,
    node::Node,
    raw::Raw,
    strace::peak_memory_kib,
};

#[tokio::test]
async fn backlog_costs_no_memory() {
    let mut node = Node::start(|settings| {
        settings.set("QUEUE_MEMORY_MB", 16).set("REQUEST_MEMORY_MB", 16);
    })
    .await;
    let lock = node.database.lock("batches").await;
    let mut sent = 0;
    // Some 150 MiB of rows, far more than the process may take.
    for _ in 0..75 {
        let mut big = events(100);
        for event in &mut big {
            event["payload"]["padding"] = "x".repeat(20_000).into();
        }
        let request = Request::json(&batch_as(&unique("big"), &big));
        until("it is taken", async || node.send(request.clone()).await.status == 202).await;
        sent += 100;
    }
    let bytes = node.metrics().await.sum("forebay_queue_bytes");
    assert!(bytes > 140.0 * 1024.0 * 1024.0, "{bytes} bytes of backlog prove nothing");
    lock.release().await;
    node.is_idle().await;
    assert_eq!(node.database.event_count().await, sent);
    let peak = peak_memory_kib(node.process());
    assert!(peak < (16 + 16 + 64) * 1024, "{peak} KiB");
    node.finish().await;
}

#[tokio::test]
async fn body_without_a_memory_permit_is_503_unavailable() {
    let node = Node::start(|settings| {
        settings.set("MAX_REQUEST_MB", 1).set("MAX_DECOMPRESSED_MB", 1).set("REQUEST_MEMORY_MB", 1);
    })
    .await;
    let headers = [("content-type", "application/json"), ("content-length", "1048576")];
    let mut holder = Raw::post(node.api(), &headers).await;
    holder.send(b"{").await;
    let mut padded = batch(&events(1)).to_string().into_bytes();
    padded.resize(1 << 20, b' ');
    let large = Request::post("application/json", padded).query("batch_id=orders-17");
    let mut refused: Option<Value> = None;
    until("the holder's permit is taken", async || {
        let answer = node.send(large.clone()).await;
        if answer.status == 503 {
            refused = Some(answer.is_problem(503, "unavailable"));
        }
        refused.is_some()
    })
    .await;
    drop(holder);
    until("the permit is given back", async || [200, 202].contains(&node.send(large.clone()).await.status)).await;
    node.is_idle().await;
    assert_eq!(node.database.event_count().await, 1);
    node.finish().await;
}

#[tokio::test]
async fn many_stalled_connections_harm_nobody() {
    let mut node = Node::start(|settings| {
        settings.set("BODY_TIMEOUT_SECONDS", 2);
    })
    .await;
    let headers = [("content-type", "application/json"), ("content-length", "5000000")];
    let mut stalled = Vec::new();
    for _ in 0..300 {
        stalled.push(Raw::post(node.api(), &headers).await);
    }
    for _ in 0..20 {
        // Large bodies may find no permit while the stalled ones hold theirs; small ones must.
        let receipt = node.send(Request::json(&batch(&events(2)))).await;
        assert!([202, 503].contains(&receipt.status), "{receipt}");
    }
    for mut raw in stalled {
        let answer = raw.answer().await;
        assert!([408, 503].contains(&answer.status), "{answer}");
    }
    let peak = peak_memory_kib(node.process());
    assert!(peak < (256 + 256 + 64) * 1024, "{peak} KiB");
    node.finish().await;
}
