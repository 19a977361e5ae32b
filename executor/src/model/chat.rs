//! Who answers, and what an answer is.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::chat::{ChatReply, ChatRequest, ToolCall};
use convergio_domain::id::RunId;
use convergio_domain::metering::Usage;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::audio::{Recording, Speech, SpeechRequest, Transcript};
use super::config::{ModelInfo, ProviderConfig};
use super::error::ModelError;

/// A call that is about to be made: its exact bytes are in the log already.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The model, which some providers want in the URL.
    pub model: &'a str,
    /// What [`Provider::body`] gave.
    pub body: &'a Bytes,
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

/// An answer, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatAnswer {
    /// The text.
    pub text: String,
    /// What the model thought aloud.
    pub thinking: String,
    /// The provider's mark of the thought.
    pub signature: String,
    /// Tools that it asks for.
    pub tool_calls: Vec<ToolCall>,
    /// Why the model stopped.
    pub finish: String,
    /// The model, by its own word.
    pub model: String,
    /// Quantities in disjoint classes.
    pub usage: Usage,
    /// False when the provider told no quantities and they are our estimate.
    pub confirmed: bool,
    /// The provider's usage block, as it came.
    pub raw_usage: Option<Value>,
    /// Milliseconds from the request to the last byte.
    pub duration_ms: u64,
    /// Milliseconds to the first piece of text.
    pub first_token_ms: Option<u64>,
}

impl ChatAnswer {
    /// The answer as the output of a step.
    pub fn into_reply(self, provider: &str) -> ChatReply {
        ChatReply {
            text: self.text,
            thinking: self.thinking,
            signature: self.signature,
            tool_calls: self.tool_calls,
            finish: self.finish,
            provider: provider.to_owned(),
            model: self.model,
            usage: self.usage,
            confirmed: self.confirmed,
            raw_usage: self.raw_usage,
        }
    }
}

/// Texts as vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// One vector for each text, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Quantities in disjoint classes.
    pub usage: Usage,
}

/// Hears each piece of text as it comes, with the number of pieces so far.
pub type Sink<'a> = &'a (dyn Fn(&str, u64) + Send + Sync);

/// Who answers.
#[async_trait]
pub trait Provider: Send + Sync {
    /// What is known about it.
    fn info(&self) -> &ProviderConfig;

    /// The name used in manifests.
    fn name(&self) -> &str {
        &self.info().name
    }

    /// The exact bytes of a request, as this provider wants them.
    fn body(&self, request: &ChatRequest) -> Bytes;

    /// What of a request this provider does not take: it stands not in the body.
    fn left_out(&self, request: &ChatRequest) -> Vec<String>;

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

    /// Texts as vectors of a model.
    ///
    /// # Errors
    /// The provider has no embeddings, or the call failed.
    async fn embed(&self, model: &str, texts: &[String]) -> Result<Embeddings, ModelError>;

    /// Speech as text.
    ///
    /// # Errors
    /// The provider has no transcription, or the call failed.
    async fn transcribe(&self, model: &str, said: &Recording) -> Result<Transcript, ModelError>;

    /// Text as speech.
    ///
    /// # Errors
    /// The provider has no speech, or the call failed.
    async fn speak(&self, model: &str, request: &SpeechRequest) -> Result<Speech, ModelError>;

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
