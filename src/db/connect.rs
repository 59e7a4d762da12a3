//! Opens one connection: the attempts that an `sslmode` stands for, one after the other.

use std::{fmt, future::Future, pin::Pin};

use deadpool_postgres::{ConfigConnectImpl, Connect};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls};

use super::tls::{SslMode, TlsConnector};

/// Opens connections as `sslmode` says.
#[derive(Clone)]
pub(super) struct Connector {
    mode: SslMode,
    /// None where TLS is never used.
    tls: Option<TlsConnector>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("mode", &self.mode).finish_non_exhaustive()
    }
}

type Opening<'a> = Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl Connector {
    pub(super) fn new(mode: SslMode, tls: Option<TlsConnector>) -> Self {
        Self { mode, tls }
    }

    /// Asks the server to end the statement that runs on a connection. Whether it did is not known.
    pub(super) async fn cancel(&self, token: &tokio_postgres::CancelToken) -> Result<(), Error> {
        match &self.tls {
            Some(tls) => token.cancel_query(tls.clone()).await,
            None => token.cancel_query(NoTls).await,
        }
    }

    async fn open(&self, config: &Config, with_tls: Option<bool>) -> Result<(Client, JoinHandle<()>), Error> {
        use tokio_postgres::config::SslMode::{Disable, Prefer, Require};
        let mut config = config.clone();
        config.ssl_mode(match with_tls {
            None => Prefer,
            Some(true) => Require,
            Some(false) => Disable,
        });
        match &self.tls {
            Some(tls) if with_tls != Some(false) => ConfigConnectImpl { tls: tls.clone() }.connect(&config).await,
            _ => ConfigConnectImpl { tls: NoTls }.connect(&config).await,
        }
    }
}

/// `pg_hba.conf` has no line for such a connection.
const NOT_ADMITTED: &str = "28000";

impl Connect for Connector {
    fn connect(&self, config: &Config) -> Opening<'_> {
        let config = config.clone();
        Box::pin(async move {
            let (first, second) = match self.mode {
                SslMode::Disable => (Some(false), None),
                SslMode::Allow => (Some(false), Some(true)),
                SslMode::Prefer => (None, Some(false)),
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Some(true), None),
            };
            let outcome = self.open(&config, first).await;
            match (outcome, second) {
                (Err(error), Some(with_tls)) if deserves_second(&error) => self.open(&config, Some(with_tls)).await,
                (outcome, _) => outcome,
            }
        })
    }
}

/// As in libpq: the other way is tried when the server doesn't admit this one, or the handshake failed.
fn deserves_second(error: &Error) -> bool {
    let not_admitted = error.code().is_some_and(|code| code.code() == NOT_ADMITTED);
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && io.get_ref().is_some_and(|wrapped| wrapped.is::<rustls::Error>())
        {
            return true;
        }
        cause = inner.source();
    }
    not_admitted
}
