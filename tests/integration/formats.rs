//! What was sent is what is stored, whatever the format and the coding.

use serde_json::{Value, json};

use crate::harness::{
    answer::assert_errors,
    client::Request,
    events::{batch, event, event_with, events, id, unique},
    node::Node,
};

/// Returns the stored columns of an event: service, type, user, timestamp in UTC, payload, metadata.
async fn stored(node: &Node, event_id: &str) -> Vec<Option<String>> {
    let sql = format!(
        "SET timezone = 'UTC'; SELECT service_name, event_type, user_id, \"timestamp\"::text, payload::text, \
         metadata::text FROM events WHERE event_id = '{event_id}'"
    );
    let mut rows = node.database.query(&sql).await;
    assert_eq!(rows.len(), 1, "{event_id} is stored once");
    rows.remove(0)
}

fn as_json(text: Option<&String>) -> Value {
    text.map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
}

/// Asserts that an event was stored as it was sent.
async fn assert_stored(node: &Node, event: &Value) {
    let row = stored(node, &id(event)).await;
    assert_eq!(row[0].as_deref(), event["service_name"].as_str());
    assert_eq!(row[1].as_deref(), event["event_type"].as_str());
    assert_eq!(as_json(row[4].as_ref()), event["payload"]);
    assert_eq!(as_json(row[5].as_ref()), event.get("metadata").cloned().unwrap_or_default());
    let sent: jiff::Timestamp = event["timestamp"].as_str().unwrap().parse().unwrap();
    let kept: jiff::Timestamp = row[3].as_ref().unwrap().replace(' ', "T").parse().unwrap();
    assert_eq!(sent, kept);
}

/// Returns an event that has every field and every kind of JSON value.
fn rich_event() -> Value {
    let mut event = event();
    event["user_id"] = json!("anna");
    event["metadata"] = json!({"trace": {"id": "0af7651916cd43dd"}, "tags": ["a", "b"], "empty": {}, "none": null});
    event["payload"] = json!({
        "text": "quotes \" backslash \\ newline \n tab \t slash / bell \u{7}", "unicode": "äöü 漢字 😀 \u{10ffff}",
        "int": 9_007_199_254_740_993_i64, "negative": -1, "float": 0.1, "exponent": 1e30, "zero": 0,
        "nested": {"a": [[], [{}], [null, true, false]]}, "": "empty key", "$ref": "x", "user_id": "berta",
    });
    event
}

#[tokio::test]
async fn each_format_and_coding_stores_what_was_sent() {
    let node = Node::start(|_| ()).await;
    for compress in [|request| request, Request::gzip, Request::zstd] {
        for form in ["json", "ndjson"] {
            let sent = [rich_event(), event(), event_with("event_type", json!("Ünïcode"))];
            let request = match form {
                "json" => Request::json(&batch(&sent)),
                _ => Request::ndjson(&sent),
            };
            let receipt = node.accept(compress(request)).await;
            assert_eq!(receipt["accepted"], 3);
            node.is_committed(&receipt).await;
            for event in &sent {
                assert_stored(&node, event).await;
            }
        }
    }
    let user = "SELECT DISTINCT user_id FROM events WHERE payload ? 'unicode'";
    assert_eq!(node.database.texts(user).await, ["anna"], "the event's own user_id comes first");
    node.finish().await;
}

