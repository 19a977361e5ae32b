//! Child runs: creating and cancelling them, and reporting their end to the parent run. Every
//! operation here is idempotent, since a crash may repeat it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convergio_domain::failure::{Detail, FailureReport, UnsealedFailure};
use convergio_domain::graph::manifest::{Graph, Work as NodeWork};
use convergio_domain::graph::{GraphNoun, Register};
use convergio_domain::id::{AgentId, GraphId, GraphVersion, RunId, StepId};
use convergio_domain::money::Money;
use convergio_domain::payload::{PayloadRef, PayloadSlot, Purpose};
use convergio_domain::platform_text;
use convergio_domain::run::{
    Budget, CallNo, Child, ChildIntent, ChildReport, CreateRun, DEPTH_LIMIT, FamilyCommand,
    Lineage, Origin, Phase, Rejection, Run, RunCommand, RunState, child_run_id,
};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{CommitError, Loaded, LogError, Payload};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::effect::{DoneResult, Launch, Work, failure};
use super::plan::Plan;
use super::reopen::{align, is_look_due};
use super::{Actor, ActorError, Shared};
use crate::failures::{detail_payload, seal_failure};
use crate::outputs::OutputError;

/// Delay before an unavailable log is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// A child run that is about to be created.
pub(super) struct NewChild {
    pub(super) run: RunId,
    pub(super) child: Child,
    origin: Origin,
}

/// Graph of a child run.
pub(super) struct Callee<'a> {
    pub(super) graph: GraphId,
    pub(super) version: GraphVersion,
    pub(super) manifest: &'a Graph,
    pub(super) agent: Option<AgentId>,
    /// True if the graph must be registered first.
    pub(super) is_new: bool,
}

/// Inputs, budget and place of a child run.
pub(super) struct Wanted {
    pub(super) step: StepId,
    pub(super) attempt: u32,
    pub(super) at: Option<CallNo>,
    pub(super) inputs: Value,
    /// Limit that the caller sets on the child's budget.
    pub(super) budget: Budget,
    /// Parts into which the remaining budget is divided.
    pub(super) shares: u64,
    pub(super) privacy: convergio_domain::chat::Privacy,
}

impl Actor {
    /// Creates open child runs that do not exist, because an executor died first, and reopens or
    /// resumes those that must go on with this run.
    pub(super) async fn ensure_children(&mut self) -> Result<(), ActorError> {
        if self.run.state.phase.is_ended() {
            return Ok(());
        }
        let open: Vec<(RunId, Child)> =
            self.run.state.open_children().map(|(run, child)| (*run, child.clone())).collect();
        let (log, now) = (self.shared.repository.log(), self.shared.now());
        let mut looked = Vec::new();
        for (run, child) in open {
            // A child without a check time is known to exist.
            let Some(look) = child.look else { continue };
            looked.extend((look <= now).then_some(run));
            let stream = StreamKey::run(self.run.stream.tenant.clone(), run);
            let exists = log.head(&stream).await?.is_some();
            // A child past its check time is visited even if it exists: it may wait to go on.
            if !exists || look <= now {
                let (shared, parent) = (Arc::clone(&self.shared), self.run.stream.clone());
                let new = NewChild { run, origin: origin(&self.run, &child.step), child };
                create(&shared, &parent, new, &shared.stopped).await;
            }
        }
        self.note_created(looked).await
    }

    /// Ensures the child runs if a check of one is due, after another writer changed the run.
    pub(super) async fn look_after_children(&mut self) -> Result<(), ActorError> {
        if is_look_due(&self.run.state, self.shared.now()) {
            self.ensure_children().await?;
        }
        Ok(())
    }

    /// Records child runs that exist, so that they are not checked again.
    async fn note_created(&mut self, children: Vec<RunId>) -> Result<(), ActorError> {
        if children.is_empty() {
            return Ok(());
        }
        let (command, context) = (RunCommand::ChildrenCreated(children), self.shared.context());
        let repository = &self.shared.repository;
        match repository.commit(&mut self.run, command, Vec::new(), &context).await {
            // Another writer was first: the next check records it.
            Ok(_) | Err(CommitError::Conflict) => self.rebuild(),
            Err(error) => Err(error.into()),
        }
    }

    /// Prepares a child run: checks its inputs, stores its payloads and returns its intent and
    /// effect. A failure says why the run is not possible.
    pub(super) async fn child(
        &self,
        plan: &mut Plan,
        callee: &Callee<'_>,
        wanted: Wanted,
    ) -> Result<(ChildIntent, Launch), OutputError> {
        let wrong = self.check(&callee.manifest.inputs, &wanted.inputs).await?;
        if !wrong.is_empty() {
            let message = platform_text!(
                "the inputs do not fit what the graph takes: {} mistakes",
                wrong.len()
            );
            let error = failure("request.invalid", message).with_detail(wrong.join("; "));
            return Err(OutputError::Failure(error));
        }
        self.child_intent(plan, callee, wanted).map_err(OutputError::Failure)
    }

