//! What can be wrong with a batch as a whole, and with its parameters.

use serde_json::{Value, json};

use crate::harness::{
    client::Request,
    events::{batch, batch_as, event, events, unique},
    node::Node,
};

/// Asserts that a fresh batch still passes, and that it is all that is stored.
async fn only_a_fresh_batch_is_stored(node: Node) {
    assert_eq!(node.database.event_count().await, 0);
    assert_eq!(node.database.number("SELECT count(*) FROM batches").await, 0);
    node.finish().await;
}

#[tokio::test]
async fn body_that_is_no_json_document_is_400() {
    let node = Node::start(|_| ()).await;
    let good = batch(&events(1)).to_string();
    let mut not_utf8 = batch(&[event()]).to_string().into_bytes();
    let at = not_utf8.windows(8).position(|window| window == b"checkout").unwrap();
    not_utf8[at] = 0xff;
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"nonsense".to_vec(),
        b"{\"events\":[],}".to_vec(),
        good.as_bytes()[..good.len() - 1].to_vec(),
        format!("{good} x").into_bytes(),
        format!("{good}{good}").into_bytes(),
        format!("\u{feff}{good}").into_bytes(),
        good.replace("true", "tru").into_bytes(),
        good.replace("12.5", "012").into_bytes(),
        good.replace("12.5", "NaN").into_bytes(),
        good.replace("checkout", "check\nout").into_bytes(),
        good.replace("checkout", "\\x41").into_bytes(),
        not_utf8,
    ];
    for body in bodies {
        let answer = node.send(Request::post("application/json", body.clone())).await;
        println!("{}", String::from_utf8_lossy(&body));
        answer.is_problem(400, "malformed_json");
    }
    for coding in ["gzip", "zstd"] {
        let broken = Request::post("application/json", "this is not compressed").header("content-encoding", coding);
        node.send(broken).await.is_problem(400, "malformed_json");
    }
    for compress in [crate::harness::client::gzip, crate::harness::client::zstd] {
        let whole = compress(good.as_bytes());
        let coding = if whole[0] == 0x1f { "gzip" } else { "zstd" };
        let cut = Request::post("application/json", &whole[..whole.len() - 3]).header("content-encoding", coding);
        node.send(cut).await.is_problem(400, "malformed_json");
    }
    only_a_fresh_batch_is_stored(node).await;
}

#[tokio::test]
async fn envelope_of_the_wrong_shape_is_422_with_a_pointer() {
    let node = Node::start(|_| ()).await;
    let one = events(1);
    for (envelope, pointer) in [
        (json!([]), ""),
        (json!("text"), ""),
        (Value::Null, ""),
        (json!({}), "/events"),
        (json!({"events": null}), "/events"),
        (json!({"events": {}}), "/events"),
        (json!({"events": "text"}), "/events"),
        (json!({"events": []}), "/events"),
        (json!({"events": one, "priority": 11}), "/priority"),
        (json!({"events": one, "priority": -1}), "/priority"),
        (json!({"events": one, "priority": 1.5}), "/priority"),
        (json!({"events": one, "priority": "high"}), "/priority"),
        (json!({"events": one, "batch_id": 5}), "/batch_id"),
        (json!({"events": one, "batch_id": ""}), "/batch_id"),
        (json!({"events": one, "batch_id": "."}), "/batch_id"),
        (json!({"events": one, "batch_id": ".."}), "/batch_id"),
        (json!({"events": one, "batch_id": "a/b"}), "/batch_id"),
        (json!({"events": one, "batch_id": "a b"}), "/batch_id"),
        (json!({"events": one, "batch_id": "ü"}), "/batch_id"),
        (json!({"events": one, "batch_id": "x".repeat(129)}), "/batch_id"),
    ] {
        let answer = node.send(Request::json(&envelope)).await;
        let problem = answer.is_problem(422, "invalid_batch");
        assert_eq!(problem["pointer"], pointer, "{answer}");
    }
    for doubled in ["\"priority\":1,\"priority\":1", "\"events\":[],\"x\":1", "\"batch_id\":\"a\",\"batch_id\":\"a\""] {
        let body = batch(&one).to_string().replacen('{', &format!("{{{doubled},"), 1);
        node.send(Request::post("application/json", body)).await.is_problem(422, "invalid_batch");
    }
    for (content_type, body) in [
        ("application/x-ndjson", ""),
        ("application/x-ndjson", "\n \n"),
        ("application/cloudevents-batch+json", "[]"),
        ("application/cloudevents-batch+json", "{}"),
    ] {
        node.send(Request::post(content_type, body)).await.is_problem(422, "invalid_batch");
    }
    only_a_fresh_batch_is_stored(node).await;
}

