//! The OpenAPI document is the committed one, and every code of an error has its page.

use std::path::Path;

use convergio_schemas::error_code::ALL;
use serde_json::Value;

fn schemas() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

/// Run with CONVERGIO_UPDATE=1 to write the document anew.
#[test]
fn the_document_is_the_committed_one() {
    let document = convergio_gateway::openapi_document().to_pretty_json().expect("JSON");
    let file = schemas().join("openapi/gateway.v1.json");
    if std::env::var_os("CONVERGIO_UPDATE").is_some() {
        std::fs::write(&file, format!("{document}\n")).expect("writable");
    }
    let committed = std::fs::read_to_string(file).expect("the document is committed");
    assert_eq!(committed.trim(), document, "run with CONVERGIO_UPDATE=1 and look at the change");
}

#[test]
fn every_response_is_described() {
    let document = serde_json::to_value(convergio_gateway::openapi_document()).expect("JSON");
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for operation in operations.as_object().expect("operations").values() {
            for response in operation["responses"].as_object().expect("responses").values() {
                let description = response["description"].as_str().unwrap_or("");
                assert!(!description.is_empty(), "{path}: {response}");
            }
            assert!(matches!(operation["summary"], Value::String(_)), "{path}");
        }
    }
}

#[test]
fn every_code_has_its_page() {
    for code in ALL {
        let page = schemas().join(format!("errors/{}.md", code.code));
        let page = std::fs::read_to_string(page).unwrap_or_else(|_| panic!("{}", code.code));
        assert!(page.contains(&code.status.to_string()), "{}", code.code);
    }
}
