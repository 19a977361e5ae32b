//! Reads requests of chat completions.

use convergio_domain::chat::{
    AudioPart, ChatRequest, FilePart, Interface, Message, NativeFields, NativePart, Part,
    RefusalPart, Role, ThinkingPart, ToolCall, ToolChoice, ToolResultPart, ToolSpec,
};
use serde_json::Value;

use super::super::carrier::{Carrier, Slot, attach};
use super::super::conversation::Conversation;
use super::super::known::{Fields, Path, kind_of, unknown_kind};
use super::super::parts;
use super::super::refusal::Refusal;
use super::super::urls;
use super::tables;

const OWN: Interface = Interface::OpenAiChat;

/// Reads a body, except what the dialect itself acts on (streaming).
pub(super) fn request(body: &Fields<'_>) -> Result<ChatRequest, Refusal> {
    let root = Path::ROOT;
    let mut request = ChatRequest {
        model: body.need_text("model")?.to_owned(),
        tool_choice: choice(body, root)?,
        max_tokens: limit(body, root)?,
        temperature: body.number("temperature"),
        top_p: body.number("top_p"),
        stop: body.texts("stop")?,
        seed: body.get("seed").and_then(Value::as_i64),
        effort: effort(body, root)?,
        options: body.options().collect(),
        fallbacks: body.texts("models")?,
        native: body.native(OWN),
        door: Some(OWN),
        ..ChatRequest::default()
    };
    keep_custom_choice(body, &mut request);
    take_format(body, root, &mut request)?;
    let tools = root.field("tools");
    for (place, tool) in body.list("tools").iter().enumerate() {
        take_tool(tool, tools.entry(place), &mut request)?;
    }
    let mut conversation = Conversation::default();
    let messages = root.field("messages");
    for (place, message) in body.list("messages").iter().enumerate() {
        take_message(message, messages.entry(place), &mut conversation)?;
    }
    if conversation.is_empty() {
        return Err(messages.refuse("must have an entry at least"));
    }
    request.messages = conversation.into_messages();
    Ok(request)
}

/// Reads the output limit, which has two names. They must agree, because one would be ignored
/// otherwise.
fn limit(body: &Fields<'_>, root: Path<'_>) -> Result<Option<u32>, Refusal> {
    let (younger, older) = (body.tokens("max_completion_tokens"), body.tokens("max_tokens"));
    match (younger, older) {
        (Some(younger), Some(older)) if younger != older => {
            Err(root.field("max_tokens").refuse("is not max_completion_tokens: leave one out"))
        }
        _ => Ok(younger.or(older)),
    }
}

/// Keeps the choice of a custom tool, which only this interface has.
fn keep_custom_choice(body: &Fields<'_>, request: &mut ChatRequest) {
    if let Some(choice) = body.get("tool_choice").filter(|choice| choice["type"] == "custom") {
        parts::add_native(request, OWN, "tool_choice", choice);
    }
}

fn effort(body: &Fields<'_>, root: Path<'_>) -> Result<Option<String>, Refusal> {
    let reasoning = match body.get("reasoning") {
        Some(reasoning) => {
            let fields = Fields::read(reasoning, root.field("reasoning"), &tables::REASONING)?;
            fields.text("effort")
        }
        None => None,
    };
    // `reasoning` is OpenRouter's name of the same setting.
    match (body.text("reasoning_effort"), reasoning) {
        (Some(effort), Some(other)) if effort != other => {
            let path = root.field("reasoning");
            Err(path.field("effort").refuse("is not reasoning_effort: leave one out"))
        }
        (effort, other) => Ok(effort.or(other).map(str::to_owned)),
    }
}

