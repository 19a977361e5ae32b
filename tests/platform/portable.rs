//! Runs that travel: exported by a server, imported elsewhere, replayed from a file, moved to
//! another version of their graph.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::harness::{Server, convergio, repository, text};

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

fn ok(output: &Output) {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// A run of an example without models; gives its id.
fn ran(data: &Path) -> String {
    let example = repository("examples/small.yaml");
    ok(&convergio(data, &["graph", "run", path(&example), "--input", "text= grüße "]));
    let runs = json(&convergio(data, &["runs", "list", "--json"]));
    runs["items"][0]["id"].as_str().expect("a run").to_owned()
}

fn steps(data: &Path, arguments: &[&str]) -> Vec<Value> {
    let shown = convergio(data, &[&["runs", "debug", "--json"], arguments].concat());
    ok(&shown);
    let lines = text(&shown.stdout);
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_run_travels_as_a_file_and_is_the_same_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    let run = ran(&here);
    let file = folder.path().join("run.jsonl");
    ok(&convergio(&here, &["runs", "export", &run, "-o", path(&file)]));
    let printed = convergio(&here, &["runs", "export", &run]);
    assert_eq!(printed.stdout, std::fs::read(&file).expect("written"));
    let of_file = json(&convergio(&there, &["replay", "--file", path(&file), "--json"]));
    assert!(!there.exists(), "a file is replayed without a data folder");
    ok(&convergio(&there, &["runs", "import", path(&file)]));
    let again = json(&convergio(&there, &["runs", "import", path(&file), "--json"]));
    assert_eq!(again["records_added"], 0);
    let end = of_file["seq"].to_string();
    let at_end = ["replay", &run, "--json", "--at", &end];
    let reports = [&here, &there].map(|data| json(&convergio(data, &at_end)));
    assert_eq!(reports[0]["fingerprint"], reports[1]["fingerprint"]);
    assert_eq!(reports[0]["fingerprint"], of_file["fingerprint"]);
    // There the mark of the import stands behind it, and nothing of it is audited or booked.
    let marked = json(&convergio(&there, &["replay", &run, "--json"]));
    assert_ne!(marked["fingerprint"], of_file["fingerprint"]);
    assert_eq!(marked["rows"], 5, "the run, its steps, and a line of the audit trail");
    assert_eq!(
        json(&convergio(&there, &["runs", "show", &run, "--json"]))["output"],
        "grüße has 1 words"
    );
    ok(&convergio(&there, &["log", "verify"]));
    // Stepping through it, here and from the file.
    let seen = steps(&here, &[&run]);
    assert_eq!(seen, steps(&there, &["--file", path(&file)]));
    let last = seen.last().expect("events");
    assert_eq!((&last["status"], &last["type"]), (&"completed".into(), &"run.completed.v1".into()));
    assert!(seen[0]["texts"][0]["text"].as_str().expect("text").contains("grüße"));
    let done = |node: &Value| node["status"] == "done";
    assert!(last["nodes"].as_array().expect("nodes").iter().all(done), "{last}");
    let completed = seen.iter().find(|step| step["type"] == "run.step.completed.v1");
    let changes = completed.expect("one")["changes"].to_string();
    assert!(changes.contains("steps.trim.status"), "{changes}");
}

#[test]
fn a_file_that_is_wrong_is_one_line_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let run = ran(&data);
    let file = folder.path().join("run.jsonl");
    ok(&convergio(&data, &["runs", "export", &run, "--without-payloads", "-o", path(&file)]));
    let written = std::fs::read_to_string(&file).expect("text");
    assert!(!written.contains("grüße"));
    let refused = |changed: String, reason: &str| {
        std::fs::write(&file, changed).expect("writable");
        for command in
            [&["runs", "import"][..], &["replay", "--file"], &["runs", "debug", "--json", "--file"]]
        {
            let said = convergio(&data, &[command, &[path(&file)]].concat());
            assert_eq!(said.status.code(), Some(2), "{}", text(&said.stderr));
            let line = text(&said.stderr);
            assert!(line.contains(reason) && line.lines().count() == 1, "{line}");
        }
    };
    refused(written.replacen("\"events\":[", "\"events\": [", 1), "line 3: the hash of the record");
    refused("{}\n".into(), "line 1: not the file of a run");
    let foreign = written.replacen("\"tenant\":\"default\"", "\"tenant\":\"other\"", 1);
    std::fs::write(&file, foreign).expect("writable");
    let said = convergio(&data, &["runs", "import", path(&file)]);
    assert!(text(&said.stderr).contains("of tenant `other`"), "{}", text(&said.stderr));
    let nobody = "01920000-0000-7000-8000-000000000000";
    let none =
        convergio(&data, &["runs", "export", nobody, "-o", path(&folder.path().join("none"))]);
    assert_eq!(none.status.code(), Some(2));
    let rests = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(rests, 2, "no half a file is left");
}

