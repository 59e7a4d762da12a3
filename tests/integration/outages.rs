//! PostgreSQL goes away in every way; the door stays open, and each batch lands once by itself afterwards.

use std::sync::Arc;

use rustix::process::Signal;

use crate::harness::{
    answer::Answer,
    client::Request,
    database::Database,
    events::{batch, batch_as, events, unique},
    eventually::until,
    node::Node,
    postgres::Postgres,
    proxy::{CommitFault, Mode, Proxy},
    settings::Settings,
};

/// Starts a server that reaches its database through a proxy.
async fn behind_a_proxy(adjust: impl FnOnce(&mut Settings)) -> (Node, Proxy) {
    let database = Arc::new(Database::create().await);
    let proxy = Proxy::start(database.server_port()).await;
    let url = database.url_at(proxy.port());
    let node = Node::on(&database, |settings| {
        settings.set("DATABASE_URL", url);
        adjust(settings);
    })
    .await;
    assert!(proxy.connections() > 0);
    (node, proxy)
}

async fn lost_commit_lands_once(fault: CommitFault) {
    let (node, proxy) = behind_a_proxy(|_| ()).await;
    node.is_committed(&node.ingest(&events(1)).await).await;
    for round in 0..10 {
        let before = proxy.commits_struck();
        proxy.strike_commits(fault, 1);
        let id = format!("orders-{round}");
        node.accept(Request::json(&batch_as(&id, &events(3)))).await;
        let status = node.is_final(&id).await;
        assert_eq!((&status["status"], &status["committed"]), (&"completed".into(), &3.into()), "{status}");
        assert_eq!(status["duplicates"], 0, "{status}");
        assert!(proxy.commits_struck() > before, "no COMMIT was struck");
    }
    assert!(node.errors("commit_unknown").await >= 1.0, "the ledger was asked");
    assert_eq!(node.database.event_count().await, 31);
    let metrics = node.metrics().await;
    assert_eq!(metrics.get("forebay_events_committed_total"), 31.0);
    assert_eq!(metrics.get("forebay_events_duplicate_total"), 0.0);
    node.finish().await;
}

#[tokio::test]
async fn answer_to_commit_that_is_lost_doubles_nothing() {
    lost_commit_lands_once(CommitFault::DropAnswer).await;
}

#[tokio::test]
async fn commit_that_is_lost_loses_nothing() {
    lost_commit_lands_once(CommitFault::DropCommit).await;
}

#[tokio::test]
async fn reset_connections_are_opened_again() {
    let (node, proxy) = behind_a_proxy(|_| ()).await;
    node.is_committed(&node.ingest(&events(1)).await).await;
    proxy.set(Mode::Reset);
    node.accept(Request::json(&batch_as("orders-17", &events(3)))).await;
    until("the reset has struck", async || node.errors("connection").await > 0.0).await;
    let status = node.status("orders-17").await;
    assert_eq!(status["status"], "processing", "{status}");
    assert!(status["last_error"].is_string(), "{status}");
    assert_eq!(node.probe("/readyz").await, Some(200), "an outage changes no readiness");
    proxy.set(Mode::Forward);
    let status = node.is_final("orders-17").await;
    assert!(status["attempts"].as_u64().unwrap() > 1, "{status}");
    assert_eq!(node.database.event_count().await, 4);
    node.finish().await;
}

#[tokio::test]
async fn silent_server_costs_a_deadline_and_nothing_else() {
    let (node, proxy) = behind_a_proxy(|settings| {
        settings.set("COPY_TIMEOUT_SECONDS", 1);
    })
    .await;
    node.is_committed(&node.ingest(&events(1)).await).await;
    proxy.set(Mode::Silent);
    node.accept(Request::json(&batch_as("orders-17", &events(3)))).await;
    until("the deadline has struck", async || node.errors("deadline").await > 0.0).await;
    // A silent connection never speaks again: its messages are lost.
    proxy.set(Mode::Reset);
    proxy.set(Mode::Forward);
    node.is_final("orders-17").await;
    assert_eq!(node.database.event_count().await, 4);
    node.finish().await;
}

