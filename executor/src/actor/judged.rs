//! The verdict on an agent's tool call, as far as its manifest alone decides it. Replay compares it
//! with the log.

use std::fmt;

use convergio_domain::chat::ToolCall;
use convergio_domain::graph::manifest::Agent;

use super::toolbox::{Bad, Good, Tools};
use crate::memory::is_memory;

/// Fate of a requested tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The call is made.
    Made,
    /// The agent may not call the tool.
    Denied,
    /// The tool does not exist, or the arguments do not fit.
    Wrong,
}

/// The verdict on a tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    /// Name of the tool, if it exists.
    name: Option<String>,
    /// Possible fates: several where inputs or registered graphs, which the manifest does not have,
    /// make the difference.
    fates: &'static [Fate],
}

/// Judges a requested call by the agent's manifest.
pub(crate) fn judged(agent: &Agent, call: &ToolCall) -> Judged {
    let tools = agent.toolbox.as_ref().map_or_else(Tools::none, Tools::of_manifest);
    let verdict = |name, fates| Judged { name, fates };
    match tools.check(call) {
        // The memory's subject depends on the run's inputs.
        Ok(Good::Builtin { name, .. }) if agent.memory.is_some() && is_memory(&name) => {
            verdict(Some(name), &[Fate::Made, Fate::Denied])
        }
        Ok(Good::Builtin { name, .. }) => verdict(Some(name), &[Fate::Made]),
        // The graph or agent that it runs may want other inputs, or be gone.
        Ok(Good::Run { name, .. } | Good::Spawn { name, .. }) => {
            verdict(Some(name), &[Fate::Made, Fate::Wrong])
        }
        Err(Bad::Denied { name }) => verdict(Some(name), &[Fate::Denied]),
        Err(Bad::Wrong { .. }) => verdict(None, &[Fate::Wrong]),
    }
}

impl Judged {
    /// Returns whether the recorded fate is one that the verdict allows.
    pub(crate) fn allows(&self, fate: Fate, name: Option<&str>) -> bool {
        self.fates.contains(&fate) && (name.is_none() || name == self.name.as_deref())
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Made => "made",
            Self::Denied => "denied",
            Self::Wrong => "wrong",
        })
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fates: Vec<String> = self.fates.iter().map(Fate::to_string).collect();
        f.write_str(&fates.join(" or "))?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, ": {name}"))
    }
}
