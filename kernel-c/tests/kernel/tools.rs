//! Schemas, permissions and built-in tools through the wrapper, and against other implementations.

use convergio_kernel_c::{
    CompiledSchema, Effects, KernelError, KernelToolError, Permission, PermitVerdict, SchemaError,
    ViolationKind, call_tool, kernel_tools, permit_call,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn call(name: &str, arguments: &Value) -> Result<Value, KernelToolError> {
    let answer = call_tool(name, &arguments.to_string(), 0)?;
    Ok(serde_json::from_str(&answer).expect("answers are JSON"))
}

#[test]
fn a_mistake_is_told_with_its_place() {
    let schema = r#"{"properties": {"to": {"type": "array", "items": {"minLength": 3}}}}"#;
    let schema = CompiledSchema::compile_schema(schema).expect("of the subset");
    assert_eq!(schema.check_value(r#"{"to": ["abc"]}"#), Ok(()));
    let error = schema.check_value(r#"{"to": ["abc", "ä"]}"#).expect_err("too short");
    assert_eq!(error.to_string(), "/to/1: outside its limits");
    let error = schema.check_value("{").expect_err("not JSON");
    assert_eq!(error.to_string(), "not JSON at byte 1");
    let error = CompiledSchema::compile_schema(r#"{"items": {"pattern": "a"}}"#)
        .expect_err("not of the subset");
    let SchemaError::Violation(violation) = error else { panic!("a violation") };
    assert_eq!((violation.kind, &*violation.path), (ViolationKind::Keyword, "/items/pattern"));
}

#[test]
fn the_strictest_rule_decides() {
    let network = Effects { network: true, ..Effects::default() };
    let rules = [
        Permission { tools: "web.*", effects: network, verdict: PermitVerdict::Allow },
        Permission { tools: "web.post", effects: network, verdict: PermitVerdict::Ask },
    ];
    assert_eq!(permit_call(&rules, "web.get", network), Ok((PermitVerdict::Allow, Some(0))));
    assert_eq!(permit_call(&rules, "web.post", network), Ok((PermitVerdict::Ask, Some(1))));
    assert_eq!(permit_call(&rules, "mail", network), Ok((PermitVerdict::Deny, None)));
}

#[test]
fn tools_answer_or_say_why_not() {
    let names: Vec<&str> = kernel_tools().iter().map(|tool| tool.name).collect();
    assert!(names.contains(&"json.get"));
    let now = call_tool("date.now", "{}", 1_000);
    assert_eq!(now.as_deref(), Ok(r#""1970-01-01T00:00:01Z""#));
    let zero = call("math.divide", &json!({"a": 1, "b": 0, "places": 2}));
    assert_eq!(zero, Err(KernelToolError::Failed("nothing can be divided by zero")));
    assert_eq!(call("math.power", &json!({})), Err(KernelToolError::Unknown));
    let missing = call("math.add", &json!({"a": 1})).expect_err("b is missing");
    assert_eq!(missing.to_string(), "the whole: a required property is missing");
    let large = "a".repeat(17 << 20);
    let large = call("text.length", &json!({ "text": large }));
    assert_eq!(large, Err(KernelToolError::Kernel(KernelError::TooLarge)));
}

fn json_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        (-1e6..1e6f64).prop_map(Value::from),
        (-3..3i64).prop_map(Value::from),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        "[a-c~/\"\\\\é]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Schemas of the subset over the values above.
fn schema() -> impl Strategy<Value = Value> {
    let types = prop::sample::select(vec![
        "null", "boolean", "number", "integer", "string", "array", "object",
    ]);
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        types.prop_map(|name| json!({ "type": name })),
        (0..3u32, 0..4u32).prop_map(|(least, most)| json!({"minLength": least, "maxLength": most})),
        (0..3u32, 0..4u32).prop_map(|(least, most)| json!({"minItems": least, "maxItems": most})),
        (-3.0..3.0f64).prop_map(|limit| json!({"minimum": limit, "exclusiveMaximum": 1000})),
        prop::collection::vec(json_value(), 1..4).prop_map(|values| json!({ "enum": values })),
        json_value().prop_map(|value| json!({ "const": value })),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|items| json!({ "items": items })),
            (
                prop::collection::btree_map("[a-c]{1,2}", inner.clone(), 0..3),
                inner,
                prop::collection::btree_set("[a-c]{1,2}", 0..2),
            )
                .prop_map(|(properties, rest, required)| {
                    json!({"properties": properties, "additionalProperties": rest,
                           "required": required, "minProperties": 1})
                }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// The same verdict as a full validator.
    #[test]
    fn schemas_judge_as_they_should(schema in schema(), value in json_value()) {
        let wanted = jsonschema::is_valid(&schema, &value);
        let compiled = CompiledSchema::compile_schema(&schema.to_string()).expect("of the subset");
        prop_assert_eq!(compiled.check_value(&value.to_string()).is_ok(), wanted);
    }

    /// What one reader takes the other takes too, but for duplicate keys and great depth.
    #[test]
    fn json_is_json(text in r#"[\[\]{}:,"a\\u0-9eE+.nulltrfas \-]{0,12}"#) {
        let anything = CompiledSchema::compile_schema("true").expect("of the subset");
        let taken = anything.check_value(&text).is_ok();
        match serde_json::from_str::<Value>(&text) {
            Ok(_) if !taken => prop_assert!(text.matches(':').count() > 1),
            // The other reader refuses numbers that no float can hold.
            Err(error) if taken => prop_assert!(error.to_string().contains("out of range")),
            _ => {}
        }
    }

    #[test]
    fn pointers_lead_where_they_should(value in json_value(), pointer in "(/[a-c0-2~]{0,3}){0,3}") {
        let found = call("json.get", &json!({"value": value, "pointer": pointer}));
        let bad_escape =
            matches!(&found, Err(KernelToolError::Failed(why)) if why.contains("written"));
        prop_assert!(bad_escape || found.ok().as_ref() == value.pointer(&pointer));
    }

    /// Against 128-bit integers: the product and the sum of decimals.
    #[test]
    fn decimals_are_exact(a in any::<i64>(), b in any::<i64>(), scale in 0..20u32) {
        let (wide_a, wide_b) = (i128::from(a), i128::from(b));
        let scaled = |value: i64| format!("{value}e-{scale}");
        let arguments = json!({"a": scaled(a), "b": scaled(b)});
        let number = |name| call(name, &arguments).map(|sum| sum.as_str().map(str::to_owned));
        let wanted = |value: i128, scale: u32| {
            let digits = format!("{:0>1$}", value.unsigned_abs(), scale as usize + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
            let fraction = fraction.trim_end_matches('0');
            let point = if fraction.is_empty() { "" } else { "." };
            let sign = if value < 0 { "-" } else { "" };
            Ok(Some(format!("{sign}{whole}{point}{fraction}")))
        };
        prop_assert_eq!(number("math.add"), wanted(wide_a + wide_b, scale));
        prop_assert_eq!(number("math.subtract"), wanted(wide_a - wide_b, scale));
        prop_assert_eq!(number("math.multiply"), wanted(wide_a * wide_b, 2 * scale));
    }

    /// What was formatted is parsed back.
    #[test]
    fn tables_come_back(
        rows in prop::collection::vec(prop::collection::vec("[a\",\n\r ;é]{0,4}", 1..4), 0..4),
    ) {
        let text = call("csv.format", &json!({ "rows": rows })).expect("strings");
        let parsed = call("csv.parse", &json!({"text": text, "header": false}));
        prop_assert_eq!(parsed, Ok(json!(rows)));
    }

    #[test]
    fn dates_come_back(days in 0..3_000_000i64, seconds in 0..86_400i64) {
        let moved = json!({"date": "0001-01-01", "days": days, "seconds": seconds});
        let date = call("date.add", &moved).expect("within the years");
        let span = call("date.difference", &json!({"from": "0001-01-01T00:00:00Z", "to": date}));
        prop_assert_eq!(span, Ok(json!(days * 86_400 + seconds)));
    }
}
