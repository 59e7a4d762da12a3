//! What can be wrong with a body before anybody looks at its events: type, coding, size, pace.

use std::time::Instant;

use serde_json::json;

use crate::harness::{
    client::{Request, gzip, zstd},
    events::{batch, events},
    eventually::DEADLINE,
    node::Node,
    raw::Raw,
    strace::peak_memory_kib,
};

const MEBIBYTE: usize = 1 << 20;

#[tokio::test]
async fn unknown_media_type_is_415_with_accept_post() {
    let node = Node::start(|_| ()).await;
    let body = batch(&events(1)).to_string();
    for content_type in [
        "text/plain",
        "application/xml",
        "application/cloudevents+json",
        "application/json; charset=iso-8859-1",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "",
    ] {
        let answer = node.send(Request::post(content_type, body.clone())).await;
        println!("{content_type}");
        answer.is_problem(415, "unsupported_media_type");
        let accepted = answer.must_have("accept-post");
        for ours in ["application/json", "application/x-ndjson", "application/cloudevents-batch+json"] {
            assert!(accepted.contains(ours), "{accepted}");
        }
    }
    let untold = Request::new("POST", "/v1/ingest/batch");
    node.send(untold).await.is_problem(415, "unsupported_media_type");
    for content_type in ["application/json; charset=utf-8", "application/json;charset=\"UTF-8\"", "Application/JSON"] {
        node.accept(Request::post(content_type, batch(&events(1)).to_string())).await;
    }
    node.finish().await;
}

#[tokio::test]
async fn unknown_coding_is_415_with_accept_encoding() {
    let node = Node::start(|_| ()).await;
    for coding in ["br", "deflate", "gzip, gzip", "gzip, zstd", "compress"] {
        let answer = node.send(Request::json(&batch(&events(1))).header("content-encoding", coding)).await;
        answer.is_problem(415, "unsupported_media_type");
        let accepted = answer.must_have("accept-encoding");
        assert!(accepted.contains("gzip") && accepted.contains("zstd"), "{accepted}");
    }
    node.accept(Request::json(&batch(&events(1))).header("content-encoding", "identity")).await;
    node.finish().await;
}

#[tokio::test]
async fn length_over_the_limit_is_refused_before_the_body_is_sent() {
    let node = Node::start(|_| ()).await;
    let headers = [("content-type", "application/json"), ("content-length", "16777217"), ("expect", "100-continue")];
    let mut raw = Raw::post(node.api(), &headers).await;
    let answer = raw.answer().await;
    let problem = answer.is_problem(413, "too_large");
    assert_eq!(problem["limit"], 16 * MEBIBYTE);
    assert!(problem["unit"].as_str().unwrap().contains("bytes"), "{problem}");
    node.finish().await;
}

#[tokio::test]
async fn good_body_is_asked_for_with_100_continue() {
    let node = Node::start(|_| ()).await;
    let body = batch(&events(1)).to_string();
    let length = body.len().to_string();
    let headers = [("content-type", "application/json"), ("content-length", &length), ("expect", "100-continue")];
    let mut raw = Raw::post(node.api(), &headers).await;
    assert_eq!(raw.answer().await.status, 100);
    raw.send(body.as_bytes()).await;
    raw.answer().await.is(202);
    node.finish().await;
}

#[tokio::test]
async fn body_over_the_limit_is_413_whether_its_length_was_told_or_not() {
    let node = Node::start(|settings| {
        settings.set("MAX_REQUEST_MB", 1).set("MAX_DECOMPRESSED_MB", 2);
    })
    .await;
    let too_long = vec![b' '; MEBIBYTE + 1];
    // reqwest sends all of it before it listens: the server must read on, or the answer is lost in a reset.
    let told = node.send(Request::post("application/json", too_long.clone())).await;
    assert_eq!(told.is_problem(413, "too_large")["limit"], MEBIBYTE);

    let headers = [("content-type", "application/json"), ("transfer-encoding", "chunked")];
    let mut raw = Raw::post(node.api(), &headers).await;
    for piece in too_long.chunks(64 * 1024) {
        assert!(raw.try_send_chunk(piece).await, "the server closed before its answer");
    }
    assert_eq!(raw.answer().await.is_problem(413, "too_large")["limit"], MEBIBYTE);

    let mut fits = batch(&events(1)).to_string().into_bytes();
    fits.resize(MEBIBYTE, b' ');
    node.is_committed(&node.accept(Request::post("application/json", fits)).await).await;
    node.finish().await;
}

