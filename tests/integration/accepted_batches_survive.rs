//! What was acknowledged is durable: it lands exactly once, whatever dies after the 202.

use std::{collections::BTreeSet, sync::Arc};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    client::Request,
    database::Database,
    events::{batch_as, event_at, events, id},
    eventually::until,
    folder::temporary,
    month::Month,
    node::Node,
    postgres::Postgres,
    strace::{Call, Trace},
};

fn ids<'a>(events: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    events.into_iter().map(id).collect::<BTreeSet<_>>().into_iter().collect()
}

#[tokio::test]
async fn kill_after_202_loses_nothing_and_doubles_nothing() {
    let mut node = Node::start(|_| ()).await;
    let lock = node.database.lock_leaf(Month::from_now(0)).await;
    let mut sent = Vec::new();
    for priority in 0..20_u8 {
        let part = [events(3), vec![event_at(&Month::from_now(-1).noon(2))]].concat();
        let mut envelope = batch_as(&format!("orders-{priority}"), &part);
        envelope["priority"] = (priority % 11).into();
        node.accept(Request::json(&envelope)).await;
        sent.extend(part);
    }
    lock.is_waited_for().await;

    node.kill();
    assert_eq!(node.database.number("SELECT count(*) FROM batches").await, 0, "nothing was written");
    lock.release().await;
    node.restart(|_| ()).await;

    for number in 0..20 {
        let status = node.is_final(&format!("orders-{number}")).await;
        assert_eq!((&status["committed"], &status["priority"]), (&4.into(), &(number % 11).into()), "{status}");
    }
    assert_eq!(node.database.event_ids().await, ids(&sent));
    let metrics = node.metrics().await;
    assert_eq!(metrics.get(r#"forebay_events_accepted_total{source="replay"}"#), 80.0);
    node.books_balance().await;
    node.finish().await;
}

#[tokio::test]
async fn kill_while_batches_flow_loses_none_that_was_acknowledged() {
    let mut node = Node::start(|_| ()).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let requests: Vec<(Vec<Value>, Request)> = (0..40)
            .map(|number| {
                let part = events(5);
                let request = Request::json(&batch_as(&format!("round-{round}-{number}"), &part));
                (part, request)
            })
            .collect();
        let api = node.api().to_owned();
        let sends = requests.iter().map(|(part, request)| {
            let api = api.clone();
            async move { request.try_send(&api).await.filter(|answer| answer.status == 202).map(|_| part.clone()) }
        });
        let kill = async {
            // As soon as the first of them are stored, amid the others.
            let stored = format!("SELECT count(*) FROM batches WHERE batch_id LIKE 'round-{round}-%'");
            until("some are stored", async || node.database.number(&stored).await > 0).await;
            rustix::process::kill_process(pid(&node), Signal::KILL).unwrap();
        };
        let (answers, ()) = tokio::join!(futures_util::future::join_all(sends), kill);
        acknowledged.extend(answers.into_iter().flatten().flatten());
        node.kill();
        node.restart(|_| ()).await;
    }
    node.is_idle().await;

    let stored: BTreeSet<String> = node.database.event_ids().await.into_iter().collect();
    let lost: Vec<String> = ids(&acknowledged).into_iter().filter(|id| !stored.contains(id)).collect();
    assert!(!acknowledged.is_empty() && lost.is_empty(), "{} of {} lost", lost.len(), acknowledged.len());
    assert_eq!(stored.len() as i64, node.database.event_count().await, "none is there twice");
    node.finish().await;
}

fn pid(node: &Node) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(node.process_id() as i32).unwrap()
}

#[tokio::test]
async fn door_is_open_while_postgresql_is_away_at_start() {
    let mut server = Postgres::private();
    let database = Arc::new(Database::on(&server).await);
    server.stop(Signal::INT);
    let mut node = Node::unready(&database, |_| ()).await;
    assert_eq!(node.probe("/readyz").await, Some(503), "it has never seen its tables");
    assert_eq!(node.probe("/livez").await, Some(200));
    let sent = events(5);

    let receipt = node.accept(Request::json(&batch_as("orders-17", &sent)).wait(1)).await;

    assert_eq!(receipt["batch_id"], "orders-17");
    until("health tells it", async || {
        let health = node.health().await.is(200);
        health["status"] == "degraded" && health["checks"]["database"]["status"] == "down"
    })
    .await;
    // Once more through a crash, with PostgreSQL still away.
    node.kill();
    node.restart_unready(|_| ()).await;
    assert_ne!(node.status("orders-17").await["status"], "completed");
    server.start_again();
    assert_eq!(node.is_final("orders-17").await["committed"], 5);
    node.is_ready().await;
    assert_eq!(database.event_ids().await, ids(&sent));

    // What it has seen once is remembered: a restart amid an outage is ready.
    server.stop(Signal::INT);
    node.kill();
    node.restart(|_| ()).await;
    let receipt = node.ingest(&events(2)).await;
    server.start_again();
    node.is_committed(&receipt).await;
    drop(database);
    node.finish().await;
}

