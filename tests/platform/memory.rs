//! Memories as a person and a graph meet them: the command line, and tools of steps.

use serde_json::Value;

use crate::harness::{convergio, text};

const GRAPH: &str = "
name: remembering
inputs: {type: object, required: [note], properties: {note: {type: string}}}
nodes:
  - id: keep
    tool: memory.store
    with: {subject: 'student:7', text: '{{ inputs.note }}', importance: 800}
  - id: look
    needs: [keep]
    tool: memory.recall
    with: {subject: 'student:7', query: maps, tokens: 50}
output: '{{ nodes.look.output }}'
";

#[test]
fn graphs_and_people_share_what_is_remembered() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let run = |arguments: &[&str]| {
        let output = convergio(&data, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let of = ["--subject", "student:7", "--json"];
    let memory = |arguments: &[&str]| run(&[&["memory"], arguments, &of].concat());
    memory(&["store", "she drew a map of the school"]);
    let manifest = folder.path().join("remembering.yaml");
    std::fs::write(&manifest, GRAPH).expect("writable");
    let manifest = manifest.to_str().expect("a path");
    let found = run(&["graph", "run", manifest, "--input", "note=she likes maps of old cities"]);
    let texts = |list: &Value| -> Vec<String> {
        let items = list.as_array().expect("a list").iter();
        items.map(|item| item["text"].as_str().expect("a text").to_owned()).collect()
    };
    assert_eq!(texts(&found)[0], "she likes maps of old cities");
    assert_eq!(texts(&found).len(), 2);
    let listed = memory(&["list"]);
    assert_eq!(texts(&listed["items"])[0], "she likes maps of old cities");
    let id = listed["items"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(memory(&["forget", &id])["forgotten"], true);
    assert_eq!(texts(&memory(&["recall", "maps"])["items"]), ["she drew a map of the school"]);
    let refused = convergio(&data, &["memory", "list", "--subject", "a b"]);
    assert_eq!(refused.status.code(), Some(2));
}
