//! What is written elsewhere about the settings must be what the settings are.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Command};

use super::ServeConfig;

const ENV_EXAMPLE: &str = include_str!("../../.env.example");
const COMPOSE: &str = include_str!("../../docker-compose.yml");
/// Of the compose file alone.
const COMPOSE_ONLY: &str = "POSTGRES_PASSWORD";

/// Returns each setting's default, empty where it has none.
fn settings() -> BTreeMap<String, String> {
    let command = ServeConfig::augment_args(Command::new("serve"));
    let command = crate::telemetry::Config::augment_args(command);
    #[cfg(feature = "dev")]
    let command = crate::dev::Config::augment_args(command);
    let default = |arg: &clap::Arg| {
        let values = arg.get_default_values().iter();
        values.map(|value| value.to_string_lossy().into_owned()).collect::<Vec<_>>().join(",")
    };
    let named = |arg: &clap::Arg| Some((arg.get_env()?.to_string_lossy().into_owned(), default(arg)));
    command.get_arguments().filter_map(named).collect()
}

/// Returns the lines of `.env.example` that name a variable: whether it is set there, the name, the value.
fn example() -> Vec<(bool, &'static str, &'static str)> {
    let lines = ENV_EXAMPLE.lines().filter_map(|line| {
        let (name, value) = line.trim_start_matches("# ").split_once('=')?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        is_name.then_some((!line.starts_with('#'), name, value))
    });
    lines.collect()
}

#[test]
fn env_example_has_each_setting_with_its_default() {
    let settings = settings();
    let named: BTreeSet<_> = example().into_iter().map(|(_, name, _)| name).collect();
    let known: BTreeSet<_> = settings.keys().map(String::as_str).chain([COMPOSE_ONLY]).collect();
    assert_eq!(named, known);
    for (is_set, name, value) in example() {
        match settings.get(name) {
            Some(default) if is_set => assert_eq!(value, default, "{name}"),
            // INSTANCE has a default that differs on each machine.
            Some(default) if !default.is_empty() && name != "INSTANCE" => assert_eq!(value, default, "{name}"),
            _ => {}
        }
    }
}

#[test]
fn compose_file_names_only_variables_that_exist() {
    let known: BTreeSet<_> = example().into_iter().map(|(_, name, _)| name).collect();
    let substituted = COMPOSE.split("${").skip(1).filter_map(|rest| rest.split([':', '}']).next());
    let forebay = COMPOSE.split("\n  postgres:\n").next().unwrap();
    let given = forebay.split("    environment:\n").nth(1).unwrap();
    let given = given.lines().map_while(|line| line.strip_prefix("      ")?.split(": ").next());
    let names: Vec<_> = substituted.chain(given).collect();
    assert!(names.contains(&"POSTGRES_PASSWORD") && names.contains(&"DATABASE_URL"), "{names:?}");
    for name in names {
        assert!(known.contains(name), "{name}");
    }
}
