//! Manifests: what is accepted, and how every mistake is named.

use convergio_domain::expr::{NodeView, Scope, holds, render_value};
use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{Mistake, ToolCatalog, ToolSpec, parse, topology};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use serde_json::json;
use std::sync::Arc;

fn tools() -> ToolCatalog {
    ToolCatalog::new(vec![ToolSpec {
        name: "text.trim".into(),
        description: "Trims.".into(),
        arguments: json!({"type": "object", "required": ["text"],
            "properties": {"text": {"type": "string"}}}),
    }])
}

const GOOD: &str = r#"
name: good
inputs: {type: object, required: [doc], properties: {doc: {type: string}}}
budget: {tokens: 500, cost: "0.5", wall: 2m}
output: "{{ nodes.last.output }}"
nodes:
  - {id: first, tool: text.trim, with: {text: "{{ inputs.doc }}"}}
  - id: judge
    agent: {prompt: "judge {{ nodes.first.output }}", max_tokens: 9, temperature: 0.5}
    retry: {max: 2, backoff: 10ms, on: [provider.timeout]}
    timeout: 9s
    on_error: {fallback: spare}
  - {id: spare, tool: text.trim, with: {text: none}}
  - id: way
    needs: [judge]
    branch: {if: nodes.judge.output == "ok", then: yes, else: [no]}
  - {id: "yes", tool: text.trim, with: {text: "y"}}
  - {id: "no", map: {over: "{{ [1, 2] }}", tool: text.trim, with: {text: "{{ item }}"}}}
  - {id: ask, needs: [yes], approval: {role: teacher, show: "{{ nodes.yes.output }}", ttl: 1d}}
  - {id: nap, sleep: 5s}
  - {id: last, join: any, needs: [ask, "no"], tool: text.trim, with: {text: "z"}}
"#;

fn mistakes(text: &str) -> Vec<Mistake> {
    parse(text, &tools()).expect_err("the manifest has mistakes")
}

#[test]
fn a_good_manifest_is_canonical_and_comes_back() {
    let graph = parse(GOOD, &tools()).map_err(|m| format!("{m:?}")).unwrap().graph;
    let again: Graph = serde_json::from_slice(&graph.canonical()).unwrap();
    assert_eq!(again, graph);
    assert_eq!(again.version(), graph.version());
    assert_eq!(graph.budget.tokens, Some(500));
}

#[test]
fn expressions_make_edges() {
    let graph = parse(GOOD, &tools()).unwrap().graph;
    let edges: Vec<_> =
        topology::edges(&graph).iter().map(|edge| (edge.from, edge.to, edge.port)).collect();
    assert!(edges.contains(&(0, 1, None)), "judge's template names first");
    assert!(edges.contains(&(3, 4, Some(0))) && edges.contains(&(3, 5, Some(1))));
}

