use super::*;

fn parsed() -> Value {
    serde_json::from_str(&openapi_json()).unwrap()
}

#[test]
fn document_is_openapi_3_1_and_has_every_route() {
    let document = parsed();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let paths: Vec<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    for route in Route::ALL.iter().filter(|route| **route != Route::Other) {
        assert!(paths.contains(&route.as_str()), "{} is not in {paths:?}", route.as_str());
    }
    assert_eq!(paths.len(), Route::ALL.len() - 1);
}

#[test]
fn every_status_has_an_example_and_every_code_its_place() {
    let document = parsed();
    let mut codes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(response["headers"]["X-Request-Id"].is_object(), "{path} {status}");
                for content in response["content"].as_object().unwrap().values() {
                    assert!(content["example"] != Value::Null || content["examples"] != Value::Null, "{path} {status}");
                    for (code, example) in content["examples"].as_object().into_iter().flatten() {
                        assert_eq!(example["value"]["status"].to_string(), *status);
                        codes.push(code.clone());
                    }
                }
            }
        }
    }
    // These two belong to what is no route of ours.
    let elsewhere = [Code::NotFound, Code::MethodNotAllowed];
    for code in Code::ALL.iter().filter(|code| !elsewhere.contains(code)) {
        assert!(codes.iter().any(|known| known == code.as_str()), "{code:?}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = parsed();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.contains(&"#/components/schemas/Problem"));
    for reference in found {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
}

#[test]
fn limits_are_told() {
    let schemas = &parsed()["components"]["schemas"];
    assert_eq!(schemas["IngestBatch"]["properties"]["events"]["maxItems"], 10_000);
    assert_eq!(schemas["CloudEventBatch"]["maxItems"], 10_000);
    assert_eq!(schemas["IngestEvent"]["properties"]["event_id"]["maxLength"], 256);
    assert_eq!(schemas["IngestEvent"]["properties"]["service_name"]["maxLength"], 128);
    let required = serde_json::json!(["event_id", "service_name", "event_type", "payload"]);
    assert_eq!(schemas["IngestEvent"]["required"], required);
    let codes = schemas["Code"]["enum"].as_array().unwrap();
    assert!(codes.iter().map(|code| code.as_str().unwrap()).eq(Code::ALL.iter().map(|code| code.as_str())));
}
