//! Reads requests of chat completions.

use convergio_domain::chat::{
    AudioPart, ChatInterface, ChatMessage, ChatRequest, ChatToolSpec, FilePart, MessagePart,
    MessageRole, NativeFields, NativePart, RefusalPart, ThinkingPart, ToolCall, ToolChoice,
    ToolResultPart,
};
use serde_json::Value;

use super::super::carrier::{Carrier, PartSlot, attach_fields};
use super::super::conversation::Conversation;
use super::super::field_table::{FieldPath, RequestFields, read_type, unknown_type};
use super::super::provider_urls;
use super::super::refusal::CompatRefusal;
use super::super::request_parts;
use super::tables;

const OWN_INTERFACE: ChatInterface = ChatInterface::OpenAiChat;

/// Reads a body, except what the dialect itself acts on (streaming).
pub(super) fn read_chat_body(body: &RequestFields<'_>) -> Result<ChatRequest, CompatRefusal> {
    let root = FieldPath::ROOT;
    let mut request = ChatRequest {
        model: body.require_text("model")?.to_owned(),
        tool_choice: read_tool_choice(body, root)?,
        max_tokens: read_token_limit(body, root)?,
        temperature: body.get_number("temperature"),
        top_p: body.get_number("top_p"),
        stop: body.get_texts("stop")?,
        seed: body.get("seed").and_then(Value::as_i64),
        effort: read_effort(body, root)?,
        options: body.chat_options().collect(),
        fallbacks: body.get_texts("models")?,
        native: body.native_fields(OWN_INTERFACE),
        door: Some(OWN_INTERFACE),
        ..ChatRequest::default()
    };
    keep_custom_choice(body, &mut request);
    apply_response_format(body, root, &mut request)?;
    let tools = root.field("tools");
    for (place, tool) in body.get_list("tools").iter().enumerate() {
        add_tool(tool, tools.entry(place), &mut request)?;
    }
    let mut conversation = Conversation::default();
    let messages = root.field("messages");
    for (place, message) in body.get_list("messages").iter().enumerate() {
        add_message(message, messages.entry(place), &mut conversation)?;
    }
    if conversation.is_empty() {
        return Err(messages.refuse("must have an entry at least"));
    }
    request.messages = conversation.into_messages();
    Ok(request)
}

/// Reads the output limit, which has two names. They must agree, because one would be ignored
/// otherwise.
fn read_token_limit(
    body: &RequestFields<'_>,
    root: FieldPath<'_>,
) -> Result<Option<u32>, CompatRefusal> {
    let (younger, older) =
        (body.get_tokens("max_completion_tokens"), body.get_tokens("max_tokens"));
    match (younger, older) {
        (Some(younger), Some(older)) if younger != older => {
            Err(root.field("max_tokens").refuse("is not max_completion_tokens: leave one out"))
        }
        _ => Ok(younger.or(older)),
    }
}

/// Keeps the choice of a custom tool, which only this interface has.
fn keep_custom_choice(body: &RequestFields<'_>, request: &mut ChatRequest) {
    if let Some(choice) = body.get("tool_choice").filter(|choice| choice["type"] == "custom") {
        request_parts::add_native(request, OWN_INTERFACE, "tool_choice", choice);
    }
}

fn read_effort(
    body: &RequestFields<'_>,
    root: FieldPath<'_>,
) -> Result<Option<String>, CompatRefusal> {
    let reasoning = match body.get("reasoning") {
        Some(reasoning) => {
            let fields =
                RequestFields::read_known(reasoning, root.field("reasoning"), &tables::REASONING)?;
            fields.get_text("effort")
        }
        None => None,
    };
    // `reasoning` is OpenRouter's name of the same setting.
    match (body.get_text("reasoning_effort"), reasoning) {
        (Some(effort), Some(other)) if effort != other => {
            let path = root.field("reasoning");
            Err(path.field("effort").refuse("is not reasoning_effort: leave one out"))
        }
        (effort, other) => Ok(effort.or(other).map(str::to_owned)),
    }
}

