//! Steps of a run's folded state, in the words of the read models.

use std::collections::BTreeSet;

use convergio_domain::run::{Run, RunState, RunStep, StepStatus};
use convergio_domain::stream::StreamKey;
use convergio_schemas::wire::{StepView, UsageSummary};

use super::failure_details::{DETAILS_LIMIT, to_run_error_outline, to_run_error_with_detail};
use crate::problem::ApiError;
use crate::state::Gateway;

/// Returns a step's status in the words of the read models, which clients compare it with.
pub(super) fn step_status(state: &RunState, step: &RunStep) -> &'static str {
    match step.status {
        // Abandonment depends on the whole state, so it precedes the step's own status.
        _ if state.is_abandoned(step) => "abandoned",
        StepStatus::Scheduled { due: Some(_) } => "retrying",
        StepStatus::Scheduled { due: None } => "scheduled",
        StepStatus::Started { .. } | StepStatus::Expanded => "started",
        StepStatus::Unknown => "unknown",
        StepStatus::Sleeping { .. } => "sleeping",
        StepStatus::Asking { .. } | StepStatus::Awaiting { .. } => "waiting",
        StepStatus::Undecided { .. } => "undecided",
        StepStatus::Completed => "completed",
        StepStatus::Failed => "failed",
        StepStatus::Skipped => "skipped",
    }
}

/// Returns the steps that a fork has from its parent and has not touched itself. The read models
/// hold the events of the fork's own stream only, so these come from its folded state.
pub(super) async fn inherited_steps(
    gateway: &Gateway,
    stream: &StreamKey,
    listed_steps: &[StepView],
) -> Result<Vec<StepView>, ApiError> {
    let state = gateway.repository.load::<Run>(stream).await?.state;
    let listed: BTreeSet<&str> = listed_steps.iter().map(|step| step.id.as_str()).collect();
    // The read models' rows win: they hold usage and duration.
    let steps = state.steps.iter().filter(|(id, _)| !listed.contains(id.to_string().as_str()));
    let inherited = steps.map(|(id, step)| StepView {
        id: id.to_string(),
        node: id.node.to_string(),
        item: id.item,
        kind: String::new(),
        status: step_status(&state, step).to_owned(),
        attempt: step.attempt,
        duration_ms: None,
        model: None,
        usage: UsageSummary { cost: "0".into(), ..Default::default() },
        error: step.error.as_ref().map(to_run_error_outline),
        is_inherited: true,
    });
    let mut inherited: Vec<StepView> = inherited.collect();
    // Each opened text is a read of the log.
    let failed = inherited.iter_mut().filter(|step| step.error.is_some());
    for step in failed.take(DETAILS_LIMIT) {
        let step_state = step.id.parse().ok().and_then(|id| state.steps.get(&id));
        if let Some(failure) = step_state.and_then(|known| known.error.as_ref()) {
            step.error = Some(to_run_error_with_detail(gateway, &state, stream, failure).await?);
        }
    }
    Ok(inherited)
}
