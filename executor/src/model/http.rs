//! A provider over HTTP: one way to send a call, to bound its answer and to give up, whatever the
//! dialect.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::chat::{ChatField, ChatRequest, FieldSupport, NativeFields};
use convergio_kernel_c::ProviderClass;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answer::AnswerBuilder;
use super::config::{KeyHeader, ModelInfo, ProviderApi, ProviderConfig};
use super::dialect::{self, Dialect};
use super::endpoint::Endpoint;
use super::error::ModelError;
use super::file_shortage::{FileWait, is_file_shortage};
use super::listing::{self, ListError, ModelLister};
use super::provider::{AnswerPiece, ChatAnswer, EncodedRequest, PieceSink, Provider, ProviderCall};
use super::provider_traits::ProviderTraits;
use super::refusal::ProviderRefusal;
use super::request_adapter::{LeftOutFields, RequestAdapter, check_fetched_hosts};
use super::service::{self, ServiceCall};
use super::sse::Framing;

mod read_answer;

/// Media type of all bodies but forms.
pub(super) const JSON: &str = "application/json";
/// Maximum bytes read of an error's body.
const ERROR_LIMIT: usize = 64 << 10;
/// Maximum models of one provider that are remembered to refuse streams.
const NON_STREAMING_MODELS_LIMIT: usize = 1_000;
/// Longest wait for a list of models.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// A provider called over HTTP, in its dialect.
pub struct HttpProvider {
    config: ProviderConfig,
    endpoint: Endpoint,
    dialect: Box<dyn Dialect>,
    client: Client,
    /// Models that were found to refuse streams: they are called without streaming.
    non_streaming_models: Mutex<BTreeSet<String>>,
}

/// The framing of a response, by its headers.
enum ResponseForm {
    Stream(Framing),
    Whole,
    Unknown,
}

