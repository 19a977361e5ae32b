//! Reads requests of responses.

use convergio_domain::chat::{
    AudioPart, ChatInterface, ChatMessage, ChatRequest, ChatToolSpec, FilePart, MessagePart,
    MessageRole, NativeFields, NativePart, RefusalPart, TextPart, ThinkingPart, ToolCall,
    ToolChoice, ToolResultPart,
};
use serde_json::{Map, Value};

use super::super::carrier::{Carrier, CarrierUnpacker};
use super::super::conversation::Conversation;
use super::super::field_table::{FieldPath, RequestFields, read_type, unknown_type};
use super::super::provider_urls;
use super::super::refusal::CompatRefusal;
use super::super::request_parts;
use super::super::stored_runs::StoredRuns;
use super::{ids, tables};

const OWN_INTERFACE: ChatInterface = ChatInterface::OpenAiResponses;

/// Reads a body, except what the dialect itself acts on (streaming).
pub(super) fn read_chat_body(
    body: &RequestFields<'_>,
    stored: &StoredRuns,
) -> Result<ChatRequest, CompatRefusal> {
    let root = FieldPath::ROOT;
    let mut request = ChatRequest {
        model: body.require_text("model")?.to_owned(),
        system: body.get_text("instructions").filter(|text| !text.is_empty()).map(str::to_owned),
        tool_choice: read_tool_choice(body, root)?,
        max_tokens: body.get_tokens("max_output_tokens"),
        temperature: body.get_number("temperature"),
        top_p: body.get_number("top_p"),
        options: body.chat_options().collect(),
        fallbacks: body.get_texts("models")?,
        native: body.native_fields(OWN_INTERFACE),
        door: Some(OWN_INTERFACE),
        ..ChatRequest::default()
    };
    if let Some(choice) = body.get("tool_choice").filter(|choice| choice["type"] == "custom") {
        // Only this interface has custom tools (free text).
        request_parts::add_native(&mut request, OWN_INTERFACE, "tool_choice", choice);
    }
    apply_text_options(body, root, &mut request)?;
    apply_reasoning(body, root, &mut request)?;
    let tools = root.field("tools");
    for (place, tool) in body.get_list("tools").iter().enumerate() {
        add_tool(tool, tools.entry(place), &mut request)?;
    }
    request.messages = read_messages(body, root, stored)?;
    Ok(request)
}

fn read_messages(
    body: &RequestFields<'_>,
    root: FieldPath<'_>,
    stored: &StoredRuns,
) -> Result<Vec<ChatMessage>, CompatRefusal> {
    // The stored conversation is complete: it holds what earlier references resolved to.
    let previous = match body.get_text("previous_response_id") {
        Some(id) => previous_messages(id, stored)?,
        None => Vec::new(),
    };
    let mut input = InputReader {
        conversation: Conversation::from_messages(previous),
        unpacking: CarrierUnpacker::default(),
        stored,
    };
    let path = root.field("input");
    match body.get("input") {
        Some(Value::String(text)) => {
            input.conversation.push(ChatMessage::from_text(MessageRole::User, text.as_str()));
        }
        _ => {
            for (place, item) in body.get_list("input").iter().enumerate() {
                input.add_item(item, path.entry(place))?;
            }
        }
    }
    if input.conversation.is_empty() && body.get_text("instructions").is_none() {
        return Err(path.refuse("must be text, or a list that has an entry at least"));
    }
    Ok(input.conversation.into_messages())
}

/// Returns the conversation up to the end of an earlier response.
fn previous_messages(id: &str, stored: &StoredRuns) -> Result<Vec<ChatMessage>, CompatRefusal> {
    let run = ids::run_of_response(id).and_then(|run| stored.get(run));
    let Some(run) = run.filter(|run| run.request.door == Some(OWN_INTERFACE)) else {
        let message = "there is no response of this id whose answer is known";
        let (code, param) = ("previous_response_not_found", "previous_response_id");
        return Err(CompatRefusal::missing_resource(code, param, message));
    };
    let mut messages = run.request.messages.clone();
    messages.push(ChatMessage::new(MessageRole::Assistant, run.reply.ordered_parts()));
    Ok(messages)
}

