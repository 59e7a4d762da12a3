//! What the flusher does about a leaf that is missing, detached, half-made or locked.

use std::sync::Arc;

use crate::harness::{
    client::Request,
    database::Database,
    events::{batch_as, event_at, events, events_at},
    eventually::until,
    month::Month,
    node::Node,
};

/// Returns the leaves that are attached.
async fn leaves(database: &Database) -> Vec<String> {
    database.texts("SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'events'::regclass ORDER BY 1").await
}

async fn count_in(database: &Database, month: Month) -> i64 {
    database.number(&format!("SELECT count(*) FROM {}", month.leaf())).await
}

/// Waits until the flusher has met that class of trouble.
async fn has_met(node: &Node, class: &str) {
    until(&format!("{class} has struck"), async || node.errors(class).await > 0.0).await;
}

#[tokio::test]
async fn leaves_are_made_ahead_at_start() {
    let database = Arc::new(Database::empty().await);
    let node = Node::on(&database, |settings| {
        settings.flag("--migrate").set("PARTITIONS_AHEAD", 5);
    })
    .await;
    drop(database);
    until("the leaves are there", async || leaves(&node.database).await.len() >= 6).await;
    let expected: Vec<String> = (0..=5).map(|months| Month::from_now(months).leaf()).collect();
    let made = leaves(&node.database).await;
    assert!(expected.iter().all(|leaf| made.contains(leaf)), "{made:?}");
    until("the metric tells it", async || node.metrics().await.get("forebay_partitions_ahead") == 5.0).await;
    let bounds = format!("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = '{}'", expected[5]);
    let bounds = node.database.texts(&format!("SET timezone = 'UTC'; {bounds}")).await.remove(0);
    let month = Month::from_now(5);
    assert_eq!(bounds, format!("FOR VALUES FROM ('{}') TO ('{}')", month.bound(), month.next().bound()));
    node.finish().await;
}

#[tokio::test]
async fn batch_of_two_months_lands_in_two_leaves() {
    let node = Node::start(|_| ()).await;
    let (this, last) = (Month::from_now(0), Month::from_now(-1));
    let edge = format!("{}-01T00:00:00Z", this.text());
    let just_before: jiff::Timestamp = edge.parse().unwrap();
    let just_before = (just_before - jiff::SignedDuration::from_micros(1)).to_string();
    let sent = [
        event_at(&edge),
        event_at(&just_before),
        event_at(&last.noon(5)),
        event_at(&format!("{}-01T00:30:00+01:00", this.text())),
    ];

    let receipt = node.ingest(&sent).await;

    node.is_committed(&receipt).await;
    assert_eq!((count_in(&node.database, this).await, count_in(&node.database, last).await), (1, 3));
    assert_eq!(node.database.event_count().await, 4);
    let span = node
        .database
        .ledger(receipt["batch_id"].as_str().unwrap(), "first_timestamp < last_timestamp, committed")
        .await;
    assert_eq!(span, [Some("t".to_owned()), Some("4".to_owned())]);
    node.finish().await;
}

#[tokio::test]
async fn missing_leaf_is_made_on_demand() {
    let node = Node::start(|_| ()).await;
    let months: Vec<Month> = (4..10).map(|back| Month::from_now(-back)).collect();
    assert!(!leaves(&node.database).await.contains(&months[0].leaf()));
    let sent: Vec<_> = months.iter().map(|month| event_at(&month.noon(28))).collect();
    let receipt = node.ingest(&sent).await;
    node.is_committed(&receipt).await;
    has_met(&node, "missing_leaf").await;
    let made = leaves(&node.database).await;
    for month in &months {
        assert!(made.contains(&month.leaf()), "{made:?}");
        assert_eq!(count_in(&node.database, *month).await, 1);
    }
    node.finish().await;
}

