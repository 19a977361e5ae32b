//! Child runs: creating and cancelling them, and reporting their end to the parent run. Every
//! operation here is idempotent, since a crash may repeat it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convergio_domain::failure::{FailureDetail, FailureReport, UnsealedFailure};
use convergio_domain::graph::manifest::{Graph, NodeWork};
use convergio_domain::graph::{GraphNoun, RegisterGraph};
use convergio_domain::id::{AgentId, GraphId, GraphVersion, RunId, StepId};
use convergio_domain::money::Money;
use convergio_domain::payload::{PayloadPurpose, PayloadRef, PayloadSlot};
use convergio_domain::platform_text;
use convergio_domain::run::{
    Budget, ChildIntent, ChildReport, CreateRun, DEPTH_LIMIT, FamilyCommand, Provenance, Run,
    RunChild, RunCommand, RunOrigin, RunPhase, RunRejection, RunState, ToolCallNumber,
    child_run_id,
};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{CommitError, LoadedStream, LogError, Payload};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::commit_plan::CommitPlan;
use super::effect::{EffectLaunch, EffectOutcome, EffectWork, new_failure};
use super::reopen::{align_child, is_child_check_due};
use super::{Actor, ActorError, SharedServices};
use crate::failures::{detail_payload, seal_failure};
use crate::outputs::OutputError;

/// Delay before an unavailable log is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// A child run that is about to be created.
pub(super) struct NewChild {
    pub(super) run: RunId,
    pub(super) child: RunChild,
    origin: RunOrigin,
}

/// Graph of a child run.
pub(super) struct ChildGraph<'a> {
    pub(super) graph: GraphId,
    pub(super) version: GraphVersion,
    pub(super) manifest: &'a Graph,
    pub(super) agent: Option<AgentId>,
    /// True if the graph must be registered first.
    pub(super) is_new: bool,
}

/// Inputs, budget and place of a child run.
pub(super) struct ChildSpec {
    pub(super) step: StepId,
    pub(super) attempt: u32,
    pub(super) tool_call: Option<ToolCallNumber>,
    pub(super) inputs: Value,
    /// Limit that the caller sets on the child's budget.
    pub(super) budget: Budget,
    /// Parts into which the remaining budget is divided.
    pub(super) budget_shares: u64,
    pub(super) privacy: convergio_domain::chat::Privacy,
}

impl Actor {
    /// Creates open child runs that do not exist, because an executor died first, and reopens or
    /// resumes those that must go on with this run.
    pub(super) async fn ensure_children(&mut self) -> Result<(), ActorError> {
        if self.run.state.phase.is_ended() {
            return Ok(());
        }
        let open: Vec<(RunId, RunChild)> =
            self.run.state.open_children().map(|(run, child)| (*run, child.clone())).collect();
        let (log, now) = (self.shared.repository.event_log(), self.shared.current_time());
        let mut checked_runs = Vec::new();
        for (run, child) in open {
            // A child without a check time is known to exist.
            let Some(check_at) = child.look else { continue };
            checked_runs.extend((check_at <= now).then_some(run));
            let stream = StreamKey::for_run(self.run.stream.tenant.clone(), run);
            let exists = log.stream_head(&stream).await?.is_some();
            // A child past its check time is visited even if it exists: it may wait to go on.
            if !exists || check_at <= now {
                let (shared, parent) = (Arc::clone(&self.shared), self.run.stream.clone());
                let new_child =
                    NewChild { run, origin: child_origin(&self.run, &child.step), child };
                // Boxed, as all that few runs need: the future of every run is moved whole.
                Box::pin(create_child(&shared, &parent, new_child, &shared.abandon_token)).await;
            }
        }
        Box::pin(self.confirm_created(checked_runs)).await
    }

    /// Ensures the child runs if a check of one is due, after another writer changed the run.
    pub(super) async fn ensure_due_children(&mut self) -> Result<(), ActorError> {
        if is_child_check_due(&self.run.state, self.shared.current_time()) {
            self.ensure_children().await?;
        }
        Ok(())
    }

    /// Records child runs that exist, so that they are not checked again.
    async fn confirm_created(&mut self, children: Vec<RunId>) -> Result<(), ActorError> {
        if children.is_empty() {
            return Ok(());
        }
        let (command, context) =
            (RunCommand::ChildrenCreated(children), self.shared.command_context());
        let repository = &self.shared.repository;
        match repository.commit(&mut self.run, command, Vec::new(), &context).await {
            // Another writer was first: the next check records it.
            Ok(_) | Err(CommitError::Conflict) => self.rebuild_derived(),
            Err(error) => Err(error.into()),
        }
    }

