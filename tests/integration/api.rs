//! Each endpoint answers as the contract says.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    answer::assert_errors,
    client::Request,
    events::{batch, batch_as, event, event_at, event_with, events, unique},
    month::Month,
    node::Node,
};

#[tokio::test]
async fn batch_is_acknowledged_with_a_receipt_and_a_location() {
    let node = Node::start(|_| ()).await;

    let answer = node.send(Request::json(&batch(&events(3)))).await;

    let receipt = answer.is(202);
    assert_eq!((&receipt["received"], &receipt["accepted"]), (&json!(3), &json!(3)));
    assert_eq!((&receipt["rejected"], &receipt["errors"]), (&json!(0), &json!([])));
    assert_eq!(answer.must_have("location"), receipt["status_url"]);
    let id: Uuid = receipt["batch_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(answer.header("preference-applied"), None);
    for final_only in ["committed", "duplicates", "quarantined"] {
        assert_eq!(receipt.get(final_only), None, "{final_only} is told once it is final");
    }
    let location = Request::get(receipt["status_url"].as_str().unwrap());
    assert_eq!(node.send(location).await.is(200)["batch_id"], receipt["batch_id"]);
    node.is_committed(&receipt).await;
    node.finish().await;
}

#[tokio::test]
async fn waiting_post_answers_200_once_the_batch_is_final() {
    let node = Node::start(|_| ()).await;

    let answer = node.send(Request::json(&batch(&events(2))).wait(30)).await;

    let receipt = answer.is(200);
    assert_eq!(answer.must_have("preference-applied"), "wait=30");
    assert_eq!(receipt["status"], "completed");
    assert_eq!((&receipt["committed"], &receipt["duplicates"]), (&json!(2), &json!(0)));
    assert_eq!(receipt["quarantined"], 0);
    assert_eq!(node.database.event_count().await, 2);
    node.finish().await;
}

#[tokio::test]
async fn wait_is_capped_at_50_seconds_and_told_back_capped() {
    let node = Node::start(|_| ()).await;

    let posted = node.send(Request::json(&batch(&events(1))).wait(1000)).await;
    let id = posted.is(200)["batch_id"].as_str().unwrap().to_owned();
    let asked = node.send(Request::status(&id).wait(51)).await;

    assert_eq!(posted.must_have("preference-applied"), "wait=50");
    assert_eq!(asked.is(200)["status"], "completed");
    assert_eq!(asked.must_have("preference-applied"), "wait=50");
    node.finish().await;
}

#[tokio::test]
async fn wait_that_runs_out_is_not_told_back() {
    let node = Node::start(|_| ()).await;
    let lock = node.database.lock_leaf(Month::from_now(0)).await;

    let posted = node.send(Request::json(&batch(&events(1))).wait(1)).await;
    let both = Request::json(&batch(&events(1))).header("prefer", "respond-async, wait=1");
    let both = node.send(both).await;
    let id = posted.is(202)["batch_id"].as_str().unwrap().to_owned();
    let asked = node.send(Request::status(&id).wait(1)).await;
    lock.is_waited_for().await;
    lock.release().await;

    assert_eq!(posted.header("preference-applied"), None);
    both.is(202);
    assert_eq!(both.must_have("preference-applied"), "respond-async");
    assert_ne!(asked.is(200)["status"], "completed");
    assert_eq!(asked.header("preference-applied"), None);
    let waited = node.send(Request::status(&id).wait(50)).await;
    assert_eq!(waited.is(200)["status"], "completed");
    assert_eq!(waited.must_have("preference-applied"), "wait=50");
    node.finish().await;
}

#[tokio::test]
async fn preference_that_cannot_be_read_is_ignored() {
    let node = Node::start(|_| ()).await;
    for preference in ["wait=soon", "wait", "wait=-1", "handling=strict"] {
        let request = Request::json(&batch(&events(1))).header("prefer", preference);
        let answer = node.send(request).await;
        answer.is(202);
        assert_eq!(answer.header("preference-applied"), None, "{preference}");
    }
    node.finish().await;
}

#[tokio::test]
async fn batch_id_comes_from_body_query_or_idempotency_key() {
    let node = Node::start(|_| ()).await;
    let requests = |id: &str| {
        let plain = Request::json(&batch(&[event()]));
        [
            Request::json(&batch_as(id, &[event()])),
            plain.clone().query(&format!("batch_id={id}")),
            plain.clone().header("idempotency-key", id),
            plain.header("idempotency-key", &format!("\"{id}\"")),
            Request::json(&batch_as(id, &[event()])).query(&format!("batch_id={id}")).header("idempotency-key", id),
            Request::ndjson(&[event()]).query(&format!("batch_id={id}")),
        ]
    };
    for number in 0..requests("").len() {
        let id = unique("a.b_c:d~e@f");
        let receipt = node.accept(requests(&id)[number].clone()).await;
        assert_eq!(receipt["batch_id"], id, "{number}");
        let location = Request::get(receipt["status_url"].as_str().unwrap());
        assert_eq!(node.send(location).await.is(200)["batch_id"], id);
        node.is_committed(&receipt).await;
    }
    node.finish().await;
}

#[tokio::test]
async fn priority_comes_from_body_or_query() {
    let node = Node::start(|_| ()).await;
    let plain = batch(&events(1));
    let mut told = batch(&events(1));
    told["priority"] = json!(10);
    let cloud_event = json!({"specversion": "1.0", "id": unique("ce"), "source": "/shop", "type": "paid", "data": {}});
    for (request, priority) in [
        (Request::json(&plain), 0),
        (Request::json(&told), 10),
        (Request::json(&batch(&events(1))).query("priority=7"), 7),
        (Request::ndjson(&events(1)).query("priority=3"), 3),
        (Request::cloudevents(&[cloud_event]).query("priority=4"), 4),
    ] {
        let receipt = node.accept(request).await;
        let status = node.is_committed(&receipt).await;
        assert_eq!(status["priority"], priority);
        let stored = format!(
            "SELECT DISTINCT e.priority FROM events e JOIN batches b USING (batch) WHERE batch_id = '{}'",
            receipt["batch_id"].as_str().unwrap()
        );
        assert_eq!(node.database.number(&stored).await, priority);
    }
    node.finish().await;
}

#[tokio::test]
async fn atomic_batch_with_a_bad_event_stores_nothing() {
    let node = Node::start(|_| ()).await;
    let (good, bad) = (event(), event_at("2026-13-01T00:00:00Z"));
    let request = Request::json(&batch_as("orders-17", &[good.clone(), bad, event()])).query("atomic=true");

    let answer = node.send(request).await;

    let problem = answer.refuses_the_events(&[
        (0, "atomic", "/events/0"),
        (1, "invalid_timestamp", "/events/1/timestamp"),
        (2, "atomic", "/events/2"),
    ]);
    assert_eq!(problem["batch_id"], "orders-17");
    assert_eq!(problem["errors"][0]["event_id"], good["event_id"]);
    node.send(Request::status("orders-17")).await.is_problem(404, "unknown_batch");
    // A refused batch leaves its id free.
    let repaired = Request::json(&batch_as("orders-17", &[good])).query("atomic=true");
    node.is_committed(&node.accept(repaired).await).await;
    assert_eq!(node.database.event_count().await, 1);
    node.finish().await;
}

#[tokio::test]
async fn request_id_is_taken_over_if_it_is_one_and_else_made() {
    let node = Node::start(|_| ()).await;
    for (path, status) in [("/v1/health", 200), ("/v1/nothing", 404), ("/v1/metrics", 200)] {
        let taken = node.send(Request::get(path).header("x-request-id", "checkout-88.4_1")).await;
        assert_eq!((taken.status, taken.must_have("x-request-id")), (status, "checkout-88.4_1"));
        for refused in ["", "a b", "a/b", &"x".repeat(65)] {
            let made = node.send(Request::get(path).header("x-request-id", refused)).await;
            let made = made.must_have("x-request-id");
            assert!(made != refused && (1..=64).contains(&made.len()), "{made}");
        }
    }
    node.finish().await;
}

#[tokio::test]
async fn unknown_path_is_404_and_wrong_method_405_with_allow() {
    let node = Node::start(|_| ()).await;
    for path in ["/", "/v1", "/v1/ingest", "/v1/batch/x", "/livez", "/readyz", "/startupz"] {
        node.send(Request::get(path)).await.is_problem(404, "not_found");
    }
    for (method, path, allow) in [
        ("GET", "/v1/ingest/batch", "POST"),
        ("PUT", "/v1/ingest/batch", "POST"),
        ("POST", "/v1/batch/x/status", "GET"),
        ("DELETE", "/v1/health", "GET"),
        ("POST", "/metrics", "GET"),
    ] {
        let answer = node.send(Request::new(method, path)).await;
        answer.is_problem(405, "method_not_allowed");
        assert!(answer.must_have("allow").split(',').any(|method| method.trim() == allow), "{answer}");
    }
    node.finish().await;
}

#[tokio::test]
async fn head_answers_as_get_without_a_body() {
    let node = Node::start(|_| ()).await;
    for path in ["/v1/health", "/v1/metrics", "/metrics", "/openapi.json"] {
        let answer = node.send(Request::new("HEAD", path)).await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
    }
    node.finish().await;
}

#[tokio::test]
async fn reads_are_not_cached() {
    let node = Node::start(|_| ()).await;
    let receipt = node.ingest(&events(1)).await;
    for path in ["/v1/health", "/v1/metrics", receipt["status_url"].as_str().unwrap(), "/v1/batch/none/status"] {
        let answer = node.send(Request::get(path)).await;
        assert_eq!(answer.must_have("cache-control"), "no-store", "{path}");
    }
    node.finish().await;
}

#[tokio::test]
async fn docs_come_from_the_binary_and_openapi_is_3_1() {
    let node = Node::start(|_| ()).await;
    let mut page = node.send(Request::get("/docs")).await;
    if page.status != 200 {
        assert!([301, 302, 303, 307, 308].contains(&page.status), "{page}");
        page = node.send(Request::get(page.must_have("location"))).await;
    }
    assert_eq!(page.status, 200);
    let html = page.text();
    assert!(page.must_have("content-type").starts_with("text/html") && html.contains("swagger"), "{html}");
    for elsewhere in ["src=\"http", "href=\"http", "src=\"//", "href=\"//"] {
        assert!(!html.contains(elsewhere), "the page loads from elsewhere: {html}");
    }

    let document = node.send(Request::get("/openapi.json")).await.is(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    for (path, method) in [
        ("/v1/ingest/batch", "post"),
        ("/v1/batch/{batch_id}/status", "get"),
        ("/v1/health", "get"),
        ("/v1/metrics", "get"),
    ] {
        assert!(document["paths"][path][method].is_object(), "{method} {path}");
    }
    assert_eq!(&document, crate::harness::openapi::document(), "`forebay openapi` prints the same");
    node.finish().await;
}

#[tokio::test]
async fn openapi_tells_each_status_code_type_and_limit() {
    let document = crate::harness::openapi::document();
    let post = &document["paths"]["/v1/ingest/batch"]["post"];
    for (status, codes) in [
        ("200", &[][..]),
        ("202", &[]),
        ("400", &["malformed_json", "batch_id_mismatch"]),
        ("408", &["body_timeout"]),
        ("409", &["batch_id_reused"]),
        ("413", &["too_large"]),
        ("415", &["unsupported_media_type"]),
        ("422", &["invalid_batch"]),
        ("500", &["internal"]),
        ("503", &["queue_full", "unavailable"]),
    ] {
        let response = &post["responses"][status];
        assert!(response.is_object(), "{status}");
        for code in codes {
            assert!(response.to_string().contains(code), "{status} {code}");
        }
    }
    for content_type in ["application/json", "application/x-ndjson", "application/cloudevents-batch+json"] {
        assert!(post["requestBody"]["content"][content_type].is_object(), "{content_type}");
    }
    let text = document.to_string();
    for limit in ["\"maxItems\":10000", "\"maxLength\":256", "\"maxLength\":128"] {
        assert!(text.contains(limit), "{limit}");
    }
    references_resolve(document, document);
}

fn references_resolve(document: &Value, value: &Value) {
    if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference} leads nowhere");
    }
    match value {
        Value::Object(fields) => fields.values().for_each(|field| references_resolve(document, field)),
        Value::Array(items) => items.iter().for_each(|item| references_resolve(document, item)),
        _ => {}
    }
}

