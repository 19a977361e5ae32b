//! Reads requests of messages.

use convergio_domain::chat::{
    ChatField, ChatRequest, FilePart, ImagePart, Interface, Message, NativeFields, NativePart,
    Part, Role, ThinkingPart, ToolCall, ToolChoice, ToolResultPart, ToolSpec,
};
use serde_json::{Value, json};

use super::super::carrier::{Carrier, Unpacking};
use super::super::conversation::Conversation;
use super::super::known::{Fields, Path, kind_of, unknown_kind};
use super::super::parts;
use super::super::refusal::Refusal;
use super::super::urls;
use super::tables;

const OWN: Interface = Interface::Anthropic;

/// Reads a body, except what the dialect itself acts on (streaming).
pub(super) fn request(body: &Fields<'_>) -> Result<ChatRequest, Refusal> {
    let root = Path::ROOT;
    let mut request = ChatRequest {
        model: body.need_text("model")?.to_owned(),
        max_tokens: body.tokens("max_tokens"),
        temperature: body.number("temperature"),
        top_p: body.number("top_p"),
        stop: body.texts("stop_sequences")?,
        options: body.options().collect(),
        native: body.native(OWN),
        door: Some(OWN),
        ..ChatRequest::default()
    };
    take_choice(body, root, &mut request)?;
    take_metadata(body, root, &mut request)?;
    take_format(body, root, &mut request)?;
    let tools = root.field("tools");
    for (place, tool) in body.list("tools").iter().enumerate() {
        take_tool(tool, tools.entry(place), &mut request)?;
    }
    let mut conversation = Conversation::default();
    if let Some(system) = body.get("system") {
        // The system prompt may be text or blocks, like any content.
        let (parts, _) = content(system, root.field("system"), &conversation)?;
        let is_text = |part: &Part| matches!(part, Part::Text(_));
        if !parts.iter().all(is_text) {
            return Err(root.field("system").refuse("must be text or a list of text blocks"));
        }
        if !parts.is_empty() {
            conversation.push(Message::new(Role::System, parts));
        }
    }
    let messages = root.field("messages");
    for (place, message) in body.list("messages").iter().enumerate() {
        let message = read_message(message, messages.entry(place), &conversation)?;
        conversation.push(message);
    }
    if body.list("messages").is_empty() {
        return Err(messages.refuse("must have an entry at least"));
    }
    request.messages = conversation.into_messages();
    Ok(request)
}

fn take_choice(
    body: &Fields<'_>,
    root: Path<'_>,
    request: &mut ChatRequest,
) -> Result<(), Refusal> {
    let Some(choice) = body.get("tool_choice") else { return Ok(()) };
    let fields = Fields::read(choice, root.field("tool_choice"), &tables::CHOICE)?;
    request.tool_choice = match fields.need_text("type")? {
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Named(fields.need_text("name")?.to_owned()),
        _ => ToolChoice::Auto,
    };
    if fields.flag("disable_parallel_tool_use") == Some(true) {
        request.options.insert(ChatField::ParallelToolCalls, json!(false));
    }
    Ok(())
}

fn take_metadata(
    body: &Fields<'_>,
    root: Path<'_>,
    request: &mut ChatRequest,
) -> Result<(), Refusal> {
    let betas = body.texts("betas")?;
    if !betas.is_empty() {
        request.options.insert(ChatField::Betas, json!(betas.join(",")));
    }
    let Some(metadata) = body.get("metadata") else { return Ok(()) };
    let fields = Fields::read(metadata, root.field("metadata"), &tables::METADATA)?;
    if let Some(user) = fields.text("user_id") {
        request.options.insert(ChatField::User, json!(user));
    }
    Ok(())
}

fn take_format(
    body: &Fields<'_>,
    root: Path<'_>,
    request: &mut ChatRequest,
) -> Result<(), Refusal> {
    if let Some(format) = body.get("output_format") {
        take_schema(format, root.field("output_format"), request)?;
        // Anthropic's older name, which only works with the beta that the caller names.
        parts::add_native(request, OWN, "output_format", format);
    }
    let Some(config) = body.get("output_config") else { return Ok(()) };
    let path = root.field("output_config");
    let fields = Fields::read(config, path, &tables::OUTPUT_CONFIG)?;
    request.effort = fields.text("effort").map(str::to_owned);
    if fields.native(OWN).is_some() {
        parts::add_native(request, OWN, "output_config", config);
    }
    let path = path.field("format");
    let Some(format) = fields.get("format") else { return Ok(()) };
    take_schema(format, path, request)?;
    match body.get("output_format") {
        Some(older) if format != older => Err(path.refuse("is not output_format: leave one out")),
        _ => Ok(()),
    }
}

