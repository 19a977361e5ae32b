//! Forks: runs that begin with a part of another one's history.

use std::sync::Arc;

use convergio_domain::decider::{Decider, Fingerprint};
use convergio_domain::event::Event;
use convergio_domain::id::StepId;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{Run, RunCommand, RunPhase, RunState, StepStatus};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::{CheckpointFolder, CheckpointStore};
use serde_json::{Value, json};

use crate::agents::{Behaviour, Model};
use crate::harness::Platform;
use crate::script::{Line, Script};

const LINE: &str = r#"
name: line
output: "{{ nodes.c.output }}"
nodes:
  - {id: a, tool: text.trim, with: {text: "{{ inputs.text | upper }}"}}
  - {id: b, tool: text.trim, with: {text: "{{ nodes.a.output }}{{ inputs.end }}"}}
  - {id: c, tool: text.trim, with: {text: "<{{ nodes.b.output }}>"}}
"#;

fn step(id: &str) -> StepId {
    id.parse().expect("a step")
}

async fn ran(platform: &mut Platform, manifest: &str, inputs: &Value) -> StreamKey {
    let run = platform.create(manifest, inputs).await;
    platform.start();
    assert_eq!(platform.ended(&run).await.phase, RunPhase::Completed);
    run
}

/// The number of the event that completes a step.
async fn completion(platform: &Platform, run: &StreamKey, id: &str) -> u64 {
    let events = platform.events(run).await;
    let done =
        |event: &RunEvent| matches!(event, RunEvent::StepCompleted(done) if done.step == step(id));
    events.iter().position(done).expect("it completed") as u64 + 1
}

/// The end of the commit in which a step is completed.
async fn after(platform: &Platform, run: &StreamKey, id: &str) -> u64 {
    let seq = completion(platform, run, id).await;
    let records = platform.records(run).await;
    let record = records.iter().find(|record| record.last_seq().0 >= seq);
    record.expect("it is in a commit").last_seq().0
}

async fn started(platform: &Platform, run: &StreamKey) -> Vec<String> {
    let events = platform.events(run).await;
    let names = events.iter().filter_map(|event| match event {
        RunEvent::StepStarted(started) => Some(started.step.to_string()),
        _ => None,
    });
    names.collect()
}

#[tokio::test]
async fn a_fork_goes_on_from_an_event_and_repeats_nothing_before_it() {
    let mut platform = Platform::new();
    let run = ran(&mut platform, LINE, &json!({"text": "hi", "end": "!"})).await;
    let before = platform.records(&run).await;
    let at = after(&platform, &run, "a").await;
    let fork = platform.fork(&run, at, Some(&json!({"text": "no", "end": "?"}))).await;
    let state = platform.ended(&fork).await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    assert_eq!(platform.output(&fork, &state).await, json!("<HI?>"), "a's output is the parent's");
    assert_eq!(started(&platform, &fork).await, ["b", "c"]);
    platform.replay(&fork, LINE).await.expect("no divergence");
    // Forks of forks: each step lies with the run that did it.
    let at = after(&platform, &fork, "b").await;
    let grandchild = platform.fork(&fork, at, Some(&json!({}))).await;
    let state = platform.ended(&grandchild).await;
    assert_eq!(platform.output(&grandchild, &state).await, json!("<HI?>"));
    assert_eq!(started(&platform, &grandchild).await, ["c"]);
    assert_eq!(state.lineage.len(), 2);
    platform.replay(&grandchild, LINE).await.expect("no divergence");
    platform.stop().await;
    assert_eq!(platform.records(&run).await, before, "the parent is as it was");
}

#[tokio::test]
async fn every_commit_of_a_run_can_be_forked_and_leads_to_the_same_end() {
    let manifest = r#"
name: all
output: "{{ nodes.sum.output }}"
nodes:
  - {id: numbers, tool: list.range, with: {from: 1, to: 5}}
  - id: squares
    map:
      over: "{{ nodes.numbers.output }}"
      max_parallel: 2
      tool: math.eval
      with: {expression: "{{ item }} * {{ item }}"}
  - {id: nap, sleep: 5ms, needs: [squares]}
  - {id: way, needs: [nap], branch: {if: "nodes.nap.status == 'completed'", then: sum, else: other}}
  - {id: sum, tool: math.sum, with: {items: "{{ nodes.squares.output }}"}}
  - {id: other, tool: text.trim, with: {text: "never"}}
"#;
    let mut platform = Platform::new();
    let run = ran(&mut platform, manifest, &json!({})).await;
    let whole = platform.state(&run).await;
    let expected = platform.output(&run, &whole).await;
    let records = platform.records(&run).await;
    for seq in 1..records.last().expect("records").first_seq().0 {
        let fork = platform.fork(&run, seq, None).await;
        let state = platform.ended(&fork).await;
        assert_eq!(state.phase, RunPhase::Completed, "forked at {seq}: {:?}", state.error);
        assert_eq!(platform.output(&fork, &state).await, expected, "forked at {seq}");
        assert_eq!(state.steps[&step("other")].status, StepStatus::Skipped);
        let divergence = platform.replay(&fork, manifest).await.err();
        assert!(divergence.is_none(), "forked at {seq}: {divergence:?}");
    }
    platform.stop().await;
}

