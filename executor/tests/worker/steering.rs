//! Runs that people steer: pauses, signals, retries, decisions about failures and lost calls.

use convergio_domain::id::StepId;
use convergio_domain::payload::PayloadSlot;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{
    CommandReason, Resolution, ResolveStep, RunCommand, RunPhase, RunState, SendSignal, StepStatus,
};
use convergio_domain::stream::StreamKey;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::agents::{Behaviour, Model};
use crate::harness::{PATIENCE, Platform};

fn step(id: &str) -> StepId {
    id.parse().expect("a step")
}

const ASKING: &str = r#"
name: pausing
output: "{{ nodes.after.output }}"
nodes:
  - {id: ok, approval: {role: teacher, show: "go?"}}
  - {id: after, needs: [ok], tool: text.trim, with: {text: "gone"}}
"#;

#[tokio::test]
async fn a_paused_run_stands_still_until_it_is_resumed() {
    let mut platform = Platform::new();
    let run = platform.create(ASKING, &json!({})).await;
    platform.start();
    platform.until(&run, |state| !state.approvals.is_empty()).await;
    platform.tell(&run, RunCommand::Pause { reason: None }).await;
    platform.answer(&run, true).await;
    // Whatever the executor had to say, it has said when it has ended.
    platform.stop().await;
    let state = platform.state(&run).await;
    assert!(state.paused && !state.steps.contains_key(&step("after")), "{state:?}");
    platform.start();
    platform.tell(&run, RunCommand::Resume).await;
    assert_eq!(platform.ended(&run).await.phase, RunPhase::Completed);
    platform.stop().await;
    platform.replay(&run, ASKING).await.expect("no divergence");
}

const WAITING: &str = r#"
name: waiting
output: {paid: "{{ nodes.paid.output.amount }}", note: "{{ nodes.note.output }}"}
nodes:
  - {id: paid, signal: payment}
  - {id: note, needs: [paid], tool: text.trim, with: {text: " {{ nodes.paid.output.by }} "}}
"#;

fn signal(name: &str) -> RunCommand {
    let signal = name.parse().expect("a name");
    let (id, payload) = (Uuid::now_v7(), PayloadSlot(0));
    RunCommand::Signal(SendSignal { id, name: signal, payload })
}

#[tokio::test]
async fn what_a_signal_carries_is_the_output_of_the_node_that_waits() {
    for is_early in [true, false] {
        let mut platform = Platform::new();
        let run = platform.create(WAITING, &json!({})).await;
        let carried = json!({"amount": 12, "by": "Ann"});
        if is_early {
            platform.tell_with(&run, signal("payment"), &carried).await;
        }
        platform.start();
        if !is_early {
            platform.until(&run, |state| state.steps.contains_key(&step("paid"))).await;
            platform.tell_with(&run, signal("other"), &json!("not this one")).await;
            platform.tell_with(&run, signal("payment"), &carried).await;
        }
        let state = platform.ended(&run).await;
        assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
        let output = platform.output(&run, &state).await;
        assert_eq!(output, json!({"paid": 12, "note": "Ann"}));
        platform.stop().await;
        platform.replay(&run, WAITING).await.expect("no divergence");
    }
}

#[tokio::test]
async fn a_signal_that_does_not_come_in_time_fails_its_node() {
    let manifest = WAITING.replace("signal: payment", "signal: {name: payment, timeout: 20ms}");
    let ended = Platform::new().execute(&manifest, &json!({})).await;
    assert_eq!(ended.error().code, "signal.timeout");
}

const CHAIN: &str = r#"
name: chain
output: "{{ nodes.ask.output }}"
nodes:
  - {id: first, tool: text.trim, with: {text: " hi "}}
  - id: ask
    retry: {max: 2, backoff: 1ms}
    POLICY
    agent: {model: local, prompt: "{{ nodes.first.output }}", max_tokens: 20}
  - {id: last, needs: [ask], join: any, tool: text.trim, with: {text: "done"}}
"#;

fn chain(policy: &str) -> String {
    CHAIN.replace("POLICY", policy)
}

