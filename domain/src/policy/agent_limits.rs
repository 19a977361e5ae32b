//! Limits of an agent that goes in turns.

use std::time::Duration;

use crate::failure::UnsealedFailure;
use crate::graph::manifest::{Agent, PlanNode, TurnLimits};
use crate::platform_text;
use crate::run::AgentTurns;
use crate::time::Timestamp;

/// Maximum tool calls of one turn.
pub const CALLS_PER_TURN_LIMIT: usize = 24;

/// Limits of an agent that goes in turns, over all attempts of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentTurnLimits {
    limits: TurnLimits,
    is_planner: bool,
}

impl AgentTurnLimits {
    /// Returns the limits of an agent; `None` if it answers in one call, without turns.
    pub fn from_agent(agent: &Agent) -> Option<Self> {
        // Memory without tools still needs a turn for the recall.
        let of_memory = agent.memory.as_ref().map(|_| TurnLimits::default());
        let limits = agent.toolbox.as_ref().map(|toolbox| toolbox.limits).or(of_memory)?;
        Some(Self { limits, is_planner: false })
    }

    /// Returns the limits of an agent that proposes graphs.
    pub fn from_plan(plan: &PlanNode) -> Self {
        let limits = TurnLimits { max_turns: plan.max_turns, ..TurnLimits::default() };
        Self { limits, is_planner: true }
    }

    /// Returns the failure of the first limit that is reached: turns, tokens or time.
    pub fn find_exhausted_limit(
        self,
        turns: &AgentTurns,
        answered_turns: u32,
        timeout: Duration,
        now: Timestamp,
    ) -> Option<UnsealedFailure> {
        let elapsed_ms = now.span_since(turns.began).0;
        let message = if answered_turns >= self.limits.max_turns {
            if self.is_planner {
                platform_text!("no valid graph in {} proposals: raise max_turns", answered_turns)
            } else {
                platform_text!("no answer in {} turns: raise max_turns", answered_turns)
            }
        } else if turns.tokens >= self.limits.max_total_tokens {
            let (used, limit) = (turns.tokens, self.limits.max_total_tokens);
            platform_text!("{} tokens are used, max_total_tokens is {}", used, limit)
        } else if u128::from(elapsed_ms) >= timeout.as_millis() {
            platform_text!("no answer in {} ms: raise the node's timeout", elapsed_ms)
        } else {
            return None;
        };
        Some(UnsealedFailure::new("agent.limit", message))
    }

    /// Returns the failure of too many tool calls: `calls` in all, `at_once` in this turn.
    pub fn check_call_count(self, calls: usize, at_once: usize) -> Option<UnsealedFailure> {
        let limit = self.limits.max_tool_calls;
        let message = if at_once > CALLS_PER_TURN_LIMIT {
            let limit = CALLS_PER_TURN_LIMIT;
            platform_text!("{} tool calls in one turn: at most {}", at_once, limit)
        } else if calls > limit as usize {
            platform_text!("{} tool calls are asked for: max_tool_calls is {}", calls, limit)
        } else {
            return None;
        };
        Some(UnsealedFailure::new("agent.limit", message))
    }
}
