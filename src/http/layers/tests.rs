use std::sync::atomic::Ordering::Relaxed;

use axum::{
    body::{Body, to_bytes},
    routing::{get, post},
};
use tower::ServiceExt;

use super::*;
use crate::{
    event::{EventError, RejectReason},
    health::CheckStatus,
    http::{documentation, openapi},
    metrics::Metrics,
    time::Clock,
};

struct Wrapped {
    router: Router,
    health: Arc<Health>,
    metrics: Metrics,
}

fn wrapped(origins: &[&str]) -> Wrapped {
    let health = Arc::new(Health::new(Clock::default(), CheckStatus::Off));
    let metrics = Metrics::new();
    let counted = HttpMetrics::register(&metrics.registry, openapi::document());
    let origins: Vec<String> = origins.iter().map(ToString::to_string).collect();
    let refused = async || -> Result<()> {
        let mut problem = Problem::new(Code::InvalidBatch, "no event can be stored").about(Some("orders-17".into()));
        problem.pointer = Some("/events".into());
        problem.errors.push(EventError {
            index: 0,
            event_id: Some("evt_1".into()),
            code: RejectReason::EmptyField,
            detail: "service_name is empty".into(),
            pointer: "/events/0/service_name".into(),
        });
        Err(problem)
    };
    let full =
        async || -> Result<()> { Err(Problem::new(Code::QueueFull, "full").retry_after(Duration::from_secs(7))) };
    let boom = async || -> Result<()> { panic!("a handler that panics") };
    let routes = documentation().route("/v1/ingest/batch", post(refused).get(boom)).route("/v1/health", get(full));
    Wrapped { router: wrap(routes, Observer::new(Arc::clone(&health), Some(counted)), cors(&origins)), health, metrics }
}

impl Wrapped {
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    /// Returns status, headers and body as text, under the request id `test`.
    async fn show(&self, method: &str, path: &str) -> String {
        let response = self.ask(method, path, &[("x-request-id", "test")]).await;
        let mut text = format!("{}\n", response.status().as_u16());
        for (name, value) in response.headers() {
            text += &format!("{name}: {}\n", value.to_str().unwrap());
        }
        text + &read(response).await
    }
}

