//! Forks: new runs that inherit a prefix of another run's history and continue with changed inputs,
//! models, prompts or another graph version.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use bytes::Bytes;
use convergio_domain::decider::{Decider, RecordedEvent};
use convergio_domain::event::Event;
use convergio_domain::graph;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{GraphId, RunId};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::policy::fork_changes::{ForkChanges, ForkNodeChange};
use convergio_domain::request::derive_uuid;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{ForkRun, Run, RunCommand, RunState, check_fork_point, lineage};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::{LoadedStream, Payload, StreamHead};
use convergio_schemas::wire::{ForkAccepted, ForkOrigin, ForkRequest, NodeChange, Problem};
use serde_json::{Map, Value};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::body::{json_payload, read_optional_body};
use super::graphs::store_derived_version;
use super::run_lookup::{load_manifest, run_stream};
use crate::idempotency;
use crate::identity::Identity;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, Caller, Gateway};

/// The route that forks a run.
pub(crate) fn fork_routes() -> ApiRoutes {
    OpenApiRouter::new().routes(routes!(fork_run))
}

/// Begins a new run with the history of another one up to an event: with other inputs, another
/// model, other prompts, or another version of the graph. What is inherited costs nothing.
#[utoipa::path(post, path = "/v1/runs/{id}/fork", tag = "runs", params(
    ("id" = String, Path, description = "The run"),
), request_body = Option<ForkRequest>, responses(
    (status = 202, description = "The new run will be executed", body = ForkAccepted),
    (status = 400, description = "There is no such event, or a change is not valid",
        body = Problem),
    (status = 404, description = "There is no such run or version", body = Problem),
    (status = 409, description = "The run had ended there", body = Problem),
    (status = 413, description = "The inputs are too large", body = Problem),
))]
async fn fork_run(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<ForkAccepted>), ApiError> {
    let stream = run_stream(&caller, &id)?;
    let request: ForkRequest = read_optional_body(&body)?;
    let accepted = begin_fork(&gateway, &caller, &headers, &stream, request).await?;
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// Forks a run, or returns the fork that the same key has created.
pub(super) async fn begin_fork(
    gateway: &Gateway,
    caller: &Identity,
    headers: &HeaderMap,
    parent: &StreamKey,
    request: ForkRequest,
) -> Result<ForkAccepted, ApiError> {
    let hashed_body = serde_json::to_vec(&request).unwrap_or_default();
    let scope = format!("POST /v1/runs/{}/fork", parent.id);
    // Derived from the key, so that a repetition finds the fork and creates no second one.
    let run = match idempotency::idempotency_key(headers)? {
        Some(key) => RunId(derive_uuid(&["fork/v1", caller.tenant.as_str(), &scope, key])),
        None => RunId(Uuid::now_v7()),
    };
    let request_hash = idempotency::request_hash(&scope, &hashed_body);
    if let Some(state) = idempotency::find_run(gateway, caller, run, &request_hash).await? {
        return to_fork_accepted(run, parent, &state);
    }
    let mut point = load_fork_point(gateway, parent, request.at).await?;
    // Rejects before anything is written.
    let plan =
        ForkPlan::from_request(gateway, caller, parent, &point.loaded.state, request).await?;
    let command = ForkRun {
        parent: RunId(parent.id),
        seq: point.head.seq,
        hash: point.head.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        fingerprint: point.loaded.state.refresh_fingerprint(),
        graph: plan.graph,
        version: plan.manifest.compute_version(),
        input: plan.input.as_ref().map(|_| PayloadSlot(0)),
        budget: plan.manifest.budget,
        changes: plan.changes,
        request_hash,
        is_parent_imported: is_imported(gateway, parent).await?,
    };
    if plan.is_changed_graph {
        // Checked before the version is stored: a graph that cannot continue leaves no trace.
        check_graph_continues(gateway, &point.loaded.state, &command, &plan.manifest).await?;
        store_derived_version(gateway, caller, plan.graph, &plan.manifest).await?;
    }
    // The parent's payloads are not copied: references resolve through the lineage.
    let payloads: Vec<Payload> = plan.input.into_iter().collect();
    let stream = StreamKey::for_run(caller.tenant.clone(), run);
    let context = gateway.decision_context(caller);
    let commands = |_: &_, _| (RunCommand::Fork(command.clone()), payloads.clone());
    let created = gateway.repository.execute_from(point.loaded, &stream, &context, commands);
    to_fork_accepted(run, parent, &created.await?.state)
}

/// Returns whether a run is an import. The marker is the last event of an imported run, and nothing
/// follows it.
async fn is_imported(gateway: &Gateway, run: &StreamKey) -> Result<bool, ApiError> {
    let log = gateway.repository.event_log();
    let Some(end) = log.stream_head(run).await? else { return Ok(false) };
    let last = log.read_stream(run, Seq(end.seq.0.saturating_sub(1)), 1).await?;
    let events = last.iter().flat_map(|record| &record.body.events);
    Ok(events.into_iter().any(|event| matches!(event, Event::Run(RunEvent::RunImported(_)))))
}

/// Builds the answer from the fork's own state, so that repetitions get the same.
fn to_fork_accepted(
    run: RunId,
    parent: &StreamKey,
    state: &RunState,
) -> Result<ForkAccepted, ApiError> {
    let (graph, version) = state.graph.as_ref().ok_or_else(|| ApiError::not_found("run"))?;
    // Lineage counts over the whole history, the answer over the parent's own events.
    let mut ancestors = state.lineage.iter().rev().map(|ancestor| ancestor.upto.0);
    let (upto, before) = (ancestors.next().unwrap_or(0), ancestors.next().unwrap_or(0));
    Ok(ForkAccepted {
        run_id: run.to_string(),
        graph_id: graph.to_string(),
        version: version.to_string(),
        forked_from: ForkOrigin { run_id: parent.id.to_string(), seq: upto - before },
    })
}

/// The event that a fork begins after, with the parent's state there.
struct ForkPoint {
    loaded: LoadedStream<Run>,
    head: StreamHead,
}

async fn load_fork_point(
    gateway: &Gateway,
    parent: &StreamKey,
    at: Option<u64>,
) -> Result<ForkPoint, ApiError> {
    let end = gateway.repository.event_log().stream_head(parent).await?;
    let events = end.ok_or_else(|| ApiError::not_found("run"))?.seq.0;
    let at = at.unwrap_or(events);
    let no_such_event =
        || ApiError::invalid_request(format!("the run has {events} events: no event {at}"));
    if at == 0 || at > events {
        return Err(no_such_event());
    }
    let loaded = gateway.repository.load_at::<Run>(parent, Seq(at), true).await?;
    let loaded = loaded.ok_or_else(no_such_event)?;
    let head = loaded.head.ok_or_else(no_such_event)?;
    check_fork_point(&loaded.state)?;
    Ok(ForkPoint { loaded, head })
}

/// The differences of a fork from its parent.
struct ForkPlan {
    graph: GraphId,
    manifest: Graph,
    /// True if the fork runs another version than its parent.
    is_changed_graph: bool,
    /// Changed inputs; `None` inherits the parent's.
    input: Option<Payload>,
    /// Names of all changes, for the fork's first event.
    changes: Vec<String>,
}

impl ForkPlan {
    async fn from_request(
        gateway: &Gateway,
        caller: &Identity,
        parent: &StreamKey,
        state: &RunState,
        request: ForkRequest,
    ) -> Result<Self, ApiError> {
        let Some((graph, version)) = state.graph.clone() else {
            return Err(ApiError::not_found("run"));
        };
        let ForkRequest { inputs, manifest: text, version: other, model, nodes, .. } = request;
        let mut changes = Vec::new();
        let mut base = match (text, &other) {
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid_request(
                    "`manifest` and `version` exclude each other",
                ));
            }
            (Some(text), None) => {
                changes.push("graph".to_owned());
                gateway.parse_manifest(caller, &text).await?.graph
            }
            (None, other) => {
                changes.extend(other.as_ref().map(|_| "graph".to_owned()));
                let wanted_version = other.as_deref().unwrap_or(version.as_str());
                load_manifest(gateway, caller, graph, Some(wanted_version)).await?.1
            }
        };
        let graph = match graph::graph_id(&caller.tenant, &base.name) {
            // A graph of the compatible API has an id of its own; an unchanged graph keeps its id.
            _ if changes.is_empty() => graph,
            id => id,
        };
        let nodes = nodes.into_iter().map(|(name, change)| {
            let NodeChange { model, prompt, system } = change;
            (name, ForkNodeChange { model, prompt, system })
        });
        let node_changes = ForkChanges { model, nodes: nodes.collect() }.apply_to(&mut base);
        changes.extend(
            node_changes.map_err(|invalid| ApiError::invalid_request(invalid.to_string()))?,
        );
        // Against the new graph's schema, with the changes of models and prompts already applied.
        let input =
            changed_input((gateway, caller), parent, state, &base, inputs, &mut changes).await?;
        let is_other_graph = base.compute_version() != version;
        Ok(Self { graph, manifest: base, is_changed_graph: is_other_graph, input, changes })
    }
}

