//! Google's `generateContent` for Gemini.

use convergio_domain::chat::{ChatRequest, Message, Part, Role, ToolChoice};
use convergio_domain::metering::{Meter, Usage};
use serde_json::{Value, json};

use super::{Dialect, ReadError, arguments, encoded, refuse_errors, text, vectors};
use crate::model::answer::{Answer, UsageReader};
use crate::model::usage;

/// What Google documents for calls of tools whose mark is not at hand: conversations come from
/// interfaces that have no place for it, and without one newer models refuse the whole request.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// `generateContent`.
pub(super) struct GenerateContent;

impl Dialect for GenerateContent {
    fn chat_path(&self, model: &str) -> String {
        // Without `alt=sse` it streams one long list.
        format!("/models/{}:streamGenerateContent?alt=sse", encoded(model))
    }

    fn write(&self, request: &ChatRequest) -> Value {
        let contents: Vec<Value> = request.messages.iter().map(written).collect();
        let mut body = json!({"contents": contents});
        if let Some(system) = &request.system {
            body["systemInstruction"] = json!({"parts": [{"text": system}]});
        }
        let mut generation = json!({});
        let options = [
            ("maxOutputTokens", request.max_tokens.map(|value| json!(value))),
            ("temperature", request.temperature.map(|value| json!(value))),
            ("topP", request.top_p.map(|value| json!(value))),
            ("seed", request.seed.map(|value| json!(value))),
            ("stopSequences", (!request.stop.is_empty()).then(|| json!(request.stop))),
            ("responseMimeType", request.schema.as_ref().map(|_| json!("application/json"))),
            ("responseJsonSchema", request.schema.clone()),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                generation[name] = value;
            }
        }
        body["generationConfig"] = generation;
        if !request.tools.is_empty() {
            let tools = request.tools.iter().map(|tool| {
                json!({"name": tool.name, "description": tool.description,
                    "parametersJsonSchema": tool.parameters})
            });
            body["tools"] = json!([{"functionDeclarations": tools.collect::<Vec<_>>()}]);
            body["toolConfig"] = json!({"functionCallingConfig": choice(&request.tool_choice)});
        }
        body
    }

    fn unknown(&self) -> &'static [&'static str] {
        &["effort"]
    }

    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(piece)?;
        answer.name(&piece["modelVersion"]);
        // Every piece carries the counts so far.
        answer.count(&piece["usageMetadata"]);
        if piece["promptFeedback"]["blockReason"].is_string() {
            answer.finish(Some("content_filter"), "");
            return Ok(());
        }
        let candidate = &piece["candidates"][0];
        for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
            read_part(part, answer);
        }
        if let Some(reason) = candidate["finishReason"].as_str() {
            answer.finish(known_finish(reason), reason);
        }
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        // Without `alt=sse`, or from a gateway in between, the pieces come as a list.
        let pieces = body.as_array().map_or(std::slice::from_ref(body), Vec::as_slice);
        if !pieces.iter().all(Value::is_object) || pieces.is_empty() {
            return Err(ReadError::Malformed("it has no candidate"));
        }
        pieces.iter().try_for_each(|piece| self.read_piece(piece, answer))
    }

    fn usage(&self) -> UsageReader {
        usage::from_gemini
    }

    fn embed(&self, model: &str, texts: &[String]) -> Option<(String, Value)> {
        Some(embed(model, texts))
    }

    fn read_embeddings(&self, body: &Value) -> Option<(Vec<Vec<f32>>, Usage)> {
        read_embeddings(body)
    }
}

/// Path and body of a request for embeddings, whichever interface is used for chats.
pub(super) fn embed(model: &str, texts: &[String]) -> (String, Value) {
    let name = format!("models/{model}");
    let requests =
        texts.iter().map(|text| json!({"model": name, "content": {"parts": [{"text": text}]}}));
    let body = json!({"requests": requests.collect::<Vec<_>>()});
    (format!("/models/{}:batchEmbedContents", encoded(model)), body)
}

pub(super) fn read_embeddings(body: &Value) -> Option<(Vec<Vec<f32>>, Usage)> {
    let vectors = vectors(body["embeddings"].as_array()?.iter().map(|entry| &entry["values"]))?;
    let tokens = body["usageMetadata"]["promptTokenCount"].as_u64();
    let usage = tokens.map(|tokens| Usage([(Meter::InFresh, tokens)].into()));
    Some((vectors, usage.unwrap_or_default()))
}

fn read_part(part: &Value, answer: &mut Answer) {
    if let Some(said) = part["text"].as_str() {
        match part["thought"].as_bool() {
            Some(true) => answer.think(said),
            _ => answer.say(said),
        }
    }
    if let Some(signature) = part["thoughtSignature"].as_str() {
        answer.sign(signature);
    }
    let call = &part["functionCall"];
    if call.is_object() {
        let place = answer.tools();
        let tool = answer.tool(place);
        tool.name = text(call, "name").to_owned();
        // Calls have no id of their own unless the provider gives one.
        let id = call["id"].as_str().map(str::to_owned);
        tool.id = id.unwrap_or_else(|| format!("call_{place}_{}", tool.name));
        tool.arguments =
            if call["args"].is_object() { call["args"].to_string() } else { "{}".into() };
    }
}

fn known_finish(reason: &str) -> Option<&'static str> {
    match reason {
        "STOP" => Some("stop"),
        "MAX_TOKENS" => Some("length"),
        "SAFETY"
        | "RECITATION"
        | "LANGUAGE"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "MODEL_ARMOR"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => Some("content_filter"),
        "MALFORMED_FUNCTION_CALL"
        | "MALFORMED_RESPONSE"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS" => Some("malformed"),
        _ => None,
    }
}

fn written(message: &Message) -> Value {
    let role = match message.role {
        Role::User => "user",
        Role::Assistant => "model",
    };
    json!({"role": role, "parts": message.parts.iter().filter_map(part_of).collect::<Vec<_>>()})
}

fn part_of(part: &Part) -> Option<Value> {
    match part {
        Part::Text { text } => Some(json!({"text": text})),
        Part::Image { media_type, data } => {
            Some(json!({"inlineData": {"mimeType": media_type, "data": data}}))
        }
        Part::ImageUrl { url } => Some(json!({"fileData": {"fileUri": url}})),
        Part::ToolCall(call) => {
            let args = arguments(&call.arguments);
            let call = json!({"name": call.name, "args": args});
            Some(json!({"functionCall": call, "thoughtSignature": NO_SIGNATURE}))
        }
        Part::ToolResult { name, text, is_error, .. } => {
            let key = if *is_error { "error" } else { "result" };
            Some(json!({"functionResponse": {"name": name, "response": {key: text}}}))
        }
        Part::Thinking { .. } => None,
    }
}

fn choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!({"mode": "AUTO"}),
        ToolChoice::None => json!({"mode": "NONE"}),
        ToolChoice::Required => json!({"mode": "ANY"}),
        ToolChoice::Named(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
    }
}
