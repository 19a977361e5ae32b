//! Work whose size a stranger chooses ends its worker or itself, and never the server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use convergio_domain::decider::DecisionContext;
use convergio_domain::graph::{GraphNoun, RegisterGraph, graph_id};
use convergio_domain::id::{GraphVersion, TenantId};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{Payload, Repository, SystemClock, WallClock};
use serde_json::{Map, Value, json};

use crate::harness::Server;

/// The address space that a server has in these tests, in KiB.
pub(super) const ADDRESS_SPACE_KIB: u64 = 3 << 20;
/// How often something is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Time that an evaluation has here: none of these would ever end.
const QUICK: [&str; 1] = ["--evaluation-timeout=2"];

/// A graph of one node that decides, and one that it leads to.
fn branching(condition: &str) -> String {
    let nodes = json!([
        {"id": "way", "branch": {"if": condition, "then": "yes", "else": "no"}},
        {"id": "yes", "sleep": "1ms"},
        {"id": "no", "sleep": "1ms"},
    ]);
    json!({"name": "branching", "nodes": nodes}).to_string()
}

/// A graph of one tool that gets a text.
fn trimming(template: &str) -> String {
    let nodes = json!([{"id": "trim", "tool": "text.trim", "with": {"text": template}}]);
    json!({"name": "trimming", "nodes": nodes, "output": "{{ nodes.trim.output }}"}).to_string()
}

pub(super) async fn begin(server: &Server, manifest: String, inputs: &Value) -> String {
    let (status, graph) = server.send("/v1/graphs", manifest).await;
    assert_eq!(status, 201, "{graph}");
    let graph = graph["id"].as_str().expect("an id").to_owned();
    let (status, run) = server.execute(&graph, inputs, None).await;
    assert_eq!(status, 202, "{run}");
    run["run_id"].as_str().expect("a run").to_owned()
}

async fn code_of_failure(server: &Server, run: &str) -> String {
    let view = server.ended(run).await;
    assert_eq!(view["status"], "failed", "{view}");
    view["error"]["code"].as_str().expect("a code").to_owned()
}

