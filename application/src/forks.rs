//! Forks: new runs that inherit a prefix of another run's history and continue with changed inputs,
//! models, prompts or another graph version.

use std::collections::BTreeMap;

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
use convergio_eventstore::{LoadedStream, LogError, Payload, StreamHead};
use convergio_schemas::wire::{ForkAccepted, ForkOrigin, ForkRequest, NodeChange};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::caller::Caller;
use crate::error::UseCaseError;
use crate::idempotency::request_hash;
use crate::payload::value_payload;
use crate::use_cases::{GraphUseCases, UseCases};

impl GraphUseCases<'_> {
    /// Forks a run, or returns the fork that the same key has created.
    ///
    /// # Errors
    /// There is no such event, a change is not valid, or the log does not take the fork.
    pub async fn fork_run(
        self,
        caller: &Caller,
        parent: RunId,
        request: ForkRequest,
    ) -> Result<ForkAccepted, UseCaseError> {
        let hashed_body = serde_json::to_vec(&request).unwrap_or_default();
        // The text is that of the first interface: ids of forks and their hashes derive from it.
        let scope = format!("POST /v1/runs/{parent}/fork");
        // Derived from the key, so that a repetition finds the fork and creates no second one.
        let run = RunId(match &caller.key {
            Some(key) => derive_uuid(&["fork/v1", caller.tenant.as_str(), &scope, key.as_str()]),
            None => Uuid::now_v7(),
        });
        let request_hash = request_hash(&scope, &hashed_body);
        if let Some(state) = self.log.find_run(caller, run, &request_hash).await? {
            return to_fork_accepted(run, parent, &state);
        }
        let parent_stream = caller.run_stream(parent);
        let mut point = self.log.load_fork_point(&parent_stream, request.at).await?;
        // Rejects before anything is written.
        let plan = self.plan_fork(caller, &parent_stream, &point.loaded.state, request).await?;
        let command = ForkRun {
            parent,
            seq: point.head.seq,
            hash: point.head.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            fingerprint: point.loaded.state.refresh_fingerprint(),
            graph: plan.graph,
            version: plan.manifest.compute_version(),
            input: plan.input.as_ref().map(|_| PayloadSlot(0)),
            budget: plan.manifest.budget,
            changes: plan.changes,
            request_hash,
            is_parent_imported: self.log.is_imported(&parent_stream).await?,
        };
        if plan.is_changed_graph {
            // Checked before the version is stored: a graph that cannot continue leaves no trace.
            self.check_graph_continues(caller, &point.loaded.state, &command, &plan.manifest)?;
            self.log.register_derived_graph(caller, plan.graph, &plan.manifest).await?;
        }
        // The parent's payloads are not copied: references resolve through the lineage.
        let payloads: Vec<Payload> = plan.input.into_iter().collect();
        let (stream, context) = (caller.run_stream(run), self.log.decision_context(caller));
        let commands = |_: &_, _| (RunCommand::Fork(command.clone()), payloads.clone());
        let repository = self.log.repository;
        let created = repository.execute_from(point.loaded, &stream, &context, commands).await?;
        to_fork_accepted(run, parent, &created.state)
    }
}

impl UseCases<'_> {
    /// Returns whether a run is an import. The marker is the last event of an imported run, and
    /// nothing follows it.
    async fn is_imported(self, run: &StreamKey) -> Result<bool, LogError> {
        let log = self.repository.event_log();
        let Some(end) = log.stream_head(run).await? else { return Ok(false) };
        let last = log.read_stream(run, Seq(end.seq.0.saturating_sub(1)), 1).await?;
        let events = last.iter().flat_map(|record| &record.body.events);
        Ok(events.into_iter().any(|event| matches!(event, Event::Run(RunEvent::RunImported(_)))))
    }

    async fn load_fork_point(
        self,
        parent: &StreamKey,
        at: Option<u64>,
    ) -> Result<ForkPoint, UseCaseError> {
        let end = self.repository.event_log().stream_head(parent).await?;
        let events = end.ok_or(UseCaseError::NotFound("run"))?.seq.0;
        let at = at.unwrap_or(events);
        let no_such_event =
            || UseCaseError::Invalid(format!("the run has {events} events: no event {at}"));
        if at == 0 || at > events {
            return Err(no_such_event());
        }
        let loaded = self.repository.load_at::<Run>(parent, Seq(at), true).await?;
        let loaded = loaded.ok_or_else(no_such_event)?;
        let head = loaded.head.ok_or_else(no_such_event)?;
        check_fork_point(&loaded.state)?;
        Ok(ForkPoint { loaded, head })
    }
}

