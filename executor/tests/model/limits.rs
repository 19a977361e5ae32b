//! Streams that break, fall silent or never end.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use convergio_executor::provider::{HttpProvider, ModelError, Provider, ProviderConfig, Timeouts};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::server::{
    Server, Then, ask, body_of, broken_sse, call, delta, raw_sse, request, sse, stop,
};

async fn error_of<A>(answer: A) -> ModelError
where
    A: Fn() -> Response + Clone + Send + Sync + 'static,
{
    Server::chatting(answer).await.ask().await.expect_err("a broken answer")
}

fn begun() -> String {
    format!("data: {}\n\ndata: {}\n\n", delta("half an "), delta("answer"))
}

/// The same bytes again and again, without end.
fn endless(bytes: &str) -> Body {
    let bytes = bytes.to_owned();
    Body::from_stream(stream::repeat_with(move || Ok::<_, std::io::Error>(bytes.clone())))
}

#[tokio::test]
async fn a_cut_stream_reports_an_estimate_of_what_was_used() {
    let error = error_of(|| broken_sse(begun(), Then::Cut)).await;
    assert_eq!((error.code, error.retryable), ("provider.unavailable", true));
    let partial = error.partial_usage.expect("what came was made");
    assert_eq!((partial.tokens_in(), partial.tokens_out()), (14, 4));
}

#[tokio::test]
async fn usage_that_was_told_before_the_cut_is_not_estimated() {
    let mut last = delta("x");
    last["usage"] = json!({"prompt_tokens": 100, "completion_tokens": 7});
    let text = format!("data: {last}\n\n");
    let error = error_of(move || broken_sse(text.clone(), Then::Cut)).await;
    assert_eq!(error.partial_usage.expect("told").total_tokens(), 107);
}

#[tokio::test]
async fn an_end_in_the_middle_is_no_clean_end_even_with_the_mark_of_one() {
    let error = error_of(|| raw_sse(begun())).await;
    assert_eq!((error.code, error.retryable), ("provider.unavailable", true));
    let error = error_of(|| sse(&[delta("half")])).await;
    assert_eq!((error.code, error.retryable), ("provider.unavailable", true));
    assert!(error.partial_usage.is_some());
}

#[tokio::test]
async fn a_cut_after_the_model_has_stopped_takes_only_the_count_away() {
    let text = format!("{}data: {}\n\n", begun(), stop());
    let server = Server::chatting(move || broken_sse(text.clone(), Then::Cut)).await;
    let answer = server.ask().await.expect("the text is whole");
    assert_eq!((answer.joined_text().as_str(), answer.confirmed), ("half an answer", false));
}

fn impatient(server: &Server) -> ProviderConfig {
    let idle = Duration::from_millis(50);
    ProviderConfig { timeouts: Timeouts { idle, ..Timeouts::default() }, ..server.config() }
}

#[tokio::test]
async fn silence_in_the_middle_ends_the_call() {
    let server = Server::chatting(|| broken_sse(begun(), Then::Silence)).await;
    let error = ask(impatient(&server)).await.expect_err("silence");
    assert_eq!((error.code, error.retryable), ("provider.timeout", true));
    assert!(error.message.contains("silent"), "{error}");
    assert_eq!(error.partial_usage.expect("what came was made").tokens_out(), 4);
}

#[tokio::test]
async fn silence_after_the_model_has_stopped_takes_only_the_count_away() {
    let text = format!("{}data: {}\n\n", begun(), stop());
    let server = Server::chatting(move || broken_sse(text.clone(), Then::Silence)).await;
    let answer = ask(impatient(&server)).await.expect("the text is whole");
    assert_eq!((answer.joined_text().as_str(), answer.confirmed), ("half an answer", false));
}

#[tokio::test]
async fn a_server_that_never_answers_runs_into_the_limit_of_the_call() {
    let server = Server::chatting(|| broken_sse(": reading\n\n".into(), Then::Silence)).await;
    let provider = HttpProvider::new(impatient(&server)).expect("a valid URL");
    let (body, token) = (body_of(&provider, &request()), CancellationToken::new());
    let limit = Duration::from_millis(100);
    let error =
        provider.complete_chat(call(&body, limit), &|_| {}, &token).await.expect_err("too late");
    assert_eq!((error.code, error.retryable), ("provider.timeout", true));
    let partial = error.partial_usage.expect("the prompt was read, and may be billed");
    assert_eq!((partial.tokens_in(), partial.tokens_out()), (14, 0));
}

