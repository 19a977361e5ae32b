//! A provider over HTTP: one way to send a call, to bound its answer and to give up, whatever the
//! dialect.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::chat::{ChatField, ChatRequest, FieldSupport, NativeFields};
use convergio_domain::json::check_whole_numbers;
use convergio_kernel_c::ProviderClass;
use futures_util::{Stream, StreamExt};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Answer};
use super::chat::{Call, ChatAnswer, Piece, Provider, Sink, WrittenRequest};
use super::config::{Api, KeyHeader, ModelInfo, ProviderConfig};
use super::dialect::{self, Dialect, ReadError};
use super::draft::TooLarge;
use super::endpoint::Endpoint;
use super::error::ModelError;
use super::file_shortage::{FileWait, is_file_shortage};
use super::fit::{Fit, LeftOut, check_fetched_hosts};
use super::listing::{self, ListError, Lister};
use super::provider_traits::ProviderTraits;
use super::refusal::Refusal;
use super::scrub::scrub;
use super::service::{self, ServiceCall};
use super::sse::{Framing, Lines};

/// Media type of all bodies but forms.
pub(super) const JSON: &str = "application/json";
/// Maximum bytes read of an error's body.
const ERROR_LIMIT: usize = 64 << 10;
/// Maximum bytes of an answer that arrives at once.
const WHOLE_LIMIT: usize = 16 << 20;
/// Maximum models of one provider that are remembered to refuse streams.
const WHOLE_MODELS_LIMIT: usize = 1_000;
/// Longest wait for a list of models.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the end of a stream after its last event. A stream that was read to its end
/// leaves the connection reusable for the next call.
const DRAIN: Duration = Duration::from_millis(100);

/// A provider called over HTTP, in its dialect.
pub struct HttpProvider {
    config: ProviderConfig,
    endpoint: Endpoint,
    dialect: Box<dyn Dialect>,
    client: Client,
    /// Models that were found to refuse streams: they are called without streaming.
    whole_models: Mutex<BTreeSet<String>>,
}

/// The framing of a response, by its headers.
enum Form {
    Stream(Framing),
    Whole,
    Unknown,
}

/// A call in flight: the request, the listener and the answer under construction.
struct Asked<'a> {
    call: Call<'a>,
    sink: Sink<'a>,
    answer: Answer,
}

impl HttpProvider {
    /// Creates a provider from its configuration.
    ///
    /// # Errors
    /// The URL is malformed or would carry the key unencrypted over a public network, or the
    /// machine has no usable TLS.
    pub fn new(config: ProviderConfig) -> Result<Self, ModelError> {
        let endpoint = Endpoint::parse(&config.base_url)?;
        if config.key.is_some() && endpoint.exposes_keys() {
            let name = &config.name;
            let message = format!("the key of {name} would be sent unencrypted: use https://");
            return Err(ModelError::new("request.invalid", false, message));
        }
        let client = endpoint.client(config.timeouts)?;
        let dialect = dialect::of(&config);
        Ok(Self { config, endpoint, dialect, client, whole_models: Mutex::default() })
    }

    /// Returns whether prompts sent here stay on machines of the user or the operator.
    pub(super) fn is_private(&self) -> bool {
        let is_local = self.config.class == ProviderClass::Local;
        self.endpoint.is_private() && is_local && !self.config.is_unconfirmed
    }

    /// Returns the URL of a path. Ollama's native routes are beside `/v1`, not below it.
    fn url(&self, path: &str) -> String {
        match self.config.api {
            Api::Ollama => self.endpoint.beside(path),
            _ => self.endpoint.at(path),
        }
    }

