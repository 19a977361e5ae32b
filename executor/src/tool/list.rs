//! The tools `list.range`, `list.take` and `list.filter_empty`.

use serde_json::{Value, json};

use super::args::{Args, Kind, ToolError, error, optional, required};
use super::bounds::LIST_LIMIT;
use super::builtin::Builtin;

pub(super) const TOOLS: &[Builtin] = &[
    Builtin {
        name: "list.range",
        description: "The whole numbers from `from` (0 when absent) up to and without `to`.",
        arguments: &[optional("from", Kind::Whole), required("to", Kind::Whole)],
        call: range,
    },
    Builtin {
        name: "list.take",
        description: "The first `count` items.",
        arguments: &[required("items", Kind::List), required("count", Kind::Count)],
        call: take,
    },
    Builtin {
        name: "list.filter_empty",
        description: "The items that are not null, blank texts, empty lists or empty maps.",
        arguments: &[required("items", Kind::List)],
        call: filter_empty,
    },
];

fn range(args: &Args<'_>) -> Result<Value, ToolError> {
    let from = if args.get("from").is_some() { args.whole("from")? } else { 0 };
    let to = args.whole("to")?;
    // Saturating: the difference of two extreme numbers overflows.
    let width = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
    if width > LIST_LIMIT as u64 {
        return error(format!("a range must have at most {LIST_LIMIT} numbers"));
    }
    Ok((from..to).map(|number| json!(number)).collect())
}

fn take(args: &Args<'_>) -> Result<Value, ToolError> {
    let count = args.count_or("count", 0)?;
    Ok(args.list("items")?.iter().take(count).cloned().collect())
}

fn filter_empty(args: &Args<'_>) -> Result<Value, ToolError> {
    Ok(args.list("items")?.iter().filter(|item| !is_empty(item)).cloned().collect())
}

/// Returns whether a value counts as empty; numbers and booleans never do.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
