use super::*;
use proptest::prelude::*;
use serde::de::IgnoredAny;

/// Reads `text` as one document.
fn read(text: &str) -> Result<Value<'_>, Malformed> {
    let mut scan = Scanner::new(text);
    let value = scan.value(0)?;
    scan.end().map(|()| value)
}

/// Reads `text` as one document, its outermost members or elements one by one.
fn read_in_steps(text: &str) -> Result<(), Malformed> {
    let mut scan = Scanner::new(text);
    let mut first = true;
    match scan.peek() {
        Some(b'{') => {
            scan.enter();
            while scan.next_member(&mut first)?.is_some() {
                scan.value(0)?;
            }
        }
        Some(b'[') => {
            scan.enter();
            while scan.next_element(&mut first)? {
                scan.value(0)?;
            }
        }
        _ => drop(scan.value(0)?),
    }
    scan.end()
}

fn fault(text: &str) -> Option<Fault> {
    read(text).unwrap().fault
}

/// The verdict of `serde_json`. What it ignores it reads without recursion and without a look at surrogates, as the scanner.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Pieces of JSON that make a document, or nearly one, when they are put together.
fn soup() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"b\":",
        "0",
        "1",
        "-",
        "12",
        "1.5",
        ".",
        "e",
        "E+",
        "3e-7",
        "true",
        "false",
        "null",
        "nul",
        " ",
        "\n",
        "\t",
        "\r",
        "\\",
        "\\n",
        "\\u",
        "\\u0041",
        "\\ud83d\\ude00",
        "\\x",
        "\u{7f}",
        "ü",
        "😀",
        "\u{0}",
        "\u{1f}",
        "\u{a0}",
        "\"longer than a word\"",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..12).prop_map(|pieces| pieces.concat())
}

