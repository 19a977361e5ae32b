//! A model server that does what the last words of the prompt say.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{StreamExt, future, stream};
use serde_json::{Value, json};

use crate::upstream_services as services;

/// A running fixture server.
pub(crate) struct Upstream {
    /// Its URL, with `/v1`.
    pub(crate) url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) calls: Mutex<Vec<Value>>,
    keys: Mutex<Vec<String>>,
    /// Answers under way, and those whose listener has gone.
    open: AtomicUsize,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let app = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route(
                "/v1/models",
                get(async || {
                    Json(json!({"data": [{"id": "fix", "max_model_len": 8192},
                    {"id": "fix-embed"}, {"id": "fix-whisper"}, {"id": "fix-tts"}]}))
                }),
            )
            .merge(services::routes())
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url: format!("http://{address}/v1"), shared }
    }

    /// The requests that came.
    pub(crate) fn calls(&self) -> Vec<Value> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys that came.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers whose connection is open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

/// An answer under way.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn chat(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(request): Json<Value>,
) -> Response {
    let push = |keys: &Mutex<Vec<String>>, key: &str| {
        keys.lock().unwrap_or_else(PoisonError::into_inner).push(key.to_owned());
    };
    if let Some(key) = headers.get(header::AUTHORIZATION).and_then(|key| key.to_str().ok()) {
        push(&shared.keys, key);
    }
    shared.calls.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
    let messages = request["messages"].as_array().expect("messages");
    let last = messages.last().expect("one at least");
    let asked = last["content"].as_str().unwrap_or("picture").to_owned();
    match asked.as_str() {
        "limited" => refusal(429, "7", json!({"code": "rate_limit_exceeded", "message": "slow"})),
        "money" => refusal(429, "", json!({"code": "insufficient_quota", "message": "pay"})),
        "long" => refusal(400, "", json!({"code": "context_length_exceeded"})),
        "filtered" => refusal(400, "", json!({"code": "content_filter", "message": "no"})),
        "busy" => refusal(503, "", json!({"message": "down"})),
        "malformed" => sse("data: {\"choices\":\n\n".into()),
        "weather" => sse(tool_call()),
        "cut" => broken(&shared, stream::iter([Err(std::io::Error::other("cut"))]).boxed()),
        "hang" => broken(&shared, stream::pending().boxed()),
        "half an event" => {
            let begun = piece(&json!({"content": "a piece"}), &Value::Null);
            begun_with(&shared, begun.trim_end().to_owned() + "\n", stream::pending().boxed())
        }
        _ => sse(whole(&format!("you said: {asked}"))),
    }
}

fn refusal(status: u16, pause: &'static str, error: Value) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    let answer = (status, Json(json!({"error": error})));
    if pause.is_empty() {
        answer.into_response()
    } else {
        ([("retry-after", pause)], answer).into_response()
    }
}

fn sse(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], text).into_response()
}

fn piece(delta: &Value, finish: &Value) -> String {
    let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
    format!("data: {}\n\n", json!({"model": "fix-1", "choices": [choice]}))
}

fn end(finish: &str) -> String {
    let usage = json!({"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 4}});
    let counts = json!({"model": "fix-1", "choices": [], "usage": usage});
    format!("{}data: {counts}\n\ndata: [DONE]\n\n", piece(&json!({}), &json!(finish)))
}

/// An answer in many pieces.
fn whole(text: &str) -> String {
    let letters = text.char_indices().map(|(at, letter)| &text[at..at + letter.len_utf8()]);
    let said = letters.map(|letter| piece(&json!({"content": letter}), &Value::Null));
    said.collect::<String>() + &end("stop")
}

fn tool_call() -> String {
    let call = json!({"tool_calls": [{"index": 0, "id": "call_7", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]});
    piece(&call, &Value::Null) + &end("tool_calls")
}

/// Some words, and then what comes of the connection.
fn broken(
    shared: &Arc<Shared>,
    then: stream::BoxStream<'static, std::io::Result<Bytes>>,
) -> Response {
    let begun = piece(&json!({"content": "half an "}), &Value::Null)
        + &piece(&json!({"content": "answer"}), &Value::Null);
    begun_with(shared, begun, then)
}

fn begun_with(
    shared: &Arc<Shared>,
    begun: String,
    then: stream::BoxStream<'static, std::io::Result<Bytes>>,
) -> Response {
    let open = Open::new(shared);
    let first = stream::iter([Ok(Bytes::from(begun))]);
    // What was written leaves the server while it waits for more.
    let pause = stream::once(async {
        tokio::task::yield_now().await;
        Ok(Bytes::new())
    });
    let pieces = first.chain(pause).chain(then).map(move |piece| {
        let _held = &open;
        piece
    });
    let pieces = pieces.filter(|piece| {
        let is_kept = piece.as_ref().map_or(true, |piece| !piece.is_empty());
        future::ready(is_kept)
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response()
}