#[tokio::test]
async fn cloud_events_are_mapped_to_events() {
    let node = Node::start(|_| ()).await;
    let time = "2026-01-31T23:59:59.5+01:00";
    let time = if jiff::Timestamp::now() < time.parse().unwrap() { crate::harness::events::now() } else { time.into() };
    let full = json!({
        "specversion": "1.0", "id": unique("ce"), "source": "/shop/eu", "type": "com.example.paid", "time": time,
        "subject": "order 17", "datacontenttype": "application/json", "dataschema": "https://example.com/s",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tenant": 7,
        "data": {"amount": 3, "user_id": "carl"},
    });
    let request = Request::cloudevents(std::slice::from_ref(&full)).query("batch_id=ce-1").wait(30);

    let receipt = node.send(request).await.is(200);

    assert_eq!((&receipt["committed"], &receipt["batch_id"]), (&json!(1), &json!("ce-1")));
    let row = stored(&node, full["id"].as_str().unwrap()).await;
    let texts: Vec<_> = row[..3].iter().map(|column| column.as_deref().unwrap()).collect();
    assert_eq!(texts, ["/shop/eu", "com.example.paid", "carl"]);
    assert_eq!(as_json(row[4].as_ref()), full["data"]);
    let mut rest = full;
    for mapped in ["id", "source", "type", "time", "data"] {
        rest.as_object_mut().unwrap().remove(mapped);
    }
    assert_eq!(as_json(row[5].as_ref()), rest);
    node.finish().await;
}