fn take_format(
    body: &Fields<'_>,
    root: Path<'_>,
    request: &mut ChatRequest,
) -> Result<(), Refusal> {
    let Some(format) = body.get("response_format") else { return Ok(()) };
    let path = root.field("response_format");
    let fields = Fields::read(format, path, &tables::RESPONSE_FORMAT)?;
    match fields.need_text("type")? {
        "json_object" => request.json_object = true,
        "json_schema" => {
            let schema = fields.need("json_schema")?;
            let schema = Fields::read(schema, path.field("json_schema"), &tables::JSON_SCHEMA)?;
            parts::take_schema(&schema, "schema", request)?;
        }
        _ => {}
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
    let path = path.field("function");
    let function = Fields::read(fields.need("function")?, path, &tables::FUNCTION)?;
    let mark = fields.get("cache_control").or(function.get("cache_control")).cloned();
    let tool = parts::tool(&function, "parameters")?;
    request.tools.push(ToolSpec { cache_control: mark, ..tool });
    Ok(())
}

fn choice(body: &Fields<'_>, root: Path<'_>) -> Result<ToolChoice, Refusal> {
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
        Some(choice) => Fields::read(choice, path, &tables::CHOICE)?,
    };
    let kind = choice.need_text("type")?;
    let place = path.field(kind);
    let fields = Fields::read(choice.need(kind)?, place, &tables::CHOICE_NAME)?;
    Ok(ToolChoice::Named(fields.need_text("name")?.to_owned()))
}

/// Adds a message of any role.
fn take_message(
    message: &Value,
    path: Path<'_>,
    conversation: &mut Conversation,
) -> Result<(), Refusal> {
    let role = match message["role"].as_str() {
        Some("system") => Role::System,
        Some("developer") => Role::Developer,
        Some("user") => Role::User,
        Some("assistant") => return take_answer(message, path, conversation),
        Some("tool") => return take_result(message, path, conversation),
        // Otherwise `message["role"]` of a list or text would be reported as a bad role.
        _ if !message.is_object() => return Err(path.refuse("must be an object")),
        _ => {
            let message = "must be system, developer, user, assistant or tool";
            return Err(path.field("role").refuse(message));
        }
    };
    let fields = Fields::read(message, path, &tables::MESSAGE)?;
    let parts = content(&fields, path)?;
    if parts.is_empty() {
        return Err(path.field("content").refuse("missing"));
    }
    let name = fields.text("name").map(str::to_owned);
    conversation.push(Message { name, ..Message::new(role, parts) });
    Ok(())
}

fn take_result(
    message: &Value,
    path: Path<'_>,
    conversation: &mut Conversation,
) -> Result<(), Refusal> {
    let fields = Fields::read(message, path, &tables::RESULT)?;
    let mut result = ToolResultPart {
        id: fields.need_text("tool_call_id")?.to_owned(),
        // Names are optional in this format; the conversation fills them in.
        name: fields.string("name"),
        cache_control: fields.get("cache_control").cloned(),
        ..ToolResultPart::default()
    };
    let path = path.field("content");
    let parts = match fields.get("content") {
        Some(content) => content_parts(content, path)?,
        None => Vec::new(),
    };
    parts::set_answer(&mut result, parts);
    conversation.add_result(result);
    Ok(())
}

/// Reads the content of a message; the message's cache mark goes to its last part.
fn content(fields: &Fields<'_>, path: Path<'_>) -> Result<Vec<Part>, Refusal> {
    let path = path.field("content");
    let mut parts = match fields.get("content") {
        Some(content) => content_parts(content, path)?,
        None => Vec::new(),
    };
    if let Some(last) = parts.last_mut() {
        parts::mark(last, fields.get("cache_control"));
    }
    Ok(parts)
}

fn content_parts(content: &Value, path: Path<'_>) -> Result<Vec<Part>, Refusal> {
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
        "text" => {
            let fields = Fields::read(part, path, &tables::TEXT)?;
            Ok(marked(Part::text(fields.need_text("text")?), &fields))
        }
        "image_url" => {
            let fields = Fields::read(part, path, &tables::IMAGE)?;
            let part = image(fields.need("image_url")?, path.field("image_url"))?;
            Ok(marked(part, &fields))
        }
        "input_audio" => {
            let fields = Fields::read(part, path, &tables::AUDIO)?;
            let path = path.field("input_audio");
            let audio = Fields::read(fields.need("input_audio")?, path, &tables::INPUT_AUDIO)?;
            let format = audio.need_text("format")?.to_owned();
            let data = audio.need_text("data")?.to_owned();
            Ok(Part::Audio(AudioPart { format, data, native: fields.native(OWN) }))
        }
        "file" => {
            let fields = Fields::read(part, path, &tables::FILE)?;
            let path = path.field("file");
            let file = Fields::read(fields.need("file")?, path, &tables::INPUT_FILE)?;
            let name = file.text("filename").map(str::to_owned);
            let data = parts::file_of_data(file.need_text("file_data")?, path.field("file_data"))?;
            Ok(marked(Part::File(FilePart { name, ..data }), &fields))
        }
        "refusal" => {
            let fields = Fields::read(part, path, &tables::REFUSAL)?;
            let text = fields.need_text("refusal")?.to_owned();
            Ok(Part::Refusal(RefusalPart { text, native: None }))
        }
        kind => Err(unknown_kind(kind, path)),
    }
}

