//! Reads requests of responses.

use convergio_domain::chat::{
    AudioPart, ChatRequest, FilePart, Interface, Message, NativeFields, NativePart, Part,
    RefusalPart, Role, TextPart, ThinkingPart, ToolCall, ToolChoice, ToolResultPart, ToolSpec,
};
use serde_json::{Map, Value};

use super::super::carrier::{Carrier, Unpacking};
use super::super::conversation::Conversation;
use super::super::known::{Fields, Path, kind_of, unknown_kind};
use super::super::parts;
use super::super::refusal::Refusal;
use super::super::stored::StoredRuns;
use super::super::urls;
use super::{ids, tables};

const OWN: Interface = Interface::OpenAiResponses;

/// Reads a body, except what the dialect itself acts on (streaming).
pub(super) fn request(body: &Fields<'_>, stored: &StoredRuns) -> Result<ChatRequest, Refusal> {
    let root = Path::ROOT;
    let mut request = ChatRequest {
        model: body.need_text("model")?.to_owned(),
        system: body.text("instructions").filter(|text| !text.is_empty()).map(str::to_owned),
        tool_choice: choice(body, root)?,
        max_tokens: body.tokens("max_output_tokens"),
        temperature: body.number("temperature"),
        top_p: body.number("top_p"),
        options: body.options().collect(),
        fallbacks: body.texts("models")?,
        native: body.native(OWN),
        door: Some(OWN),
        ..ChatRequest::default()
    };
    if let Some(choice) = body.get("tool_choice").filter(|choice| choice["type"] == "custom") {
        // Only this interface has custom tools (free text).
        parts::add_native(&mut request, OWN, "tool_choice", choice);
    }
    take_text(body, root, &mut request)?;
    take_reasoning(body, root, &mut request)?;
    let tools = root.field("tools");
    for (place, tool) in body.list("tools").iter().enumerate() {
        take_tool(tool, tools.entry(place), &mut request)?;
    }
    request.messages = messages(body, root, stored)?;
    Ok(request)
}

fn messages(
    body: &Fields<'_>,
    root: Path<'_>,
    stored: &StoredRuns,
) -> Result<Vec<Message>, Refusal> {
    // The stored conversation is complete: it holds what earlier references resolved to.
    let before = match body.text("previous_response_id") {
        Some(id) => previous(id, stored)?,
        None => Vec::new(),
    };
    let mut input = Input {
        conversation: Conversation::after(before),
        unpacking: Unpacking::default(),
        stored,
    };
    let path = root.field("input");
    match body.get("input") {
        Some(Value::String(text)) => {
            input.conversation.push(Message::text(Role::User, text.as_str()));
        }
        _ => {
            for (place, item) in body.list("input").iter().enumerate() {
                input.take(item, path.entry(place))?;
            }
        }
    }
    if input.conversation.is_empty() && body.text("instructions").is_none() {
        return Err(path.refuse("must be text, or a list that has an entry at least"));
    }
    Ok(input.conversation.into_messages())
}

/// Returns the conversation up to the end of an earlier response.
fn previous(id: &str, stored: &StoredRuns) -> Result<Vec<Message>, Refusal> {
    let run = ids::run_of_response(id).and_then(|run| stored.get(run));
    let Some(run) = run.filter(|run| run.request.door == Some(OWN)) else {
        let message = "there is no response of this id whose answer is known";
        let (code, param) = ("previous_response_not_found", "previous_response_id");
        return Err(Refusal::missing(code, param, message));
    };
    let mut messages = run.request.messages.clone();
    messages.push(Message::new(Role::Assistant, run.reply.parts()));
    Ok(messages)
}

fn take_text(body: &Fields<'_>, root: Path<'_>, request: &mut ChatRequest) -> Result<(), Refusal> {
    let Some(text) = body.get("text") else { return Ok(()) };
    let path = root.field("text");
    let text = Fields::read(text, path, &tables::TEXT_OPTIONS)?;
    request.options.extend(text.options());
    let Some(format) = text.get("format") else { return Ok(()) };
    let fields = Fields::read(format, path.field("format"), &tables::FORMAT)?;
    match fields.need_text("type")? {
        "json_object" => request.json_object = true,
        "json_schema" => parts::take_schema(&fields, "schema", request)?,
        _ => {}
    }
    Ok(())
}

fn take_reasoning(
    body: &Fields<'_>,
    root: Path<'_>,
    request: &mut ChatRequest,
) -> Result<(), Refusal> {
    let Some(reasoning) = body.get("reasoning") else { return Ok(()) };
    let fields = Fields::read(reasoning, root.field("reasoning"), &tables::REASONING)?;
    request.effort = fields.text("effort").map(str::to_owned);
    request.options.extend(fields.options());
    if fields.native(OWN).is_some() {
        // Fields that only this interface has pass together with the rest of the object.
        parts::add_native(request, OWN, "reasoning", reasoning);
    }
    Ok(())
}