async fn read(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), 10 << 20).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let wrapped = wrapped(&[]);
    insta::assert_snapshot!(wrapped.show("GET", "/nowhere").await, @r#"
    404
    content-type: application/problem+json
    content-length: 114
    x-request-id: test
    cache-control: no-store
    {"title":"Not Found","status":404,"code":"not_found","detail":"there is nothing at this path","request_id":"test"}
    "#);
    insta::assert_snapshot!(wrapped.show("DELETE", "/v1/health").await, @r#"
    405
    content-type: application/problem+json
    content-length: 161
    x-request-id: test
    allow: GET,HEAD
    {"title":"Method Not Allowed","status":405,"code":"method_not_allowed","detail":"the path has no such method; Allow lists those that it has","request_id":"test"}
    "#);
    insta::assert_snapshot!(wrapped.show("POST", "/v1/ingest/batch").await, @r#"
    422
    content-type: application/problem+json
    content-length: 297
    x-request-id: test
    {"title":"Unprocessable Content","status":422,"code":"invalid_batch","detail":"no event can be stored","batch_id":"orders-17","pointer":"/events","request_id":"test","errors":[{"index":0,"event_id":"evt_1","code":"empty_field","detail":"service_name is empty","pointer":"/events/0/service_name"}]}
    "#);
    insta::assert_snapshot!(wrapped.show("GET", "/v1/ingest/batch").await, @r#"
    500
    content-type: application/problem+json
    content-length: 181
    x-request-id: test
    cache-control: no-store
    {"title":"Internal Server Error","status":500,"code":"internal","detail":"a bug of ours; the outcome is unknown, and the log has the cause under the request id","request_id":"test"}
    "#);
    insta::assert_snapshot!(wrapped.show("HEAD", "/docs/nothing.js").await, @r#"
    404
    content-type: application/problem+json
    content-length: 106
    x-request-id: test
    cache-control: no-store
    "#);
    insta::assert_snapshot!(wrapped.show("OPTIONS", "/v1/health").await, @r#"
    204
    x-request-id: test
    allow: GET,HEAD
    content-length: 0
    "#);
}

#[tokio::test]
async fn refusal_says_when_to_come_back() {
    let response = wrapped(&[]).ask("GET", "/v1/health", &[]).await;
    let header: u64 = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    let body: serde_json::Value = serde_json::from_str(&read(response).await).unwrap();
    assert!((7..=14).contains(&header), "{header}");
    assert_eq!(body["retry_after"], header);
}

#[tokio::test]
async fn fit_request_id_is_taken_over_and_others_replaced() {
    let wrapped = wrapped(&[]);
    for fit in ["checkout-8841", "A.b_c-1", &"x".repeat(64)] {
        let response = wrapped.ask("GET", "/docs", &[("x-request-id", fit)]).await;
        assert_eq!(response.headers()[REQUEST_ID], fit);
    }
    for unfit in ["", "a b", "a/b", &"x".repeat(65)] {
        let response = wrapped.ask("GET", "/nowhere", &[("x-request-id", unfit)]).await;
        let id = response.headers()[REQUEST_ID].to_str().unwrap().to_owned();
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7, "{unfit}");
        assert!(read(response).await.contains(&id));
    }
}

#[tokio::test]
async fn draining_closes_connections_after_their_answer() {
    let wrapped = wrapped(&[]);
    assert!(!wrapped.ask("GET", "/docs", &[]).await.headers().contains_key(CONNECTION));
    wrapped.health.draining.store(true, Relaxed);
    assert_eq!(wrapped.ask("GET", "/docs", &[]).await.headers()[CONNECTION], "close");
}

#[tokio::test]
async fn answers_are_counted_by_route() {
    let wrapped = wrapped(&[]);
    for (method, path) in [("GET", "/docs/index.css"), ("GET", "/a/b"), ("BREW", "/c"), ("PUT", "/v1/health")] {
        wrapped.ask(method, path, &[]).await;
    }
    let text = wrapped.metrics.render();
    for line in [
        "forebay_http_requests_total{method=\"GET\",route=\"/docs\",status=\"200\"} 1",
        "forebay_http_requests_total{method=\"GET\",route=\"other\",status=\"404\"} 1",
        "forebay_http_requests_total{method=\"OTHER\",route=\"other\",status=\"404\"} 1",
        "forebay_http_requests_total{method=\"PUT\",route=\"/v1/health\",status=\"405\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
}

#[tokio::test]
async fn only_the_origins_that_are_set_may_read_answers() {
    let asked_by = async |wrapped: &Wrapped, origin| {
        let response = wrapped.ask("POST", "/v1/ingest/batch", &[("origin", origin)]).await;
        let allowed = response.headers().get("access-control-allow-origin").cloned();
        let exposed = response.headers().contains_key("access-control-expose-headers");
        allowed.map(|origin| (origin.to_str().unwrap().to_owned(), exposed))
    };
    assert_eq!(asked_by(&wrapped(&[""]), "https://a.example").await, None);
    let wrapped = wrapped(&["https://a.example", "https://b.example"]);
    assert_eq!(asked_by(&wrapped, "https://b.example").await, Some(("https://b.example".to_owned(), true)));
    assert_eq!(asked_by(&wrapped, "https://c.example").await.map(|(origin, _)| origin), None);
    let preflight = [
        ("origin", "https://a.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,idempotency-key"),
    ];
    let response = wrapped.ask("OPTIONS", "/v1/ingest/batch", &preflight).await;
    assert_eq!(response.headers()["access-control-allow-origin"], "https://a.example");
    assert!(response.headers().contains_key(REQUEST_ID));
}

#[tokio::test]
async fn docs_need_nothing_from_elsewhere() {
    let wrapped = wrapped(&[]);
    for path in ["/docs", "/docs/"] {
        let page = read(wrapped.ask("GET", path, &[]).await).await;
        assert!(!page.contains("://"), "{page}");
        let files: Vec<&str> =
            page.split(['"']).filter(|text| text.ends_with(".js") || text.ends_with(".css")).collect();
        assert!(files.len() >= 4, "{page}");
        for file in files {
            let path = format!("/docs/{}", file.trim_start_matches("./"));
            assert_eq!(wrapped.ask("GET", &path, &[]).await.status(), 200, "{path}");
        }
    }
    let start = read(wrapped.ask("GET", "/docs/swagger-initializer.js", &[]).await).await;
    for setting in ["\"url\": \"/openapi.json\"", "\"validatorUrl\": \"none\""] {
        assert!(start.contains(setting), "{setting} is not in {start}");
    }
}
