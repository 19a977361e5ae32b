//! Checks arguments against a JSON Schema: by the kernel where the schema is within its subset,
//! else by a full validator. Messages never repeat what a person or a model wrote.

use convergio_kernel_c::{Schema, SchemaError, Violation, ViolationKind};
use serde_json::{Map, Value};

use super::args::{ToolError, kind_of};

/// Validator of a tool's arguments, compiled from their schema.
pub(super) struct Check {
    schema: Value,
    by: By,
}

/// Engine that a schema was compiled for.
enum By {
    /// The schema's text and its compiled form; the text resolves the offsets of violations.
    Kernel(String, Schema),
    Library(Box<jsonschema::Validator>),
}

impl Check {
    /// Compiles a schema. One that no validator understands accepts nothing.
    pub(super) fn compile(schema: &Value) -> Self {
        let text = schema.to_string();
        let by = match Schema::compile(&text) {
            Ok(compiled) => By::Kernel(text, compiled),
            // The schema is beyond the kernel's subset of JSON Schema.
            Err(_) => {
                let never = || jsonschema::validator_for(&Value::Bool(false));
                let validator = jsonschema::validator_for(schema).or_else(|_| never());
                By::Library(Box::new(validator.expect("`false` is a schema")))
            }
        };
        Self { schema: schema.clone(), by }
    }

    /// Checks arguments; `text` is their JSON.
    pub(super) fn check(&self, arguments: &Value, text: &str) -> Result<(), ToolError> {
        match &self.by {
            By::Kernel(source, schema) => match schema.check(text) {
                Ok(()) => Ok(()),
                Err(SchemaError::Violation(violation)) => {
                    Err(ToolError(explain(&violation, source, &self.schema, arguments)))
                }
                Err(SchemaError::Kernel(error)) => Err(ToolError(error.to_string())),
            },
            By::Library(validator) => match validator.iter_errors(arguments).next() {
                None => Ok(()),
                Some(error) => {
                    let (path, rule) = (error.instance_path(), error.schema_path());
                    let name = named(path.as_str());
                    Err(ToolError(format!("{name} does not fit the rule {rule}")))
                }
            },
        }
    }
}

/// Coerces arguments to the declared types. A template of several expressions yields a string, so a
/// string of digits becomes an integer where one is declared; `null` counts as left out where the
/// argument is optional.
pub(super) fn prepare(schema: &Value, arguments: &Value) -> Value {
    // Anything but an object is left for the validator to reject.
    let Value::Object(given) = arguments else { return arguments.clone() };
    let required = |name: &str| {
        let names = schema["required"].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).any(|other| other == name)
    };
    let mut prepared = Map::new();
    for (name, value) in given {
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
pub(super) fn explain(
    violation: &Violation,
    source: &str,
    schema: &Value,
    arguments: &Value,
) -> String {
    let path = violation.path.as_str();
    let (name, rule) = (named(path), rule_at(schema, path));
    match violation.kind {
        ViolationKind::Missing => {
            // The kernel gives the missing name as an offset into the schema's text, just after the
            // quote.
            let rest = violation.schema_offset.and_then(|at| source.get(at as usize..));
            let missing = rest.and_then(|rest| rest.split('"').next()).unwrap_or_default();
            format!("`{missing}` is missing")
        }
        ViolationKind::Unknown => {
            let known = schema["properties"].as_object().into_iter().flat_map(Map::keys);
            let known: Vec<&str> = known.map(String::as_str).collect();
            format!("an argument is unknown: it takes {}", known.join(", "))
        }
        ViolationKind::Type => {
            let found = arguments.pointer(path).map_or("nothing", kind_of);
            format!("{name} must be {}, not {found}", types(&rule["type"]))
        }
        ViolationKind::Enum => {
            let words = rule["enum"].as_array().into_iter().flatten();
            let words: Vec<String> = words.map(Value::to_string).collect();
            format!("{name} must be one of {}", words.join(", "))
        }
        ViolationKind::Range => format!("{name} must have {}", limits(rule)),
        ViolationKind::Json | ViolationKind::Keyword | ViolationKind::KeywordValue => {
            "the arguments must be nested at most 64 levels deep".into()
        }
    }
}

/// Names an argument by its JSON pointer: `` `items` ``, or a value inside of it.
fn named(path: &str) -> String {
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
fn rule_at<'a>(schema: &'a Value, path: &str) -> &'a Value {
    path.split('/').skip(1).fold(schema, |rule, step| match rule["properties"].get(step) {
        Some(inner) => inner,
        None => &rule["items"],
    })
}

fn types(declared: &Value) -> String {
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

fn limits(rule: &Value) -> String {
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