#[tokio::test]
async fn each_202_is_written_after_the_fdatasync_of_its_segment() {
    let folder = temporary("files");
    let file = folder.path().join("trace");
    let mut trace = None;
    let mut node = Node::start(|settings| trace = Some(Trace::of(settings, &file, &[]))).await;
    let trace = trace.unwrap();
    // One after the other, so that each 202 can be told from the others'.
    for _ in 0..10 {
        node.ingest(&events(2)).await;
    }
    until("the trace is written", async || {
        node.calls(&trace).iter().filter(|call| **call == Call::AcceptedWritten).count() == 10
    })
    .await;

    let mut synced_since_the_post = false;
    let mut answered = 0;
    for call in node.calls(&trace) {
        match call {
            Call::PostRead => synced_since_the_post = false,
            Call::Synced => synced_since_the_post = true,
            Call::AcceptedWritten => {
                assert!(synced_since_the_post, "answer {answered} came before its fdatasync");
                answered += 1;
            }
        }
    }
    assert_eq!(answered, 10);
    node.kill();
}

#[tokio::test]
async fn repeat_of_a_batch_that_is_not_synced_yet_waits_for_its_fdatasync() {
    let folder = temporary("files");
    let file = folder.path().join("trace");
    let mut trace = None;
    let mut node = Node::start(|settings| {
        // Long enough for the repeat to arrive amid it; what is asserted is the order in the trace.
        trace = Some(Trace::of(settings, &file, &["inject=fdatasync,fsync:delay_enter=2000000"]));
    })
    .await;
    let trace = trace.unwrap();
    let calls_before = node.calls(&trace).len();
    let request = Request::json(&batch_as("orders-17", &events(2)));
    let api = node.api().to_owned();

    let (first, repeat) = tokio::join!(request.send(&api), async {
        until("the first is read", async || node.calls(&trace)[calls_before..].contains(&Call::PostRead)).await;
        request.send(&api).await
    });

    assert!(trace.has_injected(), "no fdatasync was held");
    assert_eq!(first.is(202)["accepted"], 2);
    assert!([200, 202].contains(&repeat.status), "{repeat}");
    let calls = node.calls(&trace);
    let calls = &calls[calls_before..];
    let position = |call: Call| calls.iter().position(|other| *other == call).unwrap();
    let second_post = calls.iter().enumerate().filter(|(_, call)| **call == Call::PostRead).nth(1).unwrap().0;
    assert!(position(Call::Synced) < position(Call::AcceptedWritten), "{calls:?}");
    assert!(second_post < position(Call::Synced), "the repeat came too late to prove anything: {calls:?}");
    node.kill();
}

#[tokio::test]
async fn failed_fdatasync_is_never_acknowledged() {
    let folder = temporary("files");
    let file = folder.path().join("trace");
    let mut trace = None;
    let mut node = Node::start(|_| ()).await;
    assert_eq!(node.stop().await, 0);
    node.restart(|settings| {
        trace = Some(Trace::of(settings, &file, &["inject=fdatasync:error=EIO:when=4..6"]));
    })
    .await;
    let trace = trace.unwrap();

    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for number in 0..20 {
        let part = events(1);
        let answer = node.send(Request::json(&batch_as(&format!("orders-{number}"), &part))).await;
        if answer.status == 202 {
            acknowledged.extend(part);
        } else {
            let problem = answer.is_problem(503, "unavailable");
            assert_eq!(problem["batch_id"], format!("orders-{number}"));
            refused += 1;
            // Its outcome is unknown, so it is sent again under its id, and lands once.
            let again = Request::json(&batch_as(&format!("orders-{number}"), &part));
            until("the batch is taken", async || [200, 202].contains(&node.send(again.clone()).await.status)).await;
            acknowledged.extend(part);
        }
    }

    assert!(trace.has_injected() && refused > 0, "no fdatasync failed");
    node.is_idle().await;
    assert_eq!(node.database.event_ids().await, ids(&acknowledged));
    node.kill();
}

#[tokio::test]
async fn damaged_record_is_skipped_and_counted_and_all_others_land() {
    let mut node = Node::start(|_| ()).await;
    let lock = node.database.lock_leaf(Month::from_now(0)).await;
    let sent: Vec<Value> = events(9);
    for event in &sent {
        node.ingest(std::slice::from_ref(event)).await;
    }
    lock.is_waited_for().await;
    node.kill();
    lock.release().await;
    assert!(flip_a_byte_of(&node.journal(), &id(&sent[4])), "the event is in the journal");

    node.restart(|_| ()).await;
    node.is_idle().await;

    let others = sent.iter().enumerate().filter(|(index, _)| *index != 4).map(|(_, event)| event);
    assert_eq!(node.database.event_ids().await, ids(others));
    assert_eq!(node.metrics().await.get("forebay_journal_damaged_records_total"), 1.0);
    node.finish().await;
}

/// Changes one byte of the only place in a folder's files where this text stands.
fn flip_a_byte_of(folder: &std::path::Path, text: &str) -> bool {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    for file in files {
        let mut bytes = std::fs::read(&file).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
            bytes[at] ^= 1;
            std::fs::write(&file, bytes).unwrap();
            return true;
        }
    }
    false
}

#[tokio::test]
async fn second_process_on_a_journal_is_refused() {
    let node = Node::start(|_| ()).await;
    let said = crate::harness::command::forebay(&["serve"])
        .env("DATABASE_URL", node.database.url())
        .env("JOURNAL_DIR", node.journal().display())
        .env("HOST", "127.0.0.1")
        .env("PORT", 0)
        .env("ADMIN_PORT", 0)
        .run()
        .await;
    assert_ne!(said.code, Some(0), "{said:#?}");
    node.is_committed(&node.ingest(&events(1)).await).await;
    node.finish().await;
}
