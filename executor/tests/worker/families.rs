//! Runs within runs that are repaired, paused and cancelled together.

use convergio_domain::id::{RunId, StepId};
use convergio_domain::run::{AmendRun, NewLimits, RunCommand, RunPhase, RunState, child_run_id};
use convergio_domain::stream::StreamKey;
use serde_json::json;

use crate::harness::{PATIENCE, Platform, tenant};
use crate::script::{Line, Script};

const INNER: &str = r#"
name: inner
output: "{{ nodes.two.output }}"
nodes:
  - id: one
    agent: {model: local, prompt: "costly", max_tokens: 20}
  - id: two
    retry: {max: 1}
    agent: {model: local, prompt: "after {{ nodes.one.output }}", max_tokens: 20}
"#;

const MIDDLE: &str = r#"
name: middle
output: "{{ nodes.sub.output }}"
nodes:
  - {id: sub, graph: inner, retry: {max: 1}}
"#;

const OUTER: &str = r#"
name: outer
output: "{{ nodes.sub.output }}"
nodes:
  - {id: sub, graph: middle, retry: {max: 1}}
"#;

fn step(id: &str) -> StepId {
    id.parse().expect("a step")
}

/// The run of a step that is one run.
fn child(run: &StreamKey) -> StreamKey {
    StreamKey::for_run(tenant(), child_run_id(RunId(run.id), &step("sub"), 1, None))
}

fn retry(id: &str) -> RunCommand {
    RunCommand::Retry { steps: vec![step(id)] }
}

/// How often a prompt that holds a text was sent.
fn calls(script: &Script, text: &str) -> usize {
    let requests = script.requests();
    requests.iter().filter(|request| request["messages"].to_string().contains(text)).count()
}

async fn platform(lines: Vec<Line>) -> (std::sync::Arc<Script>, Platform) {
    let (script, provider) = Script::serve(lines).await;
    let platform = Platform::with_models(vec![provider]);
    platform.register(INNER).await;
    platform.register(MIDDLE).await;
    (script, platform)
}

#[tokio::test]
async fn a_failed_run_within_goes_on_from_where_it_failed_down_to_the_innermost() {
    let lines = vec![Line::Text("one"), Line::Busy, Line::Text("two")];
    let (script, mut platform) = platform(lines).await;
    let run = platform.create(OUTER, &json!({})).await;
    platform.start();
    assert_eq!(platform.ended(&run).await.phase, RunPhase::Failed);
    platform.tell(&run, retry("sub")).await;
    let state = platform.ended(&run).await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    assert_eq!(platform.output(&run, &state).await, json!("two"));
    assert_eq!(calls(&script, "costly"), 1, "what is done is not done again");
    assert_eq!(state.children.len(), 1, "the same run went on");
    let inner = platform.state(&child(&child(&run))).await;
    assert_eq!((state.spent.tokens, inner.spent.tokens), (26, 26), "counted once on each level");
    assert_eq!(state.spent.reserved_tokens, 0);
    platform.stop().await;
    platform.replay(&run, OUTER).await.expect("no divergence");
    platform.replay(&child(&run), MIDDLE).await.expect("no divergence");
    platform.replay(&child(&child(&run)), INNER).await.expect("no divergence");
}

#[tokio::test]
async fn a_run_within_that_was_repaired_by_itself_lets_the_one_go_on_that_failed_by_it() {
    let lines = vec![Line::Text("one"), Line::Busy, Line::Text("two")];
    let (script, mut platform) = platform(lines).await;
    let run = platform.create(MIDDLE, &json!({})).await;
    platform.start();
    assert_eq!(platform.ended(&run).await.phase, RunPhase::Failed);
    let inner = child(&run);
    platform.until(&inner, |state| state.told).await;
    platform.tell(&inner, retry("two")).await;
    let state = platform.until(&run, |state| state.phase == RunPhase::Completed).await;
    assert_eq!((script.requests().len(), calls(&script, "costly"), state.spent.tokens), (3, 1, 26));
    assert_eq!(platform.output(&run, &state).await, json!("two"));
    platform.stop().await;
    platform.replay(&run, MIDDLE).await.expect("no divergence");
}

