//! Every metric is there from the start, under its name and with all its labels.

use crate::harness::{
    client::Request,
    events::{batch, event_without, events},
    node::Node,
};

const REJECT_REASONS: &[&str] = &[
    "not_an_object",
    "malformed_json",
    "duplicate_key",
    "missing_field",
    "wrong_type",
    "empty_field",
    "field_too_long",
    "nul_character",
    "lone_surrogate",
    "number_out_of_range",
    "nesting_too_deep",
    "invalid_timestamp",
    "timestamp_too_old",
    "timestamp_too_new",
    "unsupported_event",
    "forbidden_service",
    "atomic",
];

/// The classes of trouble, each with what is done about it.
const CLASSES_AND_ACTIONS: &[(&str, &str)] = &[
    ("connection", "reconnect"),
    ("commit_unknown", "ask_ledger"),
    ("read_only", "evict_pool"),
    ("conflict", "retry"),
    ("lock", "retry"),
    ("deadline", "reconnect"),
    ("cancelled", "retry"),
    ("shutdown", "reconnect"),
    ("disk_full", "retry"),
    ("resources", "retry"),
    ("storage", "hold"),
    ("missing_leaf", "make_partition"),
    ("detached_leaf", "make_partition"),
    ("schema", "hold"),
    ("duplicate", "deduplicate"),
    ("data", "isolate"),
    ("encoding", "isolate"),
    ("encoding", "hold"),
    ("auth", "hold"),
    ("session", "reconnect"),
    ("unknown", "reconnect"),
];

/// Those that are 0 on a server that nobody has asked anything.
fn zeros() -> Vec<String> {
    let mut names = vec![
        "events_committed_total".to_owned(),
        "events_duplicate_total".to_owned(),
        "events_in_flight".to_owned(),
        "flush_busy_ratio".to_owned(),
        "on_hold".to_owned(),
        "journal_damaged_records_total".to_owned(),
        "rate_limited_total".to_owned(),
        "circuit_open".to_owned(),
        "redis_up".to_owned(),
        "flush_duration_seconds_count".to_owned(),
        "flush_events_count".to_owned(),
    ];
    for source in ["http", "replay", "quarantine"] {
        names.push(format!("events_received_total{{source=\"{source}\"}}"));
        names.push(format!("events_accepted_total{{source=\"{source}\"}}"));
    }
    for band in ["low", "normal", "high"] {
        for name in ["queue_events", "queue_bytes", "queue_oldest_age_seconds", "commit_lag_seconds_count"] {
            names.push(format!("{name}{{band=\"{band}\"}}"));
        }
    }
    names.extend(REJECT_REASONS.iter().map(|reason| format!("events_rejected_total{{reason=\"{reason}\"}}")));
    names.push("events_quarantined_total{reason=\"batch_id_reused\"}".to_owned());
    for (class, action) in CLASSES_AND_ACTIONS {
        names.push(format!("events_quarantined_total{{reason=\"{class}\"}}"));
        names.push(format!("copy_errors_total{{class=\"{class}\",action=\"{action}\"}}"));
    }
    names
}

/// Those that are there with whatever value.
const THERE: &[&str] = &[
    "queue_limit_bytes",
    "queue_fill_ratio",
    "journal_bytes",
    "journal_fsync_seconds_count",
    "partitions_ahead",
    "partition_maintenance_last_success_timestamp_seconds",
];

#[tokio::test]
async fn every_series_is_there_from_the_start() {
    let node = Node::start(|_| ()).await;
    let metrics = node.metrics().await;
    for series in zeros() {
        assert_eq!(metrics.get(&format!("forebay_{series}")), 0.0, "{series}");
    }
    for series in THERE {
        metrics.get(&format!("forebay_{series}"));
    }
    for name in ["flushes_total", "db_pool_connections"] {
        let name = format!("forebay_{name}{{");
        assert!(metrics.series().any(|series| series.starts_with(&name)), "{name}");
    }
    let build: Vec<_> = metrics.series().filter(|series| series.starts_with("forebay_build_info{")).collect();
    assert_eq!(build.len(), 1);
    assert!(build[0].contains("version=\"") && metrics.get(build[0]) == 1.0, "{build:?}");
    let limit = metrics.get("forebay_queue_limit_bytes");
    assert!(limit > 0.0 && limit <= 512.0 * 1024.0 * 1024.0, "{limit} of JOURNAL_MAX_MB=512");
    node.finish().await;
}

