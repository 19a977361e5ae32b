//! OpenAI's chat completions, as llama.cpp, Ollama (`/v1`), MLX and OpenAI itself serve them.

use std::sync::Once;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::{Client, Response, StatusCode, header};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::chat::{ChatAnswer, Provider, Sink};
use super::config::{ModelInfo, ProviderConfig};
use super::error::ModelError;
use super::sse::Lines;
use super::usage;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of one answer at most.
const ANSWER_LIMIT: usize = 8 << 20;
/// Bytes of an error's body that are read.
const ERROR_LIMIT: usize = 64 << 10;

/// A provider that speaks OpenAI's chat completions.
pub struct OpenAi {
    config: ProviderConfig,
    client: Client,
}

/// A client for servers of this platform: no redirects, no proxies, no Nagle.
///
/// # Errors
/// The machine has no usable TLS.
pub fn client() -> Result<Client, ModelError> {
    static TLS: Once = Once::new();
    // A provider installed by somebody else does as well.
    TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    Client::builder()
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| ModelError::new("internal", false, error.to_string()))
}

impl OpenAi {
    /// A provider by its configuration.
    ///
    /// # Errors
    /// The machine has no usable TLS.
    pub fn new(config: ProviderConfig) -> Result<Self, ModelError> {
        Ok(Self { config, client: client()? })
    }

    async fn send(&self, body: &Bytes) -> Result<Response, ModelError> {
        let url = format!("{}/chat/completions", self.config.base_url);
        let mut request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "text/event-stream")
            .body(body.clone());
        if let Some(key) = &self.config.key {
            request = request.bearer_auth(key.reveal());
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let body = read_limited(response).await;
        Err(ModelError::from_status(&self.config.name, status, &body))
    }

    fn unreachable(&self, error: &reqwest::Error) -> ModelError {
        let name = &self.config.name;
        if error.is_timeout() {
            return ModelError::new("provider.timeout", true, format!("{name} did not answer"));
        }
        let message = format!("{name} cannot be reached: is its server running?");
        ModelError::new("provider.unavailable", true, message)
    }

    async fn ask(
        &self,
        body: &Bytes,
        sink: Sink<'_>,
        answer: &mut Answer,
    ) -> Result<(), ModelError> {
        let response = self.send(body).await?;
        let is_stream = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let mut bytes = response.bytes_stream();
        let mut lines = Lines::default();
        let mut whole = Vec::new();
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.map_err(|_| self.cut("the connection was cut"))?;
            answer.received += chunk.len();
            if answer.received > ANSWER_LIMIT {
                return Err(self.malformed("the answer is larger than 8 MiB"));
            }
            if !is_stream {
                whole.extend_from_slice(&chunk);
                continue;
            }
            let data = lines.feed(&chunk).map_err(|_| self.malformed("an endless line"))?;
            for data in data.iter().filter(|data| !data.is_empty()) {
                if data == "[DONE]" {
                    return Ok(());
                }
                self.chunk(data, sink, answer)?;
            }
        }
        match (is_stream, &answer.finish) {
            (false, _) => self.whole(&whole, sink, answer),
            (true, Some(_)) => Ok(()),
            (true, None) => Err(self.cut("the answer ended in the middle")),
        }
    }

    fn chunk(&self, data: &str, sink: Sink<'_>, answer: &mut Answer) -> Result<(), ModelError> {
        let chunk: Value =
            serde_json::from_str(data).map_err(|_| self.malformed("a piece is not JSON"))?;
        if let Some(error) = chunk.get("error") {
            let body = serde_json::json!({"error": error}).to_string();
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(ModelError::from_status(&self.config.name, status, &body));
        }
        let choice = &chunk["choices"][0];
        answer.take(&chunk, choice, choice["delta"]["content"].as_str(), sink);
        Ok(())
    }

    fn whole(&self, body: &[u8], sink: Sink<'_>, answer: &mut Answer) -> Result<(), ModelError> {
        let body: Value =
            serde_json::from_slice(body).map_err(|_| self.malformed("the answer is not JSON"))?;
        let choice = &body["choices"][0];
        if choice.is_null() {
            return Err(self.malformed("the answer has no choice"));
        }
        answer.take(&body, choice, choice["message"]["content"].as_str(), sink);
        Ok(())
    }

    fn malformed(&self, what: &str) -> ModelError {
        let message = format!("{} answered what cannot be used: {what}", self.config.name);
        ModelError::new("provider.unavailable", true, message)
    }

    fn cut(&self, what: &str) -> ModelError {
        let message = format!("{} broke off: {what}", self.config.name);
        ModelError::new("provider.unavailable", true, message)
    }
}

