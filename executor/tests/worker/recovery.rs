//! After a crash: another executor goes on from the log alone.

use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{RunPhase, RunState};
use serde_json::json;

use crate::agents::{ASK, Behaviour, Model};
use crate::harness::Platform;

#[tokio::test]
async fn a_call_of_a_dead_executor_is_unknown_and_made_again() {
    let (model, hanging) = Model::serve(Behaviour::Hang).await;
    let mut platform = Platform::with_models(vec![hanging]);
    let run = platform.create(ASK, &json!({"text": "hi"})).await;
    // The first life of the executor is never stopped: like a dead process, it writes no more.
    let dead = platform.executor();
    model.called.notified().await;

    let (_model, answering) = Model::serve(Behaviour::Answer).await;
    platform.replace_models(vec![answering]);
    platform.start();
    let state = platform.ended(&run).await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    let events = platform.events(&run).await;
    let unknown = events.iter().filter(|e| matches!(e, RunEvent::StepUnknown(_))).count();
    assert_eq!(unknown, 1);
    let confirmed: Vec<bool> = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::UsageRecorded(usage) => Some(usage.confirmed),
            _ => None,
        })
        .collect();
    assert_eq!(confirmed, [false, true], "the lost call may have cost something, and says so");
    platform.stop().await;
    drop(dead);
}

#[tokio::test]
async fn a_shutdown_in_the_middle_loses_nothing() {
    let (model, hanging) = Model::serve(Behaviour::Hang).await;
    let mut platform = Platform::with_models(vec![hanging]);
    let run = platform.create(ASK, &json!({"text": "hi"})).await;
    platform.start();
    model.called.notified().await;
    platform.stop().await;
    let state: RunState = platform.state(&run).await;
    assert_eq!(state.phase, RunPhase::Running);
    assert_eq!(state.spent.reserved_tokens, 0, "the abandoned call is settled as unknown");

    let (_model, answering) = Model::serve(Behaviour::Answer).await;
    platform.replace_models(vec![answering]);
    platform.start();
    assert_eq!(platform.ended(&run).await.phase, RunPhase::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn many_runs_at_once_all_complete_and_wait_their_turn() {
    let manifest = r#"
name: little
output: "{{ nodes.c.output }}"
nodes:
  - {id: a, tool: text.trim, with: {text: "{{ inputs.text }}"}}
  - {id: b, tool: text.trim, with: {text: "{{ nodes.a.output }}"}}
  - {id: c, tool: text.trim, with: {text: "{{ nodes.b.output }}"}}
"#;
    let mut platform = Platform::new();
    let mut runs = Vec::new();
    for number in 0..600 {
        runs.push(platform.create(manifest, &json!({"text": format!("run {number}")})).await);
    }
    platform.start();
    for run in &runs {
        assert_eq!(platform.ended(run).await.phase, RunPhase::Completed);
    }
    platform.stop().await;
}
