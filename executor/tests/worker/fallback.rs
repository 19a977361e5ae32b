//! Providers that refuse: who is asked next, what is never asked again, and what the log says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{Fallback, KeyOwner, RunPhase, RunState, StepStatus};
use convergio_domain::time::Span;
use convergio_eventstore::{SystemClock, WallClock};
use convergio_executor::provider::{ProviderConfig, Secret};
use convergio_kernel_c::{KernelPlatform as Serves, ProviderClass};
use serde_json::{Value, json};

use crate::harness::{Ended, Platform};

/// A provider with one model that always answers so.
pub(crate) async fn provider(
    name: &str,
    answer: fn() -> Response,
) -> (Arc<AtomicUsize>, ProviderConfig) {
    holding(name, 100_000, answer).await
}

/// The same, with a context of this many tokens.
async fn holding(
    name: &str,
    context: u64,
    answer: fn() -> Response,
) -> (Arc<AtomicUsize>, ProviderConfig) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let list = json!({"data": [{"id": "m", "context_length": context}]});
    let app = Router::new().route("/v1/models", get(async move || Json(list))).route(
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
    (calls, ProviderConfig::without_key(name, &url, class, serves))
}

pub(crate) fn answers() -> Response {
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

fn limited() -> Response {
    let error = json!({"error": {"code": "rate_limit_exceeded", "message": "slow down"}});
    let status = StatusCode::TOO_MANY_REQUESTS;
    (status, [("retry-after", "60")], Json(error)).into_response()
}

fn refused() -> Response {
    let error = json!({"error": {"code": "invalid_api_key", "message": "no"}});
    (StatusCode::UNAUTHORIZED, Json(error)).into_response()
}

fn too_long() -> Response {
    let error = json!({"error": {"code": "context_length_exceeded", "message": "too long"}});
    (StatusCode::BAD_REQUEST, Json(error)).into_response()
}

/// Whether a step is to be tried again in more than half a minute.
fn is_put_off(state: &RunState) -> bool {
    let late = SystemClock.now().add_span(Span::from_seconds(30));
    let mut steps = state.steps.values();
    steps.any(|step| matches!(step.status, StepStatus::Scheduled { due: Some(due) } if due > late))
}

type Answer = fn() -> Response;

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
        RunEvent::ModelCallIntended(intended) => Some(intended.provider.as_str()),
        _ => None,
    });
    intended.collect()
}

#[tokio::test]
async fn another_provider_is_asked_and_each_hop_is_in_the_log() {
    let (first, broken) = provider("first", down).await;
    let (second, well) = provider("second", answers).await;
    let ended = asked(vec![broken, well]).await.completed();
    // Once more after a pause, for it may have been an accident; then somebody else.
    assert_eq!(hops(&ended), ["first", "first", "second"]);
    assert_eq!((first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)), (2, 1));
    assert_eq!(reasons(&ended), [None, Some(("first", "provider.unavailable"))]);
    let failed = ended.events.iter().find_map(|event| match event {
        RunEvent::ModelCallFailed(failed) => Some(&failed.error),
        _ => None,
    });
    assert_eq!(failed.expect("told").code, "provider.unavailable");
}

/// Who handed each new try on, and why.
fn reasons(ended: &Ended) -> Vec<Option<(&str, &str)>> {
    let retried = ended.events.iter().filter_map(|event| match event {
        RunEvent::StepRetried(retried) => Some(retried.fallback.as_ref()),
        _ => None,
    });
    retried.map(|hop| hop.map(told)).collect()
}

fn told(hop: &Fallback) -> (&str, &str) {
    (&hop.from.provider, &hop.reason)
}

/// Two providers, the first of which answers so; who was asked, why the hop, and how it ended.
async fn after(answer: fn() -> Response) -> Ended {
    let (calls, first) = provider("first", answer).await;
    let (_, second) = provider("second", answers).await;
    let ended = asked(vec![first, second]).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1, "it was not asked again");
    ended
}