#[tokio::test]
async fn batches_land_after_postgresql_was_stopped_or_killed() {
    let mut server = Postgres::private();
    let database = Arc::new(Database::on(&server).await);
    let node = Node::on(&database, |_| ()).await;
    drop(database);
    let mut sent = 0;
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::KILL] {
        let begun = node.ingest(&events(200)).await;
        if signal == Signal::TERM {
            // A smart stop waits for its clients, which keep their connections: fast is what a person then does.
            server.stop(Signal::INT);
        } else {
            server.stop(signal);
        }
        let during = node.ingest(&events(50)).await;
        assert_eq!(node.probe("/readyz").await, Some(200));
        until("health tells it", async || node.health().await.is(200)["status"] == "degraded").await;
        server.start_again();
        sent += 250;
        for receipt in [begun, during] {
            node.is_committed(&receipt).await;
        }
        assert_eq!(node.database.event_count().await, sent);
        until("health tells that too", async || node.health().await.is(200)["status"] == "healthy").await;
    }
    node.finish().await;
}

#[tokio::test]
async fn terminated_backends_are_replaced() {
    let node = Node::start(|_| ()).await;
    let mut terminated = 0;
    for _ in 0..10 {
        node.ingest(&events(100)).await;
        terminated += node
            .database
            .number(
                "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()) AS ended",
            )
            .await;
    }
    assert!(terminated > 0);
    node.is_idle().await;
    assert_eq!(node.database.event_count().await, 1000);
    node.finish().await;
}

#[tokio::test]
async fn read_only_server_is_waited_out() {
    let node = Node::start(|_| ()).await;
    let name = node.database.texts("SELECT current_database()").await.remove(0);
    node.database.query(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let all_but_us = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
    node.database.query(all_but_us).await;
    let receipt = node.ingest(&events(3)).await;
    assert_eq!(node.probe("/readyz").await, Some(200));
    node.database
        .query(&format!(
            "SET default_transaction_read_only = off; ALTER DATABASE {name} RESET default_transaction_read_only"
        ))
        .await;
    node.is_committed(&receipt).await;
    node.finish().await;
}

/// Sends batches of a mebibyte from that address until one is refused; returns how many were taken, and the refusal.
async fn fill(node: &Node, address: [u8; 4], query: &str) -> (usize, Answer) {
    for number in 0..100 {
        let mut big = events(50);
        for event in &mut big {
            event["payload"]["padding"] = "x".repeat(20_000).into();
        }
        let request = Request::json(&batch(&big)).query(&format!("batch_id={}", unique("big"))).query(query);
        let answer = node.send(request.sent_from(address)).await;
        if answer.status != 202 {
            return (number, answer);
        }
    }
    panic!("the budget is 64 MiB")
}

#[tokio::test]
async fn full_journal_is_503_queue_full_and_opens_again_by_itself() {
    let node = Node::start(|settings| {
        settings.set("JOURNAL_MAX_MB", 128).set("FLUSH_WORKERS", 1);
    })
    .await;
    let lock = node.database.lock("batches").await;

    let (of_one, refused) = fill(&node, [127, 0, 0, 1], "priority=0").await;
    let problem = refused.is_problem(503, "queue_full");
    assert!(problem["batch_id"].is_string(), "{problem}");
    let (of_another, refused) = fill(&node, [127, 0, 0, 2], "priority=0").await;
    refused.is_problem(503, "queue_full");
    assert!(of_one > 0 && of_another > 0, "one caller holds at most half: {of_one}, {of_another}");
    let (of_high, refused) = fill(&node, [127, 0, 0, 3], "priority=10").await;
    refused.is_problem(503, "queue_full");
    assert!(of_high > 0, "what is urgent is taken for longer");
    until("health tells it", async || {
        let health = node.health().await.is(200);
        health["status"] == "degraded" && health["checks"]["queue"]["status"] == "full"
    })
    .await;
    assert_eq!(node.probe("/readyz").await, Some(200), "a full queue is not ill health");
    assert!(node.metrics().await.get("forebay_queue_fill_ratio") > 0.8);

    lock.release().await;
    until("the door opens again", async || {
        let request = Request::json(&batch_as("later", &events(1)));
        node.send(request).await.status == 202
    })
    .await;
    node.is_idle().await;
    let taken = of_one + of_another + of_high;
    assert_eq!(node.database.event_count().await, taken as i64 * 50 + 1);
    until("health tells that too", async || node.health().await.is(200)["status"] == "healthy").await;
    node.finish().await;
}
