//! `application/cloudevents-batch+json`.

use super::*;
use RejectReason::*;

const FORMAT: Format = Format::CloudEvents;

#[test]
fn attributes_become_columns_and_the_rest_metadata() {
    let parsed = given(FORMAT)
        .parse(
            r#"[{"specversion":"1.0","id":"e","subject" : "a\u0041","source":"/s","datacontenttype":"application/json",
            "dataschema":null,"type":"com.t","time":"2024-05-05T01:00:00+01:00","user_id":"ext",
            "data":{"user_id":"u","\u0061": [1]},"trace~n":{"k":[1e3]},"n":7}]"#,
        )
        .unwrap();
    let row = only_row(&parsed);
    assert_eq!((row.event_id, row.service_name, row.event_type), ("e", "/s", "com.t"));
    assert_eq!(row.timestamp, moment("2024-05-05T00:00:00Z"));
    assert_eq!(row.payload, r#"{"user_id":"u","\u0061": [1]}"#);
    assert_eq!(row.user_id, Some("u"));
    assert_eq!(
        row.metadata,
        Some(
            r#"{"specversion":"1.0","subject" : "a\u0041","datacontenttype":"application/json","user_id":"ext","trace~n":{"k":[1e3]},"n":7}"#
        )
    );
}

#[test]
fn metadata_of_one_event_is_not_that_of_the_next() {
    let body = body(FORMAT, &[&event(FORMAT, "a").replace("{\"spec", "{\"x\":1,\"spec"), &event(FORMAT, "b")]);
    let parsed = given(FORMAT).parse(body).unwrap();
    let metadata: Vec<_> = columns(&parsed).iter().map(|columns| columns.metadata).collect();
    assert_eq!(metadata, [Some(r#"{"x":1,"specversion":"1.0"}"#), Some(r#"{"specversion":"1.0"}"#)]);
}

#[test]
fn what_is_no_storable_cloud_event_is_refused() {
    let good = event(FORMAT, "e");
    let deep = "[".repeat(64) + &"]".repeat(64);
    for (change, code, path) in [
        (r#""specversion":"0.3","#.to_owned(), UnsupportedEvent, "/specversion"),
        (r#""specversion":1.0,"#.to_owned(), UnsupportedEvent, "/specversion"),
        (String::new(), MissingField, "/specversion"),
        (r#""specversion":null,"#.to_owned(), MissingField, "/specversion"),
        (r#""specversion":"1.0","data_base64":"eA==","#.to_owned(), UnsupportedEvent, "/data_base64"),
        (r#""specversion":"1.0","id":null,"#.to_owned(), DuplicateKey, "/id"),
        (r#""specversion":"1.0","subject":"\u0000","#.to_owned(), NulCharacter, "/subject"),
        (r#""specversion":"1.0","ext":["\ud800"],"#.to_owned(), LoneSurrogate, "/ext"),
        (r#""specversion":"1.0","ext":1e1001,"#.to_owned(), NumberOutOfRange, "/ext"),
        (format!(r#""specversion":"1.0","ext":{deep},"#), NestingTooDeep, "/ext"),
    ] {
        let bad = good.replace(r#""specversion":"1.0","#, &change);
        let parsed = given(FORMAT).parse(body(FORMAT, &[&good, &bad])).unwrap();
        assert_eq!(told(&parsed.errors), [(code, format!("/1{path}").as_str())], "{change:.80}");
        assert_eq!(parsed.errors[0].event_id.as_deref(), Some("e"), "{change:.80}");
    }
}

#[test]
fn null_attribute_counts_as_absent() {
    let good = event(FORMAT, "e");
    let parsed = given(FORMAT).parse(body(FORMAT, &[&good.replace("\"2024-05-05T00:00:00Z\"", "null")])).unwrap();
    assert_eq!(only_row(&parsed).timestamp, NOW);
    let parsed = given(FORMAT).parse(body(FORMAT, &[&good, &good.replace("\"s\"", "null")])).unwrap();
    assert_eq!(told(&parsed.errors), [(MissingField, "/1/source")]);
}

#[test]
fn body_that_is_no_list_is_refused() {
    for body in ["{}", "5", &event(FORMAT, "e")] {
        match given(FORMAT).parse(body).unwrap_err() {
            Refusal::InvalidBatch { pointer, .. } => assert_eq!(pointer.as_deref(), Some("")),
            other => panic!("{other:?}"),
        }
    }
    for body in ["", "[", "[{}", "[{}]]", "{", "[1,]"] {
        assert!(matches!(given(FORMAT).parse(body), Err(Refusal::MalformedJson { .. })), "{body}");
    }
    match given(FORMAT).parse("[]").unwrap_err() {
        Refusal::InvalidBatch { pointer, detail, .. } => {
            assert_eq!((pointer.as_deref(), detail.as_str()), (Some(""), "the batch holds no events"));
        }
        other => panic!("{other:?}"),
    }
}
