//! The interface of a model provider: the [`Provider`] trait and the calls and answers that cross
//! it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::billing::Usage;
use convergio_domain::chat::{
    ChatField, ChatInterface, ChatReply, ChatRequest, MessagePart, NativeFields, ServiceReply,
    TextPart, ThinkingPart, ToolCall,
};
use convergio_domain::id::RunId;
use convergio_eventstore::LiveKind;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::config::{ModelInfo, ProviderConfig};
use super::error::ModelError;
use super::service::{ServiceCall, check_reply};

/// A call about to be sent. Its exact bytes are recorded in the log before.
#[derive(Debug, Clone, Copy)]
pub struct ProviderCall<'a> {
    /// The model's name, which some providers expect in the URL.
    pub model: &'a str,
    /// The body returned by [`Provider::write_request`].
    pub body: &'a Bytes,
    /// The media type returned with the body.
    pub media_type: &'a str,
    /// The headers returned with the body.
    pub headers: &'a [(&'static str, String)],
    /// Longest time from sending the call to the end of its answer. Waiting for a permit does not
    /// count.
    pub timeout: Duration,
    /// Key by which a provider may recognise the call if it is sent again.
    pub idempotency_key: Option<&'a str>,
    /// The call's place in the queue for this provider.
    pub admission: CallAdmission<'a>,
}

/// The conditions under which a call competes with others for the same provider.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallAdmission<'a> {
    /// The run that the call belongs to: runs are served round robin.
    pub run: Option<RunId>,
    /// Permits that bound the calls of the whole process to all providers. A permit is taken while
    /// the call is in flight, not while it waits for the provider's own permit.
    pub process_permits: Option<&'a Semaphore>,
    /// True if a call that is refused for overload queues again for as long as
    /// [`ProviderCall::timeout`]; otherwise the refusal is returned at once.
    pub waits_out_refusals: bool,
    /// The overload refusal that the call got before, if any; it then queues ahead of calls that
    /// were not sent yet.
    pub refusal: Option<&'a ModelError>,
}

/// A request in a provider's wire format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRequest {
    /// The exact bytes to send.
    pub body: Bytes,
    /// The media type of the body.
    pub media_type: String,
    /// Headers that belong to this request, apart from those of every call.
    pub headers: Vec<(&'static str, String)>,
    /// Fields of the request that the provider does not support and that were left out.
    pub left_out: Vec<ChatField>,
    /// Names of the left-out fields that only another provider's interface has.
    pub native_names: Vec<&'static str>,
}

impl EncodedRequest {
    /// Returns the names of all left-out fields. Fields of another interface are listed by their
    /// own names where these are known.
    pub fn left_out_names(&self) -> Vec<String> {
        let fields = self
            .left_out
            .iter()
            // The generic name would say nothing beside the fields' own names.
            .filter(|field| **field != ChatField::ForeignFields || self.native_names.is_empty());
        let names = fields.map(|field| field.name()).chain(self.native_names.iter().copied());
        names.map(str::to_owned).collect()
    }
}

/// A complete answer of a chat or service call.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatAnswer {
    /// The parts of the answer in the order in which the model made them.
    pub parts: Vec<MessagePart>,
    /// Finish reason: the platform's word for it if there is one, else the provider's.
    pub finish: String,
    /// Finish reason in the provider's own word.
    pub native_finish: String,
    /// The stop sequence, of those in the request, at which the model stopped.
    pub stop_sequence: Option<String>,
    /// The service tier that handled the call, as reported by the provider.
    pub service_tier: Option<String>,
    /// The wire format in which the answer came.
    pub interface: ChatInterface,
    /// Fields of the whole answer that only this interface has.
    pub native: Option<NativeFields>,
    /// The model's name as reported by the provider.
    pub model: String,
    /// Usage in disjoint meters.
    pub usage: Usage,
    /// False if the provider reported no usage and `usage` is an estimate.
    pub confirmed: bool,
    /// The provider's usage block as it came.
    pub raw_usage: Option<Value>,
    /// The result of a service call, which has no answer of a model.
    pub service: Option<ServiceReply>,
    /// Milliseconds from sending the request to the last byte.
    pub duration_ms: u64,
    /// Milliseconds from sending the request to the first content.
    pub first_token_ms: Option<u64>,
}

impl ChatAnswer {
    /// Returns the answer's text parts, joined.
    pub fn joined_text(&self) -> String {
        let text_parts = self.parts.iter().filter_map(|part| match part {
            MessagePart::Text(TextPart { text, .. }) => Some(text.as_str()),
            _ => None,
        });
        text_parts.collect()
    }

    /// Returns the model's reasoning, joined.
    pub fn joined_thinking(&self) -> String {
        let thoughts = self.parts.iter().filter_map(|part| match part {
            MessagePart::Thinking(ThinkingPart { text, .. }) => Some(text.as_str()),
            _ => None,
        });
        thoughts.collect()
    }

    /// Returns the tool calls of the answer, in order.
    pub fn tool_calls(&self) -> Vec<ToolCall> {
        let calls = self.parts.iter().filter_map(|part| match part {
            MessagePart::ToolCall(call) => Some(call.clone()),
            _ => None,
        });
        calls.collect()
    }