fn count(events: &[RunEvent], kind: &str) -> usize {
    events.iter().filter(|event| event.type_name() == kind).count()
}

#[tokio::test]
async fn a_failed_run_is_retried_and_repeats_nothing_that_is_done() {
    let manifest = chain("");
    let (model, provider) = Model::serve(Behaviour::BusyFirst(2)).await;
    let mut platform = Platform::with_models(vec![provider]);
    let run = platform.create(&manifest, &json!({})).await;
    platform.start();
    assert_eq!(platform.ended(&run).await.phase, RunPhase::Failed);
    assert_eq!(model.calls(), 2);
    platform.tell(&run, RunCommand::Retry { steps: vec![step("ask")] }).await;
    let state = platform.ended(&run).await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    platform.stop().await;
    let events = platform.events(&run).await;
    let first =
        |event: &&RunEvent| matches!(event, RunEvent::StepStarted(s) if s.step == step("first"));
    assert_eq!(events.iter().filter(first).count(), 1, "what was done is not done again");
    assert_eq!((model.calls(), state.steps[&step("ask")].attempt), (3, 3));
    platform.replay(&run, &manifest).await.expect("no divergence");
}

async fn undecided(platform: &Platform, run: &StreamKey, id: &str) {
    let is_asked = |state: &RunState| {
        let known = state.steps.get(&step(id));
        known.is_some_and(|known| matches!(known.status, StepStatus::Undecided { .. }))
    };
    platform.until(run, is_asked).await;
}

fn resolve(id: &str, resolution: Resolution) -> RunCommand {
    let output = (resolution == Resolution::Completed).then_some(PayloadSlot(0));
    RunCommand::Resolve(ResolveStep { step: step(id), resolution, output, reason: None })
}

#[tokio::test]
async fn a_failure_that_asks_goes_on_as_somebody_decides() {
    let manifest = chain("on_error: ask");
    for (resolution, phase) in [
        (Resolution::Retry, RunPhase::Completed),
        (Resolution::Skip, RunPhase::Failed),
        (Resolution::Failed, RunPhase::Failed),
    ] {
        let (model, provider) = Model::serve(Behaviour::BusyFirst(2)).await;
        let mut platform = Platform::with_models(vec![provider]);
        let run = platform.create(&manifest, &json!({})).await;
        platform.start();
        undecided(&platform, &run, "ask").await;
        // Nobody executes when the decision is made: it waits in the log.
        platform.stop().await;
        platform.tell(&run, resolve("ask", resolution)).await;
        platform.start();
        let state = platform.ended(&run).await;
        platform.stop().await;
        assert_eq!(state.phase, phase, "{resolution:?}: {:?}", state.error);
        let code = state.error.as_ref().map(|error| error.code.as_str());
        match resolution {
            Resolution::Retry => assert_eq!(model.calls(), 3),
            // The node was skipped, and the graph's output needs it.
            Resolution::Skip => {
                assert_eq!(state.steps[&step("ask")].status, StepStatus::Skipped);
                assert_eq!(code, Some("template.invalid"));
            }
            _ => assert_eq!(code, Some("provider.unavailable")),
        }
        platform.replay(&run, &manifest).await.expect("no divergence");
    }
}

/// An executor that dies during the call, and another one that finds what it left.
async fn lost(manifest: &str, recognises: bool) -> (Platform, StreamKey, std::sync::Arc<Model>) {
    let (model, mut hanging) = Model::serve(Behaviour::Hang).await;
    hanging.recognises_repeats = recognises;
    let mut platform = Platform::with_models(vec![hanging]);
    let run = platform.create(manifest, &json!({})).await;
    // A life of its own, which ends as a process does.
    let life = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let dead = {
        let _within = life.enter();
        platform.executor()
    };
    model.called.notified().await;
    // Its threads are waited for: one that lives on could take up the decision.
    let died = tokio::task::spawn_blocking(|| life.shutdown_timeout(PATIENCE));
    died.await.expect("it is dead");
    drop(dead);
    let (answering, mut provider) = Model::serve(Behaviour::Answer).await;
    provider.recognises_repeats = recognises;
    platform.replace_models(vec![provider]);
    platform.start();
    let lost_key = model.keys.lock().expect("whole").clone();
    answering.keys.lock().expect("whole").extend(lost_key);
    (platform, run, answering)
}

