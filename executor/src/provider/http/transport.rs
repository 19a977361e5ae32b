//! A provider's connection: its URL, headers and key, and the posting of calls.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use convergio_kernel_c::ProviderClass;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header};

use crate::provider::answer::AnswerBuilder;
use crate::provider::config::{KeyHeader, ProviderApi, ProviderConfig};
use crate::provider::dialect::{self, Dialect};
use crate::provider::endpoint::Endpoint;
use crate::provider::error::ModelError;
use crate::provider::file_shortage::{FileWait, is_file_shortage};
use crate::provider::listing;
use crate::provider::model_provider::{PieceSink, ProviderCall};
use crate::provider::provider_traits::ProviderTraits;
use crate::provider::refusal::ProviderRefusal;

/// Media type of all bodies but forms.
pub(super) const JSON: &str = "application/json";
/// Maximum bytes read of an error's body.
const ERROR_LIMIT: usize = 64 << 10;
/// Maximum models of one provider that are remembered to refuse streams.
const NON_STREAMING_MODELS_LIMIT: usize = 1_000;

/// A provider called over HTTP, in its dialect.
pub struct HttpProvider {
    pub(super) config: ProviderConfig,
    pub(super) endpoint: Endpoint,
    pub(super) dialect: Box<dyn Dialect>,
    pub(super) client: Client,
    /// Models that were found to refuse streams: they are called without streaming.
    non_streaming_models: Mutex<BTreeSet<String>>,
}

/// A call in flight: the request, the listener and the answer under construction.
pub(super) struct HttpExchange<'a> {
    pub(super) call: ProviderCall<'a>,
    pub(super) sink: PieceSink<'a>,
    pub(super) answer: AnswerBuilder,
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
    pub(crate) fn is_private(&self) -> bool {
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
    pub(super) fn provider_headers(&self) -> Result<HeaderMap, ModelError> {
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

    /// Sends the call; returns a successful response. A model that refuses streams is noted, so
    /// that the retry asks without one.
    pub(super) async fn send_chat(
        &self,
        exchange: &mut HttpExchange<'_>,
    ) -> Result<Response, ModelError> {
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
    pub(super) fn effective_traits(&self, model: &str) -> ProviderTraits {
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