/// A document, written with spaces here and there.
fn document() -> impl Strategy<Value = String> {
    let space = || prop::sample::select(&["", "", "", " ", "\n", "\t ", "\r\n"][..]);
    let string = || {
        let piece =
            prop_oneof!["[a-z]{0,9}", "[ -!#-\\[\\]-~]{0,20}", r#"\\["\\/bfnrt]"#, r"\\u[0-9a-fA-F]{4}", "\\PC{0,4}"];
        prop::collection::vec(piece, 0..4).prop_map(|pieces| {
            let inside: String = pieces.concat();
            serde_json::from_str::<IgnoredAny>(&format!("\"{inside}\""))
                .map_or("\"x\"".to_owned(), |_| format!("\"{inside}\""))
        })
    };
    let leaf = prop_oneof![
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,5})?",
        string(),
        prop::sample::select(&["true", "false", "null", "{}", "[]", "{ }", "[\n]"][..]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(6, 40, 5, move |inner| {
        let member = (string(), space(), space(), inner.clone(), space());
        let members = prop::collection::vec(member, 1..5).prop_map(|members| {
            let members: Vec<String> =
                members.into_iter().map(|(key, a, b, value, c)| format!("{a}{key}{b}:{a}{value}{c}")).collect();
            format!("{{{}}}", members.join(","))
        });
        let elements = prop::collection::vec((space(), inner, space()), 1..5).prop_map(|elements| {
            let elements: Vec<String> = elements.into_iter().map(|(a, value, b)| format!("{a}{value}{b}")).collect();
            format!("[{}]", elements.join(","))
        });
        prop_oneof![members, elements]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn documents_are_accepted(text in document()) {
        prop_assert!(is_json(&text), "{}", text);
        prop_assert_eq!(read(&text).map(|value| value.raw), Ok(text.trim_ascii()));
        prop_assert_eq!(read_in_steps(&text), Ok(()));
    }

    #[test]
    fn damaged_documents_are_judged_as_serde_json_judges_them(
        text in document(),
        at in any::<prop::sample::Index>(),
        (cut, put) in (0..4_usize, "[\\]{}\\[,:\"\\\\0-9eE.+ \\-tfnua\u{1}\u{e9}]{0,2}"),
    ) {
        let mut chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        let end = chars.len().min(at + cut);
        chars.splice(at..end, put.chars());
        let text: String = chars.into_iter().collect();
        prop_assert_eq!(read(&text).is_ok(), is_json(&text), "{:?}", text);
        prop_assert_eq!(read_in_steps(&text).is_ok(), is_json(&text), "{:?}", text);
    }

    #[test]
    fn pieces_of_json_are_judged_as_serde_json_judges_them(text in soup()) {
        prop_assert_eq!(read(&text).is_ok(), is_json(&text), "{:?}", text);
        prop_assert_eq!(read_in_steps(&text).is_ok(), is_json(&text), "{:?}", text);
    }

    #[test]
    fn any_text_is_judged_as_serde_json_judges_it(text in "\\PC{0,30}") {
        prop_assert_eq!(read(&text).is_ok(), is_json(&text), "{:?}", text);
    }

    #[test]
    fn texts_stand_for_what_serde_json_reads(
        pieces in prop::collection::vec(
            prop_oneof!["[a-z]{0,12}", r#"\\["\\/bfnrt]"#, r"\\u[0-9a-fA-F]{4}", r"\\ud[89abAB][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}", "[^\"\\\\\\x00-\\x1f]{0,3}"],
            0..6,
        ),
    ) {
        let text = format!("\"{}\"", pieces.concat());
        let value = read(&text).unwrap();
        let expected: Option<String> = serde_json::from_str(&text).ok();
        match value.fault {
            None => prop_assert_eq!(value.text(&mut Vec::new()).map(str::to_owned), expected),
            Some(Fault::LoneSurrogate) => {
                prop_assert!(expected.is_none() || expected.unwrap().contains('\0'));
            }
            Some(fault) => {
                prop_assert_eq!(fault, Fault::NulCharacter);
                prop_assert!(expected.is_none_or(|text| text.contains('\0')));
            }
        }
    }

    #[test]
    fn brackets_match_at_any_depth(opens in prop::collection::vec(any::<bool>(), 1..300), slip in any::<Option<prop::sample::Index>>()) {
        let mut text: String = opens.iter().map(|object| if *object { "{\"a\":" } else { "[" }).collect();
        text.push('1');
        let slip = slip.map(|slip| slip.index(opens.len()));
        for (level, object) in opens.iter().enumerate().rev() {
            text.push(if *object == (slip != Some(level)) { '}' } else { ']' });
        }
        let read = read(&text);
        prop_assert_eq!(read.is_ok(), slip.is_none());
        let too_deep = (opens.len() > 64).then_some(Fault::NestingTooDeep);
        prop_assert_eq!(read.ok().map(|value| value.fault), slip.is_none().then_some(too_deep));
    }
}

#[test]
fn keys_come_without_their_escapes() {
    let mut scan = Scanner::new(r#" { "plain" :1 , "\u0061\"\ud83d\ude00\/":2,"\ud800":3,"":4 } "#);
    assert_eq!(scan.peek(), Some(b'{'));
    scan.enter();
    let mut first = true;
    let mut keys = Vec::new();
    while let Some(key) = scan.next_member(&mut first).unwrap() {
        keys.push(key.into_owned());
        scan.value(0).unwrap();
    }
    let expected: [&[u8]; 4] = [b"plain", "a\"😀/".as_bytes(), b"\xed\xa0\x80", b""];
    assert_eq!(keys, expected);
    assert_eq!(scan.end(), Ok(()));
}

#[test]
fn what_cannot_be_stored_is_found_wherever_it_stands() {
    for (text, expected) in [
        (r#""a\u0000""#, Fault::NulCharacter),
        (r#"{"a\u0000":1}"#, Fault::NulCharacter),
        (r#"[[{"k":"\u0000"}]]"#, Fault::NulCharacter),
        (r#""\ud800""#, Fault::LoneSurrogate),
        (r#""\udc00""#, Fault::LoneSurrogate),
        (r#""\ud800\ud800""#, Fault::LoneSurrogate),
        (r#""\ud800\\udc00""#, Fault::LoneSurrogate),
        (r#""\udc00\ud800""#, Fault::LoneSurrogate),
        (r#"{"\uDBFF":1}"#, Fault::LoneSurrogate),
        ("[1e1001]", Fault::NumberOutOfRange),
        ("[-1E-1001]", Fault::NumberOutOfRange),
        ("1e99999999999999999999", Fault::NumberOutOfRange),
        (&format!("1e{}1", "0".repeat(1000)), Fault::NumberOutOfRange),
        (&"9".repeat(1001), Fault::NumberOutOfRange),
        (&format!("0.{}", "0".repeat(1000)), Fault::NumberOutOfRange),
        (&format!("[{}]", "[".repeat(64) + &"]".repeat(64)), Fault::NestingTooDeep),
        (r#"["\ud800","\u0000",1e9999]"#, Fault::LoneSurrogate),
    ] {
        assert_eq!(fault(text), Some(expected), "{text}");
    }
}

#[test]
fn every_byte_is_judged_alike_wherever_it_stands_in_a_string() {
    for byte in 0..0x80_u8 {
        for before in 0..17 {
            for after in [0, 20] {
                let inside = format!("{}{}{}", "é".repeat(before), char::from(byte), "x".repeat(after));
                let (value, document) = (format!("\"{inside}\""), format!("{{\"{inside}\":0}}"));
                assert_eq!(read(&value).is_ok(), is_json(&value), "{value:?}");
                assert_eq!(read(&document).is_ok(), is_json(&document), "{document:?}");
            }
        }
    }
}

#[test]
fn what_lies_just_within_the_limits_has_no_fault() {
    for text in [
        r#""\u0001\ud83d\ude00\\u0000""#,
        r#""\ud83D\uDE00""#,
        "1e1000",
        "1E-0001000",
        "-1e+1000",
        &"9".repeat(1000),
        &format!("-0.{}", "0".repeat(999)),
        &format!("{}{}", "[".repeat(64), "]".repeat(64)),
        &format!("[{}]", "[[]],".repeat(100) + "0"),
    ] {
        assert_eq!(fault(text), None, "{text}");
    }
}

#[test]
fn levels_above_count_too() {
    let text = format!("{}{}", "[".repeat(64), "]".repeat(64));
    assert_eq!(Scanner::new(&text).value(1).unwrap().fault, Some(Fault::NestingTooDeep));
    assert_eq!(Scanner::new(&text[1..127]).value(1).unwrap().fault, None);
}

#[test]
fn bomb_of_brackets_is_read_without_recursion() {
    const DEPTH: usize = 1_000_000;
    let lists = "[".repeat(DEPTH) + &"]".repeat(DEPTH);
    assert_eq!(fault(&lists), Some(Fault::NestingTooDeep));
    let objects = "{\"\":".repeat(DEPTH) + "0" + &"}".repeat(DEPTH);
    assert_eq!(fault(&objects), Some(Fault::NestingTooDeep));
    assert_eq!(read(&lists[..DEPTH]).map(|value| value.fault).unwrap_err().at, DEPTH);
    assert_eq!(read(&(lists + "]")).map(|value| value.fault).unwrap_err().what, "the text should end here");
}

#[test]
fn place_of_the_first_mistake_is_told() {
    for (text, at) in [
        ("", 0),
        ("  ", 2),
        ("{\"a\" 1}", 5),
        ("{\"a\":1,}", 7),
        ("[1 2]", 3),
        ("[1,]", 3),
        ("\"a\nb\"", 2),
        ("\"\\x\"", 1),
        ("01", 1),
        ("[-]", 2),
        ("1 x", 2),
        ("\u{feff}{}", 0),
        ("{a:1}", 1),
        ("[\"abc", 5),
    ] {
        assert_eq!(read(text).map(|value| value.fault).unwrap_err().at, at, "{text:?}");
    }
}
