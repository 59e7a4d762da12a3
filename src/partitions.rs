//! Leaves of the `events` table: one a UTC month, made ahead, made on demand, and pruned.
//!
//! What to do is planned by a pure function ([`plan`]); [`ddl`] does it. Writers never wait long behind either: a leaf is
//! made by `LIKE` and `ATTACH`, which take no lock that an insert needs, and each wait for a lock is short. There is no
//! DEFAULT partition: it would be in the way of making the missing month.

pub mod ddl;
pub mod leaves;
pub mod maintain;
pub mod plan;
mod retention;

pub use retention::Retention;

use crate::{
    db::{self, Database},
    time::{Month, Timestamp},
};

/// Settings of the leaves.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Partitions")]
#[group(skip)]
pub struct Config {
    /// Months after the current one whose partition is made ahead of time.
    #[arg(long, env = "PARTITIONS_AHEAD", value_name = "MONTHS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub partitions_ahead: u32,

    /// How long events are kept: `12months`, `90days` or `2years`. Unset, all are kept.
    #[arg(long, env = "PARTITION_RETENTION", value_name = "TIME")]
    pub partition_retention: Option<Retention>,
}

/// Why a month has no sound leaf now.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// Something bears the leaf's name and can't become it: it holds rows, or is attached wrongly.
    #[error("{leaf} is in the way: it is not, or not wholly, a leaf of events, and can't be attached as it is")]
    InTheWay {
        /// What is in the way.
        leaf: String,
    },
    /// PostgreSQL can't be asked, refused, or a lock was not got.
    #[error(transparent)]
    Database(#[from] db::Error),
}

impl From<tokio_postgres::Error> for LeafError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// What became of a month that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// It has a leaf, which this call made or attached.
    Made,
    /// It had one.
    Existed,
    /// It was pruned and has none: only `partitions create` makes it again.
    Pruned,
}

/// Whether a month that was pruned may get a leaf again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pruned {
    /// It stays without.
    Stays,
    /// It is made again: somebody asked for this very month.
    IsRemade,
}

/// Makes sure that a month has its leaf.
///
/// # Errors
/// [`LeafError`] when it has none now.
pub async fn ensure_leaf(database: &Database, month: Month, pruned: Pruned) -> Result<Ensured, LeafError> {
    let mut connection = database.side().await?;
    let ensured = ddl::ensure_leaf(&mut connection, month, pruned).await?;
    connection.release();
    Ok(ensured)
}

/// Makes the leaves of the current month and of those `ahead` of it, as servers do when they start. Returns those that
/// were not there.
///
/// # Errors
/// The first [`LeafError`]; the months before it have their leaf.
pub async fn make_ahead(database: &Database, now: Timestamp, ahead: u32) -> Result<Vec<Month>, LeafError> {
    let mut connection = database.side().await?;
    let existing = leaves::months(&leaves::leaves(connection.client()).await?);
    let mut made = Vec::new();
    for month in plan::plan(now, ahead, None, &existing).make {
        if ddl::ensure_leaf(&mut connection, month, Pruned::Stays).await? == Ensured::Made {
            made.push(month);
        }
    }
    connection.release();
    Ok(made)
}

/// What the door and the metrics need to know of the leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Months before this one were pruned.
    pub pruned_before: Option<Month>,
    /// Pruned months whose leaf was made again, ascending.
    pub remade: Vec<Month>,
    /// Months after the current one, without a gap, that have a leaf.
    pub ahead: u32,
    /// When `partitions maintain` last did all it had to.
    pub last_success: Option<Timestamp>,
}

/// Asks the database for what the door and the metrics need to know.
///
/// # Errors
/// It can't be asked.
pub async fn facts(database: &Database, now: Timestamp) -> Result<Facts, db::Error> {
    let connection = database.side().await?;
    let state = leaves::state(connection.client()).await?;
    let months = leaves::months(&leaves::leaves(connection.client()).await?);
    connection.release();
    let is_pruned = |month: &Month| state.pruned_before.is_some_and(|before| *month < before);
    Ok(Facts {
        ahead: plan::months_ahead(now, &months),
        remade: months.iter().copied().filter(is_pruned).collect(),
        pruned_before: state.pruned_before,
        last_success: state.maintained_at,
    })
}
