//! `forebay verify` compares the ledger with the table.

use serde_json::json;

use crate::harness::{
    client::Request,
    command::{Said, forebay},
    events::{batch_as, event, event_with, events, events_at},
    month::Month,
    node::Node,
};

async fn verify(node: &Node, more: &[&str]) -> Said {
    let arguments = [&["verify"], more].concat();
    forebay(&arguments).env("DATABASE_URL", node.database.url()).run().await
}

#[tokio::test]
async fn equal_books_are_exit_0_and_a_missing_row_is_exit_1() {
    let node = Node::start(|_| ()).await;
    verify(&node, &[]).await.succeeded();
    let doubled = event();
    for sent in [events(20), vec![doubled.clone(), doubled], events_at(&Month::from_now(-1).noon(4), 3)] {
        let receipt = node.ingest(&sent).await;
        node.is_final(receipt["batch_id"].as_str().unwrap()).await;
    }
    verify(&node, &[]).await.succeeded();

    node.database.query("DELETE FROM events WHERE event_id = (SELECT min(event_id) FROM events)").await;

    let said = verify(&node, &[]).await.ended_with(1);
    assert!(!(said.stdout + &said.stderr).trim().is_empty());
    node.finish().await;
}

#[tokio::test]
async fn quarantined_events_are_part_of_the_books() {
    let node = Node::start(|_| ()).await;
    node.database.query("ALTER TABLE events ADD CONSTRAINT no_poison CHECK (event_type <> 'poison') NOT VALID").await;
    node.accept(Request::json(&batch_as("mixed", &[event(), event_with("event_type", json!("poison"))]))).await;
    assert_eq!(node.is_final("mixed").await["quarantined"], 1);
    verify(&node, &[]).await.succeeded();
    node.database.query("DELETE FROM quarantine").await;
    verify(&node, &[]).await.ended_with(1);
    node.finish().await;
}

#[tokio::test]
async fn pruned_batches_are_left_out() {
    let node = Node::start(|_| ()).await;
    let (old, new) = (Month::from_now(-8), Month::from_now(0));
    for month in [old, new] {
        node.is_committed(&node.ingest(&events_at(&month.noon(1), 3)).await).await;
    }
    forebay(&["partitions", "cleanup", "--older-than", "3months"])
        .env("DATABASE_URL", node.database.url())
        .run()
        .await
        .succeeded();
    assert_eq!(node.database.event_count().await, 3);
    verify(&node, &[]).await.succeeded();
    node.finish().await;
}

#[tokio::test]
async fn since_leaves_out_what_is_older() {
    let node = Node::start(|_| ()).await;
    node.is_committed(&node.ingest(&events(3)).await).await;
    node.database.query("DELETE FROM events").await;
    let later = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    verify(&node, &["--since", &later]).await.succeeded();
    verify(&node, &["--since", "2020-01-01T00:00:00Z"]).await.ended_with(1);
    verify(&node, &["--since", "yesterday"]).await.ended_with(2);
    node.finish().await;
}