    /// Checks that an agent can continue with the answer. A caller of the chat API sees the finish
    /// reason itself; an agent would take a cut answer for the whole.
    ///
    /// # Errors
    /// The provider filtered it, the model refused, or it broke off by the provider's own word.
    pub fn check_use(&self, provider: &str) -> Result<(), ModelError> {
        let is_refusal = |part: &MessagePart| matches!(part, MessagePart::Refusal(_));
        // Some models decline and answer nevertheless: text beside a refusal is an answer.
        let is_declined = self.parts.iter().any(is_refusal) && self.joined_text().is_empty();
        let reason = match self.finish.as_str() {
            "content_filter" => "filtered the answer",
            _ if is_declined => "refused to answer",
            word if CUT_FINISH_REASONS.contains(&word) => {
                let message = format!("{provider} broke off, by its own word: {word}");
                return Err(ModelError::provider_unavailable(message));
            }
            _ => return Ok(()),
        };
        let message = format!("{provider} {reason}: change the prompt");
        Err(ModelError::new("provider.content_filtered", false, message))
    }

    /// Checks that the answer fits a payload of the log.
    ///
    /// # Errors
    /// `request.too_large`: it says what would fit.
    pub fn check_size(&self) -> Result<(), ModelError> {
        self.service.as_ref().map_or(Ok(()), check_reply)
    }

    /// Converts the answer into the output of a step.
    pub fn into_reply(self, provider: &str) -> ChatReply {
        let mut reply = ChatReply {
            finish: self.finish,
            native_finish: self.native_finish,
            stop_sequence: self.stop_sequence,
            service_tier: self.service_tier,
            interface: Some(self.interface),
            native: self.native,
            provider: provider.to_owned(),
            model: self.model,
            usage: self.usage,
            confirmed: self.confirmed,
            raw_usage: self.raw_usage,
            service: self.service,
            ..ChatReply::default()
        };
        reply.set_parts(self.parts);
        reply
    }
}

/// Finish reasons with which providers mark an answer that was cut.
const CUT_FINISH_REASONS: [&str; 6] =
    ["abort", "aborted", "cancelled", "error", "insufficient_system_resource", "network_error"];

/// A streamed fragment of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerPiece {
    /// The kind of content, or the event that the fragment announces.
    pub kind: LiveKind,
    /// Index of the part that the fragment belongs to, from 0.
    pub part: u32,
    /// Bytes of all earlier fragments of this part, of whatever kind.
    pub offset: u64,
    /// The fragment's text; JSON for native blocks and fields.
    pub text: String,
    /// Content pieces that the provider has sent so far: about as many tokens.
    pub tokens_out: u64,
}

/// Receives each fragment as it comes. The first one is empty and of [`LiveKind::Call`]: the
/// provider has begun to respond.
pub type PieceSink<'a> = &'a (dyn Fn(AnswerPiece) + Send + Sync);

/// Writes requests of one provider. Apart from sending them, since the log has the bytes first.
pub trait RequestWriter: Send + Sync {
    /// Writes a request in the provider's wire format.
    ///
    /// # Errors
    /// `request.unsupported`: the request has a field that the provider does not support and that
    /// changes the answer, or asks for a service that the provider does not have.
    fn write_request(&self, request: ChatRequest) -> Result<EncodedRequest, ModelError>;
}

/// A provider of models that can be called.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Returns the provider's configuration.
    fn provider_config(&self) -> &ProviderConfig;

    /// Returns the provider's name, as used in manifests.
    fn name(&self) -> &str {
        &self.provider_config().name
    }

    /// Returns the writer of this provider's requests.
    fn request_writer(&self) -> &dyn RequestWriter;

    /// Writes a request in this provider's wire format.
    ///
    /// # Errors
    /// As those of [`RequestWriter::write_request`].
    fn write_request(&self, request: ChatRequest) -> Result<EncodedRequest, ModelError> {
        self.request_writer().write_request(request)
    }

    /// Sends a request body and waits for the complete answer. Cancelling closes the connection.
    ///
    /// # Errors
    /// There is no complete answer; usage until then is in the error.
    async fn complete_chat(
        &self,
        call: ProviderCall<'_>,
        sink: PieceSink<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError>;

    /// Sends a service request (embeddings, transcription, speech) and waits for its result.
    /// Cancelling closes the connection.
    ///
    /// # Errors
    /// As those of [`Provider::complete_chat`].
    async fn call_service(
        &self,
        service: ServiceCall,
        call: ProviderCall<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError>;

    /// Lists the models that the provider has now.
    ///
    /// # Errors
    /// The provider cannot be reached or refuses the request.
    async fn list_models(&self) -> Result<Vec<ModelInfo>, ModelError>;

    /// Checks the key by a request that costs nothing.
    ///
    /// # Errors
    /// `byok.bad_key` or `byok.missing_key`; another code when the provider cannot be reached.
    async fn validate_key(&self) -> Result<(), ModelError> {
        self.list_models().await.map(|_| ())
    }
}