fn apply_response_format(
    body: &RequestFields<'_>,
    root: FieldPath<'_>,
    request: &mut ChatRequest,
) -> Result<(), CompatRefusal> {
    let Some(format) = body.get("response_format") else { return Ok(()) };
    let path = root.field("response_format");
    let fields = RequestFields::read_known(format, path, &tables::RESPONSE_FORMAT)?;
    match fields.require_text("type")? {
        "json_object" => request.json_object = true,
        "json_schema" => {
            let schema = fields.require_value("json_schema")?;
            let schema =
                RequestFields::read_known(schema, path.field("json_schema"), &tables::JSON_SCHEMA)?;
            request_parts::set_schema(&schema, "schema", request)?;
        }
        _ => {}
    }
    Ok(())
}

fn add_tool(
    tool: &Value,
    path: FieldPath<'_>,
    request: &mut ChatRequest,
) -> Result<(), CompatRefusal> {
    if read_type(tool, path)? != "function" {
        // A tool of the provider: it alone knows the fields.
        request.native_tools.push(NativePart { interface: OWN_INTERFACE, block: tool.clone() });
        return Ok(());
    }
    let fields = RequestFields::read_known(tool, path, &tables::TOOL)?;
    let path = path.field("function");
    let function =
        RequestFields::read_known(fields.require_value("function")?, path, &tables::FUNCTION)?;
    let mark = fields.get("cache_control").or(function.get("cache_control")).cloned();
    let tool = request_parts::read_tool(&function, "parameters")?;
    request.tools.push(ChatToolSpec { cache_control: mark, ..tool });
    Ok(())
}

fn read_tool_choice(
    body: &RequestFields<'_>,
    root: FieldPath<'_>,
) -> Result<ToolChoice, CompatRefusal> {
    let path = root.field("tool_choice");
    let choice = match body.get("tool_choice") {
        None => return Ok(ToolChoice::Auto),
        Some(Value::String(word)) => {
            return match word.as_str() {
                "auto" => Ok(ToolChoice::Auto),
                "none" => Ok(ToolChoice::None),
                "required" | "any" => Ok(ToolChoice::Required),
                _ => Err(path.refuse("must be auto, none, required or a function")),
            };
        }
        Some(choice) => RequestFields::read_known(choice, path, &tables::TOOL_CHOICE)?,
    };
    let kind = choice.require_text("type")?;
    let place = path.field(kind);
    let fields =
        RequestFields::read_known(choice.require_value(kind)?, place, &tables::TOOL_CHOICE_NAME)?;
    Ok(ToolChoice::Named(fields.require_text("name")?.to_owned()))
}

/// Adds a message of any role.
fn add_message(
    message: &Value,
    path: FieldPath<'_>,
    conversation: &mut Conversation,
) -> Result<(), CompatRefusal> {
    let role = match message["role"].as_str() {
        Some("system") => MessageRole::System,
        Some("developer") => MessageRole::Developer,
        Some("user") => MessageRole::User,
        Some("assistant") => return add_assistant_message(message, path, conversation),
        Some("tool") => return add_tool_result(message, path, conversation),
        // Otherwise `message["role"]` of a list or text would be reported as a bad role.
        _ if !message.is_object() => return Err(path.refuse("must be an object")),
        _ => {
            let message = "must be system, developer, user, assistant or tool";
            return Err(path.field("role").refuse(message));
        }
    };
    let fields = RequestFields::read_known(message, path, &tables::MESSAGE)?;
    let parts = read_content(&fields, path)?;
    if parts.is_empty() {
        return Err(path.field("content").refuse("missing"));
    }
    let name = fields.get_text("name").map(str::to_owned);
    conversation.push(ChatMessage { name, ..ChatMessage::new(role, parts) });
    Ok(())
}

fn add_tool_result(
    message: &Value,
    path: FieldPath<'_>,
    conversation: &mut Conversation,
) -> Result<(), CompatRefusal> {
    let fields = RequestFields::read_known(message, path, &tables::TOOL_MESSAGE)?;
    let mut result = ToolResultPart {
        id: fields.require_text("tool_call_id")?.to_owned(),
        // Names are optional in this format; the conversation fills them in.
        name: fields.text_or_empty("name"),
        cache_control: fields.get("cache_control").cloned(),
        ..ToolResultPart::default()
    };
    let path = path.field("content");
    let parts = match fields.get("content") {
        Some(content) => read_content_parts(content, path)?,
        None => Vec::new(),
    };
    request_parts::set_result_parts(&mut result, parts);
    conversation.add_result(result);
    Ok(())
}

