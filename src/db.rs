//! Connections to PostgreSQL: one pool for the lanes, one for everything beside them.
//!
//! Lanes that all hang must not take status, health and partitions with them, so those have three connections of their
//! own. A connection goes back to its pool only when its user says that it is clean ([`Connection::release`]); dropped
//! without that word it is closed, so that an unfinished COPY or an open transaction never meets its next user.

mod connect;
mod connection;
pub mod migrate;
pub mod schema;
mod tls;
mod url;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{Host, TargetSessionAttrs};

use crate::{
    metrics::{BackendMetrics, PoolState},
    settings::{SettingError, secret},
};
use connect::Connector;
pub use connection::Connection;
use tls::SslMode;

/// Settings of the connections to PostgreSQL.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "PostgreSQL")]
#[group(skip)]
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

    /// Connections at most. Three of them are kept for status, health and partitions, the others are for lanes.
    #[arg(long, env = "DB_POOL_MAX_SIZE", default_value_t = 20, value_parser = clap::value_parser!(u32).range(4..=1000))]
    pub db_pool_max_size: u32,
}

/// Connections that are kept for status, health and partitions.
const SIDE_CONNECTIONS: u32 = 3;
/// Somebody who waits this long for a connection is better served by an error.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);
/// What the handshake, TLS and the login may take beside the socket's own connect timeout.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// PostgreSQL cuts longer names, and then we would not find our own sessions.
const MAX_APPLICATION_NAME: usize = 63;

/// What each session is set to. `lock_timeout`: DDL nearby must not hold a lane for long. The server's keepalives: it
/// would keep the transaction, the locks and the ledger keys of a replica behind a dead network for two hours.
const SESSION_OPTIONS: &str = "-c lock_timeout=5s -c TimeZone=UTC -c client_min_messages=warning \
                               -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 \
                               -c tcp_user_timeout=30000";
/// Wins over what the role, the database or `DATABASE_URL` says: an asynchronous COMMIT may vanish in a crash after the
/// journal has forgotten the batch.
const FORCED_OPTIONS: &str = "-c synchronous_commit=on";

/// PostgreSQL could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection was opened.
    #[error("no connection to PostgreSQL at {address}")]
    Connect {
        /// Host and port, or several.
        address: Arc<str>,
        /// Why.
        source: tokio_postgres::Error,
    },
    /// No connection was there, or opened, in time.
    #[error("no connection to PostgreSQL at {0} in time")]
    ConnectDeadline(Arc<str>),
    /// A statement failed.
    #[error("a statement failed in PostgreSQL")]
    Statement(#[from] tokio_postgres::Error),
    /// A statement got no answer in time.
    #[error("PostgreSQL did not answer in time")]
    Deadline,
}

impl Error {
    /// Returns the SQLSTATE, where PostgreSQL sent one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Connect { source: error, .. } | Self::Statement(error) => {
                error.code().map(tokio_postgres::error::SqlState::code)
            }
            Self::ConnectDeadline(_) | Self::Deadline => None,
        }
    }

    /// Returns whether the server was reached and takes no writes.
    pub fn is_read_only_server(&self) -> bool {
        let Self::Connect { source, .. } = self else {
            return false;
        };
        let io = std::error::Error::source(source).and_then(|cause| cause.downcast_ref::<std::io::Error>());
        // The driver's own verdict has no error number; a socket that may not be opened has one.
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied && io.raw_os_error().is_none())
    }
}

/// The connections of this process. Nothing is opened before the first is asked for.
#[derive(Clone, Debug)]
pub struct Database {
    lanes: Pool,
    side: Pool,
    connector: Connector,
    /// Where the server is, for messages.
    address: Arc<str>,
    /// Goes up when all connections so far are given up.
    generation: Arc<AtomicU64>,
    application_name: Arc<str>,
    min_size: u32,
}

