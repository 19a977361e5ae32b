//! Built-in pure tools: the same arguments give the same answer, and nothing outside is touched.

mod args;
mod data;
mod list;
mod math;
mod split;
mod text;
mod when;

use std::sync::LazyLock;

use convergio_domain::event::run::Failure;
use convergio_domain::graph::{ToolCatalog, ToolSpec};
use convergio_domain::time::Timestamp;
use serde_json::{Value, json};

use args::{Args, ToolError};

/// A built-in tool.
struct Builtin {
    name: &'static str,
    description: &'static str,
    /// `name` of a required argument or `name?` of an optional one, and its JSON type.
    arguments: &'static [(&'static str, &'static str)],
    call: fn(&Args<'_>) -> Result<Value, ToolError>,
}

/// Every tool, by family.
fn builtins() -> impl Iterator<Item = &'static Builtin> {
    [text::TOOLS, split::TOOLS, list::TOOLS, data::TOOLS, math::TOOLS, when::TOOLS]
        .into_iter()
        .flatten()
}

static CATALOG: LazyLock<ToolCatalog> = LazyLock::new(|| {
    ToolCatalog::new(
        builtins().map(|tool| spec(tool.name, tool.description, tool.arguments)).collect(),
    )
});

/// The tools as manifests are checked against them.
pub fn catalog() -> ToolCatalog {
    CATALOG.clone()
}

fn spec(name: &str, description: &str, arguments: &[(&str, &str)]) -> ToolSpec {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for (argument, kind) in arguments {
        let name = argument.trim_end_matches('?');
        let schema = if *kind == "any" { json!({}) } else { json!({"type": kind}) };
        properties.insert(name.to_owned(), schema);
        if !argument.ends_with('?') {
            required.push(name);
        }
    }
    let arguments = json!({"type": "object", "properties": properties, "required": required,
        "additionalProperties": false});
    ToolSpec { name: name.into(), description: description.into(), arguments }
}

/// Calls a tool. `now` is the start of the step, the only clock a tool may read.
///
/// # Errors
/// The arguments are not what the tool takes; the message says what would be right.
pub fn call(name: &str, arguments: &Value, now: Timestamp) -> Result<Value, Failure> {
    let Some(tool) = builtins().find(|tool| tool.name == name) else {
        return Err(invalid(name, "there is no such tool"));
    };
    let args = Args::new(arguments, now).map_err(|error| invalid(name, &error.0))?;
    (tool.call)(&args).map_err(|error| invalid(name, &error.0))
}

fn invalid(tool: &str, message: &str) -> Failure {
    Failure { code: "tool.invalid".into(), message: format!("{tool}: {message}"), retryable: false }
}

#[cfg(test)]
mod tests {
    use convergio_domain::time::Timestamp;
    use proptest::prelude::{Strategy, prop, prop_assert_eq, prop_oneof, proptest};
    use serde_json::{Value, json};

    use super::{builtins, call};

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            proptest::prelude::any::<i64>().prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
            prop::sample::select(vec![
                "# A\nb\n\nc",
                "1+2*(3-4)/0",
                "{\"a\":[1]}",
                "a,b\n1,2",
                "/a/0"
            ])
            .prop_map(Value::from),
            prop::bool::ANY.prop_map(Value::from),
            proptest::prelude::Just(Value::Null),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop::collection::vec(inner, 0..3).prop_map(Value::from)
        })
    }

    proptest! {
        #[test]
        fn no_arguments_end_the_process(values in prop::collection::vec(value(), 4)) {
            for tool in builtins() {
                let named = tool.arguments.iter().zip(values.iter().cycle());
                let fields = named.map(|((name, _), value)| {
                    (name.trim_end_matches('?').to_owned(), value.clone())
                });
                let arguments = Value::Object(fields.collect());
                let answer = call(tool.name, &arguments, Timestamp(5));
                prop_assert_eq!(answer, call(tool.name, &arguments, Timestamp(5)));
            }
        }
    }

    #[test]
    fn tools_do_what_they_say() {
        let cases = [
            ("text.trim", json!({"text": " a "}), json!("a")),
            ("text.replace", json!({"text": "a-b", "from": "-", "to": "+"}), json!("a+b")),
            ("text.slice", json!({"text": "grüße", "from": 2, "to": 4}), json!("üß")),
            ("text.count", json!({"text": "a b\nc"}), json!({"chars": 5, "words": 3, "lines": 2})),
            (
                "text.join",
                json!({"items": ["a", {"t": "b"}], "field": "t", "separator": "-"}),
                json!("a-b"),
            ),
            ("json.parse", json!({"text": "{\"a\":1}"}), json!({"a": 1})),
            ("json.get", json!({"value": {"a": [7]}, "pointer": "/a/0"}), json!(7)),
            ("json.merge", json!({"values": [{"a": 1}, {"b": 2}]}), json!({"a": 1, "b": 2})),
            ("math.eval", json!({"expression": "0.1 + 0.2 * (3 - 1)"}), json!("0.5")),
            ("math.sum", json!({"items": ["0.1", 2, "0.2"]}), json!("2.3")),
            ("list.range", json!({"from": 1, "to": 3}), json!([1, 2])),
            ("list.take", json!({"items": [1, 2, 3], "count": 2}), json!([1, 2])),
            ("list.filter_empty", json!({"items": ["", "a", null, []]}), json!(["a"])),
            ("csv.parse", json!({"text": "a,b\n1,\"x, y\"\n"}), json!([{"a": "1", "b": "x, y"}])),
            ("date.now", json!({}), json!("1970-01-01T00:00:00.005Z")),
            (
                "date.add",
                json!({"date": "2026-02-28T12:00:00Z", "span": "1d"}),
                json!("2026-03-01T12:00:00Z"),
            ),
            (
                "hash.sha256",
                json!({"text": ""}),
                json!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ),
        ];
        for (name, arguments, expected) in cases {
            assert_eq!(call(name, &arguments, Timestamp(5)), Ok(expected), "{name}");
        }
    }
}
