//! The ledger: one row a batch whose fate is recorded.
//!
//! The INSERT is the look-up: it waits for another replica's open transaction and then tells the truth, which a SELECT
//! does not. Rows are inserted with the counts that a clean COPY makes true, so that only trouble needs an UPDATE.

use std::{collections::HashMap, time::Duration};

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    batch::{BatchHead, BatchKey, BatchStatus, ClaimedBatch, KnownBatch, Priority, StatusReport},
    db::{self, Database},
    time::Timestamp,
};

/// What became of a batch's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub committed: u32,
    pub quarantined: u32,
}

/// A row of the ledger.
#[derive(Clone, Debug)]
pub(super) struct LedgerRow {
    pub batch: Uuid,
    pub content_hash: [u8; 32],
    pub accepted_hash: [u8; 32],
    pub priority: i16,
    pub received: u32,
    pub accepted: u32,
    pub rejected: u32,
    pub committed: u32,
    pub duplicates: u32,
    pub quarantined: u32,
    pub attempts: u32,
    pub accepted_at: Timestamp,
    pub committed_at: Timestamp,
}

const COLUMNS: &str = "batch, content_hash, accepted_hash, priority, received, accepted, rejected, committed, duplicates, \
                       quarantined, attempts, accepted_at, committed_at";

impl LedgerRow {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let count = |column: &str| row.try_get::<_, i32>(column).map(|count| u32::try_from(count).unwrap_or(0));
        let moment = |column: &str| row.try_get::<_, jiff::Timestamp>(column).map(Timestamp::from);
        // A hash of another length is nobody's.
        let hash = |column: &str| row.try_get::<_, &[u8]>(column).map(|hash| hash.try_into().unwrap_or([0; 32]));
        Ok(Self {
            batch: row.try_get("batch")?,
            content_hash: hash("content_hash")?,
            accepted_hash: hash("accepted_hash")?,
            priority: row.try_get("priority")?,
            received: count("received")?,
            accepted: count("accepted")?,
            rejected: count("rejected")?,
            committed: count("committed")?,
            duplicates: count("duplicates")?,
            quarantined: count("quarantined")?,
            attempts: count("attempts")?,
            accepted_at: moment("accepted_at")?,
            committed_at: moment("committed_at")?,
        })
    }

    /// Returns the row that a claimed batch has with these counts; when it commits is filled in later.
    pub(super) fn of(claimed: &ClaimedBatch, counts: Counts) -> Self {
        let head = &claimed.head;
        Self {
            batch: head.batch,
            content_hash: head.content_hash,
            accepted_hash: head.accepted_hash(),
            priority: i16::from(head.priority.get()),
            received: head.received,
            accepted: head.accepted,
            rejected: head.received.saturating_sub(head.accepted),
            committed: counts.committed,
            duplicates: head.accepted.saturating_sub(counts.committed + counts.quarantined),
            quarantined: counts.quarantined,
            attempts: claimed.attempt,
            accepted_at: head.accepted_at,
            committed_at: head.accepted_at,
        }
    }

    /// Sets what became of the events.
    pub(super) fn set_counts(&mut self, counts: Counts) {
        self.committed = counts.committed;
        self.quarantined = counts.quarantined;
        self.duplicates = self.accepted.saturating_sub(counts.committed + counts.quarantined);
    }

    /// Returns what became of the events.
    pub(super) fn counts(&self) -> Counts {
        Counts { committed: self.committed, quarantined: self.quarantined }
    }

    /// Returns the batch's final status.
    pub(super) fn known(&self, key: &BatchKey) -> KnownBatch {
        let all_quarantined = self.accepted > 0 && self.quarantined == self.accepted;
        KnownBatch {
            content_hash: self.content_hash,
            report: StatusReport {
                batch_id: key.batch_id.clone(),
                status: if all_quarantined { BatchStatus::Failed } else { BatchStatus::Completed },
                priority: u8::try_from(self.priority).ok().and_then(|p| Priority::try_from(p).ok()).unwrap_or_default(),
                received: self.received,
                accepted: self.accepted,
                rejected: self.rejected,
                committed: self.committed,
                duplicates: self.duplicates,
                quarantined: self.quarantined,
                attempts: self.attempts,
                accepted_at: self.accepted_at.to_string(),
                completed_at: Some(self.committed_at.to_string()),
                last_error: None,
            },
        }
    }
}

