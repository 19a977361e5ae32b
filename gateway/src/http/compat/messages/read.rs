//! Reads requests of messages.

use convergio_domain::chat::{
    ChatField, ChatInterface, ChatMessage, ChatRequest, ChatToolSpec, FilePart, ImagePart,
    MessagePart, MessageRole, NativeFields, NativePart, ThinkingPart, ToolCall, ToolChoice,
    ToolResultPart,
};
use serde_json::{Value, json};

use super::super::carrier::{Carrier, CarrierUnpacker};
use super::super::conversation::Conversation;
use super::super::field_table::{FieldPath, RequestFields, read_type, unknown_type};
use super::super::provider_urls;
use super::super::refusal::CompatRefusal;
use super::super::request_parts;
use super::tables;

const OWN_INTERFACE: ChatInterface = ChatInterface::Anthropic;

/// Reads a body, except what the dialect itself acts on (streaming).
pub(super) fn read_chat_body(body: &RequestFields<'_>) -> Result<ChatRequest, CompatRefusal> {
    let root = FieldPath::ROOT;
    let mut request = ChatRequest {
        model: body.require_text("model")?.to_owned(),
        max_tokens: body.get_tokens("max_tokens"),
        temperature: body.get_number("temperature"),
        top_p: body.get_number("top_p"),
        stop: body.get_texts("stop_sequences")?,
        options: body.chat_options().collect(),
        native: body.native_fields(OWN_INTERFACE),
        door: Some(OWN_INTERFACE),
        ..ChatRequest::default()
    };
    apply_tool_choice(body, root, &mut request)?;
    apply_metadata(body, root, &mut request)?;
    apply_output_format(body, root, &mut request)?;
    let tools = root.field("tools");
    for (place, tool) in body.get_list("tools").iter().enumerate() {
        add_tool(tool, tools.entry(place), &mut request)?;
    }
    let mut conversation = Conversation::default();
    if let Some(system) = body.get("system") {
        // The system prompt may be text or blocks, like any content.
        let (parts, _) = read_content(system, root.field("system"), &conversation)?;
        let is_text = |part: &MessagePart| matches!(part, MessagePart::Text(_));
        if !parts.iter().all(is_text) {
            return Err(root.field("system").refuse("must be text or a list of text blocks"));
        }
        if !parts.is_empty() {
            conversation.push(ChatMessage::new(MessageRole::System, parts));
        }
    }
    let messages = root.field("messages");
    for (place, message) in body.get_list("messages").iter().enumerate() {
        let message = read_message(message, messages.entry(place), &conversation)?;
        conversation.push(message);
    }
    if body.get_list("messages").is_empty() {
        return Err(messages.refuse("must have an entry at least"));
    }
    request.messages = conversation.into_messages();
    Ok(request)
}

fn apply_tool_choice(
    body: &RequestFields<'_>,
    root: FieldPath<'_>,
    request: &mut ChatRequest,
) -> Result<(), CompatRefusal> {
    let Some(choice) = body.get("tool_choice") else { return Ok(()) };
    let fields =
        RequestFields::read_known(choice, root.field("tool_choice"), &tables::TOOL_CHOICE)?;
    request.tool_choice = match fields.require_text("type")? {
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Named(fields.require_text("name")?.to_owned()),
        _ => ToolChoice::Auto,
    };
    if fields.get_flag("disable_parallel_tool_use") == Some(true) {
        request.options.insert(ChatField::ParallelToolCalls, json!(false));
    }
    Ok(())
}

fn apply_metadata(
    body: &RequestFields<'_>,
    root: FieldPath<'_>,
    request: &mut ChatRequest,
) -> Result<(), CompatRefusal> {
    let betas = body.get_texts("betas")?;
    if !betas.is_empty() {
        request.options.insert(ChatField::Betas, json!(betas.join(",")));
    }
    let Some(metadata) = body.get("metadata") else { return Ok(()) };
    let fields = RequestFields::read_known(metadata, root.field("metadata"), &tables::METADATA)?;
    if let Some(user) = fields.get_text("user_id") {
        request.options.insert(ChatField::User, json!(user));
    }
    Ok(())
}

fn apply_output_format(
    body: &RequestFields<'_>,
    root: FieldPath<'_>,
    request: &mut ChatRequest,
) -> Result<(), CompatRefusal> {
    if let Some(format) = body.get("output_format") {
        apply_schema(format, root.field("output_format"), request)?;
        // Anthropic's older name, which only works with the beta that the caller names.
        request_parts::add_native(request, OWN_INTERFACE, "output_format", format);
    }
    let Some(config) = body.get("output_config") else { return Ok(()) };
    let path = root.field("output_config");
    let fields = RequestFields::read_known(config, path, &tables::OUTPUT_CONFIG)?;
    request.effort = fields.get_text("effort").map(str::to_owned);
    if fields.native_fields(OWN_INTERFACE).is_some() {
        request_parts::add_native(request, OWN_INTERFACE, "output_config", config);
    }
    let path = path.field("format");
    let Some(format) = fields.get("format") else { return Ok(()) };
    apply_schema(format, path, request)?;
    match body.get("output_format") {
        Some(older) if format != older => Err(path.refuse("is not output_format: leave one out")),
        _ => Ok(()),
    }
}