fn take_schema(format: &Value, path: Path<'_>, request: &mut ChatRequest) -> Result<(), Refusal> {
    let fields = Fields::read(format, path, &tables::FORMAT)?;
    fields.need_text("type")?;
    parts::take_schema(&fields, "schema", request)
}

fn take_tool(tool: &Value, path: Path<'_>, request: &mut ChatRequest) -> Result<(), Refusal> {
    let kind = &tool["type"];
    if !kind.is_null() && *kind != "custom" {
        kind_of(tool, path)?;
        // A tool of the provider: it alone knows the fields.
        request.native_tools.push(NativePart { interface: OWN, block: tool.clone() });
        return Ok(());
    }
    let fields = Fields::read(tool, path, &tables::TOOL)?;
    let cache_control = fields.get("cache_control").cloned();
    let native = fields.native(OWN);
    let tool = parts::tool(&fields, "input_schema")?;
    request.tools.push(ToolSpec { cache_control, native, ..tool });
    Ok(())
}

fn read_message(
    message: &Value,
    path: Path<'_>,
    conversation: &Conversation,
) -> Result<Message, Refusal> {
    let fields = Fields::read(message, path, &tables::MESSAGE)?;
    let role = match fields.need_text("role")? {
        "assistant" => Role::Assistant,
        "system" => Role::System,
        _ => Role::User,
    };
    let (parts, native) = content(fields.need("content")?, path.field("content"), conversation)?;
    Ok(Message { native, ..Message::new(role, parts) })
}

/// Reads the blocks of a content; returns the parts and the carried fields of the whole message.
fn content(
    content: &Value,
    path: Path<'_>,
    conversation: &Conversation,
) -> Result<(Vec<Part>, Option<NativeFields>), Refusal> {
    let blocks = match content {
        Value::Array(blocks) => blocks,
        text => {
            let text = text.as_str().unwrap_or_default();
            let parts = if text.is_empty() { Vec::new() } else { vec![Part::text(text)] };
            return Ok((parts, None));
        }
    };
    let (mut parts, mut unpacking) = (Vec::with_capacity(blocks.len()), Unpacking::default());
    for (place, block) in blocks.iter().enumerate() {
        let path = path.entry(place);
        match read_block(block, path, conversation)? {
            Block::Part(part) => parts.push(unpacking.part(part)),
            Block::Carrier(carrier) => {
                if let Some(part) = unpacking.carrier(carrier, parts.last_mut()) {
                    parts.push(part);
                }
            }
        }
    }
    Ok((parts, unpacking.message))
}

/// A block of a content: a part, or a carrier.
enum Block {
    Part(Part),
    Carrier(Carrier),
}

fn read_block(
    block: &Value,
    path: Path<'_>,
    conversation: &Conversation,
) -> Result<Block, Refusal> {
    let mut part = match kind_of(block, path)? {
        "text" => {
            let fields = Fields::read(block, path, &tables::TEXT)?;
            let mut part = convergio_domain::chat::TextPart::default();
            fields.need_text("text")?.clone_into(&mut part.text);
            part.native = fields.native(OWN);
            Part::Text(part)
        }
        "image" => {
            let fields = Fields::read(block, path, &tables::IMAGE)?;
            image(block, fields.need("source")?, path.field("source"))?
        }
        "document" => document(block, path)?,
        "thinking" => return thinking(block, path),
        "redacted_thinking" => return redacted(block, path),
        "tool_use" => {
            let fields = Fields::read(block, path, &tables::CALL)?;
            Part::ToolCall(ToolCall {
                id: fields.need_text("id")?.to_owned(),
                name: fields.need_text("name")?.to_owned(),
                arguments: fields.get("input").map_or_else(|| "{}".to_owned(), Value::to_string),
                native: fields.native(OWN),
                ..ToolCall::default()
            })
        }
        "tool_result" => Part::ToolResult(result(block, path, conversation)?),
        kind if tables::NATIVE.contains(&kind) => native(block),
        kind => return Err(unknown_kind(kind, path)),
    };
    // Read from the block itself: native blocks have no table.
    parts::mark(&mut part, Some(&block["cache_control"]).filter(|mark| !mark.is_null()));
    Ok(Block::Part(part))
}

