//! The commands, and what their ends mean: 0 done, 1 failed, refused or different, 2 usage or settings, 130 Ctrl-C.

mod config_command;
mod health_command;
mod partition_commands;
mod serve_command;
mod verify_command;
mod wording;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};

use crate::{config::ServeConfig, db, exit::Outcome, import, settings::SettingError, telemetry};

/// What a command that is no server calls itself in PostgreSQL.
const COMMAND: &str = "command";

/// Batches of events over HTTP, durable before the answer, exactly once in partitioned PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// The log.
    #[command(flatten)]
    pub telemetry: telemetry::Config,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What forebay can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Takes batches over HTTP and lands them in PostgreSQL.
    ///
    /// Each option is an environment variable too: `--batch-size` is `BATCH_SIZE`. A secret can also be read from a file.
    Serve(Box<ServeConfig>),
    /// Serves on an embedded PostgreSQL in ./.forebay, without any configuration.
    ///
    /// It listens on 127.0.0.1 unless `HOST` is set, and takes events of 10000 days unless `EVENT_MAX_AGE_DAYS` is. Commands
    /// that are run in the same folder use its database by themselves. Ctrl-C stops all of it; the data stays.
    #[cfg(feature = "dev")]
    Dev(Box<serve_command::DevArgs>),
    /// Creates or upgrades the tables.
    Migrate(db::Config),
    /// Makes, drops and lists the monthly partitions.
    #[command(subcommand)]
    Partitions(partition_commands::Command),
    /// The same as `partitions create`.
    #[command(name = "create_partition", hide = true)]
    CreatePartition(partition_commands::CreateArgs),
    /// The same as `partitions cleanup`.
    #[command(name = "cleanup_partitions", hide = true)]
    CleanupPartitions(partition_commands::CleanupArgs),
    /// Sends the events of a file through the HTTP API, and waits until they have landed.
    ///
    /// Columns of CSV: `event_id,occurred_at,user_id,event_type,properties_json`. How far it came is noted in
    /// FILE.forebay-import, so that the same command goes on after an interruption; events that were refused are listed
    /// in FILE.rejected.ndjson. Exit code 0 when all have landed, else 1.
    Import(import::Args),
    /// Checks that each batch of the ledger has its events in the table; exit code 1 when they differ.
    Verify(verify_command::Args),
    /// Checks the settings of `serve` and prints them as they are in force, without secrets.
    Config(Box<ServeConfig>),
    /// Asks the server on this machine whether it is ready: exit code 0 when it is, else 1.
    Healthcheck(health_command::Args),
    /// Prints the description of the HTTP API as an OpenAPI document.
    Openapi,
    /// Prints the folder of the embedded PostgreSQL's programs, and fetches them if need be.
    #[cfg(feature = "dev")]
    #[command(name = "provision-postgres", hide = true)]
    ProvisionPostgres(crate::dev::Config),
    /// Runs a server that ends with its parent.
    #[cfg(feature = "dev")]
    #[command(name = "__exec-guarded", hide = true)]
    ExecPostgres(crate::dev::GuardArgs),
}

/// Reads the command line and the environment, and runs the command.
pub fn main() -> ExitCode {
    let command = wording::in_short(Cli::command());
    let (cli, matches) = match parse(&command) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error, &command),
    };
    let result = cli.run(&matches);
    match result {
        Ok(outcome) => outcome.into(),
        Err(error) if error.is::<SettingError>() => {
            eprintln!("forebay: {error}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("forebay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(command: &clap::Command) -> Result<(Cli, clap::ArgMatches), clap::Error> {
    let matches = command.clone().try_get_matches()?;
    let cli = Cli::from_arg_matches(&matches)?;
    Ok((cli, matches))
}

/// Prints help as it is, and what is wrong as one line.
fn usage(error: &clap::Error, command: &clap::Command) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
    }
    eprintln!("forebay: {}", wording::line(error, command));
    ExitCode::from(2)
}

impl Cli {
    fn run(self, matches: &clap::ArgMatches) -> anyhow::Result<Outcome> {
        #[cfg(feature = "dev")]
        if let Command::ExecPostgres(args) = self.command {
            return Err(crate::dev::exec_guarded(&args));
        }
        telemetry::init(&self.telemetry, self.command.instance())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(self.command.run(matches));
        // What still runs on other threads (a blocked read, say) must not hold the process.
        runtime.shutdown_background();
        outcome
    }
}

impl Command {
    /// Returns the name of the replica, for the log.
    fn instance(&self) -> &str {
        match self {
            Self::Serve(config) => &config.instance,
            #[cfg(feature = "dev")]
            Self::Dev(args) => &args.serve.instance,
            _ => COMMAND,
        }
    }

    async fn run(self, matches: &clap::ArgMatches) -> anyhow::Result<Outcome> {
        match self {
            Self::Serve(config) => serve_command::serve(*config).await,
            #[cfg(feature = "dev")]
            Self::Dev(args) => serve_command::dev(*args).await,
            Self::Migrate(config) => partition_commands::migrate(&config).await,
            Self::Partitions(command) => partition_commands::run(command).await,
            Self::CreatePartition(args) => partition_commands::create(args).await,
            Self::CleanupPartitions(args) => partition_commands::cleanup(args).await,
            Self::Import(args) => import::run(args).await,
            Self::Verify(args) => verify_command::run(args).await,
            Self::Config(config) => config_command::run(&config, matches),
            Self::Healthcheck(args) => health_command::run(args).await,
            Self::Openapi => {
                println!("{}", crate::http::openapi_json());
                Ok(Outcome::Done)
            }
            #[cfg(feature = "dev")]
            Self::ProvisionPostgres(config) => serve_command::provision(&config).await,
            #[cfg(feature = "dev")]
            Self::ExecPostgres(_) => unreachable!("handled before the runtime starts"),
        }
    }
}

/// Returns the settings of the database, with the address of a running `dev` of this folder where none was given.
///
/// # Errors
/// Neither is there.
fn database_of(config: &db::Config) -> Result<db::Config, SettingError> {
    if config.database_url.is_some() || config.database_url_file.is_some() {
        return Ok(config.clone());
    }
    #[cfg(feature = "dev")]
    if let Some(url) = crate::dev::running_dev_url(std::path::Path::new(".")) {
        return Ok(db::Config { database_url: Some(url.into()), ..config.clone() });
    }
    Err(SettingError("DATABASE_URL is not set, and no forebay dev runs in this folder".into()))
}