#[tokio::test]
async fn what_is_inherited_costs_nothing() {
    let manifest = r#"
name: paid
output: "{{ nodes.two.output }}"
nodes:
  - {id: one, agent: {model: local, prompt: "one", max_tokens: 20}}
  - {id: two, agent: {model: local, prompt: "{{ nodes.one.output }}", max_tokens: 20}}
"#;
    let (model, provider) = Model::serve(Behaviour::Answer).await;
    let mut platform = Platform::with_models(vec![provider]);
    let run = ran(&mut platform, manifest, &json!({})).await;
    let whole = platform.state(&run).await.spent;
    let at = after(&platform, &run, "one").await;
    let fork = platform.fork(&run, at, None).await;
    let state: RunState = platform.ended(&fork).await;
    platform.stop().await;
    assert_eq!(model.calls(), 3, "only the second call is made again");
    assert_eq!((whole.tokens, state.spent.tokens), (26, 13));
    let usage = platform.events(&fork).await;
    let usage = usage.iter().filter(|event| matches!(event, RunEvent::UsageRecorded(_))).count();
    assert_eq!(usage, 1, "the usage of what is inherited stays with the parent");
}

const TURNS: &str = r#"
name: turns
output: "{{ nodes.reckon.output }}"
nodes:
  - id: reckon
    agent: {model: local, prompt: "{{ inputs.text }}", max_tokens: 20, tools: [math.eval]}
"#;

/// The end of the first commit with an event of a kind.
async fn commit_with(platform: &Platform, run: &StreamKey, kind: &str) -> u64 {
    let records = platform.records(run).await;
    let has = |event: &Event| event.type_name() == kind;
    let record = records.iter().find(|record| record.body.events.iter().any(has));
    record.expect("there is one").last_seq().0
}

