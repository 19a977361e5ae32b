//! The verdict on an agent's tool call, as far as its manifest alone decides it. Replay compares it
//! with the log.

use std::fmt;

use convergio_domain::chat::ToolCall;
use convergio_domain::graph::manifest::Agent;

use super::agent_tools::{AgentTools, AllowedCall, RejectedCall};
use crate::memory::is_memory_tool;

/// Fate of a requested tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallFate {
    /// The call is made.
    Made,
    /// The agent may not call the tool.
    Denied,
    /// The tool does not exist, or the arguments do not fit.
    Wrong,
}

/// The verdict on a tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallVerdict {
    /// Name of the tool, if it exists.
    name: Option<String>,
    /// Possible fates: several where inputs or registered graphs, which the manifest does not have,
    /// make the difference.
    fates: &'static [CallFate],
}

/// Judges a requested call by the agent's manifest.
pub(crate) fn judge_tool_call(agent: &Agent, call: &ToolCall) -> CallVerdict {
    let tools =
        agent.toolbox.as_ref().map_or_else(AgentTools::with_no_tools, AgentTools::from_manifest);
    let verdict = |name, fates| CallVerdict { name, fates };
    match tools.check_call(call) {
        // The memory's subject depends on the run's inputs.
        Ok(AllowedCall::Builtin { name, .. })
            if agent.memory.is_some() && is_memory_tool(&name) =>
        {
            verdict(Some(name), &[CallFate::Made, CallFate::Denied])
        }
        Ok(AllowedCall::Builtin { name, .. }) => verdict(Some(name), &[CallFate::Made]),
        // The graph or agent that it runs may want other inputs, or be gone.
        Ok(AllowedCall::Run { name, .. } | AllowedCall::Spawn { name, .. }) => {
            verdict(Some(name), &[CallFate::Made, CallFate::Wrong])
        }
        Err(RejectedCall::Denied { name }) => verdict(Some(name), &[CallFate::Denied]),
        Err(RejectedCall::Wrong { .. }) => verdict(None, &[CallFate::Wrong]),
    }
}

impl CallVerdict {
    /// Returns whether the recorded fate is one that the verdict allows.
    pub(crate) fn allows_fate(&self, fate: CallFate, name: Option<&str>) -> bool {
        self.fates.contains(&fate) && (name.is_none() || name == self.name.as_deref())
    }
}

impl fmt::Display for CallFate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Made => "made",
            Self::Denied => "denied",
            Self::Wrong => "wrong",
        })
    }
}

impl fmt::Display for CallVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fates: Vec<String> = self.fates.iter().map(CallFate::to_string).collect();
        f.write_str(&fates.join(" or "))?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, ": {name}"))
    }
}
