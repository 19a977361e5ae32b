//! Tools on JSON.

use serde_json::{Map, Value};

use super::args::{Args, Kind, ToolError, error, kind_of, optional, required};
use super::builtin::Builtin;

pub(super) const TOOLS: &[Builtin] = &[
    Builtin {
        name: "json.parse",
        description: "Reads JSON from a text.",
        arguments: &[required("text", Kind::Text)],
        call: parse,
    },
    Builtin {
        name: "json.get",
        description: "The value at a JSON pointer (RFC 6901), as /items/0/name; `default` where \
            there is none.",
        arguments: &[
            required("value", Kind::Any),
            required("pointer", Kind::Text),
            optional("default", Kind::Any),
        ],
        call: get,
    },
    Builtin {
        name: "json.merge",
        description: "One map with the fields of several; of equal names the last one counts.",
        arguments: &[required("values", Kind::List)],
        call: merge,
    },
];

fn parse(args: &Args<'_>) -> Result<Value, ToolError> {
    // The reader names a place and what it expected there, never what stands there.
    serde_json::from_str(args.text("text")?)
        .map_err(|error| ToolError(format!("`text` is not JSON: {error}")))
}

fn get(args: &Args<'_>) -> Result<Value, ToolError> {
    let (value, pointer) = (args.any("value")?, args.text("pointer")?);
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return error("`pointer` must be empty or begin with `/`");
    }
    match value.pointer(pointer).or(args.get("default")) {
        Some(value) => Ok(value.clone()),
        None => error(format!("nothing stands at `pointer`: `value` is {}", kind_of(value))),
    }
}

fn merge(args: &Args<'_>) -> Result<Value, ToolError> {
    let mut merged = Map::new();
    for (number, value) in args.list("values")?.iter().enumerate() {
        let Value::Object(fields) = value else {
            return error(format!(
                "item {number} of `values` must be a map, not {}",
                kind_of(value)
            ));
        };
        merged.extend(fields.iter().map(|(name, field)| (name.clone(), field.clone())));
    }
    Ok(Value::Object(merged))
}