fn apply_schema(
    format: &Value,
    path: FieldPath<'_>,
    request: &mut ChatRequest,
) -> Result<(), CompatRefusal> {
    let fields = RequestFields::read_known(format, path, &tables::FORMAT)?;
    fields.require_text("type")?;
    request_parts::set_schema(&fields, "schema", request)
}

fn add_tool(
    tool: &Value,
    path: FieldPath<'_>,
    request: &mut ChatRequest,
) -> Result<(), CompatRefusal> {
    let kind = &tool["type"];
    if !kind.is_null() && *kind != "custom" {
        read_type(tool, path)?;
        // A tool of the provider: it alone knows the fields.
        request.native_tools.push(NativePart { interface: OWN_INTERFACE, block: tool.clone() });
        return Ok(());
    }
    let fields = RequestFields::read_known(tool, path, &tables::TOOL)?;
    let cache_control = fields.get("cache_control").cloned();
    let native = fields.native_fields(OWN_INTERFACE);
    let tool = request_parts::read_tool(&fields, "input_schema")?;
    request.tools.push(ChatToolSpec { cache_control, native, ..tool });
    Ok(())
}

fn read_message(
    message: &Value,
    path: FieldPath<'_>,
    conversation: &Conversation,
) -> Result<ChatMessage, CompatRefusal> {
    let fields = RequestFields::read_known(message, path, &tables::MESSAGE)?;
    let role = match fields.require_text("role")? {
        "assistant" => MessageRole::Assistant,
        "system" => MessageRole::System,
        _ => MessageRole::User,
    };
    let (parts, native) =
        read_content(fields.require_value("content")?, path.field("content"), conversation)?;
    Ok(ChatMessage { native, ..ChatMessage::new(role, parts) })
}

/// Reads the blocks of a content; returns the parts and the carried fields of the whole message.
fn read_content(
    content: &Value,
    path: FieldPath<'_>,
    conversation: &Conversation,
) -> Result<(Vec<MessagePart>, Option<NativeFields>), CompatRefusal> {
    let blocks = match content {
        Value::Array(blocks) => blocks,
        text => {
            let text = text.as_str().unwrap_or_default();
            let parts =
                if text.is_empty() { Vec::new() } else { vec![MessagePart::from_text(text)] };
            return Ok((parts, None));
        }
    };
    let (mut parts, mut unpacking) = (Vec::with_capacity(blocks.len()), CarrierUnpacker::default());
    for (place, block) in blocks.iter().enumerate() {
        let path = path.entry(place);
        match read_block(block, path, conversation)? {
            ContentBlock::Part(part) => parts.push(unpacking.add_part(part)),
            ContentBlock::Carrier(carrier) => {
                if let Some(part) = unpacking.add_carrier(carrier, parts.last_mut()) {
                    parts.push(part);
                }
            }
        }
    }
    Ok((parts, unpacking.message_fields))
}

/// A block of a content: a part, or a carrier.
enum ContentBlock {
    Part(MessagePart),
    Carrier(Carrier),
}

fn read_block(
    block: &Value,
    path: FieldPath<'_>,
    conversation: &Conversation,
) -> Result<ContentBlock, CompatRefusal> {
    let mut part = match read_type(block, path)? {
        "text" => {
            let fields = RequestFields::read_known(block, path, &tables::TEXT)?;
            let mut part = convergio_domain::chat::TextPart::default();
            fields.require_text("text")?.clone_into(&mut part.text);
            part.native = fields.native_fields(OWN_INTERFACE);
            MessagePart::Text(part)
        }
        "image" => {
            let fields = RequestFields::read_known(block, path, &tables::IMAGE)?;
            read_image(block, fields.require_value("source")?, path.field("source"))?
        }
        "document" => read_document(block, path)?,
        "thinking" => return read_thinking(block, path),
        "redacted_thinking" => return read_redacted_thinking(block, path),
        "tool_use" => {
            let fields = RequestFields::read_known(block, path, &tables::TOOL_USE)?;
            MessagePart::ToolCall(ToolCall {
                id: fields.require_text("id")?.to_owned(),
                name: fields.require_text("name")?.to_owned(),
                arguments: fields.get("input").map_or_else(|| "{}".to_owned(), Value::to_string),
                native: fields.native_fields(OWN_INTERFACE),
                ..ToolCall::default()
            })
        }
        "tool_result" => MessagePart::ToolResult(read_tool_result(block, path, conversation)?),
        kind if tables::NATIVE_BLOCKS.contains(&kind) => native_part(block),
        kind => return Err(unknown_type(kind, path)),
    };
    // Read from the block itself: native blocks have no table.
    request_parts::set_cache_mark(
        &mut part,
        Some(&block["cache_control"]).filter(|mark| !mark.is_null()),
    );
    Ok(ContentBlock::Part(part))
}

