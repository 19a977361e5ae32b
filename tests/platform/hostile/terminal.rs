//! Texts that would steer a terminal are printed as texts by every command, and JSON keeps them.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::words::asked;
use crate::harness::{Server, convergio, text};

/// Wipes the line, sets clipboard and title, turns the direction, hides letters.
const ATTACK: &str = "harmless\u{1b}[2K\u{1b}[1G\u{1b}]52;c;ZXZpbA==\u{7}\u{1b}]0;pwned\u{7}\
    \u{9b}31m\u{202e}EVORPPA\u{200b}\u{e0041}\r\u{7f}\u{8}";
/// How the first of it is shown.
const SHOWN: &str = r"harmless\u{1b}[2K\u{1b}[1G\u{1b}]52;c;ZXZpbA==\u{7}";

const GRAPH: &str = r#"
name: hostile
inputs: {type: object, required: [s], properties: {s: {type: string}}}
output: "{{ inputs.s }}"
nodes:
  - {id: ask, approval: {role: owner, show: "{{ inputs.s }}\nsecond line", ttl: 1h}}
  - {id: bad, needs: ask, tool: text.trim, with: {text: x}}
  - {id: sum, on_error: skip, graph: {name: numbers, inputs: {n: "{{ inputs.s }}"}}}
"#;
const NUMBERS: &str = r"
name: numbers
inputs: {type: object, properties: {n: {type: integer}}}
nodes: [{id: a, tool: text.trim, with: {text: x}}]
";

/// Whether a letter would do something else than be seen.
fn steers(letter: char) -> bool {
    let is_hidden = matches!(letter,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{e0000}'..='\u{e0fff}');
    (letter.is_control() && letter != '\n') || is_hidden
}

fn check(what: &str, bytes: &[u8]) -> String {
    let printed = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let found = printed.chars().find(|letter| steers(*letter));
    assert_eq!(found, None, "{what}: {printed:?}");
    printed
}

/// Runs a command; neither what it prints nor what it says steers anything.
fn shown(data: &Path, arguments: &[&str]) -> (String, Output) {
    let output = convergio(data, arguments);
    let printed = check(&format!("{arguments:?}"), &output.stdout);
    check(&format!("errors of {arguments:?}"), &output.stderr);
    (printed, output)
}

fn json_of(data: &Path, arguments: &[&str]) -> Value {
    let (printed, output) = shown(data, &[arguments, &["--json"]].concat());
    serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

#[tokio::test]
async fn what_strangers_write_is_shown_as_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = Server::start(data);
    server.post("/v1/graphs", NUMBERS.to_owned()).await;
    let (_, graph) = server.post("/v1/graphs", GRAPH.to_owned()).await;
    let graph = graph["id"].as_str().expect("an id").to_owned();
    let (_, accepted) = server.execute(&graph, &json!({"s": ATTACK}), None).await;
    let run = accepted["run_id"].as_str().expect("a run").to_owned();
    let asked = asked(&server, &run).await;
    let id = asked["id"].as_str().expect("an id");

    let (printed, _) = shown(data, &["approvals", "show", id]);
    assert!(printed.contains(SHOWN) && printed.contains("\nsecond line"), "{printed}");
    let hash = asked["content_hash"].as_str().expect("a hash");
    assert!(printed.contains(hash), "what the answer is bound to: {printed}");
    let as_json = json_of(data, &["approvals", "show", id]);
    assert_eq!(as_json["content"], format!("{ATTACK}\nsecond line"), "the value is whole");

    shown(data, &["approvals", "answer", id, "--deny", "--reason", ATTACK]);
    server.ended(&run).await;
    let (printed, _) = shown(data, &["runs", "show", &run]);
    assert!(printed.contains(SHOWN), "the failures in full: {printed}");
    let (printed, _) = shown(data, &["runs", "debug", &run, "--json"]);
    assert!(printed.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    shown(data, &["runs", "events", &run, "--payloads"]);
    shown(data, &["audit", "--run", &run]);
    let memory = json!({"subject": "pupil", "text": format!("{ATTACK}{}", "long ".repeat(40))});
    server.post("/v1/memories", memory.to_string()).await;
    let (printed, _) = shown(data, &["memory", "list", "--subject", "pupil"]);
    assert!(printed.contains(" more)"), "what is cut is counted: {printed}");
    let (_, output) = shown(data, &["runs", "show", ATTACK]);
    assert_ne!(output.status.code(), Some(0));
}
