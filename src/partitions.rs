//! Leaves of the `events` table: one a month, made ahead and pruned.

use crate::config::SettingError;

/// Settings of the leaves.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Months after the current one that have a leaf ahead of time.
    #[arg(long, env = "PARTITIONS_AHEAD", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub partitions_ahead: u32,

    /// How long events are kept: `12months`, `90days` or `2years`. Unset, all are kept.
    #[arg(long, env = "PARTITION_RETENTION")]
    pub partition_retention: Option<Retention>,
}

/// How long events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Calendar months; a year is twelve.
    Months(u32),
    /// Days of 24 hours.
    Days(u32),
}

impl std::str::FromStr for Retention {
    type Err = SettingError;

    fn from_str(_text: &str) -> Result<Self, SettingError> {
        todo!()
    }
}