/// Adds cache mark and native fields to a part.
fn marked(mut part: Part, fields: &Fields<'_>) -> Part {
    parts::mark(&mut part, fields.get("cache_control"));
    parts::set_native(&mut part, fields.native(OWN));
    part
}

fn image(value: &Value, path: Path<'_>) -> Result<Part, Refusal> {
    if let Value::String(url) = value {
        return urls::image(url, path);
    }
    let fields = Fields::read(value, path, &tables::IMAGE_URL)?;
    let mut part = urls::image(fields.need_text("url")?, path.field("url"))?;
    parts::set_detail(&mut part, fields.text("detail"));
    Ok(part)
}

/// Adds an earlier reply of the model. Carriers restore what this format could not express.
fn take_answer(
    message: &Value,
    path: Path<'_>,
    conversation: &mut Conversation,
) -> Result<(), Refusal> {
    let fields = Fields::read(message, path, &tables::ANSWER)?;
    let (carried, details) = reasoning_details(&fields, path)?;
    let mut parts = Vec::new();
    let is_thought =
        |(_, carrier): &(usize, Carrier)| matches!(carrier, Carrier::Part(Part::Thinking(_)));
    let thought = fields.text("reasoning_content").or(fields.text("reasoning"));
    // A thought that a carrier holds whole is not added a second time.
    if let Some(text) = thought.filter(|text| !text.is_empty() && !carried.iter().any(is_thought)) {
        parts.push(Part::Thinking(ThinkingPart { text: text.to_owned(), ..Default::default() }));
    }
    parts.extend(content(&fields, path)?);
    if let Some(text) = fields.text("refusal") {
        parts.push(Part::Refusal(RefusalPart { text: text.to_owned(), native: None }));
    }
    let calls = path.field("tool_calls");
    for (place, call) in fields.list("tool_calls").iter().enumerate() {
        parts.push(read_call(call, calls.entry(place))?);
    }
    let (parts, carried) = put_order(parts, carried);
    let parts = put_carried(parts, carried);
    // An assistant message without any part says nothing.
    if parts.is_empty() {
        return Ok(());
    }
    let mut native = fields.native(OWN);
    if !details.is_empty() {
        let none = || NativeFields { interface: OWN, fields: serde_json::Map::new() };
        let fields = &mut native.get_or_insert_with(none).fields;
        fields.insert("reasoning_details".to_owned(), Value::Array(details));
    }
    let name = fields.text("name").map(str::to_owned);
    let message = Message { role: Role::Assistant, parts, name, native };
    conversation.push(message);
    Ok(())
}

type Carried = Vec<(usize, Carrier)>;

