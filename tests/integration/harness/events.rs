//! Events and batches to send.

use jiff::{Timestamp, Unit};
use serde_json::{Value, json};
use uuid::Uuid;

/// Returns the moment of now as an event bears it.
pub fn now() -> String {
    Timestamp::now().round(Unit::Microsecond).unwrap().to_string()
}

/// Returns an id that no other event or batch has.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", Uuid::now_v7())
}

/// Returns a good event of now.
pub fn event() -> Value {
    event_at(&now())
}

/// Returns a good event of that moment.
pub fn event_at(timestamp: &str) -> Value {
    json!({
        "event_id": unique("evt"),
        "service_name": "checkout",
        "event_type": "order.paid",
        "payload": {"amount": 12.5, "items": [1, 2, {"sku": "ä"}], "ok": true},
        "timestamp": timestamp,
    })
}

/// Returns that many good events of now.
pub fn events(count: usize) -> Vec<Value> {
    (0..count).map(|_| event()).collect()
}

/// Returns that many good events of that moment.
pub fn events_at(timestamp: &str, count: usize) -> Vec<Value> {
    (0..count).map(|_| event_at(timestamp)).collect()
}

/// Returns a good event with one field replaced.
pub fn event_with(field: &str, value: Value) -> Value {
    let mut event = event();
    event[field] = value;
    event
}

/// Returns a good event that lacks one field.
pub fn event_without(field: &str) -> Value {
    let mut event = event();
    event.as_object_mut().unwrap().remove(field);
    event
}

/// Returns the envelope of a JSON batch.
pub fn batch(events: &[Value]) -> Value {
    json!({ "events": events })
}

/// Returns the envelope of a JSON batch with an id.
pub fn batch_as(batch_id: &str, events: &[Value]) -> Value {
    json!({ "batch_id": batch_id, "events": events })
}

/// Returns the envelope of a JSON batch with a priority.
pub fn batch_of_priority(priority: u8, events: &[Value]) -> Value {
    json!({ "priority": priority, "events": events })
}

/// Returns the events as NDJSON.
pub fn ndjson(events: &[Value]) -> Vec<u8> {
    events.iter().map(|event| format!("{event}\n")).collect::<String>().into_bytes()
}

/// Returns the id of an event, or of a batch in a receipt.
pub fn id(value: &Value) -> String {
    let id = value.get("event_id").or_else(|| value.get("batch_id"));
    id.and_then(Value::as_str).unwrap_or_else(|| panic!("no id in {value}")).to_owned()
}
