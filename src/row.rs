//! One event as a row of PostgreSQL's binary COPY: codec version 1 of the journal.
//!
//! A row is encoded once, at the door, and its bytes are what COPY sends. The fixed-width columns stand first, so that
//! sorting and grouping read them at known offsets. The column list belongs to the codec version: a later release that
//! changes it adds a version and still lands what this one wrote.
//!
//! Format: <https://www.postgresql.org/docs/18/sql-copy.html#SQL-COPY-BINARY-FORMAT>

use uuid::Uuid;

use crate::time::Timestamp;

/// Columns of the row in their order, for `COPY leaf (…) FROM STDIN BINARY`.
pub const COLUMNS: &str = "\"timestamp\", received_at, batch, priority, event_id, service_name, event_type, user_id, \
                           payload, metadata";

/// What binary COPY sends before the first row: signature, flags, length of the header's extension.
pub const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What binary COPY sends after the last row.
pub const COPY_TRAILER: &[u8] = &[0xff, 0xff];

const COLUMN_COUNT: i16 = 10;
/// The one version of the binary form of `jsonb`; the text follows it.
const JSONB_VERSION: u8 = 1;
const TIMESTAMP_AT: usize = 2 + 4;
const RECEIVED_AT: usize = TIMESTAMP_AT + 8 + 4;
const BATCH_AT: usize = RECEIVED_AT + 8 + 4;
const PRIORITY_AT: usize = BATCH_AT + 16 + 4;
/// Where the length of the first text column stands.
const TEXTS_AT: usize = PRIORITY_AT + 2;

/// What a row says about the batch that it came with; the same for all rows of one batch.
#[derive(Clone, Copy, Debug)]
pub struct RowOrigin {
    /// When the batch was accepted.
    pub received_at: Timestamp,
    /// The batch's unique id in the ledger.
    pub batch: Uuid,
    /// The batch's priority, 0 to 10.
    pub priority: u8,
}

/// The columns of one event. `payload` and `metadata` are JSON text as it was sent.
#[derive(Clone, Copy, Debug)]
pub struct EventColumns<'a> {
    /// When the event happened.
    pub timestamp: Timestamp,
    /// The event's id, unique for its service and timestamp.
    pub event_id: &'a str,
    /// The service that sent it.
    pub service_name: &'a str,
    /// What kind of event it is.
    pub event_type: &'a str,
    /// Whom it concerns.
    pub user_id: Option<&'a str>,
    /// A JSON object.
    pub payload: &'a str,
    /// A JSON object.
    pub metadata: Option<&'a str>,
}

/// Appends one row to `buffer`.
pub fn encode_row(buffer: &mut Vec<u8>, origin: &RowOrigin, event: &EventColumns<'_>) {
    let mut fixed = [0; TEXTS_AT];
    fixed[..2].copy_from_slice(&COLUMN_COUNT.to_be_bytes());
    put_fixed(&mut fixed, TIMESTAMP_AT, &event.timestamp.to_postgres().to_be_bytes());
    put_fixed(&mut fixed, RECEIVED_AT, &origin.received_at.to_postgres().to_be_bytes());
    put_fixed(&mut fixed, BATCH_AT, origin.batch.as_bytes());
    put_fixed(&mut fixed, PRIORITY_AT, &i16::from(origin.priority).to_be_bytes());
    buffer.extend_from_slice(&fixed);
    for text in [event.event_id, event.service_name, event.event_type] {
        put_text(buffer, Some(text));
    }
    put_text(buffer, event.user_id);
    put_json(buffer, Some(event.payload));
    put_json(buffer, event.metadata);
}

fn put_fixed<const N: usize>(fixed: &mut [u8; TEXTS_AT], at: usize, value: &[u8; N]) {
    fixed[at - 4..at].copy_from_slice(&(N as i32).to_be_bytes());
    fixed[at..at + N].copy_from_slice(value);
}

fn put_text(buffer: &mut Vec<u8>, text: Option<&str>) {
    buffer.extend_from_slice(&text.map_or(-1, |text| text.len() as i32).to_be_bytes());
    buffer.extend_from_slice(text.unwrap_or_default().as_bytes());
}

fn put_json(buffer: &mut Vec<u8>, json: Option<&str>) {
    let Some(json) = json else {
        return put_text(buffer, None);
    };
    buffer.extend_from_slice(&(json.len() as i32 + 1).to_be_bytes());
    buffer.push(JSONB_VERSION);
    buffer.extend_from_slice(json.as_bytes());
}

/// One encoded row. Reading it copies nothing.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a>(&'a [u8]);

