//! The JSON Schema of manifests and the parser say the same: the schema accepts what the parser
//! accepts, knows the same keys, and refuses what has the wrong shape.

use std::collections::BTreeSet;
use std::path::Path;

use convergio_domain::graph::parse_manifest;
use convergio_executor::tool;
use jsonschema::Validator;
use serde_json::{Value, json};

pub(crate) fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/manifest/graph.v1.json");
    let text = std::fs::read_to_string(path).expect("the schema is there");
    serde_json::from_str(&text).expect("the schema is JSON")
}

fn validator() -> Validator {
    jsonschema::validator_for(&schema()).expect("the schema is one")
}

/// Objects of a manifest with one key that nobody knows, and where the schema lists the known ones.
fn places() -> Vec<(Value, &'static str)> {
    let node = |body: Value| {
        let mut node = json!({"id": "x"});
        node.as_object_mut().expect("a map").extend(body.as_object().expect("a map").clone());
        json!({"name": "a", "nodes": [node]})
    };
    let strange = json!({"strange": 1});
    vec![
        (json!({"name": "a", "strange": 1, "nodes": [{"id": "x", "sleep": "1s"}]}), "/properties"),
        (
            json!({"name": "a", "budget": strange, "nodes": [{"id": "x", "sleep": "1s"}]}),
            "/$defs/budget/properties",
        ),
        (node(json!({"sleep": "1s", "strange": 1})), "/$defs/node/properties"),
        (node(json!({"sleep": "1s", "retry": strange})), "/$defs/retry/properties"),
        (node(json!({"sleep": "1s", "on_error": strange})), "/$defs/on_error/oneOf/1/properties"),
        (node(json!({"agent": {"prompt": "p", "strange": 1}})), "/$defs/agent/properties"),
        (
            node(json!({"agent": {"prompt": "p", "memory": {"subject": "s", "strange": 1}}})),
            "/$defs/memory/properties",
        ),
        (
            node(json!({"agent": {"prompt": "p", "tools": [{"graph": "g", "strange": 1}]}})),
            "/$defs/agent_tool/oneOf/1/properties",
        ),
        (node(json!({"graph": {"name": "g", "strange": 1}})), "/$defs/graph/oneOf/1/properties"),
        (node(json!({"plan": {"prompt": "p", "strange": 1}})), "/$defs/plan/properties"),
        (
            node(json!({"tool": {"name": "text.trim", "with": {"text": "a"}, "strange": 1}})),
            "/$defs/tool/oneOf/1/properties",
        ),
        (
            node(json!({"branch": {"if": "true", "then": [], "strange": 1}})),
            "/$defs/branch/properties",
        ),
        (
            node(json!({"branch": {"cases": [{"when": "true", "to": [], "strange": 1}]}})),
            "/$defs/branch/properties/cases/items/properties",
        ),
        (
            node(json!({"map": {"over": "{{ [1] }}", "tool": "text.trim",
                "with": {"text": "a"}, "strange": 1}})),
            "/$defs/map/properties",
        ),
        (node(json!({"approval": {"show": "a", "strange": 1}})), "/$defs/approval/properties"),
        (node(json!({"sleep": {"for": "1s", "strange": 1}})), "/$defs/sleep/oneOf/1/properties"),
        (node(json!({"signal": {"name": "a", "strange": 1}})), "/$defs/signal/oneOf/1/properties"),
    ]
}

/// Keys that the parser knows only to say that they are not available.
const REFUSED: [&str; 1] = ["plugin"];

#[test]
fn parser_and_schema_know_the_same_keys() {
    let (schema, validator) = (schema(), validator());
    for (manifest, place) in places() {
        assert!(!validator.is_valid(&manifest), "the schema refuses {manifest}");
        let mistakes =
            parse_manifest(&manifest.to_string(), &tool::builtin_catalog()).expect_err("refused");
        let said = mistakes.iter().find(|m| m.message.contains("unknown key `strange`"));
        let said = &said.unwrap_or_else(|| panic!("{place}: {mistakes:?}")).message;
        let (_, list) = said.split_once("(known: ").expect("a list");
        let known: BTreeSet<_> = list.trim_end_matches(')').split(", ").collect();
        let known: BTreeSet<_> = known.into_iter().filter(|key| !REFUSED.contains(key)).collect();
        let listed = schema.pointer(place).and_then(Value::as_object).expect(place);
        let listed: BTreeSet<_> = listed.keys().map(String::as_str).collect();
        assert_eq!(known, listed, "{place}");
    }
}

#[test]
fn the_schema_accepts_every_example() {
    let validator = validator();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the examples are there") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("text");
        let value = convergio_domain::graph::manifest_to_value(&text).expect("YAML");
        let mistakes: Vec<_> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(mistakes.is_empty(), "{}: {mistakes:?}", path.display());
        count += 1;
    }
    assert!(count >= 4, "{count} examples");
}

#[test]
fn the_schema_refuses_wrong_shapes() {
    let validator = validator();
    let wrong = [
        json!({"nodes": [{"id": "x", "sleep": "1s"}]}),
        json!({"name": "a", "nodes": []}),
        json!({"name": "a", "nodes": [{"id": "x"}]}),
        json!({"name": "a", "nodes": [{"id": "X", "sleep": "1s"}]}),
        json!({"name": "a", "nodes": [{"id": "x", "sleep": "5 years"}]}),
        json!({"name": "a", "nodes": [{"id": "x", "sleep": "1s", "tool": "text.trim"}]}),
        json!({"name": "a", "nodes": [{"id": "x", "branch": {"if": "true"}}]}),
        json!({"name": "a", "nodes": [{"id": "x", "agent": {"prompt": "p", "temperature": 3}}]}),
    ];
    for manifest in wrong {
        assert!(!validator.is_valid(&manifest), "{manifest}");
        assert!(
            parse_manifest(&manifest.to_string(), &tool::builtin_catalog()).is_err(),
            "{manifest}"
        );
    }
}
