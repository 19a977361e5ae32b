//! Who answers, and what an answer is.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::chat::{
    ChatField, ChatReply, ChatRequest, Interface, NativeFields, Part, ServiceReply, TextPart,
    ThinkingPart, ToolCall,
};
use convergio_domain::id::RunId;
use convergio_domain::metering::Usage;
use convergio_eventstore::LiveKind;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::config::{ModelInfo, ProviderConfig};
use super::error::ModelError;
use super::service::{ServiceCall, check_reply};

/// A call that is about to be made: its exact bytes are in the log already.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The model, which some providers want in the URL.
    pub model: &'a str,
    /// What [`Provider::write`] gave.
    pub body: &'a Bytes,
    /// The media type that it gave.
    pub media_type: &'a str,
    /// The headers that it gave.
    pub headers: &'a [(&'static str, String)],
    /// Longest time from the moment the call is sent to the end of its answer. Waiting for a place
    /// with the provider does not count.
    pub timeout: Duration,
    /// What the provider may recognise the call by, should it be sent again.
    pub idempotency_key: Option<&'a str>,
    /// How it comes to its turn.
    pub admission: Admission<'a>,
}

/// How a call comes to its turn when others want the same provider.
#[derive(Debug, Clone, Copy, Default)]
pub struct Admission<'a> {
    /// The run that it belongs to: runs take turns.
    pub run: Option<RunId>,
    /// Places for the calls of the whole process, to all providers: one is taken while the call is
    /// under way, none while it waits for the provider.
    pub process_places: Option<&'a Semaphore>,
    /// Whether a call that the provider refuses because it has too many waits and is sent again,
    /// for as long as [`Call::timeout`]. Else the refusal is told at once.
    pub waits_out_refusals: bool,
    /// The refusal that it was answered before, if it was: then it comes before calls that were not
    /// sent yet.
    pub refusal: Option<&'a ModelError>,
}

/// A request as a provider wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenRequest {
    /// The exact bytes.
    pub body: Bytes,
    /// Their media type.
    pub media_type: String,
    /// Headers that belong to it.
    pub headers: Vec<(&'static str, String)>,
    /// What was asked for and does not stand in it, because the provider does without.
    pub left_out: Vec<ChatField>,
    /// The names of those of its fields that only another interface has.
    pub native_names: Vec<&'static str>,
}

impl WrittenRequest {
    /// The names of what does not stand in it: of fields that only another interface has their own,
    /// as far as they are known.
    pub fn left_out_names(&self) -> Vec<String> {
        let fields = self
            .left_out
            .iter()
            .filter(|field| **field != ChatField::ForeignFields || self.native_names.is_empty());
        let names = fields.map(|field| field.name()).chain(self.native_names.iter().copied());
        names.map(str::to_owned).collect()
    }
}

/// An answer, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatAnswer {
    /// What the model answered, in its order.
    pub parts: Vec<Part>,
    /// Why it stopped: in our word if there is one, else in the provider's.
    pub finish: String,
    /// Why it stopped, in the provider's own word.
    pub native_finish: String,
    /// The text at which it stopped, of those that the caller named.
    pub stop_sequence: Option<String>,
    /// The tier that served the call, by the provider's word.
    pub service_tier: Option<String>,
    /// The provider's interface.
    pub interface: Interface,
    /// What only the interface can say of the answer as a whole.
    pub native: Option<NativeFields>,
    /// The model, by its own word.
    pub model: String,
    /// Quantities in disjoint classes.
    pub usage: Usage,
    /// False when the provider told no quantities and they are our estimate.
    pub confirmed: bool,
    /// The provider's usage block, as it came.
    pub raw_usage: Option<Value>,
    /// What came of a service that was asked for in place of an answer.
    pub service: Option<ServiceReply>,
    /// Milliseconds from the request to the last byte.
    pub duration_ms: u64,
    /// Milliseconds to the first piece of text.
    pub first_token_ms: Option<u64>,
}

