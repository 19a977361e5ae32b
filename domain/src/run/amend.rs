//! Amending a run: another budget, or another version of its graph.

use std::collections::BTreeMap;

use super::command::Reason;
use super::family::migration;
use super::rejection::Rejection;
use super::state::{Budget, Phase, RunState};
use super::steer::check_failed;
use crate::chat::Privacy;
use crate::event::{Event, lifecycle};
use crate::graph::manifest::{Agent, Graph, MapWork, Node, Work};
use crate::id::{GraphVersion, NodeId, StepId};
use crate::money::Money;
use crate::stream::Seq;
use crate::time::{Span, Timestamp};

/// Command: changes the budget or the graph version of a run that is running or has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmendRun {
    /// New limits; limits that are `None` stay.
    pub limits: NewLimits,
    /// New graph version. The kernel has checked before that it fits the state.
    pub version: Option<GraphVersion>,
    /// Failed steps that ended the run, by its graph; they get a new series of attempts.
    pub steps: Vec<StepId>,
    /// Reason of the amendment, if one was given.
    pub reason: Option<Reason>,
}

/// Budget limits that replace those of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewLimits {
    /// Maximum tokens, input and output together.
    pub tokens: Option<u64>,
    /// Maximum cost, in the currency of the prices.
    pub cost: Option<Money>,
    /// Maximum active time of the run.
    pub wall: Option<Span>,
    /// Maximum time from creation to end.
    pub deadline: Option<Span>,
}

impl NewLimits {
    /// Returns the budget with these limits replaced.
    fn of(self, budget: Budget) -> Budget {
        Budget {
            tokens: self.tokens.or(budget.tokens),
            cost: self.cost.or(budget.cost),
            wall: self.wall.or(budget.wall),
            deadline: self.deadline.or(budget.deadline),
        }
    }
}

/// Decides an amendment. A failed run is reopened by it; without any change it is rejected, since
/// the run would fail again.
pub(super) fn amend(
    state: &RunState,
    command: AmendRun,
    now: Timestamp,
    next: Seq,
) -> Result<Vec<Event>, Rejection> {
    match state.phase {
        Phase::New => return Err(Rejection::NotFound),
        Phase::Running | Phase::Failed => {}
        ended => return Err(Rejection::Ended(ended)),
    }
    let AmendRun { limits, version, steps, reason } = command;
    check_failed(state, &steps)?;
    let budget = limits.of(state.budget);
    let (reason, reason_at) = Reason::written(reason, next);
    let moved = version.and_then(|version| migration(state, version));
    let amended = (budget != state.budget).then_some(Event::RunAmended(lifecycle::Amended {
        budget,
        reason,
        reason_at,
    }));
    let changes: Vec<Event> = moved.into_iter().chain(amended).collect();
    if changes.is_empty() {
        return if state.phase == Phase::Failed {
            Err(Rejection::NothingAmended)
        } else {
            Ok(changes)
        };
    }
    check_limits(state, budget, now)?;
    if state.phase == Phase::Running {
        return Ok(changes);
    }
    // The reopening comes first: `run.amended.v1` then changes a running run.
    let mut events = vec![Event::RunReopened(state.reopening(steps, now))];
    events.extend(changes);
    events.extend(state.reopened_children(budget));
    Ok(events)
}

/// Rejects limits that are used up already: they would end the run at once.
fn check_limits(state: &RunState, budget: Budget, now: Timestamp) -> Result<(), Rejection> {
    let used_up = |limit: &'static str, given: String, used: String| {
        Err(Rejection::LimitUsedUp { limit, given, used })
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
    let age = now.since(state.created);
    match budget.deadline.filter(|deadline| *deadline <= age) {
        Some(deadline) => used_up("budget.deadline", deadline.to_string(), age.to_string()),
        None => Ok(()),
    }
}

/// Finds a node of `other` whose conversations may travel farther than in `current`, the graph of
/// the run. The privacy of a running run is never loosened.
pub fn loosened_node(own: &Graph, other: &Graph) -> Option<NodeId> {
    let known: BTreeMap<&NodeId, Privacy> =
        own.nodes.iter().filter_map(|node| Some((&node.id, privacy(node)?))).collect();
    let is_looser = |node: &&Node| {
        let before = known.get(&node.id);
        before.zip(privacy(node)).is_some_and(|(before, now)| now < *before)
    };
    other.nodes.iter().find(is_looser).map(|node| node.id.clone())
}

/// Returns the privacy of a node that calls a model.
fn privacy(node: &Node) -> Option<Privacy> {
    agent(node).map(|agent| agent.privacy)
}

/// Returns the agent of a node, or of each of its map items.
fn agent(node: &Node) -> Option<&Agent> {
    match &node.work {
        Work::Agent(agent) => Some(agent),
        Work::Plan(plan) => Some(&plan.agent),
        Work::Map(map) => match &map.work {
            MapWork::Agent(agent) => Some(agent),
            MapWork::Tool(_) => None,
        },
        _ => None,
    }
}
