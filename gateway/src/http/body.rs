//! Bodies of requests and the payloads that are made of them.

use bytes::Bytes;
use convergio_domain::json::read_json;
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::CommandReason;
use convergio_eventstore::Payload;
use convergio_schemas::error_code;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::problem::ApiError;

/// Maximum characters of a reason; further ones are cut.
pub(super) const REASON_CHARACTERS_LIMIT: usize = 500;
/// Maximum bytes of a signal's payload or of an output given by a decision.
const VALUE_BYTES_LIMIT: usize = 4 << 20;

/// Reads a body that may be empty.
pub(super) fn read_optional_body<T: DeserializeOwned + Default>(
    body: &[u8],
) -> Result<T, ApiError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    read_body(body)
}

/// Reads a JSON body.
pub(super) fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    read_json(body).map_err(|error| ApiError::invalid_request(error.to_string()))
}

/// Makes a person's text a payload, in slot `slot` of the commit and cut to `limit` characters. As
/// a payload it can be erased; in the event it could not.
pub(super) fn seal_reason(
    reason: Option<String>,
    limit: usize,
    slot: u16,
) -> (Option<CommandReason>, Vec<Payload>) {
    let Some(reason) = reason else { return (None, Vec::new()) };
    let reason: String = reason.chars().take(limit).collect();
    // Serialising a text into memory cannot fail.
    let bytes = serde_json::to_vec(&reason).unwrap_or_default();
    let payload = new_payload(bytes, PayloadPurpose::Reason);
    (Some(CommandReason::Sealed(PayloadSlot(slot))), vec![payload])
}

/// Serialises a value as a payload of the next commit.
pub(super) fn json_payload(value: &Value, purpose: PayloadPurpose) -> Result<Payload, ApiError> {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    if bytes.len() > VALUE_BYTES_LIMIT {
        let detail = format!("a value has at most {VALUE_BYTES_LIMIT} bytes");
        return Err(ApiError::new(error_code::REQUEST_TOO_LARGE, detail));
    }
    Ok(new_payload(bytes, purpose))
}

/// Makes JSON text a payload of the next commit.
pub(crate) fn new_payload(bytes: Vec<u8>, purpose: PayloadPurpose) -> Payload {
    let media_type = "application/json".into();
    Payload { bytes: Bytes::from(bytes), media_type, purpose, subject: None }
}
