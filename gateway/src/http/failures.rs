//! Errors of runs and steps with their full texts. The events hold a short message; the full text
//! is a payload, so that it can be erased.

use convergio_domain::event::run::Failure;
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::{RunState, lineage};
use convergio_domain::stream::StreamKey;
use convergio_schemas::wire::{RunError, StepView};

use super::as_json;
use crate::app::Gateway;
use crate::problem::ApiError;

/// Maximum steps of one answer whose full texts are opened: each is a read of the log.
pub(crate) const DETAILS_LIMIT: usize = 64;

/// Converts a failure without its full text.
pub(crate) fn error(failure: &Failure) -> RunError {
    RunError {
        code: failure.code.to_string(),
        message: failure.message.to_string(),
        detail: None,
        step: None,
    }
}

/// Converts a failure with its full text, unless that was erased.
pub(crate) async fn error_in_full(
    gateway: &Gateway,
    state: &RunState,
    own: &StreamKey,
    failure: &Failure,
) -> Result<RunError, ApiError> {
    let mut told = error(failure);
    if let Some(reference) = failure.detail {
        let (stream, place) = lineage::locate(&state.lineage, own, reference);
        told.detail = open(gateway, &stream, place).await?;
    }
    Ok(told)
}

/// Opens the full text that a row's reference names; `None` if absent or erased.
pub(crate) async fn open_named(
    gateway: &Gateway,
    stream: &StreamKey,
    reference: Option<&str>,
) -> Result<Option<String>, ApiError> {
    match reference.and_then(|reference| reference.parse().ok()) {
        Some(reference) => open(gateway, stream, reference).await,
        None => Ok(None),
    }
}

/// Adds full texts to steps; `references` belong to the steps in the same order.
pub(crate) async fn add_details(
    gateway: &Gateway,
    stream: &StreamKey,
    steps: &mut [StepView],
    references: &[Option<String>],
) -> Result<(), ApiError> {
    let named = steps.iter_mut().zip(references).filter(|(_, reference)| reference.is_some());
    for (step, reference) in named.take(DETAILS_LIMIT) {
        if let Some(error) = &mut step.error {
            error.detail = open_named(gateway, stream, reference.as_deref()).await?;
        }
    }
    Ok(())
}

/// Opens the full text of a failure; `None` if erased.
pub(crate) async fn open(
    gateway: &Gateway,
    stream: &StreamKey,
    reference: PayloadRef,
) -> Result<Option<String>, ApiError> {
    let bytes = gateway.repository.payload(stream, reference).await?;
    Ok(bytes.and_then(|bytes| as_json(&bytes).as_str().map(str::to_owned)))
}