/// Builds the answer from the fork's own state, so that repetitions get the same.
fn to_fork_accepted(
    run: RunId,
    parent: RunId,
    state: &RunState,
) -> Result<ForkAccepted, UseCaseError> {
    let (graph, version) = state.graph.as_ref().ok_or(UseCaseError::NotFound("run"))?;
    // Lineage counts over the whole history, the answer over the parent's own events.
    let mut ancestors = state.lineage.iter().rev().map(|ancestor| ancestor.upto.0);
    let (upto, before) = (ancestors.next().unwrap_or(0), ancestors.next().unwrap_or(0));
    Ok(ForkAccepted {
        run_id: run.to_string(),
        graph_id: graph.to_string(),
        version: version.to_string(),
        forked_from: ForkOrigin { run_id: parent.to_string(), seq: upto - before },
    })
}

/// The event that a fork begins after, with the parent's state there.
struct ForkPoint {
    loaded: LoadedStream<Run>,
    head: StreamHead,
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

impl GraphUseCases<'_> {
    async fn plan_fork(
        self,
        caller: &Caller,
        parent: &StreamKey,
        state: &RunState,
        request: ForkRequest,
    ) -> Result<ForkPlan, UseCaseError> {
        let Some((graph, version)) = state.graph.clone() else {
            return Err(UseCaseError::NotFound("run"));
        };
        let ForkRequest { inputs, manifest: text, version: other, model, nodes, .. } = request;
        let mut changes = Vec::new();
        let mut base = match (text, &other) {
            (Some(_), Some(_)) => {
                let detail = "`manifest` and `version` exclude each other";
                return Err(UseCaseError::Invalid(detail.to_owned()));
            }
            (Some(text), None) => {
                changes.push("graph".to_owned());
                self.parse_manifest(caller, &text).await?.graph
            }
            (None, other) => {
                changes.extend(other.as_ref().map(|_| "graph".to_owned()));
                let wanted_version = other.as_deref().unwrap_or(version.as_str());
                self.log.load_manifest(&caller.tenant, graph, Some(wanted_version)).await?.1
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
        changes.extend(node_changes.map_err(|invalid| UseCaseError::Invalid(invalid.to_string()))?);
        // Against the new graph's schema, with the changes of models and prompts already applied.
        let input = self.change_input(caller, parent, state, &base, inputs, &mut changes).await?;
        let is_changed_graph = base.compute_version() != version;
        Ok(ForkPlan { graph, manifest: base, is_changed_graph, input, changes })
    }

    /// Merges changed inputs into the parent's; `None` if nothing changes.
    async fn change_input(
        self,
        caller: &Caller,
        parent: &StreamKey,
        state: &RunState,
        graph: &Graph,
        inputs: BTreeMap<String, Value>,
        changes: &mut Vec<String>,
    ) -> Result<Option<Payload>, UseCaseError> {
        let Some(reference) = state.input else { return Ok(None) };
        let (stream, own_reference) = lineage::locate_payload(&state.lineage, parent, reference);
        let bytes = self.log.repository.read_payload(&stream, own_reference).await?;
        let bytes = bytes.ok_or(UseCaseError::NotFound("inputs: they were erased"))?;
        let mut merged_inputs: Map<String, Value> =
            serde_json::from_slice(&bytes).unwrap_or_default();
        let is_other = !inputs.is_empty();
        for (name, value) in inputs {
            changes.push(format!("inputs.{name}"));
            merged_inputs.insert(name, value);
        }
        // Validated even when unchanged: another version may have another schema.
        let merged_inputs = Value::Object(merged_inputs);
        self.check_inputs(caller, &graph.inputs, &merged_inputs).await?;
        is_other.then(|| value_payload(&merged_inputs, PayloadPurpose::Input)).transpose()
    }

    /// Rejects a graph that cannot continue from the inherited state. The fork's events are decided
    /// and folded here without being appended.
    fn check_graph_continues(
        self,
        caller: &Caller,
        parent: &RunState,
        command: &ForkRun,
        graph: &Graph,
    ) -> Result<(), UseCaseError> {
        let context = self.log.decision_context(caller);
        let command = RunCommand::Fork(command.clone());
        // Never appended, so the sequence number is a placeholder.
        let events = Run::decide(&RunState::default(), command, &context, Seq(1))?;
        let mut state = parent.clone();
        for event in &events {
            Run::evolve(&mut state, RecordedEvent { seq: Seq(1), time: context.now, event });
        }
        self.replayer.check_state_fits(&state, graph).map_err(|why| {
            let detail = format!("the changed graph cannot go on from that event: {why}");
            UseCaseError::Invalid(detail)
        })
    }
}
