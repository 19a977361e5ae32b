//! Runs within runs: sub-graphs, agents that run agents, and graphs that a model proposes.

use convergio_domain::chat::Privacy;
use convergio_domain::id::{RunId, StepId};
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{RunCommand, RunPhase, RunState, child_run_id};
use convergio_domain::stream::StreamKey;
use serde_json::{Value, json};

use crate::harness::{Platform, tenant};
use crate::script::{Line, Script};

const INNER: &str = r#"
name: inner
inputs: {type: object, required: [text], properties: {text: {type: string}}}
output: "{{ nodes.a.output }}!"
nodes: [{id: a, tool: text.trim, with: {text: "{{ inputs.text }}"}}]
"#;

const OUTER: &str = r#"
name: outer
output: "{{ nodes.last.output }}"
nodes:
  - id: sub
    graph: {name: inner, inputs: {text: "  {{ inputs.text }}  "}}
  - id: last
    tool: text.trim
    with: {text: "got {{ nodes.sub.output }}"}
"#;

/// The run of a step that is one run.
fn child(run: &StreamKey, step: &str) -> StreamKey {
    let step: StepId = step.parse().expect("a step");
    StreamKey::for_run(tenant(), child_run_id(RunId(run.id), &step, 1, None))
}

fn only_child(state: &RunState) -> StreamKey {
    StreamKey::for_run(tenant(), *state.children.keys().next().expect("one child"))
}

