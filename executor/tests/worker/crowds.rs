//! Runs over providers that refuse calls because they have too many: what they wait for, what the
//! log says of it, and when they give up.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{RunCommand, RunPhase, StepStatus};
use convergio_executor::provider::ProviderConfig;
use convergio_test_support::crowd::Crowd;
use serde_json::{Value, json};

use crate::fallback;
use crate::harness::{Ended, Platform};

/// Forty items, with the retries that a manifest has that says nothing of them.
const WIDE: &str = r#"
name: wide
nodes:
  - id: each
    map: {over: "{{ range(40) }}", max_parallel: 40, agent: {prompt: "item {{ item }}"}}
output: "{{ nodes.each.output | length }}"
"#;
const ASK: &str = r#"
name: ask
nodes:
  - {id: ask, agent: {prompt: hi, max_tokens: 20}}
"#;

/// One intent, one answer and one line of usage for each of the items, and no try that failed.
fn assert_asked_once_each(ended: &Ended, calls: usize) {
    let types = [
        ("run.model_call.intended.v1", calls),
        ("run.model_call.completed.v1", calls),
        ("run.usage.recorded.v1", calls),
        ("run.model_call.failed.v1", 0),
        ("run.step.retried.v1", 0),
        ("run.step.failed.v1", 0),
    ];
    for (type_name, expected) in types {
        assert_eq!(ended.count(type_name), expected, "{type_name}");
    }
}

#[tokio::test]
async fn a_map_of_forty_completes_at_a_provider_that_takes_three_at_once() {
    for hint in ["", "0.2"] {
        let (crowd, config) = Crowd::serve(3, hint).await;
        let ended = Platform::with_models(vec![config]).execute(WIDE, &Value::Null).await;
        let ended = ended.completed();
        assert_eq!(ended.output, json!(40));
        assert_asked_once_each(&ended, 40);
        let (refusals, arrivals) = (crowd.refusals.load(Ordering::SeqCst), crowd.arrivals());
        assert!(refusals > 0, "there was a crowd");
        assert_eq!(arrivals.len(), 40 + refusals, "each was answered once");
        // A call that is sent again is the same call.
        let keys: BTreeSet<String> = crowd.keys().into_iter().collect();
        assert_eq!(keys.len(), 40);
        assert!(crowd.peak.load(Ordering::SeqCst) <= 3);
    }
}

#[tokio::test]
async fn a_provider_that_refuses_every_call_fails_the_run_in_its_time() {
    let (crowd, config) = Crowd::serve(0, "").await;
    let impatient = WIDE
        .replace("id: each", "id: each\n    timeout: 1s\n    retry: {max: 2, backoff: 1ms}")
        .replace("range(40)", "range(10)");
    let ended = Platform::with_models(vec![config]).execute(&impatient, &Value::Null).await;
    let error = ended.error();
    assert_eq!((error.code.as_str(), error.retryable), ("provider.rate_limited", true));
    let told = &ended.detail;
    assert!(told.contains("429") && told.contains("waited 1s"), "{told}");
    assert!(crowd.arrivals().len() <= 40, "not asked without end: {}", crowd.arrivals().len());
    assert_eq!(ended.count("run.usage.recorded.v1"), 0, "nothing was used");
}

#[tokio::test]
async fn somebody_else_is_asked_in_place_of_waiting() {
    let (crowd, config) = Crowd::serve(0, "").await;
    let first = ProviderConfig { name: "first".into(), ..config };
    let (second, well) = fallback::provider("second", fallback::answers).await;
    let auto = ASK.replace("prompt: hi", "model: auto, prompt: hi");
    let ended = Platform::with_models(vec![first, well]).execute(&auto, &Value::Null).await;
    ended.completed();
    assert_eq!((crowd.arrivals().len(), second.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn the_next_try_keeps_to_a_long_hint() {
    let (crowd, config) = Crowd::serve(0, "60").await;
    let mut platform = Platform::with_models(vec![config]);
    let run = platform.create(ASK, &Value::Null).await;
    platform.start();
    let before = platform.context().now;
    let ask = "ask".parse().expect("a step");
    let due = |status: &StepStatus| match status {
        StepStatus::Scheduled { due } => *due,
        _ => None,
    };
    let is_put_off = |status: &StepStatus| due(status).is_some();
    let state = platform
        .until(&run, |state| state.steps.get(&ask).is_some_and(|step| is_put_off(&step.status)))
        .await;
    let wait = due(&state.steps[&ask].status).expect("a due time").span_since(before);
    assert!(wait.0 >= 60_000, "the next try is due after {} ms", wait.0);
    assert_eq!(crowd.arrivals().len(), 1);
    platform.tell(&run, RunCommand::Cancel { reason: None }).await;
    platform.ended(&run).await;
    platform.stop().await;
}

#[tokio::test]
async fn a_run_that_waits_for_places_is_cancelled_at_once_and_leaves_them_to_others() {
    let (crowd, config) = Crowd::serve_at_once(40).await;
    crowd.hold();
    let config = ProviderConfig { max_parallel: 1, ..config };
    let mut platform = Platform::with_models(vec![config]);
    let (wide, ask) =
        (platform.create(WIDE, &Value::Null).await, platform.create(ASK, &Value::Null).await);
    platform.start();
    crowd.called.notified().await;
    platform.tell(&wide, RunCommand::Cancel { reason: None }).await;
    assert_eq!(platform.ended(&wide).await.phase, RunPhase::Cancelled);
    crowd.release();
    assert_eq!(platform.ended(&ask).await.phase, RunPhase::Completed);
    platform.stop().await;
    let events = platform.events(&wide).await;
    let is_answer = |event: &&RunEvent| matches!(event, RunEvent::ModelCallCompleted(_));
    assert_eq!(events.iter().filter(is_answer).count(), 0);
    assert!(crowd.arrivals().len() <= 2, "what waited was not sent");
}
