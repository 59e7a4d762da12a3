//! One event: its fields as they stand in the body, and the checks that make a row's columns of them.
//!
//! The first thing that is wrong is told, in a fixed order: what the event is, then field by field.

use super::{
    keys::Keys,
    limits,
    rejection::{Rejection, named, quoted},
    scan::{Kind, Malformed, Scanner, Value},
    timestamp,
    window::Times,
};
use crate::{event::RejectReason, row::EventColumns, time::Timestamp};

/// What a format calls the fields.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) event_id: &'static str,
    pub(super) service_name: &'static str,
    pub(super) event_type: &'static str,
    pub(super) payload: &'static str,
    pub(super) timestamp: &'static str,
}

/// The names of an event in JSON and NDJSON.
pub(super) const NAMES: Names = Names {
    event_id: "event_id",
    service_name: "service_name",
    event_type: "event_type",
    payload: "payload",
    timestamp: "timestamp",
};

/// The fields of one event as they were sent.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) event_id: Value<'a>,
    pub(super) service_name: Value<'a>,
    pub(super) event_type: Value<'a>,
    pub(super) payload: Value<'a>,
    pub(super) timestamp: Value<'a>,
    pub(super) metadata: Value<'a>,
    user_id: Value<'a>,
    /// The last `user_id` in the payload itself.
    payload_user_id: Value<'a>,
    /// What is wrong with the event before any field is looked at.
    pub(super) flaw: Option<Rejection>,
}

/// Room for texts whose escapes must be resolved, used again for each event.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    event_id: Vec<u8>,
    service_name: Vec<u8>,
    event_type: Vec<u8>,
    timestamp: Vec<u8>,
    user_id: Vec<u8>,
}

impl<'a> Fields<'a> {
    pub(super) const NONE: Self = Self {
        event_id: Value::ABSENT,
        service_name: Value::ABSENT,
        event_type: Value::ABSENT,
        payload: Value::ABSENT,
        timestamp: Value::ABSENT,
        metadata: Value::ABSENT,
        user_id: Value::ABSENT,
        payload_user_id: Value::ABSENT,
        flaw: None,
    };

    /// Reads the event that stands here, whatever it is.
    pub(super) fn read(scan: &mut Scanner<'a>, unknown: &mut Keys<'a>) -> Result<Self, Malformed> {
        let mut fields = Self::NONE;
        if scan.peek() != Some(b'{') {
            fields.flaw = Some(Rejection::no_object(&scan.value(0)?));
            return Ok(fields);
        }
        scan.enter();
        unknown.clear();
        let mut first = true;
        while let Some(key) = scan.next_member(&mut first)? {
            let slot = match &*key {
                b"event_id" => &mut fields.event_id,
                b"service_name" => &mut fields.service_name,
                b"event_type" => &mut fields.event_type,
                b"timestamp" => &mut fields.timestamp,
                b"metadata" => &mut fields.metadata,
                b"user_id" => &mut fields.user_id,
                b"payload" => {
                    if fields.payload.kind != Kind::Absent {
                        fields.flaw.get_or_insert_with(|| Rejection::doubled(&key));
                    }
                    fields.read_payload(scan)?;
                    continue;
                }
                _ => {
                    scan.value(0)?;
                    if !unknown.add(key.clone(), false) {
                        fields.flaw.get_or_insert_with(|| Rejection::doubled(&key));
                    }
                    continue;
                }
            };
            if slot.kind != Kind::Absent {
                fields.flaw.get_or_insert_with(|| Rejection::doubled(&key));
            }
            *slot = scan.value(0)?;
        }
        Ok(fields)
    }

    /// Reads the payload that stands here, and finds the `user_id` in it on the way.
    pub(super) fn read_payload(&mut self, scan: &mut Scanner<'a>) -> Result<(), Malformed> {
        if scan.peek() != Some(b'{') {
            self.payload = scan.value(0)?;
            return Ok(());
        }
        let start = scan.at();
        let (mut first, mut fault) = (true, None);
        scan.enter();
        while let Some(key) = scan.next_member(&mut first)? {
            let key_fault = scan.take_fault();
            let value = scan.value(1)?;
            fault = fault.or(key_fault).or(value.fault);
            if *key == *b"user_id" {
                self.payload_user_id = value;
            }
        }
        self.payload = Value { kind: Kind::Object, raw: scan.since(start), fault };
        Ok(())
    }

    /// Returns the event's id for its error, where it can be read.
    pub(super) fn readable_id(&self, scratch: &mut Scratch) -> Option<String> {
        let event_id = self.event_id.text(&mut scratch.event_id)?;
        ((1..=limits::EVENT_ID_BYTES).contains(&event_id.len())).then(|| event_id.to_owned())
    }