#[tokio::test]
async fn a_sub_graph_is_a_run_of_its_own_and_its_end_wakes_the_one_that_waits() {
    let mut platform = Platform::new();
    platform.register(INNER).await;
    let ended = platform.execute(OUTER, &json!({"text": "hello"})).await.completed();
    assert_eq!(ended.output, json!("got hello!"));
    let inner = platform.events(&only_child(&ended.state)).await;
    let types: Vec<_> = inner.iter().map(RunEvent::type_name).collect();
    assert_eq!(types.last(), Some(&"run.parent.told.v1"), "{types:?}");
    assert_eq!(ended.count("run.child.ended.v1"), 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_sub_graph_is_told() {
    let missing = Platform::new().execute(OUTER, &json!({"text": "x"})).await;
    assert!(missing.detail.contains("`inner`"), "{}", missing.detail);
    let mut platform = Platform::new();
    platform.register(INNER).await;
    let manifest = OUTER.replace("inputs: {text: \"  {{ inputs.text }}  \"}", "inputs: {}");
    let ended = platform.execute(&manifest, &json!({"text": "x"})).await;
    assert_eq!(ended.error().code, "request.invalid");
    assert_eq!(ended.count("run.child.intended.v1"), 0);
}

#[tokio::test]
async fn a_failure_within_is_the_steps_failure() {
    let mut platform = Platform::new();
    let failing = INNER.replace(
        "text.trim, with: {text: \"{{ inputs.text }}\"}",
        "math.eval, with: {expression: \"1 / 0\"}",
    );
    platform.register(&failing).await;
    let ended = platform.execute(OUTER, &json!({"text": "x"})).await;
    assert_eq!(ended.error().code, "tool.invalid");
    let skipped = OUTER.replacen("  - id: sub\n", "  - id: sub\n    on_error: skip\n", 1);
    let skipped = skipped.replace("    tool: text.trim", "    join: any\n    tool: text.trim");
    let skipped = skipped.replace("got {{ nodes.sub.output }}", "{{ nodes.sub.status }}");
    let skipped = skipped.replace("nodes.last.output", "nodes.last.output | default('none')");
    let mut platform = Platform::new();
    platform.register(&failing).await;
    let ended = platform.execute(&skipped, &json!({"text": "x"})).await;
    assert_eq!(ended.state.phase, RunPhase::Completed, "{:?}", ended.state.error);
}

const ASK: &str = r#"
name: inner
output: "{{ nodes.ask.output }}"
nodes:
  - id: ask
    agent: {model: local, prompt: "{{ inputs.text }}", max_tokens: 20}
"#;

#[tokio::test]
async fn usage_within_counts_against_the_budget_and_privacy_is_inherited() {
    let (_script, provider) = Script::serve(vec![Line::Text("yes")]).await;
    let mut platform = Platform::with_models(vec![provider]);
    platform.register(ASK).await;
    let manifest = format!("budget: {{tokens: 1000}}\n{OUTER}");
    let ended = platform.execute(&manifest, &json!({"text": "x"})).await.completed();
    assert_eq!(ended.state.spent.tokens, 13);
    assert_eq!(ended.state.spent.reserved_tokens, 0);
    let inner = platform.state(&only_child(&ended.state)).await;
    assert_eq!(inner.budget.tokens, Some(1000), "all that was left");
    assert_eq!(inner.origin.as_ref().map(|origin| origin.depth), Some(1));
    let held = ended.events.iter().find_map(|event| match event {
        RunEvent::ChildIntended(intended) => intended.budget.tokens,
        _ => None,
    });
    assert_eq!(held, Some(1000));
    assert_eq!(inner.privacy, Privacy::Any);
}

#[tokio::test]
async fn a_run_within_that_would_need_more_than_is_left_fails_and_the_outer_one_pays_nothing() {
    let (script, provider) = Script::serve(vec![Line::Text("yes")]).await;
    let mut platform = Platform::with_models(vec![provider]);
    platform.register(ASK).await;
    let manifest = format!("budget: {{tokens: 30}}\n{OUTER}");
    let ended = platform.execute(&manifest, &json!({"text": "x"})).await;
    assert_eq!(ended.error().code, "budget.exceeded");
    assert_eq!(script.requests().len(), 0);
    assert_eq!(ended.state.spent.tokens, 0);
}

#[tokio::test]
async fn cancelling_a_run_cancels_the_runs_within_it() {
    let (script, provider) = Script::serve(vec![Line::Hang]).await;
    let mut platform = Platform::with_models(vec![provider]);
    platform.register(ASK).await;
    let run = platform.create(OUTER, &json!({"text": "x"})).await;
    platform.start();
    script.called.notified().await;
    platform.tell(&run, RunCommand::Cancel { reason: None }).await;
    let state = platform.until(&run, |s| s.phase.is_ended() && !s.has_open_obligations()).await;
    assert_eq!(state.phase, RunPhase::Cancelled);
    assert_eq!(state.spent.reserved_tokens, 0);
    assert_eq!(platform.state(&child(&run, "sub")).await.phase, RunPhase::Cancelled);
    assert!(state.spent.tokens > 0, "what the lost call may have used");
    platform.stop().await;
}

#[tokio::test]
async fn another_executor_goes_on_between_the_end_within_and_the_step_that_waits() {
    let (script, provider) = Script::serve(vec![Line::Hang]).await;
    let mut platform = Platform::with_models(vec![provider]);
    platform.register(ASK).await;
    let run = platform.create(OUTER, &json!({"text": "x"})).await;
    platform.start();
    script.called.notified().await;
    // Both runs are left in the middle.
    platform.stop().await;
    let inner = child(&run, "sub");
    // It ends while nobody executes, and nobody tells the run that waits.
    platform.tell(&inner, RunCommand::Cancel { reason: None }).await;
    assert!(platform.state(&run).await.children.values().all(|child| child.ended.is_none()));
    platform.start();
    let state = platform.ended(&run).await;
    assert_eq!(state.error.as_ref().map(|error| error.code.as_str()), Some("run.cancelled"));
    platform.stop().await;
}

#[tokio::test]
async fn a_run_within_that_was_intended_and_not_created_is_created_by_who_goes_on() {
    let mut platform = Platform::new();
    platform.register(INNER).await;
    let run = platform.create(OUTER, &json!({"text": "hello"})).await;
    platform.advance_to_child(&run).await;
    platform.start();
    let state = platform.ended(&run).await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    platform.stop().await;
}

const TUTOR: &str = r#"
name: agent-tutor
description: Explains.
inputs: {type: object, required: [message], properties: {message: {type: string}}}
output: "{{ nodes.reply.output }}"
nodes:
  - id: reply
    agent: {model: local, prompt: "{{ inputs.message }}", max_tokens: 20}
"#;

const HEAD: &str = r#"
name: head
output: "{{ nodes.lead.output }}"
nodes:
  - id: lead
    agent:
      model: local
      prompt: "{{ inputs.text }}"
      max_tokens: 20
      privacy: local
      tools: [{agent: tutor}, {graph: inner}, agent.spawn, math.eval]
      spawn: [{graph: inner}, {agent: nobody}]
"#;

#[tokio::test]
async fn an_agent_runs_agents_and_graphs_as_its_tools() {
    let calls = vec![
        ("agent-tutor", r#"{"message": "what is a run?"}"#),
        ("graph-inner", r#"{"text": " within "}"#),
        ("agent-spawn", r#"{"graph": "inner", "inputs": {"text": "spawned"}}"#),
        ("agent-spawn", r#"{"agent": "nobody", "message": "x"}"#),
        ("graph-inner", r#"{"txt": 1}"#),
        ("math-eval", r#"{"expression": "1 + 1"}"#),
    ];
    let lines = vec![Line::Calls(calls), Line::Text("an execution"), Line::Text("done")];
    let (script, provider) = Script::serve(lines).await;
    let mut platform = Platform::with_models(vec![provider]);
    platform.register(INNER).await;
    let tutor = platform.define("tutor", TUTOR).await;
    let ended = platform.execute(HEAD, &json!({"text": "teach"})).await.completed();
    assert_eq!(ended.output, json!("done"));
    assert_eq!(ended.count("run.child.intended.v1"), 3);
    assert_eq!(ended.count("run.tool_call.failed.v1"), 2);
    assert_eq!(ended.count("run.tool_call.completed.v1"), 4);
    let last = script.requests().len() - 1;
    let told = script.messages(last);
    let told: Vec<Value> = told[2..].iter().map(|message| message["content"].clone()).collect();
    assert_eq!(told[0], "an execution");
    assert_eq!(told[1], "within!");
    assert_eq!(told[2], "spawned!");
    assert!(told[3].as_str().is_some_and(|text| text.contains("no such agent")), "{told:?}");
    assert_eq!(told[5], "2");
    assert_eq!(ended.state.spent.tokens, 39, "two turns and the tutor's answer");
    for (run, inner) in &ended.state.children {
        assert_eq!(inner.privacy, Privacy::Local, "it is the agent's");
        let stream = StreamKey::for_run(tenant(), *run);
        let spawned = platform.events(&stream).await.iter().any(
            |event| matches!(event, RunEvent::AgentSpawned(spawned) if spawned.agent == tutor),
        );
        assert_eq!(spawned, inner.agent == Some(tutor));
    }
}

#[tokio::test]
async fn agents_do_not_run_agents_for_ever() {
    let again = || Line::Calls(vec![("agent-spawn", r#"{"agent": "self", "message": "again"}"#)]);
    let mut lines: Vec<Line> = (0..5).map(|_| again()).collect();
    lines.extend((0..5).map(|_| Line::Text("enough")));
    let (_script, provider) = Script::serve(lines).await;
    let mut platform = Platform::with_models(vec![provider]);
    let recursive = TUTOR.replace(
        "max_tokens: 20}",
        "max_tokens: 20, tools: [agent.spawn], spawn: [{agent: self}]}",
    );
    platform.define("self", &recursive.replace("agent-tutor", "agent-self")).await;
    let ended = platform
        .execute(&recursive.replace("agent-tutor", "first"), &json!({"message": "begin"}))
        .await
        .completed();
    let (mut depth, mut state) = (0, ended.state);
    while let Some(run) = state.children.keys().next() {
        state = platform.state(&StreamKey::for_run(tenant(), *run)).await;
        depth += 1;
    }
    assert_eq!(depth, convergio_domain::policy::child_runs::DEPTH_LIMIT);
}

const PLAN: &str = r#"
name: planned
output: "{{ nodes.work.output }}"
nodes:
  - id: work
    plan:
      model: local
      prompt: "Shout {{ inputs.text }}"
      max_tokens: 200
      max_turns: 3
      inputs: {text: "{{ inputs.text }}"}
      tools: [text.trim]
"#;

const GOOD: &str = r#"Here it is: {"nodes": [{"id": "a", "tool": "text.trim",
    "with": {"text": " {{ inputs.text }} "}}], "output": "{{ nodes.a.output | upper }}"}"#;
const BAD: &str = r#"{"nodes": [{"id": "a", "tool": "text.trimm", "with": {"text": "x"}}]}"#;

#[tokio::test]
async fn a_proposed_graph_is_checked_registered_and_run() {
    let lines = vec![Line::Text("I cannot"), Line::Text(BAD), Line::Text(GOOD)];
    let (script, provider) = Script::serve(lines).await;
    let mut platform = Platform::with_models(vec![provider]);
    let ended = platform.execute(PLAN, &json!({"text": "hello"})).await.completed();
    assert_eq!(ended.output, json!("HELLO"));
    assert_eq!(ended.count("run.tool_call.failed.v1"), 2);
    let told = script.messages(2);
    let last = told.last().and_then(|message| message["content"].as_str()).expect("text");
    assert!(last.contains("text.trimm") && last.contains("nodes[0].tool"), "{last}");
    let run = platform.state(&only_child(&ended.state)).await;
    assert_eq!(run.phase, RunPhase::Completed);
}

/// What a model proposes that was told to by a text it was shown.
const GREEDY: &str = r#"{"nodes": [
    {"id": "read", "tool": "memory.recall", "with": {"subject": "student:43", "query": "all"}},
    {"id": "plant", "tool": "memory.store", "with": {"subject": "student:43", "text": "planted"}},
    {"id": "run", "graph": "inner"},
    {"id": "deep", "plan": {"prompt": "p", "tools": ["memory.recall"]}}],
    "output": "{{ nodes.read.output }}"}"#;

#[tokio::test]
async fn a_proposal_uses_nothing_that_its_plan_was_not_given() {
    let lines = vec![Line::Text(GREEDY), Line::Text(GOOD)];
    let (script, provider) = Script::serve(lines).await;
    let mut platform = Platform::with_models(vec![provider]);
    platform.register(INNER).await;
    let ended = platform.execute(PLAN, &json!({"text": "hello"})).await.completed();
    assert_eq!(ended.output, json!("HELLO"));
    assert_eq!(ended.count("run.child.intended.v1"), 1, "the second proposal alone ran");
    let system = script.messages(0)[0]["content"].to_string();
    assert!(system.contains("text.trim") && !system.contains("memory.recall"), "{system}");
    let told = script.messages(1);
    let last = told.last().and_then(|message| message["content"].as_str()).expect("text");
    for refused in ["nodes[0].tool", "nodes[1].tool", "nodes[2].graph", "nodes[3].plan.tools[0]"] {
        assert!(last.contains(refused), "{refused}: {last}");
    }
}

#[tokio::test]
async fn an_agent_spawns_nothing_that_its_manifest_does_not_name() {
    let calls = vec![
        ("agent-spawn", r#"{"graph": "other", "inputs": {"text": "x"}}"#),
        ("agent-spawn", r#"{"agent": "tutor", "message": "x"}"#),
    ];
    let (script, provider) = Script::serve(vec![Line::Calls(calls), Line::Text("done")]).await;
    let mut platform = Platform::with_models(vec![provider]);
    platform.register(&INNER.replace("name: inner", "name: other")).await;
    platform.register(INNER).await;
    platform.define("tutor", TUTOR).await;
    let ended = platform.execute(HEAD, &json!({"text": "teach"})).await.completed();
    assert_eq!(ended.count("run.child.intended.v1"), 0);
    let told = script.messages(1);
    for told in &told[2..] {
        let text = told["content"].as_str().expect("text");
        assert!(text.contains("the graph `inner`, the agent `nobody`"), "{text}");
    }
}

#[tokio::test]
async fn a_model_that_proposes_no_graph_fails_the_step() {
    let lines = (0..3).map(|_| Line::Text("no")).collect();
    let (_script, provider) = Script::serve(lines).await;
    let mut platform = Platform::with_models(vec![provider]);
    let ended = platform.execute(PLAN, &json!({"text": "hello"})).await;
    assert_eq!(ended.error().code, "agent.limit");
    assert!(ended.error().message.contains("3 proposals"), "{}", ended.error().message);
}
