//! What models do besides answering: vectors of texts, the words of recordings, speech. The root of
//! the program knows who does it, and writes down what was used.

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::chat::Privacy;
use convergio_domain::id::{ActorId, TenantId};
use convergio_domain::metering::Usage;

/// Whose call it is. Whoever answers it meters and charges it to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceCall {
    /// The tenant.
    pub tenant: TenantId,
    /// Who asks.
    pub actor: ActorId,
    /// Where what is sent may travel.
    pub privacy: Privacy,
}

/// Texts of which vectors are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedRequest {
    /// The model, as in a chat.
    pub model: String,
    /// The texts.
    pub texts: Vec<String>,
    /// Numbers of a vector; the model's own when absent.
    pub dimensions: Option<u32>,
}

/// A recording whose words are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscribeRequest {
    /// The model, as in a chat.
    pub model: String,
    /// The file's name, which tells its format.
    pub file_name: String,
    /// The file's media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// The language that is spoken, if it is known.
    pub language: Option<String>,
    /// Words that the recording may have.
    pub prompt: Option<String>,
}

/// A text that is to be spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeakRequest {
    /// The model, as in a chat.
    pub model: String,
    /// The text.
    pub text: String,
    /// Whose voice, by the provider's name for it.
    pub voice: String,
    /// `mp3`, `opus`, `aac`, `flac`, `wav` or `pcm`.
    pub format: String,
}

/// Vectors of texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// The model, by its own word.
    pub model: String,
    /// One vector for each text, in order.
    pub vectors: Vec<Vec<f32>>,
    /// What was used.
    pub usage: Usage,
}

/// The words of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcribed {
    /// The words.
    pub text: String,
    /// What was used.
    pub usage: Usage,
}

/// A text, spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// The bytes of the file.
    pub bytes: Bytes,
    /// Its media type.
    pub media_type: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    /// The stable code.
    pub code: String,
    /// What the caller is told.
    pub message: String,
    /// The field that is to blame.
    pub param: Option<String>,
}

impl ServiceError {
    fn missing(what: &str) -> Self {
        let message = format!("{what} is not available on this server");
        Self { code: MISSING.to_owned(), message, param: None }
    }
}

/// The code of a service that is not there.
pub(super) const MISSING: &str = "service.missing";

/// Who does it. What is not implemented is told so by name.
#[async_trait]
pub trait ModelServices: Send + Sync {
    /// Vectors of texts.
    ///
    /// # Errors
    /// No provider does it, or the call failed.
    async fn embed(
        &self,
        _call: &ServiceCall,
        _request: EmbedRequest,
    ) -> Result<Embedded, ServiceError> {
        Err(ServiceError::missing("embedding"))
    }

    /// The words of a recording.
    ///
    /// # Errors
    /// No provider does it, or the call failed.
    async fn transcribe(
        &self,
        _call: &ServiceCall,
        _request: TranscribeRequest,
    ) -> Result<Transcribed, ServiceError> {
        Err(ServiceError::missing("transcription"))
    }

    /// A text, spoken.
    ///
    /// # Errors
    /// No provider does it, or the call failed.
    async fn speak(
        &self,
        _call: &ServiceCall,
        _request: SpeakRequest,
    ) -> Result<Spoken, ServiceError> {
        Err(ServiceError::missing("speech"))
    }
}

/// Nothing besides answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoServices;

impl ModelServices for NoServices {}
