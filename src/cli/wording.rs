//! What the command line says: help that is short to read, and one line for what is wrong with the arguments.

use clap::{
    Arg, Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// Options that a command takes over with a section of settings and has no use for.
const WITHOUT_USE: [(&str, &[&str]); 9] = [
    ("dev", &["database_url", "database_url_file", "migrate"]),
    ("config", &["migrate", "replay_old"]),
    ("migrate", &POOL),
    ("create", &POOL),
    ("create_partition", &POOL),
    ("list", &POOL),
    ("maintain", &POOL),
    ("verify", &POOL),
    ("cleanup", &["db_pool_min_size", "db_pool_max_size", "partitions_ahead"]),
];
const POOL: [&str; 2] = ["db_pool_min_size", "db_pool_max_size"];

/// Makes help short: a value is named by its unit, the environment's values are not told, and what a command has no use
/// for is left out.
pub fn in_short(command: Command) -> Command {
    let name = match command.get_name() {
        "cleanup_partitions" => "cleanup",
        name => name,
    };
    let without_use = WITHOUT_USE.iter().find(|(of, _)| *of == name);
    let without_use = without_use.map_or(&[][..], |(_, ids)| *ids);
    command
        .mut_args(|arg| {
            let is_hidden = arg.is_hide_set() || without_use.contains(&arg.get_id().as_str());
            name_value(arg).hide_env_values(true).hide(is_hidden)
        })
        .mut_subcommands(in_short)
}

/// Names an option's value by its unit: `SECONDS` rather than `BODY_TIMEOUT_SECONDS`.
fn name_value(arg: Arg) -> Arg {
    let name = arg.get_id().as_str().to_ascii_uppercase();
    let is_default = arg.get_value_names().is_some_and(|names| names == [name.as_str()]);
    let Some((_, unit)) = name.rsplit_once('_').filter(|_| is_default) else {
        return arg;
    };
    arg.value_name(match unit {
        "SECONDS" => "SECONDS",
        "DAYS" => "DAYS",
        "MB" => "MIB",
        "PORT" => "PORT",
        "URL" => "URL",
        "DIR" => "FOLDER",
        "FILE" => "FILE",
        "SIZE" | "EVENTS" | "WORKERS" | "CONNECTIONS" => "N",
        _ => "VALUE",
    })
}

/// Returns what is wrong, in one line. A setting is called by its variable, as in the documentation.
pub fn line(error: &Error, command: &Command) -> String {
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if let (ErrorKind::ValueValidation, Some(arg), Some(value)) =
        (error.kind(), said(ContextKind::InvalidArg), said(ContextKind::InvalidValue))
    {
        let name = setting(arg, command);
        let why = std::error::Error::source(error).map_or_else(String::new, |source| {
            if source.is::<std::num::ParseIntError>() {
                return ": not a whole number".to_owned();
            }
            format!(": {}", source.to_string().replace("..=", " to "))
        });
        return format!("{name} can't be {value:?}{why}");
    }
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let line = first.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let line = line.trim_start_matches("error: ");
    match error.kind() {
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument => {
            format!("{line}; --help tells what there is")
        }
        _ => line.to_owned(),
    }
}

/// Returns `BATCH_SIZE (--batch-size)` for `--batch-size <SIZE>`; an option that is no variable is called as it is.
fn setting(arg: &str, command: &Command) -> String {
    let flag = arg.split(' ').next().unwrap_or(arg);
    let variable = flag.strip_prefix("--").and_then(|long| variable(long, command));
    variable.map_or_else(|| flag.to_owned(), |variable| format!("{variable} ({flag})"))
}

fn variable(long: &str, command: &Command) -> Option<String> {
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(long));
    match arg.and_then(Arg::get_env) {
        Some(variable) => Some(variable.to_string_lossy().into_owned()),
        None => command.get_subcommands().find_map(|command| variable(long, command)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn told(args: &[&str]) -> String {
        let command = in_short(Cli::command());
        let error = command.clone().try_get_matches_from(args).unwrap_err();
        line(&error, &command)
    }

    #[test]
    fn command_line_is_sound() {
        in_short(Cli::command()).debug_assert();
    }

    #[test]
    fn wrong_value_is_told_by_the_name_of_its_variable() {
        assert_eq!(
            told(&["forebay", "serve", "--batch-size", "0"]),
            "BATCH_SIZE (--batch-size) can't be \"0\": 0 is not in 1 to 1000000"
        );
        assert_eq!(
            told(&["forebay", "partitions", "maintain", "--partitions-ahead", "many"]),
            "PARTITIONS_AHEAD (--partitions-ahead) can't be \"many\": not a whole number"
        );
        assert_eq!(
            told(&["forebay", "import", "a.csv", "--url", "ftp://x"]),
            "--url can't be \"ftp://x\": not the address of an HTTP server such as http://localhost:8000"
        );
    }

    #[test]
    fn misuse_is_one_line() {
        for args in [
            &["forebay", "bogus"][..],
            &["forebay", "serve", "--bogus"],
            &["forebay", "partitions", "create"],
            &["forebay", "import"],
            &["forebay", "serve", "--port"],
        ] {
            let line = told(args);
            assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
        }
    }

    #[test]
    fn help_shows_each_section_and_no_value_of_the_environment() {
        let mut command = in_short(Cli::command());
        let serve = command.find_subcommand_mut("serve").unwrap();
        assert!(serve.get_arguments().all(Arg::is_hide_env_values_set));
        let help = serve.render_long_help().to_string();
        for section in ["\nHTTP:", "\nEvents:", "\nJournal:", "\nPostgreSQL:", "\nShutdown:"] {
            assert!(help.contains(section), "{section}");
        }
        assert!(help.contains("--body-timeout-seconds <SECONDS>") && help.contains("--max-request-mb <MIB>"));
        let options = help.split("\nHTTP:").next().unwrap();
        assert!(options.contains("--migrate") && options.contains("--instance"), "{options}");
    }
}
