//! The ingest API and the admin port.
//!
//! Handlers decide nothing about events: they read a request within its limits, hand it to the
//! [`Intake`], and turn what comes of it into an answer. [`server`] owns the connections.

pub mod error;
pub mod metrics;
pub mod openapi;
pub mod prefer;
pub mod problem;
pub mod receipt;
pub mod server;

mod admin;
mod body;
mod decompress;
mod docs;
mod head;
mod health;
mod ingest;
mod layers;
mod media;
mod memory;
mod status;
mod stream;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{Router, routing::get, routing::post};
use tokio_util::sync::CancellationToken;

pub use self::{
    openapi::openapi_json,
    server::{Listeners, Parts, Server},
};
use crate::{
    batch::BatchKey,
    health::Health,
    intake::Intake,
    metrics::Metrics,
    settings::{Mebibytes, Seconds},
    status::StatusBoard,
};

/// Settings of the HTTP servers.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "HTTP")]
#[group(skip)]
pub struct Config {
    /// Address that both ports are bound to. Unset, it is 0.0.0.0, and 127.0.0.1 for `dev`.
    #[arg(long, env = "HOST")]
    pub host: Option<IpAddr>,

    /// Port of the ingest API.
    #[arg(long, env = "PORT", default_value_t = 8000)]
    pub port: u16,

    /// Port of probes and metrics.
    #[arg(long, env = "ADMIN_PORT", default_value_t = 8001)]
    pub admin_port: u16,

    /// MiB that a body may have as it is sent.
    #[arg(long, env = "MAX_REQUEST_MB", default_value = "16")]
    pub max_request_mb: Mebibytes,

    /// MiB that a body may have once it is decompressed.
    #[arg(long, env = "MAX_DECOMPRESSED_MB", default_value = "64")]
    pub max_decompressed_mb: Mebibytes,

    /// MiB of memory for all bodies that are being read and decompressed.
    #[arg(long, env = "REQUEST_MEMORY_MB", default_value = "256")]
    pub request_memory_mb: Mebibytes,

    /// Seconds that a body may take to arrive.
    #[arg(long, env = "BODY_TIMEOUT_SECONDS", default_value = "15")]
    pub body_timeout_seconds: Seconds,

    /// Connections at once; more wait to be accepted.
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// Origins that browsers may call from, separated by commas; `*` is any.
    #[arg(long, env = "CORS_ALLOWED_ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub cors_allowed_origins: Vec<String>,
}

impl Config {
    fn limits(&self) -> body::Limits {
        body::Limits {
            request: self.max_request_mb.bytes(),
            // What does not fit in the memory for bodies can't be made either.
            decompressed: self.max_decompressed_mb.min(self.request_memory_mb).bytes(),
            timeout: self.body_timeout_seconds.0,
        }
    }
}

/// Reads an origin: `https://shop.example`, `http://localhost:3000`, `*`. Empty is none.
fn origin(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text == "*" {
        return Ok(text.to_owned());
    }
    // A browser sends no path and no slash; what is not written just so would never match.
    let is_origin = |url: url::Url| url.origin().ascii_serialization() == text;
    match url::Url::parse(text) {
        Ok(url) if is_origin(url.clone()) => Ok(text.to_owned()),
        _ => Err("not an origin such as https://shop.example".to_owned()),
    }
}

/// What the handlers of the ingest port work with.
#[derive(Debug)]
struct Api {
    intake: Arc<Intake>,
    status: Arc<StatusBoard>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    limits: body::Limits,
    memory: memory::Budget,
    /// Canceled when no more batches are taken.
    stop_accepting: CancellationToken,
    /// Canceled when nobody may wait for a batch to become final any more.
    end_waits: CancellationToken,
}

/// Who sends, on an open server.
const CALLER: &str = "";

impl Api {
    fn key(&self, batch_id: &str) -> BatchKey {
        BatchKey { caller: CALLER.to_owned(), batch_id: batch_id.to_owned() }
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
struct Peer(SocketAddr);

impl Peer {
    /// Returns what admission counts the request under.
    fn admission_key(&self) -> String {
        self.0.ip().to_canonical().to_string()
    }
}

/// Returns the ingest port's routes.
fn routes(api: Api) -> Router {
    Router::new()
        .route("/v1/ingest/batch", post(ingest::ingest))
        .route("/v1/batch/{batch_id}/status", get(status::status))
        .route("/v1/health", get(health::health))
        .route("/v1/metrics", get(health::metrics))
        .route("/metrics", get(health::metrics))
        .with_state(Arc::new(api))
        .merge(documentation())
}

fn documentation() -> Router {
    Router::new()
        .route("/openapi.json", get(docs::openapi))
        .route("/docs", get(docs::index))
        .route("/docs/", get(docs::index))
        .route("/docs/{*file}", get(docs::file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_browsers_send() {
        for good in ["https://shop.example", "http://localhost:3000", "http://[::1]:8080", "*", ""] {
            assert_eq!(origin(good).as_deref(), Ok(good));
        }
        for bad in ["shop.example", "https://shop.example/", "https://shop.example:443", "https://a b", "null"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
