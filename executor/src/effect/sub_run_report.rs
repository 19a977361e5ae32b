//! Reports of child runs to the run that waits for them.

use bytes::Bytes;
use convergio_domain::failure::{FailureDetail, FailureReport, UnsealedFailure};
use convergio_domain::id::RunId;
use convergio_domain::money::Money;
use convergio_domain::payload::{PayloadPurpose, PayloadRef, PayloadSlot};
use convergio_domain::platform_text;
use convergio_domain::run::{ChildReport, Run, RunCommand, RunPhase, RunState};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{LoadedStream, Payload};

use crate::error::ActorError;
use crate::failures::{detail_payload, seal_failure};
use crate::plan::new_failure;
use crate::services::SharedServices;

/// Builds the report of an ended run for its parent, with the payload that it copies.
pub(super) async fn child_report(
    shared: &SharedServices,
    run: &LoadedStream<Run>,
) -> Result<(ChildReport, Vec<Payload>), ActorError> {
    let state = &run.state;
    let mut error = end_error(state);
    let mut output = None;
    if let (None, Some(reference)) = (&error, state.output) {
        match read_payload(shared, &run.stream, reference).await {
            Ok(bytes) => output = Some(Payload::from_json(bytes, PayloadPurpose::Output, None)),
            // The output was erased: to the parent that is a failure.
            Err(ActorError::Failure(erased)) => error = Some(erased),
            Err(other) => return Err(other),
        }
    }
    let (error, detail) = match error {
        Some(error) => {
            let (error, detail) = copy_failure(shared, &run.stream, error).await?;
            (Some(error), detail)
        }
        None => (None, None),
    };
    let report = ChildReport {
        child: RunId(run.stream.id),
        error,
        output: output.as_ref().map(|_| PayloadSlot(0)),
        tokens: state.spent.tokens,
        cost: state.spent.cost,
        reopenings: state.reopenings,
        active_ms: Some(state.active_time(shared.current_time()).0),
        inherited: state.is_cancel_inherited,
    };
    // A failed run has no output, so there is one payload at most.
    Ok((report, output.or(detail).into_iter().collect()))
}

/// Prepares a failure for another stream: its detail is copied, unless it was erased.
async fn copy_failure(
    shared: &SharedServices,
    stream: &StreamKey,
    failure: UnsealedFailure,
) -> Result<(FailureReport, Option<Payload>), ActorError> {
    let Some(FailureDetail::Known(reference)) = failure.detail else {
        let (report, payloads) = seal_failure(failure);
        return Ok((report, payloads.into_iter().next()));
    };
    let bytes = shared.repository.read_payload(stream, reference).await?;
    let report = failure.map_detail(|_| Some(FailureDetail::New(PayloadSlot(0))));
    Ok(match bytes {
        Some(bytes) => (report, Some(detail_payload(bytes))),
        None => (report.map_detail(|_| None), None),
    })
}

fn end_error(state: &RunState) -> Option<UnsealedFailure> {
    match state.phase {
        RunPhase::Completed => None,
        RunPhase::Cancelled => {
            Some(new_failure("run.cancelled", platform_text!("the run within was cancelled")))
        }
        _ => Some(state.error.as_ref().map_or_else(
            || new_failure("internal", platform_text!("the run within failed without a reason")),
            |error| state.repeated_failure(error),
        )),
    }
}

pub(super) async fn report_to_parent(
    shared: &SharedServices,
    parent: &StreamKey,
    report: ChildReport,
    payloads: Vec<Payload>,
) -> Result<(), ActorError> {
    let command = |_: &_, _| (RunCommand::ChildEnded(report.clone()), payloads.clone());
    shared.repository.submit_command::<Run>(parent, &shared.command_context(), command).await?;
    Ok(())
}

pub(super) async fn read_payload(
    shared: &SharedServices,
    stream: &StreamKey,
    reference: PayloadRef,
) -> Result<Bytes, ActorError> {
    let bytes = shared.repository.read_payload(stream, reference).await?;
    bytes.ok_or_else(|| {
        let message = platform_text!("payload {} was erased", reference);
        ActorError::Failure(new_failure("payload.erased", message))
    })
}

/// Builds the report of a child that failed before it started.
pub(super) fn never_started_report(child: RunId, error: FailureReport) -> ChildReport {
    ChildReport {
        child,
        error: Some(error),
        output: None,
        tokens: 0,
        cost: Money::ZERO,
        reopenings: 0,
        active_ms: None,
        inherited: false,
    }
}
