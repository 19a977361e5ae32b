//! A tool's arguments: what they are declared as, and how a tool reads them.

use convergio_domain::time::Timestamp;
use serde_json::{Map, Value, json};

use super::bounds::LIST_LIMIT;

/// What is wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToolError(pub(super) String);

pub(super) fn error<T>(message: impl Into<String>) -> Result<T, ToolError> {
    Err(ToolError(message.into()))
}

/// A declared argument.
pub(super) struct Argument {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) is_required: bool,
}

/// What an argument is.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A text.
    Text,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A whole number.
    Whole,
    /// A whole number from 0.
    Count,
    /// A list.
    List,
    /// Anything.
    Any,
}

/// An argument that must be given.
pub(super) const fn required(name: &'static str, kind: Kind) -> Argument {
    Argument { name, kind, is_required: true }
}

/// An argument that may be left out.
pub(super) const fn optional(name: &'static str, kind: Kind) -> Argument {
    Argument { name, kind, is_required: false }
}

impl Kind {
    pub(super) fn schema(self) -> Value {
        match self {
            Self::Text => json!({"type": "string"}),
            Self::OneOf(words) => json!({"type": "string", "enum": words}),
            Self::Whole => json!({"type": "integer"}),
            Self::Count => json!({"type": "integer", "minimum": 0}),
            Self::List => json!({"type": "array", "maxItems": LIST_LIMIT}),
            Self::Any => json!({}),
        }
    }
}

/// The arguments of one call.
pub(super) struct Args<'a> {
    fields: &'a Map<String, Value>,
    /// The start of the step.
    pub(super) now: Timestamp,
}

impl<'a> Args<'a> {
    /// Arguments of a tool that declares these; unknown ones are refused.
    pub(super) fn new(
        arguments: &'a Value,
        declared: &[Argument],
        now: Timestamp,
    ) -> Result<Self, ToolError> {
        let Value::Object(fields) = arguments else {
            return error("the arguments must be a map");
        };
        if fields.keys().any(|name| declared.iter().all(|argument| argument.name != name)) {
            let names: Vec<&str> = declared.iter().map(|argument| argument.name).collect();
            return error(format!("an argument is unknown: it takes {}", names.join(", ")));
        }
        let args = Self { fields, now };
        for argument in declared.iter().filter(|argument| argument.is_required) {
            args.any(argument.name)?;
        }
        Ok(args)
    }

    /// An argument that may be left out; null counts as left out.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn any(&self, name: &str) -> Result<&'a Value, ToolError> {
        self.fields.get(name).ok_or_else(|| ToolError(format!("`{name}` is missing")))
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, ToolError> {
        match self.any(name)? {
            Value::String(text) => Ok(text),
            other => error(format!("`{name}` must be a text, not {}", kind_of(other))),
        }
    }

    pub(super) fn text_or(&self, name: &str, default: &'a str) -> Result<&'a str, ToolError> {
        if self.get(name).is_some() { self.text(name) } else { Ok(default) }
    }

    pub(super) fn list(&self, name: &str) -> Result<&'a [Value], ToolError> {
        match self.any(name)? {
            Value::Array(list) => Ok(list),
            other => error(format!("`{name}` must be a list, not {}", kind_of(other))),
        }
    }

    /// A whole number. Templates that are more than one expression yield texts, so a text of
    /// digits is one too.
    pub(super) fn whole(&self, name: &str) -> Result<i64, ToolError> {
        let value = self.any(name)?;
        let number = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
        number.ok_or_else(|| ToolError(format!("`{name}` must be a whole number")))
    }

    pub(super) fn count(&self, name: &str) -> Result<usize, ToolError> {
        usize::try_from(self.whole(name)?)
            .map_err(|_| ToolError(format!("`{name}` must not be negative")))
    }

    pub(super) fn count_or(&self, name: &str, default: usize) -> Result<usize, ToolError> {
        if self.get(name).is_some() { self.count(name) } else { Ok(default) }
    }
}

/// A kind of value in words, so that a message need not repeat the value.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