/// A call in flight: the request, the listener and the answer under construction.
struct HttpExchange<'a> {
    call: ProviderCall<'a>,
    sink: PieceSink<'a>,
    answer: AnswerBuilder,
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
        let client = endpoint.build_client(config.timeouts)?;
        let dialect = dialect::dialect_for(&config);
        Ok(Self { config, endpoint, dialect, client, non_streaming_models: Mutex::default() })
    }

    /// Returns whether prompts sent here stay on machines of the user or the operator.
    pub(super) fn is_private(&self) -> bool {
        let is_local = self.config.class == ProviderClass::Local;
        self.endpoint.is_private() && is_local && !self.config.is_unconfirmed
    }

    /// Returns the URL of a path. Ollama's native routes are beside `/v1`, not below it.
    fn request_url(&self, path: &str) -> Url {
        match self.config.api {
            ProviderApi::Ollama => self.endpoint.url_beside_v1(path),
            _ => self.endpoint.url_below_base(path),
        }
    }

    /// Returns the headers of every request, including the key's.
    fn provider_headers(&self) -> Result<HeaderMap, ModelError> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.dialect.provider_headers() {
            let value = HeaderValue::from_str(&value)
                .map_err(|_| self.invalid_header_error("its version"))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        if let Some(key) = &self.config.key {
            let text = match self.config.key_header {
                KeyHeader::Bearer => format!("Bearer {}", key.expose_secret()),
                _ => key.expose_secret().to_owned(),
            };
            let value = HeaderValue::from_str(&text);
            let mut value = value.map_err(|_| self.invalid_header_error("its key"))?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(self.config.key_header.name()), value);
        }
        Ok(headers)
    }

    /// Returns the headers of one call, which may carry a caller's values.
    fn call_headers(&self, call: &ProviderCall<'_>) -> Result<HeaderMap, ModelError> {
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
        let is_openai =
            matches!(self.config.api, ProviderApi::OpenAiChat | ProviderApi::OpenAiResponses);
        is_openai || self.config.recognises_repeats
    }

    /// Error of a configured value that no header can carry; the value itself is not repeated.
    fn invalid_header_error(&self, value_name: &str) -> ModelError {
        let name = &self.config.name;
        let message = format!("{name}: {value_name} has characters that no header can hold");
        ModelError::new("byok.bad_key", false, message)
    }

    /// Sends the call and reads the answer as it arrives.
    async fn run_exchange(&self, exchange: &mut HttpExchange<'_>) -> Result<(), ModelError> {
        if let Some(missing) = self.config.missing_key() {
            return Err(missing);
        }
        let response = self.send_chat(exchange).await?;
        // A proxy's login page answers 200 with HTML: only known media types are read.
        let form = response_form(&response);
        if !matches!(form, ResponseForm::Unknown) {
            // Tells the listener that the provider responds, before its first content.
            (exchange.sink)(AnswerPiece::default());
        }
        match form {
            ResponseForm::Stream(framing) => self.read_stream(response, framing, exchange).await?,
            ResponseForm::Whole => self.read_whole_answer(response, exchange).await?,
            ResponseForm::Unknown => {
                let message = format!(
                    "{} answered neither JSON nor a stream: is {} its URL?",
                    self.config.name, self.config.base_url
                );
                return Err(ModelError::new("request.invalid", false, message));
            }
        }
        exchange.answer.check_finished(&self.config.name)
    }

    /// Sends the call; returns a successful response. A model that refuses streams is noted, so
    /// that the retry asks without one.
    async fn send_chat(&self, exchange: &mut HttpExchange<'_>) -> Result<Response, ModelError> {
        let response = self.post_chat(exchange).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status == StatusCode::OK {
            return Ok(response);
        }
        // A request that was refused was not worked on, so nothing is billed.
        exchange.answer.may_be_billed = false;
        let text = listing::read_text(response, ERROR_LIMIT).await.unwrap_or_default();
        // Some organisations may not stream certain models; the provider blames `stream` then.
        let refusal = ProviderRefusal::from_response(status, &headers, &text);
        if refusal.is_about_streaming() && self.effective_traits(exchange.call.model).is_stream() {
            return Err(self.mark_non_streaming(exchange.call.model));
        }
        Err(self.error_from_refusal(refusal, exchange.call.body))
    }

    /// Returns the deviations of a model from the interface, configured and learnt.
    fn effective_traits(&self, model: &str) -> ProviderTraits {
        let mut traits = self.config.model_traits(model);
        if self.lock_non_streaming_models().contains(model) {
            traits.streams = Some(false);
        }
        traits
    }

    fn lock_non_streaming_models(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.non_streaming_models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a model refuses streams. Returns the retryable error of the current call.
    fn mark_non_streaming(&self, model: &str) -> ModelError {
        let mut models = self.lock_non_streaming_models();
        if models.len() < NON_STREAMING_MODELS_LIMIT {
            // Bounded, because names of models come from requests.
            models.insert(model.to_owned());
        }
        let name = &self.config.name;
        ModelError::provider_unavailable(format!(
            "{name} may not stream {model}: it is asked without"
        ))
    }

    /// Posts the call, and waits for file descriptors if the process has none left.
    async fn post_chat(&self, exchange: &mut HttpExchange<'_>) -> Result<Response, ModelError> {
        let file_wait = FileWait::new_for_call(exchange.call.timeout);
        loop {
            let request = self.chat_request(&exchange.call)?;
            // Set before the request is sent: a timeout drops this future at any time, and the
            // provider may have received the call by then.
            exchange.answer.may_be_billed = true;
            let error = match request.send().await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            // A connection that was never made cannot have carried the call.
            exchange.answer.may_be_billed = !(error.is_connect() || error.is_builder());
            if exchange.answer.may_be_billed || !is_file_shortage(&error) {
                return Err(self.error_from_transport(&error));
            }
            file_wait.wait_for_file().await?;
        }
    }

    fn chat_request(&self, call: &ProviderCall<'_>) -> Result<RequestBuilder, ModelError> {
        let is_stream = self.effective_traits(call.model).is_stream();
        let request = self
            .client
            .post(self.request_url(&self.dialect.chat_path(call.model, is_stream)))
            .headers(self.provider_headers()?)
            .headers(self.call_headers(call)?)
            .header(header::CONTENT_TYPE, call.media_type)
            .header(header::ACCEPT, "text/event-stream, application/x-ndjson, application/json")
            .body(call.body.clone());
        Ok(self.with_idempotency_key(request, call))
    }

    /// Sends a service call; returns a successful response. `is_sent` tells afterwards whether the
    /// provider may have worked on it; it is set also if this future is dropped.
    pub(super) async fn send_service(
        &self,
        path: &str,
        call: &ProviderCall<'_>,
        is_sent: &mut bool,
    ) -> Result<Response, ModelError> {
        if let Some(missing) = self.config.missing_key() {
            return Err(missing);
        }
        let file_wait = FileWait::new_for_call(call.timeout);
        let response = loop {
            let request =
                self.client.post(self.request_url(path)).headers(self.provider_headers()?);
            let request = request.header(header::CONTENT_TYPE, call.media_type);
            let request = request.body(call.body.clone()).timeout(call.timeout);
            *is_sent = true;
            let error = match self.with_idempotency_key(request, call).send().await {
                Ok(response) => break response,
                Err(error) => error,
            };
            *is_sent = !(error.is_connect() || error.is_builder());
            if *is_sent || !is_file_shortage(&error) {
                return Err(self.error_from_transport(&error));
            }
            file_wait.wait_for_file().await?;
        };
        let (status, headers) = (response.status(), response.headers().clone());
        if status == StatusCode::OK {
            return Ok(response);
        }
        *is_sent = false;
        let text = listing::read_text(response, ERROR_LIMIT).await.unwrap_or_default();
        Err(self
            .error_from_refusal(ProviderRefusal::from_response(status, &headers, &text), call.body))
    }

    fn with_idempotency_key(
        &self,
        request: RequestBuilder,
        call: &ProviderCall<'_>,
    ) -> RequestBuilder {
        match call.idempotency_key.filter(|_| self.takes_idempotency_key()) {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        }
    }

    pub(super) fn wire_dialect(&self) -> &dyn Dialect {
        self.dialect.as_ref()
    }
}

