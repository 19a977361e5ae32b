//! A run as the API shows it.

use convergio_application::Caller;
use convergio_projections::{RunFamily, RunFilter};
use convergio_schemas::wire::{RunView, StepView};

use super::failure_details;
use super::run_lookup::run_stream;
use super::run_steps::inherited_steps;
use crate::convert;
use crate::problem::ApiError;
use crate::state::Gateway;

/// Maximum child runs that are shown with a run.
const CHILDREN_LIMIT: usize = 100;

/// Loads a run of the caller's tenant, with its steps, children and output.
pub(super) async fn load_run_view(
    gateway: &Gateway,
    caller: &Caller,
    id: &str,
) -> Result<RunView, ApiError> {
    let stream = run_stream(caller, id)?;
    let (tenant, id) = (caller.tenant.as_str(), stream.id.to_string());
    // The view must include the caller's own last command.
    if !gateway.catch_up(&stream).await? {
        return Err(ApiError::not_found("run"));
    }
    let row =
        gateway.queries.find_run(tenant, &id).await?.ok_or_else(|| ApiError::not_found("run"))?;
    let (output, detail) = (row.output.clone(), row.error_detail.clone());
    let mut run = convert::to_run_view(row);
    if let Some(error) = &mut run.error {
        error.detail =
            failure_details::open_detail_reference(gateway, &stream, detail.as_deref()).await?;
    }
    let steps = gateway.queries.list_steps(tenant, &id).await?;
    let details: Vec<Option<String>> = steps.iter().map(|row| row.error_detail.clone()).collect();
    run.steps = steps.into_iter().map(convert::to_step_view).collect();
    failure_details::add_step_details(gateway, &stream, &mut run.steps, &details).await?;
    // The read models know only the fork's own events.
    if run.forked_from.is_some() {
        let inherited = inherited_steps(gateway, &stream, &run.steps).await?;
        run.steps_total += inherited.len() as u64;
        let count = |statuses: &[&str]| {
            let is_counted = |step: &&StepView| statuses.contains(&step.status.as_str());
            inherited.iter().filter(is_counted).count() as u64
        };
        // Inherited steps are missing in the row's counts.
        run.steps_done += count(&["completed", "skipped"]);
        run.steps_abandoned += count(&["abandoned"]);
        // History first: the parent's steps precede the fork's own.
        run.steps.splice(0..0, inherited);
    }
    add_children(gateway, tenant, &mut run).await?;
    if let Some(reference) = output {
        run.output = Some(gateway.open_payload(&stream, &reference).await?);
    }
    Ok(run)
}

/// Adds the run's direct children.
async fn add_children(gateway: &Gateway, tenant: &str, run: &mut RunView) -> Result<(), ApiError> {
    let family = RunFamily::ChildrenOf(run.id.clone());
    let filter = RunFilter { family, ..RunFilter::default() };
    let listed = gateway.queries.list_runs(tenant, &filter, None, CHILDREN_LIMIT).await?;
    run.children_total = match listed.next_cursor {
        // Counted only if they do not fit the page.
        Some(_) => gateway.queries.count_children(tenant, &run.id).await?,
        None => listed.items.len() as u64,
    };
    run.children = listed.items.into_iter().map(convert::to_child_run).collect();
    Ok(())
}
