//! The tools `list.range`, `list.take` and `list.filter_empty`.

use serde_json::{Value, json};

use super::arguments::{
    ArgumentKind, FunctionTool, ToolArguments, ToolCallError, optional_argument, required_argument,
    tool_error,
};
use super::bounds::LIST_ITEMS_LIMIT;

pub(super) const TOOLS: &[FunctionTool] = &[
    FunctionTool {
        name: "list.range",
        description: "The whole numbers from `from` (0 when absent) up to and without `to`.",
        arguments: &[
            optional_argument("from", ArgumentKind::Integer),
            required_argument("to", ArgumentKind::Integer),
        ],
        function: list_range,
    },
    FunctionTool {
        name: "list.take",
        description: "The first `count` items.",
        arguments: &[
            required_argument("items", ArgumentKind::List),
            required_argument("count", ArgumentKind::Count),
        ],
        function: take_items,
    },
    FunctionTool {
        name: "list.filter_empty",
        description: "The items that are not null, blank texts, empty lists or empty maps.",
        arguments: &[required_argument("items", ArgumentKind::List)],
        function: filter_empty_items,
    },
];

fn list_range(args: &ToolArguments<'_>) -> Result<Value, ToolCallError> {
    let from = if args.get("from").is_some() { args.get_integer("from")? } else { 0 };
    let to = args.get_integer("to")?;
    // Saturating: the difference of two extreme numbers overflows.
    let width = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
    if width > LIST_ITEMS_LIMIT as u64 {
        return tool_error(format!("a range must have at most {LIST_ITEMS_LIMIT} numbers"));
    }
    Ok((from..to).map(|number| json!(number)).collect())
}

fn take_items(args: &ToolArguments<'_>) -> Result<Value, ToolCallError> {
    let count = args.get_count_or("count", 0)?;
    Ok(args.get_list("items")?.iter().take(count).cloned().collect())
}

fn filter_empty_items(args: &ToolArguments<'_>) -> Result<Value, ToolCallError> {
    Ok(args.get_list("items")?.iter().filter(|item| !is_empty_value(item)).cloned().collect())
}

/// Returns whether a value counts as empty; numbers and booleans never do.
fn is_empty_value(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
