//! A run's state after one of its events, and the comparison of two runs, which may be forks of one
//! another.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::{Extension, Json};
use convergio_application::Caller;
use convergio_domain::id::StepId;
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::{Ancestor, Run, RunPhase, RunState, RunStep, lineage};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_schemas::wire::{
    BranchView, CallState, DiffView, ForkOrigin, Problem, StateView, StepDiff, StepSide, StepState,
    StepView,
};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::failure_details::{to_run_error_outline, to_run_error_with_detail};
use super::payload_json::payload_as_json;
use super::query_params::QueryParams;
use super::run_lookup::run_stream;
use super::run_steps::step_status;
use super::run_view::load_run_view;
use crate::content_budget::ContentBudget;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension, Gateway};

/// Maximum steps that a comparison lists; further ones are counted.
const DIFFS_LIMIT: usize = 1000;

/// Query parameters of a run's state.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StateQuery {
    /// The event; the last one when absent.
    at: Option<u64>,
    /// Also what the steps yielded.
    contents: Option<bool>,
}

/// Routes that show a run at one of its events, and compare two.
pub(crate) fn comparison_routes() -> ApiRoutes {
    OpenApiRouter::new().routes(routes!(show_run_state)).routes(routes!(diff_runs))
}

/// Shows a run as it was after one of its events.
#[utoipa::path(get, path = "/v1/runs/{id}/state", tag = "runs", params(
    ("id" = String, Path, description = "The run"), StateQuery,
), responses(
    (status = 200, description = "The state", body = StateView),
    (status = 400, description = "There is no such event", body = Problem),
    (status = 404, description = "There is no such run", body = Problem),
))]
async fn show_run_state(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<StateQuery>,
) -> Result<Json<StateView>, ApiError> {
    let stream = run_stream(&caller, &id)?;
    let head = gateway.repository.event_log().stream_head(&stream).await?;
    let events = head.ok_or_else(|| ApiError::not_found("run"))?.seq.0;
    let at = query.at.unwrap_or(events);
    let no_such_event =
        || ApiError::invalid_request(format!("the run has {events} events: no event {at}"));
    // Events are numbered from 1, so event 0 does not exist.
    if at == 0 {
        return Err(no_such_event());
    }
    let loaded = gateway.repository.load_at::<Run>(&stream, Seq(at), false).await?;
    let mut state = loaded.ok_or_else(no_such_event)?.state;
    let fingerprint = state.refresh_fingerprint().to_string();
    // One budget for all outputs: contents beyond it fail the request by name.
    let (mut steps, mut budget) = (Vec::with_capacity(state.steps.len()), ContentBudget::new());
    for (id, step) in &state.steps {
        let mut step_view = to_step_state(&state, id, step);
        if let (Some(true), Some(output)) = (query.contents, step.output) {
            step_view.output = open_content(&gateway, &state, &stream, output, &mut budget).await?;
        }
        if let (Some(true), Some(failure)) = (query.contents, &step.error) {
            step_view.error =
                Some(to_run_error_with_detail(&gateway, &state, &stream, failure).await?);
        }
        steps.push(step_view);
    }
    let error = match &state.error {
        Some(failure) => Some(to_run_error_with_detail(&gateway, &state, &stream, failure).await?),
        None => None,
    };
    Ok(Json(StateView {
        run_id: stream.id.to_string(),
        seq: state.seq.0,
        status: run_status(&state).to_owned(),
        fingerprint,
        version: state.graph.as_ref().map(|graph| graph.1.to_string()).unwrap_or_default(),
        tokens: state.spent.tokens,
        reserved_tokens: state.spent.reserved_tokens,
        cost: state.spent.cost.to_string(),
        lineage: fork_origins(&state.lineage),
        signals: state.signals.iter().map(|(n, kept)| (n.to_string(), kept.len() as u64)).collect(),
        error,
        steps,
    }))
}

