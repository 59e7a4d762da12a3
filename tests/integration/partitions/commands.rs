//! The commands that make, prune and list leaves, and what pruning means for the door.

use std::sync::Arc;

use crate::harness::{
    answer::assert_errors,
    client::Request,
    command::{Said, forebay},
    database::Database,
    events::{batch, event, event_at, events_at},
    eventually::until,
    folder::temporary,
    month::Month,
    node::Node,
};

async fn run(database: &Database, arguments: &[&str]) -> Said {
    forebay(arguments).env("DATABASE_URL", database.url()).run().await
}

async fn has_leaf(database: &Database, month: Month) -> bool {
    let sql = format!(
        "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'events'::regclass AND c.relname = '{}'",
        month.leaf()
    );
    database.number(&sql).await == 1
}

async fn table_exists(database: &Database, month: Month) -> bool {
    let sql = format!("SELECT count(*) FROM pg_class WHERE relname = '{}'", month.leaf());
    database.number(&sql).await == 1
}

#[tokio::test]
async fn create_makes_a_month_and_an_existing_one_is_fine() {
    let database = Database::create().await;
    for (spelling, month) in
        [(&["partitions", "create"][..], Month::from_now(-30)), (&["create_partition"], Month::from_now(-31))]
    {
        assert!(!has_leaf(&database, month).await);
        for _ in 0..2 {
            run(&database, &[spelling, &["--month", &month.text()]].concat()).await.succeeded();
            assert!(has_leaf(&database, month).await);
        }
    }
    let indexes = format!(
        "SELECT count(*) FROM pg_index WHERE indrelid = '{}'::regclass AND indisvalid",
        Month::from_now(-30).leaf()
    );
    assert_eq!(database.number(&indexes).await, 2);
    database.remove().await;
}

#[tokio::test]
async fn bad_month_is_exit_code_2() {
    let database = Database::create().await;
    for month in ["2024-13", "2024-00", "2024", "24-01", "2024-1-1", "february", "", "2024-02-30"] {
        let said = run(&database, &["partitions", "create", "--month", month]).await.ended_with(2);
        assert!(said.stderr.contains("month"), "{said:#?}");
    }
    for age in ["3", "months", "3weeks-", "-1months", ""] {
        run(&database, &["partitions", "cleanup", "--older-than", age]).await.ended_with(2);
    }
    run(&database, &["partitions", "create"]).await.ended_with(2);
    run(&database, &["partitions", "nonsense"]).await.ended_with(2);
    database.remove().await;
}

#[tokio::test]
async fn no_database_is_exit_code_1_and_no_address_2() {
    let arguments = ["partitions", "create", "--month", "2024-02"];
    let nobody = format!("postgresql://postgres@127.0.0.1:{}/x", crate::harness::postgres::free_port());
    let said = forebay(&arguments).env("DATABASE_URL", nobody).run().await.ended_with(1);
    assert!(!said.stderr.trim().is_empty());
    let folder = temporary("files");
    let said = forebay(&arguments).at(folder.path()).run().await.ended_with(2);
    assert!(said.stderr.contains("DATABASE_URL"), "{said:#?}");
}

#[tokio::test]
async fn list_shows_each_leaf() {
    let database = Database::create().await;
    run(&database, &["partitions", "create", "--month", "2024-02"]).await.succeeded();
    let said = run(&database, &["partitions", "list"]).await.succeeded();
    for month in ["2024_02".to_owned(), Month::from_now(0).leaf(), Month::from_now(3).leaf()] {
        assert!(
            said.stdout.contains(&month) || said.stdout.contains(&month.replace("events_", "").replace('_', "-")),
            "{month} in {}",
            said.stdout
        );
    }
    database.remove().await;
}

#[tokio::test]
async fn cleanup_drops_what_is_older_and_dry_run_drops_nothing() {
    let database = Database::create().await;
    let (old, edge) = (Month::from_now(-5), Month::from_now(-2));
    for spelling in [&["partitions", "cleanup"][..], &["cleanup_partitions"]] {
        for month in [old, edge] {
            run(&database, &["partitions", "create", "--month", &month.text()]).await.succeeded();
        }
        let arguments = [spelling, &["--older-than", "3months"]].concat();
        let said = run(&database, &[&arguments[..], &["--dry-run"]].concat()).await.succeeded();
        assert!(said.stdout.contains(&old.leaf()) || said.stdout.contains(&old.text()), "{said:#?}");
        assert!(has_leaf(&database, old).await, "a dry run drops nothing");
        run(&database, &arguments).await.succeeded();
        assert!(!table_exists(&database, old).await);
        assert!(has_leaf(&database, edge).await && has_leaf(&database, Month::from_now(0)).await);
        run(&database, &arguments).await.succeeded();
    }
    database.remove().await;
}

