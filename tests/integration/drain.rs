//! SIGTERM: not ready, then nothing new, then what is queued is written, and the rest stays in the journal.

use rustix::process::Signal;

use crate::harness::{
    client::Request,
    events::{batch_as, events},
    eventually::until,
    month::Month,
    node::Node,
};

#[tokio::test]
async fn drain_is_unready_first_and_serves_on_until_the_delay_is_over() {
    let mut node = Node::start(|settings| {
        settings.set("DRAIN_DELAY_SECONDS", 3);
    })
    .await;
    node.process().signal(Signal::TERM);

    until("it is not ready", async || node.probe("/readyz").await == Some(503)).await;
    assert_eq!(node.probe("/livez").await, Some(200));
    let health = node.health().await;
    assert_eq!((health.status, health.json()["status"].as_str()), (503, Some("unhealthy")));
    // Proxies send here until they have seen it: none of that fails.
    let receipt = node.accept(Request::json(&batch_as("late", &events(2)))).await;
    assert_eq!(receipt["accepted"], 2);

    assert_eq!(node.process().exit_code().await, 0);
    assert_eq!(node.database.event_count().await, 2);
    node.database.has_no_sessions_of_forebay().await;
}

#[tokio::test]
async fn what_is_queued_is_written_before_the_end() {
    let mut node = Node::start(|_| ()).await;
    let lock = node.database.lock_leaf(Month::from_now(0)).await;
    for number in 0..5 {
        node.accept(Request::json(&batch_as(&format!("orders-{number}"), &events(4)))).await;
    }
    lock.is_waited_for().await;
    node.process().signal(Signal::TERM);
    until("the ingest port is closed", async || Request::get("/v1/health").try_send(node.api()).await.is_none()).await;
    lock.release().await;

    assert_eq!(node.process().exit_code().await, 0);
    assert_eq!(node.database.event_count().await, 20);
    node.database.has_no_sessions_of_forebay().await;
}

#[tokio::test]
async fn what_is_left_at_the_deadline_stays_in_the_journal_and_lands_after_the_restart() {
    let mut node = Node::start(|settings| {
        settings.set("SHUTDOWN_TIMEOUT_SECONDS", 1);
    })
    .await;
    let lock = node.database.lock_leaf(Month::from_now(0)).await;
    node.accept(Request::json(&batch_as("orders-17", &events(4)))).await;
    lock.is_waited_for().await;

    assert_eq!(node.stop().await, 0, "a drain is no failure, though events stay");
    let said = node.process().stderr().join("\n");
    assert!(said.contains('4'), "the log counts what stays");
    lock.release().await;
    node.database.has_no_sessions_of_forebay().await;
    assert_eq!(node.database.event_count().await, 0);

    node.restart(|_| ()).await;
    assert_eq!(node.is_final("orders-17").await["committed"], 4);
    assert_eq!(node.database.event_count().await, 4);
    node.finish().await;
}

#[tokio::test]
async fn who_waits_for_a_commit_gets_202_in_a_drain() {
    let mut node = Node::start(|settings| {
        settings.set("SHUTDOWN_TIMEOUT_SECONDS", 2);
    })
    .await;
    let lock = node.database.lock_leaf(Month::from_now(0)).await;
    let api = node.api().to_owned();
    let waiting = Request::json(&batch_as("orders-17", &events(1))).wait(50);
    let (answer, code) = tokio::join!(waiting.send(&api), async {
        lock.is_waited_for().await;
        node.stop().await
    });
    let receipt = answer.is(202);
    assert_eq!(receipt["accepted"], 1);
    assert_eq!(answer.header("preference-applied"), None);
    assert_eq!(code, 0);
    lock.release().await;
}

#[tokio::test]
async fn second_signal_ends_it_at_once_with_1() {
    for second in [Signal::TERM, Signal::INT] {
        let mut node = Node::start(|settings| {
            settings.set("SHUTDOWN_TIMEOUT_SECONDS", 3600).set("DRAIN_DELAY_SECONDS", 3600);
        })
        .await;
        let lock = node.database.lock_leaf(Month::from_now(0)).await;
        node.accept(Request::json(&batch_as("orders-17", &events(1)))).await;
        lock.is_waited_for().await;
        node.process().signal(Signal::TERM);
        until("the drain has begun", async || node.probe("/readyz").await == Some(503)).await;
        node.process().signal(second);

        assert_eq!(node.process().exit_code().await, 1);
        lock.release().await;
        node.restart(|settings| {
            settings.set("DRAIN_DELAY_SECONDS", 0);
        })
        .await;
        assert_eq!(node.is_final("orders-17").await["committed"], 1);
        node.finish().await;
    }
}

#[tokio::test]
async fn interrupt_drains_as_terminate_does() {
    let mut node = Node::start(|_| ()).await;
    let receipt = node.ingest(&events(3)).await;
    assert_eq!(receipt["accepted"], 3);
    node.process().signal(Signal::INT);
    assert_eq!(node.process().exit_code().await, 0);
    assert_eq!(node.database.event_count().await, 3);
}