#[tokio::test]
async fn a_fork_in_the_middle_of_an_agents_turns_goes_on_after_the_last_answer() {
    let eval = |text| Line::Calls(vec![("math-eval", text)]);
    let lines = vec![
        eval(r#"{"expression": "6 * 7"}"#),
        Line::Text("it is 42"),
        Line::Text("the fork says 42"),
        eval(r#"{"expression": "1 + 1"}"#),
        Line::Text("other inputs"),
        Line::Text("the fork's fork"),
    ];
    let (script, provider) = Script::serve(lines).await;
    let mut platform = Platform::with_models(vec![provider]);
    let run = ran(&mut platform, TURNS, &json!({"text": "what is 6 * 7?"})).await;
    let at = commit_with(&platform, &run, "run.tool_call.completed.v1").await;

    let fork = platform.fork(&run, at, None).await;
    let state = platform.ended(&fork).await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    assert_eq!(platform.output(&fork, &state).await, json!("the fork says 42"));
    assert_eq!(script.requests().len(), 3, "the first turn was answered, and is not asked again");
    assert_eq!(script.messages(2), script.messages(1), "the parent's answers and tools' results");
    assert_eq!(state.spent.tokens, 13, "the turn of the parent costs nothing");
    platform.replay(&fork, TURNS).await.expect("no divergence");

    // Another question is asked from the beginning.
    let other = platform.fork(&run, at, Some(&json!({"text": "what is 1 + 1?"}))).await;
    let state = platform.ended(&other).await;
    assert_eq!(platform.output(&other, &state).await, json!("other inputs"));
    assert_eq!(script.messages(3).len(), 1, "nothing of the other conversation");
    platform.replay(&other, TURNS).await.expect("no divergence");

    // A fork of a fork: its own turns lie in its own stream, those before in the first one's.
    let at = commit_with(&platform, &other, "run.tool_call.intended.v1").await;
    let grandchild = platform.fork(&other, at, None).await;
    let state = platform.ended(&grandchild).await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    assert_eq!(script.messages(5)[2]["content"], "2", "the lost tool call is made by the fork");
    platform.replay(&grandchild, TURNS).await.expect("no divergence");
    platform.stop().await;
}

#[tokio::test]
async fn a_fork_does_not_wait_for_a_run_within_its_parent_but_begins_one_of_its_own() {
    let inner = r#"
name: inner
output: "{{ nodes.ask.output }}"
nodes: [{id: ask, agent: {model: local, prompt: "{{ inputs.text }}", max_tokens: 20}}]
"#;
    let outer = r#"
name: outer
output: "{{ nodes.sub.output }}"
nodes: [{id: sub, graph: {name: inner, inputs: {text: "{{ inputs.text }}"}}}]
"#;
    let (script, provider) = Script::serve(vec![Line::Hang, Line::Text("the fork's")]).await;
    let mut platform = Platform::with_models(vec![provider]);
    platform.register(inner).await;
    let run = platform.create(outer, &json!({"text": "hello"})).await;
    platform.start();
    script.called.notified().await;
    let at = commit_with(&platform, &run, "run.child.intended.v1").await;
    let fork = platform.fork(&run, at, None).await;
    let state = platform.ended(&fork).await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    assert_eq!(platform.output(&fork, &state).await, json!("the fork's"));
    assert_eq!(state.spent.tokens, 13);
    let parent = platform.state(&run).await;
    let own: Vec<_> = state.children.keys().collect();
    assert!(own.len() == 1 && !parent.children.contains_key(own[0]), "a run of its own");
    assert!(parent.children.values().all(|child| child.ended.is_none()), "the other goes on");
    platform.replay(&fork, outer).await.expect("no divergence");
    platform.tell(&run, RunCommand::Cancel { reason: None }).await;
    platform.until(&run, |state| state.phase.is_ended() && !state.has_open_obligations()).await;
    platform.stop().await;
}

#[tokio::test]
async fn states_are_the_same_with_checkpoints_without_them_and_with_damaged_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoints = Arc::new(CheckpointFolder::new(folder.path()));
    let mut platform = Platform::new();
    let manifest = r#"
name: wide
output: "{{ nodes.sum.output }}"
nodes:
  - {id: numbers, tool: list.range, with: {from: 0, to: 900}}
  - id: squares
    map:
      over: "{{ nodes.numbers.output }}"
      max_parallel: 40
      tool: math.eval
      with: {expression: "{{ item }} * {{ item }}"}
  - {id: sum, tool: math.sum, with: {items: "{{ nodes.squares.output }}"}}
"#;
    platform.repository = platform.repository.with_checkpoints(checkpoints.clone());
    let run = ran(&mut platform, manifest, &json!({})).await;
    platform.stop().await;
    let kept = checkpoints.list_seqs(&run);
    assert!(!kept.is_empty(), "they come by themselves");
    let with = print(&platform, &run).await;
    let last = kept.last().expect("one");
    let loaded = platform.repository.load_at::<Run>(&run, *last, true).await;
    let at_last = loaded.expect("the log works").expect("it is there").state;
    let point = checkpoints.last_checkpoint(&run, Seq(u64::MAX)).expect("kept");

    // A damaged file, and one that says what the log does not.
    let mut wrong = point.clone();
    let mut other = Run::decode_snapshot(&point.state).expect("a state");
    other.spent.tokens = 999;
    wrong.state = Run::encode_snapshot(&other).expect("a state");
    checkpoints.store_checkpoint(&run, wrong.clone());
    assert_eq!(print(&platform, &run).await, with, "its fingerprint is not the log's");
    // The same of one that differs in a step that is over.
    let mut other = Run::decode_snapshot(&point.state).expect("a state");
    other.steps.get_mut(&step("squares[7]")).expect("it is over").attempt = 2;
    wrong.state = Run::encode_snapshot(&other).expect("a state");
    checkpoints.store_checkpoint(&run, wrong);
    assert_eq!(print(&platform, &run).await, with, "its fingerprint is not the log's");
    checkpoints.store_checkpoint(&run, point);
    for entry in walk(folder.path()) {
        let mut bytes = std::fs::read(&entry).expect("readable");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&entry, bytes).expect("writable");
    }
    assert_eq!(print(&platform, &run).await, with, "damaged ones are not used");
    checkpoints.drop_all(None).expect("removed");
    assert_eq!(checkpoints.list_seqs(&run), []);
    let without = platform.repository.load_at::<Run>(&run, *last, true).await;
    let without = without.expect("the log works").expect("it is there").state;
    assert_eq!(without.steps.len(), at_last.steps.len());
    assert_eq!(print(&platform, &run).await, with, "dropping all changes nothing");
}

/// The fingerprint of a run as it is loaded.
async fn print(platform: &Platform, run: &StreamKey) -> Fingerprint {
    platform.state(run).await.refresh_fingerprint()
}

/// Every file below a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("readable").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
