//! Agents with tools: every model call and tool call is in the log before it is made, nothing that
//! is over is done again.

use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{RunPhase, RunState};
use serde_json::{Value, json};

use crate::harness::{Ended, Platform};
use crate::script::{Line, Script};

const AGENT: &str = r#"
name: reckoner
output: "{{ nodes.reckon.output }}"
nodes:
  - id: reckon
    retry: {max: 3, backoff: 1ms}
    agent:
      model: local
      prompt: "{{ inputs.text }}"
      max_tokens: 20
      tools: [math.eval, text.trim]
      max_turns: 4
      max_tool_calls: 5
"#;

async fn run(lines: Vec<Line>) -> (std::sync::Arc<Script>, Ended) {
    let (script, provider) = Script::serve(lines).await;
    let mut platform = Platform::with_models(vec![provider]);
    let ended = platform.execute(AGENT, &json!({"text": "what is 6 * 7?"})).await;
    (script, ended)
}

fn eval() -> Line {
    Line::Calls(vec![("math-eval", r#"{"expression": "6 * 7"}"#)])
}

#[tokio::test]
async fn each_turn_is_intended_answered_and_told_in_the_log() {
    let (script, ended) = run(vec![eval(), Line::Text("it is 42")]).await;
    let ended = ended.completed();
    assert_eq!(ended.output, json!("it is 42"));
    let types: Vec<_> = ended.events.iter().map(RunEvent::type_name).collect();
    let expected = [
        "run.created.v1",
        "run.step.started.v1",
        "run.model_call.intended.v1",
        "run.model_call.completed.v1",
        "run.usage.recorded.v1",
        "run.tool_call.intended.v1",
        "run.tool_call.completed.v1",
        "run.model_call.intended.v1",
        "run.model_call.completed.v1",
        "run.usage.recorded.v1",
        "run.step.completed.v1",
        "run.completed.v1",
    ];
    assert_eq!(types, expected);
    assert_eq!(ended.commits, 5, "created, asked, called, asked again, done");
    assert_eq!(ended.state.spent.tokens, 26);
    let tools = script.requests()[0]["tools"].clone();
    assert_eq!(tools[0]["function"]["name"], "math-eval");
    let told = script.messages(1);
    assert_eq!(told[1]["tool_calls"][0]["id"], "c0");
    assert_eq!((&told[2]["role"], &told[2]["tool_call_id"]), (&json!("tool"), &json!("c0")));
    assert_eq!(told[2]["content"], "42");
}

#[tokio::test]
async fn a_number_that_would_be_rounded_is_told_to_the_model() {
    let bad = vec![("math-eval", r#"{"expression": 12345678901234567890123}"#)];
    let (script, ended) = run(vec![Line::Calls(bad), Line::Text("sorry")]).await;
    assert_eq!(ended.completed().count("run.tool_call.intended.v1"), 0, "nothing is called");
    let told = script.messages(1).pop().expect("an answer")["content"].to_string();
    assert!(told.contains("expression: a whole number of 23 digits"), "{told}");
}

#[tokio::test]
async fn bad_calls_are_told_to_the_model_and_nothing_is_called() {
    let bad = vec![
        ("math-eval", r#"{"expression": "6 * 7""#),
        ("math-eval", r#"{"formula": "6 * 7"}"#),
        ("weather", "{}"),
        ("hash-sha256", r#"{"text": "x"}"#),
        ("math.eval", r#"{"expression": "1 / 0"}"#),
    ];
    let (script, ended) = run(vec![Line::Calls(bad), Line::Text("sorry")]).await;
    let ended = ended.completed();
    assert_eq!(ended.count("run.tool_call.intended.v1"), 1, "only the last one was a good call");
    assert_eq!(ended.count("run.tool_call.failed.v1"), 4);
    assert_eq!(ended.count("run.tool_call.denied.v1"), 1);
    let told: Vec<Value> = script.messages(1).drain(2..).collect();
    let said = |at: usize| told[at]["content"].as_str().expect("text").to_owned();
    assert!(said(0).contains("not JSON"), "{}", said(0));
    assert!(said(1).contains("formula") || said(1).contains("expression"), "{}", said(1));
    assert!(said(2).contains("math-eval"), "{}", said(2));
    assert!(said(3).contains("permission"), "{}", said(3));
    assert!(said(4).contains("tool.invalid"), "{}", said(4));
    let text = serde_json::to_string(&ended.events).expect("JSON");
    assert!(!text.contains("formula") && !text.contains("weather"), "no word of the model's");
}

#[tokio::test]
async fn several_calls_of_a_turn_are_made_side_by_side() {
    let calls = vec![
        ("math-eval", r#"{"expression": "1 + 1"}"#),
        ("text-trim", r#"{"text": " a "}"#),
        ("math-eval", r#"{"expression": "2 + 2"}"#),
    ];
    let (script, ended) = run(vec![Line::Calls(calls), Line::Text("done")]).await;
    let ended = ended.completed();
    assert_eq!(ended.count("run.tool_call.completed.v1"), 3);
    assert_eq!(script.requests().len(), 2, "the model is asked when all have answered");
    let told: Vec<Value> = script.messages(1).drain(2..).map(|m| m["content"].clone()).collect();
    assert_eq!(told, [json!("2"), json!("a"), json!("4")]);
}

#[tokio::test]
async fn an_agent_that_goes_too_far_fails_and_says_why() {
    let (script, ended) = run((0..9).map(|_| eval()).collect()).await;
    assert_eq!(ended.error().code, "agent.limit");
    assert!(ended.error().message.contains("max_turns"), "{}", ended.error().message);
    assert_eq!(script.requests().len(), 4);
    let many = vec![("math-eval", r#"{"expression": "1"}"#); 6];
    let (_, ended) = run(vec![Line::Calls(many)]).await;
    assert!(ended.error().message.contains("max_tool_calls"), "{}", ended.error().message);
    assert_eq!(ended.count("run.tool_call.intended.v1"), 0);
    assert_eq!(ended.count("run.usage.recorded.v1"), 1, "what the answer cost is recorded");
}

#[tokio::test]
async fn a_call_that_fails_is_made_again_and_the_turns_before_it_are_not() {
    let lines =
        vec![eval(), Line::Busy, Line::Busy, eval(), Line::Busy, Line::Busy, Line::Text("42")];
    let (script, ended) = run(lines).await;
    let ended = ended.completed();
    assert_eq!(script.requests().len(), 7, "three tries for each turn");
    assert_eq!(ended.count("run.tool_call.intended.v1"), 2);
    assert_eq!(ended.count("run.step.retried.v1"), 4);
    assert_eq!(script.messages(1), script.messages(2), "the same question again");
    assert_eq!(ended.state.spent.tokens, 39);
}

#[tokio::test]
async fn another_executor_goes_on_in_the_middle_of_the_turns() {
    let (script, provider) = Script::serve(vec![eval(), Line::Hang]).await;
    let mut platform = Platform::with_models(vec![provider]);
    let run = platform.create(AGENT, &json!({"text": "what is 6 * 7?"})).await;
    // The first life is never stopped: like a dead process, it writes no more.
    let dead = platform.executor();
    let asked_twice = |state: &RunState| {
        let calls = state.steps.values().filter_map(|step| step.call.as_ref());
        calls.map(|call| call.turn).max() == Some(2)
    };
    platform.until(&run, asked_twice).await;
    script.called.notified().await;

    let (second, provider) = Script::serve(vec![Line::Text("it is 42")]).await;
    platform.replace_models(vec![provider]);
    platform.start();
    let state = platform.ended(&run).await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    let events = platform.events(&run).await;
    let count = |kind: &str| events.iter().filter(|e| e.type_name() == kind).count();
    assert_eq!(count("run.tool_call.completed.v1"), 1, "no tool is called twice");
    assert_eq!(count("run.step.unknown.v1"), 1);
    let confirmed: Vec<(u32, bool)> = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::UsageRecorded(usage) => Some((usage.turn, usage.confirmed)),
            _ => None,
        })
        .collect();
    assert_eq!(confirmed, [(1, true), (2, false), (2, true)]);
    assert_eq!(second.messages(0)[2]["content"], "42", "the tool's answer comes from the log");
    platform.stop().await;
    platform.replay(&run, AGENT).await.expect("no divergence");
    drop(dead);
}

#[tokio::test]
async fn a_turn_beyond_the_budget_is_not_asked() {
    let (script, provider) = Script::serve(vec![eval(), Line::Text("42")]).await;
    let mut platform = Platform::with_models(vec![provider]);
    let manifest = AGENT.replacen("nodes:", "budget: {tokens: 2100}\nnodes:", 1);
    let manifest = manifest.replace("[math.eval, text.trim]", "[math.eval]");
    let ended = platform.execute(&manifest, &json!({"text": "x".repeat(700)})).await;
    assert_eq!(ended.error().code, "budget.exceeded");
    assert_eq!(script.requests().len(), 1);
    assert_eq!(ended.count("run.tool_call.completed.v1"), 1, "what was done stands");
    let first = ended.events.iter().find_map(|event| match event {
        RunEvent::ModelCallIntended(intended) => Some(intended.reserved_tokens),
        _ => None,
    });
    assert!(first.is_some_and(|held| held <= 2100), "{first:?}");
    assert_eq!((ended.state.spent.tokens, ended.state.spent.reserved_tokens), (13, 0));
}