impl ChatAnswer {
    /// The text.
    pub fn text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text(TextPart { text, .. }) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// What the model thought aloud.
    pub fn thinking(&self) -> String {
        let thoughts = self.parts.iter().filter_map(|part| match part {
            Part::Thinking(ThinkingPart { text, .. }) => Some(text.as_str()),
            _ => None,
        });
        thoughts.collect()
    }

    /// Tools that it asks for.
    pub fn tool_calls(&self) -> Vec<ToolCall> {
        let calls = self.parts.iter().filter_map(|part| match part {
            Part::ToolCall(call) => Some(call.clone()),
            _ => None,
        });
        calls.collect()
    }

    /// Whether an agent of the platform can go on with it: whoever asked for the answer itself is
    /// told why it ended, an agent would take what there is for the whole.
    ///
    /// # Errors
    /// The provider filtered it, the model refused, or it broke off by the provider's own word.
    pub fn check_use(&self, provider: &str) -> Result<(), ModelError> {
        let is_refusal = |part: &Part| matches!(part, Part::Refusal(_));
        let is_refused = self.parts.iter().any(is_refusal) && self.text().is_empty();
        let why = match self.finish.as_str() {
            "content_filter" => "filtered the answer",
            _ if is_refused => "refused to answer",
            word if BREAKS.contains(&word) => {
                let message = format!("{provider} broke off, by its own word: {word}");
                return Err(ModelError::unavailable(message));
            }
            _ => return Ok(()),
        };
        let message = format!("{provider} {why}: change the prompt");
        Err(ModelError::new("provider.content_filtered", false, message))
    }

    /// Whether the log takes it.
    ///
    /// # Errors
    /// `request.too_large`: it says what would fit.
    pub fn check_size(&self) -> Result<(), ModelError> {
        self.service.as_ref().map_or(Ok(()), check_reply)
    }

    /// The answer as the output of a step.
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

/// Words of providers for an answer that did not come to its end.
const BREAKS: [&str; 6] =
    ["abort", "aborted", "cancelled", "error", "insufficient_system_resource", "network_error"];

/// A piece of an answer, as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// What it is of.
    pub kind: LiveKind,
    /// Which part of the answer it is of, from 0.
    pub part: u32,
    /// Bytes of the pieces of this part before it, of whatever kind.
    pub offset: u64,
    /// The piece.
    pub text: String,
    /// Pieces of the provider's so far: about as many tokens.
    pub tokens_out: u64,
}

/// Hears each piece as it comes. The first is an empty one of [`LiveKind::Call`]: the provider has
/// begun to answer.
pub type Sink<'a> = &'a (dyn Fn(Piece) + Send + Sync);

/// Who answers.
#[async_trait]
pub trait Provider: Send + Sync {
    /// What is known about it.
    fn info(&self) -> &ProviderConfig;

    /// The name used in manifests.
    fn name(&self) -> &str {
        &self.info().name
    }

    /// A request as this provider wants it.
    ///
    /// # Errors
    /// `request.unsupported`: it has a field that the provider does not take, and without which
    /// the answer would be another, or it asks for a service that the provider does not have.
    fn write(&self, request: ChatRequest) -> Result<WrittenRequest, ModelError>;

    /// Sends a request body and waits for the whole answer. Cancelling closes the connection.
    ///
    /// # Errors
    /// There is no answer. What was used nevertheless stands in the error.
    async fn chat(
        &self,
        call: Call<'_>,
        sink: Sink<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError>;

    /// Sends a request body that asks for a service in place of an answer, and waits for what comes
    /// of it. Cancelling closes the connection.
    ///
    /// # Errors
    /// As those of [`Provider::chat`].
    async fn serve(
        &self,
        service: ServiceCall,
        call: Call<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError>;

    /// The models that the provider lists now.
    ///
    /// # Errors
    /// It cannot be asked.
    async fn models(&self) -> Result<Vec<ModelInfo>, ModelError>;

    /// Whether the key is a good one, found out by a call that costs nothing.
    ///
    /// # Errors
    /// `byok.bad_key` or `byok.missing_key`; another code when the provider cannot be asked.
    async fn validate_key(&self) -> Result<(), ModelError> {
        self.models().await.map(|_| ())
    }
}
