//! Keeps refused events aside, in the transaction of their neighbors.

use deadpool_postgres::ClientWrapper;
use uuid::Uuid;

use super::sqlstate::QuarantineReason;
use crate::{
    batch::BatchHead,
    row::{EventColumns, Row},
};

/// An event that goes to quarantine.
#[derive(Clone, Debug)]
pub(super) struct Refused<'a> {
    /// Its batch's place in the flush.
    pub batch: usize,
    /// Its number in the batch.
    pub number: u32,
    /// The event.
    pub row: Row<'a>,
    /// Why.
    pub reason: QuarantineReason,
    /// More about why: SQLSTATE and names of the database's objects, nothing of the event.
    pub detail: String,
}

/// Events of one statement: a batch that is quarantined whole must not need its size in memory three times over.
const EVENTS_PER_STATEMENT: usize = 500;

/// Writes refused events, each with the head of its batch and the id that the ledger knows the batch by. One that is
/// there already stays as it is.
pub(super) async fn insert(
    client: &ClientWrapper,
    refused: &[(&BatchHead, Uuid, Refused<'_>)],
) -> Result<(), tokio_postgres::Error> {
    let sql = "INSERT INTO quarantine (caller, batch_id, batch, index, service_name, event_id, reason, detail, event)
               SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::int4[], $5::text[], $6::text[], $7::text[],
                                    $8::text[], $9::bytea[])
               ON CONFLICT (batch, index) DO NOTHING";
    let statement = client.prepare_cached(sql).await?;
    for part in refused.chunks(EVENTS_PER_STATEMENT) {
        let column = |pick: fn(&(&BatchHead, Uuid, Refused<'_>)) -> String| part.iter().map(pick).collect::<Vec<_>>();
        let callers = column(|(head, ..)| head.key.caller.clone());
        let batch_ids = column(|(head, ..)| head.key.batch_id.clone());
        let batches: Vec<_> = part.iter().map(|(_, batch, _)| *batch).collect();
        let indexes: Vec<_> = part.iter().map(|(head, _, event)| head.index_of_row(event.number) as i32).collect();
        let services = column(|(.., event)| storable(event.row.service_name()));
        let event_ids = column(|(.., event)| storable(event.row.event_id()));
        let reasons = column(|(.., event)| event.reason.as_str().to_owned());
        let details = column(|(.., event)| event.detail.clone());
        let events: Vec<_> = part.iter().map(|(.., event)| as_json(&event.row.columns())).collect();
        client
            .execute(
                &statement,
                &[&callers, &batch_ids, &batches, &indexes, &services, &event_ids, &reasons, &details, &events],
            )
            .await?;
    }
    Ok(())
}

/// What PostgreSQL refused the event for must not keep it out of quarantine as well.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Returns the event as JSON. Payload and metadata stand there byte for byte; the timestamp always, so that the event
/// keeps its key when it is sent in again.
fn as_json(event: &EventColumns<'_>) -> Vec<u8> {
    let mut json = Vec::with_capacity(event.payload.len() + event.metadata.map_or(0, str::len) + 256);
    let timestamp = event.timestamp.to_string();
    let texts = [
        ("{\"event_id\":", Some(event.event_id)),
        (",\"service_name\":", Some(event.service_name)),
        (",\"event_type\":", Some(event.event_type)),
        (",\"timestamp\":", Some(timestamp.as_str())),
        (",\"user_id\":", event.user_id),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            json.extend_from_slice(name.as_bytes());
            serde_json::to_writer(&mut json, text).expect("text is written to memory");
        }
    }
    for (name, value) in [(",\"payload\":", Some(event.payload)), (",\"metadata\":", event.metadata)] {
        if let Some(value) = value {
            json.extend_from_slice(name.as_bytes());
            json.extend_from_slice(value.as_bytes());
        }
    }
    json.push(b'}');
    json
}

/// Returns how many events of a batch are in quarantine, by reason.
pub(super) async fn count_by_reason(
    client: &ClientWrapper,
    batch: Uuid,
) -> Result<Vec<(QuarantineReason, u32)>, tokio_postgres::Error> {
    let sql = "SELECT reason, count(*) FROM quarantine WHERE batch = $1 GROUP BY reason";
    let mut counts = Vec::new();
    for row in client.query(sql, &[&batch]).await? {
        let count = u32::try_from(row.try_get::<_, i64>(1)?).unwrap_or(u32::MAX);
        counts.extend(QuarantineReason::parse(row.try_get(0)?).map(|reason| (reason, count)));
    }
    Ok(counts)
}

/// Returns the indexes of a batch's events that are in quarantine.
pub(super) async fn indexes(client: &ClientWrapper, batch: Uuid) -> Result<Vec<i32>, tokio_postgres::Error> {
    let rows = client.query("SELECT index FROM quarantine WHERE batch = $1", &[&batch]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn payload_and_metadata_are_kept_byte_for_byte() {
        let event = EventColumns {
            timestamp: Timestamp::from_micros(1_500_000),
            event_id: "e\"1",
            service_name: "shop",
            event_type: "order\n",
            user_id: Some("u"),
            payload: r#"{ "a" : 1e3, "a":1.0 }"#,
            metadata: Some(r#"{"b":"\u00e4"}"#),
        };
        let json = String::from_utf8(as_json(&event)).unwrap();
        assert_eq!(
            json,
            r#"{"event_id":"e\"1","service_name":"shop","event_type":"order\n","timestamp":"1970-01-01T00:00:01.5Z","user_id":"u","payload":{ "a" : 1e3, "a":1.0 },"metadata":{"b":"\u00e4"}}"#
        );
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    }
}
