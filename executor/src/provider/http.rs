//! A provider over HTTP: one way to send a call, to bound its answer and to give up, whatever the
//! dialect.
//!
//! This file is the roof: it sends a call and has its answer read.
//!
//! - `request_writer`: a request in the provider's format, before anything is sent
//! - `transport`: the provider's connection: URLs, headers, the key, and the posting of calls
//! - `read_answer`: streams and whole bodies, within their limits, and the errors they become
//! - `service_exchange`: calls of services other than chat
//!
//! Nothing here knows an interface: each piece goes through the provider's dialect.

mod read_answer;
mod request_writer;
mod service_exchange;
mod transport;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Response, header};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answer::AnswerBuilder;
use super::config::{ModelInfo, ProviderConfig};
use super::error::ModelError;
use super::listing::{ListError, ModelLister};
use super::model_provider::{
    AnswerPiece, ChatAnswer, PieceSink, Provider, ProviderCall, RequestWriter,
};
use super::refusal::ProviderRefusal;
use super::service::ServiceCall;
use super::sse::Framing;
use transport::HttpExchange;
pub use transport::HttpProvider;

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

    fn request_writer(&self) -> &dyn RequestWriter {
        self
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