/// Returns the ancestors of a fork, each with the number of its own events. The state's lineage
/// counts over the whole history, so predecessors are subtracted.
fn fork_origins(lineage: &[Ancestor]) -> Vec<ForkOrigin> {
    let event_counts = std::iter::once(0).chain(lineage.iter().map(|ancestor| ancestor.upto.0));
    let origin = |(before, ancestor): (u64, &Ancestor)| ForkOrigin {
        run_id: ancestor.run.to_string(),
        seq: ancestor.upto.0 - before,
    };
    event_counts.zip(lineage).map(origin).collect()
}

fn to_step_state(state: &RunState, id: &StepId, step: &RunStep) -> StepState {
    StepState {
        step: id.to_string(),
        status: step_status(state, step).to_owned(),
        attempt: step.attempt,
        failures: step.failures,
        call: step.call.as_ref().map(|call| CallState {
            provider: call.provider.clone(),
            model: call.model.clone(),
            idempotency_key: call.idempotency_key.clone(),
        }),
        error: step.error.as_ref().map(to_run_error_outline),
        output: None,
    }
}

fn run_status(state: &RunState) -> &'static str {
    match state.phase {
        RunPhase::New | RunPhase::Running if state.paused => "paused",
        RunPhase::New | RunPhase::Running => "running",
        RunPhase::Completed => "completed",
        RunPhase::Failed => "failed",
        RunPhase::Cancelled => "cancelled",
    }
}

/// Opens a payload of a state's history, which may lie in an ancestor's stream; null if erased.
async fn open_content(
    gateway: &Gateway,
    state: &RunState,
    own_stream: &StreamKey,
    reference: PayloadRef,
    budget: &mut ContentBudget,
) -> Result<Option<Value>, ApiError> {
    let (stream, own_reference) = lineage::locate_payload(&state.lineage, own_stream, reference);
    let Some(bytes) = gateway.repository.read_payload(&stream, own_reference).await? else {
        return Ok(Some(Value::Null));
    };
    budget.require_budget(&bytes)?;
    Ok(Some(payload_as_json(&bytes)))
}

/// Query parameters of a comparison.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DiffQuery {
    /// The run to compare with.
    with: String,
    /// Also the outputs' contents.
    contents: Option<bool>,
}

/// Compares two runs: where their steps stand, what they yielded, and what they cost.
#[utoipa::path(get, path = "/v1/runs/{id}/diff", tag = "runs", params(
    ("id" = String, Path, description = "The run"), DiffQuery,
), responses(
    (status = 200, description = "What differs", body = DiffView),
    (status = 400, description = "The query is not valid", body = Problem),
    (status = 404, description = "There is no such run", body = Problem),
))]
async fn diff_runs(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<DiffQuery>,
) -> Result<Json<DiffView>, ApiError> {
    let contents = query.contents == Some(true);
    let mut budget = ContentBudget::new();
    let a = DiffSide::load(&gateway, &caller, &id).await?;
    let b = DiffSide::load(&gateway, &caller, &query.with).await?;
    let ids: BTreeSet<&StepId> = a.state.steps.keys().chain(b.state.steps.keys()).collect();
    // `same` and `more` are counts: identical steps, and differing ones beyond the limit.
    let (mut steps, mut same, mut more) = (Vec::new(), 0, 0);
    for id in ids {
        // Compared by payload, so that unchanged steps cost no output budget.
        let is_same = a.is_same_step(&b, id).await?;
        if is_same {
            same += 1;
        } else if steps.len() == DIFFS_LIMIT {
            more += 1;
        } else {
            // Contents of both sides share the budget.
            let mut output_budget = contents.then_some(&mut budget);
            let left = a.step_side(id, output_budget.as_deref_mut()).await?;
            let right = b.step_side(id, output_budget).await?;
            steps.push(StepDiff { step: id.to_string(), a: left, b: right });
        }
    }
    let common = last_common_event(&a, &b);
    let (a, b) = (a.into_branch_view(contents).await?, b.into_branch_view(contents).await?);
    Ok(Json(DiffView { a, b, common, steps, same, more }))
}

