//! A model server whose answers are written down beforehand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use convergio_executor::provider::ProviderConfig;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// What is answered to a call.
pub(crate) enum Line {
    /// A text.
    Text(&'static str),
    /// Calls of tools: their names and arguments.
    Calls(Vec<(&'static str, &'static str)>),
    /// A status of failure.
    Busy,
    /// Nothing, for ever.
    Hang,
}

/// The answers in order; after the last one, every call is refused.
pub(crate) struct Script {
    lines: Mutex<VecDeque<Line>>,
    requests: Mutex<Vec<Value>>,
    pub(crate) called: Notify,
}

impl Script {
    /// Serves on a free port; gives the provider to configure.
    pub(crate) async fn serve(lines: Vec<Line>) -> (Arc<Self>, ProviderConfig) {
        let script = Arc::new(Self {
            lines: Mutex::new(lines.into()),
            requests: Mutex::default(),
            called: Notify::new(),
        });
        let app = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/models", get(async || Json(json!({"data": [{"id": "tiny"}]}))))
            .with_state(Arc::clone(&script));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, app).await });
        (script, ProviderConfig::for_local_model("local", &format!("http://{address}/v1"), "tiny"))
    }

    /// The requests that came.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The messages of the n-th request.
    pub(crate) fn messages(&self, number: usize) -> Vec<Value> {
        self.requests()[number]["messages"].as_array().expect("messages").clone()
    }
}

async fn chat(State(script): State<Arc<Script>>, Json(request): Json<Value>) -> Response {
    script.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    let line = script.lines.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    script.called.notify_one();
    let message = match line {
        Some(Line::Text(text)) => json!({"role": "assistant", "content": text}),
        Some(Line::Calls(calls)) => {
            let calls = calls.iter().enumerate().map(|(number, (name, arguments))| {
                json!({"id": format!("c{number}"), "type": "function",
                    "function": {"name": name, "arguments": arguments}})
            });
            json!({"role": "assistant", "content": null, "tool_calls": calls.collect::<Vec<_>>()})
        }
        Some(Line::Hang) => std::future::pending().await,
        Some(Line::Busy) => return (StatusCode::SERVICE_UNAVAILABLE, "busy").into_response(),
        None => return (StatusCode::BAD_REQUEST, "the script is over").into_response(),
    };
    let finish = if message["tool_calls"].is_array() { "tool_calls" } else { "stop" };
    Json(json!({
        "model": "tiny",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
    }))
    .into_response()
}
