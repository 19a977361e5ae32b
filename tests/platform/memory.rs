//! Memories as a person and a graph meet them: the command line, and tools of steps.

use serde_json::Value;

use crate::harness::{BINARY, convergio, model_url, text};

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

const KNOWING: &str = "
name: knowing
nodes:
  - id: tell
    agent:
      model: local
      prompt: What is the name of her cat?
      max_tokens: 12
      memory: {subject: 'student:7', max_tokens: 50}
output: '{{ nodes.tell.output }}'
";

#[test]
fn the_real_model_is_told_what_its_agent_remembers() {
    let Some(url) = model_url() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(BINARY);
        command.arg("--data").arg(&data).args(arguments).env("CONVERGIO_MODEL_URL", &url);
        let output = command.output().expect("the binary runs");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    run(&["memory", "store", "her cat is called Minka", "--subject", "student:7"]);
    let manifest = folder.path().join("knowing.yaml");
    std::fs::write(&manifest, KNOWING).expect("writable");
    run(&["graph", "run", manifest.to_str().expect("a path")]);
    let runs: Value = serde_json::from_str(&run(&["runs", "list", "--json"])).expect("JSON");
    let id = runs["items"][0]["id"].as_str().expect("a run").to_owned();
    let file = folder.path().join("run.jsonl");
    run(&["runs", "export", &id, "-o", file.to_str().expect("a path")]);
    let told = std::fs::read_to_string(&file).expect("readable");
    let prompt = told.lines().find(|line| line.contains("What you remember"));
    assert!(prompt.expect("it is told").contains("her cat is called Minka"));
    let replayed = run(&["replay", &id, "--json"]);
    let report: Value = serde_json::from_str(&replayed).expect("JSON");
    assert_eq!((&report["status"], &report["unknown"]), (&"completed".into(), &Value::Null));
}