/// Determines the framing of a response. Compressed bodies were not asked for and could expand
/// without bound: they are not read.
fn response_form(response: &Response) -> ResponseForm {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let is_packed = header(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
    let kind = header(header::CONTENT_TYPE).unwrap_or_default().to_lowercase();
    match kind.split(';').next().unwrap_or_default().trim() {
        _ if is_packed => ResponseForm::Unknown,
        "text/event-stream" => ResponseForm::Stream(Framing::Events),
        "application/x-ndjson" => ResponseForm::Stream(Framing::JsonLines),
        "application/json" => ResponseForm::Whole,
        _ => ResponseForm::Unknown,
    }
}

#[async_trait]
impl Provider for HttpProvider {
    fn provider_config(&self) -> &ProviderConfig {
        &self.config
    }

    fn write_request(&self, request: ChatRequest) -> Result<EncodedRequest, ModelError> {
        if self.config.class == ProviderClass::Local {
            check_fetched_hosts(&request)?;
        }
        if let Some(service) = &request.service {
            return service::write_service_request(self, &request.model, service);
        }
        let traits = self.effective_traits(&request.model);
        // The only place that decides about a field: traits first, then the dialect.
        let support = |field| traits.field_support(field, self.dialect.field_support(field));
        let provider = &self.config.name;
        let fit = RequestAdapter {
            provider,
            interface: self.dialect.wire_interface(),
            support: &support,
        };
        let (request, left_out) = fit.adapt_request(request)?;
        let mut body_value = self.dialect.write_request(&request, &traits);
        // Options that this provider accepts although its interface lacks them.
        let options = request.options.iter();
        let is_further =
            |field: &ChatField| self.dialect.field_support(*field) != FieldSupport::Kept;
        for (field, value) in options.filter(|(field, _)| is_further(field)) {
            body_value[field.name()] = value.clone();
        }
        NativeFields::write_into(
            request.native.as_ref(),
            self.dialect.wire_interface(),
            &mut body_value,
        );
        let body = Bytes::from(body_value.to_string());
        let headers = self.dialect.request_headers(&request);
        let LeftOutFields { fields: left_out, native_names } = left_out;
        let media_type = JSON.to_owned();
        Ok(EncodedRequest { body, media_type, headers, left_out, native_names })
    }

    async fn complete_chat(
        &self,
        call: ProviderCall<'_>,
        sink: PieceSink<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        let mut exchange = HttpExchange { call, sink, answer: AnswerBuilder::new() };
        let result = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                let message = format!("the call to {} was cancelled", self.name());
                Err(ModelError::provider_unavailable(message))
            }
            result = timeout(call.timeout, self.run_exchange(&mut exchange)) => {
                result.unwrap_or_else(|_| {
                    let message = format!("{} took longer than {:?}", self.name(), call.timeout);
                    Err(ModelError::new("provider.timeout", true, message))
                })
            }
        };
        let usage = self.dialect.usage_reader();
        match result {
            Ok(()) => {
                Ok(exchange.answer.into_answer(self.dialect.wire_interface(), call.body, usage))
            }
            Err(error) => Err(exchange.answer.into_error(error, call.body, usage)),
        }
    }

    async fn call_service(
        &self,
        service: ServiceCall,
        call: ProviderCall<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        service::call_service(self, service, call, cancel).await
    }

    async fn list_models(&self) -> Result<Vec<ModelInfo>, ModelError> {
        let headers = self.provider_headers()?;
        let (client, endpoint) = (&self.client, &self.endpoint);
        let lister = ModelLister { client, endpoint, headers: &headers, timeout: LIST_TIMEOUT };
        lister.list_models(&self.config).await.map_err(|error| match error {
            ListError::Unreachable(Some(error)) => self.error_from_transport(&error),
            ListError::Unreachable(None) => self.malformed_answer("its list of models broke off"),
            ListError::Malformed => self.malformed_answer("its list of models is none"),
            ListError::Refused(status, headers, text) => self.error_from_refusal(
                ProviderRefusal::from_response(status, &headers, &text),
                &Bytes::new(),
            ),
        })
    }
}
