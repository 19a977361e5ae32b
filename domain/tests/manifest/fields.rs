//! Every field of a node is kept by its kind, or refused with what would be right.

use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{NODE_KINDS, parse_manifest};
use convergio_domain::run::{FAILURE_CODES, retryable_codes};
use convergio_domain::time::Span;

use super::{mistakes, tools};

/// A body of each kind, beside which the fields stand.
fn body(kind: &str) -> &'static str {
    match kind {
        "agent" => "agent: {prompt: p}",
        "tool" => "tool: text.trim, with: {text: t}",
        "branch" => "branch: {if: 'true', then: other}",
        "map" => "map: {over: '{{ [1] }}', tool: text.trim, with: {text: t}}",
        "approval" => "approval: {show: s}",
        "sleep" => "sleep: 1s",
        "graph" => "graph: {name: g}",
        "plan" => "plan: {prompt: p}",
        "signal" => "signal: paid",
        other => panic!("a kind without a body: {other}"),
    }
}

/// Each field, and the kinds that do not keep it.
const FIELDS: [(&str, &[&str]); 7] = [
    ("needs: [other]", &[]),
    ("join: any", &[]),
    ("on_error: skip", &[]),
    ("on_error: ask", &["map"]),
    ("timeout: 9s", &["branch"]),
    ("retry: {max: 2}", &["branch", "approval", "sleep", "signal"]),
    ("on_unknown: ask", &["branch", "approval", "sleep", "graph", "signal"]),
];

fn manifest(kind: &str, field: &str) -> String {
    let other = "- {id: other, tool: text.trim, with: {text: t}}";
    let field = if kind == "branch" && field.starts_with("needs") { "needs: []" } else { field };
    format!("name: a\nnodes:\n{other}\n- {{id: x, {field}, {}}}", body(kind))
}

#[test]
fn every_field_of_a_node_is_kept_or_refused_by_every_kind() {
    for kind in NODE_KINDS {
        for (field, refused_by) in FIELDS {
            let text = manifest(kind, field);
            if !refused_by.contains(&kind) {
                assert!(parse_manifest(&text, &tools()).is_ok(), "{kind} keeps {field}");
                continue;
            }
            let found = mistakes(&text);
            let name = field.split(':').next().unwrap();
            assert_eq!(found.len(), 1, "{kind} {field}: {found:?}");
            assert_eq!((found[0].path.as_str(), found[0].line), (&*format!("nodes[1].{name}"), 4));
            let says = ["leave", "say", "use"];
            let is_told = says.iter().any(|word| found[0].message.contains(word));
            assert!(is_told, "what would be right: {}", found[0].message);
        }
    }
}

#[test]
fn what_a_body_would_ignore_is_refused() {
    let cases = [
        ("agent: {request: '{{ inputs }}', model: local}", "nodes[0].agent.model"),
        ("agent: {request: '{{ inputs }}', system: s}", "nodes[0].agent.system"),
        ("agent: {request: '{{ inputs }}', max_tokens: 5}", "nodes[0].agent.max_tokens"),
        ("agent: {request: '{{ inputs }}', temperature: 1}", "nodes[0].agent.temperature"),
        ("agent: {request: '{{ inputs }}', schema: {}}", "nodes[0].agent.schema"),
        ("agent: {prompt: p, max_turns: 3}", "nodes[0].agent.max_turns"),
        ("agent: {prompt: p}, with: {text: t}", "nodes[0].with"),
        ("tool: {name: text.trim, with: {text: t}}, with: {text: u}", "nodes[0].with"),
        ("map: {over: '{{ [1] }}', agent: {prompt: p}, with: {a: 1}}", "nodes[0].map.with"),
        (
            "map: {over: '{{ [1] }}', tool: {name: text.trim, with: {text: t}}, with: {text: u}}",
            "nodes[0].map.with",
        ),
        ("retry: {backoff: 5m}, agent: {prompt: p}", "nodes[0].retry.backoff"),
    ];
    for (body, path) in cases {
        let found = mistakes(&format!("name: a\nnodes: [{{id: x, {body}}}]"));
        let found: Vec<_> = found.iter().map(|m| (m.path.as_str(), m.line)).collect();
        assert_eq!(found, [(path, 2)], "{body}");
    }
}