#[tokio::test]
async fn cloud_events_that_cannot_be_stored_are_rejected_alone() {
    let node = Node::start(|_| ()).await;
    let good = || json!({"specversion": "1.0", "id": unique("ce"), "source": "/shop", "type": "paid", "data": {}});
    let with = |field: &str, value: Value| {
        let mut event = good();
        event[field] = value;
        event
    };
    let mut binary = with("data_base64", json!("AAEC"));
    binary.as_object_mut().unwrap().remove("data");
    let sent = [
        good(),
        binary,
        with("specversion", json!("0.3")),
        with("time", json!("tomorrow")),
        with("data", json!("text")),
        good(),
    ];

    let receipt = node.send(Request::cloudevents(&sent)).await.is(202);

    let found: Vec<_> = receipt["errors"].as_array().unwrap().iter().collect();
    let codes: Vec<_> = found.iter().map(|error| error["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["unsupported_event", "unsupported_event", "invalid_timestamp", "wrong_type"]);
    let pointers: Vec<_> = found.iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/1/data_base64", "/2/specversion", "/3/time", "/4/data"]);
    node.is_committed(&receipt).await;
    assert_eq!(node.database.event_count().await, 2);
    node.finish().await;
}

#[tokio::test]
async fn ndjson_skips_empty_lines_and_counts_the_others() {
    let node = Node::start(|_| ()).await;
    let (first, last) = (event(), event());
    let body = format!("\n{first}\r\n\n{{\"event_id\": \n17\n\n   \n{last}");

    let receipt = node.send(Request::post("application/x-ndjson", body)).await.is(202);

    assert_eq!((&receipt["received"], &receipt["accepted"]), (&json!(4), &json!(2)));
    assert_errors(&receipt["errors"], &[(1, "malformed_json", "/1"), (2, "not_an_object", "/2")]);
    node.is_committed(&receipt).await;
    let mut ids = [id(&first), id(&last)];
    ids.sort();
    assert_eq!(node.database.event_ids().await, ids);
    node.finish().await;
}

#[tokio::test]
async fn line_of_ndjson_that_is_no_utf_8_is_rejected_alone() {
    let node = Node::start(|_| ()).await;
    let mut bad = event().to_string().into_bytes();
    let at = bad.windows(8).position(|window| window == b"checkout").unwrap();
    bad[at] = 0xff;
    let good = event();
    let body = [bad, b"\n".to_vec(), good.to_string().into_bytes()].concat();
    let receipt = node.send(Request::post("application/x-ndjson", body)).await.is(202);
    assert_errors(&receipt["errors"], &[(0, "malformed_json", "/0")]);
    node.is_committed(&receipt).await;
    assert_eq!(node.database.event_ids().await, [id(&good)]);
    node.finish().await;
}

#[tokio::test]
async fn timestamps_are_stored_in_utc_to_the_microsecond() {
    let node = Node::start(|_| ()).await;
    let cases = [
        ("2026-01-15T00:30:00.123456789+02:00", "2026-01-14 22:30:00.123456+00"),
        ("2026-01-15T12:00:00-11:30", "2026-01-15 23:30:00+00"),
        ("2025-12-31T23:59:59.9999999Z", "2025-12-31 23:59:59.999999+00"),
        ("2024-02-29T12:00:00z", "2024-02-29 12:00:00+00"),
        ("2024-02-29t12:00:00.5Z", "2024-02-29 12:00:00.5+00"),
    ];
    for (sent, kept) in cases {
        if jiff::Timestamp::now() < sent.to_uppercase().parse().unwrap() {
            continue;
        }
        let event = event_with("timestamp", json!(sent));
        let receipt = node.ingest(std::slice::from_ref(&event)).await;
        node.is_committed(&receipt).await;
        assert_eq!(stored(&node, &id(&event)).await[3].as_deref(), Some(kept), "{sent}");
    }
    node.finish().await;
}

#[tokio::test]
async fn event_without_a_timestamp_gets_the_moment_of_its_acceptance() {
    let node = Node::start(|_| ()).await;
    let absent = crate::harness::events::event_without("timestamp");
    let null = event_with("timestamp", Value::Null);

    let receipt = node.ingest(&[absent, null]).await;

    let status = node.is_committed(&receipt).await;
    let moments = node
        .database
        .texts("SELECT DISTINCT to_char(\"timestamp\" AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US') FROM events")
        .await;
    assert_eq!(moments.len(), 1);
    let stored: jiff::Timestamp = format!("{}Z", moments[0]).parse().unwrap();
    let accepted: jiff::Timestamp = status["accepted_at"].as_str().unwrap().parse().unwrap();
    assert!((stored.as_microsecond() - accepted.as_microsecond()).abs() <= 1, "{stored} {accepted}");
    assert_eq!(node.database.number("SELECT count(*) FROM events WHERE received_at = \"timestamp\"").await, 2);
    node.finish().await;
}

#[tokio::test]
async fn user_comes_from_the_event_else_from_a_text_in_the_payload() {
    let node = Node::start(|_| ()).await;
    let cases = [
        (json!("anna"), json!({"user_id": "berta"}), Some("anna")),
        (Value::Null, json!({"user_id": "berta"}), Some("berta")),
        (Value::Null, json!({"user_id": 7}), None),
        (Value::Null, json!({"user_id": null}), None),
        (Value::Null, json!({}), None),
    ];
    for (user, payload, kept) in cases {
        let mut event = event_with("user_id", user);
        event["payload"] = payload;
        let receipt = node.ingest(std::slice::from_ref(&event)).await;
        node.is_committed(&receipt).await;
        assert_eq!(stored(&node, &id(&event)).await[2].as_deref(), kept, "{event}");
    }
    node.finish().await;
}

#[tokio::test]
async fn unknown_fields_are_ignored_and_null_is_absent() {
    let node = Node::start(|_| ()).await;
    let mut event = event_with("extra", json!({"deep": [1]}));
    event["metadata"] = Value::Null;
    let envelope = json!({"events": [event], "batch_id": null, "priority": null, "unknown": [1, {"a": 2}]});

    let receipt = node.accept(Request::json(&envelope)).await;

    assert_eq!(node.is_committed(&receipt).await["priority"], 0);
    assert_eq!(node.database.number("SELECT count(*) FROM events WHERE metadata IS NULL").await, 1);
    node.finish().await;
}

#[tokio::test]
async fn last_of_double_keys_inside_a_payload_wins() {
    let node = Node::start(|_| ()).await;
    let event = event();
    let text = event.to_string().replace("\"amount\":12.5", "\"amount\":1,\"amount\":2");
    let body = format!("{{\"events\":[{text}]}}");
    let receipt = node.accept(Request::post("application/json; charset=UTF-8", body)).await;
    node.is_committed(&receipt).await;
    assert_eq!(as_json(stored(&node, &id(&event)).await[4].as_ref())["amount"], 2);
    node.finish().await;
}

#[tokio::test]
async fn full_batch_of_10_000_events_lands() {
    let node = Node::start(|_| ()).await;
    let receipt = node.accept(Request::json(&batch(&events(10_000))).gzip()).await;
    assert_eq!(receipt["accepted"], 10_000);
    node.is_committed(&receipt).await;
    assert_eq!(node.database.event_count().await, 10_000);
    node.finish().await;
}
