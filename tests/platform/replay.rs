//! `convergio replay` on a real run of the binary, and against another graph.

use std::time::Instant;

use convergio_test_support::nats::{Cluster, READY, SyncMode};
use serde_json::Value;

use crate::harness::{convergio, repository, text};

fn json(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

#[test]
fn a_run_is_computed_again_and_a_changed_graph_is_named_by_its_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let example = repository("examples/parallel.yaml");
    let example = example.to_str().expect("a path");
    let ran = convergio(data, &["graph", "run", example]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let runs = json(&convergio(data, &["runs", "list", "--json"]));
    let run = runs["items"][0]["id"].as_str().expect("a run").to_owned();

    let same = convergio(data, &["replay", &run, "--json"]);
    assert!(same.status.success(), "{}", text(&same.stdout));
    let report = json(&same);
    assert_eq!((&report["status"], &report["diverges"]), (&"completed".into(), &Value::Null));
    assert!(report["decisions"].as_u64() > Some(50), "{report}");

    let early = json(&convergio(data, &["replay", &run, "--at", "3", "--json"]));
    assert_eq!((&early["seq"], &early["status"]), (&3.into(), &"running".into()));

    let changed = std::fs::read_to_string(example).expect("there").replace("- id: ", "- id: new_");
    let changed = changed.replace("nodes.", "nodes.new_");
    let file = data.join("changed.yaml");
    std::fs::write(&file, changed).expect("writable");
    let file = file.to_str().expect("a path");
    let other = convergio(data, &["replay", &run, "--graph", file, "--json"]);
    assert_eq!(other.status.code(), Some(1), "{}", text(&other.stderr));
    let found = &json(&other)["diverges"];
    assert!(
        found["step"].is_string() && found["computed"] == "the graph has no such node",
        "{found}"
    );

    let beyond = convergio(data, &["replay", &run, "--at", "100000"]);
    assert_eq!(beyond.status.code(), Some(2));
    assert!(text(&beyond.stderr).contains("there is no event 100000"), "{}", text(&beyond.stderr));
    let nobody = convergio(data, &["replay", "01920000-0000-7000-8000-000000000000"]);
    assert!(!nobody.status.success() && text(&nobody.stderr).lines().count() == 1);
}

/// Replays a run on the log in the data folder, or on a cluster's.
fn replayed(data: &std::path::Path, run: &str, log: &[&str]) -> Value {
    let output = convergio(data, &[&["replay", run, "--json"], log].concat());
    assert!(output.status.success(), "{run}: {}{}", text(&output.stdout), text(&output.stderr));
    json(&output)
}

#[test]
fn every_golden_run_is_the_same_on_both_logs() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let archive = data.join("archive");
    let archive = archive.to_str().expect("a path");
    let done = |arguments: &[&str]| {
        let output = convergio(data, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        output
    };
    let golden = std::fs::read_dir(repository("replay-tests/golden")).expect("golden runs");
    let files = golden.map(|entry| entry.expect("an entry").path());
    let files = files.filter(|file| file.extension().is_some_and(|end| end == "jsonl"));
    let imported = files.map(|file| {
        let file = file.to_str().expect("a path").to_owned();
        let told = json(&done(&["runs", "import", &file, "--json"]));
        told["run"].as_str().expect("a run").to_owned()
    });
    let runs: Vec<String> = imported.collect();
    assert!(runs.len() > 20, "{}", runs.len());
    done(&["log", "export", archive]);
    let cluster = Cluster::start(1, SyncMode::Always);
    let url = cluster.url("G");
    let log = ["--log", &url, "--durability", "fsync"];
    let until = Instant::now() + READY;
    let small = ["log", "create", "--replicas", "1", "--log-gib", "1", "--payload-gib", "1"];
    loop {
        let made = convergio(data, &[&small[..], &log[..]].concat());
        if made.status.success() {
            break;
        }
        assert!(Instant::now() < until, "{}", text(&made.stderr));
    }
    done(&[&["log", "restore", archive], &log[..]].concat());
    for run in &runs {
        assert_eq!(replayed(data, run, &[]), replayed(data, run, &log), "{run}");
    }
}
