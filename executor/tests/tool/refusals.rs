//! What tools refuse, and how they say it.

use convergio_domain::graph;
use convergio_domain::time::Timestamp;
use convergio_executor::tool::{builtin_catalog, call_pure_tool};
use serde_json::{Value, json};

/// The message of a refusal.
fn refused(name: &str, arguments: &Value) -> String {
    let failure = call_pure_tool(name, arguments, Timestamp(0)).expect_err("refused");
    assert_eq!((failure.code.as_str(), failure.retryable), ("tool.invalid", false));
    let text = failure.full_text();
    assert!(text.starts_with(&format!("{name}: ")), "{text}");
    text.to_owned()
}

#[test]
fn wrong_arguments_are_named() {
    let cases = [
        ("text.twist", json!({}), "no such tool"),
        ("text.trim", json!([]), "must be a map, not a list"),
        ("text.trim", json!({}), "`text` is missing"),
        ("text.trim", json!({"text": 1}), "`text` must be a text, not a number"),
        ("text.trim", json!({"text": "a", "txet": 1}), "it takes text"),
        (
            "text.replace",
            json!({"text": "a", "from": "", "to": "b"}),
            "`from` must have at least 1",
        ),
        ("text.slice", json!({"text": "a", "from": -1}), "`from` must have a value of at least 0"),
        ("text.slice", json!({"text": "a", "from": 1.5}), "`from` must be a whole number"),
        ("text.join", json!({"items": {}}), "`items` must be a list, not a map"),
        ("text.join", json!({"items": [{"a": 1}], "field": "b"}), "a map of `items`"),
        ("text.count", json!({}), "`text` is missing"),
        ("text.count", json!({"text": []}), "`text` must be a text, not a list"),
        ("text.split", json!({"text": "a", "by": "page"}), "one of \"heading\", \"paragraph\""),
        ("text.split", json!({"text": "a", "by": "chars"}), "needs `max_chars`"),
        ("text.split", json!({"text": "a", "max_chars": 0}), "at least 1"),
        ("text.split", json!({"text": "a", "max_chars": "-1"}), "a value of at least 0"),
        ("json.parse", json!({"text": "{"}), "line 1 column 1"),
        (
            "json.parse",
            json!({"text": "[12345678901234567890123]"}),
            "[0]: a whole number of 23 digits",
        ),
        ("json.get", json!({"value": {}, "pointer": "a"}), "begins with /"),
        ("json.get", json!({"value": [], "pointer": "/7"}), "names nothing"),
        ("json.merge", json!({"values": [{}, 1]}), "item 1 of `values`"),
        ("math.add", json!({"a": 1, "b": true}), "`b` must be a text or a number, not true or"),
        ("math.divide", json!({"a": 1, "b": 0, "places": 2}), "divided by zero"),
        ("math.divide", json!({"a": 1, "b": 0}), "`places` is missing"),
        ("math.eval", json!({"expression": "1 +"}), "at character 4"),
        ("math.eval", json!({"expression": "1 2"}), "an operator was expected"),
        ("math.eval", json!({"expression": "(1"}), "closing parenthesis"),
        ("math.eval", json!({"expression": "1 / (2 - 2)"}), "division by zero"),
        ("math.eval", json!({"expression": "1e5"}), "an operator was expected"),
        ("math.eval", json!({"expression": ""}), "at character 1"),
        ("math.sum", json!({"items": [1, "x"]}), "item 1 of `items`"),
        ("list.range", json!({"to": 10_001}), "at most 10000"),
        ("list.range", json!({"from": i64::MIN, "to": i64::MAX}), "at most 10000"),
        ("csv.parse", json!({"text": "a,b\n1"}), "not as wide as the header"),
        ("csv.parse", json!({"text": "a\n\"1"}), "a quote is not closed"),
        ("csv.parse", json!({"text": "a,a\n1,2"}), "the same name"),
        ("csv.parse", json!({"text": "", "separator": ""}), "at least 1 characters"),
        ("csv.parse", json!({"text": "", "separator": "\n"}), "no line end"),
        ("csv.format", json!({"rows": [["a"], 1]}), "item 1 of `rows` must be a list"),
        ("csv.format", json!({"rows": [[{}]]}), "a value inside of `rows`"),
        ("date.format", json!({"date": "tomorrow", "format": "%Y"}), "RFC 3339"),
        ("date.format", json!({"format": "%"}), "strftime"),
        ("date.add", json!({"date": "2026-01-01", "days": "a week"}), "`days` must be a whole"),
        ("date.add", json!({"date": "9999-12-31", "days": 1}), "1 to 9999"),
    ];
    for (name, arguments, expected) in cases {
        let message = refused(name, &arguments);
        assert!(message.contains(expected), "{name} {arguments}: {message}");
    }
}

