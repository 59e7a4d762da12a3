//! What can be wrong with one event. Its neighbors land.

use serde_json::{Value, json};

use crate::harness::{
    client::Request,
    events::{batch, event, event_with, event_without, id},
    node::Node,
};

/// Sends each bad text between two good events, in one batch; expects these codes and pointers (below `/events/i`),
/// and that the good events land.
async fn assert_rejected(node: &Node, cases: &[(String, &str, &str)]) {
    let mut texts = vec![event().to_string()];
    for (bad, _, _) in cases {
        texts.push(bad.clone());
        texts.push(event().to_string());
    }
    let body = format!("{{\"events\":[{}]}}", texts.join(","));

    let answer = node.send(Request::post("application/json", body)).await;

    let receipt = answer.is(202);
    assert_eq!(receipt["rejected"], cases.len(), "{answer}");
    let errors = receipt["errors"].as_array().unwrap();
    for (number, (error, (bad, code, pointer))) in errors.iter().zip(cases).enumerate() {
        let index = 2 * number + 1;
        assert_eq!((&error["index"], &error["code"]), (&json!(index), &json!(code)), "{error} for {bad:.300}");
        let whole = format!("/events/{index}{pointer}");
        assert_eq!(error["pointer"], whole, "{error} for {bad:.300}");
        assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{error}");
    }
    let status = node.is_committed(&receipt).await;
    assert_eq!(status["committed"], cases.len() + 1);
}

fn case(event: &Value, code: &'static str, pointer: &'static str) -> (String, &'static str, &'static str) {
    (event.to_string(), code, pointer)
}

/// Returns a good event whose payload is this JSON text.
fn with_payload(payload: &str) -> String {
    event_with("payload", json!("@")).to_string().replace("\"@\"", payload)
}

#[tokio::test]
async fn event_of_the_wrong_shape_is_rejected() {
    let node = Node::start(|_| ()).await;
    let mut cases = vec![
        ("5".into(), "not_an_object", ""),
        ("\"text\"".into(), "not_an_object", ""),
        ("[]".into(), "not_an_object", ""),
        ("null".into(), "not_an_object", ""),
    ];
    for (field, pointer) in
        [("event_id", "/event_id"), ("service_name", "/service_name"), ("event_type", "/event_type")]
    {
        cases.push(case(&event_without(field), "missing_field", pointer));
        cases.push(case(&event_with(field, json!(5)), "wrong_type", pointer));
        cases.push(case(&event_with(field, json!({})), "wrong_type", pointer));
        cases.push(case(&event_with(field, json!("")), "empty_field", pointer));
    }
    cases.push(case(&event_without("payload"), "missing_field", "/payload"));
    for wrong in [json!("text"), json!([]), json!(5), json!(true)] {
        cases.push(case(&event_with("payload", wrong.clone()), "wrong_type", "/payload"));
        cases.push(case(&event_with("metadata", wrong), "wrong_type", "/metadata"));
    }
    cases.push(case(&event_with("user_id", json!(5)), "wrong_type", "/user_id"));
    cases.push(case(&event_with("timestamp", json!(1_700_000_000)), "wrong_type", "/timestamp"));
    assert_rejected(&node, &cases).await;
    node.finish().await;
}

#[tokio::test]
async fn doubled_field_of_an_event_is_rejected() {
    let node = Node::start(|_| ()).await;
    let doubled = |field: &str, value: &str| event().to_string().replacen('{', &format!("{{\"{field}\":{value},"), 1);
    let cases = [
        (doubled("event_id", "\"a\""), "duplicate_key", "/event_id"),
        (doubled("payload", "{}"), "duplicate_key", "/payload"),
        (doubled("timestamp", "null"), "duplicate_key", "/timestamp"),
        // The same key, written in another way.
        (doubled("event\\u005fid", "\"a\""), "duplicate_key", "/event_id"),
    ];
    assert_rejected(&node, &cases).await;
    node.finish().await;
}