fn apply_text_options(
    body: &RequestFields<'_>,
    root: FieldPath<'_>,
    request: &mut ChatRequest,
) -> Result<(), CompatRefusal> {
    let Some(text) = body.get("text") else { return Ok(()) };
    let path = root.field("text");
    let text = RequestFields::read_known(text, path, &tables::TEXT_OPTIONS)?;
    request.options.extend(text.chat_options());
    let Some(format) = text.get("format") else { return Ok(()) };
    let fields = RequestFields::read_known(format, path.field("format"), &tables::FORMAT)?;
    match fields.require_text("type")? {
        "json_object" => request.json_object = true,
        "json_schema" => request_parts::set_schema(&fields, "schema", request)?,
        _ => {}
    }
    Ok(())
}

fn apply_reasoning(
    body: &RequestFields<'_>,
    root: FieldPath<'_>,
    request: &mut ChatRequest,
) -> Result<(), CompatRefusal> {
    let Some(reasoning) = body.get("reasoning") else { return Ok(()) };
    let fields = RequestFields::read_known(reasoning, root.field("reasoning"), &tables::REASONING)?;
    request.effort = fields.get_text("effort").map(str::to_owned);
    request.options.extend(fields.chat_options());
    if fields.native_fields(OWN_INTERFACE).is_some() {
        // Fields that only this interface has pass together with the rest of the object.
        request_parts::add_native(request, OWN_INTERFACE, "reasoning", reasoning);
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
    let native = fields.native_fields(OWN_INTERFACE);
    request.tools.push(ChatToolSpec { native, ..request_parts::read_tool(&fields, "parameters")? });
    Ok(())
}

fn read_tool_choice(
    body: &RequestFields<'_>,
    root: FieldPath<'_>,
) -> Result<ToolChoice, CompatRefusal> {
    let path = root.field("tool_choice");
    match body.get("tool_choice") {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => Ok(ToolChoice::Required),
            _ => Err(path.refuse("must be auto, none, required or a function")),
        },
        Some(choice) => {
            let fields = RequestFields::read_known(choice, path, &tables::TOOL_CHOICE)?;
            fields.require_text("type")?;
            Ok(ToolChoice::Named(fields.require_text("name")?.to_owned()))
        }
    }
}

/// Reads the items of a request one after the other.
struct InputReader<'a> {
    conversation: Conversation,
    unpacking: CarrierUnpacker,
    stored: &'a StoredRuns,
}

