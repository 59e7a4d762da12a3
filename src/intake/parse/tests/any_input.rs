//! Whatever comes in: no panic, and the columns are what another reader of JSON sees.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const FORMATS: [Format; 3] = [Format::Json, Format::Ndjson, Format::CloudEvents];

fn format() -> impl Strategy<Value = Format> {
    prop::sample::select(&FORMATS[..])
}

/// Text that holds what needs escapes, what is long in UTF-8, and no U+0000.
fn text(most: usize) -> impl Strategy<Value = String> {
    let char = prop_oneof![
        Just('"'),
        Just('\\'),
        Just('\u{1}'),
        Just('\n'),
        Just('é'),
        Just('😀'),
        "[a-z]".prop_map(|c| c.chars().next().unwrap())
    ];
    prop::collection::vec(char, 1..most).prop_map(String::from_iter)
}

fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        text(9).prop_map(Value::from),
    ];
    let inner = leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text(5), inner), 0..4).prop_map(Value::from_iter),
        ]
    });
    prop::collection::vec((prop_oneof![text(5), Just("user_id".to_owned())], inner), 0..4).prop_map(Value::from_iter)
}

prop_compose! {
    /// An event that is good in JSON and NDJSON.
    fn good_event()(
        (event_id, service_name, event_type) in (text(60), text(30), text(30)),
        payload in object(),
        micros in 1_300_000_000_000_000..1_800_000_000_000_000_i64,
        timed in any::<bool>(),
        metadata in prop::option::of(object()),
        user_id in prop::option::of(text(30)),
        unknown in object(),
    ) -> Value {
        let mut event = json!({"event_id": event_id, "service_name": service_name, "event_type": event_type, "payload": payload});
        if timed {
            event["timestamp"] = Timestamp::from_micros(micros).to_string().into();
        }
        event["metadata"] = metadata.into();
        event["user_id"] = user_id.into();
        event["unknown"] = unknown;
        event
    }
}

/// The same document with escapes in its strings, keys too, for what is no digit of an escape that is there already.
fn escaped(document: &str, every: usize) -> String {
    let mut inside = false;
    let mut after_backslash = false;
    let mut count = 0;
    let mut out = String::new();
    for char in document.chars() {
        let is_special = after_backslash || matches!(char, '"' | '\\' | '0'..='9' | 'a'..='f');
        if char == '"' && !after_backslash {
            inside = !inside;
        }
        after_backslash = char == '\\' && !after_backslash;
        count += 1;
        if inside && !is_special && count % every == 0 {
            out.extend(char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04X}")));
        } else {
            out.push(char);
        }
    }
    out
}

proptest! {
    #[test]
    fn good_events_become_what_serde_json_reads(
        events in prop::collection::vec(good_event(), 1..5),
        every in 1..20_usize,
        escapes in any::<bool>(),
        as_lines in any::<bool>(),
    ) {
        let format = if as_lines { Format::Ndjson } else { Format::Json };
        let texts: Vec<String> = events
            .iter()
            .map(|event| if escapes { escaped(&event.to_string(), every) } else { event.to_string() })
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let parsed = given(format).parse(body(format, &texts)).unwrap();
        prop_assert_eq!(&parsed.errors, &[]);
        let rows = columns(&parsed);
        prop_assert_eq!(rows.len(), events.len());
        for (row, event) in rows.iter().zip(&events) {
            prop_assert_eq!(&event["event_id"], row.event_id);
            prop_assert_eq!(&event["service_name"], row.service_name);
            prop_assert_eq!(&event["event_type"], row.event_type);
            let user_id = event["user_id"].as_str().or(event["payload"]["user_id"].as_str());
            prop_assert_eq!(user_id, row.user_id);
            let timestamp = event["timestamp"].as_str().map_or(NOW, moment);
            prop_assert_eq!(timestamp, row.timestamp);
            prop_assert_eq!(&event["payload"], &serde_json::from_str::<Value>(row.payload).unwrap());
            let metadata = row.metadata.map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
            prop_assert_eq!(&event["metadata"], &metadata);
            if !escapes {
                prop_assert_eq!(event["payload"].to_string(), row.payload);
            }
        }
    }

    #[test]
    fn any_bytes_get_an_answer(format in format(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(given(format).parse(bytes));
    }

    #[test]
    fn damaged_bodies_get_an_answer_that_adds_up(
        format in format(),
        atomic in any::<bool>(),
        events in prop::collection::vec(good_event(), 1..4),
        at in any::<prop::sample::Index>(),
        (cut, put) in (0..30_usize, prop::collection::vec(any::<u8>(), 0..4)),
    ) {
        let texts: Vec<String> = events.iter().map(Value::to_string).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut bytes = body(format, &texts).into_bytes();
        let at = at.index(bytes.len());
        let end = bytes.len().min(at + cut);
        bytes.splice(at..end, put);
        let mut given = given(format);
        given.atomic = atomic;
        match given.parse(&bytes) {
            Ok(parsed) => {
                let head = &parsed.batch.head;
                prop_assert_eq!(columns(&parsed).len(), head.accepted as usize);
                prop_assert_eq!(head.rejected.len(), parsed.errors.len());
                prop_assert_eq!(head.received as usize, columns(&parsed).len() + parsed.errors.len());
                prop_assert!(head.accepted > 0 && (!atomic || parsed.errors.is_empty()));
            }
            Err(Refusal::InvalidBatch { errors, .. }) if !errors.is_empty() => {
                prop_assert!(errors.iter().enumerate().all(|(index, error)| error.index as usize == index));
            }
            Err(refusal) => {
                prop_assert_ne!(format, Format::Ndjson, "{:?}", refusal);
                // Only a body that no one can read, or an envelope, is refused without a look at the events.
                let text = std::str::from_utf8(&bytes);
                let readable = text.is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
                prop_assert_eq!(matches!(refusal, Refusal::MalformedJson { .. }), !readable);
            }
        }
    }
}