/// Two million numbers, and eight megabytes of text without what is looked for.
fn long_list_and_text() -> Value {
    json!({"l": vec![1; 2_000_000], "t": "y".repeat(8 << 20)})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_wants_ten_gigabytes_fails_its_run_and_no_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start_within(folder.path(), &[], ADDRESS_SPACE_KIB);
    let inputs = json!({"t": "x".repeat(1 << 20), "l": vec![7; 10_000]});
    let condition = r#"inputs.l.map(x, inputs.t + "a").size() > 0"#;
    let run = begin(&server, branching(condition), &inputs).await;
    assert_eq!(code_of_failure(&server, &run).await, "evaluation.limit");
    assert_eq!(server.get("/healthz").await["status"], "ok", "the same process answers");
    let events = server.events(&run).await.len();
    server.kill();
    let server = Server::start_within(folder.path(), &[], ADDRESS_SPACE_KIB);
    assert_eq!(code_of_failure(&server, &run).await, "evaluation.limit");
    assert_eq!(server.events(&run).await.len(), events, "nothing is tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_never_end_is_ended_and_others_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Arc::new(Server::start_within(folder.path(), &QUICK, ADDRESS_SPACE_KIB));
    let condition = r#"inputs.l.all(x, !inputs.t.contains("zzz"))"#;
    let sorting = "{% for i in range(100000) %}{{ inputs.l | sort | first }}{% endfor %}";
    let numbers = json!({"l": (0..200_000).rev().collect::<Vec<u32>>()});
    let poison = [
        begin(&server, branching(condition), &long_list_and_text()).await,
        begin(&server, branching(condition), &long_list_and_text()).await,
        begin(&server, trimming(sorting), &numbers).await,
    ];
    let small = server.register("small.yaml").await;
    let (_, run) = server.execute(&small, &json!({"text": "hello"}), None).await;
    let other = server.ended(run["run_id"].as_str().expect("a run")).await;
    assert_eq!(other["status"], "completed", "{other}");
    for run in &poison {
        let code = code_of_failure(&server, run).await;
        assert!(["evaluation.limit", "template.invalid"].contains(&code.as_str()), "{code}");
    }
}

/// Definitions that each name the next one twice.
fn ladder(steps: usize) -> Value {
    let mut defs = Map::new();
    for step in 0..steps {
        let next = json!({"$ref": format!("#/$defs/d{}", step + 1)});
        defs.insert(format!("d{step}"), json!({"allOf": [next, next]}));
    }
    defs.insert(format!("d{steps}"), json!({"type": "object"}));
    json!({"$defs": defs, "$ref": "#/$defs/d0"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_multiplies_is_refused_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let mut manifest: Value = serde_json::from_str(&trimming("x")).expect("JSON");
    manifest["inputs"] = ladder(40);
    let (status, refused) = server.send("/v1/graphs", manifest.to_string()).await;
    assert_eq!((status, &refused["code"]), (400, &json!("graph.invalid")), "{refused}");
    let detail = refused["detail"].as_str().expect("a text");
    assert!(detail.contains("`$defs/d29`"), "{detail}");
    manifest["inputs"] = json!({"type": "object", "properties": {"tree": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}});
    let run = begin(&server, manifest.to_string(), &json!({"tree": {"n": {"n": {}}}})).await;
    assert_eq!(server.ended(&run).await["status"], "completed", "a schema may name itself");
}

/// Writes a graph into the log of a folder as an earlier version of this program took it.
async fn register_unchecked(data: &Path, manifest: &Value) -> String {
    let log = Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(data)).expect("opens"));
    let repository = Repository::new(log.clone(), Arc::new(SystemClock));
    let tenant: TenantId = "default".parse().expect("a tenant");
    let id = graph_id(&tenant, "earlier");
    let bytes = serde_json::to_vec(manifest).expect("JSON");
    let register = RegisterGraph {
        name: "earlier".into(),
        version: GraphVersion::from_manifest(&bytes),
        nodes: 1,
        manifest: PayloadSlot(0),
        is_derived: false,
    };
    let payload = Payload {
        bytes: bytes.into(),
        media_type: "application/json".into(),
        purpose: PayloadPurpose::Manifest,
        subject: None,
    };
    let context =
        DecisionContext { now: SystemClock.now(), actor: "owner".parse().expect("an actor") };
    let stream = StreamKey::for_graph(tenant, id);
    let command = |_: &_, _| (register.clone(), vec![payload.clone()]);
    repository.execute::<GraphNoun>(&stream, &context, command).await.expect("registered");
    convergio_eventstore::EventLog::close(&*log).await.expect("closes");
    id.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_of_before_that_multiplies_opens_and_its_runs_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    // A graph as the log has it, with another schema than it would be taken with.
    let server = Server::start(folder.path());
    let small = server.register("small.yaml").await;
    server.kill();
    let parsed = convergio_domain::graph::parse_manifest(
        &trimming("x"),
        &convergio_executor::tool::builtin_catalog(),
    );
    let mut manifest = serde_json::to_value(&parsed.expect("valid").graph).expect("JSON");
    manifest["inputs"] = ladder(40);
    let graph = register_unchecked(folder.path(), &manifest).await;
    let server = Server::start_as(folder.path(), &QUICK);
    for _ in 0..2 {
        let (status, refused) = server.execute(&graph, &json!({}), None).await;
        assert_eq!((status, &refused["code"]), (422, &json!("evaluation.limit")), "{refused}");
    }
    let (status, accepted) = server.execute(&small, &json!({"text": "hello"}), None).await;
    assert_eq!(status, 202, "{accepted}");
}

/// Waits until the only evaluation under way has been begun in so many lives.
async fn wait_for_lives(data: &Path, lives: u64) {
    loop {
        let files = std::fs::read_dir(data.join("evaluations")).into_iter().flatten().flatten();
        let counts: Vec<u64> = files.map(|file| file.metadata().map_or(0, |m| m.len())).collect();
        if counts == [lives] {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_during_which_three_servers_died_is_not_begun_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = ["--evaluation-timeout=600"];
    let mut server = Server::start_as(folder.path(), &options);
    let condition = r#"inputs.l.all(x, !inputs.t.contains("zzz"))"#;
    let run = begin(&server, branching(condition), &long_list_and_text()).await;
    for life in 1..=3 {
        wait_for_lives(folder.path(), life).await;
        server.kill();
        server = Server::start_as(folder.path(), &options);
    }
    assert_eq!(code_of_failure(&server, &run).await, "evaluation.limit");
    let error = server.get(&format!("/v1/runs/{run}")).await["error"]["detail"].to_string();
    assert!(error.contains("3 processes ended"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_while_it_is_evaluated_and_a_worker_has_nothing_of_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start_as(folder.path(), &["--evaluation-timeout=600"]);
    let condition = r#"inputs.l.all(x, !inputs.t.contains("zzz"))"#;
    let run = begin(&server, branching(condition), &long_list_and_text()).await;
    wait_for_lives(folder.path(), 1).await;
    let worker = wait_for_worker(server.pid()).await;
    let environment = std::fs::read(format!("/proc/{worker}/environ")).expect("it runs");
    assert_eq!(String::from_utf8_lossy(&environment), "MIMALLOC_ARENA_RESERVE=65536\0");
    let opened: Vec<_> = files_of(&worker).difference(&files_of("self")).cloned().collect();
    let is_pipe = |(number, file): &(String, PathBuf)| {
        let is_own = ["0", "1"].contains(&number.as_str());
        is_own && file.to_string_lossy().starts_with("pipe:")
    };
    let others: Vec<_> = opened.iter().filter(|file| !is_pipe(file)).collect();
    assert!(others.iter().all(|(number, _)| number == "2"), "{others:?}");
    let limits = std::fs::read_to_string(format!("/proc/{worker}/limits")).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let (status, answer) = server.send(&format!("/v1/runs/{run}/cancel"), "{}").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(server.ended(&run).await["status"], "cancelled");
    while Path::new(&format!("/proc/{worker}/cmdline")).exists() {
        tokio::time::sleep(LOOK).await;
    }
}

/// The open files of a process; those of whoever started the tests are everybody's.
fn files_of(process: &str) -> BTreeSet<(String, PathBuf)> {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).expect("it runs").flatten();
    let named = |file: std::fs::DirEntry| {
        let target = std::fs::read_link(file.path()).ok()?;
        Some((file.file_name().into_string().ok()?, target))
    };
    files.filter_map(named).collect()
}

/// The worker of a server that is at work.
async fn wait_for_worker(server: u32) -> String {
    loop {
        let tasks = std::fs::read_dir(format!("/proc/{server}/task")).into_iter().flatten();
        let children = tasks.flatten().map(|task| task.path().join("children"));
        let children = children.filter_map(|file| std::fs::read_to_string(file).ok());
        let found = children
            .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let is_confined = |pid: &String| {
            let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
            let line = limits.lines().find(|line| line.starts_with("Max open files"));
            line.is_some_and(|line| line.split_whitespace().nth(3) == Some("16"))
        };
        if let Some(worker) = found.into_iter().find(is_confined) {
            return worker;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_nothing_but_mistakes_is_told_so_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let node = |number: usize| {
        let needs: Vec<String> = (0..4).map(|need| format!("m{number}x{need}")).collect();
        json!({"id": format!("n{number}"), "tool": "text.trim", "with": {"text": "x"},
            "needs": needs})
    };
    let nodes: Vec<Value> = (0..6_000).map(node).collect();
    let manifest = json!({"name": "wrong", "nodes": nodes}).to_string();
    assert!(manifest.len() > 500_000, "{}", manifest.len());
    let (status, refused) = server.send("/v1/graphs", manifest).await;
    assert_eq!((status, &refused["code"]), (400, &json!("graph.invalid")), "{refused}");
    let mistakes = refused["mistakes"].as_array().expect("a list");
    assert_eq!(mistakes.len(), 101);
    let last = mistakes[100]["message"].as_str().expect("a text");
    assert!(last.starts_with("more than 100 mistakes"), "{last}");
    let hints = mistakes.iter().filter(|m| m["message"].to_string().contains("did you mean"));
    assert!(hints.count() <= 20);
}