    /// Prepares a child run: checks its inputs, stores its payloads and returns its intent and
    /// effect. A failure says why the run is not possible.
    pub(super) async fn prepare_child(
        &self,
        plan: &mut CommitPlan,
        child_graph: &ChildGraph<'_>,
        child_spec: ChildSpec,
    ) -> Result<(ChildIntent, EffectLaunch), OutputError> {
        let mistakes = self.check_schema(&child_graph.manifest.inputs, &child_spec.inputs).await?;
        if !mistakes.is_empty() {
            let message = platform_text!(
                "the inputs do not fit what the graph takes: {} mistakes",
                mistakes.len()
            );
            let error = new_failure("request.invalid", message).with_detail(mistakes.join("; "));
            return Err(OutputError::Failure(error));
        }
        self.child_intent(plan, child_graph, child_spec).map_err(OutputError::Failure)
    }

    fn child_intent(
        &self,
        plan: &mut CommitPlan,
        child_graph: &ChildGraph<'_>,
        child_spec: ChildSpec,
    ) -> Result<(ChildIntent, EffectLaunch), UnsealedFailure> {
        let state = &self.run.state;
        if state.nesting_depth() + 1 > DEPTH_LIMIT {
            let message = platform_text!("runs within runs go {} deep at most", DEPTH_LIMIT);
            return Err(new_failure("agent.limit", message));
        }
        // What the child may spend is taken from the parent's rest, so the sum never exceeds its
        // budget.
        let budget_left = state.child_budget(
            plan.budget_usage,
            child_spec.budget_shares,
            self.shared.current_time(),
        );
        let budget =
            budget_left.narrowed_by(child_graph.manifest.budget).narrowed_by(child_spec.budget);
        if budget.tokens == Some(0) {
            let message =
                platform_text!("nothing is left of budget.tokens for a run within: raise it");
            return Err(new_failure("budget.exceeded", message));
        }
        let ChildSpec { step, attempt, tool_call, inputs, privacy, .. } = child_spec;
        // Serialising a JSON value into memory cannot fail: its keys are strings.
        let input = serde_json::to_vec(&inputs).unwrap_or_default();
        let input = plan.store_payload(input, "application/json", PayloadPurpose::Input);
        let manifest = child_graph.is_new.then(|| child_graph.manifest.canonical_manifest());
        let manifest =
            manifest.map(|m| plan.store_payload(m, "application/json", PayloadPurpose::Manifest));
        plan.hold_budget(budget.tokens.unwrap_or(0), budget.cost.unwrap_or_default());
        let child = child_run_id(RunId(self.run.stream.id), &step, attempt, tool_call);
        let intent = ChildIntent {
            tool_call,
            child,
            graph: child_graph.graph,
            version: child_graph.version.clone(),
            input,
            manifest,
            budget,
            // A child may be stricter about privacy than its parent, never less strict.
            privacy: privacy.max(self.effective_privacy()),
            agent: child_graph.agent,
        };
        // The effect reads the child from the state, once the intent is folded into it.
        let launch = EffectLaunch {
            step,
            attempt,
            tool_call,
            timeout: Duration::MAX,
            work: EffectWork::Child(child),
        };
        Ok((intent, launch))
    }

    /// Returns the child run of an effect, as its durable intent describes it.
    pub(super) fn new_child(&self, run: RunId) -> Option<Box<NewChild>> {
        let child = self.run.state.children.get(&run)?.clone();
        let origin = child_origin(&self.run, &child.step);
        Some(Box::new(NewChild { run, child, origin }))
    }

    /// Counts the nodes that may still call a model: they share the remaining budget.
    pub(super) fn budget_claimants(&self) -> u64 {
        let may_spend = |node: &&convergio_domain::graph::manifest::GraphNode| {
            let asks = match &node.work {
                NodeWork::Agent(_) | NodeWork::Graph(_) | NodeWork::Plan(_) => true,
                NodeWork::Map(map) => {
                    matches!(map.work, convergio_domain::graph::manifest::MapWork::Agent(_))
                }
                _ => false,
            };
            asks && !self.run.state.node_step(&node.id).is_some_and(|step| step.is_ended())
        };
        self.graph.graph.nodes.iter().filter(may_spend).count() as u64
    }
}