    /// Returns the headers of every request, including the key's.
    fn headers(&self) -> Result<HeaderMap, ModelError> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.dialect.headers() {
            let value = HeaderValue::from_str(&value).map_err(|_| self.bad_key("its version"))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        if let Some(key) = &self.config.key {
            let text = match self.config.key_header {
                KeyHeader::Bearer => format!("Bearer {}", key.reveal()),
                _ => key.reveal().to_owned(),
            };
            let value = HeaderValue::from_str(&text);
            let mut value = value.map_err(|_| self.bad_key("its key"))?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(self.config.key_header.name()), value);
        }
        Ok(headers)
    }

    /// Returns the headers of one call, which may carry a caller's values.
    fn call_headers(&self, call: &Call<'_>) -> Result<HeaderMap, ModelError> {
        let mut headers = HeaderMap::new();
        for (name, value) in call.headers {
            let value = HeaderValue::from_str(value).map_err(|_| {
                let message = format!("{name} has characters that no header can hold");
                let error = ModelError::new("request.invalid", false, message);
                ModelError { param: Some(name), ..error }
            })?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(headers)
    }

    /// Returns whether an idempotency key is sent. OpenAI's interfaces define the header; others
    /// might reject an unknown one.
    fn takes_idempotency_key(&self) -> bool {
        let is_openai = matches!(self.config.api, Api::OpenAiChat | Api::OpenAiResponses);
        is_openai || self.config.recognises_repeats
    }

    /// Error of a configured value that no header can carry; the value itself is not repeated.
    fn bad_key(&self, what: &str) -> ModelError {
        let name = &self.config.name;
        let message = format!("{name}: {what} has characters that no header can hold");
        ModelError::new("byok.bad_key", false, message)
    }

    /// Sends the call and reads the answer as it arrives.
    async fn ask(&self, asked: &mut Asked<'_>) -> Result<(), ModelError> {
        if let Some(missing) = self.config.missing_key() {
            return Err(missing);
        }
        let response = self.send(asked).await?;
        // A proxy's login page answers 200 with HTML: only known media types are read.
        let form = form(&response);
        if !matches!(form, Form::Unknown) {
            // Tells the listener that the provider responds, before its first content.
            (asked.sink)(Piece::default());
        }
        match form {
            Form::Stream(framing) => self.stream(response, framing, asked).await?,
            Form::Whole => self.whole(response, asked).await?,
            Form::Unknown => {
                let message = format!(
                    "{} answered neither JSON nor a stream: is {} its URL?",
                    self.config.name, self.config.base_url
                );
                return Err(ModelError::new("request.invalid", false, message));
            }
        }
        asked.answer.verdict(&self.config.name)
    }

    /// Sends the call; returns a successful response. A model that refuses streams is noted, so
    /// that the retry asks without one.
    async fn send(&self, asked: &mut Asked<'_>) -> Result<Response, ModelError> {
        let response = self.post_chat(asked).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status == StatusCode::OK {
            return Ok(response);
        }
        // A request that was refused was not worked on, so nothing is billed.
        asked.answer.is_asked = false;
        let text = listing::read(response, ERROR_LIMIT).await.unwrap_or_default();
        // Some organisations may not stream certain models; the provider blames `stream` then.
        let refusal = Refusal::of_answer(status, &headers, &text);
        if refusal.is_of_stream() && self.traits_of(asked.call.model).is_stream() {
            return Err(self.learn_whole_answers(asked.call.model));
        }
        Err(self.refused(refusal, asked.call.body))
    }

    /// Returns the deviations of a model from the interface, configured and learnt.
    fn traits_of(&self, model: &str) -> ProviderTraits {
        let mut traits = self.config.traits_of(model);
        if self.whole_models().contains(model) {
            traits.streams = Some(false);
        }
        traits
    }

    fn whole_models(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.whole_models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a model refuses streams. Returns the retryable error of the current call.
    fn learn_whole_answers(&self, model: &str) -> ModelError {
        let mut models = self.whole_models();
        if models.len() < WHOLE_MODELS_LIMIT {
            // Bounded, because names of models come from requests.
            models.insert(model.to_owned());
        }
        let name = &self.config.name;
        ModelError::unavailable(format!("{name} may not stream {model}: it is asked without"))
    }

    /// Posts the call, and waits for file descriptors if the process has none left.
    async fn post_chat(&self, asked: &mut Asked<'_>) -> Result<Response, ModelError> {
        let file_wait = FileWait::within(asked.call.timeout);
        loop {
            let request = self.chat_request(&asked.call)?;
            // Set before the request is sent: a timeout drops this future at any time, and the
            // provider may have received the call by then.
            asked.answer.is_asked = true;
            let error = match request.send().await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            // A connection that was never made cannot have carried the call.
            asked.answer.is_asked = !(error.is_connect() || error.is_builder());
            if asked.answer.is_asked || !is_file_shortage(&error) {
                return Err(self.unreachable(&error));
            }
            file_wait.wait().await?;
        }
    }

    fn chat_request(&self, call: &Call<'_>) -> Result<RequestBuilder, ModelError> {
        let is_stream = self.traits_of(call.model).is_stream();
        let request = self
            .client
            .post(self.url(&self.dialect.chat_path(call.model, is_stream)))
            .headers(self.headers()?)
            .headers(self.call_headers(call)?)
            .header(header::CONTENT_TYPE, call.media_type)
            .header(header::ACCEPT, "text/event-stream, application/x-ndjson, application/json")
            .body(call.body.clone());
        Ok(self.with_idempotency_key(request, call))
    }

    /// Reads a streamed answer and passes its fragments on chunk by chunk.
    async fn stream(
        &self,
        response: Response,
        framing: Framing,
        asked: &mut Asked<'_>,
    ) -> Result<(), ModelError> {
        let mut bytes = response.bytes_stream();
        let mut lines = Lines::new(framing);
        while let Some(chunk) = self.next(&mut bytes, &asked.answer).await? {
            asked.answer.receive(chunk.len()).map_err(|TooLarge| self.too_large())?;
            let data = lines.feed(&chunk).map_err(|_| self.malformed("an endless line"))?;
            let taken = data.iter().try_for_each(|data| self.piece(data, asked));
            // The fragments of a chunk are passed on together, and also before an error in the same
            // chunk.
            self.tell(asked);
            taken?;
            if asked.answer.is_ended() {
                let drained = async { while bytes.next().await.is_some_and(|b| b.is_ok()) {} };
                // The answer is complete, however long the connection stays open.
                let _ended = timeout(DRAIN, drained).await;
                return Ok(());
            }
        }
        let taken = lines.rest().iter().try_for_each(|data| self.piece(data, asked));
        self.tell(asked);
        // An incomplete last line is no error once the finish reason has arrived.
        if asked.answer.is_finished() { Ok(()) } else { taken }
    }

    /// Returns the next bytes, or `None` at the end. After the finish reason a broken or silent
    /// connection counts as the end: only usage counts can be missing.
    async fn next(
        &self,
        bytes: &mut (impl Stream<Item = reqwest::Result<Bytes>> + Unpin),
        answer: &Answer,
    ) -> Result<Option<Bytes>, ModelError> {
        let idle = self.config.timeouts.idle;
        // Before the first content the idle timeout does not hold: prompt processing and reasoning
        // are silent, and the whole call has its own timeout.
        let next = if answer.has_begun() || answer.is_finished() {
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

    /// Reads one event of the stream into the answer and checks the limits.
    fn piece(&self, data: &str, asked: &mut Asked<'_>) -> Result<(), ModelError> {
        // OpenAI's end mark; other interfaces have an event of their own.
        if data == "[DONE]" {
            asked.answer.end();
            return Ok(());
        }
        let piece: Value =
            serde_json::from_str(data).map_err(|_| self.malformed("a piece is not JSON"))?;
        let read = self.dialect.read_piece(&piece, &mut asked.answer);
        read.map_err(|error| self.unreadable(error, asked.call.body))?;
        self.check_numbers(data)?;
        asked.answer.check().map_err(|TooLarge| self.too_large())
    }

    /// Reads an answer that arrives at once.
    async fn whole(&self, response: Response, asked: &mut Asked<'_>) -> Result<(), ModelError> {
        // Read completely before parsing: the limit on bytes holds for all of it.
        let text = self.body(response).await?;
        let whole = self.parse(&text)?;
        let read = self.dialect.read_whole(&whole, &mut asked.answer);
        read.map_err(|error| self.unreadable(error, asked.call.body))?;
        self.check_numbers(&text)?;
        asked.answer.check().map_err(|TooLarge| self.too_large())?;
        self.tell(asked);
        Ok(())
    }

    /// Passes new fragments on to the listener.
    fn tell(&self, asked: &mut Asked<'_>) {
        for piece in asked.answer.fresh(self.dialect.usage()) {
            (asked.sink)(piece);
        }
    }

    /// Reads a JSON body of less than `limit` bytes.
    pub(super) async fn json(&self, response: Response, limit: usize) -> Result<Value, ModelError> {
        let text = listing::read(response, limit).await;
        let text = text.ok_or_else(|| self.malformed("it broke off"))?;
        if text.len() >= limit {
            return Err(self.malformed("it does not end"));
        }
        self.parse(&text)
    }

    /// Reads the text of an answer that arrives at once.
    async fn body(&self, response: Response) -> Result<String, ModelError> {
        let text = listing::read(response, WHOLE_LIMIT).await;
        let text =
            text.ok_or_else(|| ModelError::unavailable(format!("{} broke off", self.config.name)))?;
        if text.len() >= WHOLE_LIMIT {
            return Err(self.too_large());
        }
        Ok(text)
    }

    fn parse(&self, text: &str) -> Result<Value, ModelError> {
        serde_json::from_str(text).map_err(|_| self.malformed("it is not JSON"))
    }

    /// Rejects integers that would lose digits: some providers send tool arguments as JSON values.
    /// Checked after the answer was read, so that the error has its usage.
    fn check_numbers(&self, text: &str) -> Result<(), ModelError> {
        check_whole_numbers(text.as_bytes()).map_err(|error| {
            let message = format!("{} answered what would be rounded: {error}", self.config.name);
            ModelError::new("provider.invalid_answer", true, message)
        })
    }

    fn unreadable(&self, error: ReadError, body: &Bytes) -> ModelError {
        match error {
            ReadError::Refused(refusal) => self.refused(refusal, body),
            ReadError::Malformed(what) => self.malformed(what),
        }
    }

    /// Converts a refusal into an error of the API, with the provider's message scrubbed. Without a
    /// configured key a bad key is a missing one.
    fn refused(&self, refusal: Refusal, body: &Bytes) -> ModelError {
        let prompt = answer::texts(body).join("\n");
        let said = scrub(&refusal.said, self.config.key.as_ref(), &prompt);
        let error = refusal.into_error(&self.config.name, &said);
        match (error.code, &self.config.key) {
            ("byok.bad_key", None) => ModelError { code: "byok.missing_key", ..error },
            _ => error,
        }
    }

    /// Converts a transport error.
    fn unreachable(&self, error: &reqwest::Error) -> ModelError {
        let ProviderConfig { name, base_url, .. } = &self.config;
        if error.is_timeout() && !error.is_connect() {
            return ModelError::new("provider.timeout", true, format!("{name} did not answer"));
        }
        let message = if error.is_connect() {
            // The address is for the operator's log and not for every caller.
            tracing::warn!(provider = name, base_url, "a provider cannot be reached");
            format!("{name} cannot be reached: is it running?")
        } else {
            format!("{name} broke off before it answered")
        };
        ModelError::unavailable(message)
    }

    pub(super) fn malformed(&self, what: &str) -> ModelError {
        let name = &self.config.name;
        ModelError::unavailable(format!("{name} answered what cannot be used: {what}"))
    }

    fn too_large(&self) -> ModelError {
        let message = format!("{} answered more than 8 MiB of text", self.config.name);
        ModelError::new("provider.unavailable", false, message)
    }

    /// Sends a service call; returns a successful response. `is_sent` tells afterwards whether the
    /// provider may have worked on it; it is set also if this future is dropped.
    pub(super) async fn send_service(
        &self,
        path: &str,
        call: &Call<'_>,
        is_sent: &mut bool,
    ) -> Result<Response, ModelError> {
        if let Some(missing) = self.config.missing_key() {
            return Err(missing);
        }
        let file_wait = FileWait::within(call.timeout);
        let response = loop {
            let request = self.client.post(self.url(path)).headers(self.headers()?);
            let request = request.header(header::CONTENT_TYPE, call.media_type);
            let request = request.body(call.body.clone()).timeout(call.timeout);
            *is_sent = true;
            let error = match self.with_idempotency_key(request, call).send().await {
                Ok(response) => break response,
                Err(error) => error,
            };
            *is_sent = !(error.is_connect() || error.is_builder());
            if *is_sent || !is_file_shortage(&error) {
                return Err(self.unreachable(&error));
            }
            file_wait.wait().await?;
        };
        let (status, headers) = (response.status(), response.headers().clone());
        if status == StatusCode::OK {
            return Ok(response);
        }
        *is_sent = false;
        let text = listing::read(response, ERROR_LIMIT).await.unwrap_or_default();
        Err(self.refused(Refusal::of_answer(status, &headers, &text), call.body))
    }

    fn with_idempotency_key(&self, request: RequestBuilder, call: &Call<'_>) -> RequestBuilder {
        match call.idempotency_key.filter(|_| self.takes_idempotency_key()) {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        }
    }

    pub(super) fn dialect(&self) -> &dyn Dialect {
        self.dialect.as_ref()
    }
}

/// Determines the framing of a response. Compressed bodies were not asked for and could expand
/// without bound: they are not read.
fn form(response: &Response) -> Form {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let is_packed = header(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
    let kind = header(header::CONTENT_TYPE).unwrap_or_default().to_lowercase();
    match kind.split(';').next().unwrap_or_default().trim() {
        _ if is_packed => Form::Unknown,
        "text/event-stream" => Form::Stream(Framing::Events),
        "application/x-ndjson" => Form::Stream(Framing::Lines),
        "application/json" => Form::Whole,
        _ => Form::Unknown,
    }
}

#[async_trait]
impl Provider for HttpProvider {
    fn info(&self) -> &ProviderConfig {
        &self.config
    }

    fn write(&self, request: ChatRequest) -> Result<WrittenRequest, ModelError> {
        if self.config.class == ProviderClass::Local {
            check_fetched_hosts(&request)?;
        }
        if let Some(service) = &request.service {
            return service::write(self, &request.model, service);
        }
        let traits = self.traits_of(&request.model);
        // The only place that decides about a field: traits first, then the dialect.
        let support = |field| traits.support(field, self.dialect.support(field));
        let provider = &self.config.name;
        let fit = Fit { provider, interface: self.dialect.interface(), support: &support };
        let (request, left_out) = fit.apply(request)?;
        let mut written = self.dialect.write(&request, &traits);
        // Options that this provider accepts although its interface lacks them.
        let further = request.options.iter();
        let is_further = |field: &ChatField| self.dialect.support(*field) != FieldSupport::Kept;
        for (field, value) in further.filter(|(field, _)| is_further(field)) {
            written[field.name()] = value.clone();
        }
        NativeFields::write(request.native.as_ref(), self.dialect.interface(), &mut written);
        let body = Bytes::from(written.to_string());
        let headers = self.dialect.request_headers(&request);
        let LeftOut { fields: left_out, native_names } = left_out;
        let media_type = JSON.to_owned();
        Ok(WrittenRequest { body, media_type, headers, left_out, native_names })
    }

    async fn chat(
        &self,
        call: Call<'_>,
        sink: Sink<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        let mut asked = Asked { call, sink, answer: Answer::new() };
        let result = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                Err(ModelError::unavailable(format!("the call to {} was cancelled", self.name())))
            }
            result = timeout(call.timeout, self.ask(&mut asked)) => {
                result.unwrap_or_else(|_| {
                    let message = format!("{} took longer than {:?}", self.name(), call.timeout);
                    Err(ModelError::new("provider.timeout", true, message))
                })
            }
        };
        let usage = self.dialect.usage();
        match result {
            Ok(()) => Ok(asked.answer.finished(self.dialect.interface(), call.body, usage)),
            Err(error) => Err(asked.answer.broken(error, call.body, usage)),
        }
    }

    async fn serve(
        &self,
        service: ServiceCall,
        call: Call<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        service::serve(self, service, call, cancel).await
    }

    async fn models(&self) -> Result<Vec<ModelInfo>, ModelError> {
        let headers = self.headers()?;
        let (client, endpoint) = (&self.client, &self.endpoint);
        let lister = Lister { client, endpoint, headers: &headers, timeout: LIST_TIMEOUT };
        lister.models(&self.config).await.map_err(|error| match error {
            ListError::Unreachable(Some(error)) => self.unreachable(&error),
            ListError::Unreachable(None) => self.malformed("its list of models broke off"),
            ListError::Malformed => self.malformed("its list of models is none"),
            ListError::Refused(status, headers, text) => {
                self.refused(Refusal::of_answer(status, &headers, &text), &Bytes::new())
            }
        })
    }
}