#[tokio::test]
async fn leaf_that_is_dropped_under_load_is_made_again() {
    let node = Node::start(|_| ()).await;
    let month = Month::from_now(0);
    for round in 0..5 {
        for _ in 0..10 {
            node.ingest(&events(3)).await;
        }
        if round < 3 {
            node.is_idle().await;
            node.database.query(&format!("DROP TABLE {}", month.leaf())).await;
        }
    }
    node.is_idle().await;
    has_met(&node, "missing_leaf").await;
    assert_eq!(node.database.event_count().await, 60, "what came after the last drop");
    assert_eq!(node.database.number("SELECT sum(committed) FROM batches").await, 150);
    node.finish().await;
}

#[tokio::test]
async fn detached_leaf_swallows_no_rows() {
    let node = Node::start(|_| ()).await;
    let month = Month::from_now(-2);
    node.is_committed(&node.ingest(&events_at(&month.noon(1), 2)).await).await;
    // Empty it, or the table in the way would hold rows, and the month would be parked.
    let leaf = month.leaf();
    node.database.query(&format!("DELETE FROM {leaf}; ALTER TABLE events DETACH PARTITION {leaf}")).await;

    let receipt = node.ingest(&events_at(&month.noon(2), 3)).await;

    node.is_committed(&receipt).await;
    has_met(&node, "detached_leaf").await;
    assert!(leaves(&node.database).await.contains(&leaf), "the empty table is a leaf again");
    assert_eq!(node.database.event_count().await, 3);
    assert_eq!(count_in(&node.database, month).await, 3);
    node.finish().await;
}

#[tokio::test]
async fn flush_that_waited_behind_a_detach_swallows_no_rows() {
    let node = Node::start(|_| ()).await;
    let month = Month::from_now(-2);
    node.is_committed(&node.ingest(&events_at(&month.noon(1), 1)).await).await;
    let leaf = month.leaf();
    node.database.query(&format!("DELETE FROM {leaf}")).await;
    // The detach is not committed while the flush already waits for the leaf: a check made before the lock would pass.
    let session = node.database.open().await;
    session.query(&format!("BEGIN; ALTER TABLE events DETACH PARTITION {leaf}")).await;
    let receipt = node.ingest(&events_at(&month.noon(2), 3)).await;
    let waits = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IN ('{leaf}'::regclass, 'events'::regclass)"
    );
    until("the flush waits", async || node.database.number(&waits).await > 0).await;
    session.query("COMMIT").await;

    node.is_committed(&receipt).await;

    assert_eq!(node.database.event_count().await, 3, "all are in the table, none in a detached one");
    node.finish().await;
}

/// Makes a table of that month's leaf's name that is no leaf; expects that it parks the month, that another month
/// commits meanwhile, and that all lands once `mend` has run.
async fn half_made_leaf_parks_its_month(make: &str, mend: &str) {
    let node = Node::start(|_| ()).await;
    let month = Month::from_now(-2);
    let fill = |sql: &str| {
        sql.replace("LEAF", &month.leaf())
            .replace("FROM_BOUND", &month.bound())
            .replace("TO_BOUND", &month.next().bound())
            .replace("NOON", &month.noon(3))
    };
    node.database.query(&fill(make)).await;

    node.accept(Request::json(&batch_as("parked", &events_at(&month.noon(1), 3)))).await;
    has_met(&node, "detached_leaf").await;
    for _ in 0..5 {
        node.is_committed(&node.ingest(&events(2)).await).await;
    }
    let status = node.status("parked").await;
    assert_eq!(status["status"], "processing", "{status}");
    assert_eq!(status["last_error"], "detached_leaf", "{status}");
    assert_eq!(node.database.number("SELECT count(*) FROM events WHERE event_type = 'order.paid'").await, 10);

    node.database.query(&fill(mend)).await;
    assert_eq!(node.is_final("parked").await["committed"], 3);
    node.finish().await;
}

