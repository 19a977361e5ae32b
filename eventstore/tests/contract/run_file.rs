//! Runs as files: the same history in every log that takes one, and no other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::decider::DecisionContext;
use convergio_domain::graph::{self, GraphNoun, RegisterGraph, ToolCatalog, ToolEffect, ToolSpec};
use convergio_domain::id::{ExecutorId, GraphId, RunId};
use convergio_domain::payload::{PayloadPurpose, PayloadRef, PayloadSlot};
use convergio_domain::run::{
    AdvanceRun, Budget, CreateRun, ForkRun, Run, RunCommand, StepIntent, StepOutcome, StepResult,
    StepStart,
};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::archive::{self, ImportMode};
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::run_file::{
    self, RunFile, RunImportError, RunImportOptions, RunImportReport,
};
use convergio_eventstore::{MemoryLog, Payload, Repository, SystemClock};
use convergio_test_support::nats::{Cluster, KEY, SyncMode};
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::Log;

const MANIFEST: &str = "name: little\nnodes:\n  - {id: a, tool: t, with: {}}\n";
const OTHER: &str = "name: little\nnodes:\n  - {id: b, tool: t, with: {}}\n";

fn context() -> DecisionContext {
    DecisionContext { now: Timestamp(7), actor: "tester".parse().expect("a name") }
}

fn payload(bytes: &[u8], purpose: PayloadPurpose) -> Payload {
    let media_type = "application/json".into();
    Payload { bytes: Bytes::copy_from_slice(bytes), media_type, purpose, subject: None }
}

fn repository(log: &Log) -> Repository {
    Repository::new(Arc::clone(log), Arc::new(SystemClock))
}

async fn register(repository: &Repository, manifest: &str) -> (GraphId, RegisterGraph) {
    let spec = ToolSpec {
        name: "t".into(),
        description: "T.".into(),
        arguments: json!({"type": "object"}),
        effect: ToolEffect::Pure,
    };
    let parsed =
        graph::parse_manifest(manifest, &ToolCatalog::new(vec![spec])).expect("valid").graph;
    let tenant = "default".parse().expect("a name");
    let id = graph::graph_id(&tenant, &parsed.name);
    let register = RegisterGraph {
        name: parsed.name.clone(),
        version: parsed.compute_version(),
        nodes: 1,
        manifest: PayloadSlot(0),
        is_derived: false,
    };
    let manifest = vec![payload(&parsed.canonical_manifest(), PayloadPurpose::Manifest)];
    let command = |_: &_, _| (register.clone(), manifest.clone());
    let stream = StreamKey::for_graph(tenant, id);
    repository.execute::<GraphNoun>(&stream, &context(), command).await.expect("new");
    (id, register)
}

/// A run under way with text and bytes as payloads, in a log of its own.
async fn run() -> (Repository, StreamKey) {
    let log: Log = Arc::new(MemoryLog::new());
    let repository = repository(&log);
    let (graph, register) = register(&repository, MANIFEST).await;
    let stream = StreamKey::for_run("default".parse().expect("a name"), RunId(Uuid::now_v7()));
    let create = CreateRun {
        graph,
        version: register.version,
        input: PayloadSlot(0),
        budget: Budget::default(),
        request_hash: "r".into(),
        privacy: convergio_domain::chat::Privacy::Any,
        provenance: convergio_domain::run::Provenance::default(),
    };
    let advance = |outcomes, starts| AdvanceRun {
        executor: ExecutorId(Uuid::nil()),
        outcomes,
        turn_updates: Vec::new(),
        instant_outcomes: Vec::new(),
        ready_steps: Vec::new(),
        starts,
        end: None,
    };
    let step = || "a".parse().expect("a step");
    let outcome = StepOutcome {
        step: step(),
        attempt: 1,
        result: StepResult::Completed { output: Some(PayloadSlot(1)), case: None },
        call: None,
        skipped: Vec::new(),
    };
    let start = StepStart { step: step(), intent: StepIntent::Compute };
    let told = [
        (
            RunCommand::Create(create),
            vec![payload(b"{\"text\":\"gr\xC3\xBC\xC3\x9Fe\"}", PayloadPurpose::Input)],
        ),
        (RunCommand::Advance(advance(Vec::new(), vec![start])), Vec::new()),
        (
            RunCommand::Advance(advance(vec![outcome], Vec::new())),
            vec![
                payload(&[0, 159, 146, 150], PayloadPurpose::Output),
                payload(b"1\n", PayloadPurpose::Output),
            ],
        ),
    ];
    for (command, payloads) in told {
        let command = |_: &_, _| (command.clone(), payloads.clone());
        repository.execute::<Run>(&stream, &context(), command).await.expect("taken");
    }
    (repository, stream)
}