#[test]
fn what_somebody_wrote_is_never_repeated() {
    let secret = "canary of a person";
    let cases = [
        ("json.parse", json!({"text": secret})),
        ("json.get", json!({"value": {"a": secret}, "pointer": format!("/{secret}")})),
        ("json.merge", json!({"values": [secret]})),
        ("math.eval", json!({"expression": secret})),
        ("math.sum", json!({"items": [secret]})),
        ("csv.parse", json!({"text": format!("{secret},{secret}\n1")})),
        ("date.add", json!({"date": secret, "span": "1d"})),
        ("date.add", json!({"date": "2026-01-01", "days": secret})),
        ("csv.format", json!({"rows": {secret: secret}})),
        ("date.format", json!({"date": "2026-01-01", "format": format!("%{secret}%")})),
        ("list.take", json!({"items": [], "count": secret})),
        ("text.trim", json!({"text": "", secret: 1})),
        ("text.split", json!({"text": "", "by": secret})),
        ("text.join", json!({"items": [{}], "field": secret})),
    ];
    for (name, arguments) in cases {
        let message = refused(name, &arguments);
        assert!(!message.contains("canary"), "{message}");
    }
}

#[test]
fn sizes_are_bounded_before_they_are_made() {
    let mega = "x".repeat(1 << 20);
    let large = "x".repeat((8 << 20) + 1);
    let lines = "a\n".repeat(20_000);
    let wide_header = format!("{mega}\n{}", "1\n".repeat(9_000));
    let cases = [
        ("text.trim", json!({"text": large}), "the arguments must have at most 8388608 bytes"),
        (
            "text.trim",
            json!({"text": mega.repeat(5)}),
            "the answer must have at most 4194304 bytes",
        ),
        ("text.replace", json!({"text": mega, "from": "x", "to": mega}), "at most 4194304 bytes"),
        (
            "text.join",
            json!({"items": vec![""; 9_000], "separator": mega}),
            "at most 4194304 bytes",
        ),
        ("text.words", json!({"text": lines}), "at most 10000 items"),
        ("text.split", json!({"text": lines, "by": "lines"}), "more than 10000 pieces"),
        ("text.split", json!({"text": mega, "by": "chars", "max_chars": 1}), "more than 10000"),
        ("csv.parse", json!({"text": lines}), "at most 10000 items"),
        ("csv.parse", json!({"text": wide_header}), "at most 64 KiB"),
        ("text.parts", json!({"text": ",".repeat(20_000), "separator": ","}), "10000 items"),
        ("json.parse", json!({"text": "[".repeat(100_000)}), "recursion limit"),
        ("json.parse", json!({"text": format!("[{}1]", "1,".repeat(10_000))}), "10000 items"),
        ("list.take", json!({"items": vec![0; 10_001], "count": 1}), "a list in the arguments"),
        ("math.eval", json!({"expression": "(".repeat(4_000)}), "64 levels"),
        ("math.eval", json!({"expression": "-".repeat(4_000)}), "64 levels"),
        ("math.eval", json!({"expression": "1".repeat(5_000)}), "at most 4096"),
        ("math.eval", json!({"expression": "9".repeat(28) + "*" + &"9".repeat(28)}), "28 digits"),
        ("date.format", json!({"format": "%Y".repeat(200)}), "at most 200"),
    ];
    for (name, arguments, expected) in cases {
        let message = refused(name, &arguments);
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[test]
fn manifests_are_checked_against_the_same_declarations() {
    let manifest = |with: &str| {
        format!("name: m\noutput: \"{{{{ nodes.a.output }}}}\"\nnodes:\n  - {{id: a, {with}}}\n")
    };
    let cases = [
        ("tool: text.splt, with: {text: a}", "`text.split`"),
        ("tool: text.slice, with: {text: a, from: -1}", "from"),
        ("tool: text.split, with: {text: a, by: page}", "by"),
        ("tool: text.split, with: {text: a, max_chars: -1}", "max_chars"),
        ("tool: text.split, with: {txt: a}", "`txt`"),
        ("tool: text.trim, with: {text: 5}", "text"),
        ("tool: list.take, with: {items: a, count: 1}", "items"),
    ];
    for (with, expected) in cases {
        let mistakes =
            graph::parse_manifest(&manifest(with), &builtin_catalog()).expect_err("a mistake");
        let named = |m: &graph::Diagnostic| m.to_string().contains(expected);
        assert!(mistakes.iter().any(named), "{with}: {mistakes:?}");
    }
    let good = "tool: text.split, with: {text: \"{{ inputs.doc }}\", by: lines, max_chars: 5}";
    graph::parse_manifest(&manifest(good), &builtin_catalog()).expect("no mistake");
}
