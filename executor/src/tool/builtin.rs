//! The registry: every built-in tool by its name, what it takes, and how it is called.

use std::sync::LazyLock;

use convergio_domain::event::run::Failure;
use convergio_domain::graph::{ToolCatalog, ToolSpec};
use convergio_domain::time::Timestamp;
use serde_json::{Map, Value, json};

use super::args::{Args, Argument, ToolError};
use super::bounds::{self, INPUT_LIMIT, OUTPUT_LIMIT};
use super::{csv, date, hash, json, list, math, split, text};

/// A built-in tool.
pub(super) struct Builtin {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) arguments: &'static [Argument],
    pub(super) call: fn(&Args<'_>) -> Result<Value, ToolError>,
}

/// Every tool, by family.
static FAMILIES: [&[Builtin]; 8] = [
    text::TOOLS,
    split::TOOLS,
    list::TOOLS,
    json::TOOLS,
    csv::TOOLS,
    math::TOOLS,
    date::TOOLS,
    hash::TOOLS,
];

static CATALOG: LazyLock<ToolCatalog> =
    LazyLock::new(|| ToolCatalog::new(FAMILIES.into_iter().flatten().map(spec).collect()));

/// The tools as manifests are checked against them.
pub fn catalog() -> ToolCatalog {
    CATALOG.clone()
}

/// Calls a tool. `now` is the start of the step, the only clock a tool may read. Arguments are at
/// most 8 MiB, answers 4 MiB, and lists have at most 10,000 items.
///
/// # Errors
/// `tool.invalid`: the arguments are not what the tool takes. The message says what would be
/// right, and never repeats what a person or a model wrote.
pub fn call(name: &str, arguments: &Value, now: Timestamp) -> Result<Value, Failure> {
    let mut tools = FAMILIES.into_iter().flatten();
    let Some(tool) = tools.find(|tool| tool.name == name) else {
        return Err(invalid(name, "there is no such tool"));
    };
    let called = bounds::check("the arguments", arguments, INPUT_LIMIT)
        .and_then(|()| Args::new(arguments, tool.arguments, now))
        .and_then(|args| (tool.call)(&args))
        .and_then(|answer| bounds::check("the answer", &answer, OUTPUT_LIMIT).map(|()| answer));
    called.map_err(|ToolError(message)| invalid(name, &message))
}

fn invalid(tool: &str, message: &str) -> Failure {
    Failure { code: "tool.invalid".into(), message: format!("{tool}: {message}"), retryable: false }
}

/// What manifests are checked against: JSON Schema of the arguments.
fn spec(tool: &Builtin) -> ToolSpec {
    let properties: Map<String, Value> = tool
        .arguments
        .iter()
        .map(|argument| (argument.name.to_owned(), argument.kind.schema()))
        .collect();
    let required = tool.arguments.iter().filter(|argument| argument.is_required);
    let required: Vec<&str> = required.map(|argument| argument.name).collect();
    ToolSpec {
        name: tool.name.to_owned(),
        description: tool.description.to_owned(),
        arguments: json!({"type": "object", "properties": properties, "required": required,
            "additionalProperties": false}),
    }
}
