//! Limits of time that are given to a node are kept by every kind that takes them.

use convergio_domain::run::RunPhase;
use serde_json::json;

use crate::harness::Platform;
use crate::script::{Line, Script};

fn manifest(body: &str) -> String {
    format!("name: limited\nnodes:\n  - {{id: x, {body}}}\n")
}

#[tokio::test]
async fn a_wait_that_its_timeout_ends_is_a_failure_with_a_code_of_its_own() {
    let cases = [
        ("timeout: 20ms, approval: {show: s}", "approval.expired"),
        ("timeout: 20ms, approval: {show: s, ttl: 1h}", "approval.expired"),
        ("timeout: 1h, approval: {show: s, ttl: 20ms}", "approval.expired"),
        ("timeout: 20ms, signal: paid", "signal.timeout"),
        ("timeout: 20ms, signal: {name: paid, timeout: 1h}", "signal.timeout"),
        ("timeout: 1h, signal: {name: paid, timeout: 20ms}", "signal.timeout"),
        ("timeout: 20ms, sleep: 1h", "sleep.timeout"),
    ];
    for (body, code) in cases {
        let ended = Platform::new().execute(&manifest(body), &json!({})).await;
        assert_eq!(ended.error().code, code, "{body}");
    }
}

#[tokio::test]
async fn a_sleep_within_its_timeout_ends_well() {
    let ended = Platform::new().execute(&manifest("timeout: 1h, sleep: 20ms"), &json!({})).await;
    assert_eq!(ended.state.phase, RunPhase::Completed);
}

#[tokio::test]
async fn what_follows_the_end_of_a_wait_is_up_to_on_error() {
    let manifest = "name: limited\noutput: '{{ nodes.x.status }}'\nnodes:\n  \
        - {id: x, timeout: 20ms, on_error: skip, sleep: 1h}\n";
    let ended = Platform::new().execute(manifest, &json!({})).await.completed();
    assert_eq!(ended.output, "failed");
}

#[tokio::test]
async fn a_tool_that_takes_longer_than_its_timeout_has_failed() {
    // Arguments of this size are worked on beside the run, which then has no time for them.
    let text = "word ".repeat(200_000);
    let body = "timeout: 0s, retry: {max: 1}, tool: text.upper, with: {text: '{{ inputs.text }}'}";
    let ended = Platform::new().execute(&manifest(body), &json!({"text": text})).await;
    assert_eq!(ended.error().code, "tool.timeout");
}

#[tokio::test]
async fn an_answer_with_a_number_that_would_be_rounded_is_asked_for_again() {
    let manifest = "name: limited\noutput: '{{ nodes.x.output.n }}'\nnodes:\n  \
        - {id: x, retry: {backoff: 1ms}, agent: {prompt: p, schema: {type: object}}}\n";
    let lines = vec![
        Line::Text(r#"{"n": 12345678901234567890123}"#),
        Line::Text(r#"{"n": 9007199254740993}"#),
    ];
    let (script, provider) = Script::serve(lines).await;
    let mut platform = Platform::with_models(vec![provider]);
    let ended = platform.execute(manifest, &json!({})).await.completed();
    assert_eq!(ended.output, json!(9_007_199_254_740_993_u64));
    assert_eq!(script.requests().len(), 2);
}

#[tokio::test]
async fn a_run_within_that_waits_for_people_is_over_with_its_steps_timeout() {
    let mut platform = Platform::new();
    platform.register("name: inner\nnodes: [{id: q, approval: {show: s}}]").await;
    let outer = manifest("timeout: 50ms, graph: {name: inner}");
    let ended = platform.execute(&outer, &json!({})).await;
    assert_eq!(ended.error().code, "budget.exceeded");
    assert!(ended.error().message.contains("deadline"), "{}", ended.error().message);
}
