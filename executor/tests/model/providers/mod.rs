//! Each provider's documented wire shapes: whole, streamed, with tools, with every class of usage.

mod anthropic;
mod audio;
mod fields;
mod gemini;
mod interactions;
mod ollama;
mod openai;
mod responses;
mod totals;

use convergio_domain::billing::Meter;
use convergio_domain::chat::{
    ChatMessage, ChatRequest, ChatToolSpec, ImagePart, MessagePart, MessageRole, ToolCall,
    ToolChoice, ToolResultPart,
};
use convergio_executor::provider::{ChatAnswer, HttpProvider, ModelError, ProviderConfig};
use serde_json::{Value, json};

use crate::server::{Server, ask, body_of};

/// The key that must never be seen but in its header.
pub(crate) const KEY: &str = "canary-key-0123456789";

/// The configuration of a provider, led to a server of ours.
pub(crate) fn led_to(server: &Server, config: ProviderConfig) -> ProviderConfig {
    ProviderConfig { base_url: server.url.clone(), ..config }
}

/// The answer of a provider whose server answers so; with what was sent.
async fn answer_of(server: &Server, config: &ProviderConfig) -> Result<ChatAnswer, ModelError> {
    let answer = ask(led_to(server, config.clone())).await;
    let seen = server.seen();
    let header = config.key_header;
    for (name, value) in seen.iter().flat_map(|seen| &seen.headers) {
        let is_key = value.to_str().is_ok_and(|value| value.contains(KEY));
        assert!(!is_key || carries(header, name.as_str()), "{name} carries the key");
    }
    assert!(seen.iter().all(|seen| !String::from_utf8_lossy(&seen.body).contains(KEY)));
    if let Ok(answer) = &answer {
        adds_up(answer);
    }
    answer
}

/// Every answer of every test: the disjoint classes sum to what the provider calls the total.
fn adds_up(answer: &ChatAnswer) {
    let Some(raw) = &answer.raw_usage else { return };
    let count = |name: &str| raw[name].as_u64();
    let totals = ["total_tokens", "totalTokenCount"];
    let anthropics = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];
    let sum = |input: &str, output: &str| Some(count(input)? + count(output).unwrap_or(0));
    let total = totals.iter().find_map(|name| count(name));
    let total = total.or_else(|| sum("prompt_eval_count", "eval_count"));
    let total = total.or_else(|| sum("prompt_tokens", "completion_tokens"));
    let input = || anthropics.iter().filter_map(|name| count(name)).sum::<u64>();
    let total = total.or_else(|| Some(input() + count("output_tokens")?));
    // Ollama leaves counts of 0 out.
    let total = total.or_else(|| count("eval_count")).unwrap_or(0);
    assert_eq!(answer.usage.total_tokens(), total, "{raw}");
}

fn carries(header: convergio_executor::provider::KeyHeader, name: &str) -> bool {
    use convergio_executor::provider::KeyHeader;
    name == match header {
        KeyHeader::Bearer => "authorization",
        KeyHeader::ApiKey => "api-key",
        KeyHeader::XApiKey => "x-api-key",
        KeyHeader::XGoogApiKey => "x-goog-api-key",
    }
}

fn meters(answer: &ChatAnswer) -> Vec<(Meter, u64)> {
    answer.usage.0.iter().map(|(meter, tokens)| (*meter, *tokens)).collect()
}

/// A conversation with everything in it.
fn conversation() -> ChatRequest {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let call = weather("call_1").remove(0);
    let image =
        ImagePart { media_type: "image/png".into(), data: "aGk=".into(), ..ImagePart::default() };
    let result = ToolResultPart {
        id: "call_1".into(),
        name: "weather".into(),
        text: "snow".into(),
        ..ToolResultPart::default()
    };
    ChatRequest {
        model: "m".into(),
        system: Some("be brief".into()),
        messages: vec![
            ChatMessage::new(
                MessageRole::User,
                vec![MessagePart::from_text("look"), MessagePart::Image(image)],
            ),
            ChatMessage::new(MessageRole::Assistant, vec![MessagePart::ToolCall(call)]),
            ChatMessage::new(MessageRole::User, vec![MessagePart::ToolResult(result)]),
        ],
        tools: vec![ChatToolSpec::new("weather", "Tells.", parameters)],
        tool_choice: ToolChoice::Named("weather".into()),
        max_tokens: Some(64),
        temperature: Some(0.5),
        top_p: Some(0.9),
        stop: vec!["END".into()],
        ..ChatRequest::default()
    }
}

/// What a provider would be sent.
fn written(config: &ProviderConfig, request: &ChatRequest) -> Value {
    let provider = HttpProvider::new(config.clone()).expect("a valid configuration");
    serde_json::from_slice(&body_of(&provider, request)).expect("JSON")
}

fn weather(id: &str) -> Vec<ToolCall> {
    let (name, arguments) = ("weather".to_owned(), r#"{"city":"Oslo"}"#.to_owned());
    vec![ToolCall { id: id.to_owned(), name, arguments, ..ToolCall::default() }]
}
