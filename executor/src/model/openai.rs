//! OpenAI's chat completions, as llama.cpp, Ollama (`/v1`), MLX and OpenAI itself serve them.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use convergio_kernel_c::Platform;
use futures_util::{Stream, StreamExt};
use reqwest::{Client, Response, StatusCode, header};
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Answer, TooLarge};
use super::chat::{ChatAnswer, ChatRequest, LimitName, Provider, Sink};
use super::config::{ModelInfo, ProviderConfig};
use super::endpoint::Endpoint;
use super::error::{ModelError, Refusal};
use super::listing::{self, ListError, Lister};
use super::scrub::scrub;
use super::sse::Lines;

/// Bytes of an error's body that are read.
const ERROR_LIMIT: usize = 64 << 10;
/// Bytes of an answer that comes at once.
const WHOLE_LIMIT: usize = 16 << 20;
/// Longest wait for a list of models.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the end of a stream whose last event has come: read to its end, the connection
/// serves the next call.
const DRAIN: Duration = Duration::from_millis(100);

/// A provider that speaks OpenAI's chat completions.
pub struct OpenAi {
    config: ProviderConfig,
    endpoint: Endpoint,
    client: Client,
}

/// How an answer comes.
enum Form {
    Stream,
    Whole,
    Unknown,
}

impl OpenAi {
    /// A provider by its configuration.
    ///
    /// # Errors
    /// The URL is not one, or would carry the key unencrypted over the internet; or the machine
    /// has no usable TLS.
    pub fn new(config: ProviderConfig) -> Result<Self, ModelError> {
        let endpoint = Endpoint::parse(&config.base_url)?;
        if config.key.is_some() && endpoint.exposes_keys() {
            let name = &config.name;
            let message = format!("the key of {name} would be sent unencrypted: use https://");
            return Err(ModelError::new("request.invalid", false, message));
        }
        let client = endpoint.client(config.timeouts)?;
        Ok(Self { config, endpoint, client })
    }

    /// Asks, and takes the answer in as it comes.
    async fn ask(
        &self,
        body: &Bytes,
        sink: Sink<'_>,
        answer: &mut Answer,
    ) -> Result<(), ModelError> {
        if let Some(missing) = self.config.missing_key() {
            return Err(missing);
        }
        let response = self.send(body, answer).await?;
        match form(&response) {
            Form::Stream => self.stream(response, body, sink, answer).await?,
            Form::Whole => self.whole(response, body, sink, answer).await?,
            Form::Unknown => {
                let message = format!(
                    "{} answered neither JSON nor a stream: is {} its URL?",
                    self.config.name, self.config.base_url
                );
                return Err(ModelError::new("request.invalid", false, message));
            }
        }
        answer.verdict(&self.config.name)
    }

