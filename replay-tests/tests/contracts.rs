//! The written form of every event: one sample each, which must be read and written unchanged.

use std::collections::BTreeSet;
use std::path::Path;

use convergio_domain::event::{decode_event, decode_event_text};
use serde_json::Value;

/// Every written type that the decoder knows.
fn all_types() -> BTreeSet<String> {
    let none = serde_json::json!({"type": "none", "data": {}});
    let told = decode_event(none).expect_err("there is no such event").to_string();
    let known = told.split_once("expected one of").expect("it tells them").1;
    known.split('`').filter(|word| word.contains('.')).map(str::to_owned).collect()
}

#[test]
fn every_sample_is_read_and_written_unchanged() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/events");
    let mut types = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("the samples are there") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("text");
        let sample: Value = serde_json::from_str(&text).expect("JSON");
        let event = decode_event(sample.clone()).unwrap_or_else(|error| panic!("{error}"));
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        assert_eq!(event.type_name(), name);
        let data = sample["data"].to_string();
        assert_eq!(
            decode_event_text(&name, &data).unwrap_or_else(|error| panic!("{error}")),
            event
        );
        assert_eq!(serde_json::to_value(&event).expect("JSON"), sample, "{name}");
        types.insert(name);
    }
    assert_eq!(types, all_types(), "each type has its sample");
}

#[test]
fn an_unknown_type_is_named() {
    let unknown = serde_json::json!({"type": "run.vanished.v1", "data": {}});
    let error = decode_event(unknown).expect_err("nobody knows it");
    assert!(error.to_string().contains("run.vanished.v1"));
    let error = decode_event_text("run.vanished.v1", "{}").expect_err("nobody knows it");
    assert!(error.to_string().contains("run.vanished.v1"));
    assert!(decode_event_text("run.cancelled.v1", "{} {}").is_err(), "nothing may follow the data");
}
