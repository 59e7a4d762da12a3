//! `GET /v1/health` and `/metrics`: answered from what tasks keep up to date, never by a query.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use super::Api;
use crate::{
    health::{HealthReport, Overall},
    metrics::Metrics,
};

/// Tells how this replica is.
#[utoipa::path(
    get,
    path = "/v1/health",
    tag = "operation",
    operation_id = "health",
    responses(
        (status = 200, body = HealthReport, description = "`healthy`, or `degraded`: batches are taken, but something behind is away or full.",
            example = json!({
                "status": "degraded",
                "checks": {
                    "database": {"status": "down", "detail": "not reachable"}, "redis": {"status": "off"},
                    "journal": {"status": "up"}, "queue": {"status": "up"},
                },
                "version": "0.1.0", "uptime_seconds": 4711,
            })),
        (status = 503, body = HealthReport, description = "`unhealthy`: batches can't be taken.",
            headers(("Retry-After" = u64, description = "Seconds.")),
            example = json!({
                "status": "unhealthy",
                "checks": {
                    "database": {"status": "up"}, "redis": {"status": "up"},
                    "journal": {"status": "down", "detail": "the journal can't be written"}, "queue": {"status": "up"},
                },
                "version": "0.1.0", "uptime_seconds": 4711,
            })),
    ),
)]
pub(super) async fn health(State(api): State<Arc<Api>>) -> Response {
    let report = api.health.report();
    let status = match report.status {
        Overall::Healthy | Overall::Degraded => StatusCode::OK,
        Overall::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(report)).into_response()
}

/// Tells the metrics of this replica.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    operation_id = "metrics",
    responses(
        (status = 200, body = String, content_type = "text/plain; version=0.0.4", description = "Prometheus' text format 0.0.4.",
            example = "forebay_events_in_flight 0\n"),
    ),
)]
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    render(&api.metrics)
}

/// Returns the metrics in Prometheus' text format.
pub fn render(metrics: &Metrics) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render()).into_response()
}
