//! Providers that refuse: who is asked next, what is never asked again, and what the log says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use convergio_domain::event::Event;
use convergio_executor::model::ProviderConfig;
use convergio_kernel_c::{Platform as Serves, ProviderClass};
use serde_json::{Value, json};

use crate::harness::{Ended, Platform};

/// A provider with one model that always answers so.
async fn provider(name: &str, answer: fn() -> Response) -> (Arc<AtomicUsize>, ProviderConfig) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let app = Router::new()
        .route("/v1/models", get(async || Json(json!({"data": [{"id": "m"}]}))))
        .route(
            "/v1/chat/completions",
            post(move || {
                counter.fetch_add(1, Ordering::SeqCst);
                async move { answer() }
            }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/v1", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let (class, serves) = (ProviderClass::Local, Serves::OpenAiCompatible);
    (calls, ProviderConfig::keyless(name, &url, class, serves))
}

fn answers() -> Response {
    let message = json!({"role": "assistant", "content": "ok"});
    Json(json!({"model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
    .into_response()
}

fn down() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "down").into_response()
}

fn spent() -> Response {
    let error = json!({"error": {"type": "insufficient_quota", "message": "pay"}});
    (StatusCode::TOO_MANY_REQUESTS, Json(error)).into_response()
}

fn filtered() -> Response {
    let error = json!({"error": {"code": "content_filter", "message": "no"}});
    (StatusCode::BAD_REQUEST, Json(error)).into_response()
}

const ASK: &str = r#"
name: ask
nodes:
  - {id: ask, retry: {max: 3, backoff: 1ms}, agent: {model: auto, prompt: hi, max_tokens: 20}}
"#;

async fn asked(providers: Vec<ProviderConfig>) -> Ended {
    Platform::with_models(providers).execute(ASK, &Value::Null).await
}

/// Who was to be asked, in order.
fn hops(ended: &Ended) -> Vec<&str> {
    let intended = ended.events.iter().filter_map(|event| match event {
        Event::ModelCallIntended(intended) => Some(intended.provider.as_str()),
        _ => None,
    });
    intended.collect()
}

#[tokio::test]
async fn another_provider_is_asked_and_each_hop_is_in_the_log() {
    let (first, broken) = provider("first", down).await;
    let (second, well) = provider("second", answers).await;
    let ended = asked(vec![broken, well]).await.completed();
    assert_eq!(hops(&ended), ["first", "second"]);
    assert_eq!((first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)), (1, 1));
    let failed = ended.events.iter().find_map(|event| match event {
        Event::ModelCallFailed(failed) => Some(&failed.error),
        _ => None,
    });
    assert_eq!(failed.expect("told").code, "provider.unavailable");
}

#[tokio::test]
async fn an_account_without_money_is_surfaced_and_never_asked_again() {
    let (calls, broke) = provider("first", spent).await;
    let ended = asked(vec![broke]).await;
    assert_eq!(
        (ended.error().code.as_str(), ended.error().retryable),
        ("provider.rate_limited", false)
    );
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(ended.count("run.step.retried.v1"), 0);
}

#[tokio::test]
async fn a_filter_is_surfaced_and_not_dodged() {
    let (_, filters) = provider("first", filtered).await;
    let (second, well) = provider("second", answers).await;
    let ended = asked(vec![filters, well]).await;
    assert_eq!(ended.error().code, "provider.content_filtered");
    assert_eq!(second.load(Ordering::SeqCst), 0);
}
