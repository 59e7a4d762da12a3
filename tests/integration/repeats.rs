//! A batch sent again, at any replica, at any time, changes nothing; and what was acknowledged is never dropped.

use serde_json::{Value, json};

use crate::harness::{
    client::Request,
    events::{batch_as, event, event_at, events, unique},
    eventually::until,
    month::Month,
    node::Node,
    redis::Redis,
};

fn count(status: &Value, name: &str) -> u64 {
    status[name].as_u64().unwrap_or_else(|| panic!("{name} in {status}"))
}

/// Starts two servers on one database, each with these settings.
async fn two_nodes(redis: Option<&Redis>) -> (Node, Node) {
    let set = |settings: &mut crate::harness::settings::Settings| {
        if let Some(redis) = redis {
            settings.set("REDIS_URL", redis.url());
        }
    };
    let first = Node::start(set).await;
    let second = Node::on(&first.database, set).await;
    (first, second)
}

#[tokio::test]
async fn repeat_of_a_final_batch_is_200_and_moves_no_counter() {
    let node = Node::start(|_| ()).await;
    let mut sent = events(3);
    sent.push(json!("bad"));
    let request = Request::json(&batch_as("orders-17", &sent));
    let first = node.send(request.clone()).await.is(202);
    node.is_final("orders-17").await;
    let before = node.metrics().await;

    let answer = node.send(request).await;

    let repeat = answer.is(200);
    assert_eq!(repeat["status"], "completed");
    assert_eq!((&repeat["committed"], &repeat["duplicates"]), (&json!(3), &json!(0)));
    assert_eq!(repeat["errors"], first["errors"], "the repeat is validated anew");
    assert_eq!((&repeat["received"], &repeat["accepted"]), (&json!(4), &json!(3)));
    let after = node.metrics().await;
    for name in [
        "forebay_events_received_total",
        "forebay_events_accepted_total",
        "forebay_events_rejected_total",
        "forebay_events_committed_total",
        "forebay_events_duplicate_total",
    ] {
        assert_eq!(after.sum(name), before.sum(name), "{name}");
    }
    assert_eq!(node.database.event_count().await, 3);
    node.finish().await;
}

#[tokio::test]
async fn repeat_of_a_batch_in_hand_is_202_and_moves_no_counter() {
    let node = Node::start(|_| ()).await;
    let lock = node.database.lock_leaf(Month::from_now(0)).await;
    let request = Request::json(&batch_as("orders-17", &events(3)));
    node.accept(request.clone()).await;
    lock.is_waited_for().await;

    let repeats: Vec<Value> = [node.accept(request.clone()).await, node.accept(request).await].into();

    assert!(repeats.iter().all(|receipt| receipt["status"] != "completed"), "{repeats:?}");
    assert_eq!(node.metrics().await.sum("forebay_events_accepted_total"), 3.0);
    lock.release().await;
    assert_eq!(node.is_final("orders-17").await["committed"], 3);
    assert_eq!(node.database.event_count().await, 3);
    node.finish().await;
}

#[tokio::test]
async fn same_batch_sent_many_times_at_once_lands_once() {
    let node = Node::start(|_| ()).await;
    let request = Request::json(&batch_as("orders-17", &events(20)));

    let answers = futures_util::future::join_all((0..20).map(|_| node.send(request.clone()))).await;

    for answer in &answers {
        assert!([200, 202].contains(&answer.status), "{answer}");
        assert_eq!(answer.json()["accepted"], 20);
    }
    let status = node.is_final("orders-17").await;
    assert_eq!((count(&status, "committed"), count(&status, "duplicates")), (20, 0));
    assert_eq!(node.metrics().await.sum("forebay_events_accepted_total"), 20.0);
    assert_eq!(node.database.event_count().await, 20);
    node.finish().await;
}

#[tokio::test]
async fn same_content_in_another_coding_or_order_of_fields_is_a_repeat() {
    let node = Node::start(|_| ()).await;
    let sent = events(2);
    let list = Value::from(sent.clone()).to_string();
    let spaced = format!("{{ \"priority\": 3, \"events\" : {list}, \"batch_id\": \"orders-17\" }}");
    node.is_committed(&node.accept(Request::json(&batch_as("orders-17", &sent))).await).await;
    for request in [
        Request::json(&batch_as("orders-17", &sent)).gzip(),
        Request::json(&batch_as("orders-17", &sent)).zstd(),
        Request::post("application/json", spaced),
    ] {
        node.send(request).await.is(200);
    }
    // The events' own bytes are the content: the same events written in another way are another batch.
    let rewritten = format!("{{\"batch_id\":\"orders-17\",\"events\":{}}}", list.replacen(':', " :", 1));
    let answer = node.send(Request::post("application/json", rewritten)).await;
    answer.is_problem(409, "batch_id_reused");
    assert_eq!(node.database.event_count().await, 2);
    node.finish().await;
}