fn native(block: &Value) -> Part {
    Part::Native(NativePart { interface: OWN, block: block.clone() })
}

fn thinking(block: &Value, path: Path<'_>) -> Result<Block, Refusal> {
    let fields = Fields::read(block, path, &tables::THINKING)?;
    let (text, signature) = (fields.string("thinking"), fields.string("signature"));
    // A foreign thought's carrier stands in its signature; its text is in the block.
    match Carrier::unpack(&signature, path.field("signature"))? {
        Some(Carrier::Part(Part::Thinking(carried))) => {
            Ok(Block::Part(Part::Thinking(ThinkingPart { text, ..carried })))
        }
        Some(_) => Err(path.field("signature").refuse("is no mark of a thought")),
        None => {
            let part = ThinkingPart { text, signature, native: None };
            Ok(Block::Part(Part::Thinking(part)))
        }
    }
}

fn redacted(block: &Value, path: Path<'_>) -> Result<Block, Refusal> {
    let fields = Fields::read(block, path, &tables::REDACTED)?;
    match Carrier::unpack(fields.need_text("data")?, path.field("data"))? {
        Some(carrier) => Ok(Block::Carrier(carrier)),
        // Anthropic's own encrypted thought.
        None => Ok(Block::Part(native(block))),
    }
}

fn image(block: &Value, source: &Value, path: Path<'_>) -> Result<Part, Refusal> {
    let fields = Fields::read(source, path, &tables::SOURCE)?;
    match fields.need_text("type")? {
        "base64" => {
            let media_type = fields.need_text("media_type")?.to_owned();
            let data = fields.need_text("data")?.to_owned();
            Ok(Part::Image(ImagePart { media_type, data, ..ImagePart::default() }))
        }
        "url" => urls::image(fields.need_text("url")?, path.field("url")),
        "file" => Ok(native(block)),
        kind => Err(unknown_kind(kind, path)),
    }
}

fn document(block: &Value, path: Path<'_>) -> Result<Part, Refusal> {
    let fields = Fields::read(block, path, &tables::DOCUMENT)?;
    let path = path.field("source");
    let source = Fields::read(fields.need("source")?, path, &tables::SOURCE)?;
    let media_type = source.string("media_type");
    let file = match source.need_text("type")? {
        "base64" => {
            let data = Some(source.need_text("data")?.to_owned());
            FilePart { media_type, data, ..FilePart::default() }
        }
        "text" => {
            let text = Some(source.need_text("data")?.to_owned());
            FilePart { media_type, text, ..FilePart::default() }
        }
        "url" => {
            let url = source.need_text("url")?;
            urls::check(url, path.field("url"))?;
            FilePart { media_type, url: Some(url.to_owned()), ..FilePart::default() }
        }
        "content" | "file" => return Ok(native(block)),
        kind => return Err(unknown_kind(kind, path)),
    };
    Ok(Part::File(FilePart { native: fields.native(OWN), ..file }))
}

fn result(
    block: &Value,
    path: Path<'_>,
    conversation: &Conversation,
) -> Result<ToolResultPart, Refusal> {
    let fields = Fields::read(block, path, &tables::RESULT)?;
    let id = fields.need_text("tool_use_id")?.to_owned();
    let mut result = ToolResultPart {
        name: conversation.tool_name(&id),
        id,
        is_error: fields.flag("is_error").unwrap_or(false),
        ..ToolResultPart::default()
    };
    let parts = match fields.get("content") {
        Some(value) => content(value, path.field("content"), conversation)?.0,
        None => Vec::new(),
    };
    let is_answer = |part: &Part| {
        matches!(
            part,
            Part::Text(_) | Part::Image(_) | Part::ImageUrl(_) | Part::File(_) | Part::Native(_)
        )
    };
    // Checked here: the content of a result is read like any other content.
    if let Some(place) = parts.iter().position(|part| !is_answer(part)) {
        let path = path.field("content");
        return Err(path.entry(place).refuse("no tool answers with a block of this type"));
    }
    parts::set_answer(&mut result, parts);
    Ok(result)
}