fn child_origin(run: &LoadedStream<Run>, step: &StepId) -> RunOrigin {
    RunOrigin {
        run: RunId(run.stream.id),
        step: step.clone(),
        depth: run.state.nesting_depth() + 1,
    }
}

/// Creates a child run, or lets it go on, and retries until the log takes it. A child that can
/// never be created is reported as failed before it started.
pub(super) async fn create_child(
    shared: &SharedServices,
    parent: &StreamKey,
    new_child: NewChild,
    cancel: &CancellationToken,
) -> EffectOutcome {
    loop {
        let error = match try_create_child(shared, parent, &new_child).await {
            Ok(()) => return EffectOutcome::ChildCreated,
            Err(error) => error,
        };
        // A failure that no retry cures is reported; an unavailable log is waited for.
        if let Some(failure) = error.fatal_failure() {
            let (failure, payloads) = seal_failure(failure);
            match report_to_parent(
                shared,
                parent,
                never_started_report(new_child.run, failure),
                payloads,
            )
            .await
            {
                Ok(()) => return EffectOutcome::ChildCreated,
                Err(error) => tracing::warn!(stream = %parent, %error, "a run within"),
            }
        } else {
            tracing::warn!(stream = %parent, %error, "a run within cannot be created now");
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_DELAY) => {}
            () = cancel.cancelled() => return EffectOutcome::ChildCreated,
        }
    }
}

