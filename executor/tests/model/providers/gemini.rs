//! Google's `generateContent`.

use convergio_domain::billing::Meter;
use convergio_domain::chat::{ChatMessage, ChatRequest, MessageRole, ModelService};
use convergio_executor::provider::{HttpProvider, ModelInfo, Provider, ProviderConfig, Secret};
use serde_json::{Value, json};

use super::{KEY, answer_of, conversation, led_to, meters, weather, written};
use crate::server::{Server, ask_service, json, raw_sse, vectors};

fn config() -> ProviderConfig {
    ProviderConfig::for_gemini(Secret::new(KEY))
}

fn events(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\r\n\r\n")).collect()
}

fn usage() -> Value {
    json!({"promptTokenCount": 1000, "cachedContentTokenCount": 600, "candidatesTokenCount": 50,
        "thoughtsTokenCount": 70, "toolUsePromptTokenCount": 30, "totalTokenCount": 1150,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 500},
            {"modality": "IMAGE", "tokenCount": 258}, {"modality": "AUDIO", "tokenCount": 242}],
        "cacheTokensDetails": [{"modality": "IMAGE", "tokenCount": 258},
            {"modality": "TEXT", "tokenCount": 342}],
        "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 50}]})
}

fn piece(parts: &Value, finish: &Value) -> Value {
    json!({"candidates": [{"index": 0, "content": {"role": "model", "parts": parts},
        "finishReason": finish}], "modelVersion": "gemini-x", "usageMetadata":
        {"promptTokenCount": 1000, "totalTokenCount": 1000}})
}

fn stream() -> Vec<Value> {
    let mut last = piece(&json!([{"text": "day", "thoughtSignature": "CpQB"}]), &json!("STOP"));
    last["usageMetadata"] = usage();
    vec![
        piece(&json!([{"text": "let me see", "thought": true}]), &Value::Null),
        piece(&json!([{"text": "Good "}]), &Value::Null),
        last,
    ]
}

#[test]
fn a_whole_conversation_is_written_in_its_words() {
    let body = written(&config(), &conversation());
    assert_eq!(body["systemInstruction"]["parts"][0]["text"], "be brief");
    let image = json!({"inlineData": {"mimeType": "image/png", "data": "aGk="}});
    assert_eq!(body["contents"][0]["parts"][1], image);
    assert_eq!(body["contents"][1]["role"], "model");
    let call = json!({"functionCall": {"id": "call_1", "name": "weather",
        "args": {"city": "Oslo"}}});
    assert_eq!(body["contents"][1]["parts"][0]["functionCall"], call["functionCall"]);
    let mark = &body["contents"][1]["parts"][0]["thoughtSignature"];
    assert!(mark.is_string(), "without a mark newer models refuse the request");
    let result = json!({"functionResponse": {"id": "call_1", "name": "weather",
        "response": {"result": "snow"}}});
    assert_eq!(body["contents"][2]["parts"][0], result);
    let choice = json!({"mode": "ANY", "allowedFunctionNames": ["weather"]});
    assert_eq!(body["toolConfig"]["functionCallingConfig"], choice);
    assert_eq!(body["generationConfig"]["maxOutputTokens"], 64);
    let schema = json!({"type": "object"});
    let asked = ChatRequest { schema: Some(schema.clone()), ..ChatRequest::from_prompt("m", "p") };
    let generation = written(&config(), &asked)["generationConfig"].clone();
    assert_eq!(generation["responseMimeType"], "application/json");
    assert_eq!(generation["responseJsonSchema"], schema);
}

#[tokio::test]
async fn a_stream_is_put_together_and_thoughts_are_counted_apart() {
    let server = Server::chatting(|| raw_sse(events(&stream()))).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!(
        (answer.joined_text().as_str(), answer.joined_thinking().as_str()),
        ("Good day", "let me see")
    );
    assert_eq!((answer.finish.as_str(), answer.model.as_str()), ("stop", "gemini-x"));
    let expected = [
        (Meter::InFresh, 158 + 30),
        (Meter::InCacheRead, 600),
        (Meter::InAudio, 242),
        (Meter::OutText, 50),
        (Meter::OutReasoning, 70),
    ];
    assert_eq!(meters(&answer), expected);
    let seen = &server.seen()[0];
    assert_eq!(seen.path, "/v1/models/tiny:streamGenerateContent");
    assert_eq!(seen.headers["x-goog-api-key"], KEY);
}