const ASKS: &str = "name: asks\nnodes:\n  - {id: first, tool: text.trim, with: {text: x}}\n  \
    - {id: ask, needs: [first], approval: {role: owner, show: \"{{ nodes.first.output }}\"}}\n  \
    - {id: last, needs: [ask], tool: text.trim, with: {text: \"{{ nodes.first.output }}\"}}\n";

fn write(folder: &Path, name: &str, manifest: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, manifest).expect("writable");
    file
}

#[tokio::test]
async fn a_fleet_is_asked_before_a_deployment_and_moved_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let server = Server::start(&data);
    let manifest = write(folder.path(), "asks.yaml", ASKS);
    let mut runs = Vec::new();
    for _ in 0..3 {
        let started = convergio(&data, &["graph", "run", path(&manifest), "--detach", "--json"]);
        let run = json(&started)["run_id"].as_str().expect("a run").to_owned();
        server.wait_for_events(&run, 4).await;
        runs.push(run);
    }
    let fleet =
        |file: &Path| convergio(&data, &["replay", "--fleet", "--graph", path(file), "--json"]);
    // Another text, a node more at the end: what was done would have been done.
    let better = ASKS.replace("text: x", "text: y")
        + "  - {id: more, needs: [last], tool: text.trim, with: {text: z}}\n";
    let better = write(folder.path(), "better.yaml", &better);
    let found = fleet(&better);
    ok(&found);
    assert_eq!((&json(&found)["runs"], &json(&found)["compatible"]), (&3.into(), &3.into()));
    // Another step beside the first: it would have been ready too.
    let wider =
        ASKS.replace("nodes:\n", "nodes:\n  - {id: zero, tool: text.trim, with: {text: z}}\n");
    let wider = write(folder.path(), "wider.yaml", &wider);
    let pinned = write(
        folder.path(),
        "pinned.yaml",
        &ASKS.replace("ask,", "question,").replace("[ask]", "[question]"),
    );
    let refused = fleet(&pinned);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    assert_eq!(json(&refused)["pin"], 3);
    let reason = json(&refused)["items"][0]["reason"].as_str().expect("why").to_owned();
    assert!(reason.contains("step ask is under way"), "{reason}");
    ok(&convergio(&data, &["replay", "--fleet"]));
    assert!(matches!(fleet(&wider).status.code(), Some(0 | 1)));

    let stays = convergio(&data, &["runs", "migrate", &runs[0], "--graph", path(&pinned)]);
    assert_eq!(stays.status.code(), Some(2));
    assert!(text(&stays.stderr).contains("(run.diverged)"), "{}", text(&stays.stderr));
    let missing = convergio(&data, &["runs", "migrate", &runs[0], "--version", "abc"]);
    assert!(text(&missing.stderr).contains("not_found"), "{}", text(&missing.stderr));
    let moved =
        convergio(&data, &["runs", "migrate", &runs[0], "--graph", path(&better), "--json"]);
    ok(&moved);
    assert_eq!((&json(&moved)["verdict"], &json(&moved)["seq"]), (&"compatible".into(), &6.into()));
    let again =
        convergio(&data, &["runs", "migrate", &runs[0], "--graph", path(&better), "--json"]);
    assert_eq!(json(&again)["seq"], 6, "it has the version");

    let approvals = json(&convergio(&data, &["approvals", "list", "--json"]));
    for asked in approvals["items"].as_array().expect("questions") {
        let id = asked["id"].as_str().expect("an id");
        ok(&convergio(&data, &["approvals", "answer", id, "--grant"]));
    }
    for (index, run) in runs.iter().enumerate() {
        let view = server.ended(run).await;
        assert_eq!(view["status"], "completed", "{view}");
        let steps = view["steps"].as_array().expect("steps").len();
        assert_eq!(steps, if index == 0 { 4 } else { 3 }, "each by its own version");
        ok(&convergio(&data, &["replay", run]));
    }
    let file = folder.path().join("moved.jsonl");
    ok(&convergio(&data, &["runs", "export", &runs[0], "-o", path(&file)]));
    ok(&convergio(&data, &["replay", "--file", path(&file)]));
    let ended = convergio(&data, &["runs", "migrate", &runs[0], "--graph", path(&pinned)]);
    assert!(text(&ended.stderr).contains("the run has ended"), "{}", text(&ended.stderr));
    server.kill();
}

#[test]
fn a_row_that_is_not_what_the_log_says_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = ran(folder.path());
    let database = rusqlite::Connection::open(folder.path().join("read.db")).expect("there");
    let changed = database.execute("UPDATE step SET attempt = 9 WHERE step = 'trim'", []);
    assert_eq!(changed.expect("works"), 1);
    drop(database);
    let found = convergio(folder.path(), &["replay", &run, "--json"]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found.stderr));
    let found = json(&found)["diverges"].to_string();
    assert!(found.contains("the read models") && found.contains("trim"), "{found}");
    ok(&convergio(folder.path(), &["projections", "rebuild"]));
    ok(&convergio(folder.path(), &["replay", &run]));
}
