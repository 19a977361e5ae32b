//! The tools `json.parse` and `json.merge`.

use convergio_domain::json::read_json;
use serde_json::{Map, Value};

use super::args::{Args, Kind, ToolError, error, kind_of, required};
use super::builtin::Builtin;

pub(super) const TOOLS: &[Builtin] = &[
    Builtin {
        name: "json.parse",
        description: "Reads JSON from a text.",
        arguments: &[required("text", Kind::Text)],
        call: parse,
    },
    Builtin {
        name: "json.merge",
        description: "One map with the fields of several; of equal names the last one counts.",
        arguments: &[required("values", Kind::List)],
        call: merge,
    },
];

fn parse(args: &Args<'_>) -> Result<Value, ToolError> {
    // The reader's error names a position and what it expected there, never the text itself.
    read_json(args.text("text")?.as_bytes())
        .map_err(|error| ToolError(format!("`text` cannot be read as JSON: {error}")))
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
