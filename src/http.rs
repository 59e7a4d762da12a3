//! The ingest API and the admin port.

use std::net::IpAddr;

use crate::config::{Mebibytes, Seconds};

/// Settings of the HTTP servers.
#[derive(Clone, Debug, clap::Args)]
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

    /// Origins that browsers may call from, separated by commas.
    #[arg(long, env = "CORS_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub cors_allowed_origins: Vec<String>,
}