#[tokio::test]
async fn leaf_without_the_unique_index_parks_its_month() {
    half_made_leaf_parks_its_month(
        "CREATE TABLE LEAF (LIKE events INCLUDING DEFAULTS);
         ALTER TABLE events ATTACH PARTITION LEAF FOR VALUES FROM ('FROM_BOUND') TO ('TO_BOUND');
         ALTER TABLE events DETACH PARTITION LEAF;
         DO $$ DECLARE i record; BEGIN
             FOR i IN SELECT indexrelid::regclass AS name FROM pg_index WHERE indrelid = 'LEAF'::regclass LOOP
                 EXECUTE 'ALTER TABLE LEAF DROP CONSTRAINT IF EXISTS ' || i.name;
                 EXECUTE 'DROP INDEX IF EXISTS ' || i.name;
             END LOOP;
         END $$;
         INSERT INTO LEAF (event_id, service_name, event_type, \"timestamp\", received_at, batch, priority, payload)
             VALUES ('old', 's', 't', 'NOON', now(), gen_random_uuid(), 0, '{}')",
        "DROP TABLE LEAF",
    )
    .await;
}

#[tokio::test]
async fn table_with_rows_in_the_way_parks_its_month() {
    half_made_leaf_parks_its_month(
        "CREATE TABLE LEAF (LIKE events INCLUDING ALL);
         INSERT INTO LEAF (event_id, service_name, event_type, \"timestamp\", received_at, batch, priority, payload)
             VALUES ('old', 's', 't', 'NOON', now(), gen_random_uuid(), 0, '{}')",
        "ALTER TABLE events ATTACH PARTITION LEAF FOR VALUES FROM ('FROM_BOUND') TO ('TO_BOUND')",
    )
    .await;
}

#[tokio::test]
async fn empty_table_in_the_way_is_attached() {
    let node = Node::start(|_| ()).await;
    let month = Month::from_now(-2);
    node.database.query(&format!("CREATE TABLE {} (LIKE events INCLUDING ALL)", month.leaf())).await;
    let receipt = node.ingest(&events_at(&month.noon(1), 3)).await;
    node.is_committed(&receipt).await;
    assert!(leaves(&node.database).await.contains(&month.leaf()));
    assert_eq!(node.database.event_count().await, 3);
    node.finish().await;
}

/// Locks a month for longer than a lock's time-out; expects that another month's batches commit meanwhile.
async fn locked_month(copy_timeout_seconds: u32) {
    let node = Node::start(|settings| {
        settings.set("FLUSH_WORKERS", 2).set("COPY_TIMEOUT_SECONDS", copy_timeout_seconds);
    })
    .await;
    let (locked, other) = (Month::from_now(-1), Month::from_now(0));
    node.is_committed(&node.ingest(&events_at(&locked.noon(1), 1)).await).await;
    let lock = node.database.lock_leaf(locked).await;
    for number in 0..20 {
        let request = Request::json(&batch_as(&format!("locked-{number}"), &events_at(&locked.noon(2), 2)));
        node.accept(request).await;
    }
    lock.is_waited_for().await;
    let struck = async || node.errors("lock").await + node.errors("deadline").await > 0.0;
    until("the lock was not got in time", struck).await;
    // More than the lanes could carry if each held a flush of the locked month.
    for _ in 0..20 {
        node.is_committed(&node.ingest(&events_at(&other.noon(1), 2)).await).await;
    }
    assert_eq!(count_in(&node.database, other).await, 40);
    let landed = "SELECT count(*) FROM batches WHERE batch_id LIKE 'locked-%'";
    assert_eq!(node.database.number(landed).await, 0);
    lock.release().await;
    for number in 0..20 {
        assert_eq!(node.is_final(&format!("locked-{number}")).await["committed"], 2);
    }
    assert_eq!(count_in(&node.database, locked).await, 41);
    node.finish().await;
}

#[tokio::test]
async fn locked_month_waits_while_other_months_commit() {
    locked_month(30).await;
}

#[tokio::test]
async fn locked_month_waits_while_other_months_commit_also_when_a_copy_may_take_a_second() {
    locked_month(1).await;
}
