//! Reading a tool's arguments, with limits.

use convergio_domain::time::Timestamp;
use serde_json::{Map, Value};

/// Bytes of one text argument.
const TEXT_LIMIT: usize = 8 << 20;
/// Items of one list argument.
const LIST_LIMIT: usize = 10_000;

/// What is wrong with the arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToolError(pub(super) String);

pub(super) fn error<T>(message: impl Into<String>) -> Result<T, ToolError> {
    Err(ToolError(message.into()))
}

/// The arguments of one call.
pub(super) struct Args<'a> {
    fields: &'a Map<String, Value>,
    pub(super) now: Timestamp,
}

impl<'a> Args<'a> {
    pub(super) fn new(arguments: &'a Value, now: Timestamp) -> Result<Self, ToolError> {
        match arguments {
            Value::Object(fields) => Ok(Self { fields, now }),
            _ => error("the arguments must be a map"),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn any(&self, name: &str) -> Result<&'a Value, ToolError> {
        self.fields.get(name).ok_or_else(|| ToolError(format!("`{name}` is missing")))
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, ToolError> {
        match self.any(name)? {
            Value::String(text) if text.len() <= TEXT_LIMIT => Ok(text),
            Value::String(_) => error(format!("`{name}` is longer than {TEXT_LIMIT} bytes")),
            _ => error(format!("`{name}` must be text")),
        }
    }

    pub(super) fn text_or(&self, name: &str, default: &'a str) -> Result<&'a str, ToolError> {
        if self.get(name).is_some() { self.text(name) } else { Ok(default) }
    }

    pub(super) fn list(&self, name: &str) -> Result<&'a [Value], ToolError> {
        match self.any(name)? {
            Value::Array(list) if list.len() <= LIST_LIMIT => Ok(list),
            Value::Array(_) => error(format!("`{name}` has more than {LIST_LIMIT} items")),
            _ => error(format!("`{name}` must be a list")),
        }
    }

    pub(super) fn int(&self, name: &str) -> Result<i64, ToolError> {
        let value = self.any(name)?;
        let number = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
        number.ok_or_else(|| ToolError(format!("`{name}` must be a whole number")))
    }

    pub(super) fn index_or(&self, name: &str, default: usize) -> Result<usize, ToolError> {
        match self.get(name) {
            None => Ok(default),
            Some(_) => usize::try_from(self.int(name)?)
                .map_err(|_| ToolError(format!("`{name}` must not be negative"))),
        }
    }
}

/// A value as text: text as it is, anything else as JSON.
pub(super) fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Refuses answers that are too long to be kept.
pub(super) fn bounded(text: String) -> Result<Value, ToolError> {
    const LIMIT: usize = 4 << 20;
    if text.len() > LIMIT {
        return error(format!("the answer is longer than {LIMIT} bytes"));
    }
    Ok(Value::String(text))
}