/// One broken manifest, and a piece of what must be said at which path.
const BAD: &[(&str, &str, &str)] = &[
    ("nodes: []", "name", "missing"),
    ("name: a", "nodes", "missing"),
    ("name: a\nnodes: []", "nodes", "1 to"),
    ("name: A\nnodes: [{id: x, sleep: 1s}]", "name", "not a valid"),
    ("name: a\nnodes: [{id: x}]", "nodes[0]", "does nothing"),
    (
        "name: a\nnodes: [{id: x, sleep: 1s, tool: text.trim, with: {text: a}}]",
        "nodes[0]",
        "more than one",
    ),
    ("name: a\nnodes: [{id: x, sleep: 5 years}]", "nodes[0].sleep", "length of time"),
    ("name: a\nnodes: [{id: x, slep: 5s}]", "nodes[0].slep", "did you mean `sleep`"),
    (
        "name: a\nnodes: [{id: x, tool: text.trin, with: {text: a}}]",
        "nodes[0].tool",
        "did you mean `text.trim`",
    ),
    ("name: a\nnodes: [{id: x, tool: text.trim}]", "nodes[0].tool", "needs the argument `text`"),
    (
        "name: a\nnodes: [{id: x, tool: text.trim, with: {text: 5}}]",
        "nodes[0].tool",
        "argument text",
    ),
    (
        "name: a\nnodes: [{id: x, tool: text.trim, with: {text: a, txt: b}}]",
        "nodes[0].tool",
        "no argument `txt`",
    ),
    ("name: a\nnodes: [{id: x, needs: [y], sleep: 1s}]", "nodes[0].needs", "no node `y`"),
    ("name: a\nnodes: [{id: x, sleep: 1s}, {id: x, sleep: 1s}]", "nodes[1].id", "nodes[0] too"),
    (
        "name: a\nnodes: [{id: x, needs: [y], sleep: 1s}, {id: y, needs: [x], sleep: 1s}]",
        "nodes[0]",
        "circle",
    ),
    (
        "name: a\nnodes: [{id: x, tool: text.trim, with: {text: '{{ nodes.x.output }}'}}]",
        "nodes[0]",
        "its own output",
    ),
    (
        "name: a\nnodes: [{id: x, tool: text.trim, with: {text: '{{ nodes.z.output }}'}}]",
        "nodes[0]",
        "no node `z`",
    ),
    (
        "name: a\nnodes: [{id: x, tool: text.trim, with: {text: '{{ oops'}}]",
        "nodes[0].tool",
        "template",
    ),
    (
        "name: a\nnodes: [{id: x, tool: text.trim, with: {text: '{{ item }}'}}]",
        "nodes[0]",
        "inside of a map",
    ),
    ("name: a\nnodes: [{id: x, branch: {if: '1 +', then: x}}]", "nodes[0].branch.if", "CEL"),
    ("name: a\nnodes: [{id: x, on_error: ask, sleep: 1s}]", "nodes[0].on_error", "not available"),
    ("name: a\nnodes: [{id: x, plugin: p}]", "nodes[0].plugin", "not available"),
    (
        "name: a\nnodes: [{id: x, agent: {prompt: p, tools: [t]}}]",
        "nodes[0].agent.tools",
        "not available",
    ),
    (
        "name: a\nnodes: [{id: x, agent: {prompt: p, max_tokens: -1}}]",
        "nodes[0].agent.max_tokens",
        "whole number",
    ),
    (
        "name: a\nbudget: {cost: 0.1.2}\nnodes: [{id: x, sleep: 1s}]",
        "budget.cost",
        "amount of money",
    ),
    ("name: a\ninputs: {type: 5}\nnodes: [{id: x, sleep: 1s}]", "inputs", "JSON Schema"),
    (
        "name: a\noutput: '{{ nodes.q.output }}'\nnodes: [{id: x, sleep: 1s}]",
        "output",
        "no node `q`",
    ),
    ("name: a\nnodes: [{id: x, join: 3, sleep: 1s}]", "nodes[0].join", "fewer"),
    ("name: a\nname: b", "", "twice"),
    ("name: &a b", "", "anchors"),
    ("name: [", "", "not readable as YAML"),
    ("name: a\n---\nname: b", "", "one manifest"),
];

#[test]
fn every_mistake_is_named_by_path_and_reason() {
    for (text, path, reason) in BAD {
        let found = mistakes(text);
        let named = found.iter().any(|m| m.path == *path && m.message.contains(reason));
        assert!(named, "{text}\nwants {path}: {reason}\nfound {found:#?}");
        assert!(found.iter().all(|mistake| mistake.line > 0), "{found:#?}");
    }
}

#[test]
fn a_slice_of_an_output_is_a_reference_too() {
    let text = "name: a\nnodes:\n  - {id: x, tool: text.trim, with: {text: a}}\n  \
        - {id: y, tool: text.trim, with: {text: \"{{ nodes.x.output[:3] }}\"}}\n";
    let graph = parse(text, &tools()).unwrap().graph;
    assert_eq!(topology::edges(&graph).len(), 1);
}

#[test]
fn a_join_of_both_sides_of_a_branch_is_refused() {
    let torn = GOOD.replace("join: any, ", "");
    let found = mistakes(&torn);
    assert!(found.iter().any(|m| m.message.contains("join: any")), "{found:?}");
}

#[test]
fn many_mistakes_are_all_named_with_their_lines() {
    let found = mistakes("name: A\nnodes:\n  - {id: x, slep: 1s}\n  - {id: Y, sleep: never}\n");
    let lines: Vec<_> = found.iter().map(|mistake| mistake.line).collect();
    assert!(lines.contains(&1) && lines.contains(&3) && lines.contains(&4), "{found:?}");
}

