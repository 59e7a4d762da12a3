//! Creates and upgrades the tables: the files of `migrations/`, which the binary carries.
//!
//! Two that migrate at once are one after the other: the second waits for the lock and then finds nothing to do.

use super::{Database, Error};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The advisory lock that whoever migrates holds; any number will do as long as every release takes the same.
const MIGRATION_LOCK: i64 = 0x666f_7265_6261_7901;

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MigrationReport {
    /// The files that were applied, in their order; empty when the tables were up to date.
    pub applied: Vec<String>,
}

/// A migration that did not come to its end. What was applied before stays applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// PostgreSQL can't be reached, or the lock can't be taken.
    #[error(transparent)]
    Database(#[from] Error),
    /// A file failed.
    #[error("the tables can't be brought up to date")]
    File(#[from] refinery::Error),
}

/// Brings the tables up to date.
///
/// # Errors
/// [`MigrationError`]; running it again goes on where it ended.
pub async fn migrate(database: &Database) -> Result<MigrationReport, MigrationError> {
    let mut connection = database.side().await?;
    let wait = format!("SET lock_timeout = 0; SELECT pg_advisory_lock({MIGRATION_LOCK}); SET lock_timeout = '5s'");
    connection.batch_execute(&wait).await.map_err(Error::from)?;
    // A newer release may have applied files that this one does not have: its tables still serve this one.
    let runner = embedded::migrations::runner().set_abort_missing(false);
    let report = runner.run_async(&mut **connection).await?;
    let applied = report.applied_migrations().iter().map(ToString::to_string).collect();
    // Closing the session frees the lock.
    drop(connection);
    Ok(MigrationReport { applied })
}
