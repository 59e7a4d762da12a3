//! The settings that a test gives to a server.

use std::{collections::BTreeMap, path::Path, process::Command};

use super::command::PROGRAM;

/// Environment variables, flags, and a program to run it under.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    environment: BTreeMap<String, String>,
    flags: Vec<String>,
    wrapper: Vec<String>,
}

impl Settings {
    /// Returns what suits a test: loopback, free ports, no pause in the drain, small pools.
    pub fn of_a_test(database_url: &str, journal: &Path) -> Self {
        let mut settings = Self::default();
        settings
            .set("DATABASE_URL", database_url)
            .set("JOURNAL_DIR", journal.display())
            .set("JOURNAL_MAX_MB", 512)
            .set("HOST", "127.0.0.1")
            .set("PORT", 0)
            .set("ADMIN_PORT", 0)
            .set("LOG_FORMAT", "json")
            .set("DRAIN_DELAY_SECONDS", 0)
            .set("DB_POOL_MIN_SIZE", 1)
            .set("DB_POOL_MAX_SIZE", 8);
        settings
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// Takes a variable away.
    pub fn unset(&mut self, name: &str) -> &mut Self {
        self.environment.remove(name);
        self
    }

    /// Adds a flag of `serve`.
    pub fn flag(&mut self, flag: &str) -> &mut Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Runs the server under another program, which must keep its process id.
    pub fn run_under(&mut self, wrapper: &[&str]) -> &mut Self {
        self.wrapper = wrapper.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// Returns the command line of `forebay serve`.
    pub fn command(&self) -> Command {
        let mut line: Vec<&str> = self.wrapper.iter().map(String::as_str).collect();
        line.extend([PROGRAM, "serve"]);
        line.extend(self.flags.iter().map(String::as_str));
        let mut command = Command::new(line[0]);
        command
            .args(&line[1..])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(&self.environment);
        command
    }
}