#[tokio::test]
async fn over_long_field_is_rejected_and_the_longest_is_not() {
    let node = Node::start(|_| ()).await;
    let limits = [
        ("event_id", "/event_id", 256),
        ("service_name", "/service_name", 128),
        ("event_type", "/event_type", 128),
        ("user_id", "/user_id", 128),
    ];
    let mut cases = Vec::new();
    for (field, pointer, limit) in limits {
        cases.push(case(&event_with(field, json!("x".repeat(limit + 1))), "field_too_long", pointer));
        // Bytes count, not characters.
        cases.push(case(&event_with(field, json!("é".repeat(limit / 2 + 1))), "field_too_long", pointer));
    }
    assert_rejected(&node, &cases).await;

    let mut longest = event();
    for (field, _, limit) in limits {
        longest[field] = json!("é".repeat(limit / 2));
    }
    node.is_committed(&node.ingest(&[longest]).await).await;
    node.finish().await;
}

#[tokio::test]
async fn character_that_postgresql_cannot_hold_is_rejected() {
    let node = Node::start(|_| ()).await;
    let in_field = |field: &str, text: &str| event_with(field, json!("@")).to_string().replace('@', text);
    let mut cases = Vec::new();
    for (escape, code) in [
        ("a\\u0000b", "nul_character"),
        ("\\ud800", "lone_surrogate"),
        ("\\udc00x", "lone_surrogate"),
        ("\\ud83d\\ud83d\\ude00", "lone_surrogate"),
    ] {
        for (field, pointer) in [
            ("event_id", "/event_id"),
            ("service_name", "/service_name"),
            ("event_type", "/event_type"),
            ("user_id", "/user_id"),
        ] {
            cases.push((in_field(field, escape), code, pointer));
        }
    }
    assert_rejected(&node, &cases).await;

    // In payload and metadata the pointer may lead to the field or below it.
    let good = "\\ud83d\\ude00 \\u0001 \\\\u0000 \\\\ud800";
    for (escape, code) in [("\\u0000", "nul_character"), ("\\ud800", "lone_surrogate"), ("\\ude00", "lone_surrogate")] {
        for place in [
            format!("{{\"a\":[\"{escape}\"]}}"),
            format!("{{\"{escape}\":1}}"),
            format!("{{\"a\":{{\"b\":\"x{escape}\"}}}}"),
        ] {
            let metadata = event_with("metadata", json!("@")).to_string().replace("\"@\"", &place);
            for (text, field) in [(with_payload(&place), "payload"), (metadata, "metadata")] {
                let neighbor = with_payload(&format!("{{\"a\":\"{good}\"}}"));
                let body = format!("{{\"events\":[{text},{neighbor}]}}");
                let receipt = node.send(Request::post("application/json", body)).await.is(202);
                let errors = receipt["errors"].as_array().unwrap();
                assert_eq!(errors.len(), 1, "{receipt}");
                assert_eq!(errors[0]["code"], code, "{text}");
                let pointer = errors[0]["pointer"].as_str().unwrap();
                assert!(pointer.starts_with(&format!("/events/0/{field}")), "{pointer}");
                node.is_committed(&receipt).await;
            }
        }
    }
    node.finish().await;
}

#[tokio::test]
async fn number_that_jsonb_cannot_hold_is_rejected() {
    let node = Node::start(|_| ()).await;
    let digits = "7".repeat(1001);
    let numbers =
        ["1e1001", "-1E+1001", "1e-1001", "1e400000", "1e-20000", "1e131071", "1e99999999999999999999", &digits];
    for number in numbers {
        let body = format!("{{\"events\":[{},{}]}}", with_payload(&format!("{{\"a\":[{number}]}}")), event());
        let receipt = node.send(Request::post("application/json", body)).await.is(202);
        assert_eq!(receipt["errors"][0]["code"], "number_out_of_range", "{number:.40}");
        assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(1), &json!(1)));
        node.is_committed(&receipt).await;
    }
    let good = format!("{{\"a\":[1e1000,-1e-1000,{},1.5e300,0.1,-0]}}", "7".repeat(1000));
    let body = format!("{{\"events\":[{}]}}", with_payload(&good));
    let receipt = node.accept(Request::post("application/json", body)).await;
    node.is_committed(&receipt).await;
    node.finish().await;
}

