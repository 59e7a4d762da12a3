//! The admin port: probes and metrics, for the cluster and not for callers. It answers until the process ends.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, routing::get};

use super::{
    health::render,
    layers::{Observer, wrap},
};
use crate::{health::Health, metrics::Metrics};

/// Returns the admin port's routes.
pub fn router(health: &Arc<Health>, metrics: Arc<Metrics>) -> Router {
    let routes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        // It listens, so the settings were read and the journal was opened.
        .route("/startupz", get(async || "started\n"))
        .with_state(Arc::clone(health))
        .route("/metrics", get(async move || render(&metrics)));
    wrap(routes, Observer::new(Arc::clone(health), None), None)
}

async fn livez(State(health): State<Arc<Health>>) -> (StatusCode, &'static str) {
    match health.is_live() {
        true => (StatusCode::OK, "live\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no lane has gone round its loop for 60 s\n"),
    }
}

async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    match health.not_ready_because() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use tower::ServiceExt;

    use super::*;
    use crate::{health::CheckStatus, time::Clock};

    #[tokio::test]
    async fn probes_answer_from_the_state_of_now() {
        let health = Arc::new(Health::new(Clock::default(), CheckStatus::Off));
        let router = router(&health, Arc::new(Metrics::new()));
        let ask = async |path: &str| {
            let response = router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            assert!(response.headers().contains_key("x-request-id"), "{path}");
            let status = response.status().as_u16();
            let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(ask("/readyz").await, (503, "not ready: the journal is being read\n".to_owned()));
        health.index_read.store(true, Relaxed);
        health.schema_seen.store(true, Relaxed);
        for path in ["/readyz", "/livez", "/startupz"] {
            assert_eq!(ask(path).await.0, 200, "{path}");
        }
        health.draining.store(true, Relaxed);
        assert_eq!(ask("/readyz").await, (503, "not ready: draining\n".to_owned()));
        assert!(ask("/metrics").await.1.contains("forebay_events_in_flight 0"));
        assert_eq!(ask("/nowhere").await.0, 404);
    }
}