/// Reads the content of a message; the message's cache mark goes to its last part.
fn read_content(
    fields: &RequestFields<'_>,
    path: FieldPath<'_>,
) -> Result<Vec<MessagePart>, CompatRefusal> {
    let path = path.field("content");
    let mut parts = match fields.get("content") {
        Some(content) => read_content_parts(content, path)?,
        None => Vec::new(),
    };
    if let Some(last) = parts.last_mut() {
        request_parts::set_cache_mark(last, fields.get("cache_control"));
    }
    Ok(parts)
}

fn read_content_parts(
    content: &Value,
    path: FieldPath<'_>,
) -> Result<Vec<MessagePart>, CompatRefusal> {
    match content {
        Value::Array(list) => {
            let places = list.iter().enumerate();
            places.map(|(place, part)| read_part(part, path.entry(place))).collect()
        }
        text => Ok(vec![MessagePart::from_text(text.as_str().unwrap_or_default())]),
    }
}

fn read_part(part: &Value, path: FieldPath<'_>) -> Result<MessagePart, CompatRefusal> {
    match read_type(part, path)? {
        "text" => {
            let fields = RequestFields::read_known(part, path, &tables::TEXT)?;
            Ok(with_part_fields(MessagePart::from_text(fields.require_text("text")?), &fields))
        }
        "image_url" => {
            let fields = RequestFields::read_known(part, path, &tables::IMAGE)?;
            let part = read_image(fields.require_value("image_url")?, path.field("image_url"))?;
            Ok(with_part_fields(part, &fields))
        }
        "input_audio" => {
            let fields = RequestFields::read_known(part, path, &tables::AUDIO)?;
            let path = path.field("input_audio");
            let audio = RequestFields::read_known(
                fields.require_value("input_audio")?,
                path,
                &tables::INPUT_AUDIO,
            )?;
            let format = audio.require_text("format")?.to_owned();
            let data = audio.require_text("data")?.to_owned();
            Ok(MessagePart::Audio(AudioPart {
                format,
                data,
                native: fields.native_fields(OWN_INTERFACE),
            }))
        }
        "file" => {
            let fields = RequestFields::read_known(part, path, &tables::FILE)?;
            let path = path.field("file");
            let file = RequestFields::read_known(
                fields.require_value("file")?,
                path,
                &tables::INPUT_FILE,
            )?;
            let name = file.get_text("filename").map(str::to_owned);
            let data = request_parts::file_from_data(
                file.require_text("file_data")?,
                path.field("file_data"),
            )?;
            Ok(with_part_fields(MessagePart::File(FilePart { name, ..data }), &fields))
        }
        "refusal" => {
            let fields = RequestFields::read_known(part, path, &tables::REFUSAL)?;
            let text = fields.require_text("refusal")?.to_owned();
            Ok(MessagePart::Refusal(RefusalPart { text, native: None }))
        }
        kind => Err(unknown_type(kind, path)),
    }
}

/// Adds cache mark and native fields to a part.
fn with_part_fields(mut part: MessagePart, fields: &RequestFields<'_>) -> MessagePart {
    request_parts::set_cache_mark(&mut part, fields.get("cache_control"));
    request_parts::set_native(&mut part, fields.native_fields(OWN_INTERFACE));
    part
}

fn read_image(value: &Value, path: FieldPath<'_>) -> Result<MessagePart, CompatRefusal> {
    if let Value::String(url) = value {
        return provider_urls::image_from_url(url, path);
    }
    let fields = RequestFields::read_known(value, path, &tables::IMAGE_URL)?;
    let mut part = provider_urls::image_from_url(fields.require_text("url")?, path.field("url"))?;
    request_parts::set_image_detail(&mut part, fields.get_text("detail"));
    Ok(part)
}

