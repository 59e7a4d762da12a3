//! What holds for every answer, whatever was asked: a request id, a problem as the body of each error, counters, and
//! `Connection: close` once the process drains.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
        header::{CACHE_CONTROL, CONNECTION, RETRY_AFTER},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tower::util::option_layer;
use tower_http::{catch_panic::CatchPanicLayer, cors::CorsLayer};
use tracing::Instrument;

use super::{
    error::Code,
    metrics::{HttpMetrics, MethodLabel, Route},
    problem::{Problem, Result},
};
use crate::health::Health;

/// The header that names a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Marks an answer after which the connection must be closed with patience: bytes of the request are still to come.
#[derive(Clone, Copy, Debug)]
pub struct Unread;

/// What looks at every request.
#[derive(Debug)]
pub struct Observer {
    health: Arc<Health>,
    /// None on the admin port, whose requests are not counted.
    metrics: Option<HttpMetrics>,
    /// When the process started, and the second after it in which a refusal with 503 was last logged.
    started: Instant,
    logged: AtomicU64,
}

impl Observer {
    /// Returns an observer that counts in `metrics`, if they are given.
    pub fn new(health: Arc<Health>, metrics: Option<HttpMetrics>) -> Self {
        Self { health, metrics, started: Instant::now(), logged: AtomicU64::new(0) }
    }

    /// A full queue refuses thousands of requests a second: one line a second is enough.
    fn may_log(&self) -> bool {
        let second = self.started.elapsed().as_secs() + 1;
        self.logged.swap(second, Relaxed) != second
    }

    fn log_problem(&self, problem: &Problem) {
        match problem.status {
            500 => tracing::error!(problem.code = problem.code.as_str(), "request failed"),
            501.. if self.may_log() => {
                tracing::warn!(problem.code = problem.code.as_str(), problem.detail = %problem.detail, "refused request");
            }
            _ => {}
        }
    }
}

/// Puts the layers around the routes.
pub fn wrap(routes: Router, observer: Observer, cors: Option<CorsLayer>) -> Router {
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(option_layer(cors))
        .layer(middleware::from_fn_with_state(Arc::new(observer), observe))
}

async fn not_found() -> Box<Problem> {
    Problem::new(Code::NotFound, "there is nothing at this path")
}

/// Answers a method that the path does not have; the router adds `Allow`.
async fn wrong_method(method: Method) -> Result<StatusCode> {
    if method == Method::OPTIONS {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::new(Code::MethodNotAllowed, "the path has no such method; Allow lists those that it has"))
}

/// Answers in place of a handler that panicked. What it said may hold what the caller sent, so it is not told.
fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    let detail = "a bug of ours; the outcome is unknown, and the log has the cause under the request id";
    Problem::new(Code::Internal, detail).into_response()
}

/// Takes the caller's id over if it is a fit one, else makes one.
fn request_id(headers: &HeaderMap) -> String {
    let fit = |id: &&str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=64).contains(&id.len()) && id.bytes().all(allowed)
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(fit);
    given.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}

async fn observe(State(observer): State<Arc<Observer>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let request_id = request_id(request.headers());
    let pattern = request.extensions().get::<MatchedPath>();
    let route = pattern.map_or(Route::Other, |pattern| Route::of(pattern.as_str()));
    let method = MethodLabel::from(request.method());
    let version = request.version();
    // At the level of errors, so that lines of any level carry the id.
    let span = tracing::error_span!("request", request.id = request_id);

    let mut response = next.run(request).instrument(span.clone()).await;

    let mut close = observer.health.draining.load(Relaxed);
    if let Some(problem) = response.extensions_mut().remove::<Box<Problem>>() {
        span.in_scope(|| observer.log_problem(&problem));
        if problem.close {
            close = true;
            response.extensions_mut().insert(Unread);
        }
        problem.render(&request_id, &mut response);
    }
    let status = response.status();
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(&request_id) {
        headers.insert(REQUEST_ID, value);
    }
    if close && version <= Version::HTTP_11 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE && !headers.contains_key(RETRY_AFTER) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if matches!(method, MethodLabel::Get | MethodLabel::Head) && !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let took = began.elapsed();
    if let Some(metrics) = &observer.metrics {
        metrics.record(route, method, status.as_u16(), took);
    }
    span.in_scope(|| {
        tracing::debug!(
            http.method = method.as_str(),
            http.route = route.as_str(),
            http.status = status.as_u16(),
            http.seconds = took.as_secs_f64(),
            "answered request"
        );
    });
    response
}

/// How long a browser may remember what it was told about an origin.
const CORS_MAX_AGE: Duration = Duration::from_secs(600);

/// Returns the layer that lets browsers call from these origins, if there are any.
pub fn cors(origins: &[String]) -> Option<CorsLayer> {
    use tower_http::cors::AllowOrigin;
    let header = HeaderName::from_static;
    let mut list = origins.iter().filter(|origin| !origin.is_empty()).peekable();
    list.peek()?;
    let origins = if list.clone().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(list.filter_map(|origin| HeaderValue::try_from(origin).ok()))
    };
    Some(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::HEAD, Method::POST])
            .allow_headers(
                [
                    "authorization",
                    "content-encoding",
                    "content-type",
                    "idempotency-key",
                    "prefer",
                    "traceparent",
                    "x-request-id",
                ]
                .map(header),
            )
            .expose_headers(
                ["location", "preference-applied", "ratelimit", "ratelimit-policy", "retry-after", "x-request-id"]
                    .map(header),
            )
            .max_age(CORS_MAX_AGE),
    )
}

#[cfg(test)]
mod tests;
