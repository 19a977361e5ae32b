//! What a recorded run comes to: its state, its effects in order, and its rows in read models.

use std::collections::BTreeSet;
use std::path::Path;

use convergio_domain::graph::manifest::{Graph, MapWork, NodeWork};
use convergio_domain::id::StepId;
use convergio_domain::run::RunState;
use convergio_domain::run::event::{MapExpanded, RunEvent};
use convergio_eventstore::Record;
use convergio_eventstore::run_file::RunFile;
use convergio_executor::replay::{Divergence, Replay};
use convergio_projections::recompute_run_rows;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Replays a file; the first difference is an error.
pub(crate) fn replayed(file: &RunFile) -> Result<Replay, Box<Divergence>> {
    let mut replay = Replay::new(first_graph(file).clone()).expect("the kernel takes it");
    if let Some(state) = file.inherited_state() {
        replay.inherit_state(state);
    }
    for record in &file.records {
        if let Some(version) = replay.migration_target(record) {
            replay.offer_graph(version.clone(), file.graphs[version].clone());
        }
        for at in replay.missing_payloads(record) {
            replay.provide_payload(at, file.payloads.get(&at).map(|bytes| bytes.to_vec()));
        }
        replay.replay_commit(record, None)?;
    }
    Ok(replay)
}

fn first_graph(file: &RunFile) -> &Graph {
    let first = &file.records[0].body.events[0];
    let chosen = first.as_run().and_then(RunEvent::chosen_version);
    let Some((_, version)) = chosen else {
        panic!("a run begins with its creation, not {}", first.type_name());
    };
    &file.graphs[version]
}

/// All that is expected of a file, computed from it.
pub(crate) async fn of(file: &RunFile, scratch: &Path) -> Value {
    let mut replay = replayed(file).unwrap_or_else(|found| panic!("{found:?}"));
    assert_eq!(replay.skipped_decisions, 0, "every route is decided again");
    let rows = recompute_run_rows(scratch, &file.stream, &file.records).await.expect("read models");
    json!({
        "hash": file.header.hash,
        "fingerprint": replay.state.refresh_fingerprint(),
        "commits": replay.commits,
        "events": replay.events,
        "decisions": replay.decisions,
        "state": state(&replay.state),
        "effects": effects(file),
        "rows": rows.iter().map(|row| format!("{} {}", row.table, row.row)).collect::<Vec<_>>(),
    })
}

fn state(state: &RunState) -> Value {
    let steps = state.steps.iter().map(|(id, step)| (id.to_string(), json!(step)));
    let approvals = state.approvals.iter().map(|(id, asked)| (id.to_string(), json!(asked)));
    json!({
        "status": state.phase,
        "spent": state.spent,
        "steps": steps.collect::<Map<_, _>>(),
        "approvals": approvals.collect::<Map<_, _>>(),
        "output": state.output,
        "error": state.error,
    })
}

/// What was done in the world, in the order of the intents.
fn effects(file: &RunFile) -> Vec<String> {
    let mut graph = first_graph(file);
    let mut found = Vec::new();
    for record in &file.records {
        let mut began = BTreeSet::new();
        for recorded in record.recorded_events() {
            let Some(event) = recorded.event.as_run() else { continue };
            match event {
                RunEvent::RunMigrated(migrated) => graph = &file.graphs[&migrated.to],
                RunEvent::StepStarted(started) => {
                    let (step, attempt) = (&started.step, started.attempt);
                    let does = does(file, record, graph, step);
                    found.push(format!("{} {step} try {attempt}: {does}", recorded.seq));
                    began.insert(step.clone());
                }
                // What a step does besides, later on: an agent's further turns.
                event => {
                    let intent = intent(file, event).filter(|(step, _)| !began.contains(*step));
                    found.extend(
                        intent.map(|(step, does)| format!("{} {step}: {does}", recorded.seq)),
                    );
                }
            }
        }
    }
    found
}

/// What a step that a record starts is about to do.
fn does(file: &RunFile, record: &Record, graph: &Graph, step: &StepId) -> String {
    let intents = record.body.events.iter().filter_map(|event| intent(file, event.as_run()?));
    let own = intents.filter(|(other, _)| *other == step).map(|(_, does)| does).next();
    let expands = || {
        let is_it = |map: &&MapExpanded| map.node == step.node && step.item.is_none();
        let mut events = record.body.events.iter().filter_map(|event| match event.as_run()? {
            RunEvent::MapExpanded(map) => Some(map),
            _ => None,
        });
        events.find(is_it).map(|map| format!("becomes {} items", map.width))
    };
    let tool = || match &graph.find_node(&step.node).expect("a node").work {
        NodeWork::Tool(tool) => format!("calls {}", tool.name),
        NodeWork::Map(map) => match &map.work {
            MapWork::Tool(tool) => format!("calls {}", tool.name),
            MapWork::Agent(_) => "asks nobody".to_owned(),
        },
        other => panic!("{step} starts without an intent: {other:?}"),
    };
    own.or_else(expands).unwrap_or_else(tool)
}

/// The step that an event is an intent of, and what it is about to do.
fn intent<'e>(file: &RunFile, event: &'e RunEvent) -> Option<(&'e StepId, String)> {
    match event {
        RunEvent::ModelCallIntended(call) => {
            let prompt = file.payloads.get(&call.prompt);
            let prompt = prompt.map_or_else(String::new, |bytes| hex(&Sha256::digest(bytes)));
            Some((&call.step, format!("asks {}/{} {prompt}", call.provider, call.model)))
        }
        RunEvent::ToolCallQueued(call) => Some((&call.step, format!("queues {}", call.name))),
        RunEvent::ToolIntended(call) => Some((&call.step, format!("calls {}", call.name))),
        RunEvent::ToolCallIntended(call) => Some((&call.step, format!("calls {}", call.name))),
        RunEvent::ChildIntended(child) => Some((&child.step, format!("runs {}", child.child))),
        RunEvent::ChildReopened(child) => {
            Some((&child.step, format!("goes on with {}", child.child)))
        }
        RunEvent::TimerSet(timer) => Some((&timer.step, "sleeps".to_owned())),
        RunEvent::SignalAwaited(awaited) => {
            Some((&awaited.step, format!("waits for {}", awaited.signal)))
        }
        RunEvent::ApprovalRequested(asked) => {
            Some((&asked.step, format!("asks a person {}", asked.content_hash)))
        }
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