#[tokio::test]
async fn an_endless_line_ends_the_call() {
    let error = error_of(|| raw_sse(endless(&"x".repeat(8192)))).await;
    assert!(error.message.contains("endless line"), "{error}");
}

#[tokio::test]
async fn an_endless_answer_ends_the_call_and_is_not_asked_for_again() {
    let piece = format!("data: {}\n\n", delta(&"word ".repeat(20_000)));
    let error = error_of(move || raw_sse(endless(&piece))).await;
    assert_eq!((error.code, error.retryable), ("provider.unavailable", false));
    assert!(error.message.contains("8 MiB"), "{error}");
}

#[tokio::test]
async fn endless_comments_end_the_call() {
    let error = error_of(|| raw_sse(endless(&": nothing\n\n".repeat(10_000)))).await;
    assert!(error.message.contains("8 MiB"), "{error}");
}

#[tokio::test]
async fn an_endless_whole_answer_ends_the_call() {
    let json = || ([("content-type", "application/json")], endless(&"[".repeat(65_536)));
    let error = error_of(move || json().into_response()).await;
    assert!(error.message.contains("8 MiB"), "{error}");
}

#[tokio::test]
async fn an_endless_error_is_read_in_part() {
    let answer = || (StatusCode::BAD_GATEWAY, endless(&"x".repeat(8192))).into_response();
    assert_eq!(error_of(answer).await.code, "provider.unavailable");
}

#[tokio::test]
async fn deeply_nested_json_is_refused() {
    let nested = format!("data: {}\n\n", "[".repeat(100_000));
    let error = error_of(move || raw_sse(nested.clone())).await;
    assert!(error.message.contains("not JSON"), "{error}");
}

#[tokio::test]
async fn bytes_that_come_one_by_one_are_put_together() {
    let text = format!("data: {}\r\n\r\ndata: {}\n\ndata: [DONE]\n\n", delta("Grüße"), stop());
    let server = Server::chatting(move || {
        let bytes = text.clone().into_bytes().into_iter().map(|byte| vec![byte]);
        let bytes = stream::iter(bytes).then(async |byte| {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>(byte)
        });
        raw_sse(Body::from_stream(bytes))
    });
    assert_eq!(server.await.ask().await.expect("an answer").joined_text(), "Grüße");
}

#[tokio::test]
async fn an_answer_of_a_hundred_megabytes_is_read_in_part() {
    let piece = Bytes::from(vec![b'x'; 1 << 20]);
    let json = move || {
        let piece = piece.clone();
        let begun = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{\"a\":\""))]);
        let many = stream::repeat_with(move || Ok(piece.clone())).take(100);
        ([("content-type", "application/json")], Body::from_stream(begun.chain(many)))
            .into_response()
    };
    let error = error_of(json).await;
    assert_eq!((error.code, error.retryable), ("provider.unavailable", false));
}

#[tokio::test]
async fn what_is_packed_is_not_unpacked() {
    // It was not asked for, and a kilobyte of it can be a gigabyte.
    for coding in ["gzip", "br", "zstd", "deflate"] {
        let error = error_of(move || {
            let headers = [("content-type", "application/json"), ("content-encoding", coding)];
            (headers, Body::from(vec![0x1f, 0x8b, 8, 0])).into_response()
        });
        let error = error.await;
        assert_eq!((error.code, error.retryable), ("request.invalid", false), "{coding}");
    }
}

#[tokio::test]
async fn a_slow_drip_runs_into_the_limit_of_the_call() {
    // Each byte comes in time for the limit of silence; the limit of the call is another one.
    let drip = || {
        let bytes = stream::unfold(false, async |has_begun| {
            if has_begun {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let piece = if has_begun { ":\n".to_owned() } else { begun() };
            Some((Ok::<_, std::io::Error>(piece), true))
        });
        raw_sse(Body::from_stream(bytes))
    };
    let server = Server::chatting(drip).await;
    let provider = HttpProvider::new(impatient(&server)).expect("a valid URL");
    let (body, token) = (body_of(&provider, &request()), CancellationToken::new());
    let limit = Duration::from_millis(200);
    let error =
        provider.complete_chat(call(&body, limit), &|_| {}, &token).await.expect_err("slow");
    assert_eq!((error.code, error.has_begun), ("provider.timeout", true));
}

#[tokio::test]
async fn tools_without_number_end_the_call() {
    let calls: Vec<_> = (0..500).map(|n| json!({"index": n, "id": "c"})).collect();
    let piece = json!({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]});
    let error = error_of(move || sse(&[piece.clone(), stop()])).await;
    assert_eq!((error.code, error.retryable), ("provider.unavailable", false));
}
