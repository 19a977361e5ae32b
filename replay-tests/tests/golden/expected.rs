//! What a recorded run comes to: its state, its effects in order, and its rows in read models.

use std::path::Path;

use convergio_domain::event::Event;
use convergio_domain::graph::manifest::{Graph, MapWork, Work};
use convergio_domain::id::StepId;
use convergio_domain::run::RunState;
use convergio_eventstore::Record;
use convergio_eventstore::run_file::RunFile;
use convergio_executor::replay::{Divergence, Replay};
use convergio_projections::recompute;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Replays a file; the first difference is an error.
pub(crate) fn replayed(file: &RunFile) -> Result<Replay, Box<Divergence>> {
    let mut replay = Replay::new(first_graph(file).clone()).expect("the kernel takes it");
    for record in &file.records {
        if let Some(version) = replay.wants(record) {
            replay.offer(version.clone(), file.graphs[version].clone());
        }
        for at in replay.lacks(record) {
            replay.provide(at, file.payloads.get(&at).map(|bytes| bytes.to_vec()));
        }
        replay.commit(record, None)?;
    }
    Ok(replay)
}

fn first_graph(file: &RunFile) -> &Graph {
    match &file.records[0].body.events[0] {
        Event::RunCreated(created) => &file.graphs[&created.version],
        other => panic!("a run begins with its creation, not {}", other.type_name()),
    }
}

/// All that is expected of a file, computed from it.
pub(crate) async fn of(file: &RunFile, scratch: &Path) -> Value {
    let mut replay = replayed(file).unwrap_or_else(|found| panic!("{found:?}"));
    assert_eq!(replay.unknown, 0, "every route is decided again");
    let rows = recompute(scratch, &file.stream, &file.records).await.expect("read models");
    json!({
        "hash": file.header.hash,
        "fingerprint": replay.state.fingerprint(),
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
        for recorded in record.events() {
            match recorded.event {
                Event::RunMigrated(migrated) => graph = &file.graphs[&migrated.to],
                Event::StepStarted(started) => {
                    let (step, attempt) = (&started.step, started.attempt);
                    let does = does(file, record, graph, step);
                    found.push(format!("{} {step} try {attempt}: {does}", recorded.seq));
                }
                _ => {}
            }
        }
    }
    found
}

/// What a step that a record starts is about to do.
fn does(file: &RunFile, record: &Record, graph: &Graph, step: &StepId) -> String {
    let intent = record.body.events.iter().find_map(|event| match event {
        Event::ModelCallIntended(call) if call.step == *step => {
            let prompt = file.payloads.get(&call.prompt);
            let prompt = prompt.map_or_else(String::new, |bytes| hex(&Sha256::digest(bytes)));
            Some(format!("asks {}/{} {prompt}", call.provider, call.model))
        }
        Event::TimerSet(timer) if timer.step == *step => Some("sleeps".to_owned()),
        Event::ApprovalRequested(asked) if asked.step == *step => {
            Some(format!("asks a person {}", asked.content_hash))
        }
        Event::MapExpanded(map) if map.node == step.node && step.item.is_none() => {
            Some(format!("becomes {} items", map.width))
        }
        _ => None,
    });
    let tool = || match &graph.node(&step.node).expect("a node").work {
        Work::Tool(tool) => format!("calls {}", tool.name),
        Work::Map(map) => match &map.work {
            MapWork::Tool(tool) => format!("calls {}", tool.name),
            MapWork::Agent(_) => "asks nobody".to_owned(),
        },
        other => panic!("{step} starts without an intent: {other:?}"),
    };
    intent.unwrap_or_else(tool)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
