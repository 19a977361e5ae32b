//! Replay: unchanged runs have no divergence, changed ones are named by their first step.

use std::sync::Arc;

use convergio_domain::decider::Fingerprint;
use convergio_domain::run::RunPhase;
use serde_json::json;

use crate::harness::Platform;
use crate::script::{Line, Script};

const LINE: &str = "name: line\noutput: \"{{ nodes.c.output }}\"\nnodes:\n\
    - {id: a, tool: text.trim, with: {text: \"{{ inputs.text }}\"}}\n\
    - {id: b, tool: text.trim, with: {text: \"{{ nodes.a.output }}\"}}\n\
    - {id: c, tool: text.trim, with: {text: \"{{ nodes.b.output }}\"}}\n";

async fn ran() -> (Platform, convergio_domain::stream::StreamKey) {
    let mut platform = Platform::new();
    let run = platform.create(LINE, &json!({"text": "x"})).await;
    platform.start();
    platform.ended(&run).await;
    platform.stop().await;
    (platform, run)
}

#[tokio::test]
async fn a_run_computes_again_to_the_same_state_at_every_commit() {
    let (platform, run) = ran().await;
    let replay = platform.replay(&run, LINE).await.expect("no divergence");
    assert!(replay.is_ended() && replay.commits == 5, "{}", replay.commits);
    assert!(replay.decisions >= 7, "{}", replay.decisions);
    assert!(replay.list_steps().iter().all(|(_, status)| *status == "completed"));
    let records = platform.records(&run).await;
    assert!(records.iter().all(|record| record.body.fold.is_some()));
}

#[tokio::test]
async fn another_graph_is_named_by_the_first_step_that_it_would_do_otherwise() {
    let (platform, run) = ran().await;
    // `b` waits for `c` in the new version: it would not have been next after `a`.
    let swapped = LINE.replace("nodes.a.output", "nodes.c.output").replace("nodes.b", "nodes.a");
    let found = platform.replay(&run, &swapped).await.err().expect("it diverges");
    assert_eq!(found.step.expect("a step").to_string(), "b", "{}", found.aspect);
    assert_eq!((found.recorded.as_str(), found.computed.as_str()), ("ready", "pending"));
    let renamed = LINE.replace("id: b", "id: bee").replace("nodes.b", "nodes.bee");
    let found = platform.replay(&run, &renamed).await.err().expect("it diverges");
    assert!(found.computed.contains("no such node"), "{found:?}");
}

#[tokio::test]
async fn a_state_that_folds_otherwise_is_named_by_both_values() {
    let (platform, run) = ran().await;
    let parsed =
        convergio_domain::graph::parse_manifest(LINE, &convergio_executor::tool::builtin_catalog());
    let graph = parsed.expect("valid").graph;
    let mut replay = convergio_executor::replay::Replay::new(graph).expect("valid");
    let records = platform.records(&run).await;
    replay.replay_commit(&records[0], None).expect("as written");
    let mut changed = (*records[1]).clone();
    let written = changed.body.fold.replace(Fingerprint(7)).expect("a fingerprint");
    let found = replay.replay_commit(&Arc::new(changed), None).expect_err("it diverges");
    assert_eq!(found.aspect, "the state");
    assert_eq!((found.recorded, found.computed), (Fingerprint(7).to_string(), written.to_string()));
}

const RECKONS: &str = "name: reckons\nnodes:\n\
    - {id: reckon, agent: {model: local, prompt: hi, max_tokens: 20, tools: [math.eval]}}\n";

#[tokio::test]
async fn tool_calls_are_judged_again_and_another_verdict_is_named() {
    let calls = vec![
        ("math-eval", r#"{"expression": "6 * 7"}"#),
        ("hash-sha256", r#"{"text": "x"}"#),
        ("weather", "{}"),
    ];
    let (_, provider) = Script::serve(vec![Line::Calls(calls), Line::Text("done")]).await;
    let mut platform = Platform::with_models(vec![provider]);
    let run = platform.create(RECKONS, &json!({})).await;
    platform.start();
    platform.ended(&run).await;
    platform.stop().await;
    let same = platform.replay(&run, RECKONS).await.expect("no divergence");
    assert_eq!(
        (same.skipped_decisions, same.decisions),
        (0, 8),
        "two routes, three verdicts, the step's"
    );
    let cases = [
        ("[text.trim]", "made: math.eval", "denied: math.eval"),
        ("[math.eval, hash.sha256]", "denied: hash.sha256", "made: hash.sha256"),
    ];
    for (tools, recorded, computed) in cases {
        let other = RECKONS.replace("[math.eval]", tools);
        let found = platform.replay(&run, &other).await.err().expect("it diverges");
        assert_eq!(found.step.expect("a step").to_string(), "reckon");
        assert_eq!(found.aspect, "the verdict on a tool call");
        assert_eq!((found.recorded.as_str(), found.computed.as_str()), (recorded, computed));
    }
}

#[tokio::test]
async fn a_step_that_fails_before_it_begins_is_computed_again_too() {
    let manifest = "
name: nobody
output: '{{ nodes.instead.output }}'
nodes:
  - id: ask
    on_error: {fallback: instead}
    agent: {model: auto, prompt: 'hello', max_tokens: 5}
  - {id: instead, tool: text.trim, with: {text: alone}}
";
    // There is no model: the failure is in the log, and no start before it.
    let ended = Platform::new().execute(manifest, &json!({})).await;
    assert_eq!((ended.state.phase, &ended.output), (RunPhase::Completed, &json!("alone")));
}
