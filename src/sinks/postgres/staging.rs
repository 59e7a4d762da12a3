//! The way for flushes that meet doubles: a temporary table, then `INSERT … ON CONFLICT DO NOTHING`.
//!
//! COPY to the leaf stops at the first event that is stored already. Going again costs the flush twice, so the way is
//! chosen by how often flushes met a double lately. Both ways tell whether there was one, so that nothing needs probing:
//! when doubles grow rare, the average falls and COPY to the leaf comes back.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use deadpool_postgres::ClientWrapper;
use uuid::Uuid;

use crate::row::COLUMNS;

/// The temporary table of each connection that ever needed it.
pub(super) const TABLE: &str = "forebay_staging";

/// Makes the temporary table where the session has none yet.
pub(super) const CREATE: &str =
    "CREATE TEMPORARY TABLE IF NOT EXISTS forebay_staging (LIKE events) ON COMMIT DELETE ROWS";

/// Moves the staged rows that are new to a leaf, and empties the temporary table for the next ones. Returns how many
/// rows of each batch were new.
pub(super) async fn move_new(client: &ClientWrapper, leaf: &str) -> Result<Vec<(Uuid, u32)>, tokio_postgres::Error> {
    // The columns are named: without them an index that an operator added would swallow rows.
    let sql = format!(
        "WITH new AS (INSERT INTO \"{leaf}\" ({COLUMNS}) SELECT {COLUMNS} FROM {TABLE}
                      ON CONFLICT (\"timestamp\", event_id, service_name) DO NOTHING RETURNING batch)
         SELECT batch, count(*) FROM new GROUP BY batch"
    );
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[]).await?;
    client.batch_execute("TRUNCATE forebay_staging").await?;
    let count = |row: tokio_postgres::Row| {
        let count = u32::try_from(row.try_get::<_, i64>(1)?).unwrap_or(u32::MAX);
        Ok((row.try_get(0)?, count))
    };
    rows.into_iter().map(count).collect()
}

/// How often flushes meet a double, as a moving average.
#[derive(Debug, Default)]
pub(super) struct Doubles(AtomicU32);

/// What stands for "each flush".
const ALWAYS: u32 = 1 << 16;

impl Doubles {
    /// Notes a flush that met a double, or met none.
    pub(super) fn note(&self, met: bool) {
        // Lanes may overwrite each other's note: it is an average.
        let before = self.0.load(Relaxed);
        let goal = if met { ALWAYS } else { 0 };
        self.0.store((before * 7 + goal) / 8, Relaxed);
    }

    /// Returns whether a flush is likely enough to meet one: measured, the temporary table pays from one in three.
    pub(super) fn are_frequent(&self) -> bool {
        self.0.load(Relaxed) > ALWAYS / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn way_follows_how_often_doubles_are_met() {
        let doubles = Doubles::default();
        assert!(!doubles.are_frequent());
        (0..20).for_each(|flush| doubles.note(flush % 8 == 0));
        assert!(!doubles.are_frequent());
        (0..20).for_each(|_| doubles.note(true));
        assert!(doubles.are_frequent());
        (0..20).for_each(|_| doubles.note(false));
        assert!(!doubles.are_frequent());
    }
}
