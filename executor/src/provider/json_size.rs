//! The approximate size of JSON values, for limits on what is collected from a stream.

use serde_json::Value;

/// Returns about as many bytes as the value has as JSON text, without serialising it.
pub(super) fn approximate_size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(list) => list.iter().map(|value| approximate_size(value) + 1).sum(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| name.len() + approximate_size(value)).sum()
        }
        _ => 8,
    }
}