/// Separates our carriers in `reasoning_details`, sorted by their index among the parts, from the
/// provider's details.
fn reasoning_details(
    fields: &Fields<'_>,
    path: Path<'_>,
) -> Result<(Carried, Vec<Value>), Refusal> {
    let path = path.field("reasoning_details");
    let (mut carried, mut details) = (Vec::new(), Vec::new());
    for (place, detail) in fields.list("reasoning_details").iter().enumerate() {
        let path = path.entry(place);
        let carrier = match &detail["data"] {
            Value::String(data) => Carrier::unpack(data, path.field("data"))?,
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
fn put_order(plain: Vec<Part>, mut carried: Carried) -> (Vec<Part>, Carried) {
    let place = carried.iter().position(|(_, carrier)| matches!(carrier, Carrier::Order(_)));
    // At most one carrier of order counts; further ones are ignored by `insert_carried`.
    let Some((_, Carrier::Order(slots))) = place.map(|place| carried.remove(place)) else {
        return (plain, carried);
    };
    match ordered(&plain, &slots) {
        // The mark of the message belongs to its last part, which may be another one now.
        Some(mut parts) => {
            let mark = plain.iter().rev().find_map(Part::cache_control);
            if let (Some(mark), Some(last)) = (mark, parts.last_mut()) {
                parts::mark(last, Some(mark));
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
fn ordered(plain: &[Part], slots: &[Slot]) -> Option<Vec<Part>> {
    let joined = |of: fn(&Part) -> Option<&str>| plain.iter().filter_map(of).collect::<String>();
    let (text, refusal) = (joined(text_of), joined(refusal_of));
    let (mut text, mut refusal) = (text.as_str(), refusal.as_str());
    let is_call = |part: &&Part| matches!(part, Part::ToolCall(_) | Part::Native(_));
    let mut calls = plain.iter().filter(is_call);
    let mut thoughts = plain.iter().filter(|part| matches!(part, Part::Thinking(_)));
    let mut parts = Vec::with_capacity(slots.len());
    for slot in slots {
        match slot {
            Slot::Text(bytes) => parts.push(Part::text(cut(&mut text, *bytes)?)),
            Slot::Refusal(bytes) => {
                let text = cut(&mut refusal, *bytes)?.to_owned();
                parts.push(Part::Refusal(RefusalPart { text, native: None }));
            }
            Slot::Thought => parts.push(thoughts.next()?.clone()),
            Slot::Call => parts.push(calls.next()?.clone()),
            Slot::Carried => {}
        }
    }
    // Something left over means that the client has edited the message.
    let is_whole = text.is_empty() && refusal.is_empty() && calls.next().is_none();
    is_whole.then_some(parts)
}

fn text_of(part: &Part) -> Option<&str> {
    match part {
        Part::Text(part) => Some(&part.text),
        _ => None,
    }
}

fn refusal_of(part: &Part) -> Option<&str> {
    match part {
        Part::Refusal(part) => Some(&part.text),
        _ => None,
    }
}

/// Splits a prefix off the text; `None` beyond its end or within a character.
fn cut<'a>(text: &mut &'a str, bytes: usize) -> Option<&'a str> {
    let (begin, rest) = text.split_at_checked(bytes)?;
    *text = rest;
    Some(begin)
}

/// Inserts carried parts at their index, and attaches carried fields to the part at theirs.
fn put_carried(plain: Vec<Part>, carried: Carried) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::with_capacity(plain.len() + carried.len());
    let mut plain = plain.into_iter();
    for (index, carrier) in carried {
        // Number of parts before the carrier's place; for fields the part itself must exist.
        let wanted = match carrier {
            Carrier::Part(_) => index,
            _ => index.saturating_add(1),
        };
        while parts.len() < wanted
            && let Some(part) = plain.next()
        {
            parts.push(part);
        }
        match carrier {
            Carrier::Part(part) => parts.push(part),
            Carrier::Next(fields) | Carrier::Previous(fields) => {
                if let Some(part) = parts.get_mut(index) {
                    attach(fields, part);
                }
            }
            Carrier::Message(_) | Carrier::Order(_) => {}
        }
    }
    parts.extend(plain);
    parts
}

fn read_call(call: &Value, path: Path<'_>) -> Result<Part, Refusal> {
    if call["type"].as_str().is_some_and(|kind| kind != "function") {
        return Ok(Part::Native(NativePart { interface: OWN, block: call.clone() }));
    }
    let fields = Fields::read(call, path, &tables::CALL)?;
    let function = path.field("function");
    let function = Fields::read(fields.need("function")?, function, &tables::CALLED)?;
    let arguments = function.text("arguments").filter(|text| !text.trim().is_empty());
    Ok(Part::ToolCall(ToolCall {
        id: fields.need_text("id")?.to_owned(),
        name: function.need_text("name")?.to_owned(),
        arguments: arguments.unwrap_or("{}").to_owned(),
        cache_control: fields.get("cache_control").cloned(),
        native: native_of_call(&fields, path)?,
    }))
}

/// Reads the native fields of a tool call; Google's thought signature may be a carrier.
fn native_of_call(fields: &Fields<'_>, path: Path<'_>) -> Result<Option<NativeFields>, Refusal> {
    let mark = fields.get("extra_content").map(|extra| &extra["google"]["thought_signature"]);
    if let Some(Value::String(mark)) = mark {
        let path = path.field("extra_content");
        if let Some(Carrier::Next(native) | Carrier::Previous(native)) =
            Carrier::unpack(mark, path)?
        {
            return Ok(Some(native));
        }
    }
    Ok(fields.native(OWN))
}
