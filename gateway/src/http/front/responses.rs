//! The door of OpenAI's responses. Nothing is stored for later turns: the log has every run.

use convergio_domain::chat::{ChatReply, ChatRequest, Part, Role, ToolCall, ToolChoice};
use convergio_domain::metering::{Meter, Usage};
use serde_json::{Value, json};

use super::completions::{error_of, named, push, tool_name};
use super::fields::{self, MESSAGES_LIMIT};
use super::refusal::Refusal;
use super::turn::CallFailure;
use super::{Door, Event};

/// What would need a memory of earlier turns, or work in the background.
const UNSUPPORTED: [&str; 4] = ["previous_response_id", "conversation", "background", "prompt"];

/// A call of responses.
pub(super) struct Responses {
    model: String,
    streams: bool,
    run: String,
    created: u64,
    text: String,
    events: u64,
    /// What is repeated in every answer.
    asked: Value,
}

impl Responses {
    fn event(&mut self, name: &'static str, mut data: Value) -> Event {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.events);
        self.events += 1;
        Event::named(name, &data)
    }

    fn message_id(&self) -> String {
        format!("msg_{}", self.run)
    }

    fn response(&self, run: &str, status: &str, output: &Value) -> Value {
        let mut response = self.asked.clone();
        let fields = json!({"id": format!("resp_{run}"), "object": "response",
            "created_at": self.created, "status": status, "model": self.model, "output": output,
            "error": null, "incomplete_details": null, "usage": null, "store": false,
            "parallel_tool_calls": true, "metadata": {}, "previous_response_id": null});
        if let (Some(all), Value::Object(fields)) = (response.as_object_mut(), fields) {
            all.extend(fields);
        }
        response
    }

    fn finished(&self, run: &str, reply: &ChatReply) -> Value {
        let is_cut = reply.finish == "length";
        let status = if is_cut { "incomplete" } else { "completed" };
        let mut response = self.response(run, status, &output(run, reply));
        response["model"] = json!(named(reply, &self.model));
        response["usage"] = usage(&reply.usage);
        if is_cut {
            response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        }
        response
    }

    /// The events of a tool that was asked for.
    fn call(&mut self, place: usize, call: &ToolCall) -> Vec<Event> {
        let item = call_item(call);
        let mut begun = item.clone();
        begun["arguments"] = json!("");
        begun["status"] = json!("in_progress");
        let id = item["id"].clone();
        vec![
            self.event("response.output_item.added", json!({"output_index": place, "item": begun})),
            self.event(
                "response.function_call_arguments.delta",
                json!({"item_id": id, "output_index": place, "delta": call.arguments}),
            ),
            self.event(
                "response.function_call_arguments.done",
                json!({"item_id": id, "output_index": place, "arguments": call.arguments,
                    "name": call.name}),
            ),
            self.event("response.output_item.done", json!({"output_index": place, "item": item})),
        ]
    }
}