#[tokio::test]
async fn a_further_try_of_a_sub_graph_goes_on_with_the_same_run() {
    let lines = vec![Line::Text("one"), Line::Busy, Line::Text("two")];
    let (script, mut platform) = platform(lines).await;
    let manifest = MIDDLE.replace("max: 1", "max: 2, backoff: 1ms");
    let ended = platform.execute(&manifest, &json!({})).await.completed();
    assert_eq!(calls(&script, "costly"), 1);
    assert_eq!(ended.count("run.child.intended.v1"), 1);
}

#[tokio::test]
async fn a_corrected_sub_graph_is_gone_on_by() {
    let (script, mut platform) = platform(vec![Line::Text("one"), Line::Text("two")]).await;
    platform.register(&INNER.replace("nodes.two.output }}", "nodes.two.output.title }}")).await;
    let run = platform.create(MIDDLE, &json!({})).await;
    platform.start();
    assert_eq!(platform.ended(&run).await.phase, RunPhase::Failed);
    let corrected = INNER.replace("nodes.two.output }}", "nodes.two.output | upper }}");
    platform.register(&corrected).await;
    platform.tell(&run, retry("sub")).await;
    let state = platform.ended(&run).await;
    assert_eq!(platform.output(&run, &state).await, json!("TWO"), "{:?}", state.error);
    assert_eq!(script.requests().len(), 2);
    platform.stop().await;
}

const SIBLINGS: &str = r#"
name: siblings
output: "{{ nodes.sub.output }}"
nodes:
  - {id: sub, graph: inner}
  - {id: ok, approval: {role: owner, show: "go on?"}}
"#;

#[tokio::test]
async fn a_run_within_that_a_siblings_failure_cancelled_goes_on_with_the_retry() {
    let lines = vec![Line::Text("one"), Line::Hang, Line::Text("two")];
    let (script, mut platform) = platform(lines).await;
    let run = platform.create(SIBLINGS, &json!({})).await;
    platform.start();
    while script.requests().len() < 2 {
        script.called.notified().await;
    }
    platform.answer(&run, false).await;
    assert_eq!(platform.ended(&run).await.phase, RunPhase::Failed);
    let over = |state: &RunState| !state.has_open_obligations();
    platform.until(&run, over).await;
    assert_eq!(platform.state(&child(&run)).await.phase, RunPhase::Cancelled);
    platform.tell(&run, retry("ok")).await;
    let over = |state: &RunState| state.phase == RunPhase::Completed;
    platform.until(&child(&run), over).await;
    assert_eq!(calls(&script, "costly"), 1);
    platform.stop().await;
}

#[tokio::test]
async fn a_cancelled_family_calls_nothing_after_its_executor_died() {
    let lines = vec![Line::Text("one"), Line::Hang, Line::Text("never")];
    let (script, mut platform) = platform(lines).await;
    let run = platform.create(OUTER, &json!({})).await;
    platform.start();
    while script.requests().len() < 2 {
        script.called.notified().await;
    }
    // The executor ends in the middle of the call.
    platform.stop().await;
    let context = platform.context();
    let cancel = RunCommand::Cancel { reason: None };
    platform.repository.steer_family(&run, &context, cancel).await.expect("it runs");
    for member in [child(&run), child(&child(&run))] {
        assert_eq!(platform.state(&member).await.phase, RunPhase::Cancelled, "before it is told");
    }
    platform.start();
    platform.until(&run, |state| !state.has_open_obligations()).await;
    assert_eq!(script.requests().len(), 2);
    platform.stop().await;
}

#[tokio::test]
async fn a_family_whose_cancellation_was_interrupted_calls_nothing_either() {
    let lines = vec![Line::Text("one"), Line::Hang, Line::Text("never")];
    let (script, mut platform) = platform(lines).await;
    let run = platform.create(OUTER, &json!({})).await;
    platform.start();
    while script.requests().len() < 2 {
        script.called.notified().await;
    }
    platform.stop().await;
    // Only the outermost knows, and the innermost is taken up first: its work is due for longer.
    platform.tell(&run, RunCommand::Cancel { reason: None }).await;
    platform.active_runs = Some(1);
    platform.start();
    platform.until(&run, |state| !state.has_open_obligations()).await;
    assert_eq!(platform.state(&child(&child(&run))).await.phase, RunPhase::Cancelled);
    assert_eq!(script.requests().len(), 2);
    platform.stop().await;
}

