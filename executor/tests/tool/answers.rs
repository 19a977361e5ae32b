//! What each tool answers.

use convergio_domain::time::Timestamp;
use convergio_executor::tool::{builtin_catalog, call_pure_tool};
use serde_json::{Value, json};

fn check(cases: &[(&str, Value, Value)]) {
    for (name, arguments, expected) in cases {
        let answer = call_pure_tool(name, arguments, Timestamp(5));
        assert_eq!(answer.as_ref(), Ok(expected), "{name} {arguments}");
    }
}

#[test]
fn text() {
    check(&[
        ("text.trim", json!({"text": " a\n"}), json!("a")),
        ("text.length", json!({"text": "grüße"}), json!(5)),
        ("text.upper", json!({"text": "grüße"}), json!("GRüßE")),
        ("text.parts", json!({"text": "a,,b", "separator": ","}), json!(["a", "", "b"])),
        ("text.replace", json!({"text": "a-b-", "from": "-", "to": "+"}), json!("a+b+")),
        ("text.replace", json!({"text": "aaa", "from": "aa", "to": ""}), json!("a")),
        ("text.slice", json!({"text": "grüße", "from": 2, "to": 4}), json!("üß")),
        ("text.slice", json!({"text": "grüße", "from": 3}), json!("ße")),
        ("text.slice", json!({"text": "grüße", "from": 4, "to": 2}), json!("")),
        ("text.slice", json!({"text": "grüße", "to": "2"}), json!("gr")),
        ("text.count", json!({"text": "ä b\nc"}), json!({"chars": 5, "words": 3, "lines": 2})),
        ("text.count", json!({"text": ""}), json!({"chars": 0, "words": 0, "lines": 0})),
        ("text.words", json!({"text": " a b\tc\n"}), json!(["a", "b", "c"])),
        ("text.join", json!({"items": ["a", "b"]}), json!("a\nb")),
        (
            "text.join",
            json!({"items": [1, true, null, [2]], "separator": " "}),
            json!("1 true  [2]"),
        ),
        (
            "text.join",
            json!({"items": ["a", {"t": "b"}], "field": "t", "separator": "-"}),
            json!("a-b"),
        ),
        ("text.join", json!({"items": [], "separator": null}), json!("")),
    ]);
}

#[test]
fn json_values() {
    check(&[
        ("json.parse", json!({"text": " {\"a\": [1, null]} "}), json!({"a": [1, null]})),
        ("json.parse", json!({"text": "[18446744073709551615]"}), json!([u64::MAX])),
        ("json.get", json!({"value": [u64::MAX], "pointer": "/0"}), json!(u64::MAX)),
        ("json.get", json!({"value": {"a": [7]}, "pointer": "/a/0"}), json!(7)),
        ("json.get", json!({"value": {"a": [7]}, "pointer": ""}), json!({"a": [7]})),
        ("json.get", json!({"value": {"a/b": {"~": 1}}, "pointer": "/a~1b/~0"}), json!(1)),
        ("json.get", json!({"value": null, "pointer": "/x", "default": 3}), json!(3)),
        ("json.get", json!({"value": 1, "pointer": "/x", "default": [null]}), json!([null])),
        ("json.keys", json!({"value": {"b": 1, "a": 2}}), json!(["a", "b"])),
        (
            "json.merge",
            json!({"values": [{"a": 1, "b": {"c": 1}}, {"b": {"d": 2}}]}),
            json!({"a": 1, "b": {"d": 2}}),
        ),
        ("json.merge", json!({"values": []}), json!({})),
    ]);
}

#[test]
fn arithmetic() {
    let cases = [
        ("0.1 + 0.2 * (3 - 1)", "0.5"),
        ("0.1+0.2", "0.3"),
        ("-(2 - 5) * -2", "-6"),
        ("+1 - -1", "2"),
        ("2 - 3 - 4", "-5"),
        ("8 / 2 / 2", "2"),
        ("1 / 3", "0.3333333333333333333333333333"),
        ("1.50", "1.5"),
        ("007", "7"),
        ("9999999999999999999999999999 + 0", "9999999999999999999999999999"),
        ("\t( ( 1 ) )\n", "1"),
    ];
    for (expression, expected) in cases {
        check(&[("math.eval", json!({"expression": expression}), json!(expected))]);
    }
    check(&[
        ("math.sum", json!({"items": ["0.1", 2, " 0.2 ", -1]}), json!("1.3")),
        ("math.sum", json!({"items": [0.1, 0.2, 1e-7, 1e3]}), json!("1000.3000001")),
        ("math.sum", json!({"items": []}), json!("0")),
        ("math.add", json!({"a": 0.1, "b": "0.2"}), json!("0.3")),
        ("math.divide", json!({"a": 1, "b": 3, "places": "4"}), json!("0.3333")),
    ]);
}