impl InputReader<'_> {
    fn add_part(&mut self, role: MessageRole, part: MessagePart) {
        let part = self.unpacking.add_part(part);
        self.conversation.add_part(role, part);
    }

    fn add_item(&mut self, item: &Value, path: FieldPath<'_>) -> Result<(), CompatRefusal> {
        let kind = if item["type"].is_null() && item.is_object() {
            // A message need not name its type.
            if item["role"].is_string() { "message" } else { "item_reference" }
        } else {
            read_type(item, path)?
        };
        match kind {
            "message" => self.add_message(item, path),
            "function_call" => {
                let part = read_call(item, path)?;
                self.add_part(MessageRole::Assistant, part);
                Ok(())
            }
            "function_call_output" => self.add_tool_result(item, path),
            "reasoning" => self.add_reasoning(item, path),
            "item_reference" => self.add_reference(item, path),
            // The side that answers a call is the user's.
            kind if tables::NATIVE_ITEMS.contains(&kind) => {
                let is_answer = kind.ends_with("_output") || kind == "mcp_approval_response";
                let role = if is_answer { MessageRole::User } else { MessageRole::Assistant };
                self.add_part(
                    role,
                    MessagePart::Native(NativePart {
                        interface: OWN_INTERFACE,
                        block: item.clone(),
                    }),
                );
                Ok(())
            }
            kind => Err(unknown_type(kind, path)),
        }
    }

    fn add_message(&mut self, item: &Value, path: FieldPath<'_>) -> Result<(), CompatRefusal> {
        let fields = RequestFields::read_known(item, path, &tables::MESSAGE)?;
        let role = match fields.require_text("role")? {
            "assistant" => MessageRole::Assistant,
            "system" => MessageRole::System,
            "developer" => MessageRole::Developer,
            _ => MessageRole::User,
        };
        let mut parts = read_content(fields.require_value("content")?, path.field("content"))?;
        let native = maker_fields(fields.native_fields(OWN_INTERFACE));
        if role != MessageRole::Assistant {
            self.conversation.push(ChatMessage { native, ..ChatMessage::new(role, parts) });
            return Ok(());
        }
        // An item holds fields of the message, a part those of its text: the first part carries
        // both.
        if let Some(native) = native
            && let Some(
                MessagePart::Text(TextPart { native: first, .. })
                | MessagePart::Refusal(RefusalPart { native: first, .. }),
            ) = parts.first_mut()
        {
            let none = || NativeFields { interface: OWN_INTERFACE, fields: Map::new() };
            first.get_or_insert_with(none).fields.extend(native.fields);
        }
        for part in parts {
            self.add_part(role, part);
        }
        Ok(())
    }

    fn add_tool_result(&mut self, item: &Value, path: FieldPath<'_>) -> Result<(), CompatRefusal> {
        let fields = RequestFields::read_known(item, path, &tables::FUNCTION_CALL_OUTPUT)?;
        let mut result = ToolResultPart {
            id: fields.require_text("call_id")?.to_owned(),
            native: maker_fields(fields.native_fields(OWN_INTERFACE)),
            ..ToolResultPart::default()
        };
        let parts = read_content(fields.require_value("output")?, path.field("output"))?;
        request_parts::set_result_parts(&mut result, parts);
        self.conversation.add_result(result);
        Ok(())
    }

    fn add_reasoning(&mut self, item: &Value, path: FieldPath<'_>) -> Result<(), CompatRefusal> {
        let fields = RequestFields::read_known(item, path, &tables::REASONING_ITEM)?;
        let sealed = fields.get_text("encrypted_content");
        let carrier = match sealed {
            Some(sealed) => Carrier::unpack_text(sealed, path.field("encrypted_content"))?,
            None => None,
        };
        if let Some(carrier) = carrier {
            // A carrier names the part before it, which is the last one read.
            let previous = self.conversation.last_part(MessageRole::Assistant);
            if let Some(part) = self.unpacking.add_carrier(carrier, previous) {
                self.conversation.add_part(MessageRole::Assistant, part);
            }
            if let Some(native) = self.unpacking.message_fields.take() {
                self.conversation.set_native(MessageRole::Assistant, native);
            }
            return Ok(());
        }
        let text = reasoning_text(&fields);
        // Our own reasoning items hold nothing that their maker needs.
        let is_ours = fields.get_text("id").is_some_and(|id| ids::parse_item_id(id).is_some());
        let native = match item {
            Value::Object(item) if !is_ours => {
                NativeFields::from_fields(OWN_INTERFACE, item.clone())
            }
            _ => None,
        };
        let part = MessagePart::Thinking(ThinkingPart { text, signature: String::new(), native });
        self.conversation.add_part(MessageRole::Assistant, part);
        Ok(())
    }

    /// Resolves a reference: items of our own replies are read from the log, others are the
    /// provider's.
    fn add_reference(&mut self, item: &Value, path: FieldPath<'_>) -> Result<(), CompatRefusal> {
        let path = path.field("id");
        let Some(id) = item["id"].as_str() else { return Err(path.refuse("missing")) };
        let Some((run, place)) = ids::parse_item_id(id) else {
            let part =
                MessagePart::Native(NativePart { interface: OWN_INTERFACE, block: item.clone() });
            self.add_part(MessageRole::Assistant, part);
            return Ok(());
        };
        // An item of carried fields adds nothing: the part itself brings them.
        let Some(place) = place else { return Ok(()) };
        let part =
            self.stored.get(run).and_then(|run| run.reply.ordered_parts().into_iter().nth(place));
        match part {
            Some(part) => self.conversation.add_part(MessageRole::Assistant, part),
            None => {
                let message = "there is no item of this id whose answer is known";
                return Err(CompatRefusal::missing_resource(
                    "not_found",
                    &path.to_string(),
                    message,
                ));
            }
        }
        Ok(())
    }
}

