//! Payloads of the log in JSON answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

/// Represents a payload as JSON: its own JSON, its text, or its bytes in base64 (as of a
/// recording's form).
pub(super) fn payload_as_json(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::payload_as_json;

    #[test]
    fn no_byte_of_a_content_is_lost() {
        for (bytes, expected) in [
            (&b"{\"a\": 1}"[..], json!({"a": 1})),
            (b"plain", json!("plain")),
            (b"--x\r\n\xff", json!({"base64": "LS14DQr/"})),
        ] {
            assert_eq!(payload_as_json(&Bytes::from_static(bytes)), expected);
        }
    }
}
