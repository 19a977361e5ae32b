//! Laws of all tools: no arguments end the process, and the same ones give the same answer.

use convergio_domain::time::Timestamp;
use convergio_executor::tool::{builtin_catalog, call_pure_tool};
use proptest::prelude::{
    Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use serde_json::{Map, Number, Value};

/// Texts of which some mean something to some tool.
fn text() -> impl Strategy<Value = String> {
    let meant = [
        "# A\nb\n\nc\n===\n",
        "1+2*(3-4)/0.7",
        "79228162514264337593543950335*9",
        "{\"a\":[1]}",
        "a,b\n1,\"2\"",
        "/a/0",
        "2026-02-28T12:00:00Z",
        "-7d",
        "%d.%m.%Y",
        "heading",
        "chars",
        ",",
    ];
    prop_oneof![
        any::<String>(),
        "[0-9+*/(). -]{0,30}",
        prop::sample::select(meant.to_vec()).prop_map(str::to_owned)
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3..9_i64).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| Number::from_f64(number).map_or(Value::Null, Value::Number)),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[abt]|title", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn answers_repeat_and_refusals_are_of_one_kind(
        values in prop::collection::vec(prop::option::weighted(0.9, value()), 4),
        now in any::<i64>(),
    ) {
        for tool in builtin_catalog().iter() {
            let names = tool.arguments["properties"].as_object().expect("properties").keys();
            let fields = names.zip(&values).filter_map(|(name, value)| {
                Some((name.clone(), value.clone()?))
            });
            let arguments = Value::Object(fields.collect());
            let answer = call_pure_tool(&tool.name, &arguments, Timestamp(now));
            prop_assert_eq!(&answer, &call_pure_tool(&tool.name, &arguments, Timestamp(now)));
            if let Err(failure) = answer {
                prop_assert_eq!(failure.code, "tool.invalid");
                prop_assert!(!failure.retryable);
            }
        }
    }

    #[test]
    fn no_value_at_all_ends_the_process(arguments in value()) {
        for tool in builtin_catalog().iter() {
            let _answered = call_pure_tool(&tool.name, &arguments, Timestamp(0));
        }
    }

    #[test]
    fn sums_are_exact(cents in prop::collection::vec(-1_000_000..1_000_000_i64, 0..50)) {
        let items: Vec<Value> = cents.iter().map(|cents| {
            let sign = if *cents < 0 { "-" } else { "" };
            Value::from(format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100))
        }).collect();
        let arguments = serde_json::json!({"items": items});
        let sum = call_pure_tool("math.sum", &arguments, Timestamp(0)).expect("numbers");
        let expected = rust_decimal::Decimal::new(cents.iter().sum(), 2).normalize().to_string();
        prop_assert_eq!(sum, Value::from(expected));
    }
}
