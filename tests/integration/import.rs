//! `forebay import` sends a file through the HTTP API, once, however often it is interrupted or run again.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    client::{gzip, zstd},
    command::{PROGRAM, Said, forebay},
    events::{event, event_with, events, events_at, ndjson},
    eventually::until,
    folder::temporary,
    month::Month,
    node::Node,
    process::Process,
};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/events_sample.csv");

/// A server that takes events of 2013, and a folder for files.
async fn scene() -> (Node, TempDir) {
    let node = Node::start(|settings| {
        settings.set("EVENT_MAX_AGE_DAYS", 10_000);
    })
    .await;
    (node, temporary("files"))
}

fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

async fn import(node: &Node, file: &Path, more: &[&str]) -> Said {
    let url = format!("http://{}", node.api());
    let arguments = [&["import", file.to_str().unwrap(), "--url", &url], more].concat();
    forebay(&arguments).run().await
}

/// Asserts the counts that an import ends with.
fn ends_with(said: &Said, counts: &[(&str, usize)]) {
    let text = format!("{}\n{}", said.stdout, said.stderr);
    for (name, count) in counts {
        assert_eq!(told(&text, name), Some(*count), "{name} in {said:#?}");
    }
}

/// Returns the count that follows that word: `committed: 5,`.
fn told(text: &str, name: &str) -> Option<usize> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let at =
        words.iter().position(|word| word.strip_suffix(':').map(|word| word.trim_end_matches('s')) == Some(name))?;
    words.get(at + 1)?.trim_end_matches([',', ';']).parse().ok()
}

fn progress_file(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.forebay-import", file.display()))
}

#[tokio::test]
async fn sample_lands_and_a_second_run_finds_only_duplicates() {
    let (node, folder) = scene().await;
    let sample = std::fs::read(SAMPLE).expect("the sample is in the repository");
    let rows = String::from_utf8_lossy(&sample).lines().count() - 1;
    let file = write(&folder, "events_sample.csv", &sample);

    let first = import(&node, &file, &[]).await.succeeded();
    let second = import(&node, &file, &[]).await.succeeded();

    ends_with(&first, &[("accepted", rows), ("committed", rows), ("duplicate", 0), ("rejected", 0)]);
    ends_with(&second, &[("accepted", rows), ("committed", 0), ("duplicate", rows), ("rejected", 0)]);
    assert_eq!(node.database.event_count().await, rows as i64);
    assert!(!progress_file(&file).exists(), "the progress is removed at the end");
    let services = node.database.texts("SELECT DISTINCT service_name FROM events").await;
    assert_eq!(services, ["events_sample"], "the file's name without its ending");
    node.finish().await;
}

#[tokio::test]
async fn csv_columns_become_the_fields_of_an_event() {
    let (node, folder) = scene().await;
    let csv = "event_id,occurred_at,user_id,event_type,properties_json\n\
               a,2024-01-31T23:59:59.5Z,anna,\"quoted, type\",\"{\"\"n\"\":1,\"\"text\"\":\"\"x\"\"}\"\n\
               b,2024-02-01T00:00:00+01:00,,plain,{}\n";
    let file = write(&folder, "orders.eu.csv", csv.as_bytes());

    import(&node, &file, &["--service-name", "shop", "--priority", "7"]).await.succeeded();

    let rows = node
        .database
        .query("SET timezone = 'UTC'; SELECT event_id, \"timestamp\", user_id, event_type, payload, service_name, priority FROM events ORDER BY 1")
        .await;
    let rows: Vec<Vec<&str>> =
        rows.iter().map(|row| row.iter().map(|text| text.as_deref().unwrap_or("-")).collect()).collect();
    assert_eq!(
        rows[0],
        ["a", "2024-01-31 23:59:59.5+00", "anna", "quoted, type", "{\"n\": 1, \"text\": \"x\"}", "shop", "7"]
    );
    assert_eq!(rows[1], ["b", "2024-01-31 23:00:00+00", "-", "plain", "{}", "shop", "7"]);
    node.finish().await;
}

