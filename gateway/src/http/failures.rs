//! Failures as callers are told of them: with their full texts, opened from sealed payloads.

use convergio_domain::event::run::Failure;
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::{RunState, lineage};
use convergio_domain::stream::StreamKey;
use convergio_schemas::wire::{RunError, StepView};

use super::as_json;
use crate::app::Gateway;
use crate::problem::ApiError;

/// Steps of one answer whose full texts are opened; the events have those of the others.
pub(crate) const DETAILS_LIMIT: usize = 64;

/// A failure of a state, without its full text.
pub(crate) fn error(failure: &Failure) -> RunError {
    RunError {
        code: failure.code.to_string(),
        message: failure.message.to_string(),
        detail: None,
        step: None,
    }
}

/// A failure of a state with its full text, unless that was erased.
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

/// The full text that a row names, unless it was erased.
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

/// Adds their full texts to steps; `references` are those of the steps, in the same order.
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

/// The full text of a failure, unless it was erased.
pub(crate) async fn open(
    gateway: &Gateway,
    stream: &StreamKey,
    reference: PayloadRef,
) -> Result<Option<String>, ApiError> {
    let bytes = gateway.repository.payload(stream, reference).await?;
    Ok(bytes.and_then(|bytes| as_json(&bytes).as_str().map(str::to_owned)))
}
