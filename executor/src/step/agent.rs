//! The agent of a step that goes in turns, and its limits.

use std::time::Duration;

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::{Agent, MapWork, NodeWork, PlanNode, TurnLimits};
use convergio_domain::platform_text;
use convergio_domain::run::AgentTurns;
use convergio_domain::time::Timestamp;

use crate::plan::new_failure;

/// Maximum tool calls of one turn.
const CALLS_PER_TURN_LIMIT: usize = 24;

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
    fn turn_limits(self) -> Option<TurnLimits> {
        match self {
            Self::Agent(agent) => {
                // Memory without tools still needs a turn for the recall.
                let of_memory = agent.memory.as_ref().map(|_| TurnLimits::default());
                agent.toolbox.as_ref().map(|toolbox| toolbox.limits).or(of_memory)
            }
            Self::Plan(plan) => {
                Some(TurnLimits { max_turns: plan.max_turns, ..TurnLimits::default() })
            }
        }
    }

    /// Returns the failure of the first limit that is reached: turns, tokens or time.
    pub(super) fn find_exhausted_limit(
        self,
        turns: &AgentTurns,
        answered_turns: u32,
        timeout: Duration,
        now: Timestamp,
    ) -> Option<UnsealedFailure> {
        let limits = self.turn_limits().unwrap_or_default();
        let elapsed_ms = now.span_since(turns.began).0;
        let message = if answered_turns >= limits.max_turns {
            match self {
                Self::Agent(_) => {
                    platform_text!("no answer in {} turns: raise max_turns", answered_turns)
                }
                Self::Plan(_) => {
                    platform_text!(
                        "no valid graph in {} proposals: raise max_turns",
                        answered_turns
                    )
                }
            }
        } else if turns.tokens >= limits.max_total_tokens {
            let (used, limit) = (turns.tokens, limits.max_total_tokens);
            platform_text!("{} tokens are used, max_total_tokens is {}", used, limit)
        } else if u128::from(elapsed_ms) >= timeout.as_millis() {
            platform_text!("no answer in {} ms: raise the node's timeout", elapsed_ms)
        } else {
            return None;
        };
        Some(new_failure("agent.limit", message))
    }

    /// Returns the failure of too many tool calls, in all or in one turn.
    pub(super) fn check_call_count(self, calls: usize, at_once: usize) -> Option<UnsealedFailure> {
        let limit = self.turn_limits().unwrap_or_default().max_tool_calls;
        if at_once > CALLS_PER_TURN_LIMIT {
            let message = platform_text!(
                "{} tool calls in one turn: at most {}",
                at_once,
                CALLS_PER_TURN_LIMIT
            );
            return Some(new_failure("agent.limit", message));
        }
        let message =
            platform_text!("{} tool calls are asked for: max_tool_calls is {}", calls, limit);
        (calls > limit as usize).then(|| new_failure("agent.limit", message))
    }
}