#[tokio::test]
async fn money_keys_and_long_pauses_are_not_waited_for_when_there_is_another() {
    let cases: [(Answer, &str); 3] = [
        (spent, "provider.quota_exceeded"),
        (limited, "provider.rate_limited"),
        (refused, "byok.missing_key"),
    ];
    for (answer, reason) in cases {
        let ended = after(answer).await.completed();
        assert_eq!(hops(&ended), ["first", "second"], "{reason}");
        assert_eq!(reasons(&ended), [Some(("first", reason))]);
    }
}

#[tokio::test]
async fn a_prompt_that_is_too_long_goes_only_to_who_holds_more() {
    for (context, is_asked) in [(100_000, false), (200_000, true)] {
        let (_, small) = provider("first", too_long).await;
        let (calls, other) = holding("second", context, answers).await;
        let ended = asked(vec![small, other]).await;
        assert_eq!(calls.load(Ordering::SeqCst) == 1, is_asked, "{context}");
        match is_asked {
            true => assert_eq!(reasons(&ended), [Some(("first", "provider.context_exceeded"))]),
            false => assert_eq!(ended.error().code, "provider.context_exceeded"),
        }
    }
}

#[tokio::test]
async fn who_has_a_key_of_their_own_is_never_moved_to_the_platforms() {
    let key = |config: ProviderConfig, owner: KeyOwner| ProviderConfig {
        key: Some(Secret::new("sk-canary-0123456789")),
        api_key_env: Some(format!("KEY_OF_{owner:?}")),
        owner,
        ..config
    };
    let refusals: [Answer; 4] = [refused, spent, down, limited];
    for answer in refusals {
        let (_, own) = provider("first", answer).await;
        let (calls, managed) = provider("second", answers).await;
        let managed = key(managed, KeyOwner::Platform);
        let providers = vec![managed.clone(), key(own, KeyOwner::User)];
        let mut platform = Platform::with_models(providers);
        let run = platform.create(ASK, &Value::Null).await;
        platform.start();
        // It fails, or waits for the end of the pause that the provider asks for.
        let state = platform.until(&run, |state| state.phase.is_ended() || is_put_off(state)).await;
        assert_ne!(state.phase, RunPhase::Completed);
        assert_eq!(calls.load(Ordering::SeqCst), 0, "{:?}", state.error);
        platform.stop().await;
        // Without a key of one's own the platform's is there to be used.
        let ended = asked(vec![managed]).await.completed();
        let named = ended.events.iter().find_map(|event| match event {
            RunEvent::ModelCallIntended(intended) => intended.key.as_deref(),
            _ => None,
        });
        assert_eq!(named, Some("KEY_OF_Platform"));
    }
}

#[tokio::test]
async fn another_key_of_the_same_owner_is_used() {
    let keyed = |config: ProviderConfig, name: &str| ProviderConfig {
        key: Some(Secret::new("sk-canary-0123456789")),
        api_key_env: Some(name.into()),
        ..config
    };
    let (first, bad) = provider("work", refused).await;
    let (second, well) = provider("work", answers).await;
    let ended = asked(vec![keyed(bad, "KEY_1"), keyed(well, "KEY_2")]).await.completed();
    assert_eq!((first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)), (1, 1));
    let keys: Vec<_> = ended
        .events
        .iter()
        .filter_map(|event| match event {
            RunEvent::ModelCallIntended(intended) => intended.key.as_deref(),
            _ => None,
        })
        .collect();
    assert_eq!(keys, ["KEY_1", "KEY_2"]);
}

#[tokio::test]
async fn a_manifest_that_allows_one_try_gets_one() {
    let once = ASK.replace("max: 3", "max: 1");
    let (_, broke) = provider("first", spent).await;
    let (second, well) = provider("second", answers).await;
    let ended = Platform::with_models(vec![broke, well]).execute(&once, &Value::Null).await;
    assert_eq!(ended.error().code, "provider.quota_exceeded");
    assert_eq!(second.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_account_without_money_is_surfaced_and_never_asked_again() {
    let (calls, broke) = provider("first", spent).await;
    let ended = asked(vec![broke]).await;
    assert_eq!(
        (ended.error().code.as_str(), ended.error().retryable),
        ("provider.quota_exceeded", false)
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
