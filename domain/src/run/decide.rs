//! Decides which events a command to a run causes: dispatches to the rules, and holds those for
//! creation, migration and approvals.

use super::advance::decide_advance;
use super::children::{decide_child_ended, decide_children_created, decide_parent_told};
use super::command::{AnswerApproval, CommandReason, CreateRun, Provenance, RunCommand};
use super::event::{AgentSpawned, ApprovalAnswered, RunCreated, RunEvent, RunMigrated};
use super::rejection::RunRejection;
use super::state::{ApprovalState, RunApproval, RunPhase, RunState};
use super::{amend, control, family};
use crate::decider::DecisionContext;
use crate::id::GraphVersion;
use crate::stream::Seq;
use crate::time::Timestamp;

/// Role that may answer approvals for every other role.
const OWNER_ROLE: &str = "owner";

/// Dispatches a command to its rule.
pub(super) fn decide(
    state: &RunState,
    command: RunCommand,
    context: &DecisionContext,
    next: Seq,
) -> Result<Vec<RunEvent>, RunRejection> {
    if state.is_imported {
        return refuse_imported(&command);
    }
    match command {
        RunCommand::Create(command) => decide_create(state, command, next),
        RunCommand::Advance(command) => decide_advance(state, command, context, next),
        RunCommand::Answer(answer) => decide_answer(state, answer, context, next),
        RunCommand::ChildrenCreated(children) => Ok(decide_children_created(state, &children)),
        RunCommand::ChildEnded(report) => decide_child_ended(state, report, next, context.now),
        RunCommand::ParentTold => decide_parent_told(state),
        RunCommand::Migrate { to } => decide_migrate(state, to),
        RunCommand::Cancel { reason } => {
            family::decide_cancel(state, CommandReason::event_fields(reason, next), false)
        }
        RunCommand::Pause { reason } => {
            family::decide_pause(state, CommandReason::event_fields(reason, next), false)
        }
        RunCommand::Resume => family::decide_resume(state, false, context.now),
        RunCommand::Inherit(command) => family::decide_inherit(state, command, context.now),
        RunCommand::Retry { steps } => control::decide_retry(state, steps, context.now),
        RunCommand::Reopen(command) => family::decide_reopen(state, command, context.now),
        RunCommand::Amend(command) => amend::decide_amend(state, command, context.now, next),
        RunCommand::Signal(signal) => control::decide_signal(state, signal, next),
        RunCommand::Resolve(command) => control::decide_resolve(state, command, context, next),
        RunCommand::Mark { label } => control::decide_mark(state, label, next),
        RunCommand::Fork(command) => control::decide_fork(state, command, next),
    }
}

/// Rejects every command to an imported run. A command inherited from the parent has no effect
/// instead, so that the parent does not see a failure.
fn refuse_imported(command: &RunCommand) -> Result<Vec<RunEvent>, RunRejection> {
    match command {
        RunCommand::Inherit(_) => Ok(Vec::new()),
        _ => Err(RunRejection::Imported),
    }
}

/// Decides a migration; the same version has no effect.
fn decide_migrate(state: &RunState, to: GraphVersion) -> Result<Vec<RunEvent>, RunRejection> {
    let Some((_, from)) = &state.graph else { return Err(RunRejection::NotFound) };
    if state.phase.is_ended() {
        return Err(RunRejection::Ended(state.phase));
    }
    if *from == to {
        return Ok(Vec::new());
    }
    Ok(vec![RunEvent::RunMigrated(RunMigrated { from: from.clone(), to })])
}

/// Decides the creation. The same request has no effect; another request under the same idempotency
/// key is rejected.
fn decide_create(
    state: &RunState,
    command: CreateRun,
    next: Seq,
) -> Result<Vec<RunEvent>, RunRejection> {
    if state.phase != RunPhase::New {
        let is_same_request = state.request_hash == command.request_hash;
        return if is_same_request {
            Ok(Vec::new())
        } else {
            Err(RunRejection::IdempotencyMismatch)
        };
    }
    let Provenance { origin, agent } = command.provenance;
    let created = RunEvent::RunCreated(RunCreated {
        graph: command.graph,
        version: command.version,
        input: command.input.to_payload_ref(next),
        budget: command.budget,
        privacy: command.privacy,
        request_hash: command.request_hash,
        origin,
    });
    let spawned = agent.map(|agent| RunEvent::AgentSpawned(AgentSpawned { agent }));
    Ok([created].into_iter().chain(spawned).collect())
}

/// Decides the answer to an approval. The same answer again has no effect.
fn decide_answer(
    state: &RunState,
    answer: AnswerApproval,
    context: &DecisionContext,
    next: Seq,
) -> Result<Vec<RunEvent>, RunRejection> {
    let id = answer.approval;
    let approval = state.approvals.get(&id).ok_or(RunRejection::NoSuchApproval(id))?;
    if !answer.roles.iter().any(|role| *role == approval.role || role == OWNER_ROLE) {
        return Err(RunRejection::NotInRole(id, approval.role.clone()));
    }
    // The hash binds the answer to what the person saw: content that has changed since must be
    // shown again.
    if approval.content_hash != answer.content_hash {
        return Err(RunRejection::ContentChanged(id));
    }
    // Before the phase is checked, so that a repeated answer succeeds even after the end of the
    // run.
    if approval.state != ApprovalState::Open {
        let is_same_answer = (approval.state == ApprovalState::Granted) == answer.granted;
        return if is_same_answer { Ok(Vec::new()) } else { Err(RunRejection::AnsweredBefore(id)) };
    }
    if state.phase != RunPhase::Running {
        return Err(RunRejection::Ended(state.phase));
    }
    // During a pause the time of open waits stands still, so the approval has not expired.
    if has_expired(approval, state.wait_reference_time(context.now)) {
        return Err(RunRejection::ApprovalExpired(id));
    }
    let (reason, reason_at) = CommandReason::event_fields(answer.reason, next);
    let answered = ApprovalAnswered {
        approval: id,
        by: context.actor.clone(),
        content_hash: answer.content_hash,
        reason,
        reason_at,
    };
    Ok(vec![if answer.granted {
        RunEvent::ApprovalGranted(answered)
    } else {
        RunEvent::ApprovalDenied(answered)
    }])
}

fn has_expired(approval: &RunApproval, now: Timestamp) -> bool {
    approval.expires.is_some_and(|expires| expires <= now)
}