/// What the INSERT told.
#[derive(Clone, Debug, Default)]
pub(super) struct Inserted {
    /// Ids of the batches whose row it inserted.
    pub batches: Vec<Uuid>,
    /// When the transaction began, by PostgreSQL's clock.
    pub committed_at: Option<Timestamp>,
    /// The session's process, once it is known.
    pub pid: Option<i32>,
}

/// Inserts the rows of batches that have none; the rows stand in the order of the batches.
pub(super) async fn insert(
    client: &ClientWrapper,
    batches: &[ClaimedBatch],
    rows: &[LedgerRow],
    instance: &str,
) -> Result<Inserted, tokio_postgres::Error> {
    // One order for all lanes, or two that share ids lock each other out.
    let mut order: Vec<usize> = (0..batches.len()).collect();
    order.sort_by_key(|&place| (&batches[place].head.key, place));
    let rows: Vec<_> = order.iter().map(|&place| &rows[place]).collect();
    let heads: Vec<&BatchHead> = order.iter().map(|&place| &batches[place].head).collect();
    let moments = |pick: fn(&BatchHead) -> Timestamp| heads.iter().map(|head| pick(head).to_jiff()).collect::<Vec<_>>();
    let numbers = |pick: fn(&LedgerRow) -> u32| rows.iter().map(|row| pick(row) as i32).collect::<Vec<_>>();
    let callers: Vec<_> = heads.iter().map(|head| head.key.caller.as_str()).collect();
    let batch_ids: Vec<_> = heads.iter().map(|head| head.key.batch_id.as_str()).collect();
    let ids: Vec<_> = rows.iter().map(|row| row.batch).collect();
    let content: Vec<_> = rows.iter().map(|row| row.content_hash.as_slice()).collect();
    let accepted: Vec<_> = rows.iter().map(|row| row.accepted_hash.as_slice()).collect();
    let priorities: Vec<_> = rows.iter().map(|row| row.priority).collect();
    let sql = "INSERT INTO batches (caller, batch_id, batch, content_hash, accepted_hash, priority, received, accepted,
                                    rejected, committed, duplicates, quarantined, attempts, first_timestamp,
                                    last_timestamp, accepted_at, instance)
               SELECT *, $17 FROM unnest($1::text[], $2::text[], $3::uuid[], $4::bytea[], $5::bytea[], $6::int2[],
                                         $7::int4[], $8::int4[], $9::int4[], $10::int4[], $11::int4[], $12::int4[],
                                         $13::int4[], $14::timestamptz[], $15::timestamptz[], $16::timestamptz[])
               ON CONFLICT (caller, batch_id) DO NOTHING RETURNING batch, committed_at, pg_backend_pid()";
    let statement = client.prepare_cached(sql).await?;
    let returned = client
        .query(
            &statement,
            &[
                &callers,
                &batch_ids,
                &ids,
                &content,
                &accepted,
                &priorities,
                &numbers(|row| row.received),
                &numbers(|row| row.accepted),
                &numbers(|row| row.rejected),
                &numbers(|row| row.committed),
                &numbers(|row| row.duplicates),
                &numbers(|row| row.quarantined),
                &numbers(|row| row.attempts),
                &moments(|head| head.first_timestamp),
                &moments(|head| head.last_timestamp),
                &moments(|head| head.accepted_at),
                &instance,
            ],
        )
        .await?;
    let mut inserted = Inserted::default();
    for row in &returned {
        inserted.batches.push(row.try_get(0)?);
        inserted.committed_at = Some(row.try_get::<_, jiff::Timestamp>(1)?.into());
        inserted.pid = Some(row.try_get(2)?);
    }
    Ok(inserted)
}