fn take_tool(tool: &Value, path: Path<'_>, request: &mut ChatRequest) -> Result<(), Refusal> {
    if kind_of(tool, path)? != "function" {
        // A tool of the provider: it alone knows the fields.
        request.native_tools.push(NativePart { interface: OWN, block: tool.clone() });
        return Ok(());
    }
    let fields = Fields::read(tool, path, &tables::TOOL)?;
    let native = fields.native(OWN);
    request.tools.push(ToolSpec { native, ..parts::tool(&fields, "parameters")? });
    Ok(())
}

fn choice(body: &Fields<'_>, root: Path<'_>) -> Result<ToolChoice, Refusal> {
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
            let fields = Fields::read(choice, path, &tables::CHOICE)?;
            fields.need_text("type")?;
            Ok(ToolChoice::Named(fields.need_text("name")?.to_owned()))
        }
    }
}

/// Reads the items of a request one after the other.
struct Input<'a> {
    conversation: Conversation,
    unpacking: Unpacking,
    stored: &'a StoredRuns,
}

impl Input<'_> {
    fn add(&mut self, role: Role, part: Part) {
        let part = self.unpacking.part(part);
        self.conversation.add(role, part);
    }

    fn take(&mut self, item: &Value, path: Path<'_>) -> Result<(), Refusal> {
        let kind = if item["type"].is_null() && item.is_object() {
            // A message need not name its type.
            if item["role"].is_string() { "message" } else { "item_reference" }
        } else {
            kind_of(item, path)?
        };
        match kind {
            "message" => self.take_message(item, path),
            "function_call" => {
                let part = call(item, path)?;
                self.add(Role::Assistant, part);
                Ok(())
            }
            "function_call_output" => self.take_result(item, path),
            "reasoning" => self.take_reasoning(item, path),
            "item_reference" => self.take_reference(item, path),
            // The side that answers a call is the user's.
            kind if tables::NATIVE.contains(&kind) => {
                let is_answer = kind.ends_with("_output") || kind == "mcp_approval_response";
                let role = if is_answer { Role::User } else { Role::Assistant };
                self.add(role, Part::Native(NativePart { interface: OWN, block: item.clone() }));
                Ok(())
            }
            kind => Err(unknown_kind(kind, path)),
        }
    }

    fn take_message(&mut self, item: &Value, path: Path<'_>) -> Result<(), Refusal> {
        let fields = Fields::read(item, path, &tables::MESSAGE)?;
        let role = match fields.need_text("role")? {
            "assistant" => Role::Assistant,
            "system" => Role::System,
            "developer" => Role::Developer,
            _ => Role::User,
        };
        let mut parts = content(fields.need("content")?, path.field("content"))?;
        let native = item_fields(fields.native(OWN));
        if role != Role::Assistant {
            self.conversation.push(Message { native, ..Message::new(role, parts) });
            return Ok(());
        }
        // An item holds fields of the message, a part those of its text: the first part carries
        // both.
        if let Some(native) = native
            && let Some(
                Part::Text(TextPart { native: first, .. })
                | Part::Refusal(RefusalPart { native: first, .. }),
            ) = parts.first_mut()
        {
            let none = || NativeFields { interface: OWN, fields: Map::new() };
            first.get_or_insert_with(none).fields.extend(native.fields);
        }
        for part in parts {
            self.add(role, part);
        }
        Ok(())
    }

    fn take_result(&mut self, item: &Value, path: Path<'_>) -> Result<(), Refusal> {
        let fields = Fields::read(item, path, &tables::RESULT)?;
        let mut result = ToolResultPart {
            id: fields.need_text("call_id")?.to_owned(),
            native: item_fields(fields.native(OWN)),
            ..ToolResultPart::default()
        };
        let parts = content(fields.need("output")?, path.field("output"))?;
        parts::set_answer(&mut result, parts);
        self.conversation.add_result(result);
        Ok(())
    }

    fn take_reasoning(&mut self, item: &Value, path: Path<'_>) -> Result<(), Refusal> {
        let fields = Fields::read(item, path, &tables::REASONING_ITEM)?;
        let sealed = fields.text("encrypted_content");
        let carrier = match sealed {
            Some(sealed) => Carrier::unpack(sealed, path.field("encrypted_content"))?,
            None => None,
        };
        if let Some(carrier) = carrier {
            // A carrier names the part before it, which is the last one read.
            let previous = self.conversation.last_part(Role::Assistant);
            if let Some(part) = self.unpacking.carrier(carrier, previous) {
                self.conversation.add(Role::Assistant, part);
            }
            if let Some(native) = self.unpacking.message.take() {
                self.conversation.set_native(Role::Assistant, native);
            }
            return Ok(());
        }
        let text = thought(&fields);
        // Our own reasoning items hold nothing that their maker needs.
        let is_ours = fields.text("id").is_some_and(|id| ids::origin(id).is_some());
        let native = match item {
            Value::Object(item) if !is_ours => NativeFields::of(OWN, item.clone()),
            _ => None,
        };
        let part = Part::Thinking(ThinkingPart { text, signature: String::new(), native });
        self.conversation.add(Role::Assistant, part);
        Ok(())
    }

    /// Resolves a reference: items of our own replies are read from the log, others are the
    /// provider's.
    fn take_reference(&mut self, item: &Value, path: Path<'_>) -> Result<(), Refusal> {
        let path = path.field("id");
        let Some(id) = item["id"].as_str() else { return Err(path.refuse("missing")) };
        let Some((run, place)) = ids::origin(id) else {
            let part = Part::Native(NativePart { interface: OWN, block: item.clone() });
            self.add(Role::Assistant, part);
            return Ok(());
        };
        // An item of carried fields adds nothing: the part itself brings them.
        let Some(place) = place else { return Ok(()) };
        let part = self.stored.get(run).and_then(|run| run.reply.parts().into_iter().nth(place));
        match part {
            Some(part) => self.conversation.add(Role::Assistant, part),
            None => {
                let message = "there is no item of this id whose answer is known";
                return Err(Refusal::missing("not_found", &path.to_string(), message));
            }
        }
        Ok(())
    }
}

