//! Amending a run: another budget, or another version of its graph.

use std::collections::BTreeMap;

use super::command::{AmendRun, CommandReason};
use super::control::check_steps_failed;
use super::event::{RunAmended, RunEvent};
use super::family::migration_event;
use super::rejection::RunRejection;
use super::state::{RunPhase, RunState};
use super::values::Budget;
use crate::chat::Privacy;
use crate::graph::manifest::{Agent, Graph, GraphNode, MapWork, NodeWork};
use crate::id::NodeId;
use crate::stream::Seq;
use crate::time::Timestamp;

/// Decides an amendment. A failed run is reopened by it; without any change it is rejected, since
/// the run would fail again.
pub(super) fn decide_amend(
    state: &RunState,
    command: AmendRun,
    now: Timestamp,
    next: Seq,
) -> Result<Vec<RunEvent>, RunRejection> {
    match state.phase {
        RunPhase::New => return Err(RunRejection::NotFound),
        RunPhase::Running | RunPhase::Failed => {}
        ended => return Err(RunRejection::Ended(ended)),
    }
    let AmendRun { limits, version, steps, reason } = command;
    check_steps_failed(state, &steps)?;
    let budget = limits.apply_to(state.budget);
    let (reason, reason_at) = CommandReason::event_fields(reason, next);
    let migrated = version.and_then(|version| migration_event(state, version));
    let amended = (budget != state.budget).then_some(RunEvent::RunAmended(RunAmended {
        budget,
        reason,
        reason_at,
    }));
    let changes: Vec<RunEvent> = migrated.into_iter().chain(amended).collect();
    if changes.is_empty() {
        return if state.phase == RunPhase::Failed {
            Err(RunRejection::NothingAmended)
        } else {
            Ok(changes)
        };
    }
    check_limits_above_usage(state, budget, now)?;
    if state.phase == RunPhase::Running {
        return Ok(changes);
    }
    // The reopening comes first: `run.amended.v1` then changes a running run.
    let mut events = vec![RunEvent::RunReopened(state.reopening_event(steps, now))];
    events.extend(changes);
    events.extend(state.child_reopening_events(budget));
    Ok(events)
}

/// Rejects limits that are used up already: they would end the run at once.
fn check_limits_above_usage(
    state: &RunState,
    budget: Budget,
    now: Timestamp,
) -> Result<(), RunRejection> {
    let used_up = |limit: &'static str, given: String, used: String| {
        Err(RunRejection::LimitUsedUp { limit, given, used })
    };
    if let Some(tokens) = budget.tokens.filter(|tokens| *tokens <= state.spent.tokens) {
        return used_up("budget.tokens", tokens.to_string(), state.spent.tokens.to_string());
    }
    // Equal is allowed for cost: calls without cost may follow.
    if let Some(cost) = budget.cost.filter(|cost| *cost < state.spent.cost) {
        return used_up("budget.cost", cost.to_string(), state.spent.cost.to_string());
    }
    let worked = state.active_time(now);
    if let Some(wall) = budget.wall.filter(|wall| *wall <= worked) {
        return used_up("budget.wall", wall.to_string(), worked.to_string());
    }
    let age = now.span_since(state.created);
    match budget.deadline.filter(|deadline| *deadline <= age) {
        Some(deadline) => used_up("budget.deadline", deadline.to_string(), age.to_string()),
        None => Ok(()),
    }
}

/// Finds a node of `other` whose conversations may travel farther than in `current`, the graph of
/// the run. The privacy of a running run is never loosened.
pub fn find_loosened_node(current: &Graph, other: &Graph) -> Option<NodeId> {
    let privacy_by_node: BTreeMap<&NodeId, Privacy> =
        current.nodes.iter().filter_map(|node| Some((&node.id, node_privacy(node)?))).collect();
    let is_looser = |node: &&GraphNode| {
        let before = privacy_by_node.get(&node.id);
        before.zip(node_privacy(node)).is_some_and(|(before, now)| now < *before)
    };
    other.nodes.iter().find(is_looser).map(|node| node.id.clone())
}

/// Returns the privacy of a node that calls a model.
fn node_privacy(node: &GraphNode) -> Option<Privacy> {
    node_agent(node).map(|agent| agent.privacy)
}

/// Returns the agent of a node, or of each of its map items.
fn node_agent(node: &GraphNode) -> Option<&Agent> {
    match &node.work {
        NodeWork::Agent(agent) => Some(agent),
        NodeWork::Plan(plan) => Some(&plan.agent),
        NodeWork::Map(map) => match &map.work {
            MapWork::Agent(agent) => Some(agent),
            MapWork::Tool(_) => None,
        },
        _ => None,
    }
}
