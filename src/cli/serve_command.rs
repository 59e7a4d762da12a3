//! `serve`, and `dev`, which is `serve` on an embedded PostgreSQL.

use std::net::{IpAddr, Ipv4Addr};

use crate::{app, app::Surroundings, config::ServeConfig, exit::Outcome};

/// Runs `forebay serve`.
///
/// # Errors
/// As [`app::serve`].
pub async fn serve(config: ServeConfig) -> anyhow::Result<Outcome> {
    let surroundings = Surroundings { default_host: IpAddr::V4(Ipv4Addr::UNSPECIFIED), banner: None };
    app::serve(config, &surroundings).await
}

#[cfg(feature = "dev")]
pub use dev::{DevArgs, dev, provision};

#[cfg(feature = "dev")]
mod dev {
    use std::{net::IpAddr, path::Path, time::Duration};

    use secrecy::SecretString;

    use super::{Ipv4Addr, Outcome, ServeConfig, Surroundings, app};
    use crate::{
        db, dev,
        settings::{Seconds, SettingError},
    };

    /// Age that an event may have unless set: the sample data is from 2013.
    const EVENT_MAX_AGE_DAYS: u32 = 10_000;

    /// What `dev` is told.
    #[derive(Clone, Debug, clap::Args)]
    #[group(skip)]
    pub struct DevArgs {
        /// What `serve` is told.
        #[command(flatten)]
        pub serve: ServeConfig,
        /// Where PostgreSQL's programs are.
        #[command(flatten)]
        pub programs: dev::Config,
    }

    /// Runs `forebay dev`.
    ///
    /// # Errors
    /// A wrong setting, a PostgreSQL that can't be had or started, or as [`app::serve`].
    pub async fn dev(args: DevArgs) -> anyhow::Result<Outcome> {
        let mut config = args.serve;
        args.programs.check()?;
        if config.database.database_url.is_some() || config.database.database_url_file.is_some() {
            return Err(SettingError("DATABASE_URL is set, but dev brings its own: use serve".into()).into());
        }
        config.intake.event_max_age_days.get_or_insert(EVENT_MAX_AGE_DAYS);
        // No proxy stands before it, and people wait for the end of their Ctrl-C.
        config.shutdown.drain_delay_seconds.get_or_insert(Seconds(Duration::ZERO));
        let placeholder = SecretString::from("postgresql://localhost/forebay");
        config.database.database_url = Some(placeholder);
        app::check(&config)?;
        let home = dev::Home::open(Path::new(".")).await?;
        if let Some(note) = home.note() {
            eprintln!("{note}");
        }
        let postgres = dev::start(&home, &args.programs).await?;
        tracing::info!(version = postgres.version(), "started the embedded postgres");
        config.database.database_url = Some(SecretString::from(postgres.own_url()));
        if config.queue.journal_dir == Path::new("./journal") {
            config.queue.journal_dir = home.journal();
        }
        let url = postgres.url().to_owned();
        let banner: app::Banner = Box::new(move |api| dev::banner(api, &url));
        let surroundings = Surroundings { default_host: IpAddr::V4(Ipv4Addr::LOCALHOST), banner: Some(banner) };
        let outcome = tokio::select! {
            outcome = migrate_and_serve(config, &surroundings) => outcome,
            status = postgres.ended() => Err(anyhow::anyhow!("the embedded PostgreSQL ended ({status}); its log lies in {}", home.path().display())),
        };
        postgres.stop().await;
        outcome
    }

    async fn migrate_and_serve(config: ServeConfig, surroundings: &Surroundings) -> anyhow::Result<Outcome> {
        let database = db::Database::new(&config.database, &config.instance)?;
        db::migrate::migrate(&database).await?;
        database.close();
        app::serve(config, surroundings).await
    }

    /// Runs the hidden `provision-postgres`.
    ///
    /// # Errors
    /// The programs can't be had.
    pub async fn provision(config: &dev::Config) -> anyhow::Result<Outcome> {
        let programs = dev::provision(config, Path::new(".")).await?;
        println!("{}", programs.bin.display());
        Ok(Outcome::Done)
    }
}
