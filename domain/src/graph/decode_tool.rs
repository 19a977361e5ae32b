//! Decodes tool invocations and checks their arguments against the schema that the tool declares.

use serde_json::{Map as Object, Value};

use super::decoder::{ManifestDecoder, Mentions};
use super::manifest::ToolInvocation;
use super::tool_catalog::ToolSpec;
use super::yaml::{YamlKind, YamlTree};

/// Decodes `tool: NAME` with `with` beside it, or `tool: {name, with}`. `beside` is the `with`
/// field of the node and its path.
pub(super) fn decode_tool_invocation(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    beside: Option<(&YamlTree, String)>,
    path: &str,
    mentions: &mut Mentions,
) -> Option<ToolInvocation> {
    let (name, with) = match &tree.kind {
        YamlKind::Map(_) => {
            let mut fields = decoder.map_fields(tree, path)?;
            let name = fields
                .take_field("name")
                .and_then(|t| decoder.decode_text(t, &fields.field_path("name")));
            let inner = fields.take_field("with").map(|with| (with, fields.field_path("with")));
            if let (Some(_), Some((other, path))) = (&inner, &beside) {
                decoder.add_error(
                    other,
                    path,
                    "the tool has its arguments already, as `tool.with`",
                );
            }
            decoder.reject_unknown_fields(&fields);
            (name, inner.or(beside))
        }
        _ => (decoder.decode_text(tree, path), beside),
    };
    let Some(name) = name else {
        decoder.add_error(tree, path, "missing: the tool's name, as `tool: text.split`");
        return None;
    };
    if let Some((with, path)) = &with {
        decoder.add_template_refs(with, path, mentions);
    }
    let arguments = with.as_ref().map_or_else(|| Value::Object(Object::new()), |w| w.0.to_value());
    let tools = decoder.tools;
    match tools.get(&name) {
        Some(spec) => check_arguments(decoder, spec, with, (tree, path)),
        None => {
            let hint = decoder.diagnostics.spelling_hint(&name, tools.tool_names());
            decoder.add_error(tree, path, format!("there is no tool `{name}`{hint}"));
        }
    }
    Some(ToolInvocation { name, with: arguments })
}

/// Reports arguments that are missing, unknown or of another type.
fn check_arguments(
    decoder: &mut ManifestDecoder<'_>,
    spec: &ToolSpec,
    with: Option<(&YamlTree, String)>,
    (tree, path): (&YamlTree, &str),
) {
    let (name, no_fields) = (&spec.name, Vec::new());
    let (given, tree, path) = match &with {
        None => (&no_fields, tree, path),
        Some((with, path)) => match &with.kind {
            YamlKind::Map(fields) => (fields, *with, path.as_str()),
            _ => return decoder.add_error(with, path, "must be a map of arguments"),
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
                let hint = decoder.diagnostics.spelling_hint(key, names);
                decoder.add_error(
                    argument,
                    &path,
                    format!("`{name}` has no argument `{key}`{hint}"),
                );
            }
        }
    }
    let required = spec.arguments["required"].as_array().into_iter().flatten();
    for key in required.filter_map(Value::as_str) {
        if !given.iter().any(|(known, _)| known == key) {
            decoder.add_error(tree, path, format!("`{name}` needs the argument `{key}`"));
        }
    }
}

/// Checks an argument's value if no template is in it: only then is it known before the run.
fn check_literal(
    decoder: &mut ManifestDecoder<'_>,
    schema: &Value,
    argument: &YamlTree,
    path: &str,
) {
    let value = argument.to_value();
    if has_template(&value) {
        return;
    }
    for message in super::schema_check::check_inputs(schema, &value) {
        decoder.add_error(
            argument,
            path,
            message.replacen("inputs", "", 1).trim_start_matches(": "),
        );
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