    async fn send(&self, body: &Bytes, answer: &mut Answer) -> Result<Response, ModelError> {
        let mut request = self
            .client
            .post(self.endpoint.at("/chat/completions"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "text/event-stream, application/json")
            .body(body.clone());
        if let Some(key) = &self.config.key {
            request = request.bearer_auth(key.reveal());
        }
        answer.is_asked = true;
        let response = request.send().await.map_err(|error| {
            answer.is_asked = !(error.is_connect() || error.is_builder());
            self.unreachable(&error)
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status == StatusCode::OK {
            return Ok(response);
        }
        // A request that was refused was not worked on.
        answer.is_asked = false;
        let text = listing::read(response, ERROR_LIMIT).await.unwrap_or_default();
        Err(self.refused(Refusal::of_answer(status, &headers, &text), body))
    }

    async fn stream(
        &self,
        response: Response,
        body: &Bytes,
        sink: Sink<'_>,
        answer: &mut Answer,
    ) -> Result<(), ModelError> {
        let mut bytes = response.bytes_stream();
        let mut lines = Lines::default();
        while let Some(chunk) = self.next(&mut bytes, answer).await? {
            answer.receive(chunk.len()).map_err(|TooLarge| self.too_large())?;
            let data = lines.feed(&chunk).map_err(|_| self.malformed("an endless line"))?;
            for data in data {
                if data == "[DONE]" {
                    let drained = async { while bytes.next().await.is_some_and(|b| b.is_ok()) {} };
                    // The answer is whole, however long its connection stays open.
                    let _ended = timeout(DRAIN, drained).await;
                    return Ok(());
                }
                self.piece(&data, body, sink, answer)?;
            }
        }
        match lines.rest() {
            Some(data) if data != "[DONE]" => self.piece(&data, body, sink, answer),
            _ => Ok(()),
        }
    }

    /// The next bytes, or `None` at the end. Once the model has said that it stopped, a connection
    /// that breaks or stays silent takes nothing away but counts.
    async fn next(
        &self,
        bytes: &mut (impl Stream<Item = reqwest::Result<Bytes>> + Unpin),
        answer: &Answer,
    ) -> Result<Option<Bytes>, ModelError> {
        let idle = self.config.timeouts.idle;
        let next = if answer.has_text() || answer.is_finished() {
            timeout(idle, bytes.next()).await
        } else {
            Ok(bytes.next().await)
        };
        let name = &self.config.name;
        match next {
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(None) => Ok(None),
            _ if answer.is_finished() => Ok(None),
            Ok(Some(Err(_))) => {
                Err(ModelError::unavailable(format!("{name} broke off: the connection was cut")))
            }
            Err(_) => {
                let message = format!("{name} fell silent in the middle, for {idle:?}");
                Err(ModelError::new("provider.timeout", true, message))
            }
        }
    }

    fn piece(
        &self,
        data: &str,
        body: &Bytes,
        sink: Sink<'_>,
        answer: &mut Answer,
    ) -> Result<(), ModelError> {
        let piece: Value =
            serde_json::from_str(data).map_err(|_| self.malformed("a piece is not JSON"))?;
        match piece.get("error").filter(|error| !error.is_null()) {
            Some(error) => Err(self.refused(Refusal::of_stream(error), body)),
            None => answer.take_chunk(&piece, sink).map_err(|TooLarge| self.too_large()),
        }
    }

    async fn whole(
        &self,
        response: Response,
        body: &Bytes,
        sink: Sink<'_>,
        answer: &mut Answer,
    ) -> Result<(), ModelError> {
        let text = listing::read(response, WHOLE_LIMIT).await;
        let text =
            text.ok_or_else(|| ModelError::unavailable(format!("{} broke off", self.config.name)))?;
        if text.len() >= WHOLE_LIMIT {
            return Err(self.too_large());
        }
        let whole: Value =
            serde_json::from_str(&text).map_err(|_| self.malformed("it is not JSON"))?;
        if let Some(error) = whole.get("error").filter(|error| !error.is_null()) {
            return Err(self.refused(Refusal::of_stream(error), body));
        }
        if !whole["choices"][0].is_object() {
            return Err(self.malformed("it has no choice"));
        }
        answer.take_whole(&whole, sink).map_err(|TooLarge| self.too_large())
    }

    /// A refusal in our codes; without a key, no key can be a bad one.
    fn refused(&self, refusal: Refusal, body: &Bytes) -> ModelError {
        let prompt = answer::messages(body).join("\n");
        let said = scrub(&refusal.said, self.config.key.as_ref(), &prompt);
        let error = refusal.into_error(&self.config.name, &said);
        match (error.code, &self.config.key) {
            ("byok.bad_key", None) => ModelError { code: "byok.missing_key", ..error },
            _ => error,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ModelError {
        let ProviderConfig { name, base_url, .. } = &self.config;
        if error.is_builder() {
            let message = format!("{name}: its key has characters that no header can hold");
            return ModelError::new("byok.bad_key", false, message);
        }
        if error.is_timeout() && !error.is_connect() {
            return ModelError::new("provider.timeout", true, format!("{name} did not answer"));
        }
        let message = if error.is_connect() {
            format!("{name} cannot be reached at {base_url}: is it running?")
        } else {
            format!("{name} broke off before it answered")
        };
        ModelError::unavailable(message)
    }

    fn malformed(&self, what: &str) -> ModelError {
        let name = &self.config.name;
        ModelError::unavailable(format!("{name} answered what cannot be used: {what}"))
    }

    fn too_large(&self) -> ModelError {
        let message = format!("{} answered more than 8 MiB of text", self.config.name);
        ModelError::new("provider.unavailable", false, message)
    }
}

fn form(response: &Response) -> Form {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_lowercase();
    match kind.split(';').next().unwrap_or_default().trim() {
        "text/event-stream" => Form::Stream,
        "application/json" => Form::Whole,
        _ => Form::Unknown,
    }
}

#[async_trait]
impl Provider for OpenAi {
    fn info(&self) -> &ProviderConfig {
        &self.config
    }

    fn body(&self, request: &ChatRequest) -> Bytes {
        request.body_with(match self.config.platform {
            Platform::CloudApi => LimitName::MaxCompletionTokens,
            _ => LimitName::MaxTokens,
        })
    }

    async fn chat(
        &self,
        body: &Bytes,
        limit: Duration,
        sink: Sink<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        let mut answer = Answer::new();
        let asked = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                Err(ModelError::unavailable(format!("the call to {} was cancelled", self.name())))
            }
            asked = timeout(limit, self.ask(body, sink, &mut answer)) => {
                asked.unwrap_or_else(|_| {
                    let message = format!("{} took longer than {limit:?}", self.name());
                    Err(ModelError::new("provider.timeout", true, message))
                })
            }
        };
        match asked {
            Ok(()) => Ok(answer.finished(body)),
            Err(error) => Err(answer.broken(error, body)),
        }
    }

    async fn models(&self) -> Result<Vec<ModelInfo>, ModelError> {
        let lister = Lister {
            client: &self.client,
            endpoint: &self.endpoint,
            key: self.config.key.as_ref(),
            timeout: LIST_TIMEOUT,
        };
        lister.models(self.config.platform).await.map_err(|error| match error {
            ListError::Unreachable(Some(error)) => self.unreachable(&error),
            ListError::Unreachable(None) => self.malformed("its list of models broke off"),
            ListError::Malformed => self.malformed("its list of models is none"),
            ListError::Refused(status, headers, text) => {
                self.refused(Refusal::of_answer(status, &headers, &text), &Bytes::new())
            }
        })
    }
}