async fn exported(repository: &Repository, run: &StreamKey, payloads: bool, to: &Path) -> PathBuf {
    let file = run_file::export_run(repository.clone(), run.clone(), payloads).await;
    let pieces: Vec<Bytes> =
        file.expect("readable").expect("a run").try_collect().await.expect("readable");
    let path = to.join(format!("{}.jsonl", Uuid::now_v7()));
    std::fs::write(&path, pieces.concat()).expect("writable");
    path
}

async fn imported(
    repository: &Repository,
    key: &[u8; 32],
    file: &Path,
) -> Result<RunImportReport, RunImportError> {
    let options = RunImportOptions { context: &context(), signer: None };
    run_file::import_run(repository, key, file, options).await
}

/// The payload of a run at a place.
async fn open(repository: &Repository, run: &StreamKey, place: &str) -> Option<Bytes> {
    let place: PayloadRef = place.parse().expect("a reference");
    repository.read_payload(run, place).await.expect("readable")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_the_same_in_every_log_that_takes_its_file() {
    let (origin, run) = run().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = exported(&origin, &run, true, folder.path()).await;
    let cluster = Cluster::start(1, SyncMode::Always);
    let near = EmbeddedLog::open(&EmbeddedConfig::new(folder.path().join("near"))).expect("opens");
    let near_key = std::fs::read(folder.path().join("near/payload.key")).expect("a key");
    let near_key: [u8; 32] = near_key.try_into().expect("32 bytes");
    let logs: [(Log, [u8; 32]); 2] =
        [(Arc::new(near), near_key), (Arc::new(cluster.log("R").await), KEY)];
    let written = origin.event_log().read_stream(&run, Seq(0), 100).await.expect("readable");
    for (log, key) in &logs {
        let repository = repository(log);
        let done = imported(&repository, key, &file).await.expect("taken");
        assert_eq!((done.events, done.added_records), (3, 3));
        let read = log.read_stream(&run, Seq(0), 100).await.expect("readable");
        assert_eq!(read.len(), written.len() + 1, "and the mark behind it");
        for (a, b) in read.iter().zip(&written) {
            assert_eq!((a.hash, &a.body), (b.hash, &b.body));
        }
        for place in ["1.0", "3.0", "3.1"] {
            let bytes = open(&repository, &run, place).await;
            assert!(bytes.is_some() && bytes == open(&origin, &run, place).await, "{place}");
        }
        assert!(
            log.due_streams(Timestamp(i64::MAX), 10).await.expect("readable").is_empty(),
            "it rests"
        );
        let again = imported(&repository, key, &file).await.expect("known");
        assert_eq!(again.added_records, 0, "the same file again changes nothing");
        let out = exported(&repository, &run, true, folder.path()).await;
        let mut out = inner_lines(&out);
        let mark = out.pop().expect("a record").to_string();
        assert!(mark.contains("run.imported.v1"), "{mark}");
        assert_eq!(out, inner_lines(&file), "what comes out is what went in");
    }
}

/// The lines of a file between the first one and the signature, without what differs by log.
fn inner_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("text");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let mut lines: Vec<Value> = lines.collect();
    assert!(lines.remove(0).get("run").is_some());
    assert!(lines.pop().expect("a last line").get("signature").is_some());
    for line in &mut lines {
        if let Some(record) = line.get_mut("record").and_then(Value::as_object_mut) {
            record.remove("recorded_at");
        }
    }
    lines
}

#[tokio::test]
async fn payloads_of_another_key_outlive_an_archive() {
    let (origin, run) = run().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = exported(&origin, &run, true, folder.path()).await;
    let (key, other): ([u8; 32], Log) = ([7; 32], Arc::new(MemoryLog::new()));
    // The same key as the origin's: the payloads become its own again.
    imported(&repository(&other), &key, &file).await.expect("taken");
    assert_eq!(open(&repository(&other), &run, "3.1").await, Some(Bytes::from_static(b"1\n")));
    let near = Arc::new(
        EmbeddedLog::open(&EmbeddedConfig::new(folder.path().join("near"))).expect("opens"),
    );
    let key = std::fs::read(folder.path().join("near/payload.key")).expect("a key");
    let key: [u8; 32] = key.try_into().expect("32 bytes");
    let near: Log = near;
    imported(&repository(&near), &key, &file).await.expect("taken");
    let packed = folder.path().join("archive");
    archive::export_archive(&*near, &key, &packed, None).await.expect("written");
    std::fs::create_dir(folder.path().join("third")).expect("a folder");
    std::fs::write(folder.path().join("third/payload.key"), key).expect("written");
    let third: Log = Arc::new(
        EmbeddedLog::open(&EmbeddedConfig::new(folder.path().join("third"))).expect("opens"),
    );
    archive::import_archive(&*third, &key, &packed, ImportMode::Restore).await.expect("restored");
    assert_eq!(
        open(&repository(&third), &run, "3.0").await.as_deref(),
        Some(&[0, 159, 146, 150][..])
    );
}