/// Returns the text of a reasoning item.
fn reasoning_text(fields: &RequestFields<'_>) -> String {
    let parts = fields.get_list("summary").iter().chain(fields.get_list("content"));
    let texts: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
    texts.join("\n\n")
}

/// Returns the fields of an item that mean something to its maker. Our own ids do not, nor does the
/// status of an item without a foreign id.
fn maker_fields(native: Option<NativeFields>) -> Option<NativeFields> {
    let mut fields = native?.fields;
    let is_makers = |id: &Value| id.as_str().is_none_or(|id| ids::parse_item_id(id).is_none());
    let has_id = fields.get("id").is_some_and(is_makers);
    fields.retain(|name, value| match name.as_str() {
        "id" => has_id,
        "status" => has_id || *value != "completed",
        _ => true,
    });
    NativeFields::from_fields(OWN_INTERFACE, fields)
}

fn read_call(item: &Value, path: FieldPath<'_>) -> Result<MessagePart, CompatRefusal> {
    let fields = RequestFields::read_known(item, path, &tables::FUNCTION_CALL)?;
    let arguments = fields.get_text("arguments").filter(|text| !text.trim().is_empty());
    Ok(MessagePart::ToolCall(ToolCall {
        id: fields.require_text("call_id")?.to_owned(),
        name: fields.require_text("name")?.to_owned(),
        arguments: arguments.unwrap_or("{}").to_owned(),
        native: maker_fields(fields.native_fields(OWN_INTERFACE)),
        ..ToolCall::default()
    }))
}

fn read_content(content: &Value, path: FieldPath<'_>) -> Result<Vec<MessagePart>, CompatRefusal> {
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
        "input_text" | "output_text" | "text" => {
            let fields = RequestFields::read_known(part, path, &tables::TEXT)?;
            let text = fields.require_text("text")?.to_owned();
            Ok(MessagePart::Text(TextPart {
                text,
                native: fields.native_fields(OWN_INTERFACE),
                ..TextPart::default()
            }))
        }
        "input_image" => {
            let fields = RequestFields::read_known(part, path, &tables::IMAGE)?;
            let mut image = provider_urls::image_from_url(
                fields.require_text("image_url")?,
                path.field("image_url"),
            )?;
            request_parts::set_image_detail(&mut image, fields.get_text("detail"));
            request_parts::set_native(&mut image, fields.native_fields(OWN_INTERFACE));
            Ok(image)
        }
        "input_file" => {
            let fields = RequestFields::read_known(part, path, &tables::FILE)?;
            let file = match (fields.get_text("file_data"), fields.get_text("file_url")) {
                (Some(data), _) => request_parts::file_from_data(data, path.field("file_data"))?,
                (None, Some(url)) => request_parts::file_from_url(url, path.field("file_url"))?,
                (None, None) => return Err(path.field("file_data").refuse("missing")),
            };
            let (name, native) = (
                fields.get_text("filename").map(str::to_owned),
                fields.native_fields(OWN_INTERFACE),
            );
            Ok(MessagePart::File(FilePart { name, native, ..file }))
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
            Ok(MessagePart::Audio(AudioPart { format, data, native: None }))
        }
        "refusal" => {
            let fields = RequestFields::read_known(part, path, &tables::REFUSAL)?;
            let text = fields.require_text("refusal")?.to_owned();
            Ok(MessagePart::Refusal(RefusalPart { text, native: None }))
        }
        kind => Err(unknown_type(kind, path)),
    }
}