#[tokio::test]
async fn health_names_each_check() {
    let node = Node::start(|_| ()).await;
    let health = node.health().await.is(200);
    assert_eq!(health["status"], "healthy", "{health}");
    let checks: Vec<&String> = health["checks"].as_object().unwrap().keys().collect();
    assert_eq!(checks, ["database", "journal", "queue", "redis"]);
    for (check, status) in [("database", "up"), ("redis", "off"), ("journal", "up"), ("queue", "up")] {
        assert_eq!(health["checks"][check]["status"], status, "{check}");
    }
    assert!(health["version"].is_string() && health["uptime_seconds"].is_u64(), "{health}");
    node.finish().await;
}

#[tokio::test]
async fn admin_port_has_probes_and_metrics_and_nothing_else() {
    let node = Node::start(|_| ()).await;
    for path in ["/livez", "/readyz", "/startupz", "/metrics"] {
        assert_eq!(node.probe(path).await, Some(200), "{path}");
    }
    for path in ["/v1/health", "/v1/ingest/batch", "/docs", "/"] {
        assert_eq!(node.probe(path).await, Some(404), "{path}");
    }
    node.finish().await;
}

#[tokio::test]
async fn http2_without_tls_is_spoken() {
    let node = Node::start(|_| ()).await;
    // The first client of a process may have to install its TLS provider, so the plain one goes first.
    node.health().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let body = batch(&events(2)).to_string();
    let request = client.post(format!("http://{}/v1/ingest/batch", node.api()));
    let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 202));
    node.is_idle().await;
    assert_eq!(node.database.event_count().await, 2);
    node.finish().await;
}