#[tokio::test]
async fn each_ending_is_read() {
    let (node, folder) = scene().await;
    let mut sent = 0;
    for compress in [None, Some(("gz", gzip as fn(&[u8]) -> Vec<u8>)), Some(("zst", zstd))] {
        let plain = ndjson(&events(100));
        let (name, bytes) = match compress {
            None => ("plain.ndjson".to_owned(), plain),
            Some((ending, compress)) => (format!("packed.ndjson.{ending}"), compress(&plain)),
        };
        let said = import(&node, &write(&folder, &name, &bytes), &[]).await.succeeded();
        ends_with(&said, &[("committed", 100)]);
        sent += 100;
        assert_eq!(node.database.event_count().await, sent);
    }
    let csv = "event_id,occurred_at,user_id,event_type,properties_json\na,2024-01-31T23:59:59Z,,t,{}\n";
    for (name, bytes) in [("a.csv.gz", gzip(csv.as_bytes())), ("b.csv.zst", zstd(csv.as_bytes()))] {
        import(&node, &write(&folder, name, &bytes), &[]).await.succeeded();
    }
    let services = node.database.texts("SELECT service_name FROM events WHERE event_id = 'a' ORDER BY 1").await;
    assert_eq!(services, ["a", "b"]);
    node.finish().await;
}

#[tokio::test]
async fn standard_input_is_read() {
    let (node, _folder) = scene().await;
    let url = format!("http://{}", node.api());
    let said = forebay(&["import", "-", "--url", &url]).input(&ndjson(&events(30))).run().await.succeeded();
    ends_with(&said, &[("committed", 30)]);
    assert_eq!(node.database.event_count().await, 30);
    node.finish().await;
}

#[tokio::test]
async fn interrupted_import_resumes_and_lands_each_event_once() {
    let (node, folder) = scene().await;
    let month = Month::from_now(0);
    let sent: Vec<Value> = events_at(&month.noon(1), 25_000);
    let file = write(&folder, "events.ndjson.gz", &gzip(&ndjson(&sent)));
    let lock = node.database.lock_leaf(month).await;
    let mut command = Command::new(PROGRAM);
    command.arg("import").arg(&file).args(["--url", &format!("http://{}", node.api())]);
    let mut running = Process::start("forebay import", &mut command);
    until("some batches are taken", async || node.metrics().await.sum("forebay_events_accepted_total") > 0.0).await;

    running.signal(Signal::INT);

    assert_eq!(running.exit_code().await, 130);
    assert!(progress_file(&file).exists(), "the progress is kept");
    lock.release().await;
    let said = import(&node, &file, &[]).await.succeeded();
    assert_eq!(node.database.event_count().await, 25_000);
    assert!(!progress_file(&file).exists());
    // The resumed run sends what the first one sent under the same ids: nothing is a duplicate.
    ends_with(&said, &[("duplicate", 0), ("rejected", 0)]);
    let again = import(&node, &file, &[]).await.succeeded();
    ends_with(&again, &[("committed", 0), ("duplicate", 25_000)]);
    assert_eq!(node.database.event_count().await, 25_000);
    node.finish().await;
}

#[tokio::test]
async fn import_outlives_a_restart_of_the_server() {
    let (mut node, folder) = scene().await;
    let month = Month::from_now(0);
    let port = crate::harness::postgres::free_port();
    assert_eq!(node.stop().await, 0);
    node.restart(|settings| {
        settings.set("PORT", port);
    })
    .await;
    let sent: Vec<Value> = events_at(&month.noon(1), 25_000);
    let file = write(&folder, "events.ndjson", &ndjson(&sent));
    let lock = node.database.lock_leaf(month).await;
    let mut command = Command::new(PROGRAM);
    command.arg("import").arg(&file).args(["--url", &format!("http://{}", node.api())]);
    let mut running = Process::start("forebay import", &mut command);
    until("some batches are taken", async || node.metrics().await.sum("forebay_events_accepted_total") > 0.0).await;
    node.kill();
    lock.release().await;
    node.restart(|_| ()).await;
    assert_eq!(running.exit_code().await, 0, "{:?}", running.stderr());
    assert_eq!(node.database.event_count().await, 25_000);
    node.finish().await;
}

