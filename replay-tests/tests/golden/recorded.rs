//! Every recorded run means what it meant when it was recorded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use convergio_domain::decider::DecisionContext;
use convergio_domain::event::{Event, decode_event};
use convergio_domain::graph::NODE_KINDS;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::request::event::RequestEvent;
use convergio_domain::run::Run;
use convergio_domain::run::event::RunEvent;
use convergio_domain::stream::Seq;
use convergio_domain::time::Timestamp;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::run_file::{RunFile, RunImportOptions, import_run};
use convergio_eventstore::{LogWriter, MemoryLog, Record, Repository, SystemClock};
use convergio_executor::replay::Replay;
use serde_json::Value;

use crate::expected;

/// The written type of every event that stands in a run's stream. Each event has a sample
/// (`tests/contracts.rs`).
fn all_run_events() -> BTreeSet<String> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/events");
    let entries = std::fs::read_dir(samples).expect("the samples are there");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(entry.expect("one").path()).expect("text");
        decode_event(serde_json::from_str(&text).expect("JSON")).expect("an event")
    };
    let is_of_run = |event: &Event| {
        matches!(event, Event::Run(_) | Event::Request(RequestEvent::RequestApplied(_)))
    };
    entries.map(read).filter(is_of_run).map(|event| event.type_name().to_owned()).collect()
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Every file, by name.
fn files() -> Vec<(String, RunFile)> {
    let entries = std::fs::read_dir(folder()).expect("the files are there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("one").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    paths.sort();
    assert!(paths.len() >= 14, "there are files to replay");
    let read = |path: PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        let file = RunFile::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, file)
    };
    paths.into_iter().map(read).collect()
}

#[tokio::test]
async fn every_file_comes_to_what_is_expected() {
    let scratch = tempfile::tempdir().expect("a folder");
    for (name, file) in files() {
        let path = folder().join(format!("{name}.expected.json"));
        let found = expected::of(&file, &scratch.path().join(&name)).await;
        if std::env::var_os("CONVERGIO_BLESS").is_some() {
            let text = serde_json::to_string_pretty(&found).expect("JSON");
            std::fs::write(&path, text + "\n").expect("writable");
        }
        let text = std::fs::read_to_string(&path);
        let text = text.unwrap_or_else(|_| panic!("{name}: run with CONVERGIO_BLESS=1"));
        let expected: Value = serde_json::from_str(&text).expect("JSON");
        for (part, value) in expected.as_object().expect("an object") {
            assert_eq!(&found[part], value, "{name}: {part}");
        }
    }
}

#[test]
fn every_kind_of_event_and_node_is_recorded() {
    let (mut events, mut nodes) = (BTreeSet::new(), BTreeSet::new());
    for (_, file) in files() {
        let all = file.records.iter().flat_map(|record| &record.body.events);
        events.extend(all.map(Event::type_name));
        for node in file.graphs.values().flat_map(|graph: &Graph| &graph.nodes) {
            let written = serde_json::to_value(&node.work).expect("JSON");
            nodes.extend(written.as_object().expect("a kind").keys().cloned());
        }
    }
    let all = all_run_events();
    let missing: Vec<_> = all.iter().filter(|kind| !events.contains(kind.as_str())).collect();
    assert!(missing.is_empty(), "no run has {missing:?}");
    let missing: Vec<_> = NODE_KINDS.iter().filter(|kind| !nodes.contains(**kind)).collect();
    assert!(missing.is_empty(), "no run has {missing:?}");
}

#[tokio::test]
async fn a_run_has_the_same_hashes_in_each_log_that_takes_it() {
    let scratch = tempfile::tempdir().expect("a folder");
    let near = EmbeddedLog::open(&EmbeddedConfig::new(scratch.path())).expect("opens");
    let key = std::fs::read(scratch.path().join("payload.key")).expect("a key");
    let logs: [(Arc<dyn LogWriter>, [u8; 32]); 2] = [
        (Arc::new(MemoryLog::new()), [7; 32]),
        (Arc::new(near), key.try_into().expect("32 bytes")),
    ];
    let context = DecisionContext { now: Timestamp(1), actor: "tester".parse().expect("a name") };
    for (log, key) in &logs {
        let repository = Repository::new(Arc::clone(log), Arc::new(SystemClock));
        for (name, file) in files() {
            let path = folder().join(format!("{name}.jsonl"));
            let options = RunImportOptions { context: &context, signer: None };
            let taken = import_run(&repository, key, &path, options).await;
            taken.unwrap_or_else(|error| panic!("{name}: {error}"));
            let hashes = |records: &[Arc<Record>]| -> Vec<_> {
                records.iter().map(|record| (record.hash, record.body.fold)).collect()
            };
            let ancestors = file.ancestors.iter().map(|ancestor| &ancestor.records);
            for records in ancestors.chain([&file.records]) {
                let stream = &records[0].stream;
                let read = log.read_stream(stream, Seq(0), 10_000).await.expect("readable");
                // Behind them stands the mark of the import.
                assert_eq!(hashes(&read[..records.len()]), hashes(records), "{name}");
            }
            let end = file.records.last().expect("records").last_seq();
            let loaded = repository.load_at::<Run>(&file.stream, end, true).await;
            let mut loaded = loaded.expect("readable").expect("it has the event");
            let replayed =
                expected::replayed(&file).expect("no divergence").state.refresh_fingerprint();
            assert_eq!(
                loaded.state.refresh_fingerprint(),
                replayed,
                "{name}: with what it inherits"
            );
        }
    }
}

/// A fold that does not always do the same is what this looks like: an event means something else.
#[test]
fn a_fold_that_computes_otherwise_is_named_by_its_step() {
    let (_, file) = files().into_iter().find(|(name, _)| name == "tool").expect("recorded");
    let graph = file.graphs.values().next().expect("a graph").clone();
    let mut replay = Replay::new(graph).expect("the kernel takes it");
    let mut found = None;
    for record in &file.records {
        let mut record = (**record).clone();
        for event in &mut record.body.events {
            if let Event::Run(RunEvent::StepCompleted(event)) = event
                && event.step.to_string() == "count"
            {
                event.attempt = 2;
            }
        }
        found = replay.replay_commit(&Arc::new(record), None).err();
        if found.is_some() {
            break;
        }
    }
    let found = found.expect("it diverges");
    assert_eq!(found.step.expect("a step").to_string(), "count");
    assert_eq!(found.aspect, "the state");
    assert_ne!(found.recorded, found.computed);
}
