//! Failures on their way into the log: the full text becomes a payload of the commit, since it may
//! hold personal data and must be erasable.

use bytes::Bytes;
use convergio_domain::failure::{DetailText, FailureDetail, FailureReport, UnsealedFailure};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_eventstore::Payload;

/// Serialises the full text of a failure as its payload stores it: a JSON string.
pub(crate) fn detail_bytes(text: &DetailText) -> Vec<u8> {
    // Serialising a text into memory cannot fail.
    serde_json::to_vec(text.as_str()).unwrap_or_default()
}

/// Builds the payload of a failure's full text.
pub(crate) fn detail_payload(bytes: Bytes) -> Payload {
    Payload::from_json(bytes, PayloadPurpose::FailureDetail, None)
}

/// Splits a failure into the report that a command carries and its payload. The full text, if there
/// is one, becomes payload slot 0.
pub(crate) fn seal_failure(failure: UnsealedFailure) -> (FailureReport, Vec<Payload>) {
    let mut payloads = Vec::new();
    let report = failure.map_detail(|detail| {
        Some(match detail {
            // The text of a known detail is in the log already; only its reference travels.
            FailureDetail::Known(reference) => FailureDetail::Known(reference),
            FailureDetail::New(text) => {
                payloads.push(detail_payload(Bytes::from(detail_bytes(&text))));
                FailureDetail::New(PayloadSlot(0))
            }
        })
    });
    (report, payloads)
}