/// Adds an earlier reply of the model. Carriers restore what this format could not express.
fn add_assistant_message(
    message: &Value,
    path: FieldPath<'_>,
    conversation: &mut Conversation,
) -> Result<(), CompatRefusal> {
    let fields = RequestFields::read_known(message, path, &tables::ASSISTANT_MESSAGE)?;
    let (carried, details) = read_reasoning_details(&fields, path)?;
    let mut parts = Vec::new();
    let is_thought = |(_, carrier): &(usize, Carrier)| {
        matches!(carrier, Carrier::Part(MessagePart::Thinking(_)))
    };
    let thought = fields.get_text("reasoning_content").or(fields.get_text("reasoning"));
    // A thought that a carrier holds whole is not added a second time.
    if let Some(text) = thought.filter(|text| !text.is_empty() && !carried.iter().any(is_thought)) {
        parts.push(MessagePart::Thinking(ThinkingPart {
            text: text.to_owned(),
            ..Default::default()
        }));
    }
    parts.extend(read_content(&fields, path)?);
    if let Some(text) = fields.get_text("refusal") {
        parts.push(MessagePart::Refusal(RefusalPart { text: text.to_owned(), native: None }));
    }
    let calls = path.field("tool_calls");
    for (place, call) in fields.get_list("tool_calls").iter().enumerate() {
        parts.push(read_call(call, calls.entry(place))?);
    }
    let (parts, carried) = restore_order(parts, carried);
    let parts = insert_carried(parts, carried);
    // An assistant message without any part says nothing.
    if parts.is_empty() {
        return Ok(());
    }
    let mut native = fields.native_fields(OWN_INTERFACE);
    if !details.is_empty() {
        let none = || NativeFields { interface: OWN_INTERFACE, fields: serde_json::Map::new() };
        let fields = &mut native.get_or_insert_with(none).fields;
        fields.insert("reasoning_details".to_owned(), Value::Array(details));
    }
    let name = fields.get_text("name").map(str::to_owned);
    let message = ChatMessage { role: MessageRole::Assistant, parts, name, native };
    conversation.push(message);
    Ok(())
}

type CarriedParts = Vec<(usize, Carrier)>;

/// Separates our carriers in `reasoning_details`, sorted by their index among the parts, from the
/// provider's details.
fn read_reasoning_details(
    fields: &RequestFields<'_>,
    path: FieldPath<'_>,
) -> Result<(CarriedParts, Vec<Value>), CompatRefusal> {
    let path = path.field("reasoning_details");
    let (mut carried, mut details) = (Vec::new(), Vec::new());
    for (place, detail) in fields.get_list("reasoning_details").iter().enumerate() {
        let path = path.entry(place);
        let carrier = match &detail["data"] {
            Value::String(data) => Carrier::unpack_text(data, path.field("data"))?,
            _ => None,
        };
        match carrier {
            Some(carrier) => {
                let index = detail["index"].as_u64().and_then(|index| usize::try_from(index).ok());
                carried.push((index.unwrap_or(usize::MAX), carrier));
            }
            None => details.push(detail.clone()),
        }
    }
    // Stable for carriers of one index: their order in the message is kept.
    carried.sort_by_key(|(index, _)| *index);
    Ok((carried, details))
}

/// Restores the recorded order of the parts. If the client has changed them since, carried fields
/// are dropped: they would land on the wrong parts.
fn restore_order(
    plain: Vec<MessagePart>,
    mut carried: CarriedParts,
) -> (Vec<MessagePart>, CarriedParts) {
    let order_index = carried.iter().position(|(_, carrier)| matches!(carrier, Carrier::Order(_)));
    // At most one carrier of order counts; further ones are ignored by `insert_carried`.
    let Some((_, Carrier::Order(slots))) = order_index.map(|place| carried.remove(place)) else {
        return (plain, carried);
    };
    match order_parts(&plain, &slots) {
        // The mark of the message belongs to its last part, which may be another one now.
        Some(mut parts) => {
            let mark = plain.iter().rev().find_map(MessagePart::cache_control);
            if let (Some(mark), Some(last)) = (mark, parts.last_mut()) {
                request_parts::set_cache_mark(last, Some(mark));
            }
            (parts, carried)
        }
        None => {
            carried.retain(|(_, carrier)| matches!(carrier, Carrier::Part(_)));
            (plain, carried)
        }
    }
}

