//! The log: what is said, in which form, and how often.
//!
//! Lines go to stderr, so that what a command prints stays clean on stdout. Whoever logs must give no payload, no secret
//! and no text of a caller.

mod json;

use std::{
    fmt,
    io::IsTerminal,
    time::{Duration, Instant},
};

use tracing_subscriber::{
    EnvFilter,
    filter::LevelFilter,
    fmt::{
        format::{JsonFields, Writer},
        time::FormatTime,
    },
    util::SubscriberInitExt,
};

use crate::settings::SettingError;
use json::JsonLines;

/// Libraries whose warnings say again, in their own words, what forebay itself tells once. `LOG_LEVEL` may name them.
const QUIET: &str = "deadpool=error,refinery_core=warn,tokio_postgres=error";

/// Settings of the log.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Log")]
#[group(skip)]
pub struct Config {
    /// What is logged: error, warn, info, debug, trace or off; for one module as in `info,forebay::queue=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info", global = true)]
    pub log_level: String,

    /// The form of a line: json or text. Unset, it is text on a terminal, else json.
    #[arg(long, env = "LOG_FORMAT", global = true)]
    pub log_format: Option<String>,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Text,
}

impl Config {
    /// Checks the settings, before a port opens.
    ///
    /// # Errors
    /// `LOG_LEVEL` or `LOG_FORMAT` is none.
    pub fn check(&self) -> Result<(), SettingError> {
        self.filter()?;
        self.format(true)?;
        Ok(())
    }

    fn filter(&self) -> Result<EnvFilter, SettingError> {
        let wrong = || {
            SettingError(format!(
                "LOG_LEVEL {:?} is not a level (error, warn, info, debug, trace, off), nor levels of modules as in \
                 info,forebay::queue=debug",
                self.log_level
            ))
        };
        // The filter itself takes any word for the name of a module, and a misspelled level would silence all.
        let is_level = |text: &str| !text.is_empty() && text.parse::<LevelFilter>().is_ok();
        let is_module =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b));
        let is_directive = |text: &str| match text.split_once('=') {
            Some((module, level)) => is_module(module) && is_level(level),
            None => is_level(text),
        };
        if !self.log_level.split(',').all(is_directive) {
            return Err(wrong());
        }
        let directives = format!("{QUIET},{}", self.log_level);
        EnvFilter::builder().parse(directives).map_err(|_| wrong())
    }

    fn format(&self, is_terminal: bool) -> Result<Format, SettingError> {
        match self.log_format.as_deref() {
            Some("json") => Ok(Format::Json),
            Some("text") => Ok(Format::Text),
            Some(other) => Err(SettingError(format!("LOG_FORMAT {other:?} is neither json nor text"))),
            None if is_terminal => Ok(Format::Text),
            None => Ok(Format::Json),
        }
    }
}

/// Starts the log. `instance` is told in each JSON line. A second call changes nothing.
///
/// # Errors
/// As [`Config::check`].
pub fn init(config: &Config, instance: &str) -> Result<(), SettingError> {
    let is_terminal = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(config.filter()?);
    let started = match config.format(is_terminal)? {
        Format::Text => {
            let is_detailed = config.filter()?.max_level_hint() > Some(LevelFilter::INFO);
            let log = log.with_timer(Millis).with_target(is_detailed);
            log.with_ansi(is_terminal).finish().try_init()
        }
        Format::Json => log.fmt_fields(JsonFields::new()).event_format(JsonLines::new(instance)).finish().try_init(),
    };
    // An error says only that a log is there already.
    drop(started);
    Ok(())
}

/// Moments in a line of text: UTC, as short as a reader wants them. JSON has all digits.
struct Millis;

impl FormatTime for Millis {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:.3}", jiff::Timestamp::now())
    }
}

/// Decides when a line that comes again and again is logged: at most once in an interval.
#[derive(Debug)]
pub struct Repeats {
    interval: Duration,
    last: Option<Instant>,
    suppressed: u64,
}

impl Repeats {
    /// Returns a limiter that lets one line through in each `interval`.
    pub const fn new(interval: Duration) -> Self {
        Self { interval, last: None, suppressed: 0 }
    }

    /// Counts one line. Returns how many were suppressed since the last one when this is to be logged; else nothing.
    pub fn note(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(level: &str, format: Option<&str>) -> Config {
        Config { log_level: level.into(), log_format: format.map(str::to_owned) }
    }

    #[test]
    fn levels_and_levels_of_modules_are_taken() {
        for level in ["info", "OFF", "warn,forebay=debug", "info,forebay::queue=trace,tokio_postgres=error"] {
            config(level, None).check().unwrap();
        }
    }

    #[test]
    fn wrong_level_is_refused_by_its_name() {
        for level in ["", "verbose", "info,", "forebay", "forebay=loud", "=info", "info,[span]=debug", "info debug"] {
            let error = config(level, None).check().unwrap_err().to_string();
            assert!(error.starts_with("LOG_LEVEL ") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn format_follows_the_terminal_unless_it_is_set() {
        let format = |format, is_terminal| config("info", format).format(is_terminal).unwrap();
        assert_eq!((format(None, true), format(None, false)), (Format::Text, Format::Json));
        assert_eq!((format(Some("json"), true), format(Some("text"), false)), (Format::Json, Format::Text));
        let error = config("info", Some("xml")).check().unwrap_err().to_string();
        assert_eq!(error, "LOG_FORMAT \"xml\" is neither json nor text");
    }

    #[test]
    fn repeated_line_is_logged_once_an_interval_with_the_count_of_the_others() {
        let start = Instant::now();
        let mut repeats = Repeats::new(Duration::from_secs(10));
        let mut at = |seconds| repeats.note(start + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(9), at(10), at(25), at(24)], [Some(0), None, None, Some(2), Some(0), None]);
    }
}
