//! Refusals of every kind, in the stable codes, without keys and prompts in their texts.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use convergio_domain::chat::{MessagePart, RefusalPart};
use convergio_executor::provider::{ChatAnswer, HttpProvider, ModelError, ProviderConfig, Secret};
use serde_json::{Value, json};

use crate::server::{PROMPT, Server, ask, delta, json, nowhere, raw_sse, sse};

const KEY: &str = "canary-key-0123456789";

/// The error of a call that is answered so, by a provider with a key.
async fn error_of<A>(answer: A) -> ModelError
where
    A: Fn() -> Response + Clone + Send + Sync + 'static,
{
    let server = Server::chatting(answer).await;
    let config = ProviderConfig { key: Some(Secret::new(KEY)), ..server.config() };
    let error = ask(config).await.expect_err("a refusal");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(KEY), "the key is shown: {shown}");
    assert!(!shown.contains("ship sails"), "the prompt is shown: {shown}");
    error
}

#[tokio::test]
async fn statuses_and_names_become_stable_codes() {
    let cases = [
        (429, json!({"code": "rate_limit_exceeded", "message": "slow"}), "provider.rate_limited"),
        (429, json!({"type": "insufficient_quota", "message": "pay"}), "provider.quota_exceeded"),
        (401, json!({"code": "invalid_api_key", "message": format!("no {KEY}")}), "byok.bad_key"),
        (400, json!({"code": "context_length_exceeded"}), "provider.context_exceeded"),
        (
            400,
            json!({"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 4024}),
            "provider.context_exceeded",
        ),
        (400, json!({"code": "content_filter"}), "provider.content_filtered"),
        (400, json!({"message": format!("cannot read: {PROMPT}")}), "request.invalid"),
        (404, json!("generation failed"), "provider.unavailable"),
        (503, json!({"code": 503, "message": "Loading model"}), "provider.unavailable"),
    ];
    for (status, error, code) in cases {
        let body = json!({"error": error});
        let error = error_of(move || json(status, &body)).await;
        assert_eq!(error.code, code, "{status} {error}");
        assert_eq!(error.partial_usage, None, "what is refused is not used");
        let is_load = (status == 429 && !error.message.contains("pay")) || status == 503;
        assert_eq!(error.retryable, is_load || status == 404, "{status} {error}");
    }
}

#[tokio::test]
async fn a_refusal_without_a_key_says_that_a_key_is_missing() {
    let server = Server::chatting(|| json(401, &json!({"error": {"message": "no"}}))).await;
    assert_eq!(server.ask().await.expect_err("refused").code, "byok.missing_key");
}

#[tokio::test]
async fn a_missing_key_is_told_before_anybody_is_asked() {
    let server = Server::chatting(|| sse(&[])).await;
    let variable = Some("EXAMPLE_KEY".to_owned());
    let config = ProviderConfig { api_key_env: variable, ..server.config() };
    let error = ask(config).await.expect_err("no key");
    assert_eq!((error.code, error.retryable), ("byok.missing_key", false));
    assert!(error.message.contains("EXAMPLE_KEY"), "{error}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_key_that_no_header_can_hold_is_not_shown() {
    let server = Server::chatting(|| sse(&[])).await;
    let key = Some(Secret::new("canary\nkey-0123456789"));
    let error = ask(ProviderConfig { key, ..server.config() }).await.expect_err("no header");
    assert_eq!(error.code, "byok.bad_key");
    assert!(!format!("{error:?}").contains("canary"));
}

#[tokio::test]
async fn a_key_is_never_sent_unencrypted_over_the_internet() {
    let key = Some(Secret::new(KEY));
    let config = ProviderConfig::for_local_model("far", "http://models.example.com/v1", "m");
    let error = HttpProvider::new(ProviderConfig { key, ..config }).err().expect("refused");
    assert!(error.message.contains("https"), "{error}");
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_an_error() {
    let overloaded = json!({"error": {"type": "overloaded_error", "message": PROMPT}});
    let error = error_of(move || sse(&[delta("par"), overloaded.clone()])).await;
    assert_eq!((error.code, error.retryable), ("provider.unavailable", true));
    let partial = error.partial_usage.expect("what came was made");
    assert_eq!((partial.tokens_in(), partial.tokens_out()), (14, 1));
    let context = json!({"error": {"code": 400, "type": "exceed_context_size_error"}});
    let error = error_of(move || sse(&[delta("par"), context.clone()])).await;
    assert_eq!((error.code, error.retryable), ("provider.context_exceeded", false));
}

#[tokio::test]
async fn success_with_an_error_inside_is_an_error() {
    let body = json!({"error": {"code": "insufficient_quota", "message": "pay"}});
    let error = error_of(move || json(200, &body)).await;
    assert_eq!((error.code, error.retryable), ("provider.quota_exceeded", false));
}

fn ended(finish: &str, delta: &Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4}})
}

async fn answer_of(pieces: Vec<Value>) -> ChatAnswer {
    let server = Server::chatting(move || sse(&pieces)).await;
    server.ask().await.expect("an answer")
}

#[tokio::test]
async fn a_filtered_answer_is_told_and_of_no_use_to_an_agent() {
    let answer = answer_of(vec![delta("some"), ended("content_filter", &json!({}))]).await;
    assert_eq!((answer.joined_text().as_str(), answer.finish.as_str()), ("some", "content_filter"));
    assert_eq!(answer.usage.total_tokens(), 13);
    let error = answer.check_use("p").expect_err("of no use");
    assert_eq!((error.code, error.retryable), ("provider.content_filtered", false));
    let refusal = json!({"refusal": "I cannot help with that."});
    let answer = answer_of(vec![ended("stop", &refusal)]).await;
    let words = RefusalPart { text: "I cannot help with that.".into(), native: None };
    assert_eq!(answer.parts, [MessagePart::Refusal(words)]);
    let error = answer.check_use("p").expect_err("of no use");
    assert_eq!(error.code, "provider.content_filtered");
    assert!(!error.message.contains("cannot help"), "a model's words are not for logs: {error}");
}

#[tokio::test]
async fn an_end_that_is_none_is_told_and_of_no_use_to_an_agent() {
    for word in ["error", "abort", "insufficient_system_resource"] {
        let answer = answer_of(vec![delta("half"), ended(word, &json!({}))]).await;
        assert_eq!((answer.finish.as_str(), answer.native_finish.as_str()), (word, word));
        let error = answer.check_use("p").expect_err("of no use");
        assert_eq!((error.code, error.retryable), ("provider.unavailable", true));
    }
    for (word, finish) in
        [("eos", "stop"), ("model_length", "length"), ("a_new_word", "a_new_word")]
    {
        let answer = answer_of(vec![delta("all"), ended(word, &json!({}))]).await;
        assert_eq!(answer.finish, finish);
        assert_eq!(answer.check_use("p"), Ok(()));
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::chatting(|| sse(&[])).await;
    let target = format!("{}/chat/completions", elsewhere.url);
    let error = error_of(move || {
        (StatusCode::TEMPORARY_REDIRECT, [("location", target.clone())]).into_response()
    });
    let error = error.await;
    assert_eq!((error.code, error.retryable), ("request.invalid", false));
    assert!(elsewhere.seen().is_empty(), "key and prompt stay where they were sent");
}

#[tokio::test]
async fn a_web_page_is_no_answer() {
    let page = || ([("content-type", "text/html")], "<html>Welcome</html>").into_response();
    let error = error_of(page).await;
    assert_eq!((error.code, error.retryable), ("request.invalid", false));
}

#[tokio::test]
async fn what_is_not_json_is_no_answer() {
    let garbage: [fn() -> Response; 4] = [
        || raw_sse("data: {\"choices\":\n\n"),
        || ([("content-type", "application/json")], "nonsense").into_response(),
        || json(200, &json!({"choices": []})),
        || json(200, &json!([1, 2])),
    ];
    for answer in garbage {
        let error = error_of(answer).await;
        assert_eq!((error.code, error.retryable), ("provider.unavailable", true));
    }
}

#[tokio::test]
async fn a_server_that_does_not_run_is_said_to() {
    let error = ask(ProviderConfig::for_local_model("local", &nowhere().await, "m")).await;
    let error = error.expect_err("nobody there");
    assert_eq!((error.code, error.retryable), ("provider.unavailable", true));
    assert!(error.message.contains("is it running"), "{error}");
    assert_eq!(error.partial_usage, None);
}