#[tokio::test]
async fn nesting_of_65_is_rejected_and_of_64_is_not() {
    let node = Node::start(|_| ()).await;
    // The payload itself is level 1.
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    let objects = |levels: usize| format!("{}{}", "{\"a\":".repeat(levels - 1) + "{}", "}".repeat(levels - 1));
    for (good, bad) in [(nested(64), nested(65)), (objects(64), objects(65)), (nested(64), nested(50_000))] {
        let metadata = event_with("metadata", json!("@")).to_string().replace("\"@\"", &bad);
        let body = format!("{{\"events\":[{},{},{metadata}]}}", with_payload(&good), with_payload(&bad));
        let receipt = node.send(Request::post("application/json", body)).await.is(202);
        let errors = receipt["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 2, "{receipt}");
        for (error, field) in errors.iter().zip(["/events/1/payload", "/events/2/metadata"]) {
            assert_eq!(error["code"], "nesting_too_deep", "{error}");
            assert!(error["pointer"].as_str().unwrap().starts_with(field), "{error}");
        }
        node.is_committed(&receipt).await;
    }
    node.finish().await;
}

#[tokio::test]
async fn text_that_is_no_timestamp_is_rejected() {
    let node = Node::start(|_| ()).await;
    let texts = [
        "",
        "yesterday",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2025-02-29T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T23:59:60Z",
        "2026-01-01T00:00:00",
        "2026-01-01",
        "2026-01-01 00:00",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+0100",
        "2026-01-01T00:00:00[Europe/Berlin]",
        "2026-01-01T00:00:00.Z",
        "10000-01-01T00:00:00Z",
        "-0044-03-15T00:00:00Z",
        "20260101T000000Z",
        "2026-W01-1T00:00:00Z",
        "infinity",
        "now",
        "1700000000",
        "２０２６-01-01T00:00:00Z",
    ];
    let cases: Vec<_> = texts
        .iter()
        .map(|text| case(&event_with("timestamp", json!(text)), "invalid_timestamp", "/timestamp"))
        .collect();
    assert_rejected(&node, &cases).await;
    node.finish().await;
}

#[tokio::test]
async fn timestamp_outside_the_window_is_rejected() {
    let node = Node::start(|settings| {
        settings.set("EVENT_MAX_AGE_DAYS", 100).set("EVENT_MAX_FUTURE_SECONDS", 3600);
    })
    .await;
    let from_now = |hours: i64| {
        let moment = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours);
        event_with("timestamp", json!(moment.to_string()))
    };
    let at = |text: &str| event_with("timestamp", json!(text));
    let cases = [
        case(&from_now(-101 * 24), "timestamp_too_old", "/timestamp"),
        case(&at("1970-01-01T00:00:00Z"), "timestamp_too_old", "/timestamp"),
        case(&at("0001-01-01T00:00:00Z"), "timestamp_too_old", "/timestamp"),
        case(&from_now(2), "timestamp_too_new", "/timestamp"),
        case(&at("9999-12-31T23:59:59Z"), "timestamp_too_new", "/timestamp"),
    ];
    assert_rejected(&node, &cases).await;
    let inside = [from_now(-99 * 24), from_now(0)];
    node.is_committed(&node.ingest(&inside).await).await;
    // A month for each event of a refused decade would be hundreds of leaves: none was made.
    let leaves = node.database.number("SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass").await;
    assert!(leaves < 12, "{leaves}");
    node.finish().await;
}

#[tokio::test]
async fn batch_of_nothing_but_bad_events_is_refused_with_each_error() {
    let node = Node::start(|_| ()).await;
    let bad = [event_without("payload"), event_with("timestamp", json!("never")), json!(7)];

    let answer = node.send(Request::json(&batch(&bad)).query("batch_id=bad-1")).await;

    let problem = answer.refuses_the_events(&[
        (0, "missing_field", "/events/0/payload"),
        (1, "invalid_timestamp", "/events/1/timestamp"),
        (2, "not_an_object", "/events/2"),
    ]);
    assert_eq!((&problem["batch_id"], &problem["errors"][0]["event_id"]), (&json!("bad-1"), &json!(id(&bad[0]))));
    node.send(Request::status("bad-1")).await.is_problem(404, "unknown_batch");
    node.finish().await;
}
