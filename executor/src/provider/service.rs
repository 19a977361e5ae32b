//! Services of models other than chat: embeddings, transcription and speech. A call's kind and its
//! estimate, and the bounds that keep its result within one payload of the log.

use convergio_domain::billing::{Meter, Usage};
use convergio_domain::chat::{ModelService, ServiceReply};
use convergio_eventstore::LogLimits;

use super::error::ModelError;

/// Maximum bytes of a result: one payload of the log, less room for the rest of the reply.
const REPLY_LIMIT: usize = LogLimits::PAYLOAD_BYTES - (64 << 10);
/// Bytes of a recording per audio token, estimated for usual speech compression.
const BYTES_PER_AUDIO_TOKEN: u64 = 300;
/// Bytes of a text per token, estimated.
const BYTES_PER_TOKEN: u64 = 4;

/// The kind of a service call and the quantities of its estimate, once its request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceCall {
    /// Vectors of texts (embeddings).
    Embed {
        /// Number of texts: as many vectors are expected.
        texts: usize,
        /// Estimated tokens of all texts.
        tokens: u64,
    },
    /// The text of a recording.
    Transcribe {
        /// Estimated tokens of the recording and the prompt.
        tokens: u64,
    },
    /// A text as speech.
    Speak {
        /// Characters of the text, by which speech is billed.
        characters: u64,
    },
}

impl ServiceCall {
    /// Describes the call of a service.
    pub fn from_service(service: &ModelService) -> Self {
        match service {
            ModelService::Embed { texts, .. } => {
                let tokens = texts.iter().map(|text| text_tokens(text)).sum();
                Self::Embed { texts: texts.len(), tokens }
            }
            ModelService::Transcribe { data, prompt, .. } => {
                let audio_tokens = recording_bytes(data).div_ceil(BYTES_PER_AUDIO_TOKEN);
                Self::Transcribe { tokens: audio_tokens + prompt.as_deref().map_or(0, text_tokens) }
            }
            ModelService::Speak { text, .. } => {
                Self::Speak { characters: text.chars().count() as u64 }
            }
        }
    }

    /// Returns the estimated quantity and its meter.
    pub fn estimated_quantity(self) -> (Meter, u64) {
        match self {
            Self::Embed { tokens, .. } => (Meter::InFresh, tokens),
            Self::Transcribe { tokens } => (Meter::InAudio, tokens),
            Self::Speak { characters } => (Meter::Characters, characters),
        }
    }

    pub(super) fn estimated_usage(self) -> Usage {
        Usage([self.estimated_quantity()].into())
    }
}

fn text_tokens(text: &str) -> u64 {
    (text.len() as u64).div_ceil(BYTES_PER_TOKEN)
}

/// Returns the bytes of a recording, given its base64.
pub(crate) fn recording_bytes(data: &str) -> u64 {
    data.len() as u64 / 4 * 3
}

/// Checks that the texts are not empty and that their vectors will fit the log, if the vectors'
/// length is known.
pub(super) fn check_texts(
    model: &str,
    texts: &[String],
    dimensions: Option<u32>,
) -> Result<(), ModelError> {
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        let message = "there is no text, or an empty one: nothing has a vector of it";
        return Err(ModelError::new("request.invalid", false, message));
    }
    match dimensions.or_else(|| published_dimensions(model)) {
        Some(dimensions) => check_vectors(texts.len(), dimensions as usize),
        None => Ok(()),
    }
}

/// Returns the default length of a model's vectors, where its maker publishes it.
fn published_dimensions(model: &str) -> Option<u32> {
    match model {
        "text-embedding-3-small" | "text-embedding-ada-002" => Some(1536),
        "text-embedding-3-large" | "gemini-embedding-001" => Some(3072),
        _ => None,
    }
}

/// Checks that the log accepts so many vectors of so many numbers in one reply. Checked before
/// sending where possible: a result that does not fit is paid for nevertheless.
fn check_vectors(vectors: usize, dimensions: usize) -> Result<(), ModelError> {
    let bytes = vector_bytes(dimensions);
    let vectors_limit = REPLY_LIMIT / bytes;
    if vectors <= vectors_limit {
        return Ok(());
    }
    let message = format!(
        "{vectors} vectors of {dimensions} numbers are more than one answer holds: ask for at most \
         {vectors_limit} texts at once"
    );
    Err(ModelError::new("request.too_large", false, message))
}

/// Returns the bytes of a vector in a reply: base64 of four bytes per number, quotes and a comma.
fn vector_bytes(dimensions: usize) -> usize {
    dimensions.saturating_mul(4).div_ceil(3).saturating_mul(4).saturating_add(3)
}

/// Checks that the log accepts the result of a service.
pub(super) fn check_reply(reply: &ServiceReply) -> Result<(), ModelError> {
    match reply {
        ServiceReply::Vectors { vectors } => {
            // From base64 back to numbers: four characters are three bytes, four bytes a number.
            let longest = vectors.iter().map(|vector| vector.as_str().len() / 4 * 3 / 4).max();
            check_vectors(vectors.len(), longest.unwrap_or(0))
        }
        ServiceReply::Speech { data, .. } if data.len() > REPLY_LIMIT => {
            let (bytes, most) = (data.len() / 4 * 3, REPLY_LIMIT / 4 * 3);
            let message = format!(
                "the speech has {bytes} bytes, one answer holds {most}: ask for a compressed \
                 format as mp3, or speak less at once"
            );
            Err(ModelError::new("request.too_large", false, message))
        }
        ServiceReply::Speech { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{PackedVector, ServiceReply};
    use convergio_eventstore::LogLimits;

    use super::{check_reply, check_texts};

    fn texts(count: usize) -> Vec<String> {
        vec!["x".to_owned(); count]
    }

    #[test]
    fn vectors_that_the_log_does_not_take_are_refused_before_they_are_paid() {
        for (model, dimensions, most) in [
            ("text-embedding-3-large", None, 1019),
            ("text-embedding-3-small", None, 2039),
            ("text-embedding-3-large", Some(256), 12_189),
        ] {
            assert_eq!(check_texts(model, &texts(most), dimensions), Ok(()), "{model}");
            let error = check_texts(model, &texts(most + 1), dimensions).expect_err("too many");
            assert_eq!(error.code, "request.too_large");
            assert!(error.message.contains(&format!("at most {most} texts")), "{error}");
        }
        assert_eq!(check_texts("of-unknown-length", &texts(2048), None), Ok(()));
    }

    #[test]
    fn what_is_taken_fits_a_payload() {
        let vector = PackedVector::from_numbers(&[0.5; 3072]);
        let reply = |count| ServiceReply::Vectors { vectors: vec![vector.clone(); count] };
        assert_eq!(check_reply(&reply(1019)), Ok(()));
        let bytes = serde_json::to_vec(&reply(1019)).expect("JSON").len();
        assert!(bytes < LogLimits::PAYLOAD_BYTES, "{bytes}");
        assert!(check_reply(&reply(1020)).is_err());
        let speech = |count| {
            let (media_type, data) = ("audio/wav".to_owned(), "A".repeat(count));
            ServiceReply::Speech { media_type, data }
        };
        assert_eq!(check_reply(&speech(16_000_000)), Ok(()));
        assert!(check_reply(&speech(16_777_216)).is_err());
    }
}