#[tokio::test]
async fn batch_sent_again_after_a_restart_lands_once() {
    let mut node = Node::start(|_| ()).await;
    let request = Request::json(&batch_as("orders-17", &events(3)));
    node.is_committed(&node.accept(request.clone()).await).await;
    node.kill();
    node.restart(|_| ()).await;

    let answer = node.send(request).await;

    assert!([200, 202].contains(&answer.status), "{answer}");
    let status = node.is_final("orders-17").await;
    assert_eq!((count(&status, "committed"), count(&status, "duplicates")), (3, 0), "the ledger tells");
    until("the repeat is settled", async || node.metrics().await.get("forebay_events_in_flight") == 0.0).await;
    node.books_balance().await;
    assert_eq!(node.database.event_count().await, 3);
    node.finish().await;
}

/// Two servers take the same batch while the sink stalls; both have acknowledged it before either writes it.
async fn same_batch_at_two_processes(redis: Option<Redis>) {
    let (first, second) = two_nodes(redis.as_ref()).await;
    let lock = first.database.lock_leaf(Month::from_now(0)).await;
    let requests: Vec<Request> =
        (0..10).map(|n| Request::json(&batch_as(&format!("orders-{n}"), &events(5)))).collect();

    let (at_first, at_second) = tokio::join!(
        futures_util::future::join_all(requests.iter().map(|request| first.send(request.clone()))),
        futures_util::future::join_all(requests.iter().map(|request| second.send(request.clone()))),
    );
    for answer in at_first.iter().chain(&at_second) {
        assert_eq!(answer.is(202)["accepted"], 5, "{answer}");
    }
    lock.is_waited_for().await;
    lock.release().await;

    for number in 0..requests.len() {
        for node in [&first, &second] {
            let status = node.is_final(&format!("orders-{number}")).await;
            assert_eq!((count(&status, "committed"), count(&status, "duplicates")), (5, 0), "{status}");
        }
    }
    first.is_idle().await;
    second.is_idle().await;
    assert_eq!(first.database.event_count().await, 50);
    assert_eq!(first.database.number("SELECT count(*) FROM batches").await, 10);
    second.finish().await;
    first.finish().await;
}

#[tokio::test]
async fn batch_sent_at_once_to_two_processes_lands_once() {
    same_batch_at_two_processes(None).await;
}

#[tokio::test]
async fn batch_sent_at_once_to_two_processes_with_redis_lands_once() {
    same_batch_at_two_processes(Some(Redis::start().await)).await;
}

#[tokio::test]
async fn repeat_at_another_process_counts_as_duplicates_there() {
    let (first, second) = two_nodes(None).await;
    let request = Request::json(&batch_as("orders-17", &events(4)));
    first.is_committed(&first.accept(request.clone()).await).await;

    let answer = second.send(request).await;

    assert!([200, 202].contains(&answer.status), "{answer}");
    second.is_idle().await;
    let metrics = second.metrics().await;
    assert_eq!(metrics.sum("forebay_events_accepted_total"), 4.0);
    assert_eq!(metrics.get("forebay_events_duplicate_total"), 4.0);
    assert_eq!(metrics.get("forebay_events_committed_total"), 0.0);
    for node in [&first, &second] {
        let status = node.is_final("orders-17").await;
        assert_eq!((count(&status, "committed"), count(&status, "duplicates")), (4, 0), "as the ledger has it");
    }
    assert_eq!(first.database.event_count().await, 4);
    second.finish().await;
    first.finish().await;
}

