//! Makes leaves and takes them off, each in one short transaction under one advisory lock.
//!
//! Every statement here gives up on a lock quickly and is tried again: a DDL statement that waits stops the inserts that
//! queue behind it.

use std::time::Duration;

use rand::Rng;
use tokio_postgres::{Transaction, error::SqlState};

use super::{Ensured, LeafError, Pruned, leaves, leaves::PRUNED_SUFFIX};
use crate::{
    db::{self, Connection},
    time::Month,
};

/// The advisory lock that whoever makes or prunes leaves holds.
const LEAF_LOCK: i64 = 0x666f_7265_6261_7902;
/// Tries to make a leaf: nothing that it waits for stands in an insert's way for long.
const MAKE_TRIES: u32 = 5;
/// Tries to take a leaf off, and what each waits at most. While it waits, inserts and queries through `events` wait too.
const DETACH_TRIES: u32 = 12;
const DETACH_LOCK_MILLIS: u32 = 300;
const MAKE_LOCK_MILLIS: u32 = 2000;

/// Makes sure that a month has its leaf.
///
/// # Errors
/// [`LeafError`] when it has none now.
pub async fn ensure_leaf(connection: &mut Connection, month: Month, pruned: Pruned) -> Result<Ensured, LeafError> {
    for attempt in 1.. {
        match try_ensure(connection, month, pruned).await {
            Err(LeafError::Database(error)) if attempt < MAKE_TRIES && is_passing(&error) => pause(attempt).await,
            outcome => return outcome,
        }
    }
    unreachable!("the last try returns")
}

/// A lock that was not got, or somebody who made the same at the same moment.
fn is_passing(error: &db::Error) -> bool {
    error.sqlstate().is_some_and(|code| {
        [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::OBJECT_IN_USE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::DUPLICATE_TABLE,
            SqlState::UNIQUE_VIOLATION,
        ]
        .iter()
        .any(|passing| passing.code() == code)
    })
}

async fn pause(attempt: u32) {
    let longest = 100 * u64::from(attempt.min(10));
    let millis = rand::rng().random_range(longest / 2..=longest);
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

async fn begin(connection: &mut Connection, lock_millis: u32) -> Result<Transaction<'_>, tokio_postgres::Error> {
    let client: &mut tokio_postgres::Client = connection;
    let transaction = client.transaction().await?;
    let sql = format!("SET LOCAL lock_timeout = {lock_millis}; SELECT pg_advisory_xact_lock({LEAF_LOCK})");
    transaction.batch_execute(&sql).await?;
    Ok(transaction)
}

async fn try_ensure(connection: &mut Connection, month: Month, pruned: Pruned) -> Result<Ensured, LeafError> {
    let transaction = begin(connection, MAKE_LOCK_MILLIS).await?;
    let leaf = month.leaf();
    if transaction.query(&leaves::unsound_query(), &[&vec![&leaf]]).await?.is_empty() {
        return Ok(Ensured::Existed);
    }
    let before = leaves::state(&transaction).await?.pruned_before;
    if pruned == Pruned::Stays && before.is_some_and(|before| month < before) {
        return Ok(Ensured::Pruned);
    }
    let found = "SELECT c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
                 FROM pg_class c WHERE c.oid = to_regclass($1)";
    match transaction.query_opt(found, &[&leaf]).await?.map(|row| row.get::<_, bool>(0)) {
        Some(is_loose_table) => {
            if !is_loose_table || holds_rows(&transaction, &leaf).await? {
                return Err(LeafError::InTheWay { leaf });
            }
        }
        None => {
            // LIKE and ATTACH, not PARTITION OF, whose lock on the parent stops every writer.
            let create = format!("CREATE TABLE \"{leaf}\" (LIKE events INCLUDING ALL)");
            transaction.batch_execute(&create).await?;
            give_rights(&transaction, &leaf).await?;
        }
    }
    // The offset makes the bounds the UTC month whatever the session's time zone is.
    let bound = |month: Month| format!("'{:04}-{:02}-01 00:00:00+00'", month.year(), month.month());
    let (from, to) = (bound(month), bound(month.plus(1)));
    let attach = format!("ALTER TABLE events ATTACH PARTITION \"{leaf}\" FOR VALUES FROM ({from}) TO ({to})");
    match transaction.batch_execute(&attach).await {
        // Bounds that another leaf holds, or columns that are not the parent's.
        Err(error) if matches!(error.code().map(SqlState::code), Some("42P17" | "42804")) => {
            return Err(LeafError::InTheWay { leaf });
        }
        attached => attached?,
    }
    transaction.commit().await?;
    tracing::info!(leaf, "made leaf");
    Ok(Ensured::Made)
}