#[test]
fn lists() {
    check(&[
        ("list.range", json!({"from": 1, "to": 3}), json!([1, 2])),
        ("list.range", json!({"to": "2"}), json!([0, 1])),
        ("list.range", json!({"from": 3, "to": 1}), json!([])),
        ("list.range", json!({"from": -2, "to": 0}), json!([-2, -1])),
        ("list.take", json!({"items": [1, 2, 3], "count": 2}), json!([1, 2])),
        ("list.take", json!({"items": [1], "count": 9}), json!([1])),
        (
            "list.filter_empty",
            json!({"items": ["", " \n", "a", null, [], {}, 0, false, [null]]}),
            json!(["a", 0, false, [null]]),
        ),
    ]);
}

#[test]
fn comma_separated_values() {
    let parsed = json!([{"a": "1", "b": "x, \"y\"\nz"}, {"a": "", "b": "é"}]);
    check(&[
        ("csv.parse", json!({"text": "a,b\r\n1,\"x, \"\"y\"\"\nz\"\r\n\r\n,é"}), parsed),
        ("csv.parse", json!({"text": "a;b\n1;2", "separator": ";"}), json!([{"a": "1", "b": "2"}])),
        ("csv.parse", json!({"text": "a,b\n", "header": false}), json!([["a", "b"]])),
        ("csv.parse", json!({"text": "a,b\n"}), json!([])),
        ("csv.parse", json!({"text": ""}), json!([])),
        ("csv.format", json!({"rows": [["a", "b,c"], [1, null]]}), json!("a,\"b,c\"\r\n1,\r\n")),
    ]);
}

#[test]
fn dates() {
    let later = json!({"date": "2024-02-28T23:59:59+02:00", "days": 1, "seconds": "-1"});
    check(&[
        ("date.add", json!({"date": "2026-01-31", "months": 1}), json!("2026-02-28T00:00:00Z")),
        ("date.add", later, json!("2024-02-29T21:59:58Z")),
        ("date.difference", json!({"from": "2026-01-01", "to": "2026-01-02"}), json!(86_400)),
        ("date.weekday", json!({"date": "2026-11-21"}), json!(6)),
    ]);
    let date = "2026-11-21T06:05:04Z";
    check(&[
        ("date.now", json!({}), json!("1970-01-01T00:00:00.005Z")),
        ("date.format", json!({"format": "%Y"}), json!("1970")),
        (
            "date.format",
            json!({"date": date, "format": "%d.%m.%Y %H:%M"}),
            json!("21.11.2026 06:05"),
        ),
        (
            "date.format",
            json!({"date": date, "format": "%A, %B %e"}),
            json!("Saturday, November 21"),
        ),
        ("date.format", json!({"date": "2026-03-01", "format": "100%%"}), json!("100%")),
    ]);
}

#[test]
fn digests() {
    // FIPS 180-4, and of the empty text.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    check(&[
        ("hash.sha256", json!({"text": "abc"}), json!(abc)),
        ("hash.sha256", json!({"text": ""}), json!(empty)),
    ]);
}

#[test]
fn every_tool_is_described_and_closed() {
    let catalog = builtin_catalog();
    let names: Vec<&str> = catalog.iter().map(|tool| tool.name.as_str()).collect();
    let expected = [
        "csv.format",
        "csv.parse",
        "date.add",
        "date.difference",
        "date.format",
        "date.now",
        "date.weekday",
        "hash.sha256",
        "json.get",
        "json.keys",
        "json.merge",
        "json.parse",
        "list.filter_empty",
        "list.range",
        "list.take",
        "math.add",
        "math.compare",
        "math.divide",
        "math.eval",
        "math.multiply",
        "math.round",
        "math.subtract",
        "math.sum",
        "memory.forget",
        "memory.recall",
        "memory.store",
        "text.contains",
        "text.count",
        "text.join",
        "text.length",
        "text.lower",
        "text.parts",
        "text.replace",
        "text.slice",
        "text.split",
        "text.trim",
        "text.upper",
        "text.words",
    ];
    assert_eq!(names, expected);
    for tool in catalog.iter() {
        assert!(tool.description.ends_with('.'), "{}", tool.name);
        assert_eq!(tool.arguments["additionalProperties"], json!(false), "{}", tool.name);
    }
}
