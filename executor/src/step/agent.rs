//! The agent of a step that goes in turns.

use convergio_domain::graph::manifest::{Agent, MapWork, NodeWork, PlanNode};
use convergio_domain::policy::agent_limits::AgentTurnLimits;

/// The agent of a step that goes in turns.
#[derive(Clone, Copy)]
pub(crate) enum TurnAgent<'a> {
    /// An agent with tools or memory.
    Agent(&'a Agent),
    /// An agent that proposes graphs, of a plan node.
    Plan(&'a PlanNode),
}

impl<'a> TurnAgent<'a> {
    /// Returns the agent of a step's work; `None` if the step does not go in turns.
    pub(crate) fn from_work(work: &'a NodeWork, item: Option<u32>) -> Option<Self> {
        match (work, item) {
            (NodeWork::Agent(agent), None) => Some(Self::Agent(agent)),
            (NodeWork::Plan(plan), None) => Some(Self::Plan(plan)),
            (NodeWork::Map(map), Some(_)) => match &map.work {
                MapWork::Agent(agent) => Some(Self::Agent(agent)),
                MapWork::Tool(_) => None,
            },
            _ => None,
        }
        .filter(|asker| asker.turn_limits().is_some())
    }

    pub(crate) fn as_agent(self) -> &'a Agent {
        match self {
            Self::Agent(agent) => agent,
            Self::Plan(plan) => &plan.agent,
        }
    }

    /// Returns the limits of the agent; `None` if it does not go in turns.
    pub(super) fn turn_limits(self) -> Option<AgentTurnLimits> {
        match self {
            Self::Agent(agent) => AgentTurnLimits::from_agent(agent),
            Self::Plan(plan) => Some(AgentTurnLimits::from_plan(plan)),
        }
    }
}