#[tokio::test]
async fn redis_lets_another_process_know_a_repeat_and_a_reuse() {
    let redis = Redis::start().await;
    let (first, second) = two_nodes(Some(&redis)).await;
    let request = Request::json(&batch_as("orders-17", &events(4)));
    first.is_committed(&first.accept(request.clone()).await).await;
    until("Redis has the final status", async || {
        let keys = redis.keys("forebay:*orders-17*").await;
        match keys.first() {
            Some(key) => redis.value(key).await.0.contains("completed"),
            None => false,
        }
    })
    .await;

    // A look into Redis may take 5 ms at most, and slips past then: that is allowed, and told by the 202.
    until("the repeat is answered from Redis", async || second.send(request.clone()).await.status == 200).await;
    until("the reuse is answered from Redis", async || {
        let other = Request::json(&batch_as("orders-17", &events(1)));
        second.send(other).await.status == 409
    })
    .await;

    second.is_idle().await;
    assert_eq!(
        first
            .database
            .number(
                "SELECT count(*) FROM events WHERE batch = (SELECT batch FROM batches WHERE batch_id = 'orders-17')"
            )
            .await,
        4
    );
    second.finish().await;
    first.finish().await;
}

#[tokio::test]
async fn events_that_only_another_process_accepted_are_added_and_the_counts_raised() {
    // One server takes a month less than the other: so it accepts fewer events of the same batch.
    let strict = Node::start(|settings| {
        settings.set("EVENT_MAX_AGE_DAYS", 40);
    })
    .await;
    let lenient = Node::on(&strict.database, |settings| {
        settings.set("EVENT_MAX_AGE_DAYS", 400);
    })
    .await;
    let sent = [event(), event_at(&Month::from_now(-4).noon(15)), event()];
    let request = Request::json(&batch_as("orders-17", &sent));

    let at_strict = strict.send(request.clone()).await.is(202);
    assert_eq!((count(&at_strict, "accepted"), count(&at_strict, "rejected")), (2, 1));
    strict.is_final("orders-17").await;
    let at_lenient = lenient.send(request).await;
    assert!([200, 202].contains(&at_lenient.status), "{at_lenient}");
    lenient.is_idle().await;

    assert_eq!(strict.database.event_count().await, 3, "each accepted event is there");
    let row = strict.database.ledger("orders-17", "received, accepted, committed, duplicates, quarantined").await;
    let row: Vec<u64> = row.iter().map(|column| column.as_ref().unwrap().parse().unwrap()).collect();
    assert_eq!((row[0], row[1]), (3, 3), "{row:?}");
    assert_eq!(row[2] + row[3] + row[4], row[1], "{row:?}");
    assert_eq!(row[2], 3, "{row:?}");
    assert_eq!(count(&lenient.is_final("orders-17").await, "accepted"), 3);
    lenient.books_balance().await;
    lenient.finish().await;
    strict.finish().await;
}

#[tokio::test]
async fn fewer_accepted_events_at_another_process_change_nothing() {
    let lenient = Node::start(|settings| {
        settings.set("EVENT_MAX_AGE_DAYS", 400);
    })
    .await;
    let strict = Node::on(&lenient.database, |settings| {
        settings.set("EVENT_MAX_AGE_DAYS", 40);
    })
    .await;
    let sent = [event(), event_at(&Month::from_now(-4).noon(15)), event()];
    let request = Request::json(&batch_as("orders-17", &sent));
    lenient.is_committed(&lenient.accept(request.clone()).await).await;

    let answer = strict.send(request).await;

    assert!([200, 202].contains(&answer.status), "{answer}");
    strict.is_idle().await;
    assert_eq!(strict.database.event_count().await, 3);
    let row = strict.database.ledger("orders-17", "accepted, committed, duplicates, quarantined").await;
    assert_eq!(row.iter().map(|column| column.as_deref().unwrap()).collect::<Vec<_>>(), ["3", "3", "0", "0"]);
    strict.books_balance().await;
    strict.finish().await;
    lenient.finish().await;
}

