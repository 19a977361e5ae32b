//! Ctrl-C leaves a run to itself: it goes on in the background, or on the server that has it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::{BINARY, Server, convergio, text};

/// A graph that outlives the client that started it.
const NAP: &str = "name: nap\nnodes:\n  - {id: nap, sleep: 2s}\n  \
    - {id: end, needs: [nap], tool: text.trim, with: {text: awake}}\n\
    output: \"{{ nodes.end.output }}\"\n";

/// Starts a run and gives the process and the run's id once its first event is shown.
fn start(data: &Path) -> (Child, String) {
    let manifest = data.join("nap.yaml");
    std::fs::write(&manifest, NAP).expect("writable");
    let mut child = Command::new(BINARY)
        .arg("--data")
        .arg(data)
        .args(["--json", "graph", "run"])
        .arg(manifest)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.as_mut().expect("piped")).lines();
    let first = lines.next().expect("an event").expect("text");
    let event: Value = serde_json::from_str(&first).expect("JSON");
    let stream = event["value"]["stream"].as_str().unwrap_or_else(|| panic!("{first}"));
    let run = stream.strip_prefix("run/").expect("a run's stream").to_owned();
    (child, run)
}

/// Presses Ctrl-C, and checks that the client says goodbye.
fn interrupt(child: Child) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().expect("kill is there");
    assert!(sent.success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
}

/// Waits until the run is completed, by the commands that a user has.
fn completed(data: &Path, run: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let shown = convergio(data, &["runs", "show", run, "--json"]);
        let view: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        if view["status"] == "completed" {
            assert_eq!(view["output"], "awake");
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{view} {}", text(&shown.stderr));
    }
}

#[test]
fn a_run_without_a_server_goes_on_in_the_background() {
    let folder = tempfile::tempdir().expect("a folder");
    let (child, run) = start(folder.path());
    interrupt(child);
    completed(folder.path(), &run);
}

#[test]
fn a_run_on_a_server_goes_on_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let _server = Server::start(folder.path());
    let (child, run) = start(folder.path());
    interrupt(child);
    completed(folder.path(), &run);
}
