//! Decodes tool invocations and checks their arguments against the schema that the tool declares.

use serde_json::{Map as Object, Value};

use super::decode::{Decoder, Mentions};
use super::manifest::Tool;
use super::source::{Kind, Tree};
use super::tools::ToolSpec;

/// Decodes `tool: NAME` with `with` beside it, or `tool: {name, with}`. `beside` is the `with`
/// field of the node and its path.
pub(super) fn tool(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    beside: Option<(&Tree, String)>,
    path: &str,
    mentions: &mut Mentions,
) -> Option<Tool> {
    let (name, with) = match &tree.kind {
        Kind::Map(_) => {
            let mut fields = decoder.fields(tree, path)?;
            let name = fields.take("name").and_then(|t| decoder.text(t, &fields.at("name")));
            let inner = fields.take("with").map(|with| (with, fields.at("with")));
            if let (Some(_), Some((other, path))) = (&inner, &beside) {
                decoder.add(other, path, "the tool has its arguments already, as `tool.with`");
            }
            decoder.finish(&fields);
            (name, inner.or(beside))
        }
        _ => (decoder.text(tree, path), beside),
    };
    let Some(name) = name else {
        decoder.add(tree, path, "missing: the tool's name, as `tool: text.split`");
        return None;
    };
    if let Some((with, path)) = &with {
        decoder.templates(with, path, mentions);
    }
    let arguments = with.as_ref().map_or_else(|| Value::Object(Object::new()), |w| w.0.value());
    let tools = decoder.tools;
    match tools.get(&name) {
        Some(spec) => check_arguments(decoder, spec, with, (tree, path)),
        None => {
            let hint = decoder.mistakes.hint(&name, tools.names());
            decoder.add(tree, path, format!("there is no tool `{name}`{hint}"));
        }
    }
    Some(Tool { name, with: arguments })
}

/// Reports arguments that are missing, unknown or of another type.
fn check_arguments(
    decoder: &mut Decoder<'_>,
    spec: &ToolSpec,
    with: Option<(&Tree, String)>,
    (tree, path): (&Tree, &str),
) {
    let (name, no_fields) = (&spec.name, Vec::new());
    let (given, tree, path) = match &with {
        None => (&no_fields, tree, path),
        Some((with, path)) => match &with.kind {
            Kind::Map(fields) => (fields, *with, path.as_str()),
            _ => return decoder.add(with, path, "must be a map of arguments"),
        },
    };
    // Tool schemas are one flat object: arguments are checked one by one, for a path and a hint
    // each.
    let properties = spec.arguments["properties"].as_object().cloned().unwrap_or_default();
    // An argument with a template in it is checked for its name alone: its value is not known yet.
    for (key, argument) in given {
        let path = format!("{path}.{key}");
        match properties.get(key) {
            Some(schema) => check_literal(decoder, schema, argument, &path),
            None => {
                let names = properties.keys().map(String::as_str);
                let hint = decoder.mistakes.hint(key, names);
                decoder.add(argument, &path, format!("`{name}` has no argument `{key}`{hint}"));
            }
        }
    }
    let required = spec.arguments["required"].as_array().into_iter().flatten();
    for key in required.filter_map(Value::as_str) {
        if !given.iter().any(|(known, _)| known == key) {
            decoder.add(tree, path, format!("`{name}` needs the argument `{key}`"));
        }
    }
}

/// Checks an argument's value if no template is in it: only then is it known before the run.
fn check_literal(decoder: &mut Decoder<'_>, schema: &Value, argument: &Tree, path: &str) {
    let value = argument.value();
    if has_template(&value) {
        return;
    }
    for message in super::inputs::check_inputs(schema, &value) {
        decoder.add(argument, path, message.replacen("inputs", "", 1).trim_start_matches(": "));
    }
}

fn has_template(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("{{") || text.contains("{%"),
        Value::Array(list) => list.iter().any(has_template),
        Value::Object(fields) => fields.values().any(has_template),
        _ => false,
    }
}
