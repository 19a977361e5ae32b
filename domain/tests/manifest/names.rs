//! Names of nodes and of signals: what is taken, and one message for each that is not.

use convergio_domain::expr::{ExprScope, NodeView, condition_holds, render_value};
use convergio_domain::graph::parse_manifest;
use convergio_domain::id::SignalName;
use serde_json::json;
use std::sync::Arc;

use super::{mistakes, tools};

#[test]
fn an_id_that_is_no_name_is_told_once_where_it_is_given() {
    let wrong = ["fetch-page", "a-b-c", "1a", "Fetch", "_x", "naïve"];
    let right = ["fetch_page", "a_b_c", "n1a", "fetch", "x", "na_ve"];
    for (id, right) in wrong.into_iter().zip(right) {
        let reference = format!("{{{{ nodes.{id}.output }}}}");
        let text = format!(
            "name: a\noutput: '{reference}'\nnodes:\n\
            - {{id: {id}, tool: text.trim, with: {{text: t}}}}\n\
            - {{id: use_it, needs: [{id}], tool: text.trim, with: {{text: 'x{reference}'}}}}\n\
            - {{id: way, branch: {{if: 'nodes.{id}.output == \"t\"', then: use_it}}}}\n\
            - {{id: other, branch: {{if: 'true', then: [{id}]}}}}\n"
        );
        let found = mistakes(&text);
        assert_eq!(found.len(), 1, "{id}: {found:?}");
        assert_eq!((found[0].line, found[0].path.as_str()), (4, "nodes[0].id"));
        let message = &found[0].message;
        assert!(message.contains(&format!("as `{right}`")), "{message}");
        let renamed = text.replace(id, right);
        assert!(parse_manifest(&renamed, &tools()).is_ok(), "what is advised is taken: {renamed}");
    }
}

#[test]
fn words_of_cel_are_names_of_nodes_by_index() {
    for word in ["in", "true", "false", "null"] {
        let manifest = |reference: &str| {
            format!(
                "name: a\nnodes:\n- {{id: \"{word}\", tool: text.trim, with: {{text: t}}}}\n\
                - id: way\n  branch:\n    if: '{reference} == \"t\"'\n    then: end\n\
                - {{id: end, sleep: 1s}}"
            )
        };
        let indexed = format!("nodes[\"{word}\"].output");
        assert!(parse_manifest(&manifest(&indexed), &tools()).is_ok(), "{indexed}");
        let found = mistakes(&manifest(&format!("nodes.{word}.output")));
        assert_eq!((found.len(), found[0].line), (1, 6), "{found:?}");
        let advice = format!("`{word}` is a word of CEL: write nodes[\"{word}\"]");
        assert_eq!(found[0].message, advice);
        let output = Some(Arc::new(json!("t")));
        let view = NodeView { status: "completed", output };
        let scope =
            ExprScope { nodes: [(word.parse().unwrap(), view)].into(), ..ExprScope::default() };
        assert_eq!(condition_holds(&format!("{indexed} == \"t\""), &scope), Ok(true));
        let template = json!(format!("{{{{ nodes.{word}.output }}}}"));
        assert_eq!(render_value(&template, &scope), Ok(json!("t")), "templates take it");
    }
}

#[test]
fn messages_about_expressions_are_in_the_words_of_who_wrote_them() {
    let scope = ExprScope {
        inputs: Arc::new(json!({"text": "x".repeat(3 << 20)})),
        ..ExprScope::default()
    };
    let refusal = |text: &str| render_value(&json!(text), &scope).expect_err(text).message;
    let large = refusal("{{ inputs.text }} and {{ inputs.text }}");
    assert_eq!(large, "template: yields more than 4194304 bytes: yield less");
    let slow =
        refusal("{% for a in range(2000) %}{% for b in range(2000) %}{% endfor %}{% endfor %}");
    assert!(slow.contains("more than 2000000 instructions"), "{slow}");
    let wide = refusal("{{ 18446744073709551615 + 1 }}");
    assert!(wide.contains("beyond 64 bits"), "{wide}");
    for condition in ["inputs.a ==", "inputs.a = 1", "(inputs.a", "inputs.n > 99999999999999999999"]
    {
        let message = condition_holds(condition, &scope).expect_err(condition).message;
        assert!(message.starts_with("not a condition in CEL"), "{condition}: {message}");
        for word in ["viable", "EOF", "mismatched", "token", "Syntax"] {
            assert!(!message.contains(word), "{condition}: {message}");
        }
    }
    let listed = condition_holds("[1, 2]", &scope).expect_err("a list").message;
    assert!(listed.contains("yields a list"), "{listed}");
}

#[test]
fn signals_have_the_names_that_webhooks_give_events() {
    let longest = "x".repeat(128);
    let names = [
        "payment",
        "payment.settled",
        "orderPaid",
        "s3:ObjectCreated",
        "orders/create",
        "a-b",
        &longest,
    ];
    for name in names {
        let plain = format!("name: a\nnodes: [{{id: x, signal: \"{name}\"}}]");
        let graph = parse_manifest(&plain, &tools()).expect(name).graph;
        assert_eq!(graph.signal_names(), [name.parse::<SignalName>().expect(name)]);
        let whole =
            format!("name: a\nnodes: [{{id: x, signal: {{name: \"{name}\", timeout: 1s}}}}]");
        assert_eq!(
            parse_manifest(&whole, &tools()).expect(name).graph.signal_names(),
            graph.signal_names()
        );
    }
    let too_long = "x".repeat(129);
    for name in ["", "pay ment", "zahlung.bestätigt", "a\\nb", "{{ inputs.name }}", &too_long] {
        let found = mistakes(&format!("name: a\nnodes: [{{id: x, signal: {{name: \"{name}\"}}}}]"));
        assert_eq!((found.len(), found[0].path.as_str()), (1, "nodes[0].signal.name"));
        let message = &found[0].message;
        assert!(message.contains("is not a valid signal name"), "{message}");
        assert!(message.contains("payment.settled"), "what would be right: {message}");
    }
}
