//! Answers as the documented servers give them, streamed and whole.

use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use convergio_domain::billing::Meter;
use convergio_eventstore::LiveKind;
use convergio_executor::provider::{
    AnswerPiece, ChatAnswer, HttpProvider, Provider, ProviderConfig, Secret,
};
use convergio_kernel_c::{KernelPlatform, ProviderClass};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::server::{
    PATIENCE, PROMPT, Server, ask, body_of, call, delta, json, raw_sse, request, sse, stop,
};

fn meters(answer: &ChatAnswer) -> Vec<(Meter, u64)> {
    answer.usage.0.iter().map(|(meter, tokens)| (*meter, *tokens)).collect()
}

/// The stream of OpenAI itself: a first piece with the role, a last one with usage alone.
fn openai_stream() -> Vec<Value> {
    let piece = |delta: Value, finish: Value| {
        json!({"id": "c", "object": "chat.completion.chunk", "model": "gpt-x-2026",
            "service_tier": "default", "usage": null,
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]})
    };
    vec![
        piece(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null),
        piece(json!({"content": "Grüß"}), Value::Null),
        piece(json!({"content": " Gott"}), Value::Null),
        piece(json!({}), json!("stop")),
        json!({"id": "c", "model": "gpt-x-2026", "choices": [], "usage": usage()}),
    ]
}

fn usage() -> Value {
    json!({"prompt_tokens": 19, "completion_tokens": 32, "total_tokens": 51,
        "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0,
            "audio_tokens": 0, "image_tokens": 0, "text_tokens": 19},
        "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}})
}

#[tokio::test]
async fn a_stream_of_openai_is_put_together() {
    let server = Server::chatting(|| sse(&openai_stream())).await;
    let provider = HttpProvider::new(server.config()).expect("a valid URL");
    let heard = Mutex::new(Vec::new());
    let sink = |piece: AnswerPiece| heard.lock().expect("not poisoned").push(piece);
    let body = body_of(&provider, &request());
    let answer =
        provider.complete_chat(call(&body, PATIENCE), &sink, &CancellationToken::new()).await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.joined_text().as_str(), answer.finish.as_str()), ("Grüß Gott", "stop"));
    assert_eq!(answer.model, "gpt-x-2026");
    let expected = [
        (Meter::InFresh, 11),
        (Meter::InCacheRead, 8),
        (Meter::OutText, 2),
        (Meter::OutReasoning, 30),
    ];
    assert_eq!((meters(&answer), answer.confirmed), (expected.to_vec(), true));
    assert_eq!(answer.raw_usage, Some(usage()));
    assert!(answer.first_token_ms.is_some_and(|first| first <= answer.duration_ms));
    let heard = heard.into_inner().expect("not poisoned");
    let begin = LiveKind::Begin { model: "gpt-x-2026".into(), usage: answer.usage };
    let text = AnswerPiece {
        kind: LiveKind::Text,
        text: "Grüß Gott".into(),
        tokens_out: 2,
        ..AnswerPiece::default()
    };
    // What comes together is told together.
    let begin = AnswerPiece { kind: begin, tokens_out: 2, ..AnswerPiece::default() };
    assert_eq!(heard, [AnswerPiece::default(), begin, text]);
}

#[tokio::test]
async fn exactly_the_recorded_bytes_are_sent_with_the_key_in_its_header() {
    let server = Server::chatting(|| sse(&openai_stream())).await;
    let config = ProviderConfig { key: Some(Secret::new("sk-canary-1")), ..server.config() };
    ask(config).await.expect("an answer");
    let seen = server.seen();
    assert_eq!((seen.len(), seen[0].path.as_str()), (1, "/v1/chat/completions"));
    let sent: Value = serde_json::from_slice(&seen[0].body).expect("JSON");
    assert_eq!(sent["messages"], json!([{"role": "user", "content": PROMPT}]));
    let provider = HttpProvider::new(server.config()).expect("a valid URL");
    assert_eq!(seen[0].body, body_of(&provider, &request()));
    assert_eq!(seen[0].headers[header::AUTHORIZATION], "Bearer sk-canary-1");
    assert_eq!(seen[0].headers[header::CONTENT_TYPE], "application/json");
    server.ask().await.expect("an answer");
    assert!(!server.seen()[1].headers.contains_key(header::AUTHORIZATION));
}

#[tokio::test]
async fn openai_is_asked_in_its_own_words() {
    let cloud = ProviderConfig::without_key(
        "openai",
        "https://api.openai.com/v1",
        ProviderClass::Cloud,
        KernelPlatform::CloudApi,
    );
    let body = body_of(&HttpProvider::new(cloud).expect("a valid URL"), &request());
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&body["max_completion_tokens"], &body["max_tokens"]), (&json!(20), &Value::Null));
}

