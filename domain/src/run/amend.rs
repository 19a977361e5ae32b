//! Mending a run that goes on: another budget, another version of its graph.

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

/// What a run gets in place of what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmendRun {
    /// Other limits; those that are not named stay.
    pub limits: NewLimits,
    /// Another version of the graph. Whether it fits the state was found before, by the kernel.
    pub version: Option<GraphVersion>,
    /// The failed steps that end the run by its graph: they get another series of tries.
    pub steps: Vec<StepId>,
    /// Why.
    pub reason: Option<Reason>,
}

/// Limits in place of those of a budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewLimits {
    /// Most tokens in and out.
    pub tokens: Option<u64>,
    /// Most money.
    pub cost: Option<Money>,
    /// Longest time of work.
    pub wall: Option<Span>,
    /// Longest time from creation to end.
    pub deadline: Option<Span>,
}

impl NewLimits {
    fn of(self, budget: Budget) -> Budget {
        Budget {
            tokens: self.tokens.or(budget.tokens),
            cost: self.cost.or(budget.cost),
            wall: self.wall.or(budget.wall),
            deadline: self.deadline.or(budget.deadline),
        }
    }
}

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
    let mut events = vec![Event::RunReopened(state.reopening(steps, now))];
    events.extend(changes);
    events.extend(state.reopened_children(budget));
    Ok(events)
}

/// Limits that are used up already would end the run at once.
fn check_limits(state: &RunState, budget: Budget, now: Timestamp) -> Result<(), Rejection> {
    let used_up = |limit: &'static str, given: String, used: String| {
        Err(Rejection::LimitUsedUp { limit, given, used })
    };
    if let Some(tokens) = budget.tokens.filter(|tokens| *tokens <= state.spent.tokens) {
        return used_up("budget.tokens", tokens.to_string(), state.spent.tokens.to_string());
    }
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

/// The node whose conversations may travel further by another version of the graph, if there is
/// one: a run under way is never loosened.
pub fn loosened_node(own: &Graph, other: &Graph) -> Option<NodeId> {
    let known: BTreeMap<&NodeId, Privacy> =
        own.nodes.iter().filter_map(|node| Some((&node.id, privacy(node)?))).collect();
    let is_looser = |node: &&Node| {
        let before = known.get(&node.id);
        before.zip(privacy(node)).is_some_and(|(before, now)| now < *before)
    };
    other.nodes.iter().find(is_looser).map(|node| node.id.clone())
}

fn privacy(node: &Node) -> Option<Privacy> {
    agent(node).map(|agent| agent.privacy)
}

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
