//! Parsing that all dialects share: tools, schemas, files, cache marks and native fields.

use convergio_domain::chat::{
    ChatRequest, FilePart, Interface, NativeFields, Part, SchemaSpec, ToolSpec,
};
use serde_json::{Map, Value, json};

use super::known::{Fields, Path};
use super::refusal::Refusal;
use super::urls;

/// Reads a tool; `schema` names the field that holds the schema of its arguments.
pub(super) fn tool(fields: &Fields<'_>, schema: &str) -> Result<ToolSpec, Refusal> {
    let name = fields.need_text("name")?;
    if name.is_empty() {
        return Err(fields.path.field("name").refuse("must not be empty"));
    }
    let parameters = fields.get(schema).cloned();
    // A tool without a schema takes no arguments.
    let parameters = parameters.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    let tool = ToolSpec::new(name, fields.string("description"), parameters);
    Ok(ToolSpec { strict: fields.flag("strict"), ..tool })
}

/// Sets the schema of the reply and its options.
pub(super) fn take_schema(
    fields: &Fields<'_>,
    schema: &str,
    request: &mut ChatRequest,
) -> Result<(), Refusal> {
    request.schema = Some(fields.need(schema)?.clone());
    request.schema_spec = Some(SchemaSpec {
        name: fields.text("name").map(str::to_owned),
        description: fields.text("description").map(str::to_owned),
        strict: fields.flag("strict"),
    });
    Ok(())
}

/// Sets a cache mark on a part that may have one, unless it has one already.
pub(super) fn mark(part: &mut Part, mark: Option<&Value>) {
    let Some(mark) = mark else { return };
    let place = match part {
        Part::Text(part) => &mut part.cache_control,
        Part::Image(part) => &mut part.cache_control,
        Part::ImageUrl(part) => &mut part.cache_control,
        Part::File(part) => &mut part.cache_control,
        Part::ToolCall(part) => &mut part.cache_control,
        Part::ToolResult(part) => &mut part.cache_control,
        Part::Audio(_) | Part::Thinking(_) | Part::Refusal(_) | Part::Native(_) => return,
    };
    if place.is_none() {
        *place = Some(mark.clone());
    }
}

/// Sets the level of detail at which an image is viewed.
pub(super) fn set_detail(part: &mut Part, asked: Option<&str>) {
    match part {
        Part::Image(image) => image.detail = asked.map(str::to_owned),
        Part::ImageUrl(image) => image.detail = asked.map(str::to_owned),
        _ => {}
    }
}

/// Reads a document from a data URL or from bare base64.
pub(super) fn file_of_data(data: &str, path: Path<'_>) -> Result<FilePart, Refusal> {
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
pub(super) fn file_of_url(url: &str, path: Path<'_>) -> Result<FilePart, Refusal> {
    if url.starts_with("data:") {
        return file_of_data(url, path);
    }
    urls::check(url, path)?;
    Ok(FilePart { url: Some(url.to_owned()), ..FilePart::default() })
}

/// Sets the parts of a tool's result; a single plain text stays a text, which all providers accept.
pub(super) fn set_answer(result: &mut convergio_domain::chat::ToolResultPart, parts: Vec<Part>) {
    match parts.as_slice() {
        [] => {}
        [Part::Text(text)] if text.cache_control.is_none() && text.native.is_none() => {
            result.text.clone_from(&text.text);
        }
        _ => result.parts = parts,
    }
}

/// Sets the native fields of a part, where its kind has any.
pub(super) fn set_native(part: &mut Part, fields: Option<NativeFields>) {
    if fields.is_none() {
        return;
    }
    match part {
        Part::Text(part) => part.native = fields,
        Part::Image(part) => part.native = fields,
        Part::ImageUrl(part) => part.native = fields,
        Part::File(part) => part.native = fields,
        Part::Audio(part) => part.native = fields,
        _ => {}
    }
}

/// Adds a native field to a request.
pub(super) fn add_native(
    request: &mut ChatRequest,
    interface: Interface,
    name: &str,
    value: &Value,
) {
    let none = || NativeFields { interface, fields: Map::new() };
    let native = request.native.get_or_insert_with(none);
    native.fields.insert(name.to_owned(), value.clone());
}