    fn child_intent(
        &self,
        plan: &mut Plan,
        callee: &Callee<'_>,
        wanted: Wanted,
    ) -> Result<(ChildIntent, Launch), UnsealedFailure> {
        let state = &self.run.state;
        if state.depth() + 1 > DEPTH_LIMIT {
            let message = platform_text!("runs within runs go {} deep at most", DEPTH_LIMIT);
            return Err(failure("agent.limit", message));
        }
        // What the child may spend is taken from the parent's rest, so the sum never exceeds its
        // budget.
        let left = state.share(plan.spent, wanted.shares, self.shared.now());
        let budget = left.within(callee.manifest.budget).within(wanted.budget);
        if budget.tokens == Some(0) {
            let message =
                platform_text!("nothing is left of budget.tokens for a run within: raise it");
            return Err(failure("budget.exceeded", message));
        }
        let Wanted { step, attempt, at, inputs, privacy, .. } = wanted;
        // Serialising a JSON value into memory cannot fail: its keys are strings.
        let input = serde_json::to_vec(&inputs).unwrap_or_default();
        let input = plan.store(input, "application/json", Purpose::Input);
        let manifest = callee.is_new.then(|| callee.manifest.canonical());
        let manifest = manifest.map(|m| plan.store(m, "application/json", Purpose::Manifest));
        plan.hold(budget.tokens.unwrap_or(0), budget.cost.unwrap_or_default());
        let run = child_run_id(RunId(self.run.stream.id), &step, attempt, at);
        let intent = ChildIntent {
            at,
            child: run,
            graph: callee.graph,
            version: callee.version.clone(),
            input,
            manifest,
            budget,
            // A child may be stricter about privacy than its parent, never less strict.
            privacy: privacy.max(self.privacy()),
            agent: callee.agent,
        };
        // The effect reads the child from the state, once the intent is folded into it.
        let launch = Launch { step, attempt, at, timeout: Duration::MAX, work: Work::Child(run) };
        Ok((intent, launch))
    }

    /// Returns the child run of an effect, as its durable intent describes it.
    pub(super) fn new_child(&self, run: RunId) -> Option<Box<NewChild>> {
        let child = self.run.state.children.get(&run)?.clone();
        let origin = origin(&self.run, &child.step);
        Some(Box::new(NewChild { run, child, origin }))
    }

    /// Counts the nodes that may still call a model: they share the remaining budget.
    pub(super) fn spenders(&self) -> u64 {
        let may_spend = |node: &&convergio_domain::graph::manifest::Node| {
            let asks = match &node.work {
                NodeWork::Agent(_) | NodeWork::Graph(_) | NodeWork::Plan(_) => true,
                NodeWork::Map(map) => {
                    matches!(map.work, convergio_domain::graph::manifest::MapWork::Agent(_))
                }
                _ => false,
            };
            asks && !self.run.state.node(&node.id).is_some_and(|step| step.is_ended())
        };
        self.graph.graph.nodes.iter().filter(may_spend).count() as u64
    }
}

fn origin(run: &Loaded<Run>, step: &StepId) -> Origin {
    Origin { run: RunId(run.stream.id), step: step.clone(), depth: run.state.depth() + 1 }
}

/// Creates a child run, or lets it go on, and retries until the log takes it. A child that can
/// never be created is reported as failed before it started.
pub(super) async fn create(
    shared: &Shared,
    parent: &StreamKey,
    new: NewChild,
    cancel: &CancellationToken,
) -> DoneResult {
    loop {
        let error = match try_create(shared, parent, &new).await {
            Ok(()) => return DoneResult::Created,
            Err(error) => error,
        };
        // A failure that no retry cures is reported; an unavailable log is waited for.
        if let Some(failure) = error.verdict() {
            let (failure, payloads) = seal_failure(failure);
            match report(shared, parent, never(new.run, failure), payloads).await {
                Ok(()) => return DoneResult::Created,
                Err(error) => tracing::warn!(stream = %parent, %error, "a run within"),
            }
        } else {
            tracing::warn!(stream = %parent, %error, "a run within cannot be created now");
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = cancel.cancelled() => return DoneResult::Created,
        }
    }
}