#[test]
fn codes_that_no_failure_has_or_that_are_never_repeated_are_refused() {
    let refusal = |code: &str| {
        let text =
            format!("name: a\nnodes:\n- id: x\n  agent: {{prompt: p}}\n  retry:\n    on: [{code}]");
        let found = mistakes(&text);
        assert_eq!((found.len(), found[0].line), (1, 6), "{found:?}");
        assert_eq!(found[0].path, "nodes[0].retry.on[0]");
        found[0].message.clone()
    };
    assert!(refusal("provider.rate_limit").contains("did you mean `provider.rate_limited`"));
    for unknown in ["Timeout", "500", "provider"] {
        assert!(refusal(unknown).contains("provider.timeout"), "the codes are named");
    }
    for known in FAILURE_CODES.iter().filter(|known| !known.is_retryable) {
        assert!(refusal(known.code).contains("never repeated"), "{}", known.code);
    }
    let all = retryable_codes().collect::<Vec<_>>().join(", ");
    let text = format!("name: a\nnodes: [{{id: x, retry: {{on: [{all}]}}, agent: {{prompt: p}}}}]");
    assert!(parse_manifest(&text, &tools()).is_ok());
}

#[test]
fn of_two_limits_of_a_wait_the_nearer_counts_and_is_told() {
    let cases = [
        ("timeout: 2s, approval: {show: s}", Some(2), None),
        ("timeout: 2s, approval: {show: s, ttl: 1s}", Some(1), Some("1s")),
        ("timeout: 2s, signal: paid", Some(2), None),
        ("timeout: 2s, signal: {name: paid, timeout: 9s}", Some(2), Some("2s")),
        ("signal: {name: paid, timeout: 9s}", Some(9), None),
        ("signal: paid", None, None),
        ("timeout: 2s, sleep: 1s", Some(1), None),
        ("timeout: 2s, sleep: 30m", Some(2), Some("after 2s as a failure")),
        ("timeout: 2s, agent: {prompt: p}", None, None),
    ];
    for (body, seconds, warning) in cases {
        let text =
            format!("name: a\noutput: '{{{{ nodes.x.output }}}}'\nnodes: [{{id: x, {body}}}]");
        let parsed = parse_manifest(&text, &tools()).expect(body);
        let node = &parsed.graph.nodes[0];
        assert_eq!(node.wait_limit(), seconds.map(Span::from_seconds), "{body}");
        assert_eq!(node.sleeps_too_long(), body.contains("30m"), "{body}");
        let told = parsed.warnings.iter().find(|told| told.path == "nodes[0].timeout");
        assert_eq!(told.is_some(), warning.is_some(), "{body}: {:?}", parsed.warnings);
        assert!(told.is_none_or(|told| told.message.contains(warning.unwrap_or("!"))), "{told:?}");
    }
}

#[test]
fn whole_numbers_of_a_manifest_are_kept_or_refused() {
    let text = |number: &str| {
        format!(
            "name: a\ninputs: {{type: object}}\noutput: {number}\nnodes: [{{id: x, sleep: 1s}}]"
        )
    };
    for number in ["9007199254740993", "18446744073709551615", "-9223372036854775808"] {
        let graph = parse_manifest(&text(number), &tools()).expect(number).graph;
        let again: Graph = serde_json::from_slice(&graph.canonical_manifest()).expect("it is JSON");
        assert_eq!(again.output.expect("given").to_string(), number, "in the log it is the same");
    }
    for number in ["18446744073709551616", "-9223372036854775809", "+12345678901234567890123"] {
        let found = mistakes(&text(number));
        assert_eq!((found.len(), found[0].line), (1, 3));
        assert!(found[0].message.contains("beyond 64 bits"), "{}", found[0].message);
        let quoted = text(&format!("\"{number}\""));
        assert!(parse_manifest(&quoted, &tools()).is_ok(), "as text it is taken");
    }
}