/// Builds the report of a child that failed before it started.
fn never_started_report(child: RunId, error: FailureReport) -> ChildReport {
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

async fn try_create_child(
    shared: &SharedServices,
    parent: &StreamKey,
    new_child: &NewChild,
) -> Result<(), ActorError> {
    let child = &new_child.child;
    let stream = StreamKey::for_run(parent.tenant.clone(), new_child.run);
    // It exists: a crash came between the creation and its record, or the child must go on.
    if shared.repository.event_log().stream_head(&stream).await?.is_some() {
        return align_child(shared, parent, new_child).await;
    }
    if let Some(manifest) = child.manifest {
        register_child_graph(shared, parent, child, manifest).await?;
    }
    let input =
        json_payload(read_payload(shared, parent, child.input).await?, PayloadPurpose::Input);
    let lineage = Provenance { origin: Some(new_child.origin.clone()), agent: child.agent };
    let create = CreateRun {
        graph: child.graph,
        version: child.version.clone(),
        input: PayloadSlot(0),
        budget: child.budget,
        privacy: child.privacy,
        // A repeated creation has the same id and hash, and is a no-op.
        request_hash: format!("{}/{}", new_child.origin.run, new_child.origin.step),
        provenance: lineage,
    };
    let command = |_: &_, _| (RunCommand::Create(create.clone()), vec![input.clone()]);
    shared.repository.execute::<Run>(&stream, &shared.command_context(), command).await?;
    Ok(())
}

/// Registers a proposed graph, whose manifest the parent stored with its intent.
async fn register_child_graph(
    shared: &SharedServices,
    parent: &StreamKey,
    child: &RunChild,
    manifest: PayloadRef,
) -> Result<(), ActorError> {
    let bytes = read_payload(shared, parent, manifest).await?;
    let graph: Graph = serde_json::from_slice(&bytes).map_err(|error| {
        let message = platform_text!("the stored manifest cannot be read");
        ActorError::Failure(new_failure("internal", message).with_cause(error))
    })?;
    let register = RegisterGraph {
        name: graph.name,
        version: child.version.clone(),
        nodes: u32::try_from(graph.nodes.len()).unwrap_or(u32::MAX),
        manifest: PayloadSlot(0),
        is_derived: false,
    };
    let manifest = json_payload(bytes, PayloadPurpose::Manifest);
    let stream = StreamKey::for_graph(parent.tenant.clone(), child.graph);
    let command = |_: &_, _| (register.clone(), vec![manifest.clone()]);
    let registered =
        shared.repository.execute::<GraphNoun>(&stream, &shared.command_context(), command).await;
    match registered {
        Ok(_) => Ok(()),
        Err(CommitError::Append(error)) => Err(error.into()),
        Err(CommitError::Log(error)) => Err(error.into()),
        Err(CommitError::Conflict | CommitError::Rejected(_)) => Err(ActorError::Conflict),
    }
}

async fn read_payload(
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

fn json_payload(bytes: Bytes, purpose: PayloadPurpose) -> Payload {
    Payload { bytes, media_type: "application/json".into(), purpose, subject: None }
}

/// Settles an ended run with its relatives: cancels open child runs and, once all have ended,
/// reports the end to the parent.
pub(crate) async fn settle_family(
    shared: &SharedServices,
    run: &mut LoadedStream<Run>,
) -> Result<(), ActorError> {
    if !run.state.phase.is_ended() || !run.state.has_open_obligations() {
        return Ok(());
    }
    let open: Vec<RunId> = run.state.open_children().map(|(child, _)| *child).collect();
    for child in &open {
        Box::pin(cancel_child(shared, run, *child)).await?;
    }
    let Some(origin) = run.state.origin.clone() else { return Ok(()) };
    // The report must have the total: tokens still held are not settled yet.
    if !open.is_empty() || run.state.spent.reserved_tokens > 0 {
        return Ok(());
    }
    let (end_report, output) = child_report(shared, run).await?;
    let parent = StreamKey::for_run(run.stream.tenant.clone(), origin.run);
    match Box::pin(report_to_parent(shared, &parent, end_report, output)).await {
        // A parent that does not know this run needs no report.
        Ok(()) | Err(ActorError::Rejected(_)) => {}
        Err(error) => return Err(error),
    }
    record_parent_notified(shared, run).await
}

/// Records that the parent was notified. Others may still write to an ended run, so the command is
/// retried after them.
async fn record_parent_notified(
    shared: &SharedServices,
    run: &mut LoadedStream<Run>,
) -> Result<(), ActorError> {
    let (command, context) =
        (|_: &_, _| (RunCommand::ParentTold, Vec::new()), shared.command_context());
    shared.repository.execute_on(run, &context, command).await.map_err(ActorError::from)
}

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
            Ok(bytes) => output = Some(json_payload(bytes, PayloadPurpose::Output)),
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

/// Cancels a child of an ended run. One that does not exist yet is created first, so that no
/// executor creates it later.
async fn cancel_child(
    shared: &SharedServices,
    run: &LoadedStream<Run>,
    child: RunId,
) -> Result<(), ActorError> {
    let stream = StreamKey::for_run(run.stream.tenant.clone(), child);
    let command = |_: &_, _| (RunCommand::Inherit(FamilyCommand::Cancel), Vec::new());
    let cancelled =
        shared.repository.submit_command::<Run>(&stream, &shared.command_context(), command).await;
    match cancelled.map_err(ActorError::from) {
        // An ended child needs no cancellation.
        Ok(_) | Err(ActorError::Rejected(RunRejection::Ended(_))) => Ok(()),
        Err(ActorError::Rejected(RunRejection::NotFound)) => {
            let Some(known_child) = run.state.children.get(&child) else { return Ok(()) };
            let origin = child_origin(run, &known_child.step);
            let new_child = NewChild { run: child, child: known_child.clone(), origin };
            create_child(shared, &run.stream, new_child, &shared.abandon_token).await;
            let again = shared
                .repository
                .submit_command::<Run>(&stream, &shared.command_context(), command)
                .await;
            match again.map_err(ActorError::from) {
                Ok(_) | Err(ActorError::Rejected(_)) => Ok(()),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// Finds a registered graph by name, in the given version or the latest one.
pub(super) async fn find_registered_graph(
    shared: &SharedServices,
    stream: &StreamKey,
    name: &str,
    version: Option<&GraphVersion>,
) -> Result<Result<(GraphId, GraphVersion), UnsealedFailure>, LogError> {
    let id = convergio_domain::graph::graph_id(&stream.tenant, name);
    let stream = StreamKey::for_graph(stream.tenant.clone(), id);
    let loaded = shared.repository.load::<GraphNoun>(&stream).await?;
    let registered_version = match version {
        Some(version) => loaded.state.versions.get_key_value(version).map(|(known, _)| known),
        None => loaded.state.latest.as_ref(),
    };
    Ok(registered_version.map(|version| (id, version.clone())).ok_or_else(|| {
        let (message, detail) = match version {
            Some(version) => (
                platform_text!("the graph has no version {}: register it first", version),
                format!("graph `{name}` has no version {version}: register it first"),
            ),
            None => (
                platform_text!("there is no such graph: register it first"),
                format!("there is no graph `{name}`: register it first"),
            ),
        };
        new_failure("graph.invalid", message).with_detail(detail)
    }))
}
