//! What is to become of an agent's tool call, as far as its manifest alone tells.

use std::fmt;

use convergio_domain::chat::ToolCall;
use convergio_domain::graph::manifest::Agent;

use super::toolbox::{Bad, Good, Tools};
use crate::memory::is_memory;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is made.
    Made,
    /// It is not allowed.
    Denied,
    /// There is no such tool, or the arguments are wrong.
    Wrong,
}

/// The verdict on a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    /// The tool, if there is one.
    name: Option<String>,
    /// What may become of the call: more than one thing where it depends on what is not in the
    /// manifest.
    fates: &'static [Fate],
}

/// The verdict on a call of an agent.
pub(crate) fn judged(agent: &Agent, call: &ToolCall) -> Judged {
    let tools = agent.toolbox.as_ref().map_or_else(Tools::none, Tools::of_manifest);
    let verdict = |name, fates| Judged { name, fates };
    match tools.check(call) {
        // Whose memory it is about depends on the inputs.
        Ok(Good::Builtin { name, .. }) if agent.memory.is_some() && is_memory(&name) => {
            verdict(Some(name), &[Fate::Made, Fate::Denied])
        }
        Ok(Good::Builtin { name, .. }) => verdict(Some(name), &[Fate::Made]),
        // What it would run may want other inputs, or be gone.
        Ok(Good::Run { name, .. } | Good::Spawn { name, .. }) => {
            verdict(Some(name), &[Fate::Made, Fate::Wrong])
        }
        Err(Bad::Denied { name }) => verdict(Some(name), &[Fate::Denied]),
        Err(Bad::Wrong { .. }) => verdict(None, &[Fate::Wrong]),
    }
}

impl Judged {
    /// Whether this may have become of the call.
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