#[tokio::test]
async fn endless_body_is_answered_and_cut_off() {
    let node = Node::start(|settings| {
        settings.set("MAX_REQUEST_MB", 1).set("MAX_DECOMPRESSED_MB", 1);
    })
    .await;
    let headers = [("content-type", "application/json"), ("transfer-encoding", "chunked")];
    let mut raw = Raw::post(node.api(), &headers).await;
    let piece = vec![b' '; MEBIBYTE];
    let begun = Instant::now();
    while raw.try_send_chunk(&piece).await {
        assert!(begun.elapsed() < DEADLINE, "the server reads for ever");
    }
    node.finish().await;
}

#[tokio::test]
async fn decompression_bomb_is_413_and_costs_bounded_memory() {
    let mut node = Node::start(|settings| {
        settings.set("REQUEST_MEMORY_MB", 128).set("QUEUE_MEMORY_MB", 64);
    })
    .await;
    let spaces = vec![b' '; 200 * MEBIBYTE];
    for (coding, bomb) in [("gzip", gzip(&spaces)), ("zstd", zstd(&spaces))] {
        assert!(bomb.len() < 4 * MEBIBYTE, "the bomb is small");
        for content_type in ["application/json", "application/x-ndjson"] {
            let request = Request::post(content_type, bomb.clone()).header("content-encoding", coding);
            let problem = node.send(request).await.is_problem(413, "too_large");
            assert_eq!(problem["limit"], 64 * MEBIBYTE, "{coding}");
        }
    }
    let peak = peak_memory_kib(node.process());
    assert!(peak < (128 + 64 + 64) * 1024, "{peak} KiB");
    node.finish().await;
}

#[tokio::test]
async fn zstd_window_over_8_mib_is_refused() {
    let node = Node::start(|_| ()).await;
    let body = batch(&events(1)).to_string();
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    std::io::Write::write_all(&mut encoder, body.as_bytes()).unwrap();
    let wide = encoder.finish().unwrap();
    let request = Request::post("application/json", wide).header("content-encoding", "zstd");
    node.send(request).await.is_problem(400, "malformed_json");
    node.finish().await;
}

#[tokio::test]
async fn stalled_body_is_408_and_the_connection_closed() {
    let node = Node::start(|settings| {
        settings.set("BODY_TIMEOUT_SECONDS", 1);
    })
    .await;
    let headers = [("content-type", "application/json"), ("content-length", "1000")];
    let mut stalled = Raw::post(node.api(), &headers).await;
    stalled.send(b"{\"events\":[").await;
    let chunked = [("content-type", "application/x-ndjson"), ("transfer-encoding", "chunked")];
    let mut never_begun = Raw::post(node.api(), &chunked).await;

    // Others are served meanwhile.
    node.is_committed(&node.ingest(&events(1)).await).await;

    for raw in [&mut stalled, &mut never_begun] {
        raw.answer().await.is_problem(408, "body_timeout");
        raw.is_closed().await;
    }
    assert_eq!(node.database.event_count().await, 1);
    node.finish().await;
}

#[tokio::test]
async fn body_that_drips_is_408_too() {
    let node = Node::start(|settings| {
        settings.set("BODY_TIMEOUT_SECONDS", 2);
    })
    .await;
    let headers = [("content-type", "application/json"), ("content-length", "1000000")];
    let mut raw = Raw::post(node.api(), &headers).await;
    let answer = raw.drip_until_answered(b" ").await;
    answer.is_problem(408, "body_timeout");
    node.finish().await;
}

#[tokio::test]
async fn body_cut_by_its_sender_stores_nothing() {
    let node = Node::start(|_| ()).await;
    let body = batch(&events(2)).to_string();
    let length = (body.len() + 1).to_string();
    let mut raw = Raw::post(node.api(), &[("content-type", "application/json"), ("content-length", &length)]).await;
    raw.send(body.as_bytes()).await;
    drop(raw);
    node.is_committed(&node.ingest(&events(1)).await).await;
    assert_eq!(node.database.event_count().await, 1);
    node.finish().await;
}

#[tokio::test]
async fn headers_that_never_end_are_refused() {
    let node = Node::start(|_| ()).await;
    let mut raw = Raw::open(node.api()).await;
    raw.send(b"POST /v1/ingest/batch HTTP/1.1\r\nhost: forebay\r\n").await;
    let header = format!("x-padding: {}\r\n", "x".repeat(16 * 1024));
    let mut sent = 0;
    while sent < 1024 && raw.try_send(header.as_bytes()).await {
        sent += 1;
    }
    assert!(sent < 1024, "16 MiB of headers were read");
    node.is_committed(&node.ingest(&events(1)).await).await;
    assert_eq!(node.send(Request::get("/v1/health")).await.is(200)["status"], json!("healthy"));
    node.finish().await;
}