#[tokio::test]
async fn without_payloads_the_history_is_whole_and_tells_no_text() {
    let (origin, run) = run().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = exported(&origin, &run, false, folder.path()).await;
    let text = std::fs::read_to_string(&file).expect("text");
    assert!(!text.contains("grüße") && !text.contains("\"payload\""), "{text}");
    let log: Log = Arc::new(MemoryLog::new());
    imported(&repository(&log), &[7; 32], &file).await.expect("taken");
    assert_eq!(open(&repository(&log), &run, "1.0").await, None);
    let read = RunFile::open(&file).expect("right");
    assert_eq!((read.records.len(), read.payloads.len(), read.graphs.len()), (3, 0, 1));
}

#[tokio::test]
async fn a_changed_file_is_refused_by_its_line_and_nothing_is_written() {
    let (origin, run) = run().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = exported(&origin, &run, true, folder.path()).await;
    let text = std::fs::read_to_string(&file).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    let lines_without = |line: usize| {
        let mut rest = lines.clone();
        rest.remove(line);
        rest.join("\n") + "\n"
    };
    let cases = [
        (1, text.replacen("\"format\":2", "\"format\":3", 1), "reads formats 1 and 2"),
        (9, text.replacen("\"format\":2", "\"format\":1", 1), "has no signature"),
        (9, text.replacen("\"recorded_at\":", "\"recorded_at\":9", 1), "it was changed"),
        (9, lines_without(8), "ends before its signature"),
        (10, text.clone() + "\n", "nothing follows the signature"),
        (1, lines_without(0), "begins with"),
        (2, text.replacen("little", "spittle", 1), "not that of version"),
        (2, lines_without(1), "does not stand before the record"),
        (3, text.replacen("\"time\":7", "\"time\":8", 1), "not that of its body"),
        (4, text.replacen("grüße", "Grüße", 1), "not the one that its record commits to"),
        (5, lines_without(4), "does not follow the one before it"),
        (0, lines_without(5).lines().take(5).collect::<Vec<_>>().join("\n") + "\n", "ends before"),
        (7, text.replacen("\"base64\":\"", "\"base64\":\"?", 1), "Invalid"),
        (9, text[..text.len() - 9].to_owned(), "cut short"),
        (4, text.replacen("{\"payload\"", "{\"playload\"", 1), "not a line"),
    ];
    let log: Log = Arc::new(MemoryLog::new());
    for (line, changed, reason) in cases {
        std::fs::write(&file, &changed).expect("writable");
        let refused = imported(&repository(&log), &[7; 32], &file).await.expect_err("refused");
        let said = refused.to_string();
        assert!(said.contains(reason), "{said}");
        assert!(line == 0 || said.starts_with(&format!("line {line}: ")), "{said}, not {line}");
        assert_eq!(log.stream_head(&run).await.expect("readable"), None);
    }
}

#[tokio::test]
async fn another_history_under_the_same_id_is_refused() {
    let (origin, run) = run().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = exported(&origin, &run, true, folder.path()).await;
    let log: Log = Arc::new(MemoryLog::new());
    let target = repository(&log);
    imported(&target, &[7; 32], &file).await.expect("taken");
    let cancel = |_: &_, _| (RunCommand::Cancel { reason: None }, Vec::new());
    origin.execute::<Run>(&run, &context(), cancel).await.expect("taken");
    let refused = target.execute::<Run>(&run, &context(), cancel).await.map(drop);
    assert!(refused.expect_err("it is history").to_string().contains("fork it"));
    let longer = exported(&origin, &run, true, folder.path()).await;
    let refused = imported(&target, &[7; 32], &longer).await.expect_err("refused");
    assert!(refused.to_string().contains("another from event 4 on"), "{refused}");
    let known = imported(&target, &[7; 32], &file).await.expect("its beginning is known");
    assert_eq!(known.added_records, 0);
}

#[tokio::test]
async fn an_imported_version_is_not_what_the_next_run_gets() {
    let (origin, run) = run().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = exported(&origin, &run, true, folder.path()).await;
    let log: Log = Arc::new(MemoryLog::new());
    let target = repository(&log);
    let (id, own) = register(&target, OTHER).await;
    imported(&target, &[7; 32], &file).await.expect("taken");
    let stream = StreamKey::for_graph("default".parse().expect("a name"), id);
    let state = target.load::<GraphNoun>(&stream).await.expect("readable").state;
    assert_eq!((state.versions.len(), state.latest), (2, Some(own.version)));
}

