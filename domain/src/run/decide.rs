//! Decides which events a command to a run causes: dispatches to the rules, and holds those for
//! creation, migration and approvals.

use super::advance::advance;
use super::children::{Lineage, child_ended, children_created, parent_told};
use super::command::{Answer, CreateRun, Reason, RunCommand};
use super::rejection::Rejection;
use super::state::{Approval, ApprovalState, Phase, RunState};
use super::{amend, family, steer};
use crate::decider::Context;
use crate::event::{Event, agent, run};
use crate::id::GraphVersion;
use crate::stream::Seq;
use crate::time::Timestamp;

/// Role that may answer approvals for every other role.
const OWNER: &str = "owner";

/// Dispatches a command to its rule.
pub(super) fn decide(
    state: &RunState,
    command: RunCommand,
    context: &Context,
    next: Seq,
) -> Result<Vec<Event>, Rejection> {
    if state.is_imported {
        return refuse_imported(&command);
    }
    match command {
        RunCommand::Create(command) => create(state, command, next),
        RunCommand::Advance(command) => advance(state, command, context, next),
        RunCommand::Answer(answer) => answer_approval(state, answer, context, next),
        RunCommand::ChildrenCreated(children) => Ok(children_created(state, &children)),
        RunCommand::ChildEnded(report) => child_ended(state, report, next, context.now),
        RunCommand::ParentTold => parent_told(state),
        RunCommand::Migrate { to } => migrate(state, to),
        RunCommand::Cancel { reason } => {
            family::cancel(state, Reason::written(reason, next), false)
        }
        RunCommand::Pause { reason } => family::pause(state, Reason::written(reason, next), false),
        RunCommand::Resume => family::resume(state, false, context.now),
        RunCommand::Inherit(command) => family::inherit(state, command, context.now),
        RunCommand::Retry { steps } => steer::retry(state, steps, context.now),
        RunCommand::Reopen(command) => family::reopen_within(state, command, context.now),
        RunCommand::Amend(command) => amend::amend(state, command, context.now, next),
        RunCommand::Signal(signal) => steer::signal(state, signal, next),
        RunCommand::Resolve(command) => steer::resolve(state, command, context, next),
        RunCommand::Mark { label } => steer::mark(state, label, next),
        RunCommand::Fork(command) => steer::fork(state, command, next),
    }
}

/// Rejects every command to an imported run. A command inherited from the parent has no effect
/// instead, so that the parent does not see a failure.
fn refuse_imported(command: &RunCommand) -> Result<Vec<Event>, Rejection> {
    match command {
        RunCommand::Inherit(_) => Ok(Vec::new()),
        _ => Err(Rejection::Imported),
    }
}

/// Decides a migration; the same version has no effect.
fn migrate(state: &RunState, to: GraphVersion) -> Result<Vec<Event>, Rejection> {
    let Some((_, from)) = &state.graph else { return Err(Rejection::NotFound) };
    if state.phase.is_ended() {
        return Err(Rejection::Ended(state.phase));
    }
    if *from == to {
        return Ok(Vec::new());
    }
    Ok(vec![Event::RunMigrated(run::Migrated { from: from.clone(), to })])
}

/// Decides the creation. The same request has no effect; another request under the same idempotency
/// key is rejected.
fn create(state: &RunState, command: CreateRun, next: Seq) -> Result<Vec<Event>, Rejection> {
    if state.phase != Phase::New {
        let same = state.request_hash == command.request_hash;
        return if same { Ok(Vec::new()) } else { Err(Rejection::IdempotencyMismatch) };
    }
    let Lineage { origin, agent } = command.lineage;
    let created = Event::RunCreated(run::Created {
        graph: command.graph,
        version: command.version,
        input: command.input.at(next),
        budget: command.budget,
        privacy: command.privacy,
        request_hash: command.request_hash,
        origin,
    });
    let spawned = agent.map(|agent| Event::AgentSpawned(agent::Spawned { agent }));
    Ok([created].into_iter().chain(spawned).collect())
}

/// Decides the answer to an approval. The same answer again has no effect.
fn answer_approval(
    state: &RunState,
    answer: Answer,
    context: &Context,
    next: Seq,
) -> Result<Vec<Event>, Rejection> {
    let id = answer.approval;
    let asked = state.approvals.get(&id).ok_or(Rejection::NoSuchApproval(id))?;
    if !answer.roles.iter().any(|role| *role == asked.role || role == OWNER) {
        return Err(Rejection::NotInRole(id, asked.role.clone()));
    }
    // The hash binds the answer to what the person saw: content that has changed since must be
    // shown again.
    if asked.content_hash != answer.content_hash {
        return Err(Rejection::ContentChanged(id));
    }
    // Before the phase is checked, so that a repeated answer succeeds even after the end of the
    // run.
    if asked.state != ApprovalState::Open {
        let same = (asked.state == ApprovalState::Granted) == answer.granted;
        return if same { Ok(Vec::new()) } else { Err(Rejection::AnsweredBefore(id)) };
    }
    if state.phase != Phase::Running {
        return Err(Rejection::Ended(state.phase));
    }
    // During a pause the time of open waits stands still, so the approval has not expired.
    if has_expired(asked, state.wait_time(context.now)) {
        return Err(Rejection::ApprovalExpired(id));
    }
    let (reason, reason_at) = Reason::written(answer.reason, next);
    let answered = run::ApprovalAnswered {
        approval: id,
        by: context.actor.clone(),
        content_hash: answer.content_hash,
        reason,
        reason_at,
    };
    Ok(vec![if answer.granted {
        Event::ApprovalGranted(answered)
    } else {
        Event::ApprovalDenied(answered)
    }])
}

fn has_expired(approval: &Approval, now: Timestamp) -> bool {
    approval.expires.is_some_and(|expires| expires <= now)
}
