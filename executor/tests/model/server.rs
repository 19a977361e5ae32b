//! A model server on a free port, and the questions that tests ask it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use convergio_domain::chat::{ChatRequest, ModelService, ServiceReply};
use convergio_executor::provider::{
    CallAdmission, ChatAnswer, HttpProvider, ModelError, Provider, ProviderCall, ProviderConfig,
    ServiceCall,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Longest time that a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What every test asks; it must never appear in an error.
pub(crate) const PROMPT: &str = "canary prompt: the ship sails at dawn";

/// A request that a server received.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A running server.
pub(crate) struct Server {
    /// Its URL, with `/v1`.
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Answers every request with what `answer` makes of its path.
    pub(crate) async fn start<A>(answer: A) -> Self
    where
        A: Fn(&str) -> Response + Clone + Send + Sync + 'static,
    {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let app = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.expect("a whole request");
            let path = parts.uri.path().to_owned();
            let answer = answer(&path);
            let seen = Seen { path, headers: parts.headers, body };
            log.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            answer
        });
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let listener = listener.tap_io(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url: format!("http://{address}/v1"), seen, connections }
    }

    /// Answers each chat with this response.
    pub(crate) async fn chatting<A>(answer: A) -> Self
    where
        A: Fn() -> Response + Clone + Send + Sync + 'static,
    {
        Self::start(move |_| answer()).await
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often a path was asked for.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path == path).count()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn config(&self) -> ProviderConfig {
        ProviderConfig::for_local_model("local", &self.url, "tiny")
    }

    pub(crate) async fn ask(&self) -> Result<ChatAnswer, ModelError> {
        ask(self.config()).await
    }
}

/// A URL at which nobody listens.
pub(crate) async fn nowhere() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    format!("http://{}/v1", listener.local_addr().expect("bound"))
}

pub(crate) fn request() -> ChatRequest {
    let (max_tokens, temperature) = (Some(20), Some(0.0));
    ChatRequest { max_tokens, temperature, ..ChatRequest::from_prompt("tiny", PROMPT) }
}

/// A call of the usual model.
pub(crate) fn call(body: &Bytes, timeout: Duration) -> ProviderCall<'_> {
    let admission = CallAdmission::default();
    let idempotency_key = Some("the-same-call");
    let media_type = "application/json";
    ProviderCall {
        model: "tiny",
        body,
        media_type,
        headers: &[],
        timeout,
        idempotency_key,
        admission,
    }
}

/// The exact bytes of a request that the provider takes.
pub(crate) fn body_of(provider: &dyn Provider, request: &ChatRequest) -> Bytes {
    provider.write_request(request.clone()).expect("the provider takes it").body
}

/// Asks for a service; waits for its turn.
pub(crate) async fn ask_service(
    provider: &dyn Provider,
    model: &str,
    service: ModelService,
) -> Result<ChatAnswer, ModelError> {
    let asked = ServiceCall::from_service(&service);
    let (model_name, service) = (model.to_owned(), Some(service));
    let request = ChatRequest { model: model_name, service, ..ChatRequest::default() };
    let written = provider.write_request(request)?;
    let admission = CallAdmission { waits_out_refusals: true, ..CallAdmission::default() };
    let (body, media_type) = (&written.body, written.media_type.as_str());
    let call = ProviderCall { model, body, media_type, admission, ..call(body, PATIENCE) };
    provider.call_service(asked, call, &CancellationToken::new()).await
}

/// A request for vectors.
pub(crate) fn embed(texts: &[&str]) -> ModelService {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    ModelService::Embed { texts, dimensions: None }
}

/// The vectors of an answer.
pub(crate) fn vectors(answer: &ChatAnswer) -> Vec<Vec<f32>> {
    let Some(ServiceReply::Vectors { vectors }) = &answer.service else {
        panic!("no vectors: {answer:?}")
    };
    vectors.iter().map(|vector| vector.to_numbers().expect("a vector")).collect()
}

/// Asks the usual question.
pub(crate) async fn ask(config: ProviderConfig) -> Result<ChatAnswer, ModelError> {
    let provider = HttpProvider::new(config).expect("the configuration is valid");
    let body = body_of(&provider, &request());
    provider.complete_chat(call(&body, PATIENCE), &|_| {}, &CancellationToken::new()).await
}

pub(crate) fn json(status: u16, value: &Value) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// A whole stream of these data lines, ended as OpenAI does.
pub(crate) fn sse(data: &[Value]) -> Response {
    let lines: String = data.iter().map(|data| format!("data: {data}\n\n")).collect();
    raw_sse(Body::from(lines + "data: [DONE]\n\n"))
}

pub(crate) fn raw_sse(body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], body.into()).into_response()
}

/// Pieces of a stream, and then what comes of its connection.
pub(crate) enum Then {
    Cut,
    Silence,
}

pub(crate) fn broken_sse(text: String, then: Then) -> Response {
    use futures_util::{FutureExt, StreamExt, future, stream};
    let pieces = stream::iter([Ok(Bytes::from(text))]);
    let last = match then {
        // What was written leaves the server while it waits for more.
        Then::Cut => tokio::task::yield_now().map(|()| Err(std::io::Error::other("cut"))).boxed(),
        Then::Silence => future::pending().boxed(),
    };
    raw_sse(Body::from_stream(pieces.chain(stream::once(last))))
}

pub(crate) fn delta(text: &str) -> Value {
    serde_json::json!({"object": "chat.completion.chunk", "model": "tiny",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
}

pub(crate) fn stop() -> Value {
    serde_json::json!({"model": "tiny",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
}
