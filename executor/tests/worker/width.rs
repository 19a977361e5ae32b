//! Graphs of any width and depth: what exceeds a commit goes on in the next, what exceeds a limit
//! of places waits for one, and what was done stands whatever follows from it.

use std::fmt::Write;

use convergio_domain::id::RunId;
use convergio_domain::payload::PayloadSlot;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{RunCommand, RunPhase, RunState, SendSignal};
use convergio_domain::stream::StreamKey;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Platform, tenant};
use crate::script::{Line, Script};

const BUDGET: &str = "budget: {wall: 1h, tokens: 100000000}\n";

/// So many nodes, each of which needs what `needs` says.
fn nodes(count: usize, needs: impl Fn(usize) -> Option<String>) -> String {
    let mut manifest = format!("name: wide\n{BUDGET}nodes:\n");
    for number in 0..count {
        let needs = needs(number).map_or_else(String::new, |name| format!(", needs: [{name}]"));
        let line = format!("  - {{id: n{number}, tool: text.trim, with: {{text: x}}{needs}}}\n");
        manifest.push_str(&line);
    }
    manifest
}

async fn completed_steps(manifest: &str) -> usize {
    let ended = Platform::new().execute(manifest, &json!({})).await.completed();
    ended.count("run.step.completed.v1")
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_need_nothing_all_run() {
    assert_eq!(completed_steps(&nodes(1_100, |_| None)).await, 1_100);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_need_the_same_one_all_run() {
    let needs = |number| (number > 0).then(|| "n0".to_owned());
    assert_eq!(completed_steps(&nodes(3_000, needs)).await, 3_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_maps_beside_each_other_run_to_their_ends() {
    let map = |id| {
        format!(
            "  - {{id: {id}, map: {{over: '{{{{ range(1500) }}}}', max_parallel: 1000, \
             tool: math.eval, with: {{expression: '{{{{ item }}}} + 1'}}}}}}\n"
        )
    };
    let output = "output: '{{ [nodes.a.output | length, nodes.b.output[1499]] }}'\n";
    let manifest = format!("name: maps\n{BUDGET}{output}nodes:\n{}{}", map("a"), map("b"));
    let ended = Platform::new().execute(&manifest, &json!({})).await.completed();
    assert_eq!(ended.output, json!([1_500, "1500"]));
}

/// Steps that begin and end at once follow each other in one turn of the scheduler.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_row_of_branches_and_what_it_skips_fits() {
    let mut manifest = format!("name: row\n{BUDGET}nodes:\n");
    for number in 0..1_200 {
        let next = number + 1;
        let branch = format!("{{if: 'true', then: [b{next}], else: [s{number}]}}");
        let _written = writeln!(manifest, "  - {{id: b{number}, branch: {branch}}}");
        let skipped = format!("{{id: s{number}, tool: text.trim, with: {{text: x}}}}");
        let _written = writeln!(manifest, "  - {skipped}");
    }
    manifest.push_str("  - {id: b1200, tool: text.trim, with: {text: end}}\n");
    let ended = Platform::new().execute(&manifest, &json!({})).await.completed();
    assert_eq!(ended.count("run.branch.decided.v1"), 1_200);
    let largest = ended.largest_commit;
    assert!(largest <= 1_024, "{largest} events in one commit");
}

const INNER: &str = "
name: inner
output: '{{ nodes.a.output }}'
nodes: [{id: a, tool: text.trim, with: {text: '{{ inputs.text | default(\"x\") }}'}}]
";

/// The most runs that were under way within a run at once.
fn most_children(events: &[RunEvent]) -> usize {
    let (mut open, mut most) = (0, 0);
    for event in events {
        match event {
            RunEvent::ChildIntended(_) => open += 1,
            RunEvent::ChildEnded(_) => open -= 1,
            _ => {}
        }
        most = most.max(open);
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn more_sub_graphs_than_places_wait_for_places() {
    let mut platform = Platform::new();
    platform.child_runs_per_run = Some(8);
    platform.register(INNER).await;
    let mut manifest = format!("name: families\n{BUDGET}nodes:\n");
    for number in 0..70 {
        let _written = writeln!(manifest, "  - {{id: g{number}, graph: {{name: inner}}}}");
    }
    let ended = platform.execute(&manifest, &json!({})).await.completed();
    assert_eq!(ended.count("run.child.ended.v1"), 70);
    assert_eq!(most_children(&ended.events), 8);
}

/// One call fails while all others have the places: it is tried again as soon as there is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_falls_due_while_all_places_are_taken_waits_for_one() {
    let lines = [Line::Busy].into_iter().chain((0..12).map(|_| Line::Text("ok")));
    let (_script, provider) = Script::serve(lines.collect()).await;
    let mut platform = Platform::with_models(vec![provider]);
    platform.model_calls_per_run = Some(2);
    let manifest = format!(
        "name: slots\n{BUDGET}nodes:\n  - id: m\n    retry: {{max: 5, backoff: 1ms}}\n    map: \
         {{over: '{{{{ range(12) }}}}', max_parallel: 12, agent: {{model: local, prompt: \
         '{{{{ item }}}}', max_tokens: 20}}}}\n"
    );
    let ended = platform.execute(&manifest, &json!({})).await.completed();
    assert_eq!(ended.count("run.step.retried.v1"), 1);
}

const CALLER: &str = "
name: caller
output: '{{ nodes.ask.output }}'
nodes:
  - id: ask
    timeout: 1h
    agent:
      model: local
      prompt: go
      max_tokens: 20
      tools: [{graph: inner}]
";

fn three_runs() -> Line {
    let call = ("graph-inner", r#"{"text": "hello"}"#);
    Line::Calls(vec![call, call, call])
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_an_agent_asks_for_wait_for_places_and_are_not_refused() {
    let (script, provider) = Script::serve(vec![three_runs(), Line::Text("done")]).await;
    let mut platform = Platform::with_models(vec![provider]);
    platform.child_runs_per_run = Some(1);
    platform.register(&INNER.replace("name: inner", TEXT_INPUT)).await;
    let ended = platform.execute(CALLER, &json!({})).await.completed();
    assert_eq!(ended.output, json!("done"));
    assert_eq!(most_children(&ended.events), 1);
    assert_eq!(ended.count("run.child.ended.v1"), 3);
    assert_eq!(ended.count("run.tool_call.failed.v1"), 0);
    let told: Vec<Value> = script.messages(1).drain(2..).map(|m| m["content"].clone()).collect();
    assert_eq!(told, [json!("hello"), json!("hello"), json!("hello")]);
}

const TEXT_INPUT: &str = "name: inner\ninputs: {type: object, properties: {text: {type: string}}}";

const WAITING: &str = "
name: inner
inputs: {type: object, properties: {text: {type: string}}}
output: '{{ nodes.a.output }}'
nodes: [{id: a, signal: go}]
";

/// The run within that is under way.
fn open_child(state: &RunState) -> Option<RunId> {
    state.open_children().next().map(|(child, _)| *child)
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_wait_for_places_begin_after_a_restart_too() {
    let (script, provider) = Script::serve(vec![three_runs(), Line::Text("done")]).await;
    let mut platform = Platform::with_models(vec![provider]);
    platform.child_runs_per_run = Some(1);
    platform.register(WAITING).await;
    let run = platform.create(CALLER, &json!({})).await;
    for _ in 0..3 {
        platform.start();
        let state = platform.until(&run, |state| open_child(state).is_some()).await;
        let child = StreamKey::for_run(tenant(), open_child(&state).expect("it is open"));
        platform.until(&child, |state| !state.steps.is_empty()).await;
        platform.stop().await;
        let signal = SendSignal {
            id: Uuid::now_v7(),
            name: "go".parse().expect("a name"),
            payload: PayloadSlot(0),
        };
        platform.tell_with(&child, RunCommand::Signal(signal), &json!("went")).await;
        platform.start();
        let ended = RunId(child.id);
        platform.until(&run, |state| state.children[&ended].ended.is_some()).await;
        platform.stop().await;
    }
    platform.start();
    let state = platform.ended(&run).await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    assert_eq!(script.requests().len(), 2, "nothing is asked again");
    platform.replay(&run, CALLER).await.expect("no divergence");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_is_too_large_fails_the_run_and_its_steps_stand() {
    let manifest = format!(
        "name: large\n{BUDGET}output: '{{{{ nodes.m.output }}}}'\nnodes:\n  - id: m\n    map: \
         {{over: '{{{{ range(20) }}}}', tool: text.trim, \
         with: {{text: '{{{{ inputs.text }}}}'}}}}\n"
    );
    let ended = Platform::new().execute(&manifest, &json!({"text": "y".repeat(1 << 20)})).await;
    assert_eq!(ended.error().code, "request.too_large");
    let message = &ended.error().message;
    assert!(message.contains("the run's output has 20971"), "{message}");
    assert_eq!(ended.count("run.step.completed.v1"), 21, "the items and their map");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_the_log_does_not_take_fails_its_step_by_name() {
    // Each of these characters takes six bytes as JSON.
    let text = "{{ inputs.text }}";
    let manifest = format!(
        "name: escapes\n{BUDGET}nodes:\n  - {{id: first, tool: text.trim, with: {{text: ok}}}}\n\
         \x20 - id: big\n    needs: [first]\n    approval: {{show: '{text}{text}{text}'}}\n"
    );
    let inputs = json!({"text": "\u{1}".repeat(1_300_000)});
    let ended = Platform::new().execute(&manifest, &inputs).await;
    assert_eq!(ended.error().code, "request.too_large");
    assert!(ended.error().message.contains("step big: 23400002 bytes"), "{:?}", ended.error());
    assert_eq!(ended.count("run.step.completed.v1"), 1);
}
