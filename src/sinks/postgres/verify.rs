//! Compares the ledger with the table: what `forebay verify` tells.
//!
//! All questions are asked in one snapshot, and each flush is in it wholly or not at all, so servers may go on writing.

use std::time::Duration;

use uuid::Uuid;

use crate::{
    db::{self, Database},
    partitions::leaves,
    time::Timestamp,
};

/// Differences that are told one by one; beyond that they are only counted.
const MAX_TOLD: i64 = 100;
const DAY: Duration = Duration::from_secs(86_400);

/// What was compared, and what differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct VerifyReport {
    /// Batches that were compared.
    pub batches: u64,
    /// Batches that reach below what was pruned, and were not compared.
    pub batches_left_out: u64,
    /// Events of the compared batches, by the ledger.
    pub committed: u64,
    /// Events of the compared batches in quarantine, by the ledger.
    pub quarantined: u64,
    /// How many differences there are.
    pub differences: u64,
    /// The first of them.
    pub told: Vec<Difference>,
}

/// A batch that is not as the ledger says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// What differs.
    pub what: What,
    /// Whose batch it is; none when the ledger doesn't know it.
    pub caller: Option<String>,
    /// What it is called.
    pub batch_id: Option<String>,
    /// Its id in the table.
    pub batch: Uuid,
    /// Events by the ledger.
    pub expected: i64,
    /// Events that are there.
    pub found: i64,
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Rows in `events`.
    Stored,
    /// Rows in `quarantine`.
    Quarantined,
    /// committed + duplicates + quarantined, against accepted.
    Sum,
    /// Rows in `events` of a batch that the ledger does not know.
    UnknownBatch,
}

/// Batches in question: `$1` since when, `$2` what was pruned. Events replayed under their batch's id count as stored.
const COMPARED: &str = "
    WITH ledger AS MATERIALIZED (
        SELECT caller, batch_id, batch, accepted, committed, duplicates, quarantined, purged, first_timestamp, last_timestamp
        FROM batches WHERE committed_at >= $1 AND first_timestamp >= $2),
    stored AS (
        SELECT batch, count(*) AS events FROM events
        WHERE \"timestamp\" BETWEEN (SELECT min(first_timestamp) FROM ledger) AND (SELECT max(last_timestamp) FROM ledger)
        GROUP BY batch),
    aside AS (SELECT batch, count(*) AS events, count(replayed_at) AS replayed FROM quarantine GROUP BY batch),
    compared AS (
        SELECT l.*, coalesce(s.events, 0) AS stored, coalesce(a.events, 0) + l.purged AS aside,
               coalesce(a.replayed, 0) AS replayed
        FROM ledger l LEFT JOIN stored s USING (batch) LEFT JOIN aside a USING (batch)),
    different AS (
        SELECT 0 AS what, caller, batch_id, batch, committed::int8 AS expected, stored AS found FROM compared
        WHERE stored NOT BETWEEN committed AND committed + replayed
        UNION ALL SELECT 1, caller, batch_id, batch, quarantined, aside FROM compared WHERE aside <> quarantined
        UNION ALL SELECT 2, caller, batch_id, batch, accepted, committed + duplicates + quarantined FROM compared
        WHERE accepted <> committed + duplicates + quarantined),
    unknown AS (
        SELECT 3 AS what, NULL::text AS caller, NULL::text AS batch_id, e.batch, 0::int8 AS expected, count(*) AS found
        FROM events e WHERE e.received_at >= $3 AND NOT EXISTS (SELECT FROM batches b WHERE b.batch = e.batch)
        GROUP BY e.batch),
    totals AS (
        SELECT count(*) AS batches, coalesce(sum(committed), 0)::int8 AS committed,
               coalesce(sum(quarantined), 0)::int8 AS quarantined FROM compared),
    told AS (SELECT * FROM different UNION ALL SELECT * FROM unknown)
    SELECT t.batches, t.committed, t.quarantined, (SELECT count(*) FROM told),
           d.what, d.caller, d.batch_id, d.batch, d.expected, d.found
    FROM totals t LEFT JOIN (SELECT * FROM told ORDER BY what, batch LIMIT $4) d ON true";

/// Compares the ledger's batches, those that were settled `since` then, with the table. The ledger forgets batches after
/// `ledger_retention_days`, so that older events are not asked for theirs.
///
/// # Errors
/// PostgreSQL can't be asked.
pub async fn verify(
    database: &Database,
    since: Option<Timestamp>,
    ledger_retention_days: u32,
    now: Timestamp,
) -> Result<VerifyReport, db::Error> {
    let mut connection = database.side().await?;
    let client: &mut tokio_postgres::Client = &mut connection;
    let transaction = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let beginning = Timestamp::from_postgres(BEGINNING_MICROS);
    let since = since.unwrap_or(beginning);
    let pruned = leaves::state(&transaction).await?.pruned_before;
    let kept_from = pruned.map_or(beginning, crate::time::Month::start);
    // A day less: the servers' clocks and the pruning job's are not the same.
    let known_from = now.minus(DAY * ledger_retention_days.saturating_sub(1)).max(since);
    let left_out = "SELECT count(*) FROM batches WHERE committed_at >= $1 AND first_timestamp < $2";
    let left_out = transaction.query_one(left_out, &[&since.to_jiff(), &kept_from.to_jiff()]).await?;
    let moments = (since.to_jiff(), kept_from.to_jiff(), known_from.to_jiff());
    let rows = transaction.query(COMPARED, &[&moments.0, &moments.1, &moments.2, &MAX_TOLD]).await?;
    transaction.commit().await?;
    connection.release();

    let count = |row: &tokio_postgres::Row, column: usize| row.try_get::<_, i64>(column).map(i64::unsigned_abs);
    let mut report = VerifyReport { batches_left_out: count(&left_out, 0)?, ..VerifyReport::default() };
    for row in &rows {
        report.batches = count(row, 0)?;
        report.committed = count(row, 1)?;
        report.quarantined = count(row, 2)?;
        report.differences = count(row, 3)?;
        let what = match row.try_get::<_, Option<i32>>(4)? {
            None => continue,
            Some(0) => What::Stored,
            Some(1) => What::Quarantined,
            Some(2) => What::Sum,
            Some(_) => What::UnknownBatch,
        };
        report.told.push(Difference {
            what,
            caller: row.try_get(5)?,
            batch_id: row.try_get(6)?,
            batch: row.try_get(7)?,
            expected: row.try_get(8)?,
            found: row.try_get(9)?,
        });
    }
    Ok(report)
}

/// 4000 BC in PostgreSQL's microseconds: before any event, and a moment that it can hold.
const BEGINNING_MICROS: i64 = -189_000_000_000_000_000;
