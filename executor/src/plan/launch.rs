//! Effects to launch once their intents are durable, as plain data.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convergio_domain::id::{RunId, StepId};
use convergio_domain::run::{Fallback, Run, RunChild, RunOrigin, StepIntent, ToolCallNumber};
use convergio_eventstore::LoadedStream;
use serde_json::Value;

use super::outcome::EffectOutcome;
use crate::catalog::ModelRequirements;
use crate::provider::{Provider, ServiceCall};

/// A step that is about to start, or is over at once.
pub(crate) enum PreparedStep {
    /// The step starts; its effects are launched after the commit.
    Start { intent: StepIntent, launches: Vec<EffectLaunch> },
    /// The step is a map and expands to items.
    Expand { width: u32, max_parallel: u32, intent: StepIntent },
    /// The step needs no effect and is concluded in the same commit.
    Instant(EffectOutcome),
}

/// An effect to launch after its commit.
pub(crate) struct EffectLaunch {
    pub(crate) step: StepId,
    pub(crate) attempt: u32,
    /// The tool call of an agent, if it is one.
    pub(crate) tool_call: Option<ToolCallNumber>,
    pub(crate) timeout: Duration,
    pub(crate) work: EffectWork,
}

/// The work of an effect.
pub(crate) enum EffectWork {
    Tool {
        name: String,
        args: Value,
    },
    Model(ModelCall),
    /// Creates a child run, or lets it go on.
    Child(RunId),
}

/// A model call whose exact request is in the log already.
pub(crate) struct ModelCall {
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) model: String,
    pub(crate) body: Bytes,
    pub(crate) media_type: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Service other than chat, such as embeddings or speech.
    pub(crate) service: Option<ServiceCall>,
    pub(crate) idempotency_key: String,
    pub(crate) output_format: OutputFormat,
    pub(crate) fallback_context: Box<FallbackContext>,
}

/// Form in which an answer becomes the output of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// The answer's text, as a JSON string.
    Text,
    /// The text parsed as JSON.
    Json,
    /// The whole reply. It was streamed to the client piece by piece, so once begun it must not be
    /// restarted unnoticed.
    FullReply,
    /// The whole reply of a turn; another turn may follow.
    TurnReply,
}

/// Requirements of a step, from which another model can be chosen.
pub(crate) struct FallbackContext {
    /// Models that the manifest allows, in order of preference.
    pub(crate) models: Vec<String>,
    pub(crate) need: ModelRequirements,
    /// Name of the key that was used.
    pub(crate) key: Option<String>,
    /// Models that failed this step before.
    pub(crate) avoid: Vec<Fallback>,
    /// True if the manifest allows another attempt.
    pub(crate) is_repeatable: bool,
}

/// A child run that is about to be created.
pub(crate) struct NewChild {
    pub(crate) run: RunId,
    pub(crate) child: RunChild,
    pub(crate) origin: RunOrigin,
}

impl NewChild {
    /// Returns the child run of an effect, as its durable intent describes it.
    pub(crate) fn from_parent(parent: &LoadedStream<Run>, run: RunId) -> Option<Self> {
        let child = parent.state.children.get(&run)?.clone();
        let origin = RunOrigin {
            run: RunId(parent.stream.id),
            step: child.step.clone(),
            depth: parent.state.nesting_depth() + 1,
        };
        Some(Self { run, child, origin })
    }
}
