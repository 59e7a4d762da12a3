//! Compares each answer of each test with what `forebay openapi` promises.

use std::{process::Command, sync::OnceLock};

use serde_json::Value;

use super::{answer::Answer, command::PROGRAM};

/// Returns the document.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let output = Command::new(PROGRAM).arg("openapi").output().unwrap();
        assert!(output.status.success(), "forebay openapi: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("the document is JSON")
    })
}

/// Asserts that the document knows this answer: path, method, status, code, headers and the form of the body.
pub fn check(method: &str, path: &str, answer: &Answer) {
    let path = path.split('?').next().unwrap_or_default();
    let Some(operations) = operations(path) else {
        // Paths that are not in it: the admin port's, the assets of the docs, and those that do not exist.
        return;
    };
    if answer.status == 404 && answer.json()["code"] == "not_found" {
        // The path exists at the other port.
        return;
    }
    let Some(operation) = operations.get(method.to_lowercase()) else {
        assert!(method == "HEAD" || method == "OPTIONS" || answer.status == 405, "not in the OpenAPI: {answer}");
        return;
    };
    let response = resolve(&operation["responses"][answer.status.to_string()]);
    assert!(response.is_object(), "the OpenAPI lacks this status: {answer}");
    for (header, promise) in response["headers"].as_object().into_iter().flatten() {
        let is_there = answer.header(header).is_some();
        assert!(is_there || resolve(promise)["required"] != true, "{header} is promised: {answer}");
    }
    let media_type = essence(answer.header("content-type").unwrap_or_default());
    let content = response["content"].as_object().into_iter().flatten();
    let mut content = content.map(|(name, content)| (essence(name), content));
    let content = content.find(|(name, _)| *name == media_type);
    assert!(content.is_some() || method == "HEAD", "the OpenAPI lacks this content type: {answer}");
    let Some((_, content)) = content else { return };
    if media_type.ends_with("json") {
        let body = answer.json();
        let mut wrong = Vec::new();
        compare(&content["schema"], &body, "", &mut wrong);
        assert!(wrong.is_empty(), "not as the OpenAPI says: {wrong:#?}\n{answer}");
        if let Some(code) = body.get("code").and_then(Value::as_str) {
            assert!(response.to_string().contains(code), "the OpenAPI lacks this code: {answer}");
        }
    }
}

/// Returns a media type without its parameters.
fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

fn operations(path: &str) -> Option<&'static Value> {
    let paths = document()["paths"].as_object()?;
    let found = paths.iter().find(|(template, _)| {
        let (template, path) = (template.split('/'), path.split('/'));
        template.clone().count() == path.clone().count()
            && template.zip(path).all(|(part, text)| part == text || part.starts_with('{'))
    });
    found.map(|(_, operations)| operations)
}

fn resolve(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(pointer) => resolve(document().pointer(&pointer[1..]).expect("the reference leads somewhere")),
        None => value,
    }
}

/// Compares a value with the parts of JSON Schema that the document uses; notes what is wrong.
fn compare(schema: &'static Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let schema = resolve(schema);
    let mut note = |what: &str| wrong.push(format!("{at}: {value} {what}"));
    if let Some(types) = schema.get("type") {
        let allows = |name: &str| types == name || types.as_array().is_some_and(|list| list.iter().any(|t| t == name));
        if !type_names(value).iter().any(|name| allows(name)) {
            note(&format!("is no {types}"));
        }
    }
    if schema["enum"].as_array().is_some_and(|list| !list.contains(value)) {
        note(&format!("is none of {}", schema["enum"]));
    }
    if let (Some(number), Some(least)) = (value.as_f64(), schema["minimum"].as_f64())
        && number < least
    {
        note(&format!("is below {least}"));
    }
    if let Some(object) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !object.contains_key(name.as_str().unwrap_or_default()) {
                wrong.push(format!("{at}: lacks {name}"));
            }
        }
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(value) = object.get(name) {
                compare(schema, value, &format!("{at}/{name}"), wrong);
            }
        }
        if let Some(properties) = schema["properties"].as_object() {
            let unknown = object.keys().filter(|name| !properties.contains_key(*name));
            wrong.extend(unknown.map(|name| format!("{at}: has {name}, which is not told")));
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        if let Some(schema) = schema.get("items") {
            compare(schema, item, &format!("{at}/{index}"), wrong);
        }
    }
    let fits = |schema: &'static Value| {
        let mut wrong = Vec::new();
        compare(schema, value, at, &mut wrong);
        wrong.is_empty()
    };
    for keyword in ["oneOf", "anyOf"] {
        if schema[keyword].as_array().is_some_and(|options| !options.iter().any(&fits)) {
            wrong.push(format!("{at}: {value} fits no {keyword}"));
        }
    }
}

fn type_names(value: &Value) -> &'static [&'static str] {
    match value {
        Value::Null => &["null"],
        Value::Bool(_) => &["boolean"],
        Value::Number(number) if number.is_f64() => &["number"],
        Value::Number(_) => &["integer", "number"],
        Value::String(_) => &["string"],
        Value::Array(_) => &["array"],
        Value::Object(_) => &["object"],
    }
}