/// Reads the rows of batches, by whose they are and what they are called.
pub(super) async fn read<'a>(
    client: &ClientWrapper,
    keys: &[&'a BatchKey],
) -> Result<HashMap<&'a BatchKey, LedgerRow>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT k.place, {COLUMNS} FROM batches b
         JOIN unnest($1::text[], $2::text[]) WITH ORDINALITY k(caller, batch_id, place) USING (caller, batch_id)"
    );
    let callers: Vec<_> = keys.iter().map(|key| key.caller.as_str()).collect();
    let batch_ids: Vec<_> = keys.iter().map(|key| key.batch_id.as_str()).collect();
    let statement = client.prepare_cached(&sql).await?;
    let mut rows = HashMap::new();
    for row in client.query(&statement, &[&callers, &batch_ids]).await? {
        let place = usize::try_from(row.try_get::<_, i64>(0)? - 1).unwrap_or(0);
        rows.insert(keys[place], LedgerRow::read(&row)?);
    }
    Ok(rows)
}

/// Sets the counts of rows that this transaction inserted.
pub(super) async fn set_counts(
    client: &ClientWrapper,
    changed: &[(&ClaimedBatch, Counts)],
) -> Result<(), tokio_postgres::Error> {
    let sql = "UPDATE batches b SET committed = v.committed, quarantined = v.quarantined,
                                    duplicates = b.accepted - v.committed - v.quarantined
               FROM unnest($1::text[], $2::text[], $3::int4[], $4::int4[]) v(caller, batch_id, committed, quarantined)
               WHERE b.caller = v.caller AND b.batch_id = v.batch_id";
    let callers: Vec<_> = changed.iter().map(|(batch, _)| batch.head.key.caller.as_str()).collect();
    let batch_ids: Vec<_> = changed.iter().map(|(batch, _)| batch.head.key.batch_id.as_str()).collect();
    let committed: Vec<_> = changed.iter().map(|(_, counts)| counts.committed as i32).collect();
    let quarantined: Vec<_> = changed.iter().map(|(_, counts)| counts.quarantined as i32).collect();
    client.execute(sql, &[&callers, &batch_ids, &committed, &quarantined]).await?;
    Ok(())
}

/// Adds events that this copy of a batch accepted and the ledger's did not. Returns the row as it is then; none when it
/// went meanwhile.
pub(super) async fn raise(
    client: &ClientWrapper,
    head: &BatchHead,
    added: Counts,
) -> Result<Option<LedgerRow>, tokio_postgres::Error> {
    let sql = format!(
        "UPDATE batches SET accepted = accepted + $3 + $4, rejected = rejected - $3 - $4, committed = committed + $3,
                            quarantined = quarantined + $4, first_timestamp = least(first_timestamp, $5),
                            last_timestamp = greatest(last_timestamp, $6)
         WHERE caller = $1 AND batch_id = $2 RETURNING {COLUMNS}"
    );
    let (committed, quarantined) = (added.committed as i32, added.quarantined as i32);
    let (first, last) = (head.first_timestamp.to_jiff(), head.last_timestamp.to_jiff());
    let key = &head.key;
    let row = client.query_opt(&sql, &[&key.caller, &key.batch_id, &committed, &quarantined, &first, &last]).await?;
    row.as_ref().map(LedgerRow::read).transpose()
}

/// Whoever asks for a status does not wait longer for the ledger.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the ledger what became of a batch.
///
/// # Errors
/// [`db::Error`] when it can't be asked, or does not answer within two seconds.
pub async fn find_in_ledger(database: &Database, key: &BatchKey) -> Result<Option<KnownBatch>, db::Error> {
    let look_up = async {
        let connection = database.side().await?;
        let rows = read(&connection, &[key]).await?;
        connection.release();
        Ok(rows.get(key).map(|row| row.known(key)))
    };
    let answer = tokio::time::timeout(LOOK_UP_TIMEOUT, look_up).await;
    answer.unwrap_or(Err(db::Error::Deadline))
}
