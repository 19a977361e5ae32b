//! A function as a tool: the declaration of its arguments, and typed access to them.

use convergio_domain::time::Timestamp;
use serde_json::{Map, Value, json};

use super::bounds::LIST_ITEMS_LIMIT;

/// Reason why a call has no answer, in words for the model or the author of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToolCallError(pub(super) String);

pub(super) fn tool_error<T>(message: impl Into<String>) -> Result<T, ToolCallError> {
    Err(ToolCallError(message.into()))
}

/// Declaration of one argument of a tool.
pub(super) struct DeclaredArgument {
    pub(super) name: &'static str,
    pub(super) kind: ArgumentKind,
    pub(super) is_required: bool,
}

/// JSON type that a declared argument takes.
#[derive(Clone, Copy)]
pub(super) enum ArgumentKind {
    /// A string of any length.
    Text,
    /// One of the listed strings.
    OneOf(&'static [&'static str]),
    /// An integer of either sign.
    Integer,
    /// An integer from 0 on.
    Count,
    /// An array of at most [`LIST_ITEMS_LIMIT`] items.
    List,
}

/// A built-in tool that the kernel does not have.
pub(super) struct FunctionTool {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) arguments: &'static [DeclaredArgument],
    pub(super) function: ToolFunction,
}

pub(super) type ToolFunction = fn(&ToolArguments<'_>) -> Result<Value, ToolCallError>;

/// Declares an argument that must be given.
pub(super) const fn required_argument(name: &'static str, kind: ArgumentKind) -> DeclaredArgument {
    DeclaredArgument { name, kind, is_required: true }
}

/// Declares an argument that may be left out.
pub(super) const fn optional_argument(name: &'static str, kind: ArgumentKind) -> DeclaredArgument {
    DeclaredArgument { name, kind, is_required: false }
}

impl ArgumentKind {
    pub(super) fn json_schema(self) -> Value {
        match self {
            Self::Text => json!({"type": "string"}),
            Self::OneOf(words) => json!({"type": "string", "enum": words}),
            Self::Integer => json!({"type": "integer"}),
            Self::Count => json!({"type": "integer", "minimum": 0}),
            Self::List => json!({"type": "array", "maxItems": LIST_ITEMS_LIMIT}),
        }
    }
}

/// Arguments of one call, which fit the tool's schema.
pub(super) struct ToolArguments<'a> {
    fields: &'a Map<String, Value>,
    /// Time at which the step started, in milliseconds since the epoch.
    pub(super) now: Timestamp,
}

impl<'a> ToolArguments<'a> {
    /// Wraps arguments that fit the tool's schema.
    pub(super) fn new(fields: &'a Map<String, Value>, now: Timestamp) -> Self {
        Self { fields, now }
    }

    /// Returns the argument as it was given; `None` if it was left out.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name)
    }

    pub(super) fn get_text(&self, name: &str) -> Result<&'a str, ToolCallError> {
        let text = self.get(name).and_then(Value::as_str);
        text.ok_or_else(|| ToolCallError(format!("`{name}` must be a text")))
    }

    pub(super) fn get_text_or(
        &self,
        name: &str,
        default: &'a str,
    ) -> Result<&'a str, ToolCallError> {
        // The default applies to an absent argument only; one of a wrong type is an error.
        if self.get(name).is_some() { self.get_text(name) } else { Ok(default) }
    }

    pub(super) fn get_list(&self, name: &str) -> Result<&'a [Value], ToolCallError> {
        let list = self.get(name).and_then(Value::as_array);
        list.map(Vec::as_slice).ok_or_else(|| ToolCallError(format!("`{name}` must be a list")))
    }

    pub(super) fn get_integer(&self, name: &str) -> Result<i64, ToolCallError> {
        let number = self.get(name).and_then(Value::as_i64);
        number.ok_or_else(|| ToolCallError(format!("`{name}` must be a whole number")))
    }

    pub(super) fn get_count_or(&self, name: &str, default: usize) -> Result<usize, ToolCallError> {
        if self.get(name).is_none() {
            return Ok(default);
        }
        usize::try_from(self.get_integer(name)?)
            .map_err(|_| ToolCallError(format!("`{name}` must not be negative")))
    }
}

/// Names the type of a value, so that a message need not repeat the value itself.
pub(super) fn value_kind_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