impl Door for Responses {
    fn read(body: &Value) -> Result<(ChatRequest, Self), Refusal> {
        fields::refuse_unsupported(body, &UNSUPPORTED)?;
        let mut request = ChatRequest {
            model: fields::text(body, "model")?,
            system: body["instructions"].as_str().map(str::to_owned),
            tools: fields::tools(body, |tool, path| match tool["type"].as_str() {
                Some("function") => fields::tool(tool, "parameters", path),
                _ => Err(Refusal::invalid(path, "only function tools are available here")),
            })?,
            tool_choice: choice(&body["tool_choice"])?,
            max_tokens: fields::tokens(body, &["max_output_tokens"])?,
            temperature: fields::number(body, "temperature", 2.0)?,
            top_p: fields::number(body, "top_p", 1.0)?,
            schema: schema(&body["text"]["format"])?,
            effort: body["reasoning"]["effort"].as_str().map(str::to_owned),
            ..ChatRequest::default()
        };
        if let Value::String(text) = &body["input"] {
            push(&mut request, Role::User, vec![Part::Text { text: text.clone() }]);
        } else {
            for (place, item) in fields::list(body, "input", MESSAGES_LIMIT)?.iter().enumerate() {
                take(item, &format!("input[{place}]"), &mut request)?;
            }
        }
        if request.messages.is_empty() {
            return Err(Refusal::invalid("input", "has nothing that a user said"));
        }
        let asked = json!({"instructions": body["instructions"],
            "tools": body["tools"].as_array().cloned().unwrap_or_default(),
            "tool_choice": body.get("tool_choice").cloned().unwrap_or(json!("auto")),
            "temperature": body["temperature"], "top_p": body["top_p"],
            "max_output_tokens": body["max_output_tokens"]});
        let door = Self {
            model: request.model.clone(),
            streams: fields::flag(body, "stream")?,
            run: String::new(),
            created: u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0),
            text: String::new(),
            events: 0,
            asked,
        };
        Ok((request, door))
    }

    fn streams(&self) -> bool {
        self.streams
    }

    fn whole(&self, run: &str, reply: &ChatReply) -> Value {
        self.finished(run, reply)
    }

    fn begin(&mut self, run: &str) -> Vec<Event> {
        run.clone_into(&mut self.run);
        let response = self.response(run, "in_progress", &json!([]));
        vec![
            self.event("response.created", json!({"response": response})),
            self.event("response.in_progress", json!({"response": response})),
        ]
    }

    fn piece(&mut self, text: &str) -> Vec<Event> {
        let mut events = Vec::new();
        let id = self.message_id();
        if self.text.is_empty() {
            let item = json!({"id": id, "type": "message", "role": "assistant",
                "status": "in_progress", "content": []});
            let part = json!({"type": "output_text", "text": "", "annotations": []});
            events.push(
                self.event("response.output_item.added", json!({"output_index": 0, "item": item})),
            );
            events.push(self.event(
                "response.content_part.added",
                json!({"item_id": id, "output_index": 0, "content_index": 0, "part": part}),
            ));
        }
        self.text.push_str(text);
        events.push(self.event(
            "response.output_text.delta",
            json!({"item_id": id, "output_index": 0, "content_index": 0, "delta": text,
                "logprobs": []}),
        ));
        events
    }

    fn end(&mut self, reply: &ChatReply) -> Vec<Event> {
        let mut events = Vec::new();
        let id = self.message_id();
        let has_text = !self.text.is_empty();
        if has_text {
            let part = json!({"type": "output_text", "text": reply.text, "annotations": []});
            events.push(self.event(
                "response.output_text.done",
                json!({"item_id": id, "output_index": 0, "content_index": 0,
                    "text": reply.text, "logprobs": []}),
            ));
            events.push(self.event(
                "response.content_part.done",
                json!({"item_id": id, "output_index": 0, "content_index": 0, "part": part}),
            ));
            let item = message_item(&self.run, reply);
            events.push(
                self.event("response.output_item.done", json!({"output_index": 0, "item": item})),
            );
        }
        for (place, call) in reply.tool_calls.iter().enumerate() {
            events.extend(self.call(place + usize::from(has_text), call));
        }
        let response = self.finished(&self.run.clone(), reply);
        let name = match reply.finish.as_str() {
            "length" => "response.incomplete",
            _ => "response.completed",
        };
        events.push(self.event(name, json!({"response": response})));
        events
    }

    fn broken(&self, failure: &CallFailure) -> Event {
        let mut error = error_of(&failure.code, &failure.text, None)["error"].clone();
        error["type"] = json!("error");
        error["sequence_number"] = json!(self.events);
        Event::named("error", &error)
    }

    fn error(refusal: &Refusal) -> Value {
        error_of(&refusal.code, &refusal.message, refusal.param.as_deref())
    }
}