impl Database {
    /// Reads the settings; opens nothing yet.
    ///
    /// # Errors
    /// A setting that is missing or wrong, by name.
    pub fn new(config: &Config, instance: &str) -> Result<Self, SettingError> {
        let url = secret("DATABASE_URL", config.database_url.as_ref(), config.database_url_file.as_ref())?
            .filter(|url| !url.expose_secret().trim().is_empty())
            .ok_or_else(|| SettingError("DATABASE_URL is not set".into()))?;
        let mut target = url::parse(url.expose_secret().trim())?;
        let mode = target.tls.effective_mode();
        let tls = match mode {
            SslMode::Disable => None,
            _ => Some(target.tls.connector().map_err(|detail| SettingError(format!("DATABASE_URL: {detail}")))?),
        };
        let application_name = application_name(instance);
        let pg = &mut target.config;
        let given = pg.get_options().unwrap_or_default();
        let options = format!("{SESSION_OPTIONS} {given} {FORCED_OPTIONS}");
        pg.options(options).application_name(&*application_name).target_session_attrs(TargetSessionAttrs::ReadWrite);
        if pg.get_keepalives_idle() == Duration::from_secs(2 * 60 * 60) {
            pg.keepalives_idle(Duration::from_secs(10));
        }
        pg.get_keepalives_interval().is_none().then(|| pg.keepalives_interval(Duration::from_secs(5)));
        pg.get_keepalives_retries().is_none().then(|| pg.keepalives_retries(3));
        pg.get_tcp_user_timeout().is_none().then(|| pg.tcp_user_timeout(Duration::from_secs(30)));

        let connector = Connector::new(mode, tls);
        let size = |connections: u32| pool(&target.config, &connector, connections as usize);
        Ok(Self {
            lanes: size(config.db_pool_max_size.saturating_sub(SIDE_CONNECTIONS).max(1)),
            side: size(SIDE_CONNECTIONS),
            connector,
            address: address(&target.config).into(),
            generation: Arc::default(),
            application_name: application_name.into(),
            min_size: config.db_pool_min_size,
        })
    }

    /// Returns how many of `wanted` lanes have a connection of their own, and says so when it is fewer.
    pub fn effective_lanes(&self, wanted: u32) -> u32 {
        let room = u32::try_from(self.lanes.status().max_size).unwrap_or(u32::MAX);
        if room < wanted {
            tracing::warn!(
                lanes.wanted = wanted,
                lanes.effective = room,
                "fewer lanes than FLUSH_WORKERS: DB_POOL_MAX_SIZE leaves no connection for the others"
            );
        }
        wanted.min(room)
    }

    /// Returns a connection for a lane.
    ///
    /// # Errors
    /// [`Error`] when there is none in time.
    pub async fn lane(&self) -> Result<Connection, Error> {
        self.take(&self.lanes).await
    }

    /// Returns one of the connections for everything but flushes.
    ///
    /// # Errors
    /// [`Error`] when there is none in time.
    pub async fn side(&self) -> Result<Connection, Error> {
        self.take(&self.side).await
    }

    async fn take(&self, pool: &Pool) -> Result<Connection, Error> {
        let generation = self.generation.load(Relaxed);
        let object = pool.get().await.map_err(|error| match error {
            PoolError::Backend(source) => Error::Connect { address: Arc::clone(&self.address), source },
            _ => Error::ConnectDeadline(Arc::clone(&self.address)),
        })?;
        Ok(Connection::new(object, generation, Arc::clone(&self.generation)))
    }

    /// Gives up every connection: the idle ones now, the others when they come back. The next one resolves the
    /// server's name again.
    pub fn evict(&self) {
        self.generation.fetch_add(1, Relaxed);
        for pool in [&self.lanes, &self.side] {
            let evicted = pool.retain(|_, _| false);
            drop(evicted);
        }
    }

    /// Opens `DB_POOL_MIN_SIZE` connections, so that the first flushes don't wait for logins. A server that is away is
    /// no error: connections are opened when they are needed.
    pub async fn warm(&self) {
        let room = self.lanes.status().max_size;
        let wanted = (self.min_size as usize).min(room);
        let opened = futures_util::future::join_all((0..wanted).map(|_| self.lane())).await;
        for connection in opened.into_iter().flatten() {
            connection.release();
        }
    }

    /// Sets the gauges of the pools.
    pub fn report(&self, metrics: &BackendMetrics) {
        let (mut idle, mut used) = (0, 0);
        for status in [self.lanes.status(), self.side.status()] {
            let available = status.available.min(status.size);
            idle += available;
            used += status.size - available;
        }
        metrics.db_pool_connections.get(PoolState::Idle).set(idle as i64);
        metrics.db_pool_connections.get(PoolState::Used).set(used as i64);
    }

