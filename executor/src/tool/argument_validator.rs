//! Checks arguments against a JSON Schema: by the kernel where the schema is within its subset,
//! else by a full validator. Messages never repeat what a person or a model wrote.

use convergio_kernel_c::{CompiledSchema, SchemaError, Violation, ViolationKind};
use serde_json::{Map, Value};

use super::arguments::{ToolCallError, value_kind_name};

/// Validator of a tool's arguments, compiled from their schema.
pub(super) struct ArgumentValidator {
    schema: Value,
    engine: SchemaEngine,
}

/// Engine that a schema was compiled for.
enum SchemaEngine {
    /// The schema's text and its compiled form; the text resolves the offsets of violations.
    Kernel(String, CompiledSchema),
    Library(Box<jsonschema::Validator>),
}

impl ArgumentValidator {
    /// Compiles a schema. One that no validator understands accepts nothing.
    pub(super) fn from_schema(schema: &Value) -> Self {
        let text = schema.to_string();
        let engine = match CompiledSchema::compile_schema(&text) {
            Ok(compiled) => SchemaEngine::Kernel(text, compiled),
            // The schema is beyond the kernel's subset of JSON Schema.
            Err(_) => {
                let never = || jsonschema::validator_for(&Value::Bool(false));
                let validator = jsonschema::validator_for(schema).or_else(|_| never());
                SchemaEngine::Library(Box::new(validator.expect("`false` is a schema")))
            }
        };
        Self { schema: schema.clone(), engine }
    }

    /// Checks arguments; `text` is their JSON.
    pub(super) fn check_arguments(
        &self,
        arguments: &Value,
        text: &str,
    ) -> Result<(), ToolCallError> {
        match &self.engine {
            SchemaEngine::Kernel(source, schema) => {
                match schema.check_value(text) {
                    Ok(()) => Ok(()),
                    Err(SchemaError::Violation(violation)) => Err(ToolCallError(
                        explain_violation(&violation, source, &self.schema, arguments),
                    )),
                    Err(SchemaError::Kernel(error)) => Err(ToolCallError(error.to_string())),
                }
            }
            SchemaEngine::Library(validator) => match validator.iter_errors(arguments).next() {
                None => Ok(()),
                Some(error) => {
                    let (path, rule) = (error.instance_path(), error.schema_path());
                    let name = argument_name(path.as_str());
                    Err(ToolCallError(format!("{name} does not fit the rule {rule}")))
                }
            },
        }
    }
}

/// Coerces arguments to the declared types. A template of several expressions yields a string, so a
/// string of digits becomes an integer where one is declared; `null` counts as left out where the
/// argument is optional.
pub(super) fn coerce_arguments(schema: &Value, arguments: &Value) -> Value {
    // Anything but an object is left for the validator to reject.
    let Value::Object(fields) = arguments else { return arguments.clone() };
    let required = |name: &str| {
        let names = schema["required"].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).any(|other| other == name)
    };
    let mut prepared = Map::new();
    for (name, value) in fields {
        let declared = &schema["properties"][name.as_str()]["type"];
        if value.is_null() && !required(name) {
            continue;
        }
        let digits = value.as_str().filter(|_| declared == "integer");
        let whole = digits.and_then(|text| text.trim().parse::<i64>().ok());
        prepared.insert(name.clone(), whole.map_or_else(|| value.clone(), Value::from));
    }
    Value::Object(prepared)
}

/// Describes a violation in words: the argument, and the rule that it breaks.
pub(super) fn explain_violation(
    violation: &Violation,
    source: &str,
    schema: &Value,
    arguments: &Value,
) -> String {
    let path = violation.path.as_str();
    let (name, rule) = (argument_name(path), find_rule_at(schema, path));
    match violation.kind {
        ViolationKind::Missing => {
            // The kernel gives the missing name as an offset into the schema's text, just after the
            // quote.
            let rest = violation.schema_offset.and_then(|at| source.get(at as usize..));
            let missing = rest.and_then(|rest| rest.split('"').next()).unwrap_or_default();
            format!("`{missing}` is missing")
        }
        ViolationKind::Unknown => {
            let names = schema["properties"].as_object().into_iter().flat_map(Map::keys);
            let names: Vec<&str> = names.map(String::as_str).collect();
            format!("an argument is unknown: it takes {}", names.join(", "))
        }
        ViolationKind::Type => {
            let found_type = arguments.pointer(path).map_or("nothing", value_kind_name);
            format!("{name} must be {}, not {found_type}", describe_types(&rule["type"]))
        }
        ViolationKind::Enum => {
            let words = rule["enum"].as_array().into_iter().flatten();
            let words: Vec<String> = words.map(Value::to_string).collect();
            format!("{name} must be one of {}", words.join(", "))
        }
        ViolationKind::Range => format!("{name} must have {}", describe_limits(rule)),
        ViolationKind::Json | ViolationKind::Keyword | ViolationKind::KeywordValue => {
            "the arguments must be nested at most 64 levels deep".into()
        }
    }
}

/// Names an argument by its JSON pointer: `` `items` ``, or a value inside of it.
fn argument_name(path: &str) -> String {
    let steps: Vec<&str> = path.split('/').skip(1).collect();
    match steps[..] {
        [] => "the whole of the arguments".into(),
        [name] => format!("`{name}`"),
        [name, item] if item.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("item {item} of `{name}`")
        }
        [name, ..] => format!("a value inside of `{name}`"),
    }
}

/// Finds the schema rule for a value, as far as property and item rules lead to it.
fn find_rule_at<'a>(schema: &'a Value, path: &str) -> &'a Value {
    path.split('/').skip(1).fold(schema, |rule, step| match rule["properties"].get(step) {
        Some(inner) => inner,
        None => &rule["items"],
    })
}

fn describe_types(declared: &Value) -> String {
    let one = |name: &Value| match name.as_str() {
        Some("string") => "a text",
        Some("integer") => "a whole number",
        Some("number") => "a number",
        Some("boolean") => "true or false",
        Some("array") => "a list",
        Some("object") => "a map",
        Some("null") => "nothing",
        _ => "another type",
    };
    match declared {
        Value::Array(several) => several.iter().map(one).collect::<Vec<_>>().join(" or "),
        single => one(single).to_owned(),
    }
}

fn describe_limits(rule: &Value) -> String {
    const WORDS: [(&str, &str, &str); 8] = [
        ("minimum", "a value of at least ", ""),
        ("maximum", "a value of at most ", ""),
        ("minLength", "at least ", " characters"),
        ("maxLength", "at most ", " characters"),
        ("minItems", "at least ", " items"),
        ("maxItems", "at most ", " items"),
        ("minProperties", "at least ", " fields"),
        ("maxProperties", "at most ", " fields"),
    ];
    let limit = |(keyword, before, after): (&str, &str, &str)| {
        rule.get(keyword).map(|value| format!("{before}{value}{after}"))
    };
    WORDS.into_iter().filter_map(limit).collect::<Vec<_>>().join(" and ")
}