#[tokio::test]
async fn a_lost_call_waits_for_a_decision_when_the_manifest_says_so() {
    for policy in ["ask", "reconcile", "retry_if_idempotent"] {
        let manifest = chain(&format!("on_unknown: {policy}"));
        let (mut platform, run, model) = lost(&manifest, false).await;
        undecided(&platform, &run, "ask").await;
        assert_eq!(platform.state(&run).await.spent.reserved_tokens, 0, "counted as unconfirmed");
        let told = resolve("ask", Resolution::Completed);
        platform.tell_with(&run, told, &json!("found in the export")).await;
        let state = platform.ended(&run).await;
        let events = platform.events(&run).await;
        assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
        assert_eq!(platform.output(&run, &state).await, json!("found in the export"));
        assert_eq!(model.calls(), 0, "{policy}: it was not made again");
        assert_eq!(count(&events, "run.step.asked.v1"), 1);
        platform.stop().await;
        platform.replay(&run, &manifest).await.expect("no divergence");
    }
}

#[tokio::test]
async fn a_lost_call_is_sent_again_under_the_same_key_to_who_recognises_it() {
    let manifest = chain("on_unknown: retry_if_idempotent");
    let (mut platform, run, model) = lost(&manifest, true).await;
    let state = platform.ended(&run).await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    platform.stop().await;
    let keys = model.keys.lock().expect("whole").clone();
    assert!(keys.len() == 2 && keys[0] == keys[1] && keys[0] != "none", "{keys:?}");
    let intended = platform.events(&run).await.into_iter().filter_map(|event| match event {
        RunEvent::ModelCallIntended(intended) => Some(intended.idempotency_key),
        _ => None,
    });
    let intended: Vec<Option<String>> = intended.collect();
    assert_eq!(intended, [Some(keys[0].clone()), Some(keys[0].clone())], "durable before the call");
}

#[tokio::test]
async fn a_decision_about_a_lost_call_may_be_another_try_or_a_failure() {
    let manifest = chain("on_unknown: ask");
    for (resolution, phase) in
        [(Resolution::Retry, RunPhase::Completed), (Resolution::Failed, RunPhase::Failed)]
    {
        let (mut platform, run, _model) = lost(&manifest, false).await;
        undecided(&platform, &run, "ask").await;
        platform.tell(&run, resolve("ask", resolution)).await;
        let state = platform.ended(&run).await;
        assert_eq!(state.phase, phase, "{:?}", state.error);
        platform.stop().await;
        platform.replay(&run, &manifest).await.expect("no divergence");
    }
}

#[tokio::test]
async fn parallel_questions_have_their_own_ids_and_answers() {
    let manifest = r#"
name: two
output: [ "{{ nodes.one.output.granted }}", "{{ nodes.two.output.reason }}" ]
nodes:
  - {id: one, approval: {role: teacher, show: "one?"}}
  - {id: two, approval: {role: head, show: "two?"}}
"#;
    let mut platform = Platform::new();
    let run = platform.create(manifest, &json!({})).await;
    platform.start();
    let state = platform.until(&run, |state| state.approvals.len() == 2).await;
    let asked = state.approvals.clone();
    let mut hashes: Vec<&str> = asked.values().map(|a| a.content_hash.as_str()).collect();
    hashes.dedup();
    assert_eq!(hashes.len(), 2, "each is bound to its own content");
    for (id, approval) in &asked {
        let answer = convergio_domain::run::AnswerApproval {
            approval: *id,
            content_hash: approval.content_hash.clone(),
            granted: true,
            reason: Some(CommandReason::Sealed(PayloadSlot(0))),
            roles: vec![approval.role.clone()],
        };
        platform.reply(&run, answer, &approval.role).await;
    }
    let state = platform.ended(&run).await;
    let output: Value = platform.output(&run, &state).await;
    assert_eq!(output, json!([true, "head"]));
    platform.stop().await;
}