fn native_part(block: &Value) -> MessagePart {
    MessagePart::Native(NativePart { interface: OWN_INTERFACE, block: block.clone() })
}

fn read_thinking(block: &Value, path: FieldPath<'_>) -> Result<ContentBlock, CompatRefusal> {
    let fields = RequestFields::read_known(block, path, &tables::THINKING)?;
    let (text, signature) = (fields.text_or_empty("thinking"), fields.text_or_empty("signature"));
    // A foreign thought's carrier stands in its signature; its text is in the block.
    match Carrier::unpack_text(&signature, path.field("signature"))? {
        Some(Carrier::Part(MessagePart::Thinking(carried))) => {
            Ok(ContentBlock::Part(MessagePart::Thinking(ThinkingPart { text, ..carried })))
        }
        Some(_) => Err(path.field("signature").refuse("is no mark of a thought")),
        None => {
            let part = ThinkingPart { text, signature, native: None };
            Ok(ContentBlock::Part(MessagePart::Thinking(part)))
        }
    }
}

fn read_redacted_thinking(
    block: &Value,
    path: FieldPath<'_>,
) -> Result<ContentBlock, CompatRefusal> {
    let fields = RequestFields::read_known(block, path, &tables::REDACTED_THINKING)?;
    match Carrier::unpack_text(fields.require_text("data")?, path.field("data"))? {
        Some(carrier) => Ok(ContentBlock::Carrier(carrier)),
        // Anthropic's own encrypted thought.
        None => Ok(ContentBlock::Part(native_part(block))),
    }
}

fn read_image(
    block: &Value,
    source: &Value,
    path: FieldPath<'_>,
) -> Result<MessagePart, CompatRefusal> {
    let fields = RequestFields::read_known(source, path, &tables::SOURCE)?;
    match fields.require_text("type")? {
        "base64" => {
            let media_type = fields.require_text("media_type")?.to_owned();
            let data = fields.require_text("data")?.to_owned();
            Ok(MessagePart::Image(ImagePart { media_type, data, ..ImagePart::default() }))
        }
        "url" => provider_urls::image_from_url(fields.require_text("url")?, path.field("url")),
        "file" => Ok(native_part(block)),
        kind => Err(unknown_type(kind, path)),
    }
}

fn read_document(block: &Value, path: FieldPath<'_>) -> Result<MessagePart, CompatRefusal> {
    let fields = RequestFields::read_known(block, path, &tables::DOCUMENT)?;
    let path = path.field("source");
    let source = RequestFields::read_known(fields.require_value("source")?, path, &tables::SOURCE)?;
    let media_type = source.text_or_empty("media_type");
    let file = match source.require_text("type")? {
        "base64" => {
            let data = Some(source.require_text("data")?.to_owned());
            FilePart { media_type, data, ..FilePart::default() }
        }
        "text" => {
            let text = Some(source.require_text("data")?.to_owned());
            FilePart { media_type, text, ..FilePart::default() }
        }
        "url" => {
            let url = source.require_text("url")?;
            provider_urls::check_provider_url(url, path.field("url"))?;
            FilePart { media_type, url: Some(url.to_owned()), ..FilePart::default() }
        }
        "content" | "file" => return Ok(native_part(block)),
        kind => return Err(unknown_type(kind, path)),
    };
    Ok(MessagePart::File(FilePart { native: fields.native_fields(OWN_INTERFACE), ..file }))
}

fn read_tool_result(
    block: &Value,
    path: FieldPath<'_>,
    conversation: &Conversation,
) -> Result<ToolResultPart, CompatRefusal> {
    let fields = RequestFields::read_known(block, path, &tables::TOOL_RESULT)?;
    let id = fields.require_text("tool_use_id")?.to_owned();
    let mut result = ToolResultPart {
        name: conversation.tool_name(&id),
        id,
        is_error: fields.get_flag("is_error").unwrap_or(false),
        ..ToolResultPart::default()
    };
    let parts = match fields.get("content") {
        Some(value) => read_content(value, path.field("content"), conversation)?.0,
        None => Vec::new(),
    };
    let is_answer = |part: &MessagePart| {
        matches!(
            part,
            MessagePart::Text(_)
                | MessagePart::Image(_)
                | MessagePart::ImageUrl(_)
                | MessagePart::File(_)
                | MessagePart::Native(_)
        )
    };
    // Checked here: the content of a result is read like any other content.
    if let Some(place) = parts.iter().position(|part| !is_answer(part)) {
        let path = path.field("content");
        return Err(path.entry(place).refuse("no tool answers with a block of this type"));
    }
    request_parts::set_result_parts(&mut result, parts);
    Ok(result)
}
