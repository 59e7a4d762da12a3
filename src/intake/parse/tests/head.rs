//! What is said of the batch as a whole.

use super::*;

const FORMATS: [Format; 3] = [Format::Json, Format::Ndjson, Format::CloudEvents];

#[test]
fn head_counts_and_bounds_what_was_sent() {
    for format in FORMATS {
        let at = |id: &str, moment: &str| event(format, id).replace("2024-05-05T00:00:00Z", moment);
        let events = [
            at("a", "2024-05-05T00:00:00Z"),
            "7".to_owned(),
            at("b", "2013-01-31T23:59:59.999999Z"),
            at("c", "2013-02-01T00:00:00Z"),
            at("d", "2009-01-01T00:00:00Z"),
            at("e", "2013-01-01T00:00:00Z"),
        ];
        let parsed = given(format).parse(body(format, &events.each_ref().map(String::as_str))).unwrap();
        let head = &parsed.batch.head;
        assert_eq!((head.received, head.accepted, &head.rejected), (6, 4, &vec![1, 4]));
        assert_eq!(head.first_timestamp, moment("2013-01-01T00:00:00Z"));
        assert_eq!(head.last_timestamp, moment("2024-05-05T00:00:00Z"));
        let months: Vec<String> = head.months.iter().map(Month::to_string).collect();
        assert_eq!(months, ["2013-01", "2013-02", "2024-05"]);
        assert_eq!((head.key.caller.as_str(), head.accepted_at), ("shop", NOW));
        assert_eq!(head.traceparent.as_deref(), Some("00-trace"));
        assert_rows_match_head(&parsed);
    }
}

#[test]
fn batch_without_an_id_is_given_one_by_its_time() {
    for format in FORMATS {
        let parsed = given(format).parse(body(format, &[&event(format, "e")])).unwrap();
        let head = &parsed.batch.head;
        assert!(!parsed.id_is_callers);
        assert_eq!(head.key.batch_id, head.batch.to_string());
        assert_eq!(head.batch.get_version_num(), 7);
        let (seconds, nanos) = head.batch.get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanos), (1_714_910_400, 0));
        let again = given(format).parse(body(format, &[&event(format, "e")])).unwrap();
        assert_ne!(again.batch.head.batch, head.batch);
    }
}

#[test]
fn callers_id_is_taken_in_every_format() {
    for format in FORMATS {
        let mut given = given(format);
        given.batch_ids = vec!["orders-17".to_owned(); 2];
        let parsed = given.parse(body(format, &[&event(format, "e")])).unwrap();
        assert!(parsed.id_is_callers);
        assert_eq!(parsed.batch.head.key.batch_id, "orders-17");
        given.batch_ids[1] = "orders-18".to_owned();
        let mismatch = given.parse("not even a body").unwrap_err();
        assert_eq!(mismatch.to_string(), r#"the batch was given two ids, "orders-17" and "orders-18""#);
    }
}

#[test]
fn more_events_than_a_batch_may_hold_are_refused() {
    for format in FORMATS {
        let good = event(format, "e");
        let full = vec![good.as_str(); BATCH_EVENTS as usize];
        assert_eq!(given(format).parse(body(format, &full)).unwrap().batch.head.received, BATCH_EVENTS);
        let over = [&full[..], &["1"]].concat();
        let refusal = given(format).parse(body(format, &over)).unwrap_err();
        assert_eq!(refusal, Refusal::TooManyEvents { limit: BATCH_EVENTS });
    }
}

#[test]
fn batch_of_bad_events_alone_is_refused_with_their_errors() {
    for format in FORMATS {
        let mut given = given(format);
        given.batch_ids = vec!["orders-17".to_owned()];
        for (events, expected) in [
            (&["1"][..], "the batch's one event can't be stored"),
            (&["1", "{}"], "none of the batch's 2 events can be stored"),
        ] {
            match given.parse(body(format, events)).unwrap_err() {
                Refusal::InvalidBatch { detail, pointer: None, batch_id, errors, .. } => {
                    assert_eq!((detail.as_str(), errors.len()), (expected, events.len()));
                    assert_eq!(batch_id.as_deref(), Some("orders-17"));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn atomic_batch_with_a_bad_event_lists_every_event() {
    for format in FORMATS {
        let mut given = given(format);
        given.atomic = true;
        let place = names(format)[5];
        let [a, b] = ["a", "b"].map(|id| event(format, id));
        match given.parse(body(format, &[&a, "1", &b])).unwrap_err() {
            Refusal::InvalidBatch { detail, errors, .. } => {
                assert_eq!(detail, "atomic was asked for and 1 of 3 events can't be stored; nothing was stored");
                let listed: Vec<_> =
                    errors.iter().map(|error| (error.index, error.event_id.as_deref(), error.code)).collect();
                let expected = [
                    (0, Some("a"), RejectReason::Atomic),
                    (1, None, RejectReason::NotAnObject),
                    (2, Some("b"), RejectReason::Atomic),
                ];
                assert_eq!(listed, expected);
                assert_eq!(errors[2].pointer, format!("{place}/2"));
                assert_eq!(errors[2].detail, "good, but refused with its batch");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(given.parse(body(format, &[&a, &b])).unwrap().batch.head.accepted, 2);
    }
}

#[test]
fn user_is_the_events_own_or_the_payloads() {
    for (member, payload, expected) in [
        (r#","user_id":"own""#, r#"{"user_id":"u"}"#, Some("own")),
        (r#","user_id":"""#, r#"{"user_id":"u"}"#, Some("")),
        (r#","user_id":null"#, r#"{"user_id":"u"}"#, Some("u")),
        ("", r#"{"user_id":"\u00fc"}"#, Some("ü")),
        ("", r#"{"user_id":"a","user_id":"b"}"#, Some("b")),
        ("", r#"{"user_id":"a","user_id":5}"#, None),
        ("", r#"{"user_id":5,"\u0075ser_id":"b"}"#, Some("b")),
        ("", r#"{"user_id":["a"],"x":{"user_id":"b"}}"#, None),
        ("", "{}", None),
    ] {
        let text = event(Format::Json, "e").replace("{\"a\":1}", payload);
        let text = text.replacen(",\"payload\"", &format!("{member},\"payload\""), 1);
        let parsed = given(Format::Json).parse(body(Format::Json, &[&text])).unwrap();
        assert_eq!(only_row(&parsed).user_id, expected, "{member} {payload}");
    }
    // What is not used need not fit.
    let payload = format!("{{\"user_id\":\"{}\"}}", "u".repeat(200));
    let text = event(Format::Json, "e").replace("{\"a\":1}", &format!("{payload},\"user_id\":\"own\""));
    let parsed = given(Format::Json).parse(body(Format::Json, &[&text])).unwrap();
    assert_eq!(only_row(&parsed).user_id, Some("own"));
}