#[tokio::test]
async fn requests_are_counted_by_the_routes_of_the_openapi() {
    let node = Node::start(|_| ()).await;
    let fresh = node.metrics().await;
    let series = |route: &str, method: &str, status: u16| {
        format!("forebay_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}")
    };
    for (route, method, statuses) in [
        ("/v1/ingest/batch", "POST", &[200, 202, 400, 408, 409, 413, 415, 422, 500, 503][..]),
        ("/v1/batch/{batch_id}/status", "GET", &[200, 404]),
        ("/v1/health", "GET", &[200, 503]),
        ("/v1/metrics", "GET", &[200]),
    ] {
        for status in statuses {
            assert_eq!(fresh.get(&series(route, method, *status)), 0.0);
        }
    }
    node.send(Request::json(&batch(&events(1)))).await.is(202);
    node.send(Request::json(&batch(&[event_without("event_id")]))).await.is_problem(422, "invalid_batch");
    node.send(Request::status("unknown")).await.is_problem(404, "unknown_batch");
    node.send(Request::get("/anything/at/all")).await.is_problem(404, "not_found");

    let metrics = node.metrics().await;

    assert_eq!(metrics.get(&series("/v1/ingest/batch", "POST", 202)), 1.0);
    assert_eq!(metrics.get(&series("/v1/ingest/batch", "POST", 422)), 1.0);
    assert_eq!(metrics.get(&series("/v1/batch/{batch_id}/status", "GET", 404)), 1.0);
    assert!(!metrics.series().any(|series| series.contains("anything")), "a raw path is no label");
    let timed = metrics.get("forebay_http_request_duration_seconds_count{route=\"/v1/ingest/batch\"}");
    assert_eq!(timed, 2.0);
    node.finish().await;
}

#[tokio::test]
async fn both_ports_tell_the_metrics_as_prometheus_text() {
    let node = Node::start(|_| ()).await;
    for (address, path) in [(node.api(), "/v1/metrics"), (node.api(), "/metrics"), (node.admin(), "/metrics")] {
        let answer = Request::get(path).send(address).await;
        let content_type = answer.must_have("content-type");
        assert!(content_type.starts_with("text/plain") && content_type.contains("version=0.0.4"), "{content_type}");
        assert!(answer.text().contains("# TYPE forebay_events_committed_total counter"), "{path}");
    }
    node.finish().await;
}

#[tokio::test]
async fn batch_refused_whole_counts_its_events_only_when_they_are_listed() {
    let node = Node::start(|_| ()).await;
    let (received, rejected) = (r#"forebay_events_received_total{source="http"}"#, "forebay_events_rejected_total");

    node.send(Request::post("application/json", "{")).await.is_problem(400, "malformed_json");
    node.send(Request::json(&batch(&events(1))).query("priority=11")).await.is_problem(422, "invalid_batch");
    let metrics = node.metrics().await;
    assert_eq!((metrics.get(received), metrics.sum(rejected)), (0.0, 0.0));

    let bad = [event_without("payload"), event_without("event_id")];
    node.send(Request::json(&batch(&bad))).await.is_problem(422, "invalid_batch");
    let mixed = [events(2), bad.to_vec()].concat();
    node.send(Request::json(&batch(&mixed)).query("atomic=true")).await.is_problem(422, "invalid_batch");
    let metrics = node.metrics().await;
    assert_eq!((metrics.get(received), metrics.sum(rejected)), (6.0, 6.0));
    assert_eq!(metrics.get(r#"forebay_events_rejected_total{reason="atomic"}"#), 2.0);
    assert_eq!(metrics.get(r#"forebay_events_rejected_total{reason="missing_field"}"#), 4.0);
    assert_eq!(metrics.sum("forebay_events_accepted_total"), 0.0);
    node.finish().await;
}
