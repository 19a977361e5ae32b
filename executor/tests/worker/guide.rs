//! The guide's examples of each kind of node, run to their end.

use std::collections::BTreeSet;
use std::path::Path;

use convergio_domain::graph::{NODE_KINDS, parse_manifest};
use convergio_domain::payload::PayloadSlot;
use convergio_domain::run::{RunCommand, RunPhase, SendSignal};
use convergio_domain::stream::StreamKey;
use convergio_executor::tool;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::Platform;
use crate::script::{Line, Script};

/// What an example is given, and what it yields.
struct Expected {
    inputs: Value,
    /// What its model answers.
    lines: Vec<Line>,
    /// Whether somebody answers its question, or sends it what it waits for.
    is_steered: bool,
    output: Value,
}

fn quiet(inputs: Value, output: Value) -> Expected {
    Expected { inputs, lines: Vec::new(), is_steered: false, output }
}

fn answered(inputs: Value, lines: Vec<Line>, output: Value) -> Expected {
    Expected { lines, ..quiet(inputs, output) }
}

/// The graph that the model of the example proposes.
const PROPOSED: &str = r#"{"output": "{{ nodes.joined.output }}", "nodes": [
    {"id": "joined", "tool": "text.join", "with": {"items": ["a", "b"], "separator": ""}}]}"#;

fn expected(name: &str) -> Expected {
    match name {
        "brief" => answered(json!({"doc": "d"}), vec![Line::Text("short")], json!("short")),
        "count_words" => quiet(json!({}), json!("one and two and three")),
        "grade" => quiet(json!({"points": 70}), json!({"passed": "well done", "failed": null})),
        "translate_all" => {
            let lines = vec![Line::Text("eins"), Line::Text("eins")];
            answered(json!({}), lines, json!(["eins", "eins"]))
        }
        "release" => Expected { is_steered: true, ..quiet(json!({}), json!(true)) },
        "remind" => quiet(json!({}), json!("time is up")),
        "two_briefs" => {
            let lines = vec![Line::Text("first"), Line::Text("second")];
            answered(json!({}), lines, json!(["first", "second"]))
        }
        "work_out" => answered(json!({}), vec![Line::Text(PROPOSED)], json!("ab")),
        "shipment" => Expected { is_steered: true, ..quiet(json!({}), json!("Ann")) },
        other => panic!("the guide has an example that nobody expects: {other}"),
    }
}

/// The blocks of the guide that are whole graphs.
fn examples() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/manifest.md");
    let guide = std::fs::read_to_string(path).expect("the guide is there");
    let blocks = guide.split("```yaml runnable\n").skip(1);
    blocks.map(|rest| rest.split("```").next().expect("a block").to_owned()).collect()
}

/// Does what people and programs do in the example.
async fn steer(platform: &Platform, run: &StreamKey, manifest: &str) {
    let graph = parse_manifest(manifest, &tool::builtin_catalog()).expect("valid").graph;
    let Some(name) = graph.signal_names().first().cloned() else {
        return platform.answer(run, true).await;
    };
    let (id, payload) = (Uuid::now_v7(), PayloadSlot(0));
    let signal = RunCommand::Signal(SendSignal { id, name, payload });
    platform.tell_with(run, signal, &json!({"by": "Ann"})).await;
}

#[tokio::test]
async fn every_example_of_the_guide_runs_to_its_end() {
    let examples = examples();
    let mut kinds = BTreeSet::new();
    for manifest in &examples {
        let parsed =
            parse_manifest(manifest, &tool::builtin_catalog()).unwrap_or_else(|m| panic!("{m:#?}"));
        assert_eq!(parsed.warnings, [], "{manifest}");
        let written = serde_json::to_value(&parsed.graph.nodes).expect("JSON");
        for node in written.as_array().expect("a list") {
            kinds.extend(NODE_KINDS.into_iter().filter(|kind| node.get(kind).is_some()));
        }
        let expected = expected(&parsed.graph.name);
        let (_script, provider) = Script::serve(expected.lines).await;
        let mut platform = Platform::with_models(vec![provider]);
        platform.register(&examples[0]).await;
        let run = platform.create(manifest, &expected.inputs).await;
        platform.start();
        if expected.is_steered {
            steer(&platform, &run, manifest).await;
        }
        let state = platform.ended(&run).await;
        assert_eq!(state.phase, RunPhase::Completed, "{manifest}: {:?}", state.error);
        assert_eq!(platform.output(&run, &state).await, expected.output, "{manifest}");
        platform.stop().await;
        platform.replay(&run, manifest).await.expect("no divergence");
    }
    assert_eq!(kinds, BTreeSet::from(NODE_KINDS), "an example of each kind");
}