#[tokio::test]
async fn rejected_events_are_listed_and_make_it_exit_1() {
    let (node, folder) = scene().await;
    let bad = event_with("timestamp", "never".into());
    let lines = [ndjson(&[event(), bad.clone(), event()]), b"not json\n".to_vec()].concat();
    let file = write(&folder, "events.ndjson", &lines);

    let said = import(&node, &file, &[]).await.ended_with(1);

    ends_with(&said, &[("accepted", 2), ("committed", 2), ("rejected", 2)]);
    let text = format!("{} {}", said.stdout, said.stderr);
    let listed = text
        .split_whitespace()
        .map(|word| PathBuf::from(word.trim_matches(['"', '\'', ',', '.', '(', ')', ':'])))
        .find(|path| path.is_file() && *path != file);
    let listed = listed.unwrap_or_else(|| panic!("it does not say where they are listed: {text}"));
    let listed = std::fs::read_to_string(listed).unwrap();
    for expected in [bad["event_id"].as_str().unwrap(), "invalid_timestamp", "malformed_json"] {
        assert!(listed.contains(expected), "{expected} in {listed}");
    }
    assert_eq!(node.database.event_count().await, 2);
    node.finish().await;
}

#[tokio::test]
async fn file_that_cannot_be_imported_is_told_and_changes_nothing() {
    let (node, folder) = scene().await;
    let good = "event_id,occurred_at,user_id,event_type,properties_json\n";
    for (name, bytes, code) in [
        ("wrong.csv", &b"id,when,who,what,data\n1,2,3,4,5\n"[..], 1),
        ("fewer.csv", b"event_id,occurred_at,user_id\na,b,c\n", 1),
        ("empty.csv", b"", 1),
        ("broken.ndjson.gz", b"this is no gzip", 1),
        ("broken.csv.zst", b"this is no zstd", 1),
    ] {
        let said = import(&node, &write(&folder, name, bytes), &[]).await.ended_with(code);
        assert!(said.stderr.contains(name), "{said:#?}");
    }
    let missing = import(&node, &folder.path().join("nothing.csv"), &[]).await;
    assert!([Some(1), Some(2)].contains(&missing.code), "{missing:#?}");
    assert!(missing.stderr.contains("nothing.csv"), "{missing:#?}");
    let folder_itself = import(&node, folder.path(), &[]).await;
    assert!([Some(1), Some(2)].contains(&folder_itself.code), "{folder_itself:#?}");
    let ending = import(&node, &write(&folder, "events.xml", b"<a/>"), &[]).await;
    assert!([Some(1), Some(2)].contains(&ending.code), "{ending:#?}");
    let priority = import(&node, &write(&folder, "good.csv", good.as_bytes()), &["--priority", "11"]).await;
    priority.ended_with(2);
    assert_eq!(node.database.event_count().await, 0);
    node.finish().await;
}

#[tokio::test]
async fn bad_rows_of_a_csv_are_rejected_alone() {
    let (node, folder) = scene().await;
    let csv = "event_id,occurred_at,user_id,event_type,properties_json\n\
               a,2024-01-31T23:59:59Z,,t,{}\n\
               b,yesterday,,t,{}\n\
               c,2024-01-31T23:59:59Z,,t,not json\n\
               d,2024-01-31T23:59:59Z,,t,[1]\n\
               ,2024-01-31T23:59:59Z,,t,{}\n\
               f,2024-01-31T23:59:59Z,,t,\n\
               g,2024-01-31T23:59:59Z,,t,{}\n";
    let said = import(&node, &write(&folder, "rows.csv", csv.as_bytes()), &[]).await.ended_with(1);
    let stored = node.database.event_ids().await;
    assert!(stored.contains(&"a".to_owned()) && stored.contains(&"g".to_owned()), "{stored:?} {said:#?}");
    for bad in ["b", "c", "d", ""] {
        assert!(!stored.contains(&bad.to_owned()), "{stored:?}");
    }
    node.finish().await;
}

#[tokio::test]
async fn server_that_is_not_there_is_told() {
    let folder = temporary("files");
    let file = write(&folder, "events.ndjson", &ndjson(&events(1)));
    let url = format!("http://127.0.0.1:{}", crate::harness::postgres::free_port());
    let mut command = Command::new(PROGRAM);
    command.arg("import").arg(&file).args(["--url", &url]);
    let mut running = Process::start("forebay import", &mut command);
    // It may wait for the server, as for one that restarts, but it says what it waits for.
    until("it says so", async || running.ended().is_some() || !running.stderr().is_empty()).await;
    running.signal(Signal::INT);
    assert!([1, 130].contains(&running.exit_code().await));
}
