//! What is counted of requests. Labels are closed sets: the route's pattern, never a path as it was sent.

use std::time::Duration;

use axum::http::Method;
use prometheus::{Histogram, IntCounter, IntCounterVec, Opts, Registry};
use utoipa::openapi::OpenApi;

use crate::{
    label::{Label, label},
    metrics::{Family, Metric},
};

/// Seconds, from an answer out of memory to the longest wait that a caller may ask for.
const SECONDS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

label! {
    /// A route of the ingest port, by its pattern.
    pub enum Route("route") {
        /// Takes batches.
        Ingest = "/v1/ingest/batch",
        /// Tells a batch's status.
        Status = "/v1/batch/{batch_id}/status",
        /// Tells how the process is.
        Health = "/v1/health",
        /// Tells the metrics.
        V1Metrics = "/v1/metrics",
        /// Tells the metrics.
        Metrics = "/metrics",
        /// The pages that show the API, and their files.
        Docs = "/docs",
        /// The description of the API.
        OpenApi = "/openapi.json",
        /// No route of ours.
        Other = "other",
    }
}

impl Route {
    /// Returns the route with this pattern.
    pub fn of(pattern: &str) -> Self {
        let is = |route: &&Self| route.as_str() == pattern;
        match Self::ALL.iter().find(is) {
            Some(route) => *route,
            None if pattern.starts_with("/docs/") => Self::Docs,
            None => Self::Other,
        }
    }
}

label! {
    /// A request's method.
    pub enum MethodLabel("method") {
        /// GET.
        Get = "GET",
        /// HEAD.
        Head = "HEAD",
        /// POST.
        Post = "POST",
        /// PUT.
        Put = "PUT",
        /// PATCH.
        Patch = "PATCH",
        /// DELETE.
        Delete = "DELETE",
        /// OPTIONS.
        Options = "OPTIONS",
        /// Any other, of which there is no end.
        Other = "OTHER",
    }
}

impl From<&Method> for MethodLabel {
    fn from(method: &Method) -> Self {
        let known = Self::ALL.iter().find(|label| label.as_str() == method.as_str());
        known.copied().unwrap_or(Self::Other)
    }
}

/// What is counted of requests.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    /// By route and method, the statuses that the OpenAPI document names: those are counted without a look-up by text.
    documented: Vec<Vec<(u16, IntCounter)>>,
    seconds: Family<Route, Histogram>,
}

impl HttpMetrics {
    /// Registers the metrics, with each route, method and status of the document at 0.
    ///
    /// # Panics
    /// When they are registered twice.
    pub fn register(registry: &Registry, document: &OpenApi) -> Self {
        let requests = IntCounterVec::new(
            Opts::new("http_requests_total", "Requests to the ingest port, by what was answered."),
            &["route", "method", "status"],
        )
        .expect("the name is valid");
        registry.register(Box::new(requests.clone())).expect("they are registered once");
        let help = "Seconds from a request's head to its answer, waits that the caller asked for included.";
        let mut metrics = Self {
            requests,
            documented: vec![Vec::new(); Route::ALL.len() * MethodLabel::ALL.len()],
            seconds: Family::register(registry, "http_request_duration_seconds", help, &[], SECONDS),
        };
        for (path, item) in &document.paths.paths {
            for (method, operation) in [(MethodLabel::Get, &item.get), (MethodLabel::Post, &item.post)] {
                let responses = operation.iter().flat_map(|operation| operation.responses.responses.keys());
                for status in responses.filter_map(|status| status.parse().ok()) {
                    let route = Route::of(path);
                    let counter = metrics.counter(route, method, status);
                    metrics.documented[slot(route, method)].push((status, counter));
                }
            }
        }
        metrics
    }

    fn counter(&self, route: Route, method: MethodLabel, status: u16) -> IntCounter {
        let labels = [route.as_str(), method.as_str(), &status.to_string()];
        self.requests.with_label_values(&labels)
    }

    /// Counts one answer.
    pub fn record(&self, route: Route, method: MethodLabel, status: u16, took: Duration) {
        let documented = self.documented[slot(route, method)].iter();
        match documented.into_iter().find(|(known, _)| *known == status) {
            Some((_, counter)) => counter.inc(),
            None => self.counter(route, method, status).inc(),
        }
        self.seconds.get(route).observe(took.as_secs_f64());
    }
}

fn slot(route: Route, method: MethodLabel) -> usize {
    route.index() * MethodLabel::ALL.len() + method.index()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{http::openapi, metrics::Metrics};

    #[test]
    fn documented_answers_stand_at_0_and_others_are_bounded() {
        let metrics = Metrics::new();
        let http = HttpMetrics::register(&metrics.registry, openapi::document());
        let get = MethodLabel::from(&Method::GET);
        http.record(Route::of("/docs/{*file}"), get, 200, Duration::from_millis(1));
        http.record(Route::of("/nowhere"), MethodLabel::from(&Method::TRACE), 404, Duration::ZERO);
        let text = metrics.render();
        for line in [
            "forebay_http_requests_total{method=\"POST\",route=\"/v1/ingest/batch\",status=\"202\"} 0",
            "forebay_http_requests_total{method=\"POST\",route=\"/v1/ingest/batch\",status=\"503\"} 0",
            "forebay_http_requests_total{method=\"GET\",route=\"/v1/batch/{batch_id}/status\",status=\"404\"} 0",
            "forebay_http_requests_total{method=\"GET\",route=\"/v1/metrics\",status=\"200\"} 0",
            "forebay_http_requests_total{method=\"GET\",route=\"/docs\",status=\"200\"} 1",
            "forebay_http_requests_total{method=\"OTHER\",route=\"other\",status=\"404\"} 1",
            "forebay_http_request_duration_seconds_count{route=\"/v1/ingest/batch\"} 0",
            "forebay_http_request_duration_seconds_count{route=\"/docs\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
