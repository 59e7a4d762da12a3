//! Looks whether the tables and this role's rights are such that flushes can work, and says what to do when not.

use super::{Database, Error};

/// Whether flushes can work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// Tables, columns, key and rights are there. What is missing for comfort is told in `advice`.
    Usable {
        /// What a person should do, although flushes work.
        advice: Option<String>,
    },
    /// They are not.
    Unusable {
        /// What a person must do.
        advice: String,
    },
}

/// The tables with the columns that this release reads or writes, and the rights on them.
const TABLES: &[(&str, &str, &[&str])] = &[
    (
        "events",
        "event_id:text service_name:text event_type:text user_id:text timestamp:timestamptz received_at:timestamptz \
         batch:uuid priority:int2 payload:jsonb metadata:jsonb",
        &["INSERT", "SELECT"],
    ),
    (
        "batches",
        "caller:text batch_id:text batch:uuid content_hash:bytea accepted_hash:bytea priority:int2 received:int4 \
         accepted:int4 rejected:int4 committed:int4 duplicates:int4 quarantined:int4 attempts:int4 \
         first_timestamp:timestamptz last_timestamp:timestamptz accepted_at:timestamptz committed_at:timestamptz \
         instance:text",
        &["INSERT", "SELECT", "UPDATE"],
    ),
    (
        "quarantine",
        "caller:text batch_id:text batch:uuid index:int4 service_name:text event_id:text reason:text detail:text \
         event:bytea replayed_at:timestamptz",
        &["INSERT", "SELECT"],
    ),
    ("partition_state", "pruned_before:date maintained_at:timestamptz", &["SELECT"]),
];

/// Each column that is missing or of another type, with its table.
const WRONG_COLUMNS: &str = "
    SELECT w.tab FROM unnest($1::text[], $2::text[], $3::text[]) AS w(tab, col, typ)
    WHERE NOT EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                      WHERE a.attrelid = to_regclass(w.tab) AND a.attname = w.col AND t.typname = w.typ
                        AND a.attnum > 0 AND NOT a.attisdropped)";

const MISSING_RIGHTS: &str = "
    SELECT lower(w.priv) || ' on ' || w.tab FROM unnest($1::text[], $2::text[]) AS w(tab, priv)
    WHERE NOT has_table_privilege(to_regclass(w.tab), w.priv)";

const FACTS: &str = "
    SELECT current_user::text, current_setting('server_encoding'),
           EXISTS (SELECT FROM pg_index x WHERE x.indrelid = to_regclass('events') AND x.indisunique AND x.indisvalid
                   AND x.indpred IS NULL AND x.indexprs IS NULL
                   AND (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(x.indkey) WITH ORDINALITY k(number, place)
                        JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number)
                       = ARRAY['timestamp', 'event_id', 'service_name']),
           (SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = to_regclass('events')),
           coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)
               AND (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = to_regclass('events')),
           (SELECT max(i.inhrelid::regclass::text) FROM pg_inherits i WHERE i.inhparent = to_regclass('events')
                AND NOT has_table_privilege(i.inhrelid, 'INSERT'))";

/// Looks at tables, columns, key and rights.
///
/// # Errors
/// [`Error`] when PostgreSQL can't be asked.
pub async fn check_schema(database: &Database) -> Result<SchemaState, Error> {
    let connection = database.side().await?;
    let (mut tables, mut columns, mut types) = (Vec::new(), Vec::new(), Vec::new());
    let (mut owners, mut rights) = (Vec::new(), Vec::new());
    for (table, wanted, privileges) in TABLES {
        for (column, kind) in wanted.split(' ').filter_map(|pair| pair.split_once(':')) {
            tables.push(*table);
            columns.push(column);
            types.push(kind);
        }
        for privilege in *privileges {
            owners.push(*table);
            rights.push(*privilege);
        }
    }
    let unusable = |advice: String| Ok(SchemaState::Unusable { advice });
    let wrong = connection.query(WRONG_COLUMNS, &[&tables, &columns, &types]).await?;
    if let Some(row) = wrong.first() {
        let table: &str = row.get(0);
        return unusable(format!("table {table} is not as this release needs it: run forebay migrate"));
    }
    let facts = connection.query_one(FACTS, &[]).await?;
    let (role, encoding): (String, String) = (facts.get(0), facts.get(1));
    let missing = connection.query(MISSING_RIGHTS, &[&owners, &rights]).await?;
    connection.release();
    if let Some(row) = missing.first() {
        return unusable(format!("grant {} to {role}", row.get::<_, &str>(0)));
    }
    if encoding != "UTF8" {
        return unusable(format!("the database's encoding is {encoding}: use one with encoding UTF8"));
    }
    if facts.get::<_, Option<bool>>(3) != Some(true) || !facts.get::<_, bool>(2) {
        let key = "it must be partitioned by \"timestamp\" and unique by (\"timestamp\", event_id, service_name)";
        return unusable(format!("table events is not forebay's: {key}; run forebay migrate on an empty schema"));
    }
    if let Some(leaf) = facts.get::<_, Option<String>>(5) {
        return unusable(format!("grant insert, select on {leaf} to {role}"));
    }
    let may_make_leaves = facts.get::<_, Option<bool>>(4) == Some(true);
    let advice = (!may_make_leaves).then(|| {
        format!(
            "{role} can't make leaves: let the owner of events run forebay partitions maintain, or grant it that role"
        )
    });
    Ok(SchemaState::Usable { advice })
}
