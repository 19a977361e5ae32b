//! A provider over HTTP: one way to send a call, to bound its answer and to give up, whatever the
//! dialect.
//!
//! This file is the roof: it writes a request, sends it and has its answer read.
//!
//! - `transport`: the provider's connection: URLs, headers, the key, and the posting of calls
//! - `read_answer`: streams and whole bodies, within their limits, and the errors they become
//! - `service_exchange`: calls of services other than chat
//!
//! Nothing here knows an interface: each piece goes through the provider's dialect.

mod read_answer;
mod service_exchange;
mod transport;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::chat::{ChatField, ChatRequest, FieldSupport, NativeFields};
use convergio_kernel_c::ProviderClass;
use reqwest::{Response, header};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answer::AnswerBuilder;
use super::config::{ModelInfo, ProviderConfig};
use super::error::ModelError;
use super::listing::{ListError, ModelLister};
use super::model_provider::{
    AnswerPiece, ChatAnswer, EncodedRequest, PieceSink, Provider, ProviderCall,
};
use super::refusal::ProviderRefusal;
use super::request_adapter::{LeftOutFields, RequestAdapter, check_fetched_hosts};
use super::service::ServiceCall;
use super::sse::Framing;
pub use transport::HttpProvider;
use transport::{HttpExchange, JSON};

/// Longest wait for a list of models.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// The framing of a response, by its headers.
enum ResponseForm {
    Stream(Framing),
    Whole,
    Unknown,
}

impl HttpProvider {
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
            return service_exchange::write_service_request(self, &request.model, service);
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
        service_exchange::call_service(self, service, call, cancel).await
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
