//! What the door takes and refuses, told through [`parse`] alone.

mod any_input;
mod cloudevents;
mod codes;
mod envelope;
mod head;
mod ndjson;

use super::*;
use crate::{
    event::RejectReason,
    row::{self, EventColumns, RowOrigin},
};

/// 2024-05-05T12:00:00.000007Z: the moment of now.
const NOW: Timestamp = Timestamp::from_micros(1_714_910_400_000_007);
const BATCH_EVENTS: u32 = 100;

/// What is given besides a body.
struct Given {
    format: Format,
    batch_ids: Vec<String>,
    priority: Option<u8>,
    atomic: bool,
    window: Window,
}

impl Given {
    fn parse(&self, body: impl AsRef<[u8]>) -> Result<Parsed, Refusal> {
        parse(&Request {
            format: self.format,
            body: body.as_ref(),
            caller: "shop",
            batch_ids: &self.batch_ids,
            priority: self.priority.map(|number| number.try_into().unwrap()),
            atomic: self.atomic,
            accepted_at: NOW,
            traceparent: Some("00-trace".to_owned()),
            window: &self.window,
            max_events: BATCH_EVENTS,
        })
    }
}

fn given(format: Format) -> Given {
    Given {
        format,
        batch_ids: Vec::new(),
        priority: None,
        atomic: false,
        window: Window {
            oldest: moment("2010-01-01T00:00:00Z"),
            newest: moment("2030-01-01T00:00:00Z"),
            pruned_before: None,
            remade: Vec::new(),
        },
    }
}

fn moment(text: &str) -> Timestamp {
    text.parse::<jiff::Timestamp>().unwrap().into()
}

/// A good event whose id is `id`, under the names that `format` has.
fn event(format: Format, id: &str) -> String {
    let [event_id, service_name, event_type, payload, timestamp, _] = names(format);
    let version = if format == Format::CloudEvents { r#""specversion":"1.0","# } else { "" };
    format!(
        r#"{{{version}"{event_id}":"{id}","{service_name}":"s","{event_type}":"t","{payload}":{{"a":1}},"{timestamp}":"2024-05-05T00:00:00Z"}}"#
    )
}

/// What `format` calls the fields, in the order of an event of JSON; and where its events stand.
fn names(format: Format) -> [&'static str; 6] {
    match format {
        Format::Json => ["event_id", "service_name", "event_type", "payload", "timestamp", "/events"],
        Format::Ndjson => ["event_id", "service_name", "event_type", "payload", "timestamp", ""],
        Format::CloudEvents => ["id", "source", "type", "data", "time", ""],
    }
}

/// A body of these events.
fn body(format: Format, events: &[&str]) -> String {
    match format {
        Format::Json => format!(r#"{{"events":[{}]}}"#, events.join(",")),
        Format::Ndjson => events.join("\n"),
        Format::CloudEvents => format!("[{}]", events.join(",")),
    }
}

/// The columns of the batch's rows.
fn columns(parsed: &Parsed) -> Vec<EventColumns<'_>> {
    row::rows(&parsed.batch.rows).map(row::Row::columns).collect()
}

/// The only column set of a batch of one event.
fn only_row(parsed: &Parsed) -> EventColumns<'_> {
    let columns = columns(parsed);
    assert_eq!((columns.len(), &parsed.errors), (1, &Vec::new()));
    columns[0]
}

/// Code and pointer of each error.
fn told(errors: &[EventError]) -> Vec<(RejectReason, &str)> {
    errors.iter().map(|error| (error.code, error.pointer.as_str())).collect()
}

/// Asserts that each row says what the head says of its batch.
fn assert_rows_match_head(parsed: &Parsed) {
    let head = &parsed.batch.head;
    let origin = RowOrigin { received_at: head.accepted_at, batch: head.batch, priority: head.priority.get() };
    let mut expected = Vec::new();
    for columns in columns(parsed) {
        row::encode_row(&mut expected, &origin, &columns);
    }
    assert_eq!(parsed.batch.rows, expected);
}
