//! The tools `json.parse` and `json.merge`.

use convergio_domain::json::read_json;
use serde_json::{Map, Value};

use super::arguments::{
    ArgumentKind, FunctionTool, ToolArguments, ToolCallError, required_argument, tool_error,
    value_kind_name,
};

pub(super) const TOOLS: &[FunctionTool] = &[
    FunctionTool {
        name: "json.parse",
        description: "Reads JSON from a text.",
        arguments: &[required_argument("text", ArgumentKind::Text)],
        function: parse_json,
    },
    FunctionTool {
        name: "json.merge",
        description: "One map with the fields of several; of equal names the last one counts.",
        arguments: &[required_argument("values", ArgumentKind::List)],
        function: merge_maps,
    },
];

fn parse_json(args: &ToolArguments<'_>) -> Result<Value, ToolCallError> {
    // The reader's error names a position and what it expected there, never the text itself.
    read_json(args.get_text("text")?.as_bytes())
        .map_err(|error| ToolCallError(format!("`text` cannot be read as JSON: {error}")))
}

fn merge_maps(args: &ToolArguments<'_>) -> Result<Value, ToolCallError> {
    let mut merged = Map::new();
    for (number, value) in args.get_list("values")?.iter().enumerate() {
        let Value::Object(fields) = value else {
            return tool_error(format!(
                "item {number} of `values` must be a map, not {}",
                value_kind_name(value)
            ));
        };
        merged.extend(fields.iter().map(|(name, field)| (name.clone(), field.clone())));
    }
    Ok(Value::Object(merged))
}
