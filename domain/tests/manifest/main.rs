//! Manifests: what is accepted, and how every mistake is named.

mod fields;
mod names;

use convergio_domain::expr::{ExprScope, NodeView, condition_holds, render_value};
use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{
    Diagnostic, ToolCatalog, ToolEffect, ToolSpec, parse_manifest, topology,
};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use serde_json::json;
use std::sync::Arc;

fn tools() -> ToolCatalog {
    ToolCatalog::new(vec![ToolSpec {
        name: "text.trim".into(),
        description: "Trims.".into(),
        arguments: json!({"type": "object", "required": ["text"],
            "properties": {"text": {"type": "string"}}}),
        effect: ToolEffect::Pure,
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

fn mistakes(text: &str) -> Vec<Diagnostic> {
    parse_manifest(text, &tools()).expect_err("the manifest has mistakes")
}

#[test]
fn a_good_manifest_is_canonical_and_comes_back() {
    let graph = parse_manifest(GOOD, &tools()).map_err(|m| format!("{m:?}")).unwrap().graph;
    let again: Graph = serde_json::from_slice(&graph.canonical_manifest()).unwrap();
    assert_eq!(again, graph);
    assert_eq!(again.compute_version(), graph.compute_version());
    assert_eq!(graph.budget.tokens, Some(500));
}

#[test]
fn expressions_make_edges() {
    let graph = parse_manifest(GOOD, &tools()).unwrap().graph;
    let edges: Vec<_> =
        topology::graph_edges(&graph).iter().map(|edge| (edge.from, edge.to, edge.port)).collect();
    assert!(edges.contains(&(0, 1, None)), "judge's template names first");
    assert!(edges.contains(&(3, 4, Some(0))) && edges.contains(&(3, 5, Some(1))));
}

/// One broken manifest, a piece of what must be said, at which path and on which line.
const BAD: &[(&str, &str, usize, &str)] = &[
    ("nodes: []", "name", 1, "missing"),
    ("name: a", "nodes", 1, "missing"),
    ("name: a\nnodes: []", "nodes", 2, "1 to"),
    ("name: A\nnodes: [{id: x, sleep: 1s}]", "name", 1, "not a valid"),
    ("name: a\nnodes: [{id: x}]", "nodes[0]", 2, "does nothing"),
    ("name: a\nnodes:\n- {id: x, sleep: 1s, approval: {show: a}}", "nodes[0]", 3, "more than one"),
    ("name: a\nnodes:\n- id: x\n  sleep: 5 years", "nodes[0].sleep", 4, "length of time"),
    ("name: a\nnodes: [{id: x, slep: 5s}]", "nodes[0].slep", 2, "did you mean `sleep`"),
    (
        "name: a\nnodes:\n- id: x\n  tool: text.trin\n  with: {text: a}",
        "nodes[0].tool",
        4,
        "did you mean `text.trim`",
    ),
    ("name: a\nnodes: [{id: x, tool: text.trim}]", "nodes[0].tool", 2, "needs the argument `text`"),
    (
        "name: a\nnodes:\n- {id: x, tool: text.trim,\n   with: {text: 5}}",
        "nodes[0].with.text",
        4,
        "not of type",
    ),
    (
        "name: a\nnodes:\n- id: x\n  tool: text.trim\n  with:\n    text: a\n    txt: b",
        "nodes[0].with.txt",
        7,
        "no argument `txt`; did you mean `text`",
    ),
    ("name: a\nnodes: [{id: x, needs: [y], sleep: 1s}]", "nodes[0].needs[0]", 2, "no node `y`"),
    (
        "name: a\nnodes:\n- {id: x, sleep: 1s}\n- {id: x, sleep: 1s}",
        "nodes[1].id",
        4,
        "nodes[0] too",
    ),
    (
        "name: a\nnodes:\n- {id: z, needs: [x], sleep: 1s}\n- {id: y, needs: [z], sleep: 1s}\n\
        - {id: x, needs: [y], sleep: 1s}",
        "nodes[0]",
        3,
        "in a circle: z -> y -> x -> z",
    ),
    (
        "name: a\nnodes:\n- {id: p, sleep: 1s, on_error: {fallback: q}}\n\
        - {id: q, sleep: 1s, on_error: {fallback: p}}",
        "nodes[0]",
        3,
        "p -> q -> p",
    ),
    (
        "name: a\nnodes: [{id: x, tool: text.trim, with: {text: '{{ nodes.x.output }}'}}]",
        "nodes[0].with.text",
        2,
        "its own output",
    ),
    (
        "name: a\nnodes:\n- id: x\n  tool: text.trim\n  with:\n    text: |-\n      one\n      \
        {{ nodes.q.output }}",
        "nodes[0].with.text",
        8,
        "no node `q`",
    ),
    (
        "name: a\nnodes:\n- id: x\n  tool: text.trim\n  with:\n    text: |\n      one\n      \
        {{ oops",
        "nodes[0].with.text",
        8,
        "template",
    ),
    (
        "name: a\nnodes: [{id: x, tool: text.trim, with: {text: '{{ item }}'}}]",
        "nodes[0].with.text",
        2,
        "inside of a map",
    ),
    (
        "name: a\nnodes: [{id: x, tool: text.trim, with: {text: '{{ inputz.a }}'}}]",
        "nodes[0].with.text",
        2,
        "did you mean `inputs`",
    ),
    (
        "name: a\nnodes: [{id: x, tool: text.trim, with: {text: '{{ inputs.a|uper }}'}}]",
        "nodes[0].with.text",
        2,
        "no filter `uper`",
    ),
    (
        "name: a\nnodes: [{id: x, tool: text.trim, with: {text: '{% set a = 1 %}'}}]",
        "nodes[0].with.text",
        2,
        "no statement `set`",
    ),
    (
        "name: a\nnodes: [{id: x, tool: text.trim, with: {text: '{{ nodes }}'}}]",
        "nodes[0].with.text",
        2,
        "name the node",
    ),
    ("name: a\nnodes: [{id: x, branch: {if: '1 +', then: x}}]", "nodes[0].branch.if", 2, "CEL"),
    (
        "name: a\nnodes:\n- {id: x, sleep: 1s}\n- {id: b, branch: {if: 'inputz.x == 1', then: x}}",
        "nodes[1].branch.if",
        4,
        "`inputz` is not known",
    ),
    (
        "name: a\nnodes:\n- {id: x, sleep: 1s}\n- {id: b, branch: {if: 'nodes.y.output', then: x}}",
        "nodes[1].branch.if",
        4,
        "no node `y`",
    ),
    (
        "name: a\nnodes:\n- {id: x, sleep: 1s}\n- id: b\n  branch:\n    cases:\n    \
        - {when: 'true', to: [x, w]}",
        "nodes[1].branch.cases[0].to[1]",
        7,
        "no node `w`",
    ),
    (
        "name: a\nnodes:\n- {id: b, branch: {if: 'true', then: x}}\n\
        - {id: x, tool: text.trim, with: {text: '{{ nodes.b.output }}'}}",
        "nodes[1].with.text",
        4,
        "is a branch and has no output",
    ),
    (
        "name: a\nnodes: [{id: x, on_error: ask, map: {over: '[]', tool: text.trim, \
            with: {text: a}}}]",
        "nodes[0].on_error",
        2,
        "a map cannot ask",
    ),
    (
        "name: a\nnodes: [{id: x, on_unknown: guess, sleep: 1s}]",
        "nodes[0].on_unknown",
        2,
        "retry_if_idempotent",
    ),
    ("name: a\nnodes: [{id: x, signal: {timeout: 1s}}]", "nodes[0].signal.name", 2, "missing"),
    (
        "name: a\nnodes: [{id: x, on_error: {fallback: x}, sleep: 1s}]",
        "nodes[0].on_error.fallback",
        2,
        "its own fallback",
    ),
    (
        "name: a\nnodes: [{id: x, on_error: {fallback: y}, sleep: 1s}]",
        "nodes[0].on_error.fallback",
        2,
        "no node `y`",
    ),
    ("name: a\nnodes: [{id: x, plugin: p}]", "nodes[0].plugin", 2, "not available"),
    (
        "name: a\nnodes: [{id: x, agent: {prompt: p, tools: [t]}}]",
        "nodes[0].agent.tools[0]",
        2,
        "no tool `t`",
    ),
    (
        "name: a\nnodes: [{id: x, agent: {prompt: p, tools: [agent.spawn, {agent: b, graph: c}]}}]",
        "nodes[0].agent.tools[1]",
        2,
        "{agent: NAME} or {graph: NAME}",
    ),
    (
        "name: a\nnodes: [{id: x, agent: {prompt: p, tools: [{graph: b}, {graph: b}]}}]",
        "nodes[0].agent.tools[1]",
        2,
        "twice",
    ),
    (
        "name: a\nnodes: [{id: x, agent: {prompt: p, max_turns: 3}}]",
        "nodes[0].agent.max_turns",
        2,
        "belongs to an agent with `tools`",
    ),
    (
        "name: a\nnodes: [{id: x, agent: {request: p, tools: [agent.spawn]}}]",
        "nodes[0].agent.request",
        2,
        "belong to an agent with a `prompt`",
    ),
    (
        "name: a\nnodes: [{id: x, agent: {prompt: p, memory: {query: q}}}]",
        "nodes[0].agent.memory.subject",
        2,
        "whose memory",
    ),
    ("name: a\nnodes: [{id: x, graph: {inputs: {}}}]", "nodes[0].graph.name", 2, "missing"),
    (
        "name: a\nnodes: [{id: x, graph: {name: b, version: latest}}]",
        "nodes[0].graph.version",
        2,
        "64 hexadecimal digits",
    ),
    (
        "name: a\nnodes: [{id: x, graph: {name: b, inputs: {t: \"{{ nodes.y.output }}\"}}}]",
        "nodes[0].graph.inputs.t",
        2,
        "no node `y`",
    ),
    ("name: a\nnodes: [{id: x, plan: {model: auto}}]", "nodes[0].plan.prompt", 2, "missing"),
    (
        "name: a\nnodes: [{id: x, agent: {prompt: p, max_tokens: -1}}]",
        "nodes[0].agent.max_tokens",
        2,
        "whole number",
    ),
    (
        "name: a\nbudget: {cost: 0.1.2}\nnodes: [{id: x, sleep: 1s}]",
        "budget.cost",
        2,
        "amount of money",
    ),
    ("name: a\ninputs: {type: 5}\nnodes: [{id: x, sleep: 1s}]", "inputs", 2, "JSON Schema"),
    (
        "name: a\noutput:\n  deep: ['{{ nodes.q.output }}']\nnodes: [{id: x, sleep: 1s}]",
        "output.deep[0]",
        3,
        "no node `q`",
    ),
    ("name: a\nnodes: [{id: x, join: 3, sleep: 1s}]", "nodes[0].join", 2, "fewer"),
    ("name: a\nname: b", "", 2, "twice"),
    ("name: &a b", "", 1, "anchors"),
    ("name: [", "", 2, "not readable as YAML"),
    ("name: a\n---\nname: b", "", 2, "one manifest"),
];

#[test]
fn every_mistake_is_named_by_path_line_and_reason() {
    for (text, path, line, reason) in BAD {
        let found = mistakes(text);
        let named =
            |m: &Diagnostic| m.path == *path && m.line == *line && m.message.contains(reason);
        assert!(found.iter().any(named), "{text}\nwants {path}:{line}: {reason}\n{found:#?}");
    }
}

#[test]
fn mistakes_of_every_kind_are_found_in_one_reading() {
    let text = "name: A\noutput: '{{ nodes.zz.output }}'\nnodes:\n\
        - {id: x, needs: [y], sleep: 1s}\n- {id: y, needs: [x, q], sleep: 1s}\n- {id: broken}\n\
        - {id: w, needs: [broken], sleep: 1s}";
    let found: Vec<_> = mistakes(text).iter().map(|m| (m.line, m.path.clone())).collect();
    let expected = [(1, "name"), (2, "output"), (4, "nodes[0]"), (5, "nodes[1].needs[1]")];
    for (line, path) in expected {
        assert!(found.contains(&(line, path.to_owned())), "{path}: {found:?}");
    }
    assert!(found.contains(&(6, "nodes[2]".to_owned())) && found.len() == 5, "{found:?}");
}

#[test]
fn a_wait_that_is_longer_than_the_run_may_last_is_a_warning_at_its_line() {
    let text = "name: g
budget: {deadline: 1d}
nodes:
  - {id: nap, sleep: 2d}
  - {id: ok, approval: {role: r, show: x, ttl: 7d}}
  - {id: paid, signal: {name: paid, timeout: 25h}}
  - {id: soon, sleep: 1d}
";
    let warnings = parse_manifest(text, &tools()).expect("valid").warnings;
    let told: Vec<_> = warnings
        .iter()
        .filter(|warning| warning.message.contains("budget.deadline"))
        .map(|warning| (warning.line, warning.path.as_str()))
        .collect();
    let expected =
        [(4, "nodes[0].sleep"), (5, "nodes[1].approval.ttl"), (6, "nodes[2].signal.timeout")];
    assert_eq!(told, expected, "{warnings:#?}");
    let unlimited = text.replace("budget: {deadline: 1d}\n", "");
    let warnings = parse_manifest(&unlimited, &tools()).expect("valid").warnings;
    assert!(!warnings.iter().any(|warning| warning.message.contains("deadline")));
}

#[test]
fn what_is_allowed_and_probably_not_meant_is_a_warning() {
    let text = "name: a\nnodes:\n- {id: b, branch: {if: 'true', then: x, else: y}}\n\
        - {id: x, tool: text.trim, with: {text: a}}\n- {id: y, tool: text.trim, with: {text: b}}\n\
        - {id: z, join: any, needs: [y], tool: text.trim, with: {text: '{{ nodes.x.output }}'}}";
    let warnings = parse_manifest(text, &tools()).expect("valid").warnings;
    let said =
        |line, what: &str| warnings.iter().any(|w| w.line == line && w.message.contains(what));
    assert!(said(6, "`x` may be skipped") && said(6, "nothing uses"), "{warnings:#?}");
    let guarded = text.replace("nodes.x.output", "nodes.x.output | default(1)");
    let warnings = parse_manifest(&guarded, &tools()).expect("valid").warnings;
    assert!(!warnings.iter().any(|w| w.message.contains("skipped")), "{warnings:#?}");
}

#[test]
fn a_node_named_by_index_is_waited_for() {
    for (field, by) in
        [("branch", "nodes[\"a\"].status == 'completed'"), ("tool", "{{ nodes['a'].output }}")]
    {
        let last = match field {
            "branch" => format!(
                "- {{id: b, branch: {{if: {}, then: x}}}}\n- {{id: x, sleep: 1s}}",
                json!(by)
            ),
            _ => format!("- {{id: b, tool: text.trim, with: {{text: {}}}}}", json!(by)),
        };
        let text = format!("name: a\nnodes:\n- {{id: a, sleep: 1s}}\n{last}");
        let graph = parse_manifest(&text, &tools()).expect("valid").graph;
        assert!(
            topology::graph_edges(&graph).iter().any(|edge| (edge.from, edge.to) == (0, 1)),
            "{text}"
        );
    }
}

#[test]
fn a_slice_of_an_output_is_a_reference_too() {
    let text = "name: a\nnodes:\n  - {id: x, tool: text.trim, with: {text: a}}\n  \
        - {id: y, tool: text.trim, with: {text: \"{{ nodes.x.output[:3] }}\"}}\n";
    let graph = parse_manifest(text, &tools()).unwrap().graph;
    assert_eq!(topology::graph_edges(&graph).len(), 1);
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

/// Expressions that would exhaust the stack of a parser that recurses once for each operator.
fn hostile() -> Vec<String> {
    let repeated = [
        "(",
        "[",
        "{",
        "!",
        "-",
        "- ",
        "! ",
        "not ",
        "1 + ",
        "1+",
        "1 ~ ",
        "1 if 1 else ",
        "true ? ",
        "a.",
        "a|upper|",
        "1 and ",
        "1 == ",
        "x is defined and ",
        "f(",
        "a[0].",
        "[1].all(x, ",
    ];
    let long = |piece: &&str| piece.repeat(60_000 / piece.len());
    let mut hostile: Vec<_> = repeated.iter().map(long).collect();
    hostile.extend(repeated.iter().map(|piece| format!("{}1", long(piece))));
    hostile.extend(repeated.iter().map(|piece| format!("{}1", piece.repeat(4000 / piece.len()))));
    hostile.extend(
        ["|upper", ".a", "[0]", "()", " + 1", " if 1", "[:1]"]
            .map(|tail| format!("a{}", tail.repeat(60_000 / tail.len()))),
    );
    hostile
}

#[test]
fn hostile_expressions_are_refused_and_never_end_the_process() {
    let scope = ExprScope { inputs: Arc::new(json!({"n": 3})), ..ExprScope::default() };
    for hostile in hostile() {
        assert!(condition_holds(&hostile, &scope).is_err());
        for template in [format!("{{{{ {hostile} }}}}"), format!("a{{% if {hostile} %}}")] {
            let manifest = json!({"name": "a", "nodes": [
                {"id": "x", "tool": "text.trim", "with": {"text": template}},
                {"id": "b", "branch": {"if": hostile, "then": "x"}}]});
            assert!(parse_manifest(&manifest.to_string(), &tools()).is_err());
            assert!(render_value(&json!(template), &scope).is_err());
        }
    }
}

#[test]
fn as_many_operators_as_allowed_are_evaluated() {
    let scope = ExprScope { inputs: Arc::new(json!({"n": 3, "l": [1]})), ..ExprScope::default() };
    for piece in ["not ", "- ", "1 - ", "1 if 0 else ", "1 and "] {
        let template = json!(format!("{{{{ {}1 }}}}", piece.repeat(120)));
        render_value(&template, &scope).expect(piece);
    }
    for (piece, end) in [("1+", "1 > 0"), ("!", "true"), ("true && ", "true"), ("-", "1 < 2")] {
        condition_holds(&format!("{}{end}", piece.repeat(90)), &scope).expect(piece);
    }
    let nested = "{% if 1 %}".repeat(16) + &"{% endif %}".repeat(16);
    render_value(&json!(nested), &scope).expect("statements within each other");
}

#[test]
fn templates_are_bounded_in_work_and_memory() {
    let inputs = json!({"doc": "x".repeat(1 << 20), "list": vec!["y"; 1000]});
    let scope = ExprScope { inputs: Arc::new(inputs), ..ExprScope::default() };
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
    let wide = "a{% for i in range(9999) %}{{ inputs.doc }}{% endfor %}";
    let tenfold =
        format!("{{{{ '{0}'{1} }}}}", "a".repeat(10), "|replace('a', 'aaaaaaaaaa')".repeat(12));
    let joined = "{{ inputs.list|join(inputs.doc) }}";
    let times = "{{ 'x' * 100000000 }}";
    let header = "{% for a in [inputs.doc ~ inputs.doc] %}{{ a }}{% endfor %}";
    let nested = "{% for a in [1] %}".repeat(4) + &"{% endfor %}".repeat(4);
    let mapped = "{{ inputs.list|map('replace', 'y', inputs.doc)|list|length }}";
    for hostile in [endless, wide, &tenfold, joined, times, header, &nested, mapped] {
        assert!(render_value(&json!(hostile), &scope).is_err(), "{hostile}");
    }
}

#[test]
fn conditions_loop_once_at_most() {
    let scope = ExprScope { inputs: Arc::new(json!({"l": [1, 2]})), ..ExprScope::default() };
    assert!(
        condition_holds("inputs.l.all(x, x > 0) && inputs.l.exists(x, x > 1)", &scope)
            .expect("two loops")
    );
    let error =
        condition_holds("inputs.l.all(x, inputs.l.all(y, y > 0))", &scope).expect_err("nested");
    assert!(error.message.contains("within a loop"), "{error}");
}

#[test]
fn large_manifests_are_checked_in_time_that_grows_with_their_size() {
    let mut keys = String::from("name: a\nnodes: [{id: x, sleep: 1s}]\n");
    keys.extend((0..60_000).map(|i| format!("k{i}: 1\n")));
    assert_eq!(mistakes(&keys).len(), 101, "a hundred, and a line that says so");
    let mut branches = String::from("name: a\nnodes:\n");
    branches.extend((0..2000).map(|i| {
        format!(
            "- {{id: b{i}, branch: {{if: 'true', then: s{i}, else: []}}}}\n\
            - {{id: s{i}, sleep: 1s}}\n"
        )
    }));
    let needs: Vec<_> = (0..2000).map(|i| format!("s{i}")).collect();
    branches.push_str(&format!("- {{id: last, sleep: 1s, needs: [{}]}}\n", needs.join(",")));
    parse_manifest(&branches, &tools()).expect("valid");
}

#[test]
fn templates_keep_types_and_conditions_are_true_or_false() {
    let view = NodeView { status: "completed", output: Some(Arc::new(json!({"ok": true}))) };
    let skipped = NodeView { status: "skipped", output: None };
    let nodes = [("a".parse().unwrap(), view), ("b".parse().unwrap(), skipped)].into();
    let scope = ExprScope { inputs: Arc::new(json!({"n": 3})), nodes, item: None };
    let value = json!({"n": "{{ inputs.n }}", "t": "n is {{ inputs.n }}",
        "o": "{{ nodes.a.output }}",
        "j": "is {{ nodes.a.output }}", "d": "{{ nodes.b.output | default('none') }}"});
    let rendered = render_value(&value, &scope).unwrap();
    let expected =
        json!({"n": 3, "t": "n is 3", "o": {"ok": true}, "j": "is {\"ok\":true}", "d": "none"});
    assert_eq!(rendered, expected);
    assert!(condition_holds("nodes.a.output.ok && inputs.n > 2", &scope).unwrap());
    assert!(condition_holds("nodes.b.status == 'skipped'", &scope).unwrap());
    assert!(condition_holds("inputs.n", &scope).is_err());
    assert!(condition_holds("nodes.b.output == 'x'", &scope).is_err());
    assert!(render_value(&json!("{{ nodes.b.output }}"), &scope).is_err());
}

#[test]
fn an_agent_has_a_prompt_or_a_whole_request_and_may_be_private() {
    let agent = |fields: &str| {
        let text = format!(
            "name: a\ninputs: {{type: object, properties: {{chat: {{type: object}}}}}}\n\
             nodes: [{{id: one, agent: {{{fields}}}}}]"
        );
        parse_manifest(&text, &tools()).map(|parsed| serde_json::to_value(parsed.graph).unwrap())
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
        let _checked = parse_manifest(&text, &tools());
    }

    #[test]
    fn no_mutation_of_a_good_manifest_ends_the_process(at in 0..GOOD.len(), with in any::<char>()) {
        let mut text: Vec<char> = GOOD.chars().collect();
        if let Some(letter) = text.get_mut(at) {
            *letter = with;
        }
        let text: String = text.into_iter().collect();
        if let Ok(parsed) = parse_manifest(&text, &tools()) {
            let again: Graph = serde_json::from_slice(&parsed.graph.canonical_manifest()).unwrap();
            prop_assert_eq!(again.compute_version(), parsed.graph.compute_version());
            prop_assert!(topology::graph_edges(&again).len() < 100);
        }
    }
}
