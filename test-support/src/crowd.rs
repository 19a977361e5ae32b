//! A model server that takes a number of calls at once and refuses the others with 429.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use convergio_executor::provider::ProviderConfig;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

/// What the server does, and what it has seen.
pub struct Crowd {
    /// Calls that it takes at once.
    capacity: usize,
    /// The `retry-after` of its refusals; none when empty.
    hint: &'static str,
    /// Whether calls that were let in are answered; those that are not stay inside.
    answers: watch::Sender<bool>,
    inside: AtomicUsize,
    /// Most calls that were inside at once.
    pub peak: AtomicUsize,
    /// Calls that were refused.
    pub refusals: AtomicUsize,
    /// The idempotency keys of all calls, refused ones among them.
    keys: Mutex<Vec<String>>,
    /// When each call came.
    arrivals: Mutex<Vec<Instant>>,
    /// Told of each call that came.
    pub called: Notify,
}

impl Crowd {
    /// Serves on a free port; gives the provider to configure. The first calls stay inside until
    /// one is refused, so that there is a crowd whatever the machine is busy with.
    pub async fn serve(capacity: usize, hint: &'static str) -> (Arc<Self>, ProviderConfig) {
        Self::start(capacity, hint, false).await
    }

    /// The same, but every call is answered at once unless [`Crowd::hold`] says otherwise.
    pub async fn serve_at_once(capacity: usize) -> (Arc<Self>, ProviderConfig) {
        Self::start(capacity, "", true).await
    }

    async fn start(
        capacity: usize,
        hint: &'static str,
        answers: bool,
    ) -> (Arc<Self>, ProviderConfig) {
        let crowd = Arc::new(Self {
            capacity,
            hint,
            answers: watch::channel(answers).0,
            inside: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            keys: Mutex::default(),
            arrivals: Mutex::default(),
            called: Notify::new(),
        });
        let app = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/embeddings", post(embed))
            .route("/v1/models", get(async || Json(json!({"data": [{"id": "tiny"}]}))))
            .with_state(Arc::clone(&crowd));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, app).await });
        (crowd, ProviderConfig::for_local_model("local", &format!("http://{address}/v1"), "tiny"))
    }

    /// Keeps the calls inside that come from now on.
    pub fn hold(&self) {
        self.answers.send_replace(false);
    }

    /// Answers all calls, those that are inside among them.
    pub fn release(&self) {
        self.answers.send_replace(true);
    }

    /// When calls came, in order.
    pub fn arrivals(&self) -> Vec<Instant> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The idempotency keys of the calls, in order.
    pub fn keys(&self) -> Vec<String> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets a call in and answers it, or refuses it.
    async fn admit(&self, headers: &HeaderMap, answer: Value) -> Response {
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
        let key = key.map(str::to_owned);
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).extend(key);
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        self.called.notify_one();
        let inside = Inside::enter(&self.inside);
        if inside.number > self.capacity {
            drop(inside);
            self.refusals.fetch_add(1, Ordering::SeqCst);
            self.release();
            return self.refusal();
        }
        self.peak.fetch_max(inside.number, Ordering::SeqCst);
        let mut answers = self.answers.subscribe();
        answers.wait_for(|answers| *answers).await.expect("the server is there");
        Json(answer).into_response()
    }

    fn refusal(&self) -> Response {
        let error = json!({"error": {"message": "too many at once", "code": "slow_down"}});
        let refusal = (StatusCode::TOO_MANY_REQUESTS, Json(error));
        match self.hint {
            "" => refusal.into_response(),
            hint => ([("retry-after", hint)], refusal).into_response(),
        }
    }
}

/// A call that is inside; it is not counted any more when its answer leaves, or its caller.
struct Inside<'a> {
    count: &'a AtomicUsize,
    number: usize,
}

impl<'a> Inside<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        Self { count, number: count.fetch_add(1, Ordering::SeqCst) + 1 }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn chat(State(crowd): State<Arc<Crowd>>, headers: HeaderMap) -> Response {
    let message = json!({"role": "assistant", "content": "ok"});
    let answer = json!({"model": "tiny",
        "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]});
    crowd.admit(&headers, answer).await
}

async fn embed(State(crowd): State<Arc<Crowd>>, headers: HeaderMap) -> Response {
    let answer = json!({"data": [{"index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1}});
    crowd.admit(&headers, answer).await
}