#[tokio::test]
async fn llama_cpp_tells_usage_and_timings_on_the_last_pieces() {
    let usage = json!({"prompt_tokens": 42, "completion_tokens": 8, "total_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 37}});
    let last = json!({"choices": [], "model": "tiny", "usage": usage,
        "timings": {"prompt_n": 5, "cache_n": 37}});
    let server = Server::chatting(move || sse(&[delta("Paris."), stop(), last.clone()])).await;
    let answer = server.ask().await.expect("an answer");
    let expected = [(Meter::InFresh, 5), (Meter::InCacheRead, 37), (Meter::OutText, 8)];
    assert_eq!((meters(&answer), answer.confirmed), (expected.to_vec(), true));
}

#[tokio::test]
async fn usage_may_stand_on_any_piece_and_the_last_one_counts() {
    let with = |piece: Value, tokens: u64| {
        let mut piece = piece;
        piece["usage"] = json!({"prompt_tokens": 7, "completion_tokens": tokens});
        piece
    };
    let pieces = [with(delta("a"), 1), with(delta("b"), 2), with(stop(), 3)];
    let server = Server::chatting(move || sse(&pieces)).await;
    let answer = server.ask().await.expect("an answer");
    assert_eq!((answer.usage.tokens_in(), answer.usage.tokens_out()), (7, 3));
    assert!(answer.confirmed);
}

#[tokio::test]
async fn keepalives_and_pieces_without_a_choice_are_passed_over() {
    let azure = json!({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]});
    let thinking = json!({"choices": [{"delta": {"content": null, "reasoning_content": "hm"}}],
        "error": null});
    let text = format!(
        ": keepalive 1/2\n\ndata: {azure}\r\n\r\nevent: x\ndata:{thinking}\n\n: keepalive 2/2\n\n\
         data: {}\n\ndata: {}\n\ndata: [DONE]",
        delta("ok"),
        stop()
    );
    let server = Server::chatting(move || raw_sse(text.clone())).await;
    assert_eq!(server.ask().await.expect("an answer").joined_text(), "ok");
}

#[tokio::test]
async fn an_answer_that_comes_at_once_is_taken_too() {
    let whole = json!({"model": "tiny", "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"},
            "finish_reason": "length"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}});
    let server = Server::chatting(move || json(200, &whole)).await;
    let answer = server.ask().await.expect("an answer");
    assert_eq!((answer.joined_text().as_str(), answer.finish.as_str()), ("hello", "length"));
    assert_eq!(meters(&answer), [(Meter::InFresh, 5), (Meter::OutText, 1)]);
}

#[tokio::test]
async fn without_usage_it_is_estimated_and_not_confirmed() {
    let server = Server::chatting(|| sse(&[delta("twelve bytes"), delta("!"), stop()])).await;
    let answer = server.ask().await.expect("an answer");
    assert!(!answer.confirmed);
    assert_eq!(answer.raw_usage, None);
    // 37 bytes of prompt and a message's frame; 13 bytes of answer.
    assert_eq!(meters(&answer), [(Meter::InFresh, 10 + 4), (Meter::OutText, 4)]);
}

#[tokio::test]
async fn a_stream_may_end_without_its_mark_once_the_model_has_stopped() {
    let text = format!("data: {}\n\ndata: {}\n", delta("ok"), stop());
    let server = Server::chatting(move || raw_sse(text.clone())).await;
    assert_eq!(server.ask().await.expect("an answer").joined_text(), "ok");
}

#[tokio::test]
async fn one_connection_serves_call_after_call() {
    let server = Server::chatting(|| sse(&[delta("ok"), stop()])).await;
    let provider = HttpProvider::new(server.config()).expect("a valid URL");
    let body = body_of(&provider, &request());
    for _ in 0..5 {
        let token = CancellationToken::new();
        provider.complete_chat(call(&body, PATIENCE), &|_| {}, &token).await.expect("an answer");
    }
    assert_eq!(server.connections(), 1);
}

/// Tells when it is dropped: the server's side of a closed connection.
struct Dropped(tokio::sync::mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _nobody_waits = self.0.send(());
    }
}

/// A stream that says one word and then nothing, and that tells when nobody listens any more.
fn endless(dropped: Dropped) -> Body {
    use futures_util::{StreamExt, stream};
    let first = stream::iter([Ok::<_, std::io::Error>(format!("data: {}\n\n", delta("one")))]);
    let rest = stream::pending().map(move |rest| {
        let _held = &dropped;
        rest
    });
    Body::from_stream(first.chain(rest))
}

#[tokio::test]
async fn a_cancelled_call_closes_its_connection_and_reports_what_came() {
    let (sender, mut closed) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::chatting(move || raw_sse(endless(Dropped(sender.clone())))).await;
    let provider = HttpProvider::new(server.config()).expect("a valid URL");
    let (body, token) = (body_of(&provider, &request()), CancellationToken::new());
    let sink = |piece: AnswerPiece| {
        if piece.kind == LiveKind::Text {
            token.cancel();
        }
    };
    let error =
        provider.complete_chat(call(&body, PATIENCE), &sink, &token).await.expect_err("cancelled");
    let partial = error.partial_usage.expect("something was used");
    assert_eq!((partial.tokens_in(), partial.tokens_out()), (14, 1));
    let waited = tokio::time::timeout(PATIENCE, closed.recv()).await;
    assert_eq!(waited.expect("the server sees the end"), Some(()));
}

#[tokio::test]
async fn a_call_that_is_cancelled_before_it_begins_asks_nobody() {
    let server = Server::chatting(|| sse(&[stop()])).await;
    let provider = HttpProvider::new(server.config()).expect("a valid URL");
    let (body, token) = (body_of(&provider, &request()), CancellationToken::new());
    token.cancel();
    let timeout = Duration::from_secs(1);
    let error =
        provider.complete_chat(call(&body, timeout), &|_| {}, &token).await.expect_err("cancelled");
    assert_eq!((error.partial_usage, server.seen().len()), (None, 0));
}
