//! Reads what leaves there are, and whether they are sound.

use tokio_postgres::{GenericClient, Row};

use crate::{
    db,
    time::{Month, Timestamp},
};

/// What `partition_state` holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Months before this one were pruned.
    pub pruned_before: Option<Month>,
    /// When `partitions maintain` last did all it had to.
    pub maintained_at: Option<Timestamp>,
}

/// Reads `partition_state`.
///
/// # Errors
/// It can't be read.
pub async fn state(client: &impl GenericClient) -> Result<State, db::Error> {
    let sql = "SELECT to_char(pruned_before, 'YYYY-MM'), maintained_at FROM partition_state";
    let Some(row) = client.query_opt(sql, &[]).await? else {
        return Ok(State::default());
    };
    let maintained_at: Option<jiff::Timestamp> = row.try_get(1)?;
    Ok(State {
        pruned_before: row.try_get::<_, Option<&str>>(0)?.and_then(|text| text.parse().ok()),
        maintained_at: maintained_at.map(Timestamp::from),
    })
}

/// A table below `events`, or one that was taken off it to be dropped.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Leaf {
    /// The table's name.
    pub name: String,
    /// The month that it holds, where the name says one.
    #[serde(serialize_with = "as_text")]
    pub month: Option<Month>,
    /// Its bounds as PostgreSQL writes them; none when it is not attached.
    pub bounds: Option<String>,
    /// How it hangs on `events`.
    pub state: LeafState,
    /// Rows, as PostgreSQL estimates; none before it first looked.
    pub rows_estimate: Option<u64>,
    /// Bytes of the table and its indexes, as PostgreSQL last counted them.
    pub bytes: u64,
}

/// How a table hangs on `events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeafState {
    /// Attached, with the unique index.
    Attached,
    /// Attached, but somebody is taking it off, or its unique index is not there or not valid.
    Unsound,
    /// It bears a leaf's name and is not attached.
    Detached,
    /// It was pruned and waits to be dropped.
    Pruned,
}

impl LeafState {
    /// Returns the text that people see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Unsound => "unsound",
            Self::Detached => "detached",
            Self::Pruned => "pruned",
        }
    }
}

fn as_text<S: serde::Serializer>(month: &Option<Month>, serializer: S) -> Result<S::Ok, S::Error> {
    match month {
        Some(month) => serializer.collect_str(month),
        None => serializer.serialize_none(),
    }
}

/// True where the index `x`, on the table whose oid is `c.oid`, is valid and part of the parent's key.
const HAS_KEY: &str = "
    EXISTS (SELECT FROM pg_index x
            JOIN pg_inherits xi ON xi.inhrelid = x.indexrelid
            JOIN pg_index px ON px.indexrelid = xi.inhparent
            WHERE x.indrelid = c.oid AND x.indisunique AND x.indisvalid
              AND px.indrelid = to_regclass('events') AND px.indisunique AND px.indpred IS NULL AND px.indexprs IS NULL
              AND (SELECT array_agg(a.attname::text ORDER BY k.place)
                   FROM unnest(px.indkey) WITH ORDINALITY k(number, place)
                   JOIN pg_attribute a ON a.attrelid = px.indrelid AND a.attnum = k.number)
                  = ARRAY['timestamp', 'event_id', 'service_name'])";

/// Returns the query that tells which of the leaves named in `$1` are not sound.
///
/// Sound is a plain table that is attached to `events`, is not being taken off, and has the unique index that belongs to
/// the parent's. Run it when the leaves are locked, by COPY or LOCK; before that it proves nothing.
pub fn unsound_query() -> String {
    format!(
        "SELECT m.name FROM unnest($1::text[]) AS m(name)
         WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
                           WHERE c.oid = to_regclass(m.name) AND c.relkind = 'r'
                             AND i.inhparent = to_regclass('events') AND NOT i.inhdetachpending AND {HAS_KEY})"
    )
}

/// Returns the attached leaves, and those that were or look as if they should be, by name.
///
/// Asks the catalog alone: a leaf that somebody has locked must not stop those who look after the others.
///
/// # Errors
/// The catalog can't be read.
pub async fn leaves(client: &impl GenericClient) -> Result<Vec<Leaf>, db::Error> {
    let sql = format!(
        "SELECT c.relname::text, pg_get_expr(c.relpartbound, 0), i.inhparent IS NOT NULL,
                c.relkind = 'r' AND coalesce(NOT i.inhdetachpending, false) AND {HAS_KEY},
                c.reltuples::float8,
                (SELECT sum(t.relpages::int8) FROM pg_class t
                 WHERE t.oid IN (c.oid, c.reltoastrelid)
                    OR t.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN (c.oid, c.reltoastrelid)))::int8
                * current_setting('block_size')::int8
         FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = to_regclass('events')
         WHERE i.inhparent IS NOT NULL
            OR (c.relkind IN ('r', 'p') AND c.relname ~ '^events_[0-9]{{4,}}_[0-9]{{2}}(_pruned)?$'
                AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('events')))
         ORDER BY c.relname"
    );
    let rows = client.query(&sql, &[]).await?;
    rows.iter().map(leaf).collect()
}

fn leaf(row: &Row) -> Result<Leaf, db::Error> {
    let name: String = row.try_get(0)?;
    let state = match (row.try_get(2)?, row.try_get(3)?) {
        (true, true) => LeafState::Attached,
        (true, false) => LeafState::Unsound,
        (false, _) if name.ends_with(PRUNED_SUFFIX) => LeafState::Pruned,
        (false, _) => LeafState::Detached,
    };
    let rows: f64 = row.try_get(4)?;
    let bytes: Option<i64> = row.try_get(5)?;
    Ok(Leaf {
        month: month_of(&name),
        name,
        bounds: row.try_get(1)?,
        state,
        rows_estimate: (rows >= 0.0).then_some(rows as u64),
        bytes: bytes.unwrap_or(0).unsigned_abs(),
    })
}

/// What the name of a leaf ends in between its detachment and its end.
pub const PRUNED_SUFFIX: &str = "_pruned";

fn month_of(name: &str) -> Option<Month> {
    let name = name.strip_suffix(PRUNED_SUFFIX).unwrap_or(name);
    name.strip_prefix("events_")?.replace('_', "-").parse().ok()
}

/// Returns the months that have an attached leaf, ascending.
pub fn months(leaves: &[Leaf]) -> Vec<Month> {
    let attached = leaves.iter().filter(|leaf| matches!(leaf.state, LeafState::Attached | LeafState::Unsound));
    let mut months: Vec<_> = attached.filter_map(|leaf| leaf.month).collect();
    months.sort_unstable();
    months
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_leaf_tells_its_month() {
        let month: Month = "2024-02".parse().unwrap();
        assert_eq!(month_of(&month.leaf()), Some(month));
        assert_eq!(month_of("events_2024_02_pruned"), Some(month));
        for other in ["events", "events_2024", "events_2024_13", "events_key", "orders_2024_02"] {
            assert_eq!(month_of(other), None, "{other}");
        }
    }
}
