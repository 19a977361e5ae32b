//! Errors of runs and steps with their full texts. The events hold a short message; the full text
//! is a payload, so that it can be erased.

use convergio_domain::failure::Failure;
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::{RunState, lineage};
use convergio_domain::stream::StreamKey;
use convergio_schemas::wire::{RunError, StepView};

use super::payload_json::payload_as_json;
use crate::problem::ApiError;
use crate::state::Gateway;

/// Maximum steps of one answer whose full texts are opened: each is a read of the log.
pub(crate) const DETAILS_LIMIT: usize = 64;

/// Converts a failure without its full text.
pub(crate) fn to_run_error_outline(failure: &Failure) -> RunError {
    RunError {
        code: failure.code.to_string(),
        message: failure.message.to_string(),
        detail: None,
        step: None,
    }
}

/// Converts a failure with its full text, unless that was erased.
pub(crate) async fn to_run_error_with_detail(
    gateway: &Gateway,
    state: &RunState,
    own_stream: &StreamKey,
    failure: &Failure,
) -> Result<RunError, ApiError> {
    let mut run_error = to_run_error_outline(failure);
    if let Some(reference) = failure.detail {
        let (stream, own_reference) =
            lineage::locate_payload(&state.lineage, own_stream, reference);
        run_error.detail = open_detail(gateway, &stream, own_reference).await?;
    }
    Ok(run_error)
}

/// Opens the full text that a row's reference names; `None` if absent or erased.
pub(crate) async fn open_detail_reference(
    gateway: &Gateway,
    stream: &StreamKey,
    reference: Option<&str>,
) -> Result<Option<String>, ApiError> {
    match reference.and_then(|reference| reference.parse().ok()) {
        Some(reference) => open_detail(gateway, stream, reference).await,
        None => Ok(None),
    }
}

/// Adds full texts to steps; `references` belong to the steps in the same order.
pub(crate) async fn add_step_details(
    gateway: &Gateway,
    stream: &StreamKey,
    steps: &mut [StepView],
    references: &[Option<String>],
) -> Result<(), ApiError> {
    let named = steps.iter_mut().zip(references).filter(|(_, reference)| reference.is_some());
    for (step, reference) in named.take(DETAILS_LIMIT) {
        if let Some(error) = &mut step.error {
            error.detail = open_detail_reference(gateway, stream, reference.as_deref()).await?;
        }
    }
    Ok(())
}

/// Opens the full text of a failure; `None` if erased.
pub(crate) async fn open_detail(
    gateway: &Gateway,
    stream: &StreamKey,
    reference: PayloadRef,
) -> Result<Option<String>, ApiError> {
    let bytes = gateway.repository.read_payload(stream, reference).await?;
    Ok(bytes.and_then(|bytes| payload_as_json(&bytes).as_str().map(str::to_owned)))
}
