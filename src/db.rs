//! Connections to PostgreSQL.

use std::path::PathBuf;

use secrecy::SecretString;

/// Settings of the connections to PostgreSQL.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where PostgreSQL is: `postgresql://user:password@host:5432/database?sslmode=verify-full`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,

    /// File that holds `DATABASE_URL`.
    #[arg(long, env = "DATABASE_URL_FILE")]
    pub database_url_file: Option<PathBuf>,

    /// Connections that are opened at start and kept.
    #[arg(long, env = "DB_POOL_MIN_SIZE", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub db_pool_min_size: u32,

    /// Connections at most. Lanes take theirs from it; three are kept for status, health and partitions.
    #[arg(long, env = "DB_POOL_MAX_SIZE", default_value_t = 20, value_parser = clap::value_parser!(u32).range(4..=1000))]
    pub db_pool_max_size: u32,
}