/// Returns the last event that both histories share: the end of their longest common lineage.
fn last_common_event(a: &DiffSide<'_>, b: &DiffSide<'_>) -> Option<ForkOrigin> {
    let whole_lineage = |branch: &DiffSide<'_>| {
        let mut lineage = fork_origins(&branch.state.lineage);
        let (run_id, seq) = (branch.stream.id.to_string(), branch.state.seq.0);
        lineage.push(ForkOrigin { run_id, seq });
        lineage
    };
    let (left, right) = (whole_lineage(a), whole_lineage(b));
    // Ancestors are shared as long as both histories pass through the same runs.
    let shared = left.iter().zip(&right).take_while(|(one, other)| one.run_id == other.run_id);
    let (one, other) = shared.last()?;
    Some(ForkOrigin { run_id: one.run_id.clone(), seq: one.seq.min(other.seq) })
}

/// One of the two runs that are compared.
struct DiffSide<'a> {
    gateway: &'a Gateway,
    stream: StreamKey,
    state: RunState,
    /// The run as the API shows it, without its steps.
    view: convergio_schemas::wire::RunView,
    /// The run's steps by their ids.
    steps: BTreeMap<String, StepView>,
}

impl<'a> DiffSide<'a> {
    async fn load(gateway: &'a Gateway, caller: &Caller, id: &str) -> Result<Self, ApiError> {
        let stream = run_stream(caller, id)?;
        let mut run = load_run_view(gateway, caller, id).await?;
        let state = gateway.repository.load::<Run>(&stream).await?.state;
        let steps = std::mem::take(&mut run.steps);
        let steps = steps.into_iter().map(|step| (step.id.clone(), step)).collect();
        Ok(Self { gateway, stream, state, view: run, steps })
    }

    fn locate_payload(&self, reference: PayloadRef) -> (StreamKey, PayloadRef) {
        lineage::locate_payload(&self.state.lineage, &self.stream, reference)
    }

    async fn payload_hash(
        &self,
        reference: Option<PayloadRef>,
    ) -> Result<Option<String>, ApiError> {
        let Some(reference) = reference else { return Ok(None) };
        let (stream, own_reference) = self.locate_payload(reference);
        let bytes = self.gateway.repository.read_payload(&stream, own_reference).await?;
        Ok(bytes.map(|bytes| blake3::hash(&bytes).to_hex().to_string()))
    }

    async fn is_same_step(&self, other: &Self, id: &StepId) -> Result<bool, ApiError> {
        let (Some(left_step), Some(right_step)) =
            (self.state.steps.get(id), other.state.steps.get(id))
        else {
            return Ok(false);
        };
        if step_status(&self.state, left_step) != step_status(&other.state, right_step) {
            return Ok(false);
        }
        // The same payload of a common ancestor needs no comparison of contents.
        let place =
            |branch: &Self, step: &RunStep| step.output.map(|output| branch.locate_payload(output));
        if place(self, left_step) == place(other, right_step) {
            return Ok(true);
        }
        // Different payloads may still have the same bytes, as after a repeated step.
        Ok(self.payload_hash(left_step.output).await?
            == other.payload_hash(right_step.output).await?)
    }

    /// Returns a step's side of the comparison, with its output if there is a budget for outputs.
    async fn step_side(
        &self,
        id: &StepId,
        budget: Option<&mut ContentBudget>,
    ) -> Result<Option<StepSide>, ApiError> {
        let Some(step) = self.state.steps.get(id) else { return Ok(None) };
        let read_model_step = self.steps.get(&id.to_string());
        let model = read_model_step.and_then(|step| step.model.as_ref());
        Ok(Some(StepSide {
            status: step_status(&self.state, step).to_owned(),
            attempt: step.attempt,
            model: model.map(|model| format!("{}/{}", model.provider, model.name)),
            usage: read_model_step.map(|step| step.usage.clone()).unwrap_or_default(),
            output_hash: self.payload_hash(step.output).await?,
            output: match step.output.zip(budget) {
                Some((output, room)) => {
                    open_content(self.gateway, &self.state, &self.stream, output, room).await?
                }
                None => None,
            },
        }))
    }

    async fn into_branch_view(self, contents: bool) -> Result<BranchView, ApiError> {
        Ok(BranchView {
            output_hash: self.payload_hash(self.state.output).await?,
            run_id: self.view.id,
            status: self.view.status,
            version: self.view.version,
            usage: self.view.usage,
            output: self.view.output.filter(|_| contents),
        })
    }
}
