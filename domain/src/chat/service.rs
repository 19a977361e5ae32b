//! What a model does besides answering: vectors of texts, the words of a recording, speech.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Bytes of a recording at most: in base64, with what belongs to it, it is one payload of the log.
pub const RECORDING_LIMIT: usize = 12_000_000;

/// What is asked of a model in place of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ModelService {
    /// Texts as vectors.
    Embed {
        /// The texts.
        texts: Vec<String>,
        /// Numbers of a vector; the model's own when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dimensions: Option<u32>,
    },
    /// The words of a recording.
    Transcribe {
        /// The file's name, whose ending tells its format.
        file_name: String,
        /// The file's media type.
        media_type: String,
        /// Its bytes, in base64.
        data: String,
        /// What is spoken in it, by ISO 639-1; found out by the model when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language: Option<String>,
        /// Words that the recording may have.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prompt: Option<String>,
    },
    /// A text, spoken.
    Speak {
        /// The text.
        text: String,
        /// Whose voice, by the provider's name for it.
        voice: String,
        /// `mp3`, `opus`, `aac`, `flac`, `wav` or `pcm`.
        format: String,
    },
}

/// What came of a service. The words of a recording are the reply's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServiceReply {
    /// One vector for each text, in order.
    Vectors {
        /// The vectors.
        vectors: Vec<PackedVector>,
    },
    /// Spoken text.
    Speech {
        /// The file's media type.
        media_type: String,
        /// Its bytes, in base64.
        data: String,
    },
}

/// A vector as base64 of 32 bits for each number, the least significant byte first: exact, and as
/// OpenAI's interface has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PackedVector(String);

impl PackedVector {
    /// Packs numbers.
    pub fn pack(numbers: &[f32]) -> Self {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Self(STANDARD.encode(bytes))
    }

    /// The numbers; `None` when it is no vector.
    pub fn numbers(&self) -> Option<Vec<f32>> {
        let bytes = STANDARD.decode(&self.0).ok()?;
        let chunks = bytes.chunks_exact(4);
        let number = |four: &[u8]| Some(f32::from_le_bytes(four.try_into().ok()?));
        chunks.remainder().is_empty().then(|| chunks.map(number).collect())?
    }

    /// The base64.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};
    use serde_json::json;

    use super::{ModelService, PackedVector};
    use crate::chat::{ChatReply, ChatRequest};

    #[test]
    fn vectors_are_packed_as_sdks_unpack_them() {
        assert_eq!(PackedVector::pack(&[1.0, -2.0]).as_str(), "AACAPwAAAMA=");
        assert_eq!(PackedVector("AACA".into()).numbers(), None);
        assert_eq!(PackedVector("?".into()).numbers(), None);
    }

    #[test]
    fn a_misspelt_field_is_refused_and_earlier_requests_have_no_service() {
        let misspelt = json!({"type": "embed", "texts": [], "dimension": 3});
        let error = serde_json::from_value::<ModelService>(misspelt).expect_err("misspelt");
        assert!(error.to_string().contains("dimension"), "{error}");
        let request: ChatRequest =
            serde_json::from_value(json!({"model": "m", "messages": []})).expect("a request");
        assert_eq!(request.service, None);
        assert!(json!(request).get("service").is_none());
        assert!(json!(ChatReply::default()).get("service").is_none());
    }

    proptest! {
        #[test]
        fn no_bit_of_a_number_is_lost(bits in prop::collection::vec(any::<u32>(), 0..40)) {
            let numbers: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
            let unpacked = PackedVector::pack(&numbers).numbers().expect("a vector");
            let unpacked: Vec<u32> = unpacked.iter().map(|number| number.to_bits()).collect();
            prop_assert_eq!(unpacked, bits);
        }
    }
}
