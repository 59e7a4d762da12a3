//! The embedded PostgreSQL of `forebay dev`: found or downloaded once, kept in `./.forebay`, ended with this process.
//!
//! Must hold what people put into it: fsync stays on, and a start after kill -9 finds the data. Must leave no server
//! behind, however this process ends. Does not serve events; the command does that on the URL that it gets here.

mod archive;
mod guard;
mod home;
mod programs;
mod server;

use std::{net::SocketAddr, path::PathBuf};

pub use guard::{GuardArgs, exec_guarded};
pub use home::{Home, running_dev_url};
pub use programs::{PgPrograms, provision};
pub use server::{EmbeddedPostgres, start};

use crate::settings::SettingError;

/// Where the embedded PostgreSQL's programs come from. Unset, forebay looks for them itself.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Embedded PostgreSQL")]
#[group(skip)]
pub struct Config {
    /// Folder of PostgreSQL programs (`initdb` and `postgres`, 15 or newer) to use.
    #[arg(long, env = "FOREBAY_PG_BIN", value_name = "FOLDER")]
    pub forebay_pg_bin: Option<PathBuf>,

    /// Jar of the embedded PostgreSQL to use, so that nothing is downloaded.
    #[arg(long, env = "FOREBAY_PG_ARCHIVE", value_name = "JAR")]
    pub forebay_pg_archive: Option<PathBuf>,
}

impl Config {
    /// Checks that what was given is there.
    ///
    /// # Errors
    /// The setting that names nothing usable.
    pub fn check(&self) -> Result<(), SettingError> {
        if let Some(bin) = &self.forebay_pg_bin
            && let Some(missing) = programs::REQUIRED.iter().find(|name| !bin.join(name).is_file())
        {
            let bin = bin.display();
            return Err(SettingError(format!("FOREBAY_PG_BIN: there is no {missing} in {bin}")));
        }
        if let Some(jar) = &self.forebay_pg_archive
            && !jar.is_file()
        {
            let jar = jar.display();
            return Err(SettingError(format!("FOREBAY_PG_ARCHIVE: there is no file {jar}")));
        }
        Ok(())
    }
}

/// Returns what `dev` prints once it serves: where it is, and a line to paste.
pub fn banner(api: SocketAddr, database_url: &str) -> String {
    let api = reachable(api);
    format!(
        "forebay is ready at http://{api} (docs: http://{api}/docs). Send it an event:\n\
         \n  curl -sS http://{api}/v1/ingest/batch -H 'Content-Type: application/json' -H 'Prefer: wait=5' \
         -d '{{\"events\":[{{\"event_id\":\"hello-1\",\"service_name\":\"shop\",\"event_type\":\"greeting\",\
         \"payload\":{{\"hello\":\"world\"}}}}]}}'\n\
         \nDATABASE_URL={database_url}\nCtrl-C stops it; the data stays.\n"
    )
}

/// Returns an address that a client on this machine can use.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    addr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banner_names_an_address_that_can_be_called() {
        let text = banner("0.0.0.0:8000".parse().unwrap(), "postgresql://forebay:x@127.0.0.1:5433/forebay");
        assert!(text.contains("curl -sS http://127.0.0.1:8000/v1/ingest/batch "), "{text}");
        assert!(text.contains("\nDATABASE_URL=postgresql://forebay:x@127.0.0.1:5433/forebay\n"), "{text}");
        let start = text.find("-d '").unwrap() + 4;
        let body = &text[start..start + text[start..].find('\'').unwrap()];
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["events"][0]["service_name"], "shop");
    }

    #[test]
    fn setting_that_names_nothing_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        let config = Config { forebay_pg_bin: Some(empty.path().to_owned()), ..Config::default() };
        assert!(config.check().unwrap_err().0.starts_with("FOREBAY_PG_BIN: there is no initdb in "));
        let config = Config { forebay_pg_archive: Some(empty.path().join("no.jar")), ..Config::default() };
        assert!(config.check().unwrap_err().0.starts_with("FOREBAY_PG_ARCHIVE: there is no file "));
        assert!(Config::default().check().is_ok());
    }
}
