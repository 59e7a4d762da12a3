//! `application/x-ndjson`.

use super::*;
use RejectReason::*;

#[test]
fn empty_lines_are_skipped_and_line_ends_are_lenient() {
    let [a, b, c] = ["a", "b", "c"].map(|id| event(Format::Ndjson, id));
    for body in
        [format!("{a}\n{b}\n{c}"), format!("{a}\n{b}\n{c}\n"), format!("\n\n{a}\r\n \t\r\n  {b}\t\r\n\n{c}\r\n\r\n")]
    {
        let parsed = given(Format::Ndjson).parse(&body).unwrap();
        let ids: Vec<_> = columns(&parsed).iter().map(|columns| columns.event_id).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(parsed.batch.head.received, 3);
        assert_eq!(parsed.batch.head.content_hash, *blake3::hash(body.as_bytes()).as_bytes());
    }
}

#[test]
fn bad_line_is_that_events_error_and_index_counts_lines_that_are_not_empty() {
    let good = event(Format::Ndjson, "a");
    let mut body =
        format!("\n{good}\n\n{{\"event_id\":\n{good}{good}\n{good},\n[{good}]\n5\n\u{feff}{good}\n").into_bytes();
    body.extend(b"{\"event_id\":\"\xff\"}\n");
    body.extend(good.replace("{\"a\":1}", "{\"a\":\"\u{b}\"}").bytes());
    body.extend(b"\n{}\n");
    body.extend(good.bytes());
    let parsed = given(Format::Ndjson).parse(&body).unwrap();
    let expected = [
        (MalformedJson, "/1"),
        (MalformedJson, "/2"),
        (MalformedJson, "/3"),
        (NotAnObject, "/4"),
        (NotAnObject, "/5"),
        (MalformedJson, "/6"),
        (MalformedJson, "/7"),
        (MalformedJson, "/8"),
        (MissingField, "/9/event_id"),
    ];
    assert_eq!(told(&parsed.errors), expected);
    let details: Vec<_> = parsed.errors.iter().map(|error| error.detail.as_str()).collect();
    assert_eq!(details[0], "not JSON at column 13: the text ends where a value was expected");
    assert_eq!(details[6], "byte 14 of the line is not UTF-8");
    assert_eq!((parsed.batch.head.received, parsed.batch.head.accepted), (11, 2));
}

#[test]
fn event_over_two_lines_is_two_bad_lines() {
    let broken = event(Format::Ndjson, "a").replace(",\"payload\"", ",\n\"payload\"");
    let body = format!("{broken}\n{}", event(Format::Ndjson, "b"));
    let parsed = given(Format::Ndjson).parse(body).unwrap();
    assert_eq!(told(&parsed.errors), [(MalformedJson, "/0"), (MalformedJson, "/1")]);
}

#[test]
fn body_without_lines_is_refused() {
    for body in ["", "\n", " \r\n\t\n"] {
        match given(Format::Ndjson).parse(body).unwrap_err() {
            Refusal::InvalidBatch { errors, detail, .. } => {
                assert_eq!((errors.len(), detail.as_str()), (0, "the batch holds no events"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn byte_order_mark_is_refused() {
    let body = format!("\u{feff}{}", event(Format::Ndjson, "a"));
    assert!(matches!(given(Format::Ndjson).parse(body), Err(Refusal::MalformedJson { .. })));
}

#[test]
fn flights_are_read() {
    let body = concat!(
        r#"{"event_id":"20130101-UA1545-EWR-IAH","service_name":"EWR","event_type":"departed","payload":{"carrier":"UA","flight":1545,"user_id":"N14228"},"timestamp":"2013-01-01T10:15:00Z"}"#,
        "\n",
        r#"{"event_id":"20130101-UA1714-LGA-IAH","service_name":"LGA","event_type":"cancelled","payload":{"carrier":"UA","flight":1714,"user_id":null},"timestamp":"2013-01-01T10:29:00Z"}"#,
        "\n",
    );
    let parsed = given(Format::Ndjson).parse(body).unwrap();
    let rows = columns(&parsed);
    assert_eq!(
        (rows[0].event_id, rows[0].service_name, rows[0].event_type),
        ("20130101-UA1545-EWR-IAH", "EWR", "departed")
    );
    assert_eq!(rows[0].timestamp, moment("2013-01-01T10:15:00Z"));
    assert_eq!(rows[0].payload, r#"{"carrier":"UA","flight":1545,"user_id":"N14228"}"#);
    assert_eq!((rows[0].user_id, rows[0].metadata), (Some("N14228"), None));
    assert_eq!((rows[1].user_id, rows.len()), (None, 2));
}
