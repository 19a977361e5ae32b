//! Tools on lists.

use serde_json::{Value, json};

use super::Builtin;
use super::args::{Args, ToolError, error};

pub(super) const TOOLS: &[Builtin] = &[
    Builtin {
        name: "list.range",
        description: "The whole numbers from `from` up to and without `to`.",
        arguments: &[("from?", "any"), ("to", "any")],
        call: range,
    },
    Builtin {
        name: "list.take",
        description: "The first `count` items.",
        arguments: &[("items", "any"), ("count", "any")],
        call: |args| {
            let count = args.index_or("count", 0)?;
            Ok(args.list("items")?.iter().take(count).cloned().collect())
        },
    },
    Builtin {
        name: "list.filter_empty",
        description: "The items that are not empty.",
        arguments: &[("items", "any")],
        call: |args| {
            Ok(args.list("items")?.iter().filter(|item| !is_empty(item)).cloned().collect())
        },
    },
];

fn range(args: &Args<'_>) -> Result<Value, ToolError> {
    let from = if args.get("from").is_some() { args.int("from")? } else { 0 };
    let to = args.int("to")?;
    if to.saturating_sub(from) > 10_000 {
        return error("a range has at most 10000 numbers");
    }
    Ok((from..to).map(|number| json!(number)).collect())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
