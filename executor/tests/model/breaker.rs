//! Keys that are left alone: because they asked for it, have no money, or fail again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use convergio_domain::billing::PriceBook;
use convergio_executor::catalog::ModelCatalog;
use convergio_executor::provider::{ModelError, Provider};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::server::{PATIENCE, Server, body_of, call, delta, json, request, sse, stop};

async fn watched(server: &Server) -> Arc<dyn Provider> {
    let prices = Arc::new(PriceBook::parse_book("[]").expect("an empty book"));
    let catalog = ModelCatalog::new(vec![server.config()], prices).expect("a valid URL");
    catalog.all_providers().next().expect("one")
}

async fn ask(provider: &Arc<dyn Provider>, timeout: Duration) -> Result<String, ModelError> {
    let (body, token) = (body_of(&**provider, &request()), CancellationToken::new());
    let answer = provider.complete_chat(call(&body, timeout), &|_| {}, &token).await;
    answer.map(|answer| answer.joined_text())
}

/// A server that refuses so until it is told to answer.
async fn refusing(status: u16, pause: &'static str, error: Value) -> (Server, Arc<AtomicBool>) {
    let answers = Arc::new(AtomicBool::new(false));
    let does_answer = Arc::clone(&answers);
    let refusal = move || -> Response {
        if does_answer.load(Ordering::SeqCst) {
            return sse(&[delta("ok"), stop()]);
        }
        let body = json(status, &json!({"error": error.clone()}));
        if pause.is_empty() { body } else { ([("retry-after", pause)], body).into_response() }
    };
    (Server::chatting(refusal).await, answers)
}

#[tokio::test]
async fn a_short_pause_is_waited_for_and_a_long_one_is_told() {
    let (server, answers) = refusing(429, "1", json!({"code": "rate_limit_exceeded"})).await;
    let provider = watched(&server).await;
    let error = ask(&provider, PATIENCE).await.expect_err("limited");
    assert_eq!((error.code, error.retryable), ("provider.rate_limited", true));
    assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
    // Too little time to wait in: nobody is asked.
    let error = ask(&provider, Duration::from_millis(100)).await.expect_err("too soon");
    assert_eq!((error.code, error.retryable), ("provider.rate_limited", true));
    assert!(error.retry_after.is_some() && error.message.contains("left alone"), "{error}");
    assert_eq!(server.seen().len(), 1);
    answers.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    assert_eq!(ask(&provider, PATIENCE).await.expect("an answer"), "ok");
    assert!(begun.elapsed() > Duration::from_millis(500), "it came before its time");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn an_account_without_money_is_parked_at_once() {
    let error = json!({"type": "insufficient_quota", "code": "credit_balance_exhausted"});
    let (server, _) = refusing(429, "1", error).await;
    let provider = watched(&server).await;
    for _ in 0..3 {
        let error = ask(&provider, PATIENCE).await.expect_err("no money");
        assert_eq!((error.code, error.retryable), ("provider.quota_exceeded", false));
    }
    assert_eq!(server.seen().len(), 1, "money does not come back by asking");
}

#[tokio::test]
async fn a_refused_key_is_not_sent_again_and_again() {
    let (server, _) = refusing(401, "", json!({"code": "invalid_api_key"})).await;
    let provider = watched(&server).await;
    for _ in 0..3 {
        let error = ask(&provider, PATIENCE).await.expect_err("refused");
        assert!(error.code.starts_with("byok.") && !error.retryable, "{error}");
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn who_fails_again_and_again_is_not_asked_for_a_while() {
    let (server, _) = refusing(503, "", json!({"message": "down"})).await;
    let provider = watched(&server).await;
    for _ in 0..8 {
        let error = ask(&provider, PATIENCE).await.expect_err("down");
        assert_eq!((error.code, error.retryable), ("provider.unavailable", true));
    }
    assert_eq!(server.seen().len(), 5);
}
