//! Runs that are paused, told of signals, forked and compared by the command line, over a kill -9.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Server, convergio, text};

const GRAPH: &str = r#"
name: steered
inputs: {type: object, properties: {text: {type: string}}}
output: "{{ nodes.end.output }}"
nodes:
  - {id: first, tool: text.trim, with: {text: " {{ inputs.text }} "}}
  - {id: go, signal: go, needs: [first]}
  - {id: end, tool: text.trim, with: {text: "{{ nodes.first.output }} {{ nodes.go.output.n }}"}}
"#;

/// What a command prints as JSON.
fn json_of(data: &Path, arguments: &[&str]) -> Value {
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    let output = convergio(data, &arguments);
    // 4: detached.
    let is_fine = matches!(output.status.code(), Some(0 | 4));
    assert!(is_fine, "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stdout)))
}

/// A command that is refused, with its code and in one line.
fn refused(data: &Path, arguments: &[&str], code: &str) {
    let output = convergio(data, arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(said.contains(code) && said.lines().count() == 1, "{said}");
}

#[tokio::test]
async fn runs_are_steered_by_the_command_line_and_survive_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let manifest = data.join("graph.yaml");
    std::fs::write(&manifest, GRAPH).expect("writable");
    let server = Server::start(data);
    let file = manifest.to_str().expect("a path");
    let started = json_of(data, &["graph", "run", file, "--input", "text=hi", "--detach"]);
    let run = started["run_id"].as_str().expect("a run").to_owned();
    let run = run.as_str();
    assert_eq!(json_of(data, &["runs", "pause", run])["status"], "paused");
    let told = json_of(data, &["runs", "signal", run, "go", "--payload", r#"{"n": 1}"#]);
    assert_eq!(told["status"], "paused");
    server.kill();

    let server = Server::start(data);
    assert_eq!(json_of(data, &["runs", "show", run])["status"], "paused", "as it was");
    let before = json_of(data, &["runs", "state", run]);
    assert_ne!(before["steps"][0]["step"], "end");
    json_of(data, &["runs", "resume", run]);
    let ended = server.ended(run).await;
    assert_eq!((&ended["status"], &ended["output"]), (&json!("completed"), &json!("hi 1")));
    refused(data, &["runs", "resume", run], "run.not_resumable");
    refused(data, &["runs", "retry", run], "run.not_resumable");
    refused(data, &["runs", "fork", run], "run.not_resumable");
    refused(data, &["runs", "fork", run, "--at", "999"], "no event 999");

    // Before the end: the step that waited has its signal, and what follows is done again.
    let at = (ended["seq"].as_u64().expect("a number") - 1).to_string();
    let fork = json_of(data, &["runs", "fork", run, "--at", &at, "--input", "text=ho"]);
    let fork = fork["run_id"].as_str().expect("a run");
    let branch = server.ended(fork).await;
    assert_eq!(branch["output"], "hi 1", "{branch}");
    assert_eq!(branch["steps"][0]["is_inherited"], true);
    let replayed = json_of(data, &["replay", fork]);
    assert_eq!(replayed["diverges"], Value::Null);
    let early = json_of(data, &["runs", "fork", run, "--at", "1", "--input", "text=ho"]);
    let early = early["run_id"].as_str().expect("a run");
    json_of(data, &["runs", "signal", early, "go", "--payload", r#"{"n": 2}"#]);
    assert_eq!(server.ended(early).await["output"], "ho 2");
    let diff = json_of(data, &["runs", "diff", run, early]);
    assert_eq!(diff["common"], json!({"run_id": run, "seq": 1}));
    assert_eq!(diff["steps"].as_array().map(Vec::len), Some(3), "{diff}");
    json_of(data, &["runs", "checkpoints", "save", early, "--label", "done"]);
    let kept = json_of(data, &["runs", "checkpoints", "list", early]);
    assert!(kept["events"].as_array().is_some_and(|events| !events.is_empty()), "{kept}");
    let shown = json_of(data, &["runs", "state", early]);
    assert!(json_of(data, &["runs", "checkpoints", "drop"])["dropped"].as_u64() > Some(0));
    assert_eq!(json_of(data, &["runs", "state", early]), shown, "dropping changes nothing");
    server.kill();
    let checked = convergio(data, &["projections", "check"]);
    assert!(checked.status.success(), "{}", text(&checked.stdout));
}

const MISTAKEN: &str = r#"
name: mistaken
output: "{{ nodes.last.output.title }}"
nodes:
  - {id: go, signal: go}
  - {id: last, tool: text.trim, with: {text: "{{ nodes.go.output }}"}}
"#;

#[tokio::test]
async fn a_run_that_failed_by_its_output_is_mended_by_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let manifest = data.join("graph.yaml");
    std::fs::write(&manifest, MISTAKEN).expect("writable");
    let file = manifest.to_str().expect("a path");
    let server = Server::start(data);
    let started = json_of(data, &["graph", "run", file, "--detach"]);
    let run = started["run_id"].as_str().expect("a run").to_owned();
    json_of(data, &["runs", "signal", &run, "go", "--payload", " done "]);
    assert_eq!(server.ended(&run).await["status"], "failed");
    refused(data, &["runs", "retry", &run], "runs amend");
    refused(data, &["runs", "amend", &run], "nothing is amended");
    let corrected = data.join("corrected.yaml");
    std::fs::write(&corrected, MISTAKEN.replace(".output.title", ".output")).expect("writable");
    let corrected = corrected.to_str().expect("a path");
    json_of(data, &["runs", "amend", &run, "--graph", corrected, "--reason", "no such field"]);
    let ended = server.ended(&run).await;
    assert_eq!((&ended["status"], &ended["output"]), (&json!("completed"), &json!("done")));
    let replayed = json_of(data, &["replay", &run]);
    assert_eq!(replayed["diverges"], Value::Null, "{replayed}");
    server.kill();
}
