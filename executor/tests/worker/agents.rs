//! Agents: model calls as intents, usage and cost in the same commit, retries, budgets, cancels.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Json, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use convergio_domain::money::Money;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{RunCommand, RunPhase};
use convergio_executor::provider::ProviderConfig;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::harness::Platform;

/// What the model server does with the n-th call, from 0.
#[derive(Clone, Copy)]
pub(crate) enum Behaviour {
    /// Answers at once.
    Answer,
    /// Fails as a busy server does, this many times.
    BusyFirst(usize),
    /// Never answers.
    Hang,
}

/// A model server with the wire shape of llama.cpp.
pub(crate) struct Model {
    behaviour: Behaviour,
    calls: AtomicUsize,
    pub(crate) called: Notify,
    /// The idempotency key of each call.
    pub(crate) keys: Mutex<Vec<String>>,
}

impl Model {
    /// Serves on a free port; gives the provider to configure.
    pub(crate) async fn serve(behaviour: Behaviour) -> (Arc<Self>, ProviderConfig) {
        let (calls, called, keys) = (AtomicUsize::new(0), Notify::new(), Mutex::default());
        let model = Arc::new(Self { behaviour, calls, called, keys });
        let app = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/models", get(async || Json(json!({"data": [{"id": "tiny"}]}))))
            .with_state(Arc::clone(&model));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, app).await });
        (model, ProviderConfig::for_local_model("local", &format!("http://{address}/v1"), "tiny"))
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

async fn chat(
    State(model): State<Arc<Model>>,
    headers: HeaderMap,
    Json(request): Json<Value>,
) -> Response {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    model.keys.lock().expect("whole").push(key.unwrap_or("none").to_owned());
    let call = model.calls.fetch_add(1, Ordering::SeqCst);
    model.called.notify_one();
    match model.behaviour {
        Behaviour::BusyFirst(times) if call < times => {
            (StatusCode::SERVICE_UNAVAILABLE, "busy").into_response()
        }
        Behaviour::Hang => std::future::pending().await,
        _ => {
            let prompt = request["messages"].as_array().and_then(|list| list.last()).cloned();
            let text = prompt.map_or(Value::Null, |message| message["content"].clone());
            let echo = format!("echo {}", text.as_str().unwrap_or(""));
            Json(json!({
                "model": "tiny",
                "choices": [{"index": 0, "finish_reason": "stop",
                    "message": {"role": "assistant", "content": echo}}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13,
                    "prompt_tokens_details": {"cached_tokens": 4}},
            }))
            .into_response()
        }
    }
}

pub(crate) const ASK: &str = r#"
name: ask
output: "{{ nodes.ask.output }}"
nodes:
  - id: ask
    retry: {max: 3, backoff: 1ms}
    agent: {model: local, prompt: "{{ inputs.text }}", max_tokens: 20}
"#;

#[tokio::test]
async fn a_model_call_is_intended_answered_metered_and_priced_in_the_log() {
    let (_model, provider) = Model::serve(Behaviour::Answer).await;
    let mut platform = Platform::with_models(vec![provider]);
    let ended = platform.execute(ASK, &json!({"text": "hi"})).await.completed();
    assert_eq!(ended.output, json!("echo hi"));
    let types: Vec<_> = ended.events.iter().map(RunEvent::type_name).collect();
    let expected = [
        "run.created.v1",
        "run.step.started.v1",
        "run.model_call.intended.v1",
        "run.model_call.completed.v1",
        "run.usage.recorded.v1",
        "run.step.completed.v1",
        "run.completed.v1",
    ];
    assert_eq!(types, expected);
    assert_eq!(ended.state.spent.tokens, 13);
    assert_eq!(ended.state.spent.cost, "0.000012".parse::<Money>().expect("an amount"));
}

#[tokio::test]
async fn a_busy_model_is_asked_again() {
    let (model, provider) = Model::serve(Behaviour::BusyFirst(2)).await;
    let mut platform = Platform::with_models(vec![provider]);
    let ended = platform.execute(ASK, &json!({"text": "hi"})).await.completed();
    assert_eq!(model.calls(), 3);
    assert_eq!(ended.count("run.model_call.intended.v1"), 3, "each try has its own intent");
    assert_eq!(ended.count("run.model_call.failed.v1"), 2);
    assert_eq!(ended.count("run.step.retried.v1"), 2);
    assert_eq!(ended.count("run.usage.recorded.v1"), 1, "calls that used nothing cost nothing");
}

#[tokio::test]
async fn the_tries_end() {
    let (model, provider) = Model::serve(Behaviour::BusyFirst(99)).await;
    let mut platform = Platform::with_models(vec![provider]);
    let ended = platform.execute(ASK, &json!({"text": "hi"})).await;
    assert_eq!(ended.error().code, "provider.unavailable");
    assert_eq!(model.calls(), 3);
}

#[tokio::test]
async fn a_call_beyond_the_budget_is_not_made() {
    let (model, provider) = Model::serve(Behaviour::Answer).await;
    let mut platform = Platform::with_models(vec![provider]);
    let manifest = format!("budget: {{tokens: 10}}\n{ASK}");
    let ended = platform.execute(&manifest, &json!({"text": "hi"})).await;
    assert_eq!(ended.error().code, "budget.exceeded");
    assert_eq!(model.calls(), 0);
    assert_eq!(ended.count("run.model_call.intended.v1"), 0);
}

#[tokio::test]
async fn a_cancel_stops_the_call_under_way() {
    let (model, provider) = Model::serve(Behaviour::Hang).await;
    let mut platform = Platform::with_models(vec![provider]);
    let run = platform.create(ASK, &json!({"text": "hi"})).await;
    platform.start();
    model.called.notified().await;
    platform.tell(&run, RunCommand::Cancel { reason: None }).await;
    let settled = |state: &convergio_domain::run::RunState| state.spent.reserved_tokens == 0;
    let state = platform.until(&run, |state| state.phase.is_ended() && settled(state)).await;
    assert_eq!(state.phase, RunPhase::Cancelled);
    platform.stop().await;
}

#[tokio::test]
async fn a_run_ends_at_its_deadline_though_the_model_hangs() {
    let (_model, provider) = Model::serve(Behaviour::Hang).await;
    let mut platform = Platform::with_models(vec![provider]);
    let manifest = format!("budget: {{wall: 200ms}}\n{ASK}");
    let ended = platform.execute(&manifest, &json!({"text": "hi"})).await;
    assert_eq!(ended.error().code, "budget.exceeded");
}

#[tokio::test]
async fn no_model_at_all_is_a_clear_failure() {
    let ended = Platform::new().execute(ASK, &json!({"text": "hi"})).await;
    assert_eq!(ended.state.phase, RunPhase::Failed);
    assert!(ended.error().message.contains("model"), "{}", ended.error().message);
}