async fn read_limited(response: Response) -> String {
    let mut bytes = response.bytes_stream();
    let mut body = Vec::new();
    while let Some(Ok(chunk)) = bytes.next().await {
        body.extend_from_slice(&chunk);
        if body.len() > ERROR_LIMIT {
            break;
        }
    }
    String::from_utf8_lossy(&body).into_owned()
}

/// An answer as it grows.
struct Answer {
    begun: Instant,
    text: String,
    finish: Option<String>,
    model: Option<String>,
    usage: Option<Value>,
    pieces: u64,
    first_token_ms: Option<u64>,
    received: usize,
}

impl Answer {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            text: String::new(),
            finish: None,
            model: None,
            usage: None,
            pieces: 0,
            first_token_ms: None,
            received: 0,
        }
    }

    /// Takes a piece in. Usage may stand on any piece; the last one counts.
    fn take(&mut self, piece: &Value, choice: &Value, text: Option<&str>, sink: Sink<'_>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.pieces += 1;
            self.first_token_ms.get_or_insert(millis(self.begun));
            self.text.push_str(text);
            sink(text, self.pieces);
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.finish = Some(finish.to_owned());
        }
        if let Some(model) = piece["model"].as_str() {
            self.model = Some(model.chars().take(200).collect());
        }
        if piece["usage"].is_object() {
            self.usage = Some(piece["usage"].clone());
        }
    }

    fn finished(self, request_bytes: usize) -> ChatAnswer {
        let told = self.usage.as_ref().and_then(usage::from_openai);
        ChatAnswer {
            confirmed: told.is_some(),
            usage: told.unwrap_or_else(|| usage::estimate(request_bytes, self.text.len())),
            finish: self.finish.unwrap_or_else(|| "stop".to_owned()),
            model: self.model.unwrap_or_default(),
            duration_ms: millis(self.begun),
            first_token_ms: self.first_token_ms,
            text: self.text,
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Provider for OpenAi {
    fn name(&self) -> &str {
        &self.config.name
    }

    async fn chat(
        &self,
        body: &Bytes,
        timeout: Duration,
        sink: Sink<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        let mut answer = Answer::new();
        let asked = tokio::select! {
            asked = tokio::time::timeout(timeout, self.ask(body, sink, &mut answer)) => asked,
            () = cancel.cancelled() => Ok(Err(ModelError::new("provider.timeout", true, "stopped"))),
        };
        let error = match asked {
            Ok(Ok(())) => return Ok(answer.finished(body.len())),
            Ok(Err(error)) => error,
            Err(_) => {
                let message = format!("{} took longer than {timeout:?}", self.config.name);
                ModelError::new("provider.timeout", true, message)
            }
        };
        // What came before it broke was made, and may be billed.
        let partial = usage::estimate(body.len(), answer.text.len());
        let partial_usage = (answer.received > 0).then_some(partial);
        Err(ModelError { partial_usage, duration_ms: millis(answer.begun), ..error })
    }

    async fn models(&self) -> Result<Vec<ModelInfo>, ModelError> {
        if !self.config.models.is_empty() {
            return Ok(self.config.models.clone());
        }
        let mut request =
            self.client.get(format!("{}/models", self.config.base_url)).timeout(CONNECT);
        if let Some(key) = &self.config.key {
            request = request.bearer_auth(key.reveal());
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = read_limited(response).await;
        if status != StatusCode::OK {
            return Err(ModelError::from_status(&self.config.name, status, &body));
        }
        let body: Value =
            serde_json::from_str(&body).map_err(|_| self.malformed("its models are not JSON"))?;
        Ok(super::detect::model_list(&body))
    }
}
