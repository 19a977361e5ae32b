//! Steps that wait: sleeps and people.

use convergio_domain::run::{RunPhase, RunState};
use serde_json::json;

use crate::harness::Platform;

const ASKING: &str = r#"
name: asking
output: "{{ nodes.after.output }}"
nodes:
  - {id: ok, approval: {role: teacher, show: "may {{ inputs.text }} go?", ttl: TTL}}
  - {id: after, needs: [ok], tool: text.trim, with: {text: "gone"}}
"#;

fn asking(ttl: &str) -> String {
    ASKING.replace("TTL", ttl)
}

#[tokio::test]
async fn a_granted_approval_lets_the_run_go_on() {
    let mut platform = Platform::new();
    let run = platform.create(&asking("7d"), &json!({"text": "it"})).await;
    platform.start();
    platform.answer(&run, true).await;
    assert_eq!(platform.ended(&run).await.phase, RunPhase::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn a_denied_approval_fails_the_run_with_the_reason() {
    let mut platform = Platform::new();
    let run = platform.create(&asking("7d"), &json!({"text": "it"})).await;
    platform.start();
    platform.answer(&run, false).await;
    let error = platform.ended(&run).await.error.expect("the run failed");
    assert_eq!(error.code, "approval.denied");
    assert!(!error.message.contains("because"), "a person's words are sealed");
    assert!(platform.detail(&run, &error).await.contains("because"));
    platform.stop().await;
}

#[tokio::test]
async fn an_approval_that_nobody_answers_expires() {
    let ended = Platform::new().execute(&asking("50ms"), &json!({"text": "it"})).await;
    assert_eq!(ended.error().code, "approval.expired");
}

#[tokio::test]
async fn an_answer_given_while_nobody_executes_is_found_at_the_start() {
    let mut platform = Platform::new();
    let run = platform.create(&asking("7d"), &json!({"text": "it"})).await;
    platform.start();
    platform.until(&run, |state| !state.approvals.is_empty()).await;
    platform.stop().await;
    platform.answer(&run, true).await;
    platform.start();
    assert_eq!(platform.ended(&run).await.phase, RunPhase::Completed);
    platform.stop().await;
}

const SLEEPING: &str = r#"
name: sleeping
nodes:
  - {id: nap, sleep: 20ms}
  - {id: after, needs: [nap], tool: text.trim, with: {text: "awake"}}
"#;

#[tokio::test]
async fn a_sleep_ends_by_its_timer() {
    let ended = Platform::new().execute(SLEEPING, &json!({})).await.completed();
    assert_eq!(ended.count("run.timer.fired.v1"), 1);
}

#[tokio::test]
async fn a_sleep_survives_the_executor() {
    let mut platform = Platform::new();
    let run = platform.create(SLEEPING, &json!({})).await;
    platform.start();
    let sleeps = |state: &RunState| !state.steps.is_empty();
    platform.until(&run, sleeps).await;
    platform.stop().await;
    platform.start();
    assert_eq!(platform.ended(&run).await.phase, RunPhase::Completed);
    platform.stop().await;
}