    /// Checks the event and returns its row's columns. An event without a timestamp happened at `accepted_at`.
    pub(super) fn columns<'f>(
        &'f mut self,
        names: &Names,
        scratch: &'f mut Scratch,
        times: &mut Times<'_>,
        accepted_at: Timestamp,
    ) -> Result<EventColumns<'f>, Rejection> {
        if let Some(flaw) = self.flaw.take() {
            return Err(flaw);
        }
        let event_id = required(&self.event_id, names.event_id, limits::EVENT_ID_BYTES, &mut scratch.event_id)?;
        let service_name =
            required(&self.service_name, names.service_name, limits::NAME_BYTES, &mut scratch.service_name)?;
        let event_type = required(&self.event_type, names.event_type, limits::NAME_BYTES, &mut scratch.event_type)?;
        let payload = object(&self.payload, names.payload)?;
        let timestamp = match self.timestamp.kind {
            Kind::Absent | Kind::Null => accepted_at,
            _ => {
                let text = text(&self.timestamp, names.timestamp, &mut scratch.timestamp)?;
                let timestamp = timestamp::parse(text).ok_or_else(|| no_time(text, names.timestamp))?;
                times.check(timestamp, text, names.timestamp)?;
                timestamp
            }
        };
        let metadata = match self.metadata.kind {
            Kind::Absent | Kind::Null => None,
            _ => Some(object(&self.metadata, "metadata")?),
        };
        let user_id = match (self.user_id.kind, self.payload_user_id.kind) {
            (Kind::Absent | Kind::Null, Kind::Text { .. }) => {
                let name = format_args!("{}/user_id", names.payload);
                let text = self.payload_user_id.text(&mut scratch.user_id);
                Some(within(text.unwrap_or_default(), name, limits::NAME_BYTES)?)
            }
            (Kind::Absent | Kind::Null, _) => None,
            _ => {
                let text = text(&self.user_id, "user_id", &mut scratch.user_id)?;
                Some(within(text, format_args!("user_id"), limits::NAME_BYTES)?)
            }
        };
        Ok(EventColumns { timestamp, event_id, service_name, event_type, user_id, payload, metadata })
    }
}

fn required<'f>(
    value: &'f Value<'_>,
    name: &str,
    limit: usize,
    scratch: &'f mut Vec<u8>,
) -> Result<&'f str, Rejection> {
    let text = text(value, name, scratch)?;
    if text.is_empty() {
        return Err(Rejection::of_field(RejectReason::EmptyField, name, "is empty"));
    }
    within(text, format_args!("{name}"), limit)
}

fn text<'f>(value: &'f Value<'_>, name: &str, scratch: &'f mut Vec<u8>) -> Result<&'f str, Rejection> {
    if let (Kind::Text { .. }, Some(fault)) = (value.kind, value.fault) {
        return Err(Rejection::faulty(name.as_bytes(), fault));
    }
    value.text(scratch).ok_or_else(|| wrong_type(value, name, "a string"))
}

fn object<'f>(value: &'f Value<'_>, name: &str) -> Result<&'f str, Rejection> {
    match (value.kind, value.fault) {
        (Kind::Object, None) => Ok(value.raw),
        (Kind::Object, Some(fault)) => Err(Rejection::faulty(name.as_bytes(), fault)),
        _ => Err(wrong_type(value, name, "an object")),
    }
}

fn within<'f>(text: &'f str, name: std::fmt::Arguments<'_>, limit: usize) -> Result<&'f str, Rejection> {
    if text.len() <= limit {
        return Ok(text);
    }
    let says = format!("is longer than its limit of {limit} bytes");
    Err(Rejection::of_field(RejectReason::FieldTooLong, &name.to_string(), &says))
}

fn wrong_type(value: &Value<'_>, name: &str, wanted: &str) -> Rejection {
    match value.kind {
        Kind::Absent => Rejection::of_field(RejectReason::MissingField, name, "is missing"),
        kind => {
            let says = format!("is {}, not {wanted}", named(kind));
            Rejection::of_field(RejectReason::WrongType, name, &says)
        }
    }
}

fn no_time(text: &str, name: &str) -> Rejection {
    // The commonest slip by far.
    let lacks_offset = timestamp::parse(&format!("{text}Z")).is_some();
    let why = if lacks_offset { ": it has no offset from UTC" } else { "" };
    Rejection {
        code: RejectReason::InvalidTimestamp,
        detail: format!("{} is not an RFC 3339 time{why}", quoted(text)),
        path: format!("/{name}"),
    }
}
