//! `partitions maintain` and `partitions cleanup`: makes leaves ahead, prunes leaves and the ledger.
//!
//! Running it twice, at once or after a crash half-way, does no more than running it once.

use std::time::Duration;

use super::{Ensured, LeafError, Pruned, Retention, ddl, leaves, leaves::LeafState, plan};
use crate::{
    db::{self, Connection, Database},
    time::{Clock, Month, Timestamp},
};

/// A clock further off than this from PostgreSQL's prunes nothing.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Ledger rows that one statement deletes, and statements in one run: each transaction stays short, and a ledger that
/// was never pruned is worked off over several runs.
const LEDGER_ROWS: i64 = 10_000;
const LEDGER_ROUNDS: u32 = 1000;

/// What maintenance is told.
#[derive(Clone, Copy, Debug)]
pub struct Maintenance {
    /// Months after the current one that have a leaf.
    pub ahead: u32,
    /// How long events are kept, where not for good.
    pub retention: Option<Retention>,
    /// Days that the ledger knows a batch.
    pub ledger_retention_days: u32,
    /// Tells what would be done, and does nothing.
    pub dry_run: bool,
    /// The time.
    pub clock: Clock,
}

/// What maintenance did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MaintenanceReport {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Months that got a leaf.
    pub created: Vec<String>,
    /// Months whose leaf was dropped.
    pub pruned: Vec<String>,
    /// Rows that were deleted from the ledger.
    pub ledger_rows_pruned: u64,
    /// What could not be done, and why; empty when all is well.
    pub failed: Vec<String>,
}

impl MaintenanceReport {
    /// Returns whether all was done.
    pub fn is_success(&self) -> bool {
        self.failed.is_empty()
    }

    fn note_failed(&mut self, what: impl std::fmt::Display, error: LeafError) {
        self.failed.push(format!("{what}: {:#}", anyhow::Error::from(error)));
    }
}

/// Makes leaves ahead, prunes leaves and the ledger, and records that it did. What fails is told in the report, and
/// stops nothing else.
///
/// # Errors
/// PostgreSQL can't be asked at all.
pub async fn maintain(database: &Database, maintenance: &Maintenance) -> Result<MaintenanceReport, db::Error> {
    let mut connection = database.side().await?;
    let now = maintenance.clock.now();
    let existing = leaves::leaves(connection.client()).await?;
    let plan = plan::plan(now, maintenance.ahead, maintenance.retention, &leaves::months(&existing));
    let mut report = MaintenanceReport { dry_run: maintenance.dry_run, ..MaintenanceReport::default() };
    for month in plan.make {
        if maintenance.dry_run {
            report.created.push(month.to_string());
            continue;
        }
        match ddl::ensure_leaf(&mut connection, month, Pruned::Stays).await {
            Ok(Ensured::Made) => report.created.push(month.to_string()),
            Ok(Ensured::Existed | Ensured::Pruned) => {}
            Err(error) => report.note_failed(month, error),
        }
    }
    prune(&mut connection, &plan.prune, maintenance.clock, &mut report).await?;
    if !maintenance.dry_run {
        report.ledger_rows_pruned = prune_ledger(&connection, maintenance.ledger_retention_days).await?;
        if report.is_success() {
            connection.execute("UPDATE partition_state SET maintained_at = now()", &[]).await?;
        }
    }
    connection.release();
    Ok(report)
}

/// Drops the leaves that lie wholly before `older_than`: `partitions cleanup`. A retention that is set is never cut
/// short: then nothing is dropped, and the report says so.
///
/// # Errors
/// PostgreSQL can't be asked at all.
pub async fn cleanup(
    database: &Database,
    older_than: Retention,
    retention: Option<Retention>,
    dry_run: bool,
    clock: Clock,
) -> Result<MaintenanceReport, db::Error> {
    let now = clock.now();
    let mut report = MaintenanceReport { dry_run, ..MaintenanceReport::default() };
    if let Some(kept) = retention.filter(|kept| older_than.oldest_kept(now) > kept.oldest_kept(now)) {
        let line = format!("{older_than} is shorter than PARTITION_RETENTION, {kept}: nothing is dropped");
        report.failed.push(line);
        return Ok(report);
    }
    let mut connection = database.side().await?;
    let existing = leaves::months(&leaves::leaves(connection.client()).await?);
    let months = plan::beyond(now, older_than, &existing);
    prune(&mut connection, &months, clock, &mut report).await?;
    connection.release();
    Ok(report)
}

async fn prune(
    connection: &mut Connection,
    months: &[Month],
    clock: Clock,
    report: &mut MaintenanceReport,
) -> Result<(), db::Error> {
    // What an earlier run took off and did not come to drop.
    let left_over =
        leaves::leaves(connection.client()).await?.into_iter().filter(|leaf| leaf.state == LeafState::Pruned);
    let dry_run = report.dry_run;
    for leaf in left_over.filter(|_| !dry_run) {
        if let Err(error) = ddl::drop_pruned(connection, &leaf.name).await {
            report.note_failed(&leaf.name, error);
        }
    }
    if months.is_empty() {
        return Ok(());
    }
    let theirs: jiff::Timestamp = connection.query_one("SELECT clock_timestamp()", &[]).await?.try_get(0)?;
    let (ours, theirs) = (clock.now(), Timestamp::from(theirs));
    let skew = ours.since(theirs).max(theirs.since(ours));
    if skew > MAX_CLOCK_SKEW {
        let seconds = skew.as_secs();
        let line = format!("this clock is {seconds} seconds off PostgreSQL's: nothing is pruned");
        report.failed.push(line);
        return Ok(());
    }
    for month in months {
        if report.dry_run {
            report.pruned.push(month.to_string());
            continue;
        }
        match ddl::prune_leaf(connection, *month).await {
            Ok(true) => report.pruned.push(month.to_string()),
            Ok(false) => {}
            Err(error) => report.note_failed(month, error),
        }
    }
    Ok(())
}

async fn prune_ledger(connection: &Connection, days: u32) -> Result<u64, db::Error> {
    let sql = "DELETE FROM batches WHERE ctid = ANY (ARRAY(
                   SELECT ctid FROM batches WHERE committed_at < now() - make_interval(days => $1) LIMIT $2))";
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    let mut pruned = 0;
    for _ in 0..LEDGER_ROUNDS {
        let rows = connection.execute(sql, &[&days, &LEDGER_ROWS]).await?;
        pruned += rows;
        if rows < LEDGER_ROWS as u64 {
            break;
        }
    }
    Ok(pruned)
}