#[tokio::test]
async fn cleanup_shorter_than_the_retention_drops_nothing_and_fails() {
    let database = Database::create().await;
    let month = Month::from_now(-5);
    run(&database, &["partitions", "create", "--month", &month.text()]).await.succeeded();
    for age in ["3months", "90days"] {
        let said = forebay(&["partitions", "cleanup", "--older-than", age])
            .env("DATABASE_URL", database.url())
            .env("PARTITION_RETENTION", "12months")
            .run()
            .await
            .ended_with(1);
        assert!(said.stderr.to_lowercase().contains("retention"), "{said:#?}");
        assert!(has_leaf(&database, month).await);
    }
    database.remove().await;
}

#[tokio::test]
async fn maintain_makes_ahead_and_prunes_by_the_retention() {
    let database = Database::create().await;
    let (old, kept) = (Month::from_now(-14), Month::from_now(-11));
    for month in [old, kept] {
        run(&database, &["partitions", "create", "--month", &month.text()]).await.succeeded();
    }
    let maintain = || {
        forebay(&["partitions", "maintain"])
            .env("DATABASE_URL", database.url())
            .env("PARTITIONS_AHEAD", 7)
            .env("PARTITION_RETENTION", "12months")
    };
    // Two at once, as two jobs would.
    let (first, second) = tokio::join!(maintain().run(), maintain().run());
    first.succeeded();
    second.succeeded();
    assert!(!table_exists(&database, old).await);
    assert!(has_leaf(&database, kept).await && has_leaf(&database, Month::from_now(7)).await);
    database.remove().await;
}

#[tokio::test]
async fn maintain_goes_on_beside_a_locked_month() {
    let database = Database::create().await;
    let lock = database.lock_leaf(Month::from_now(0)).await;
    forebay(&["partitions", "maintain"])
        .env("DATABASE_URL", database.url())
        .env("PARTITIONS_AHEAD", 6)
        .run()
        .await
        .succeeded();
    lock.release().await;
    assert!(has_leaf(&database, Month::from_now(6)).await);
    database.remove().await;
}

#[tokio::test]
async fn pruned_month_is_refused_at_the_door_until_it_is_made_again() {
    let node = Node::start(|_| ()).await;
    let (pruned, kept) = (Month::from_now(-6), Month::from_now(-2));
    node.is_committed(&node.ingest(&[event_at(&pruned.noon(1)), event_at(&kept.noon(1))]).await).await;
    run(&node.database, &["partitions", "cleanup", "--older-than", "3months"]).await.succeeded();
    assert!(!table_exists(&node.database, pruned).await);

    let refused = [event_at(&pruned.noon(2)), event_at(&Month::from_now(-9).noon(2))];
    until("the door knows it", async || node.send(Request::json(&batch(&refused))).await.status == 422).await;
    let answer = node.send(Request::json(&batch(&[refused[0].clone(), event()]))).await;
    assert_errors(&answer.is(202)["errors"], &[(0, "timestamp_too_old", "/events/0/timestamp")]);
    assert!(!table_exists(&node.database, pruned).await, "a late event makes no pruned leaf");

    run(&node.database, &["partitions", "create", "--month", &pruned.text()]).await.succeeded();
    until("the door knows that too", async || node.send(Request::json(&batch(&refused[..1]))).await.status == 202)
        .await;
    node.is_idle().await;
    let stored = format!("SELECT count(*) FROM {}", pruned.leaf());
    assert!(node.database.number(&stored).await > 0);
    node.finish().await;
}

#[tokio::test]
async fn acknowledged_event_of_a_month_pruned_meanwhile_goes_to_quarantine() {
    let database = Arc::new(Database::create().await);
    let mut node = Node::on(&database, |_| ()).await;
    drop(database);
    let pruned = Month::from_now(-6);
    run(&node.database, &["partitions", "create", "--month", &pruned.text()]).await.succeeded();
    let lock = node.database.lock("batches").await;
    let receipt = node.ingest(&events_at(&pruned.noon(1), 2)).await;
    lock.is_waited_for().await;
    node.kill();
    lock.release().await;
    run(&node.database, &["partitions", "cleanup", "--older-than", "3months"]).await.succeeded();
    node.restart(|_| ()).await;

    let status = node.is_final(receipt["batch_id"].as_str().unwrap()).await;

    assert_eq!((&status["status"], &status["quarantined"]), (&"failed".into(), &2.into()), "{status}");
    assert!(!table_exists(&node.database, pruned).await);
    assert_eq!(node.database.number("SELECT count(*) FROM quarantine").await, 2);
    node.finish().await;
}

#[tokio::test]
async fn retention_narrows_the_window_of_the_door() {
    let node = Node::start(|settings| {
        settings.set("PARTITION_RETENTION", "3months");
    })
    .await;
    let sent = [event_at(&Month::from_now(-6).noon(1)), event()];
    let receipt = node.send(Request::json(&batch(&sent))).await.is(202);
    assert_errors(&receipt["errors"], &[(0, "timestamp_too_old", "/events/0/timestamp")]);
    node.is_committed(&receipt).await;
    node.finish().await;
}