#[tokio::test]
async fn other_content_that_was_acknowledged_goes_to_quarantine() {
    let (first, second) = two_nodes(None).await;
    let lock = first.database.lock_leaf(Month::from_now(0)).await;
    let (one, other) = (events(3), events(2));
    first.accept(Request::json(&batch_as("orders-17", &one))).await;
    second.accept(Request::json(&batch_as("orders-17", &other))).await;
    lock.is_waited_for().await;
    lock.release().await;
    first.is_idle().await;
    second.is_idle().await;

    let stored = first.database.event_ids().await;
    let quarantined = first
        .database
        .texts("SELECT event_id FROM quarantine WHERE reason = 'batch_id_reused' AND batch_id = 'orders-17' ORDER BY 1")
        .await;
    let ids = |events: &[Value]| {
        let mut ids: Vec<String> = events.iter().map(crate::harness::events::id).collect();
        ids.sort();
        ids
    };
    let (winner, loser) = if stored == ids(&one) { (&one, &other) } else { (&other, &one) };
    assert_eq!((stored, quarantined), (ids(winner), ids(loser)));
    let total: f64 = [first.metrics().await, second.metrics().await]
        .iter()
        .map(|metrics| metrics.get(r#"forebay_events_quarantined_total{reason="batch_id_reused"}"#))
        .sum();
    assert_eq!(total, loser.len() as f64);
    // What lies in quarantine is the event as it was sent.
    let kept = first.database.texts("SELECT convert_from(event, 'UTF8') FROM quarantine ORDER BY index").await;
    for (kept, sent) in kept.iter().zip(loser) {
        let kept: Value = serde_json::from_str(kept).unwrap();
        assert_eq!((&kept["event_id"], &kept["payload"]), (&sent["event_id"], &sent["payload"]));
    }
    first.books_balance().await;
    second.books_balance().await;
    second.finish().await;
    first.finish().await;
}

#[tokio::test]
async fn event_in_several_batches_is_stored_once() {
    let node = Node::start(|_| ()).await;
    let shared = event();
    let first = node.ingest(&[shared.clone(), event()]).await;
    node.is_committed(&first).await;

    let second = node.ingest(&[event(), shared.clone(), shared.clone()]).await;

    let status = node.is_final(second["batch_id"].as_str().unwrap()).await;
    assert_eq!((count(&status, "committed"), count(&status, "duplicates")), (1, 2));
    assert_eq!(status["status"], "completed");
    assert_eq!(node.database.event_count().await, 3);
    // The same id at another moment, or of another service, is another event.
    let mut elsewhere = shared.clone();
    elsewhere["service_name"] = json!("billing");
    let mut later = shared;
    later["timestamp"] = json!(Month::from_now(-1).noon(3));
    node.is_committed(&node.ingest(&[elsewhere, later]).await).await;
    assert_eq!(node.database.event_count().await, 5);
    node.finish().await;
}

#[tokio::test]
async fn doubles_within_a_batch_are_accepted_and_counted_as_duplicates() {
    let node = Node::start(|_| ()).await;
    let doubled = event();
    let receipt = node.ingest(&[doubled.clone(), event(), doubled.clone(), doubled]).await;
    assert_eq!(receipt["accepted"], 4);
    let status = node.is_final(receipt["batch_id"].as_str().unwrap()).await;
    assert_eq!((count(&status, "committed"), count(&status, "duplicates")), (2, 2));
    assert_eq!(node.database.event_count().await, 2);
    node.finish().await;
}

#[tokio::test]
async fn overlapping_batches_at_two_processes_land_each_event_once() {
    let (first, second) = two_nodes(None).await;
    let months = [Month::from_now(0), Month::from_now(-1)];
    let shared: Vec<Value> = (0..200).map(|n| event_at(&months[n % 2].noon(1))).collect();
    let lock = first.database.lock_leaf(months[0]).await;
    let sends = (0..10).map(|n| {
        let mut part: Vec<Value> = shared.iter().skip(n * 10).step_by(2).cloned().collect();
        // Opposite orders: what a deadlock needs.
        if n % 2 == 1 {
            part.reverse();
        }
        let node = if n % 2 == 0 { &first } else { &second };
        async move { node.accept(Request::json(&batch_as(&unique("overlap"), &part))).await }
    });
    futures_util::future::join_all(sends).await;
    lock.is_waited_for().await;
    lock.release().await;
    first.is_idle().await;
    second.is_idle().await;

    let ids = first.database.event_ids().await;
    let mut distinct = ids.clone();
    distinct.dedup();
    assert_eq!(ids.len(), distinct.len());
    let sums = "SELECT sum(accepted), sum(committed), sum(duplicates), sum(quarantined) FROM batches";
    let sums = &first.database.query(sums).await[0];
    let sum = |n: usize| sums[n].as_ref().unwrap().parse::<u64>().unwrap();
    assert_eq!(sum(1), ids.len() as u64);
    assert_eq!((sum(0), sum(3)), (sum(1) + sum(2), 0));
    second.finish().await;
    first.finish().await;
}
