//! Graphs of pure steps: order, branches, joins, maps, failures, and how many commits they cost.

use std::fmt::Write;

use convergio_domain::run::{RunPhase, StepStatus};
use serde_json::json;

use crate::harness::Platform;

fn linear(steps: usize) -> String {
    let mut manifest = String::from("name: line\noutput: \"{{ nodes.s1.output }}\"\nnodes:\n");
    let mut from = "inputs.text".to_owned();
    for step in (1..=steps).rev().collect::<Vec<_>>().into_iter().rev() {
        let id = format!("s{step}");
        writeln!(
            manifest,
            "  - id: {id}\n    tool: text.trim\n    with: {{text: \"{{{{ {from} }}}}\"}}"
        )
        .expect("strings take everything");
        from = format!("nodes.{id}.output");
    }
    manifest.replace("nodes.s1.output }}\"\nnodes", &format!("nodes.s{steps}.output }}}}\"\nnodes"))
}

#[tokio::test]
async fn a_linear_graph_costs_one_commit_a_step_and_two_more() {
    for steps in [1, 5, 20] {
        let mut platform = Platform::new();
        let ended = platform.execute(&linear(steps), &json!({"text": "  hi "})).await.completed();
        assert_eq!(ended.output, json!("hi"));
        assert_eq!(ended.commits, steps + 2, "creation, first start, and one a step");
    }
}

const BRANCHED: &str = r#"
name: branched
output: "{{ nodes.last.output }}"
nodes:
  - {id: first, tool: text.trim, with: {text: "{{ inputs.text }}"}}
  - id: way
    needs: [first]
    branch: {if: nodes.first.output == "left", then: left, else: right}
  - {id: left, tool: text.trim, with: {text: "went left"}}
  - {id: right, tool: text.trim, with: {text: "went right"}}
  - id: last
    join: any
    needs: [left, right]
    tool: text.trim
    with: {text: "{{ nodes.left.output | default(nodes.right.output) }}"}
"#;

#[tokio::test]
async fn a_branch_takes_one_way_and_skips_the_other() {
    for (text, expected, skipped) in [("left", "went left", "right"), ("x", "went right", "left")] {
        let mut platform = Platform::new();
        let ended = platform.execute(BRANCHED, &json!({"text": text})).await.completed();
        assert_eq!(ended.output, json!(expected));
        let step = skipped.parse().expect("a step");
        assert_eq!(ended.state.steps[&step].status, StepStatus::Skipped);
    }
}

const MAPPED: &str = r#"
name: mapped
output: {sum: "{{ nodes.sum.output }}", list: "{{ nodes.squares.output }}"}
nodes:
  - {id: numbers, tool: list.range, with: {from: 0, to: "{{ inputs.n }}"}}
  - id: squares
    map:
      over: "{{ nodes.numbers.output }}"
      max_parallel: 4
      tool: math.eval
      with: {expression: "{{ item }} * {{ item }}"}
  - {id: sum, tool: math.sum, with: {items: "{{ nodes.squares.output }}"}}
"#;

#[tokio::test]
async fn a_map_yields_its_items_in_order() {
    let ended = Platform::new().execute(MAPPED, &json!({"n": 5})).await.completed();
    assert_eq!(ended.output["list"].as_array().map(Vec::len), Some(5));
    assert_eq!(ended.count("run.map.expanded.v1"), 1);
    assert_eq!(ended.count("run.step.completed.v1"), 8);
}

#[tokio::test]
async fn an_empty_map_yields_an_empty_list() {
    let ended = Platform::new().execute(MAPPED, &json!({"n": 0})).await.completed();
    assert_eq!(ended.output["list"], json!([]));
}

#[tokio::test]
async fn outcomes_that_arrive_together_share_commits() {
    let manifest = MAPPED.replace("max_parallel: 4", "max_parallel: 64");
    let ended = Platform::new().execute(&manifest, &json!({"n": 50})).await.completed();
    assert!(ended.commits < 50, "{} commits for 52 steps", ended.commits);
}

fn failing(policy: &str) -> String {
    format!(
        r#"
name: failing
output: "{{{{ nodes.last.output }}}}"
nodes:
  - {{id: bad, tool: json.parse, with: {{text: "{{{{ inputs.text }}}}"}}{policy}}}
  - {{id: spare, tool: text.trim, with: {{text: "spare"}}}}
  - id: last
    join: any
    needs: [bad, spare]
    tool: text.trim
    with: {{text: "{{{{ nodes.bad.output | default('none') }}}}"}}
"#
    )
}

#[tokio::test]
async fn a_failed_step_fails_the_run_by_default() {
    let manifest = failing("").replace("join: any", "join: all");
    let ended = Platform::new().execute(&manifest, &json!({"text": "{"})).await;
    assert_eq!(ended.state.phase, RunPhase::Failed);
    assert_eq!(ended.error().code, "tool.invalid");
    assert_eq!(ended.count("run.step.failed.v1"), 1, "what cannot get better is not repeated");
}

#[tokio::test]
async fn a_failed_step_can_be_skipped() {
    let manifest = failing(", on_error: skip");
    let ended = Platform::new().execute(&manifest, &json!({"text": "{"})).await.completed();
    assert_eq!(ended.output, json!("none"));
}

#[tokio::test]
async fn a_fallback_stands_for_the_failed_step() {
    let manifest = failing(", on_error: {fallback: spare}");
    let ended = Platform::new().execute(&manifest, &json!({"text": "{"})).await.completed();
    assert_eq!(ended.output, json!("spare"));
}

#[tokio::test]
async fn a_template_that_cannot_be_rendered_fails_its_step() {
    let manifest = linear(2).replace("{{ nodes.s1.output }}", "{{ nodes.s1.output.deep.er }}");
    let ended = Platform::new().execute(&manifest, &json!({"text": "hi"})).await;
    assert_eq!(ended.error().code, "template.invalid");
}