/// Merges changed inputs into the parent's; `None` if nothing changes.
async fn changed_input(
    (gateway, caller): (&Gateway, &Identity),
    parent: &StreamKey,
    state: &RunState,
    graph: &Graph,
    inputs: std::collections::BTreeMap<String, Value>,
    changes: &mut Vec<String>,
) -> Result<Option<Payload>, ApiError> {
    let Some(reference) = state.input else { return Ok(None) };
    let (stream, own_reference) = lineage::locate_payload(&state.lineage, parent, reference);
    let bytes = gateway.repository.read_payload(&stream, own_reference).await?;
    let bytes = bytes.ok_or_else(|| ApiError::not_found("inputs: they were erased"))?;
    let mut merged_inputs: Map<String, Value> = serde_json::from_slice(&bytes).unwrap_or_default();
    let is_other = !inputs.is_empty();
    for (name, value) in inputs {
        changes.push(format!("inputs.{name}"));
        merged_inputs.insert(name, value);
    }
    // Validated even when unchanged: another version may have another schema.
    let merged_inputs = Value::Object(merged_inputs);
    gateway.check_inputs(caller, &graph.inputs, &merged_inputs).await?;
    is_other.then(|| json_payload(&merged_inputs, PayloadPurpose::Input)).transpose()
}

/// Rejects a graph that cannot continue from the inherited state. The fork's events are decided and
/// folded here without being appended.
async fn check_graph_continues(
    gateway: &Gateway,
    parent: &RunState,
    command: &ForkRun,
    graph: &Graph,
) -> Result<(), ApiError> {
    let context = convergio_domain::decider::DecisionContext {
        now: gateway.repository.clock().now(),
        actor: "fork".parse().map_err(|_| ApiError::invalid_request("no actor"))?,
    };
    let command = RunCommand::Fork(command.clone());
    // Never appended, so the sequence number and the actor are placeholders.
    let events = Run::decide(&RunState::default(), command, &context, Seq(1))?;
    let mut state = parent.clone();
    for event in &events {
        Run::evolve(&mut state, RecordedEvent { seq: Seq(1), time: context.now, event });
    }
    gateway.replayer.check_state_fits(&state, graph).map_err(|why| {
        ApiError::invalid_request(format!("the changed graph cannot go on from that event: {why}"))
    })
}
