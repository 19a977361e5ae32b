//! A proxy in front of a model server that counts calls. The same request gets the recorded answer
//! without another call: the engine is under test, not the model.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use reqwest::Client;
use tokio::sync::watch;

/// Maximum bytes of a request.
const REQUEST_LIMIT: usize = 32 << 20;

/// Recorded answers by path and body, and the number of calls.
#[derive(Default)]
struct RecordedAnswers {
    answers: HashMap<(String, Bytes), (StatusCode, HeaderValue, Bytes)>,
    call_count: u64,
}

struct ProxyState {
    server: String,
    http: Client,
    record: Mutex<RecordedAnswers>,
}

/// A running proxy; it ends when it is dropped.
pub struct ModelProxy {
    /// Base URL of the proxy, which ends in `/v1`.
    pub url: String,
    state: Arc<ProxyState>,
    _end: watch::Sender<()>,
}

impl ModelProxy {
    /// Starts a proxy in front of the server with this base URL, which ends in `/v1`.
    ///
    /// # Errors
    /// No socket can be opened.
    pub async fn start(base_url: &str) -> anyhow::Result<Self> {
        let server = base_url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let http = convergio_executor::provider::http_client()?;
        let shared = Arc::new(ProxyState { server, http, record: Mutex::default() });
        let app = Router::new().fallback(forward_request).with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        let (_end, mut ended) = watch::channel(());
        tokio::spawn(async move {
            tokio::select! {
                served = axum::serve(listener, app) => served,
                _ = ended.changed() => Ok(()),
            }
        });
        Ok(Self { url, state: shared, _end })
    }

    /// Number of model calls so far, answered from the record or not.
    pub fn call_count(&self) -> u64 {
        self.state.lock_record().call_count
    }
}

impl ProxyState {
    fn lock_record(&self) -> std::sync::MutexGuard<'_, RecordedAnswers> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn forward_request(State(state): State<Arc<ProxyState>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, REQUEST_LIMIT).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let is_question = parts.method == Method::POST && is_model_call(&path);
    let key = (path, body);
    // Counted before it is looked up: an engine that asks twice is a finding even if the answer is
    // known.
    if is_question {
        let mut seen = state.lock_record();
        seen.call_count += 1;
        if let Some((status, kind, answer)) = seen.answers.get(&key) {
            return (*status, [(header::CONTENT_TYPE, kind.clone())], answer.clone())
                .into_response();
        }
    }
    let asked = state.http.request(parts.method, format!("{}{}", state.server, key.0));
    let asked = asked.header(header::CONTENT_TYPE, "application/json").body(key.1.clone());
    let answered = async {
        let answer = asked.send().await?;
        let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
        let status = answer.status();
        Ok::<_, reqwest::Error>((status, kind, answer.bytes().await?))
    };
    let Ok((status, kind, answer)) = answered.await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let kind = kind.unwrap_or(HeaderValue::from_static("application/json"));
    if is_question && status.is_success() {
        state.lock_record().answers.insert(key, (status, kind.clone(), answer.clone()));
    }
    (status, [(header::CONTENT_TYPE, kind)], answer).into_response()
}

/// True if a path calls a model; all others only ask about one.
fn is_model_call(path: &str) -> bool {
    ["/chat/completions", "/completions", "/api/chat", "/api/generate", "/embeddings"]
        .iter()
        .any(|end| path.ends_with(end))
}