async fn holds_rows(transaction: &Transaction<'_>, leaf: &str) -> Result<bool, tokio_postgres::Error> {
    transaction.batch_execute(&format!("LOCK TABLE \"{leaf}\" IN ACCESS EXCLUSIVE MODE")).await?;
    let row = transaction.query_one(&format!("SELECT EXISTS (SELECT FROM \"{leaf}\")"), &[]).await?;
    row.try_get(0)
}

/// Gives the leaf the owner and the rights of `events`: a flush copies straight to it, and whoever makes leaves may be
/// another role than the servers'.
async fn give_rights(transaction: &Transaction<'_>, leaf: &str) -> Result<(), tokio_postgres::Error> {
    let sql = "
        SELECT format('GRANT %s ON TABLE %I TO %s%s', a.privilege_type, $1::text,
                      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                      CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = to_regclass('events') AND a.grantee <> c.relowner
        UNION ALL
        SELECT format('ALTER TABLE %I OWNER TO %I', $1::text, pg_get_userbyid(c.relowner))
        FROM pg_class c WHERE c.oid = to_regclass('events') AND pg_get_userbyid(c.relowner) <> current_user";
    for row in transaction.query(sql, &[&leaf]).await? {
        transaction.batch_execute(row.try_get(0)?).await?;
    }
    Ok(())
}

/// Takes a month's leaf off `events` and drops it. Returns false when it was not attached.
///
/// # Errors
/// A lock was not got in all tries, or PostgreSQL refused; then the leaf is as it was, or waits to be dropped by
/// [`drop_pruned`].
pub async fn prune_leaf(connection: &mut Connection, month: Month) -> Result<bool, LeafError> {
    for attempt in 1.. {
        match try_detach(connection, month).await {
            Err(error) if attempt < DETACH_TRIES && is_passing(&error) => pause(attempt).await,
            Err(error) => return Err(error.into()),
            Ok(false) => return Ok(false),
            Ok(true) => break,
        }
    }
    drop_pruned(connection, &format!("{}{PRUNED_SUFFIX}", month.leaf())).await?;
    Ok(true)
}

async fn try_detach(connection: &mut Connection, month: Month) -> Result<bool, db::Error> {
    let transaction = begin(connection, DETACH_LOCK_MILLIS).await?;
    let leaf = month.leaf();
    let attached = "SELECT FROM pg_inherits WHERE inhrelid = to_regclass($1) AND inhparent = to_regclass('events')";
    if transaction.query_opt(attached, &[&leaf]).await?.is_none() {
        return Ok(false);
    }
    // In the transaction of the detachment: from the moment that the leaf is gone nobody makes it again by mistake. A
    // COPY that waits behind it then finds no table of that name, and not a detached one that swallows its rows.
    let next = month.plus(1);
    let sql = format!(
        "UPDATE partition_state SET pruned_before = greatest(pruned_before, '{:04}-{:02}-01'::date);
         ALTER TABLE events DETACH PARTITION \"{leaf}\";
         ALTER TABLE \"{leaf}\" RENAME TO \"{leaf}{PRUNED_SUFFIX}\";
         COMMENT ON TABLE \"{leaf}{PRUNED_SUFFIX}\" IS '{PRUNED_COMMENT}'",
        next.year(),
        next.month()
    );
    transaction.batch_execute(&sql).await?;
    transaction.commit().await?;
    tracing::info!(leaf, "detached leaf");
    Ok(true)
}

/// What marks a table that we took off and that is to be dropped; a table that only bears such a name is left alone.
const PRUNED_COMMENT: &str = "pruned by forebay, to be dropped";

/// Drops a table that was taken off before; one that is not marked as such stays.
///
/// # Errors
/// PostgreSQL refused, or a lock was not got in time.
pub async fn drop_pruned(connection: &mut Connection, name: &str) -> Result<bool, LeafError> {
    let sql = "SELECT FROM pg_class c WHERE c.oid = to_regclass($1) AND c.relkind = 'r'
               AND obj_description(c.oid, 'pg_class') = $2
               AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)";
    let transaction = begin(connection, MAKE_LOCK_MILLIS).await?;
    if transaction.query_opt(sql, &[&name, &PRUNED_COMMENT]).await?.is_none() {
        return Ok(false);
    }
    transaction.batch_execute(&format!("DROP TABLE \"{name}\"")).await?;
    transaction.commit().await?;
    tracing::info!(leaf = name, "dropped leaf");
    Ok(true)
}