/// A fork of a run at its second event, with other inputs.
async fn fork(repository: &Repository, run: &StreamKey) -> StreamKey {
    let parent = repository.load_at::<Run>(run, Seq(2), true).await.expect("readable");
    let mut parent = parent.expect("it has the event");
    let head = parent.head.expect("it has events");
    let (graph, version) = parent.state.graph.clone().expect("created");
    let fork = ForkRun {
        parent: RunId(run.id),
        seq: head.seq,
        hash: head.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        fingerprint: parent.state.refresh_fingerprint(),
        graph,
        version,
        input: Some(PayloadSlot(0)),
        budget: Budget::default(),
        changes: vec!["inputs.text".into()],
        request_hash: "f".into(),
        is_parent_imported: false,
    };
    let stream = StreamKey::for_run(run.tenant.clone(), RunId(Uuid::now_v7()));
    let input = payload(b"{\"text\":\"other\"}", PayloadPurpose::Input);
    let command = |_: &_, _| (RunCommand::Fork(fork.clone()), vec![input.clone()]);
    repository.execute_from::<Run>(parent, &stream, &context(), command).await.expect("taken");
    stream
}

#[tokio::test]
async fn the_file_of_a_fork_has_what_it_begins_with() {
    let (origin, run) = run().await;
    let fork = fork(&origin, &run).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = exported(&origin, &fork, true, folder.path()).await;
    let log: Log = Arc::new(MemoryLog::new());
    let target = repository(&log);
    let done = imported(&target, &[7; 32], &file).await.expect("taken");
    assert_eq!((&done.stream, done.events, done.added_records), (&fork, 1, 3));
    let written = origin.load::<Run>(&fork).await.expect("readable");
    let read = target.load_at::<Run>(&fork, Seq(1), true).await;
    let mut read = read.expect("it is whole").expect("it has the event");
    assert_eq!(read.state.refresh_fingerprint(), written.state.clone().refresh_fingerprint());
    assert_eq!(open(&target, &fork, "1.0").await, open(&origin, &fork, "1.0").await);
    assert_eq!(open(&target, &run, "1.0").await, open(&origin, &run, "1.0").await);
    assert_eq!(imported(&target, &[7; 32], &file).await.expect("known").added_records, 0);
    let whole = exported(&origin, &run, true, folder.path()).await;
    let refused = imported(&target, &[7; 32], &whole).await.expect_err("its end is marked");
    assert!(refused.to_string().contains("another from event 3 on"), "{refused}");
    let other: Log = Arc::new(MemoryLog::new());
    let other = repository(&other);
    assert_eq!(imported(&other, &[7; 32], &whole).await.expect("taken").added_records, 3);
    assert_eq!(imported(&other, &[7; 32], &file).await.expect("the parent first").added_records, 1);

    let read = RunFile::open(&file).expect("right");
    assert_eq!((read.records.len(), read.ancestors.len(), read.graphs.len()), (1, 1, 1));
    assert_eq!(read.inherited_state().expect("a fork").seq, Seq(2));
}

#[tokio::test]
async fn the_file_of_a_fork_without_its_beginning_is_refused_by_its_line() {
    let (origin, run) = run().await;
    let fork = fork(&origin, &run).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = exported(&origin, &fork, true, folder.path()).await;
    let text = std::fs::read_to_string(&file).expect("text");
    let without = |lines: std::ops::Range<usize>| {
        let kept = text.lines().enumerate().filter(|(line, _)| !lines.contains(&(line + 1)));
        kept.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    let ancestor = text.lines().nth(1).expect("a line");
    assert!(ancestor.starts_with("{\"ancestor\""), "{ancestor}");
    let shorter = ancestor.replace("\"seq\":2", "\"seq\":1");
    let cases = [
        (3, without(2..3), "the file of another"),
        (6, without(6..7), "does not follow the one before it"),
        (6, text.replace(ancestor, &shorter), "does not follow the one before it"),
        (7, text.replace(ancestor, &ancestor.replace("\"seq\":2", "\"seq\":9")), "follow"),
    ];
    let log: Log = Arc::new(MemoryLog::new());
    for (line, changed, reason) in cases {
        std::fs::write(&file, &changed).expect("writable");
        let refused = imported(&repository(&log), &[7; 32], &file).await.expect_err("refused");
        let said = refused.to_string();
        assert!(said.contains(reason) && said.starts_with(&format!("line {line}: ")), "{said}");
        assert_eq!(log.stream_head(&run).await.expect("readable"), None);
    }
    // Only the fork's own record.
    let orphan = text.lines().enumerate().filter(|(line, _)| ![1, 3, 4, 5].contains(line));
    let orphan: String = orphan.map(|(_, line)| format!("{line}\n")).collect();
    std::fs::write(&file, orphan).expect("writable");
    let refused = imported(&repository(&log), &[7; 32], &file).await.expect_err("refused");
    assert!(refused.to_string().contains("up to event 2, which is not in the file"), "{refused}");
}
