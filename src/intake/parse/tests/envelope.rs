//! `application/json`.

use super::*;

fn refusal(body: impl AsRef<[u8]>) -> Refusal {
    given(Format::Json).parse(body).unwrap_err()
}

fn good() -> String {
    event(Format::Json, "e")
}

/// The pointer of a body of the wrong shape.
fn wrong_shape(body: &str) -> String {
    match refusal(body) {
        Refusal::InvalidBatch { pointer: Some(pointer), errors, detail, .. } if errors.is_empty() => {
            assert!(!detail.is_empty());
            pointer
        }
        other => panic!("{body}: {other:?}"),
    }
}

fn malformed_detail(body: impl AsRef<[u8]>) -> String {
    match refusal(body) {
        Refusal::MalformedJson { detail } => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn wrong_shape_is_told_with_its_place() {
    let good = good();
    for (body, pointer) in [
        ("[]", ""),
        ("null", ""),
        ("\"events\"", ""),
        ("{}", "/events"),
        (r#"{"batch_id":"a"}"#, "/events"),
        (r#"{"events":[]}"#, "/events"),
        (r#"{"events":null}"#, "/events"),
        (r#"{"events":{}}"#, "/events"),
        (r#"{"events":"[]"}"#, "/events"),
        (r#"{"events":[EVENT],"priority":11}"#, "/priority"),
        (r#"{"events":[EVENT],"priority":-1}"#, "/priority"),
        (r#"{"events":[EVENT],"priority":1.5}"#, "/priority"),
        (r#"{"events":[EVENT],"priority":1e0}"#, "/priority"),
        (r#"{"events":[EVENT],"priority":99999999999999999999}"#, "/priority"),
        (r#"{"events":[EVENT],"priority":"high"}"#, "/priority"),
        (r#"{"events":[EVENT],"priority":"5"}"#, "/priority"),
        (r#"{"priority":true,"events":[EVENT]}"#, "/priority"),
        (r#"{"events":[EVENT],"batch_id":7}"#, "/batch_id"),
        (r#"{"events":[EVENT],"batch_id":""}"#, "/batch_id"),
        (r#"{"events":[EVENT],"batch_id":".."}"#, "/batch_id"),
        (r#"{"events":[EVENT],"batch_id":"a b"}"#, "/batch_id"),
        (r#"{"events":[EVENT],"batch_id":"a\u0000"}"#, "/batch_id"),
        (r#"{"events":[EVENT],"batch_id":"\ud800"}"#, "/batch_id"),
        (r#"{"events":[EVENT],"events":[EVENT]}"#, "/events"),
        (r#"{"events":[EVENT],"\u0065vents":null}"#, "/events"),
        (r#"{"batch_id":"a","events":[EVENT],"batch_id":"a"}"#, "/batch_id"),
        (r#"{"priority":null,"events":[EVENT],"priority":1}"#, "/priority"),
        (r#"{"x/y":1,"events":[EVENT],"x\/y":{}}"#, "/x~1y"),
        // The first of several.
        (r#"{"priority":11,"events":5,"batch_id":""}"#, "/priority"),
        (r#"{"events":5,"priority":11}"#, "/events"),
    ] {
        assert_eq!(wrong_shape(&body.replace("EVENT", &good)), pointer, "{body}");
    }
}

#[test]
fn what_is_not_one_document_in_utf8_is_malformed() {
    let good = good();
    let whole = format!(r#"{{"events":[{good}]}}"#);
    assert_eq!(
        malformed_detail("{\n \"events\": [,]}"),
        "the body is not JSON at line 2, column 13: a value was expected"
    );
    for body in [
        "",
        "  \n",
        "{",
        &whole[..whole.len() - 1],
        &format!("{whole}x"),
        &format!("{whole}{whole}"),
        &format!("{whole}\0"),
        &format!("\u{feff}{whole}"),
        &whole.replace("\"a\"", "\"a\u{1}\""),
        &whole.replace('1', "01"),
        &whole.replace('1', "NaN"),
        &whole.replace(":1", ":1,"),
        &whole.replace('"', "'"),
        // Wrong shape before, but not readable.
        r#"{"events":5,"priority":}"#,
        r#"{"priority":11,"events":[{}"#,
        "[1,2",
    ] {
        malformed_detail(body);
    }
    let mut bytes = whole.clone().into_bytes();
    bytes[20] = 0xff;
    assert_eq!(malformed_detail(&bytes), "byte 21 of the body is not UTF-8");
    let unknown = [&whole.as_bytes()[..whole.len() - 1], b",\"x\":\"\xed\xa0\x80\"}"].concat();
    malformed_detail(unknown);
    malformed_detail(whole.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
}

#[test]
fn unknown_fields_are_ignored_and_null_is_absent() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let event = format!(
        r#"{{"event_id":"e","unknown":{deep},"service_name":"s","event_type":"t","payload":{{}},"timestamp":null,"metadata":null,"user_id":null,"n":1e9999,"t":"\ud800\u0000"}}"#
    );
    let body = format!(r#" {{"x":{deep},"events" : [ {event} ] ,"batch_id":null,"priority":null,"y":"\u0000"}} "#);
    let parsed = given(Format::Json).parse(body).unwrap();
    let row = only_row(&parsed);
    assert_eq!((row.timestamp, row.metadata, row.user_id), (NOW, None, None));
    assert!(!parsed.id_is_callers);
    assert_eq!(parsed.batch.head.priority.get(), 0);
}

#[test]
fn bomb_in_a_payload_is_its_events_fault_alone() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let bomb = format!(r#"{{"event_id":"b","service_name":"s","event_type":"t","payload":{{"a":{deep}}}}}"#);
    let parsed = given(Format::Json).parse(body(Format::Json, &[&bomb, &good()])).unwrap();
    assert_eq!(told(&parsed.errors), [(RejectReason::NestingTooDeep, "/events/0/payload")]);
    assert_eq!(parsed.batch.head.accepted, 1);
}

#[test]
fn batch_id_may_be_told_in_three_places_that_agree() {
    let with_id = format!(r#"{{"batch_id":"orders-17","events":[{}]}}"#, good());
    let mut given = given(Format::Json);
    for ids in [&[][..], &["orders-17"], &["orders-17", "orders-17"]] {
        given.batch_ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let parsed = given.parse(&with_id).unwrap();
        assert!(parsed.id_is_callers);
        assert_eq!(parsed.batch.head.key.batch_id, "orders-17");
        assert_eq!(parsed.batch.head.batch.get_version_num(), 7);
    }
    for ids in [&["orders-18"][..], &["orders-17", "orders-18"], &["orders-18", "orders-17"]] {
        given.batch_ids = ids.iter().map(|id| (*id).to_owned()).collect();
        assert!(matches!(given.parse(&with_id), Err(Refusal::BatchIdMismatch { .. })), "{ids:?}");
    }
}

#[test]
fn priority_of_query_and_body_must_agree() {
    let mut given = given(Format::Json);
    let event = good();
    for (query, body, expected) in [
        (None, "", Some(0)),
        (Some(7), "", Some(7)),
        (None, r#","priority":10"#, Some(10)),
        (Some(3), r#","priority":3"#, Some(3)),
        (Some(3), r#","priority":null"#, Some(3)),
        (Some(3), r#","priority":0"#, None),
        (Some(0), r#","priority":3"#, None),
    ] {
        given.priority = query;
        let parsed = given.parse(format!(r#"{{"events":[{event},{event}]{body}}}"#));
        match (parsed, expected) {
            (Ok(parsed), Some(expected)) => {
                assert_eq!(parsed.batch.head.priority.get(), expected);
                assert_rows_match_head(&parsed);
            }
            (Err(Refusal::InvalidBatch { pointer, .. }), None) => assert_eq!(pointer.as_deref(), Some("/priority")),
            (other, _) => panic!("{query:?} {body}: {other:?}"),
        }
    }
}

#[test]
fn refusal_names_the_batch_where_it_is_known() {
    for (body, query, known) in [
        (r#"{"batch_id":"b","events":5}"#, None, Some("b")),
        (r#"{"events":[],"batch_id":"b"}"#, None, Some("b")),
        (r#"{"events":[1],"batch_id":"b"}"#, None, Some("b")),
        (r#"{"events":[]}"#, Some("q"), Some("q")),
        ("[]", Some("q"), Some("q")),
        (r#"{"events":[]}"#, None, None),
    ] {
        let mut given = given(Format::Json);
        given.batch_ids = query.map(str::to_owned).into_iter().collect();
        match given.parse(body).unwrap_err() {
            Refusal::InvalidBatch { batch_id, .. } => assert_eq!(batch_id.as_deref(), known, "{body}"),
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn content_is_the_events_as_sent_and_nothing_else() {
    let (a, b) = (good(), event(Format::Json, "f"));
    let given = given(Format::Json);
    let hash = |body: String| given.parse(body).unwrap().batch.head.content_hash;
    let events = format!("[ {a},\n{b} ]");
    let first = hash(format!(r#"{{"events":{events}}}"#));
    assert_eq!(first, *blake3::hash(events.as_bytes()).as_bytes());
    assert_eq!(first, hash(format!(r#" {{"priority":3, "events" : {events} , "batch_id":"x"}}"#)));
    assert_ne!(first, hash(format!(r#"{{"events":[{a},{b}]}}"#)));
}
