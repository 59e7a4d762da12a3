//! `config`: each setting of `serve` as it is in force, after all checks.

use std::net::Ipv4Addr;

use clap::{ArgMatches, CommandFactory};

use super::{Cli, database_of};
use crate::{app, config::ServeConfig, exit::Outcome, intake, shutdown};

/// Settings whose value is never shown.
const SECRETS: [&str; 2] = ["DATABASE_URL", "REDIS_URL"];

/// Prints the settings as `NAME=value` lines.
///
/// # Errors
/// A wrong setting, as `serve` would say it.
pub fn run(config: &ServeConfig, matches: &ArgMatches) -> anyhow::Result<Outcome> {
    let mut config = config.clone();
    let is_given = config.database.database_url.is_some();
    if let Ok(database) = database_of(&config.database) {
        config.database = database;
    }
    let is_of_dev = !is_given && config.database.database_url.is_some();
    app::check(&config)?;
    let Some((name, matches)) = matches.subcommand() else {
        return Ok(Outcome::Done);
    };
    let cli = Cli::command();
    let Some(command) = cli.find_subcommand(name) else {
        return Ok(Outcome::Done);
    };
    let settings = command.get_arguments().chain(cli.get_arguments());
    for argument in settings.filter(|argument| !argument.is_hide_set()) {
        let Some(variable) = argument.get_env().and_then(|variable| variable.to_str()) else {
            continue;
        };
        let values = matches.get_raw(argument.get_id().as_str()).unwrap_or_default();
        let values: Vec<_> = values.map(|value| value.to_string_lossy().into_owned()).collect();
        let value = match (variable, is_of_dev) {
            ("DATABASE_URL", true) => "(that of the running dev, not shown)".to_owned(),
            _ => shown(variable, values.join(",")),
        };
        println!("{variable}={value}");
    }
    Ok(Outcome::Done)
}

/// Returns what is in force: also where that has no default on the command line, because `dev` has another one.
fn shown(variable: &str, value: String) -> String {
    match (variable, value.is_empty()) {
        (_, false) if SECRETS.contains(&variable) => "(set, not shown)".to_owned(),
        ("HOST", true) => Ipv4Addr::UNSPECIFIED.to_string(),
        ("DRAIN_DELAY_SECONDS", true) => shutdown::DRAIN_DELAY.to_string(),
        ("EVENT_MAX_AGE_DAYS", true) => intake::EVENT_MAX_AGE_DAYS.to_string(),
        _ => value,
    }
}