#[tokio::test]
async fn a_run_that_is_created_within_a_paused_one_is_paused_until_that_one_goes_on() {
    let lines = vec![Line::Text("one"), Line::Text("two")];
    let (script, mut platform) = platform(lines).await;
    let run = platform.create(OUTER.replace("middle", "inner").as_str(), &json!({})).await;
    // Its executor dies before it creates the run within.
    platform.advance_to_child(&run).await;
    let (context, pause) = (platform.context(), RunCommand::Pause { reason: None });
    platform.repository.steer_family(&run, &context, pause).await.expect("it runs");
    platform.start();
    // Somebody else's run: when it has ended, the executor follows the log.
    let other = platform.create("name: other\nnodes: [{id: nap, sleep: 1ms}]", &json!({})).await;
    platform.ended(&other).await;
    let waiting = async {
        // Somebody else's word makes an executor look at the run: it may create, and calls nothing.
        platform.tell(&run, RunCommand::Mark { label: None }).await;
        platform.until(&child(&run), |state| state.pause.inherited).await
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it is created paused");
    assert_eq!(script.requests().len(), 0);
    platform.repository.steer_family(&run, &context, RunCommand::Resume).await.expect("paused");
    assert_eq!(platform.ended(&run).await.phase, RunPhase::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn a_pause_reaches_the_innermost_and_a_person_s_own_pause_stays() {
    let asking = INNER.replace(
        "  - id: two\n",
        "  - {id: ok, needs: [one], approval: {role: r, show: x}}\n  - id: two\n    needs: [ok]\n",
    );
    let (script, mut platform) = platform(vec![Line::Text("one"), Line::Text("two")]).await;
    platform.register(&asking).await;
    let run = platform.create(OUTER, &json!({})).await;
    platform.start();
    let inner = child(&child(&run));
    platform.until(&child(&run), |state| !state.children.is_empty()).await;
    let log = platform.repository.event_log();
    while log.stream_head(&inner).await.expect("the log works").is_none() {
        tokio::task::yield_now().await;
    }
    platform.until(&inner, |state| !state.approvals.is_empty()).await;
    let context = platform.context();
    platform.tell(&child(&run), RunCommand::Pause { reason: None }).await;
    let pause = RunCommand::Pause { reason: None };
    platform.repository.steer_family(&run, &context, pause).await.expect("it runs");
    platform.answer(&inner, true).await;
    assert!(platform.state(&inner).await.paused && script.requests().len() == 1);
    platform.repository.steer_family(&run, &context, RunCommand::Resume).await.expect("paused");
    let middle = platform.state(&child(&run)).await;
    assert!(middle.paused && !middle.pause.inherited, "somebody paused it");
    assert!(platform.state(&inner).await.paused, "with the one that it belongs to");
    let resume = RunCommand::Resume;
    platform.repository.steer_family(&child(&run), &context, resume).await.expect("paused");
    assert_eq!(platform.ended(&run).await.phase, RunPhase::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn a_run_without_tokens_goes_on_with_more_and_repeats_nothing() {
    let lines = vec![Line::Text("one"), Line::Text("two")];
    let (script, mut platform) = platform(lines).await;
    let larger = INNER.replace("output }}\", max_tokens: 20", "output }}\", max_tokens: 500");
    let manifest = format!("budget: {{tokens: 200}}\n{larger}");
    let run = platform.create(&manifest, &json!({})).await;
    platform.start();
    let state = platform.ended(&run).await;
    assert_eq!(state.error.as_ref().map(|e| e.code.as_str()), Some("budget.exceeded"));
    let sent = script.requests().len();
    let limits = NewLimits { tokens: Some(1_000), ..NewLimits::default() };
    let amend = AmendRun { limits, version: None, steps: Vec::new(), reason: None };
    platform.tell(&run, RunCommand::Amend(amend)).await;
    let state = platform.ended(&run).await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    assert_eq!((sent, script.requests().len()), (1, 2));
    platform.stop().await;
    platform.replay(&run, &manifest).await.expect("no divergence");
}
