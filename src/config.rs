//! Settings: each part owns its section; here they are put together, and what spans two sections is checked.
//!
//! A setting `NAME` is the flag `--name` too. All are checked before a port opens; what is wrong ends the process with
//! one line that names it and exit code 2.

#[cfg(test)]
mod drift;

use crate::settings::SettingError;

/// Everything that `serve` and `dev` are told.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct ServeConfig {
    /// This replica's name in the ledger and the logs. Unset, it is the host's name.
    #[arg(long, env = "INSTANCE", default_value_t = host_name(), hide_default_value = true)]
    pub instance: String,

    /// Creates or upgrades the tables first.
    #[arg(long)]
    pub migrate: bool,

    /// Lands also batches that lay in the journal for longer than `LEDGER_RETENTION_DAYS`.
    ///
    /// The ledger has forgotten batches of that age, so that events without a timestamp could be stored twice.
    #[arg(long)]
    pub replay_old: bool,

    /// The HTTP servers.
    #[command(flatten)]
    pub http: crate::http::Config,
    /// The door.
    #[command(flatten)]
    pub intake: crate::intake::Config,
    /// The queue.
    #[command(flatten)]
    pub queue: crate::queue::Config,
    /// The lanes.
    #[command(flatten)]
    pub flusher: crate::flusher::Config,
    /// PostgreSQL.
    #[command(flatten)]
    pub database: crate::db::Config,
    /// Redis and the ledger.
    #[command(flatten)]
    pub status: crate::status::Config,
    /// The leaves.
    #[command(flatten)]
    pub partitions: crate::partitions::Config,
    /// The stop.
    #[command(flatten)]
    pub shutdown: crate::shutdown::Config,
    /// What this release refuses.
    #[command(flatten)]
    pub later: NotYet,
}

/// Settings that a later release obeys. Until then, setting one is an error: silence would pass for protection.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct NotYet {
    /// Not available yet.
    #[arg(long, env = "API_KEYS_FILE", hide = true)]
    pub api_keys_file: Option<String>,
    /// Not available yet.
    #[arg(long, env = "RATE_LIMIT_REQUESTS", hide = true)]
    pub rate_limit_requests: Option<String>,
    /// Not available yet.
    #[arg(long, env = "RATE_LIMIT_WINDOW", hide = true)]
    pub rate_limit_window: Option<String>,
    /// Not available yet.
    #[arg(long, env = "TRUSTED_PROXIES", hide = true)]
    pub trusted_proxies: Option<String>,
}

impl ServeConfig {
    /// Checks what no single setting can tell.
    ///
    /// # Errors
    /// The first setting that contradicts another, or that this release does not obey.
    pub fn check(&self) -> Result<(), SettingError> {
        let later = [
            ("API_KEYS_FILE", &self.later.api_keys_file),
            ("RATE_LIMIT_REQUESTS", &self.later.rate_limit_requests),
            ("RATE_LIMIT_WINDOW", &self.later.rate_limit_window),
            ("TRUSTED_PROXIES", &self.later.trusted_proxies),
        ];
        if let Some((name, _)) = later.iter().find(|(_, value)| value.as_ref().is_some_and(|text| !text.is_empty())) {
            return Err(SettingError(format!("{name} is set, but this release does not support it")));
        }
        let contradictions = [
            (
                self.database.db_pool_min_size > self.database.db_pool_max_size,
                "DB_POOL_MIN_SIZE is larger than DB_POOL_MAX_SIZE",
            ),
            (
                self.http.max_decompressed_mb < self.http.max_request_mb,
                "MAX_DECOMPRESSED_MB is smaller than MAX_REQUEST_MB",
            ),
            (
                self.http.request_memory_mb < self.http.max_request_mb,
                "REQUEST_MEMORY_MB is smaller than MAX_REQUEST_MB",
            ),
            (self.http.port == self.http.admin_port && self.http.port != 0, "PORT and ADMIN_PORT are the same"),
            (
                self.flusher.copy_timeout_seconds.0.is_zero(),
                "COPY_TIMEOUT_SECONDS is 0, so no flush would ever end in time",
            ),
            (
                self.http.body_timeout_seconds.0.is_zero(),
                "BODY_TIMEOUT_SECONDS is 0, so no body would ever arrive in time",
            ),
            (self.instance.is_empty(), "INSTANCE is empty"),
        ];
        match contradictions.iter().find(|(wrong, _)| *wrong) {
            Some((_, line)) => Err(SettingError((*line).to_owned())),
            None => Ok(()),
        }
    }
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "forebay".to_owned() } else { name }
}
