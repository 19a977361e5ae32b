//! Tools on JSON and CSV.

use serde_json::{Map, Value};

use super::Builtin;
use super::args::{Args, ToolError, error};

pub(super) const TOOLS: &[Builtin] = &[
    Builtin {
        name: "json.parse",
        description: "Reads JSON from text.",
        arguments: &[("text", "string")],
        call: |args| {
            serde_json::from_str(args.text("text")?)
                .map_err(|error| ToolError(format!("`text` is not JSON: {error}")))
        },
    },
    Builtin {
        name: "json.get",
        description: "The value at a JSON pointer (RFC 6901), as /items/0/name.",
        arguments: &[("value", "any"), ("pointer", "string")],
        call: get,
    },
    Builtin {
        name: "json.merge",
        description: "One object with the fields of several; later ones win.",
        arguments: &[("values", "any")],
        call: merge,
    },
    Builtin {
        name: "csv.parse",
        description: "The rows of a CSV text (RFC 4180) with a header, as objects.",
        arguments: &[("text", "string")],
        call: csv,
    },
];

fn get(args: &Args<'_>) -> Result<Value, ToolError> {
    let pointer = args.text("pointer")?;
    match args.any("value")?.pointer(pointer) {
        Some(value) => Ok(value.clone()),
        None => error(format!("there is nothing at `{pointer}`")),
    }
}

fn merge(args: &Args<'_>) -> Result<Value, ToolError> {
    let mut merged = Map::new();
    for value in args.list("values")? {
        match value {
            Value::Object(fields) => merged.extend(fields.clone()),
            _ => return error("`values` must be a list of objects"),
        }
    }
    Ok(Value::Object(merged))
}

fn csv(args: &Args<'_>) -> Result<Value, ToolError> {
    let mut rows = rows(args.text("text")?)?.into_iter();
    let Some(header) = rows.next() else { return Ok(Value::Array(Vec::new())) };
    let mut objects = Vec::new();
    for (number, row) in rows.enumerate() {
        if row.len() != header.len() {
            let (row, line, wanted) = (row.len(), number + 2, header.len());
            return error(format!("row {line} has {row} fields, the header has {wanted}"));
        }
        if objects.len() == 10_000 {
            return error("a CSV text has at most 10000 rows");
        }
        let fields = header.iter().cloned().zip(row.into_iter().map(Value::String));
        objects.push(Value::Object(fields.collect()));
    }
    Ok(Value::Array(objects))
}

fn rows(text: &str) -> Result<Vec<Vec<String>>, ToolError> {
    let mut rows = Vec::new();
    let (mut row, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                field.push('"');
                letters.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field).trim_end_matches('\r').to_owned());
                rows.push(std::mem::take(&mut row));
            }
            other => field.push(other),
        }
    }
    if quoted {
        return error("a quote is not closed");
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    Ok(rows)
}