#[tokio::test]
async fn parameter_that_is_none_is_422() {
    let node = Node::start(|_| ()).await;
    for parameter in [
        "priority=11",
        "priority=-1",
        "priority=high",
        "priority=",
        "batch_id=a%2Fb",
        "batch_id=a%20b",
        "batch_id=..",
        "atomic=maybe",
    ] {
        let answer = node.send(Request::json(&batch(&events(1))).query(parameter)).await;
        println!("{parameter}");
        answer.is_problem(422, "invalid_batch");
    }
    let key = Request::json(&batch(&events(1))).header("idempotency-key", "\"a b\"");
    node.send(key).await.is_problem(422, "invalid_batch");
    only_a_fresh_batch_is_stored(node).await;
}

#[tokio::test]
async fn ids_that_differ_are_400() {
    let node = Node::start(|_| ()).await;
    for request in [
        Request::json(&batch_as("a", &events(1))).query("batch_id=b"),
        Request::json(&batch_as("a", &events(1))).header("idempotency-key", "b"),
        Request::json(&batch(&events(1))).query("batch_id=a").header("idempotency-key", "\"b\""),
        Request::ndjson(&events(1)).query("batch_id=a").header("idempotency-key", "b"),
    ] {
        node.send(request).await.is_problem(400, "batch_id_mismatch");
    }
    only_a_fresh_batch_is_stored(node).await;
}

#[tokio::test]
async fn batch_of_10_001_events_is_413_with_the_limit() {
    let node = Node::start(|_| ()).await;
    let too_many = events(10_001);
    for request in [Request::json(&batch(&too_many)), Request::ndjson(&too_many)] {
        let problem = node.send(request).await.is_problem(413, "too_large");
        assert_eq!((&problem["limit"], &problem["unit"]), (&json!(10_000), &json!("events")));
    }
    only_a_fresh_batch_is_stored(node).await;
}

#[tokio::test]
async fn limit_of_events_is_a_setting() {
    let node = Node::start(|settings| {
        settings.set("MAX_BATCH_EVENTS", 3);
    })
    .await;
    let problem = node.send(Request::json(&batch(&events(4)))).await.is_problem(413, "too_large");
    assert_eq!(problem["limit"], 3);
    node.is_committed(&node.ingest(&events(3)).await).await;
    node.finish().await;
}

#[tokio::test]
async fn unknown_batch_is_404_and_may_be_asked_again_in_a_second() {
    let node = Node::start(|_| ()).await;
    for id in [unique("never-sent"), "x".repeat(128), "a:b~c@d".to_owned()] {
        let answer = node.send(Request::status(&id)).await;
        answer.is_problem(404, "unknown_batch");
        assert_eq!(answer.must_have("retry-after"), "1");
    }
    node.finish().await;
}

#[tokio::test]
async fn known_id_with_other_content_is_409() {
    let node = Node::start(|_| ()).await;
    let first = [event()];
    let receipt = node.accept(Request::json(&batch_as("orders-17", &first))).await;
    for _ in ["while it may be in hand", "when it is final"] {
        let other = Request::json(&batch_as("orders-17", &events(1)));
        let problem = node.send(other).await.is_problem(409, "batch_id_reused");
        assert_eq!(problem["batch_id"], "orders-17");
        node.is_committed(&receipt).await;
    }
    assert_eq!(node.database.event_count().await, 1);
    let metrics = node.metrics().await;
    assert_eq!(metrics.get(r#"forebay_events_received_total{source="http"}"#), 1.0);
    node.finish().await;
}