#[tokio::test]
async fn only_allowed_origins_get_cors_headers() {
    let node = Node::start(|settings| {
        settings.set("CORS_ALLOWED_ORIGINS", "https://shop.example,https://app.example");
    })
    .await;
    for (origin, allowed) in
        [("https://shop.example", true), ("https://app.example", true), ("https://evil.example", false)]
    {
        let answer = node.send(Request::get("/v1/health").header("origin", origin)).await;
        let told = answer.header("access-control-allow-origin");
        assert_eq!(told, allowed.then_some(origin));
        if allowed {
            let exposed = answer.must_have("access-control-expose-headers").to_lowercase();
            for header in ["location", "retry-after", "preference-applied", "x-request-id"] {
                assert!(exposed.contains(header), "{exposed}");
            }
        }
    }
    let preflight = Request::new("OPTIONS", "/v1/ingest/batch")
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type");
    let answer = node.send(preflight).await;
    assert!((200..300).contains(&answer.status), "{answer}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
    node.finish().await;
}

#[tokio::test]
async fn rejected_events_are_listed_and_do_not_fail_their_neighbors() {
    let node = Node::start(|_| ()).await;
    let bad = event_with("payload", json!("text"));
    let sent = [event(), bad.clone(), event()];

    let answer = node.send(Request::json(&batch(&sent)).wait(30)).await;

    let receipt = answer.is(200);
    assert_eq!((&receipt["received"], &receipt["accepted"]), (&json!(3), &json!(2)));
    assert_eq!(receipt["rejected"], 1);
    assert_errors(&receipt["errors"], &[(1, "wrong_type", "/events/1/payload")]);
    assert_eq!(receipt["errors"][0]["event_id"], bad["event_id"]);
    assert_eq!(node.database.event_count().await, 2);
    let metrics = node.metrics().await;
    assert_eq!(metrics.get(r#"forebay_events_received_total{source="http"}"#), 3.0);
    assert_eq!(metrics.get(r#"forebay_events_accepted_total{source="http"}"#), 2.0);
    assert_eq!(metrics.get(r#"forebay_events_rejected_total{reason="wrong_type"}"#), 1.0);
    node.finish().await;
}