fn message_item(run: &str, reply: &ChatReply) -> Value {
    json!({"id": format!("msg_{run}"), "type": "message", "role": "assistant",
        "status": "completed", "content":
            [{"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}]})
}

fn call_item(call: &ToolCall) -> Value {
    json!({"id": format!("fc_{}", call.id), "type": "function_call", "call_id": call.id,
        "name": call.name, "arguments": call.arguments, "status": "completed"})
}

fn output(run: &str, reply: &ChatReply) -> Value {
    let text = (!reply.text.is_empty()).then(|| message_item(run, reply));
    text.into_iter().chain(reply.tool_calls.iter().map(call_item)).collect()
}

/// The classes, put together again as OpenAI counts them.
fn usage(usage: &Usage) -> Value {
    let count = |meter| usage.0.get(&meter).copied().unwrap_or(0);
    json!({"input_tokens": usage.tokens_in(), "output_tokens": usage.tokens_out(),
        "total_tokens": usage.tokens(),
        "input_tokens_details": {"cached_tokens": count(Meter::InCacheRead),
            "cache_write_tokens": count(Meter::InCacheWrite5m)},
        "output_tokens_details": {"reasoning_tokens": count(Meter::OutReasoning)}})
}

fn schema(format: &Value) -> Result<Option<Value>, Refusal> {
    match format["type"].as_str() {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(json!({"type": "object"}))),
        Some("json_schema") if format["schema"].is_object() => Ok(Some(format["schema"].clone())),
        _ => Err(Refusal::invalid("text.format", "must be text, json_object or json_schema")),
    }
}

fn choice(choice: &Value) -> Result<ToolChoice, Refusal> {
    match (choice.as_str(), choice["name"].as_str()) {
        (None, None) if choice.is_null() => Ok(ToolChoice::Auto),
        (Some("auto"), _) => Ok(ToolChoice::Auto),
        (Some("none"), _) => Ok(ToolChoice::None),
        (Some("required"), _) => Ok(ToolChoice::Required),
        (_, Some(name)) => Ok(ToolChoice::Named(name.to_owned())),
        _ => Err(Refusal::invalid("tool_choice", "must be auto, none, required or a function")),
    }
}

/// Takes an item in.
fn take(item: &Value, path: &str, request: &mut ChatRequest) -> Result<(), Refusal> {
    let text = |name: &str| item[name].as_str().unwrap_or("").to_owned();
    match item["type"].as_str().unwrap_or("message") {
        "message" => {}
        "function_call" => {
            let call =
                ToolCall { id: text("call_id"), name: text("name"), arguments: text("arguments") };
            push(request, Role::Assistant, vec![Part::ToolCall(call)]);
            return Ok(());
        }
        "function_call_output" => {
            let id = text("call_id");
            let name = tool_name(request, &id);
            let text = match &item["output"] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            push(request, Role::User, vec![Part::ToolResult { id, name, text, is_error: false }]);
            return Ok(());
        }
        // What a model thought is for its maker: other models cannot use it.
        "reasoning" => return Ok(()),
        kind => {
            let message = format!("an item of type `{kind}` is not available here");
            return Err(Refusal::invalid(path, message));
        }
    }
    let parts = content(&item["content"], path)?;
    match item["role"].as_str() {
        Some("system" | "developer") => {
            for part in &parts {
                if let Part::Text { text } = part {
                    fields::add_system(&mut request.system, text);
                }
            }
        }
        Some("user") => push(request, Role::User, parts),
        Some("assistant") => push(request, Role::Assistant, parts),
        _ => {
            let message = "must be system, developer, user or assistant";
            return Err(Refusal::invalid(&format!("{path}.role"), message));
        }
    }
    Ok(())
}

fn content(content: &Value, path: &str) -> Result<Vec<Part>, Refusal> {
    let path = format!("{path}.content");
    match content {
        Value::String(text) => Ok(vec![Part::Text { text: text.clone() }]),
        Value::Array(list) => list.iter().map(|part| part_of(part, &path)).collect(),
        _ => Err(Refusal::invalid(&path, "must be text or a list of parts")),
    }
}

fn part_of(part: &Value, path: &str) -> Result<Part, Refusal> {
    match (part["type"].as_str(), &part["text"], &part["image_url"]) {
        (Some("input_text" | "output_text" | "text"), Value::String(text), _) => {
            Ok(Part::Text { text: text.clone() })
        }
        (Some("input_image"), _, Value::String(url)) => fields::image(url, path),
        (kind, ..) => {
            let kind = kind.unwrap_or("?");
            Err(Refusal::invalid(path, format!("a part of type `{kind}` is not available here")))
        }
    }
}
