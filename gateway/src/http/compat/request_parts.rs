//! Parsing that all dialects share: tools, schemas, files, cache marks and native fields.

use convergio_domain::chat::{
    ChatInterface, ChatRequest, ChatToolSpec, FilePart, MessagePart, NativeFields, SchemaSpec,
};
use serde_json::{Map, Value, json};

use super::field_table::{FieldPath, RequestFields};
use super::provider_urls;
use super::refusal::CompatRefusal;

/// Reads a tool; `schema` names the field that holds the schema of its arguments.
pub(super) fn read_tool(
    fields: &RequestFields<'_>,
    schema: &str,
) -> Result<ChatToolSpec, CompatRefusal> {
    let name = fields.require_text("name")?;
    if name.is_empty() {
        return Err(fields.path.field("name").refuse("must not be empty"));
    }
    let parameters = fields.get(schema).cloned();
    // A tool without a schema takes no arguments.
    let parameters = parameters.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    let tool = ChatToolSpec::new(name, fields.text_or_empty("description"), parameters);
    Ok(ChatToolSpec { strict: fields.get_flag("strict"), ..tool })
}

/// Sets the schema of the reply and its options.
pub(super) fn set_schema(
    fields: &RequestFields<'_>,
    schema: &str,
    request: &mut ChatRequest,
) -> Result<(), CompatRefusal> {
    request.schema = Some(fields.require_value(schema)?.clone());
    request.schema_spec = Some(SchemaSpec {
        name: fields.get_text("name").map(str::to_owned),
        description: fields.get_text("description").map(str::to_owned),
        strict: fields.get_flag("strict"),
    });
    Ok(())
}

/// Sets a cache mark on a part that may have one, unless it has one already.
pub(super) fn set_cache_mark(part: &mut MessagePart, mark: Option<&Value>) {
    let Some(mark) = mark else { return };
    let cache_control = match part {
        MessagePart::Text(part) => &mut part.cache_control,
        MessagePart::Image(part) => &mut part.cache_control,
        MessagePart::ImageUrl(part) => &mut part.cache_control,
        MessagePart::File(part) => &mut part.cache_control,
        MessagePart::ToolCall(part) => &mut part.cache_control,
        MessagePart::ToolResult(part) => &mut part.cache_control,
        MessagePart::Audio(_)
        | MessagePart::Thinking(_)
        | MessagePart::Refusal(_)
        | MessagePart::Native(_) => return,
    };
    if cache_control.is_none() {
        *cache_control = Some(mark.clone());
    }
}

/// Sets the level of detail at which an image is viewed.
pub(super) fn set_image_detail(part: &mut MessagePart, detail: Option<&str>) {
    match part {
        MessagePart::Image(image) => image.detail = detail.map(str::to_owned),
        MessagePart::ImageUrl(image) => image.detail = detail.map(str::to_owned),
        _ => {}
    }
}

/// Reads a document from a data URL or from bare base64.
pub(super) fn file_from_data(data: &str, path: FieldPath<'_>) -> Result<FilePart, CompatRefusal> {
    let (media_type, data) = match data.strip_prefix("data:") {
        Some(rest) => match rest.split_once(";base64,") {
            Some((media_type, data)) => (media_type.to_owned(), data.to_owned()),
            None => return Err(path.refuse("must be data:TYPE;base64,...")),
        },
        // Bare base64 names no media type.
        None => (String::new(), data.to_owned()),
    };
    Ok(FilePart { media_type, data: Some(data), ..FilePart::default() })
}

/// Reads a document by its URL, which the provider fetches.
pub(super) fn file_from_url(url: &str, path: FieldPath<'_>) -> Result<FilePart, CompatRefusal> {
    if url.starts_with("data:") {
        return file_from_data(url, path);
    }
    provider_urls::check_provider_url(url, path)?;
    Ok(FilePart { url: Some(url.to_owned()), ..FilePart::default() })
}

/// Sets the parts of a tool's result; a single plain text stays a text, which all providers accept.
pub(super) fn set_result_parts(
    result: &mut convergio_domain::chat::ToolResultPart,
    parts: Vec<MessagePart>,
) {
    match parts.as_slice() {
        [] => {}
        [MessagePart::Text(text)] if text.cache_control.is_none() && text.native.is_none() => {
            result.text.clone_from(&text.text);
        }
        _ => result.parts = parts,
    }
}

/// Sets the native fields of a part, where its kind has any.
pub(super) fn set_native(part: &mut MessagePart, fields: Option<NativeFields>) {
    if fields.is_none() {
        return;
    }
    match part {
        MessagePart::Text(part) => part.native = fields,
        MessagePart::Image(part) => part.native = fields,
        MessagePart::ImageUrl(part) => part.native = fields,
        MessagePart::File(part) => part.native = fields,
        MessagePart::Audio(part) => part.native = fields,
        _ => {}
    }
}

/// Adds a native field to a request.
pub(super) fn add_native(
    request: &mut ChatRequest,
    interface: ChatInterface,
    name: &str,
    value: &Value,
) {
    let none = || NativeFields { interface, fields: Map::new() };
    let native = request.native.get_or_insert_with(none);
    native.fields.insert(name.to_owned(), value.clone());
}
