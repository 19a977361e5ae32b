//! Services of models besides answers: embeddings, transcription and speech.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Most bytes of a recording: in base64, with its fields, it must fit into one payload of the log.
pub const RECORDING_LIMIT: usize = 12_000_000;

/// A service that is requested in place of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ModelService {
    /// Embeds texts as vectors.
    Embed {
        /// Texts to embed, one vector each.
        texts: Vec<String>,
        /// Length of each vector; the model's own when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dimensions: Option<u32>,
    },
    /// Transcribes a recording.
    Transcribe {
        /// File name, whose extension gives the format.
        file_name: String,
        /// Media type of the file.
        media_type: String,
        /// Recording bytes in base64.
        data: String,
        /// Spoken language by ISO 639-1; detected by the model when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language: Option<String>,
        /// Words that may occur, as a hint.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prompt: Option<String>,
    },
    /// Reads a text aloud.
    Speak {
        /// Text that is spoken.
        text: String,
        /// Voice by the provider's name for it.
        voice: String,
        /// Format of the recording: `mp3`, `opus`, `aac`, `flac`, `wav` or `pcm`.
        format: String,
    },
}

/// Result of a service. A transcript is the reply's text and has no variant here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServiceReply {
    /// One vector for each text, in order.
    Vectors {
        /// Vectors in the order of the texts.
        vectors: Vec<PackedVector>,
    },
    /// A recording of the text.
    Speech {
        /// Media type of the recording.
        media_type: String,
        /// Recording bytes in base64.
        data: String,
    },
}

/// A vector in base64 of little-endian 32-bit floats: exact, and the form of OpenAI's interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PackedVector(String);

impl PackedVector {
    /// Packs a vector's numbers.
    pub fn from_numbers(numbers: &[f32]) -> Self {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Self(STANDARD.encode(bytes))
    }

    /// Unpacks the numbers; `None` if the text is no vector.
    pub fn to_numbers(&self) -> Option<Vec<f32>> {
        let bytes = STANDARD.decode(&self.0).ok()?;
        let chunks = bytes.chunks_exact(4);
        let number = |four: &[u8]| Some(f32::from_le_bytes(four.try_into().ok()?));
        chunks.remainder().is_empty().then(|| chunks.map(number).collect())?
    }

    /// The packed base64 text.
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
        assert_eq!(PackedVector::from_numbers(&[1.0, -2.0]).as_str(), "AACAPwAAAMA=");
        assert_eq!(PackedVector("AACA".into()).to_numbers(), None);
        assert_eq!(PackedVector("?".into()).to_numbers(), None);
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
            let unpacked = PackedVector::from_numbers(&numbers).to_numbers().expect("a vector");
            let unpacked: Vec<u32> = unpacked.iter().map(|number| number.to_bits()).collect();
            prop_assert_eq!(unpacked, bits);
        }
    }
}
