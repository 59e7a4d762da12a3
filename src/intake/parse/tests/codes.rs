//! Each code of an event, in each format; the neighbors of a bad event are taken.

use super::*;
use RejectReason::*;

const FORMATS: [Format; 3] = [Format::Json, Format::Ndjson, Format::CloudEvents];

/// An event in which one field has another value, or none; under the names of the format.
fn with(format: Format, field: &str, value: Option<&str>) -> String {
    let [event_id, service_name, event_type, payload, timestamp, _] = names(format);
    let mut members = vec![(event_id, r#""bad""#), (service_name, r#""s""#), (event_type, r#""t""#), (payload, "{}")];
    if format == Format::CloudEvents {
        members.push(("specversion", r#""1.0""#));
    }
    members.retain(|(name, _)| *name != field);
    members.extend(value.map(|value| (if field == timestamp { timestamp } else { field }, value)));
    let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// The event with more members.
fn add(event: &str, members: &str) -> String {
    format!("{},{members}}}", event.strip_suffix('}').unwrap())
}

/// Posts the event between two good ones and asserts that it alone is refused.
fn assert_refused(format: Format, event_text: &str, code: RejectReason, path: &str, id: Option<&str>) -> EventError {
    let (first, last) = (event(format, "first"), event(format, "last"));
    let parsed = given(format).parse(body(format, &[&first, event_text, &last])).unwrap();
    let pointer = format!("{}/1{path}", names(format)[5]);
    assert_eq!(told(&parsed.errors), [(code, pointer.as_str())], "{format:?} {event_text:.200}");
    let ids: Vec<_> = columns(&parsed).iter().map(|columns| columns.event_id).collect();
    assert_eq!(ids, ["first", "last"]);
    assert_eq!(parsed.batch.head.rejected, [1]);
    assert_eq!(parsed.errors[0].index, 1);
    assert_eq!(parsed.errors[0].event_id.as_deref(), id, "{format:?} {event_text:.200}");
    parsed.errors[0].clone()
}

#[test]
fn each_bad_field_has_its_code() {
    let text = |length: usize| format!("\"{}\"", "é".repeat(length / 2));
    let (too_long_id, too_long_name) = (text(258), text(130));
    let endless = format!("\"{}\"", r"\u0061".repeat(100_000));
    let deep = format!("{}1{}", "{\"a\":".repeat(65), "}".repeat(65));
    let digits = format!("{{\"n\":{}}}", "1".repeat(1001));
    let user = format!("{{\"user_id\":{too_long_name}}}");
    for format in FORMATS {
        let [event_id, service_name, event_type, payload, timestamp, _] = names(format);
        let mut cases = vec![
            (timestamp, Some("5"), WrongType),
            (timestamp, Some(&endless), InvalidTimestamp),
            (timestamp, Some(r#""""#), InvalidTimestamp),
            (timestamp, Some(r#""2024-05-05T00:00:00""#), InvalidTimestamp),
            (timestamp, Some(r#""2016-12-31T23:59:60Z""#), InvalidTimestamp),
            (timestamp, Some(r#""2024-05-05T00:00:00Z\u0000""#), NulCharacter),
            (timestamp, Some(r#""2009-12-31T23:59:59.999999Z""#), TimestampTooOld),
            (timestamp, Some(r#""0001-01-01T00:00:00+23:59""#), TimestampTooOld),
            (timestamp, Some(r#""2030-01-01T00:00:00.000001Z""#), TimestampTooNew),
            (timestamp, Some(r#""9999-12-31T23:59:59-23:59""#), TimestampTooNew),
            (payload, None, MissingField),
            (payload, Some("null"), WrongType),
            (payload, Some("[]"), WrongType),
            (payload, Some(r#""{}""#), WrongType),
            (payload, Some(r#"{"a":["\u0000"]}"#), NulCharacter),
            (payload, Some(r#"{"\u0000":1}"#), NulCharacter),
            (payload, Some(r#"{"a":{"\u0000":1}}"#), NulCharacter),
            (payload, Some(r#"{"a":"\ud800"}"#), LoneSurrogate),
            (payload, Some(r#"{"\udc00":1}"#), LoneSurrogate),
            (payload, Some(r#"{"user_id":"\udc00"}"#), LoneSurrogate),
            (payload, Some(r#"{"user_id":"\u0000","user_id":"u"}"#), NulCharacter),
            (payload, Some(r#"{"a":1e400000}"#), NumberOutOfRange),
            (payload, Some(r#"{"a":[-1.5E-1001]}"#), NumberOutOfRange),
            (payload, Some(&digits), NumberOutOfRange),
            (payload, Some(&deep), NestingTooDeep),
        ];
        for (name, too_long) in [(service_name, &too_long_name), (event_type, &too_long_name), (event_id, &too_long_id)]
        {
            cases.extend([
                (name, None, MissingField),
                (name, Some("17"), WrongType),
                (name, Some("true"), WrongType),
                (name, Some("[\"x\"]"), WrongType),
                (name, Some(r#""""#), EmptyField),
                (name, Some(too_long), FieldTooLong),
                (name, Some(&endless), FieldTooLong),
                (name, Some(r#""a\u0000b""#), NulCharacter),
                (name, Some(r#""\ud800x""#), LoneSurrogate),
            ]);
        }
        if format != Format::CloudEvents {
            cases.extend([
                (event_id, Some("null"), WrongType),
                ("metadata", Some("[]"), WrongType),
                ("metadata", Some("\"x\""), WrongType),
                ("metadata", Some(r#"{"a":"\u0000"}"#), NulCharacter),
                ("metadata", Some(&digits), NumberOutOfRange),
                ("metadata", Some(&deep), NestingTooDeep),
                ("user_id", Some("17"), WrongType),
                ("user_id", Some(r#""\u0000""#), NulCharacter),
                ("user_id", Some(r#""\udfff""#), LoneSurrogate),
                ("user_id", Some(&too_long_name), FieldTooLong),
            ]);
        }
        for (field, value, code) in cases {
            let id = (field != event_id).then_some("bad");
            let error = assert_refused(format, &with(format, field, value), code, &format!("/{field}"), id);
            assert!(error.detail.len() < 200 && !error.detail.contains('\0'), "{}", error.detail);
        }
        let path = format!("/{payload}/user_id");
        assert_refused(format, &with(format, payload, Some(&user)), FieldTooLong, &path, Some("bad"));
    }
}

#[test]
fn what_is_no_object_is_refused() {
    for format in FORMATS {
        for text in ["1", "null", "true", r#""{}""#, "[]", "[{}]"] {
            assert_refused(format, text, NotAnObject, "", None);
        }
    }
}

#[test]
fn doubled_key_is_refused_known_or_not() {
    for format in FORMATS {
        let [event_id, service_name, .., payload, timestamp, _] = names(format);
        for (key, value) in [
            (event_id, r#""bad""#),
            (service_name, "null"),
            (timestamp, r#""2024-05-05T00:00:00Z""#),
            (payload, "{}"),
            ("unknown", "[[]]"),
            ("", "1"),
        ] {
            let more = format!("\"{key}\":{value}");
            let text = add(&with(format, key, Some(value)), &more);
            assert_refused(format, &text, DuplicateKey, &format!("/{key}"), Some("bad"));
        }
        let escaped = add(&with(format, "a~/b", Some("1")), r#""\u0061~\/b":{"x":2}"#);
        assert_refused(format, &escaped, DuplicateKey, "/a~0~1b", Some("bad"));
        let many: Vec<String> = (0..100).map(|number| format!("\"k{number}\":0")).collect();
        let text = add(&with(format, "k99", Some("1")), &many.join(","));
        assert_refused(format, &text, DuplicateKey, "/k99", Some("bad"));
    }
}

#[test]
fn structure_is_told_before_fields_and_fields_in_their_order() {
    for format in FORMATS {
        let [event_id, service_name, ..] = names(format);
        let version = if format == Format::CloudEvents { r#""specversion":"1.0","# } else { "" };
        let all_bad = format!(r#"{{{version}"x":1,"x":2,"{service_name}":5}}"#);
        assert_refused(format, &all_bad, DuplicateKey, "/x", None);
        let fields_bad = format!(r#"{{{version}"{service_name}":5}}"#);
        assert_refused(format, &fields_bad, MissingField, &format!("/{event_id}"), None);
    }
}

#[test]
fn fields_may_be_as_long_as_their_limits() {
    for format in FORMATS {
        let [event_id, service_name, event_type, payload, ..] = names(format);
        // Escapes count as what they stand for.
        for (field, value) in [
            (event_id, format!("\"{}\"", "é".repeat(128))),
            (event_id, format!("\"{}\"", r"\u00e9".repeat(128))),
            (service_name, format!("\"{}\"", r"\ud83d\ude00".repeat(32))),
            (event_type, format!("\"{}\"", r"\n".repeat(128))),
            (payload, format!("{{\"user_id\":\"{}\"}}", "u".repeat(128))),
            (payload, format!("{}1{}", "{\"a\":".repeat(64), "}".repeat(64))),
            (payload, format!("{{\"a\":{},\"b\":-1E+1000}}", "1".repeat(1000))),
        ] {
            let parsed = given(format).parse(body(format, &[&with(format, field, Some(&value))])).unwrap();
            only_row(&parsed);
        }
    }
}

#[test]
fn details_name_the_limit_and_quote_no_more_than_a_little() {
    let format = Format::Json;
    let long = format!("\"{}\"", "x".repeat(300));
    let error = assert_refused(format, &with(format, "event_id", Some(&long)), FieldTooLong, "/event_id", None);
    assert_eq!(error.detail, "event_id is longer than its limit of 256 bytes");
    let error =
        assert_refused(format, &with(format, "timestamp", Some(&long)), InvalidTimestamp, "/timestamp", Some("bad"));
    assert_eq!(error.detail, format!("\"{}…\" is not an RFC 3339 time", "x".repeat(64)));
    let month = with(format, "timestamp", Some(r#""2026-13-01T00:00:00Z""#));
    let error = assert_refused(format, &month, InvalidTimestamp, "/timestamp", Some("bad"));
    assert_eq!(error.detail, r#""2026-13-01T00:00:00Z" is not an RFC 3339 time"#);
    let key = format!("\"{}\":1", "k".repeat(1000));
    let doubled = format!("{{{key},{key}}}");
    let error = assert_refused(format, &doubled, DuplicateKey, "", None);
    assert!(error.detail.len() < 120, "{}", error.detail);
}

#[test]
fn window_includes_both_of_its_ends() {
    for format in FORMATS {
        for end in ["2010-01-01T00:00:00Z", "2030-01-01T00:00:00Z"] {
            let text = event(format, "e").replace("2024-05-05T00:00:00Z", end);
            let parsed = given(format).parse(body(format, &[&text])).unwrap();
            assert_eq!(only_row(&parsed).timestamp, moment(end));
        }
    }
}

#[test]
fn event_without_a_timestamp_happened_now_whatever_the_window() {
    for format in FORMATS {
        let mut given = given(format);
        given.window.newest = moment("2012-01-01T00:00:00Z");
        let now = with(format, "unknown", Some("1"));
        assert_eq!(only_row(&given.parse(body(format, &[&now])).unwrap()).timestamp, NOW);
    }
}

#[test]
fn pruned_month_is_refused_unless_its_leaf_was_made_again() {
    for format in FORMATS {
        let timestamp = names(format)[4];
        let mut given = given(format);
        given.window.pruned_before = Some("2024-03".parse().unwrap());
        given.window.remade = vec!["2023-11".parse().unwrap(), "2024-01".parse().unwrap()];
        let events: Vec<String> = [
            "2023-10-31T23:59:59Z",
            "2023-11-01T00:00:00Z",
            "2024-01-31T23:59:59.999999Z",
            "2024-02-29T23:59:59.999999Z",
            "2024-02-29T23:59:59-00:01",
        ]
        .map(|text| with(format, timestamp, Some(&format!("\"{text}\""))))
        .to_vec();
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        let parsed = given.parse(body(format, &events)).unwrap();
        assert_eq!(parsed.batch.head.rejected, [0, 3]);
        assert!(parsed.errors.iter().all(|error| error.code == TimestampTooOld));
        let months: Vec<String> = parsed.batch.head.months.iter().map(Month::to_string).collect();
        assert_eq!(months, ["2023-11", "2024-01", "2024-03"]);
    }
}