#[test]
fn ten_megabytes_of_nesting_are_refused() {
    let deep = "[".repeat(10 << 20);
    assert!(mistakes(&deep)[0].message.contains("at most"));
    let within = format!("name: {}", "[".repeat(100_000));
    assert!(mistakes(&within)[0].message.contains("recursion"), "{:?}", mistakes(&within));
    let blocks: String = (0..500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(mistakes(&blocks)[0].message.contains("nested deeper"));
}

#[test]
fn hostile_expressions_are_refused_or_evaluated_and_never_end_the_process() {
    let scope = Scope { inputs: Arc::new(json!({"n": 3})), ..Scope::default() };
    for hostile in ["(".repeat(5000), "!".repeat(4000), "[".repeat(4000), "-".repeat(4000)] {
        assert!(holds(&hostile, &scope).is_err());
        let template = json!(format!("{{{{ {hostile} }}}}"));
        assert!(render_value(&template, &scope).is_err());
    }
    let endless =
        json!("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}");
    assert!(render_value(&endless, &scope).is_err());
}

#[test]
fn templates_keep_types_and_conditions_are_true_or_false() {
    let view = NodeView { status: "completed", output: Some(Arc::new(json!({"ok": true}))) };
    let skipped = NodeView { status: "skipped", output: None };
    let nodes = [("a".parse().unwrap(), view), ("b".parse().unwrap(), skipped)].into();
    let scope = Scope { inputs: Arc::new(json!({"n": 3})), nodes, item: None };
    let value = json!({"n": "{{ inputs.n }}", "t": "n is {{ inputs.n }}",
        "o": "{{ nodes.a.output }}",
        "j": "is {{ nodes.a.output }}", "d": "{{ nodes.b.output | default('none') }}"});
    let rendered = render_value(&value, &scope).unwrap();
    let expected =
        json!({"n": 3, "t": "n is 3", "o": {"ok": true}, "j": "is {\"ok\":true}", "d": "none"});
    assert_eq!(rendered, expected);
    assert!(holds("nodes.a.output.ok && inputs.n > 2", &scope).unwrap());
    assert!(holds("nodes.b.status == 'skipped'", &scope).unwrap());
    assert!(holds("inputs.n", &scope).is_err());
    assert!(holds("nodes.b.output == 'x'", &scope).is_err());
    assert!(render_value(&json!("{{ nodes.b.output }}"), &scope).is_err());
}

#[test]
fn an_agent_has_a_prompt_or_a_whole_request_and_may_be_private() {
    let agent = |fields: &str| {
        let text = format!(
            "name: a\ninputs: {{type: object, properties: {{chat: {{type: object}}}}}}\n\
             nodes: [{{id: one, agent: {{{fields}}}}}]"
        );
        parse(&text, &tools()).map(|parsed| serde_json::to_value(parsed.graph).unwrap())
    };
    let whole = agent(r#"request: "{{ inputs.chat }}", privacy: local"#).unwrap();
    let read = &whole["nodes"][0]["agent"];
    assert_eq!(
        (&read["request"], &read["privacy"]),
        (&json!("{{ inputs.chat }}"), &json!("local"))
    );
    assert_eq!(read.get("prompt"), None);
    let plain = agent("prompt: hi").unwrap();
    // What is not said leaves the manifest, and so its version, as it was.
    assert_eq!(plain["nodes"][0]["agent"].get("privacy"), None);
    for (fields, word) in [
        (r#"prompt: hi, request: "{{ inputs.chat }}""#, "exclude each other"),
        ("model: local", "needs a prompt"),
        ("prompt: hi, privacy: cloud", "`any` or `local`"),
    ] {
        let mistakes = agent(fields).unwrap_err();
        assert!(mistakes.iter().any(|mistake| mistake.message.contains(word)), "{mistakes:?}");
    }
}

proptest! {
    #[test]
    fn no_text_ends_the_process(text in any::<String>()) {
        let _checked = parse(&text, &tools());
    }

    #[test]
    fn no_mutation_of_a_good_manifest_ends_the_process(at in 0..GOOD.len(), with in any::<char>()) {
        let mut text: Vec<char> = GOOD.chars().collect();
        if let Some(letter) = text.get_mut(at) {
            *letter = with;
        }
        let text: String = text.into_iter().collect();
        if let Ok(parsed) = parse(&text, &tools()) {
            let again: Graph = serde_json::from_slice(&parsed.graph.canonical()).unwrap();
            prop_assert_eq!(again.version(), parsed.graph.version());
            prop_assert!(topology::edges(&again).len() < 100);
        }
    }
}