/// Cuts the joined texts into the recorded pieces; `None` if they do not match. Carried parts are
/// inserted later.
fn order_parts(plain: &[MessagePart], slots: &[PartSlot]) -> Option<Vec<MessagePart>> {
    let joined =
        |of: fn(&MessagePart) -> Option<&str>| plain.iter().filter_map(of).collect::<String>();
    let (text, refusal) = (joined(part_text), joined(part_refusal));
    let (mut text, mut refusal) = (text.as_str(), refusal.as_str());
    let is_call =
        |part: &&MessagePart| matches!(part, MessagePart::ToolCall(_) | MessagePart::Native(_));
    let mut calls = plain.iter().filter(is_call);
    let mut thoughts = plain.iter().filter(|part| matches!(part, MessagePart::Thinking(_)));
    let mut parts = Vec::with_capacity(slots.len());
    for slot in slots {
        match slot {
            PartSlot::Text(bytes) => {
                parts.push(MessagePart::from_text(split_prefix(&mut text, *bytes)?));
            }
            PartSlot::Refusal(bytes) => {
                let text = split_prefix(&mut refusal, *bytes)?.to_owned();
                parts.push(MessagePart::Refusal(RefusalPart { text, native: None }));
            }
            PartSlot::Thought => parts.push(thoughts.next()?.clone()),
            PartSlot::Call => parts.push(calls.next()?.clone()),
            PartSlot::Carried => {}
        }
    }
    // Something left over means that the client has edited the message.
    let is_whole = text.is_empty() && refusal.is_empty() && calls.next().is_none();
    is_whole.then_some(parts)
}

fn part_text(part: &MessagePart) -> Option<&str> {
    match part {
        MessagePart::Text(part) => Some(&part.text),
        _ => None,
    }
}

fn part_refusal(part: &MessagePart) -> Option<&str> {
    match part {
        MessagePart::Refusal(part) => Some(&part.text),
        _ => None,
    }
}

/// Splits a prefix off the text; `None` beyond its end or within a character.
fn split_prefix<'a>(text: &mut &'a str, bytes: usize) -> Option<&'a str> {
    let (begin, rest) = text.split_at_checked(bytes)?;
    *text = rest;
    Some(begin)
}

/// Inserts carried parts at their index, and attaches carried fields to the part at theirs.
fn insert_carried(plain: Vec<MessagePart>, carried: CarriedParts) -> Vec<MessagePart> {
    let mut parts: Vec<MessagePart> = Vec::with_capacity(plain.len() + carried.len());
    let mut plain = plain.into_iter();
    for (index, carrier) in carried {
        // Number of parts before the carrier's place; for fields the part itself must exist.
        let preceding_parts = match carrier {
            Carrier::Part(_) => index,
            _ => index.saturating_add(1),
        };
        while parts.len() < preceding_parts
            && let Some(part) = plain.next()
        {
            parts.push(part);
        }
        match carrier {
            Carrier::Part(part) => parts.push(part),
            Carrier::Next(fields) | Carrier::Previous(fields) => {
                if let Some(part) = parts.get_mut(index) {
                    attach_fields(fields, part);
                }
            }
            Carrier::Message(_) | Carrier::Order(_) => {}
        }
    }
    parts.extend(plain);
    parts
}

fn read_call(call: &Value, path: FieldPath<'_>) -> Result<MessagePart, CompatRefusal> {
    if call["type"].as_str().is_some_and(|kind| kind != "function") {
        return Ok(MessagePart::Native(NativePart {
            interface: OWN_INTERFACE,
            block: call.clone(),
        }));
    }
    let fields = RequestFields::read_known(call, path, &tables::TOOL_CALL)?;
    let function = path.field("function");
    let function = RequestFields::read_known(
        fields.require_value("function")?,
        function,
        &tables::CALLED_FUNCTION,
    )?;
    let arguments = function.get_text("arguments").filter(|text| !text.trim().is_empty());
    Ok(MessagePart::ToolCall(ToolCall {
        id: fields.require_text("id")?.to_owned(),
        name: function.require_text("name")?.to_owned(),
        arguments: arguments.unwrap_or("{}").to_owned(),
        cache_control: fields.get("cache_control").cloned(),
        native: call_native_fields(&fields, path)?,
    }))
}

/// Reads the native fields of a tool call; Google's thought signature may be a carrier.
fn call_native_fields(
    fields: &RequestFields<'_>,
    path: FieldPath<'_>,
) -> Result<Option<NativeFields>, CompatRefusal> {
    let mark = fields.get("extra_content").map(|extra| &extra["google"]["thought_signature"]);
    if let Some(Value::String(mark)) = mark {
        let path = path.field("extra_content");
        if let Some(Carrier::Next(native) | Carrier::Previous(native)) =
            Carrier::unpack_text(mark, path)?
        {
            return Ok(Some(native));
        }
    }
    Ok(fields.native_fields(OWN_INTERFACE))
}