/// Builds the report of a child that failed before it started.
fn never(child: RunId, error: FailureReport) -> ChildReport {
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

async fn try_create(shared: &Shared, parent: &StreamKey, new: &NewChild) -> Result<(), ActorError> {
    let child = &new.child;
    let stream = StreamKey::run(parent.tenant.clone(), new.run);
    // It exists: a crash came between the creation and its record, or the child must go on.
    if shared.repository.log().head(&stream).await?.is_some() {
        return align(shared, parent, new).await;
    }
    if let Some(manifest) = child.manifest {
        register(shared, parent, child, manifest).await?;
    }
    let input = payload(opened(shared, parent, child.input).await?, Purpose::Input);
    let lineage = Lineage { origin: Some(new.origin.clone()), agent: child.agent };
    let create = CreateRun {
        graph: child.graph,
        version: child.version.clone(),
        input: PayloadSlot(0),
        budget: child.budget,
        privacy: child.privacy,
        // A repeated creation has the same id and hash, and is a no-op.
        request_hash: format!("{}/{}", new.origin.run, new.origin.step),
        lineage,
    };
    let command = |_: &_, _| (RunCommand::Create(create.clone()), vec![input.clone()]);
    shared.repository.execute::<Run>(&stream, &shared.context(), command).await?;
    Ok(())
}

/// Registers a proposed graph, whose manifest the parent stored with its intent.
async fn register(
    shared: &Shared,
    parent: &StreamKey,
    child: &Child,
    manifest: PayloadRef,
) -> Result<(), ActorError> {
    let bytes = opened(shared, parent, manifest).await?;
    let graph: Graph = serde_json::from_slice(&bytes).map_err(|error| {
        let message = platform_text!("the stored manifest cannot be read");
        ActorError::Failure(failure("internal", message).with_cause(error))
    })?;
    let register = Register {
        name: graph.name,
        version: child.version.clone(),
        nodes: u32::try_from(graph.nodes.len()).unwrap_or(u32::MAX),
        manifest: PayloadSlot(0),
        is_derived: false,
    };
    let manifest = payload(bytes, Purpose::Manifest);
    let stream = StreamKey::graph(parent.tenant.clone(), child.graph);
    let command = |_: &_, _| (register.clone(), vec![manifest.clone()]);
    let registered =
        shared.repository.execute::<GraphNoun>(&stream, &shared.context(), command).await;
    match registered {
        Ok(_) => Ok(()),
        Err(CommitError::Append(error)) => Err(error.into()),
        Err(CommitError::Log(error)) => Err(error.into()),
        Err(CommitError::Conflict | CommitError::Rejected(_)) => Err(ActorError::Conflict),
    }
}

async fn opened(
    shared: &Shared,
    stream: &StreamKey,
    reference: PayloadRef,
) -> Result<Bytes, ActorError> {
    let bytes = shared.repository.payload(stream, reference).await?;
    bytes.ok_or_else(|| {
        let message = platform_text!("payload {} was erased", reference);
        ActorError::Failure(failure("payload.erased", message))
    })
}

fn payload(bytes: Bytes, purpose: Purpose) -> Payload {
    Payload { bytes, media_type: "application/json".into(), purpose, subject: None }
}

/// Settles an ended run with its relatives: cancels open child runs and, once all have ended,
/// reports the end to the parent.
pub(crate) async fn farewell(shared: &Shared, run: &mut Loaded<Run>) -> Result<(), ActorError> {
    if !run.state.phase.is_ended() || !run.state.owes() {
        return Ok(());
    }
    let open: Vec<RunId> = run.state.open_children().map(|(child, _)| *child).collect();
    for child in &open {
        cancel(shared, run, *child).await?;
    }
    let Some(origin) = run.state.origin.clone() else { return Ok(()) };
    // The report must have the total: tokens still held are not settled yet.
    if !open.is_empty() || run.state.spent.reserved_tokens > 0 {
        return Ok(());
    }
    let (told, output) = told(shared, run).await?;
    let parent = StreamKey::run(run.stream.tenant.clone(), origin.run);
    match report(shared, &parent, told, output).await {
        // A parent that does not know this run needs no report.
        Ok(()) | Err(ActorError::Rejected(_)) => {}
        Err(error) => return Err(error),
    }
    note_parent_told(shared, run).await
}

/// Records that the parent was notified. Others may still write to an ended run, so the command is
/// retried after them.
async fn note_parent_told(shared: &Shared, run: &mut Loaded<Run>) -> Result<(), ActorError> {
    let (command, context) = (|_: &_, _| (RunCommand::ParentTold, Vec::new()), shared.context());
    shared.repository.execute_on(run, &context, command).await.map_err(ActorError::from)
}

/// Builds the report of an ended run for its parent, with the payload that it copies.
pub(super) async fn told(
    shared: &Shared,
    run: &Loaded<Run>,
) -> Result<(ChildReport, Vec<Payload>), ActorError> {
    let state = &run.state;
    let mut error = error_of(state);
    let mut output = None;
    if let (None, Some(reference)) = (&error, state.output) {
        match opened(shared, &run.stream, reference).await {
            Ok(bytes) => output = Some(payload(bytes, Purpose::Output)),
            // The output was erased: to the parent that is a failure.
            Err(ActorError::Failure(erased)) => error = Some(erased),
            Err(other) => return Err(other),
        }
    }
    let (error, detail) = match error {
        Some(error) => {
            let (error, detail) = carry_failure(shared, &run.stream, error).await?;
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
        active_ms: Some(state.active_time(shared.now()).0),
        inherited: state.is_cancel_inherited,
    };
    // A failed run has no output, so there is one payload at most.
    Ok((report, output.or(detail).into_iter().collect()))
}

/// Prepares a failure for another stream: its detail is copied, unless it was erased.
async fn carry_failure(
    shared: &Shared,
    stream: &StreamKey,
    failure: UnsealedFailure,
) -> Result<(FailureReport, Option<Payload>), ActorError> {
    let Some(Detail::Known(reference)) = failure.detail else {
        let (report, payloads) = seal_failure(failure);
        return Ok((report, payloads.into_iter().next()));
    };
    let bytes = shared.repository.payload(stream, reference).await?;
    let report = failure.map_detail(|_| Some(Detail::New(PayloadSlot(0))));
    Ok(match bytes {
        Some(bytes) => (report, Some(detail_payload(bytes))),
        None => (report.map_detail(|_| None), None),
    })
}

fn error_of(state: &RunState) -> Option<UnsealedFailure> {
    match state.phase {
        Phase::Completed => None,
        Phase::Cancelled => {
            Some(failure("run.cancelled", platform_text!("the run within was cancelled")))
        }
        _ => Some(state.error.as_ref().map_or_else(
            || failure("internal", platform_text!("the run within failed without a reason")),
            |error| state.failure_again(error),
        )),
    }
}

pub(super) async fn report(
    shared: &Shared,
    parent: &StreamKey,
    report: ChildReport,
    payloads: Vec<Payload>,
) -> Result<(), ActorError> {
    let command = |_: &_, _| (RunCommand::ChildEnded(report.clone()), payloads.clone());
    shared.repository.submit::<Run>(parent, &shared.context(), command).await?;
    Ok(())
}

/// Cancels a child of an ended run. One that does not exist yet is created first, so that no
/// executor creates it later.
async fn cancel(shared: &Shared, run: &Loaded<Run>, child: RunId) -> Result<(), ActorError> {
    let stream = StreamKey::run(run.stream.tenant.clone(), child);
    let command = |_: &_, _| (RunCommand::Inherit(FamilyCommand::Cancel), Vec::new());
    let cancelled = shared.repository.submit::<Run>(&stream, &shared.context(), command).await;
    match cancelled.map_err(ActorError::from) {
        // An ended child needs no cancellation.
        Ok(_) | Err(ActorError::Rejected(Rejection::Ended(_))) => Ok(()),
        Err(ActorError::Rejected(Rejection::NotFound)) => {
            let Some(known) = run.state.children.get(&child) else { return Ok(()) };
            let origin = origin(run, &known.step);
            let new = NewChild { run: child, child: known.clone(), origin };
            create(shared, &run.stream, new, &shared.stopped).await;
            let again = shared.repository.submit::<Run>(&stream, &shared.context(), command).await;
            match again.map_err(ActorError::from) {
                Ok(_) | Err(ActorError::Rejected(_)) => Ok(()),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// Finds a registered graph by name, in the given version or the latest one.
pub(super) async fn registered(
    shared: &Shared,
    stream: &StreamKey,
    name: &str,
    version: Option<&GraphVersion>,
) -> Result<Result<(GraphId, GraphVersion), UnsealedFailure>, LogError> {
    let id = convergio_domain::graph::graph_id(&stream.tenant, name);
    let stream = StreamKey::graph(stream.tenant.clone(), id);
    let loaded = shared.repository.load::<GraphNoun>(&stream).await?;
    let known = match version {
        Some(version) => loaded.state.versions.get_key_value(version).map(|(known, _)| known),
        None => loaded.state.latest.as_ref(),
    };
    Ok(known.map(|version| (id, version.clone())).ok_or_else(|| {
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
        failure("graph.invalid", message).with_detail(detail)
    }))
}