/// Returns the text of a reasoning item.
fn thought(fields: &Fields<'_>) -> String {
    let parts = fields.list("summary").iter().chain(fields.list("content"));
    let texts: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
    texts.join("\n\n")
}

/// Returns the fields of an item that mean something to its maker. Our own ids do not, nor does the
/// status of an item without a foreign id.
fn item_fields(native: Option<NativeFields>) -> Option<NativeFields> {
    let mut fields = native?.fields;
    let is_makers = |id: &Value| id.as_str().is_none_or(|id| ids::origin(id).is_none());
    let has_id = fields.get("id").is_some_and(is_makers);
    fields.retain(|name, value| match name.as_str() {
        "id" => has_id,
        "status" => has_id || *value != "completed",
        _ => true,
    });
    NativeFields::of(OWN, fields)
}

fn call(item: &Value, path: Path<'_>) -> Result<Part, Refusal> {
    let fields = Fields::read(item, path, &tables::CALL)?;
    let arguments = fields.text("arguments").filter(|text| !text.trim().is_empty());
    Ok(Part::ToolCall(ToolCall {
        id: fields.need_text("call_id")?.to_owned(),
        name: fields.need_text("name")?.to_owned(),
        arguments: arguments.unwrap_or("{}").to_owned(),
        native: item_fields(fields.native(OWN)),
        ..ToolCall::default()
    }))
}

fn content(content: &Value, path: Path<'_>) -> Result<Vec<Part>, Refusal> {
    match content {
        Value::Array(list) => {
            let places = list.iter().enumerate();
            places.map(|(place, part)| read_part(part, path.entry(place))).collect()
        }
        text => Ok(vec![Part::text(text.as_str().unwrap_or_default())]),
    }
}

fn read_part(part: &Value, path: Path<'_>) -> Result<Part, Refusal> {
    match kind_of(part, path)? {
        "input_text" | "output_text" | "text" => {
            let fields = Fields::read(part, path, &tables::TEXT)?;
            let text = fields.need_text("text")?.to_owned();
            Ok(Part::Text(TextPart { text, native: fields.native(OWN), ..TextPart::default() }))
        }
        "input_image" => {
            let fields = Fields::read(part, path, &tables::IMAGE)?;
            let mut image = urls::image(fields.need_text("image_url")?, path.field("image_url"))?;
            parts::set_detail(&mut image, fields.text("detail"));
            parts::set_native(&mut image, fields.native(OWN));
            Ok(image)
        }
        "input_file" => {
            let fields = Fields::read(part, path, &tables::FILE)?;
            let file = match (fields.text("file_data"), fields.text("file_url")) {
                (Some(data), _) => parts::file_of_data(data, path.field("file_data"))?,
                (None, Some(url)) => parts::file_of_url(url, path.field("file_url"))?,
                (None, None) => return Err(path.field("file_data").refuse("missing")),
            };
            let (name, native) = (fields.text("filename").map(str::to_owned), fields.native(OWN));
            Ok(Part::File(FilePart { name, native, ..file }))
        }
        "input_audio" => {
            let fields = Fields::read(part, path, &tables::AUDIO)?;
            let path = path.field("input_audio");
            let audio = Fields::read(fields.need("input_audio")?, path, &tables::INPUT_AUDIO)?;
            let format = audio.need_text("format")?.to_owned();
            let data = audio.need_text("data")?.to_owned();
            Ok(Part::Audio(AudioPart { format, data, native: None }))
        }
        "refusal" => {
            let fields = Fields::read(part, path, &tables::REFUSAL)?;
            let text = fields.need_text("refusal")?.to_owned();
            Ok(Part::Refusal(RefusalPart { text, native: None }))
        }
        kind => Err(unknown_kind(kind, path)),
    }
}