impl<'a> Row<'a> {
    /// Returns the bytes that COPY sends.
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Returns when the event happened.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_postgres(i64::from_be_bytes(fixed_at(self.0, TIMESTAMP_AT)))
    }

    /// Returns when its batch was accepted.
    pub fn received_at(self) -> Timestamp {
        Timestamp::from_postgres(i64::from_be_bytes(fixed_at(self.0, RECEIVED_AT)))
    }

    /// Returns the event's id.
    pub fn event_id(self) -> &'a str {
        self.texts().0
    }

    /// Returns the event's service.
    pub fn service_name(self) -> &'a str {
        self.texts().1
    }

    /// Returns `(event_id, service_name)`, which with the timestamp identify the event, in the order of the index.
    pub fn texts(self) -> (&'a str, &'a str) {
        let (event_id, at) = text_at(self.0, TEXTS_AT);
        let (service_name, _) = text_at(self.0, at);
        (event_id.unwrap_or_default(), service_name.unwrap_or_default())
    }

    /// Returns the bytes of `(event_id, service_name)`: as [`Row::texts`], for sorting, which needs no text.
    pub fn key_bytes(self) -> (&'a [u8], &'a [u8]) {
        let bytes_at = |at: usize| {
            let length = i32::from_be_bytes(fixed_at(self.0, at)).max(0) as usize;
            (&self.0[at + 4..at + 4 + length], at + 4 + length)
        };
        let (event_id, at) = bytes_at(TEXTS_AT);
        (event_id, bytes_at(at).0)
    }

    /// Returns all that the caller said of the event.
    pub fn columns(self) -> EventColumns<'a> {
        let (event_id, at) = text_at(self.0, TEXTS_AT);
        let (service_name, at) = text_at(self.0, at);
        let (event_type, at) = text_at(self.0, at);
        let (user_id, at) = text_at(self.0, at);
        let (payload, at) = text_at(self.0, at);
        let (metadata, _) = text_at(self.0, at);
        EventColumns {
            timestamp: self.timestamp(),
            event_id: event_id.unwrap_or_default(),
            service_name: service_name.unwrap_or_default(),
            event_type: event_type.unwrap_or_default(),
            user_id,
            // The version byte is ASCII, so the cut is at a character's edge.
            payload: payload.map_or("", |json| &json[1..]),
            metadata: metadata.map(|json| &json[1..]),
        }
    }
}

/// Replaces the timestamp of an encoded row.
pub fn set_timestamp(row: &mut [u8], timestamp: Timestamp) {
    row[TIMESTAMP_AT..TIMESTAMP_AT + 8].copy_from_slice(&timestamp.to_postgres().to_be_bytes());
}

/// Replaces the priority of all the rows that stand one after the other in `rows`.
pub fn set_priority(rows: &mut [u8], priority: u8) {
    let mut rest = rows;
    while let Some(length) = row_length(rest) {
        let (row, following) = rest.split_at_mut(length);
        row[PRIORITY_AT..PRIORITY_AT + 2].copy_from_slice(&i16::from(priority).to_be_bytes());
        rest = following;
    }
}

/// Replaces the batch of an encoded row.
pub fn set_batch(row: &mut [u8], batch: Uuid) {
    row[BATCH_AT..BATCH_AT + 16].copy_from_slice(batch.as_bytes());
}

/// Returns the rows that stand one after the other in `bytes`.
///
/// The bytes are ours: they were encoded by [`encode_row`] and their checksum was compared. What is not a whole row
/// ends the iteration.
pub fn rows(bytes: &[u8]) -> impl Iterator<Item = Row<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let row = &rest[..row_length(rest)?];
        rest = &rest[row.len()..];
        Some(Row(row))
    })
}

fn row_length(bytes: &[u8]) -> Option<usize> {
    let mut at = TEXTS_AT;
    for _ in 0..6 {
        let length = i32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
        at += 4 + usize::try_from(length).unwrap_or(0);
    }
    (at <= bytes.len()).then_some(at)
}

fn fixed_at<const N: usize>(row: &[u8], at: usize) -> [u8; N] {
    row[at..at + N].try_into().expect("the slice has the array's length")
}

/// Reads a text column; returns it and where the next one starts.
fn text_at(row: &[u8], at: usize) -> (Option<&str>, usize) {
    let length = i32::from_be_bytes(fixed_at(row, at));
    let Ok(length) = usize::try_from(length) else {
        return (None, at + 4);
    };
    let text = std::str::from_utf8(&row[at + 4..at + 4 + length]).expect("intake encodes only UTF-8");
    (Some(text), at + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_reads_back_as_it_was_encoded() {
        let origin = RowOrigin { received_at: Timestamp::from_micros(2), batch: Uuid::from_u128(7), priority: 9 };
        let mut buffer = Vec::new();
        for (user_id, metadata) in [(None, None), (Some("ü"), Some(r#"{"a":1}"#))] {
            let event = EventColumns {
                timestamp: Timestamp::from_micros(-1),
                event_id: "e",
                service_name: "s",
                event_type: "t",
                user_id,
                payload: "{}",
                metadata,
            };
            encode_row(&mut buffer, &origin, &event);
        }
        let read: Vec<_> = rows(&buffer).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].columns().metadata, None);
        let columns = read[1].columns();
        assert_eq!((columns.user_id, columns.payload, columns.metadata), (Some("ü"), "{}", Some(r#"{"a":1}"#)));
        assert_eq!((read[1].timestamp().as_micros(), read[1].received_at().as_micros()), (-1, 2));
        assert_eq!(read[1].texts(), ("e", "s"));
        assert_eq!(read[1].key_bytes(), (&b"e"[..], &b"s"[..]));
    }
}
