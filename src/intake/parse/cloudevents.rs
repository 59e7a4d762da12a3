//! `application/cloudevents-batch+json`: a list of CloudEvents 1.0.
//!
//! An attribute that is null counts as absent, as their JSON format has it.
//! Format: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>

use super::{
    Parsed, Refusal, Request, check_ids,
    collector::{Collector, Sent},
    event::{Fields, Names},
    keys::Keys,
    malformed,
    rejection::{Rejection, named, quoted},
    scan::{Kind, Malformed, Scanner, Value},
    utf8,
};
use crate::event::RejectReason;

const NAMES: Names =
    Names { event_id: "id", service_name: "source", event_type: "type", payload: "data", timestamp: "time" };

/// The keys that have a meaning here.
const KEYS: [&[u8]; 7] = [b"id", b"source", b"type", b"time", b"data", b"data_base64", b"specversion"];

/// Reads the body as a list of CloudEvents.
pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, Refusal> {
    let batch_id = check_ids(request.batch_ids)?.map(str::to_owned);
    let text = utf8(request.body)?;
    let refuse = |why| malformed(text, why);
    let mut collector = Collector::new(request, &NAMES, "");
    let mut scan = Scanner::new(text);
    if scan.peek() != Some(b'[') {
        let value = scan.value(0).map_err(refuse)?;
        scan.end().map_err(refuse)?;
        return Err(Refusal::InvalidBatch {
            detail: format!("the body is {}, not a list of CloudEvents", named(value.kind)),
            pointer: Some(String::new()),
            batch_id,
            content_hash: None,
            errors: Vec::new(),
        });
    }
    let (mut first, mut keys, mut metadata) = (true, Keys::default(), String::new());
    scan.enter();
    while scan.next_element(&mut first).map_err(refuse)? {
        collector.begin()?;
        collector.take(read(&mut scan, &mut keys, &mut metadata).map_err(refuse)?);
    }
    scan.end().map_err(refuse)?;
    collector.finish(Sent {
        batch_id,
        priority: request.priority.unwrap_or_default(),
        content_hash: *blake3::hash(request.body).as_bytes(),
    })
}

/// Reads one `CloudEvent`; what has no column of its own is gathered in `metadata` as an object.
fn read<'m, 'a: 'm>(
    scan: &mut Scanner<'a>,
    keys: &mut Keys<'a>,
    metadata: &'m mut String,
) -> Result<Fields<'m>, Malformed> {
    let mut fields: Fields<'a> = Fields::NONE;
    if scan.peek() != Some(b'{') {
        fields.flaw = Some(Rejection::no_object(&scan.value(0)?));
        return Ok(fields);
    }
    let (mut doubled, mut faulty) = (None, None);
    let (mut specversion, mut data_base64) = (Value::ABSENT, Value::ABSENT);
    scan.enter();
    keys.clear();
    metadata.clear();
    let mut first = true;
    while let Some(key) = scan.next_member(&mut first)? {
        let key_fault = scan.take_fault();
        let matters = KEYS.contains(&&*key);
        if !keys.add(key.clone(), matters) {
            doubled.get_or_insert_with(|| Rejection::doubled(&key));
        }
        if *key == *b"data" {
            fields.read_payload(scan)?;
            continue;
        }
        let value = scan.value(1)?;
        if value.kind == Kind::Null {
            continue;
        }
        match &*key {
            b"id" => fields.event_id = value,
            b"source" => fields.service_name = value,
            b"type" => fields.event_type = value,
            b"time" => fields.timestamp = value,
            b"data_base64" => data_base64 = value,
            _ => {
                if *key == *b"specversion" {
                    specversion = value;
                }
                if let Some(fault) = key_fault.or(value.fault) {
                    faulty.get_or_insert_with(|| Rejection::faulty(&key, fault));
                }
                metadata.push(if metadata.is_empty() { '{' } else { ',' });
                metadata.push_str(scan.member());
            }
        }
    }
    metadata.push('}');
    fields.flaw = doubled.or_else(|| unsupported(&specversion, &data_base64)).or(faulty);
    let mut fields: Fields<'m> = fields;
    fields.metadata = Value { kind: Kind::Object, raw: metadata, fault: None };
    Ok(fields)
}

fn unsupported(specversion: &Value<'_>, data_base64: &Value<'_>) -> Option<Rejection> {
    let mut scratch = Vec::new();
    let (code, name, says) = match specversion.text(&mut scratch) {
        Some("1.0") if data_base64.kind == Kind::Absent => return None,
        Some("1.0") => {
            (RejectReason::UnsupportedEvent, "data_base64", "is not supported: data must be an object".to_owned())
        }
        Some(other) => (
            RejectReason::UnsupportedEvent,
            "specversion",
            format!("is {}, and only \"1.0\" is supported", quoted(other)),
        ),
        None if specversion.kind == Kind::Absent => {
            (RejectReason::MissingField, "specversion", "is missing".to_owned())
        }
        None => (RejectReason::UnsupportedEvent, "specversion", "is not \"1.0\"".to_owned()),
    };
    Some(Rejection::of_field(code, name, &says))
}
