//! `config`: each setting of `serve` as it is in force, after all checks.

use clap::{ArgMatches, CommandFactory};

use super::{Cli, Outcome};
use crate::{app, config::ServeConfig};

/// Settings whose value is never shown.
const SECRETS: [&str; 2] = ["DATABASE_URL", "REDIS_URL"];

/// Prints the settings as `NAME=value` lines.
///
/// # Errors
/// A wrong setting, as `serve` would say it.
pub fn run(config: &ServeConfig, matches: &ArgMatches) -> anyhow::Result<Outcome> {
    app::check(config)?;
    let Some((name, matches)) = matches.subcommand() else {
        return Ok(Outcome::Done);
    };
    let command = Cli::command();
    let Some(command) = command.find_subcommand(name) else {
        return Ok(Outcome::Done);
    };
    let settings = command.get_arguments().filter(|argument| !argument.is_hide_set());
    for argument in settings {
        let Some(variable) = argument.get_env().and_then(|variable| variable.to_str()) else {
            continue;
        };
        let values = matches.get_raw(argument.get_id().as_str()).unwrap_or_default();
        let values: Vec<_> = values.map(|value| value.to_string_lossy().into_owned()).collect();
        let value = values.join(",");
        let shown = if SECRETS.contains(&variable) && !value.is_empty() {
            "(set, not shown)"
        } else {
            &value
        };
        println!("{variable}={shown}");
    }
    Ok(Outcome::Done)
}
