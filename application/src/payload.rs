//! Payloads that use cases make of a request's values.

use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::CommandReason;
use convergio_eventstore::Payload;
use serde_json::Value;

use crate::error::UseCaseError;

/// Maximum characters of a reason; further ones are cut.
pub(crate) const REASON_CHARACTERS_LIMIT: usize = 500;
/// Maximum bytes of a signal's payload or of an output given by a decision.
const VALUE_BYTES_LIMIT: usize = 4 << 20;

/// Makes a person's text a payload, in slot `slot` of the commit and cut to `limit` characters. As
/// a payload it can be erased; in the event it could not.
pub(crate) fn seal_reason(
    reason: Option<String>,
    limit: usize,
    slot: u16,
) -> (Option<CommandReason>, Vec<Payload>) {
    let Some(reason) = reason else { return (None, Vec::new()) };
    let reason: String = reason.chars().take(limit).collect();
    let payload = Payload::from_value(&reason, PayloadPurpose::Reason, None);
    (Some(CommandReason::Sealed(PayloadSlot(slot))), vec![payload])
}

/// Serialises a value as a payload of the next commit.
pub(crate) fn value_payload(
    value: &Value,
    purpose: PayloadPurpose,
) -> Result<Payload, UseCaseError> {
    let payload = Payload::from_value(value, purpose, None);
    if payload.bytes.len() > VALUE_BYTES_LIMIT {
        let detail = format!("a value has at most {VALUE_BYTES_LIMIT} bytes");
        return Err(UseCaseError::TooLarge(detail));
    }
    Ok(payload)
}