#[tokio::test]
async fn a_mark_goes_back_with_the_very_part_that_had_it() {
    let parts = json!([
        {"text": "hm", "thought": true},
        {"text": "a"},
        {"functionCall": {"id": "g1", "name": "f", "args": {}}, "thoughtSignature": "SIG1"},
        {"functionCall": {"id": "g2", "name": "f", "args": {"x": 1}}},
    ]);
    let last = piece(&json!([{"text": "", "thoughtSignature": "SIG2"}]), &json!("STOP"));
    let all = [piece(&parts, &Value::Null), last];
    let server = Server::chatting(move || raw_sse(events(&all))).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!(answer.parts.len(), 5);
    let messages = vec![ChatMessage::new(MessageRole::Assistant, answer.parts)];
    let request = ChatRequest { messages, ..ChatRequest::default() };
    let body = written(&config(), &request);
    let mut expected = parts.as_array().expect("parts").clone();
    expected.push(json!({"text": "", "thoughtSignature": "SIG2"}));
    assert_eq!(body["contents"][0]["parts"], json!(expected));
    let provider = HttpProvider::new(config()).expect("a valid configuration");
    assert_eq!(provider.write_request(request).expect("it is taken").left_out, []);
}

#[tokio::test]
async fn a_tool_call_comes_whole() {
    let call = json!([{"functionCall": {"id": "g1", "name": "weather", "args": {"city": "Oslo"}}}]);
    let server = Server::chatting(move || raw_sse(events(&[piece(&call, &json!("STOP"))]))).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!((answer.tool_calls(), answer.finish.as_str()), (weather("g1"), "tool_calls"));
}

#[tokio::test]
async fn answers_that_come_at_once_are_taken_too() {
    let alone = stream().pop().expect("a piece");
    for body in [json!(stream()), alone] {
        let server = Server::chatting(move || json(200, &body)).await;
        let answer = answer_of(&server, &config()).await.expect("an answer");
        assert!(answer.joined_text().ends_with("day"), "{}", answer.joined_text());
        assert_eq!(answer.usage.total_tokens(), 1150);
    }
}

#[tokio::test]
async fn what_is_blocked_is_surfaced_and_nonsense_is_asked_for_again() {
    let blocked = json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}});
    let cases = [
        (piece(&json!([]), &json!("MALFORMED_FUNCTION_CALL")), ("provider.invalid_answer", true)),
        (json!({"error": {"code": 503, "status": "UNAVAILABLE"}}), ("provider.unavailable", true)),
    ];
    for (event, expected) in cases {
        let server = Server::chatting(move || raw_sse(events(std::slice::from_ref(&event)))).await;
        let error = answer_of(&server, &config()).await.expect_err("an error");
        assert_eq!((error.code, error.retryable), expected);
    }
    let filtered = piece(&json!([{"text": "half"}]), &json!("SAFETY"));
    for (event, text, word) in [(blocked, "", "PROHIBITED_CONTENT"), (filtered, "half", "SAFETY")] {
        let server = Server::chatting(move || raw_sse(events(std::slice::from_ref(&event)))).await;
        let answer = answer_of(&server, &config()).await.expect("what was said");
        assert_eq!(
            (answer.joined_text().as_str(), answer.finish.as_str()),
            (text, "content_filter")
        );
        assert_eq!(answer.native_finish, word);
        assert_eq!(answer.check_use("p").expect_err("no use").code, "provider.content_filtered");
    }
}

#[tokio::test]
async fn models_are_listed_and_texts_become_vectors() {
    let server = Server::start(|path| match path {
        "/v1/models" => json(
            200,
            &json!({"models": [
                {"name": "models/gemini-x", "inputTokenLimit": 1_048_576,
                    "supportedGenerationMethods": ["generateContent", "countTokens"]},
                {"name": "models/embed", "supportedGenerationMethods": ["embedContent"]}]}),
        ),
        _ => json(200, &json!({"embeddings": [{"values": [1.0, 0.25]}]})),
    });
    let server = server.await;
    let provider = HttpProvider::new(led_to(&server, config())).expect("a valid URL");
    let expected = [ModelInfo::new("gemini-x", Some(1_048_576)), ModelInfo::new("embed", None)];
    assert_eq!(provider.list_models().await.expect("a list"), expected);
    let texts = vec!["some words".to_owned()];
    let service = ModelService::Embed { texts, dimensions: Some(2) };
    let answer = ask_service(&provider, "embed", service).await.expect("vectors");
    assert_eq!(vectors(&answer), [[1.0, 0.25]]);
    assert_eq!((answer.confirmed, answer.usage.tokens_in()), (false, 3), "our estimate");
    let body: Value = serde_json::from_slice(&server.seen()[1].body).expect("JSON");
    assert_eq!(body["requests"][0]["outputDimensionality"], 2);
    assert_eq!(server.seen()[1].path, "/v1/models/embed:batchEmbedContents");
}
