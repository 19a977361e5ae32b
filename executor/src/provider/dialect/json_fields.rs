//! Fields of JSON that several dialects write and read alike.

use convergio_domain::chat::{
    ChatField, ChatMessage, ChatRequest, ChatToolSpec, MessageRole, NativePart,
};
use serde_json::{Map, Value, json};

/// Returns a string field, or an empty text if it is absent.
pub(super) fn text_field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("")
}

/// Returns the fields of a value other than the known ones, without null and empty lists.
pub(super) fn unknown_fields(value: &Value, known: &[&str]) -> Map<String, Value> {
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let fields = value.as_object().into_iter().flatten();
    // Null and empty lists carry no information and would only bloat the log.
    let fields = fields.filter(|(name, value)| !known.contains(&name.as_str()) && !is_empty(value));
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Sets those fields of an object that have a value.
pub(super) fn put_present<'a>(
    object: &mut Value,
    fields: impl IntoIterator<Item = (&'a str, Option<Value>)>,
) {
    for (name, value) in fields {
        if let Some(value) = value {
            object[name] = value;
        }
    }
}

/// Sets options of the request under their own names.
pub(super) fn put_options(object: &mut Value, request: &ChatRequest, fields: &[ChatField]) {
    let options = fields.iter().map(|field| (field.name(), request.options.get(field).cloned()));
    put_present(object, options);
}

/// Merges fields that the operator's policy lets through unknown to the platform.
pub(super) fn put_extra_body(body: &mut Value, request: &ChatRequest) {
    for (name, value) in &request.extra_body {
        match (body.get_mut(name), value) {
            // One level of merging: the operator may extend `options` without replacing it.
            (Some(Value::Object(fields)), Value::Object(more)) => fields.extend(more.clone()),
            _ => body[name] = value.clone(),
        }
    }
}

/// Returns whether a message holds instructions of the operator or developer.
pub(super) fn is_system_message(message: &ChatMessage) -> bool {
    matches!(message.role, MessageRole::System | MessageRole::Developer)
}

/// Splits a conversation into its leading instructions and the rest.
pub(super) fn split_system(messages: &[ChatMessage]) -> (&[ChatMessage], &[ChatMessage]) {
    messages.split_at(messages.iter().take_while(|message| is_system_message(message)).count())
}

/// Writes the tools of a request, each by `write`, followed by the tools that the provider runs
/// itself.
pub(super) fn write_tools(
    request: &ChatRequest,
    write: impl Fn(&ChatToolSpec) -> Value,
) -> Option<Value> {
    let tools = request.tools.iter().map(write);
    let native = request.native_tools.iter().map(|NativePart { block, .. }| block.clone());
    let tools: Vec<Value> = tools.chain(native).collect();
    (!tools.is_empty()).then(|| json!(tools))
}

pub(super) fn has_tools(request: &ChatRequest) -> bool {
    !request.tools.is_empty() || !request.native_tools.is_empty()
}

/// Returns a tool's description unless it is empty.
pub(super) fn description_value(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| json!(text))
}

/// Returns base64 data as a data URL (RFC 2397).
pub(super) fn data_url(media_type: &str, data: &str) -> String {
    format!("data:{media_type};base64,{data}")
}

/// Parses a tool call's arguments; an empty object if they are no object, for interfaces that
/// accept nothing else.
pub(super) fn arguments_object(text: &str) -> Value {
    // Models sometimes write arguments that are not JSON; the request must be valid nevertheless.
    let value = serde_json::from_str(text).ok().filter(Value::is_object);
    value.unwrap_or_else(|| Value::Object(Map::new()))
}

/// Returns arguments that arrived as a JSON value as text.
pub(super) fn arguments_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// Percent-encodes a path segment: a model's name may contain anything.
pub(super) fn encode_segment(part: &str) -> String {
    // A `/` in a name would lead to another route.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let encode = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    part.bytes().map(encode).collect()
}

/// Parses lists of numbers; `None` if one of them is malformed.
pub(super) fn parse_vectors<'a>(list: impl Iterator<Item = &'a Value>) -> Option<Vec<Vec<f32>>> {
    #[expect(clippy::cast_possible_truncation, reason = "embeddings are told as f32")]
    let number = |value: &Value| value.as_f64().map(|number| number as f32);
    list.map(|vector| vector.as_array()?.iter().map(number).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::encode_segment;

    #[test]
    fn names_stay_within_their_part_of_the_path() {
        assert_eq!(encode_segment("gpt-4.1:x"), "gpt-4.1:x");
        assert_eq!(encode_segment("../a?b#c d"), "..%2Fa%3Fb%23c%20d");
    }
}