    /// Ends a session of ours that we have given up: asks to cancel its statement, then ends it by its process id
    /// where that is known. Best effort, in bounded time; a session that sent COMMIT must not be ended, because that
    /// would cut short its wait for a synchronous standby.
    pub async fn terminate(&self, token: &tokio_postgres::CancelToken, pid: Option<i32>) {
        let limit = Duration::from_secs(2);
        let _ = tokio::time::timeout(limit, self.connector.cancel(token)).await;
        let Some(pid) = pid else { return };
        let end = async {
            let side = self.side().await?;
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND application_name = $2";
            side.query(sql, &[&pid, &&*self.application_name]).await?;
            side.release();
            Ok::<_, Error>(())
        };
        let _ = tokio::time::timeout(limit, end).await;
    }

    /// Closes the pools: who asks for a connection from now on gets none.
    pub fn close(&self) {
        self.lanes.close();
        self.side.close();
    }
}

fn pool(config: &tokio_postgres::Config, connector: &Connector, size: usize) -> Pool {
    let recycling_method = RecyclingMethod::Fast;
    let manager = Manager::from_connect(config.clone(), connector.clone(), ManagerConfig { recycling_method });
    let hosts = config.get_hosts().len().max(1) as u32;
    let connect_timeout = config.get_connect_timeout().copied().unwrap_or(WAIT_TIMEOUT);
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(WAIT_TIMEOUT))
        .create_timeout(Some(connect_timeout.saturating_mul(hosts).saturating_add(LOGIN_TIMEOUT)))
        .recycle_timeout(Some(WAIT_TIMEOUT))
        .runtime(Runtime::Tokio1)
        .build()
        .expect("a runtime is named, which is all that timeouts need")
}

/// Returns `host:port`, separated by commas where there are several: no user, no password.
fn address(config: &tokio_postgres::Config) -> String {
    let host = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(folder) => folder.display().to_string(),
    };
    let mut hosts: Vec<_> = config.get_hosts().iter().map(host).collect();
    if hosts.is_empty() {
        hosts = config.get_hostaddrs().iter().map(ToString::to_string).collect();
    }
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let addresses = hosts.iter().enumerate();
    let addresses: Vec<_> = addresses.map(|(index, host)| format!("{host}:{}", port(index))).collect();
    addresses.join(",")
}

fn application_name(instance: &str) -> String {
    let printable = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    let name = "forebay/".chars().chain(instance.chars().map(printable));
    name.take(MAX_APPLICATION_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str, max_size: u32) -> Config {
        Config {
            database_url: Some(url.to_owned().into()),
            database_url_file: None,
            db_pool_min_size: 0,
            db_pool_max_size: max_size,
        }
    }

    #[test]
    fn lanes_leave_three_connections_to_the_others() {
        let lanes = |max_size, wanted| {
            let database = Database::new(&config("host=db", max_size), "a").unwrap();
            database.effective_lanes(wanted)
        };
        assert_eq!((lanes(20, 4), lanes(7, 4), lanes(6, 4), lanes(4, 4)), (4, 4, 3, 1));
    }

    #[test]
    fn missing_url_is_told_by_name() {
        for mut config in [config("", 4), config("host=db", 4)] {
            config.database_url = config.database_url.filter(|url| url.expose_secret().is_empty());
            let error = Database::new(&config, "a").unwrap_err();
            assert_eq!(error.to_string(), "DATABASE_URL is not set");
        }
    }

    #[test]
    fn application_name_is_what_postgres_keeps() {
        assert_eq!(application_name("pod 1-ü"), "forebay/pod_1-_");
        assert_eq!(application_name(&"x".repeat(99)).len(), MAX_APPLICATION_NAME);
    }

    #[tokio::test]
    async fn unreachable_server_is_an_error_in_bounded_time() {
        let empty = tempfile::tempdir().unwrap();
        let url = format!("host={} user=nobody", empty.path().display());
        let database = Database::new(&config(&url, 4), "a").unwrap();
        assert!(matches!(database.lane().await, Err(Error::Connect { .. })));
    }

    #[test]
    fn address_is_told_without_secrets() {
        for (url, told) in [
            ("postgresql://user:pass@db.example/events", "db.example:5432"),
            ("host=a,b port=1,2 password=pass", "a:1,b:2"),
            ("host=/run/postgresql port=5433", "/run/postgresql:5433"),
        ] {
            assert_eq!(address(&url.parse().unwrap()), told);
        }
    }
}
