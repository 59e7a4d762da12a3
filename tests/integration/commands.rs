//! The small commands: `migrate`, `config`, `healthcheck`, `openapi`.

use std::sync::Arc;

use crate::harness::{command::forebay, database::Database, events::events, eventually::until, node::Node};

#[tokio::test]
async fn migrate_runs_once_however_many_run_it_at_once() {
    let database = Database::empty().await;
    let migrate = || forebay(&["migrate"]).env("DATABASE_URL", database.url()).run();
    let all = futures_util::future::join_all((0..5).map(|_| migrate())).await;
    all.into_iter().for_each(|said| drop(said.succeeded()));
    migrate().await.succeeded();
    for table in ["events", "batches", "quarantine"] {
        let columns = format!("SELECT count(*) FROM information_schema.columns WHERE table_name = '{table}'");
        assert!(database.number(&columns).await >= 10, "{table}");
    }
    database.remove().await;
}

#[tokio::test]
async fn server_without_tables_takes_batches_but_is_not_ready_until_they_are_there() {
    let database = Arc::new(Database::empty().await);
    let node = Node::unready(&database, |_| ()).await;
    drop(database);
    let receipt = node.ingest(&events(3)).await;
    assert_eq!(node.probe("/readyz").await, Some(503));
    until("health tells what to do", async || {
        let health = node.health().await.is(200);
        let detail = health["checks"]["database"]["detail"].as_str().unwrap_or_default().to_owned();
        health["status"] == "degraded" && detail.contains("migrate")
    })
    .await;

    forebay(&["migrate"]).env("DATABASE_URL", node.database.url()).run().await.succeeded();

    node.is_ready().await;
    node.is_committed(&receipt).await;
    node.finish().await;
}

#[tokio::test]
async fn serve_migrates_when_told_to_while_others_do_too() {
    let database = Arc::new(Database::empty().await);
    let start = || {
        Node::on(&database, |settings| {
            settings.flag("--migrate");
        })
    };
    let (first, second) = tokio::join!(start(), start());
    first.is_committed(&first.ingest(&events(2)).await).await;
    second.is_committed(&second.ingest(&events(2)).await).await;
    drop(database);
    second.finish().await;
    first.finish().await;
}

#[tokio::test]
async fn config_shows_what_is_in_force_and_no_secret() {
    let said = forebay(&["config"])
        .env("DATABASE_URL", "postgresql://app:hunter2@db.example/forebay")
        .env("REDIS_URL", "redis://:hunter3@redis.example/")
        .env("BATCH_SIZE", 77)
        .run()
        .await
        .succeeded();
    assert!(said.stdout.contains("BATCH_SIZE=77") && said.stdout.contains("FLUSH_WORKERS=4"), "{said:#?}");
    let all = said.stdout + &said.stderr;
    assert!(!all.contains("hunter"), "{all}");
    forebay(&["config"]).env("DATABASE_URL", "postgresql://db/x").env("BATCH_SIZE", 0).run().await.ended_with(2);
}

#[tokio::test]
async fn healthcheck_is_0_only_when_the_server_is_ready() {
    let mut node = Node::start(|settings| {
        settings.set("DRAIN_DELAY_SECONDS", 3600);
    })
    .await;
    let port = node.admin().rsplit(':').next().unwrap().to_owned();
    let check = || forebay(&["healthcheck"]).env("ADMIN_PORT", &port).run();
    check().await.succeeded();
    node.process().signal(rustix::process::Signal::TERM);
    until("it is not ready", async || node.probe("/readyz").await == Some(503)).await;
    check().await.ended_with(1);
    node.kill();
    check().await.ended_with(1);
}

#[tokio::test]
async fn openapi_needs_no_settings() {
    let said = forebay(&["openapi"]).run().await.succeeded();
    let document: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
}
