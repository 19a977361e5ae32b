//! The graph manifest as a value: what `POST /v1/graphs` accepts, with every default filled in.
//!
//! Serialised, it is the canonical manifest whose hash is the graph's version.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chat::Privacy;
use crate::id::{GraphVersion, NodeId, SignalName};
use crate::run::Budget;
use crate::time::Span;

/// A valid graph. Built by [`crate::graph::parse`]; the parser checks what the types cannot say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// The name; with the tenant it decides the graph's id.
    pub name: String,
    /// What it is for, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of the inputs, an object.
    pub inputs: Value,
    /// What one run may spend.
    pub budget: Budget,
    /// The nodes, in the order of the manifest; their index is their number in the kernel.
    pub nodes: Vec<Node>,
    /// What a run yields: a value whose strings are templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// A node: what it does, when it may run, and what happens when it fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The name, unique in the graph.
    pub id: NodeId,
    /// Nodes that it waits for: the declared ones, then those that its templates refer to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<NodeId>,
    /// How many of its inputs must have succeeded.
    #[serde(default)]
    pub join: Join,
    /// How failed tries are repeated.
    #[serde(default)]
    pub retry: Retry,
    /// Longest time of one try, or of one wait; the kind's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// What follows when all tries failed.
    #[serde(default)]
    pub on_error: OnError,
    /// What follows when nobody knows what came of a try; absent means [`OnUnknown::Retry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unknown: Option<OnUnknown>,
    /// What it does.
    #[serde(flatten)]
    pub work: Work,
}

/// What follows when an executor died after the intent, so that the outcome is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// Another try; what the lost one may have used is recorded as unconfirmed.
    #[default]
    Retry,
    /// Another try if the effect is pure or its provider recognises the repeated call, else
    /// [`OnUnknown::Ask`].
    RetryIfIdempotent,
    /// The step waits until the outcome is told, as found in the provider's own records.
    Reconcile,
    /// The step waits until somebody decides.
    Ask,
}

/// How many of a node's inputs must have succeeded before it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// All of them; if one is skipped, so is the node.
    #[default]
    All,
    /// The first that succeeds.
    Any,
    /// This many.
    AtLeast(u32),
}

/// How failed tries are repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// Most tries, the first included.
    pub max: u32,
    /// Wait before the second try; doubles with each further one, up to [`BACKOFF_LIMIT`].
    pub backoff: Span,
    /// Failure codes that are repeated; empty means every retryable failure.
    pub on: Vec<String>,
}

/// Longest wait between two tries.
pub const BACKOFF_LIMIT: Span = Span::seconds(60);

impl Default for Retry {
    fn default() -> Self {
        Self { max: 3, backoff: Span::seconds(1), on: Vec::new() }
    }
}

/// What follows when all tries of a node failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The run fails.
    #[default]
    Fail,
    /// The node counts as skipped; the run goes on without it.
    Skip,
    /// Another node runs in its place, and its output stands for this one's.
    Fallback(NodeId),
    /// The step waits until somebody decides: retry, skip or fail.
    Ask,
}

/// What a node does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Asks a model.
    Agent(Agent),
    /// Calls a tool.
    Tool(Tool),
    /// Chooses which nodes run.
    Branch(Branch),
    /// Does the same work for each item of a list.
    Map(Map),
    /// Asks a person.
    Approval(Approval),
    /// Waits.
    Sleep(Sleep),
    /// Runs another graph.
    Graph(SubGraph),
    /// Asks a model for a graph, and runs it.
    Plan(Plan),
    /// Waits for an outside event.
    Signal(Signal),
}

/// A model call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// `auto` (the router chooses), a provider's name (`local`), or `PROVIDER/MODEL`.
    pub model: String,
    /// The system prompt, a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The user prompt, a template; empty when there is a `request`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// A whole conversation in place of the prompt: a template that yields a
    /// [`crate::chat::ChatRequest`]. The output is then a [`crate::chat::ChatReply`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Where the prompt may travel.
    #[serde(default, skip_serializing_if = "Privacy::is_any")]
    pub privacy: Privacy,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// Sampling temperature, 0 to 2; the provider's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// JSON Schema that the answer must satisfy; the output is then the parsed value, else the
    /// text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Tools that the model may call, turn by turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolbox: Option<Toolbox>,
    /// What it remembers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
}

impl Node {
    /// How long a node that waits may wait: the nearest of what was given for it. For a sleep that
    /// ends well it is its length.
    pub fn wait_limit(&self) -> Option<Span> {
        let own = match &self.work {
            Work::Approval(approval) => approval.ttl,
            Work::Signal(signal) => signal.timeout,
            Work::Sleep(sleep) => Some(sleep.span),
            _ => return None,
        };
        own.into_iter().chain(self.timeout).min()
    }

    /// Whether it is a sleep that its own `timeout` ends.
    pub fn sleeps_too_long(&self) -> bool {
        match &self.work {
            Work::Sleep(sleep) => self.timeout.is_some_and(|timeout| timeout < sleep.span),
            _ => false,
        }
    }
}

impl Agent {
    /// Whether it goes in turns: it has tools, or recalls something first.
    pub fn has_turns(&self) -> bool {
        self.toolbox.is_some() || self.memory.is_some()
    }
}

/// Tools of an agent, and how far it may go with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolbox {
    /// The tools.
    pub tools: Vec<ToolRef>,
    /// The agents and graphs that [`SPAWN_TOOL`] may run: nothing else, and nothing by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spawn: Vec<ToolRef>,
    /// What bounds the agent.
    #[serde(flatten)]
    pub limits: TurnLimits,
}

/// What bounds an agent with tools, besides its node's `timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnLimits {
    /// Most model calls.
    pub max_turns: u32,
    /// Most tool calls.
    pub max_tool_calls: u32,
    /// Most tokens, in and out, of all turns.
    pub max_total_tokens: u64,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self { max_turns: 20, max_tool_calls: 50, max_total_tokens: 100_000 }
    }
}

/// A tool of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolRef {
    /// A built-in tool by its name, or [`SPAWN_TOOL`].
    Builtin(String),
    /// A registered agent.
    Agent(Callee),
    /// A registered graph.
    Graph(Callee),
}

/// The tool by which an agent runs the agents and graphs that its `spawn` names.
pub const SPAWN_TOOL: &str = "agent.spawn";

/// The tool that recalls what an agent remembers.
pub const RECALL_TOOL: &str = "memory.recall";

/// What a tool of an agent runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callee {
    /// Its name.
    pub name: String,
    /// The version of a graph; the latest one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<GraphVersion>,
    /// What it is for, told to the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What an agent remembers: recalled before its first turn, and told with the system prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Whose memory: a template.
    pub subject: String,
    /// What is looked for: a template; the prompt when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Most tokens that are recalled.
    pub max_tokens: u32,
}

/// A run of another graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubGraph {
    /// The graph's name.
    pub name: String,
    /// The pinned version; the latest one when the step begins, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<GraphVersion>,
    /// The inputs, an object whose strings are templates.
    pub inputs: Value,
    /// What it may spend, within what this run has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// An agent that proposes a graph, which is checked, registered and run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Who proposes.
    pub agent: Agent,
    /// Most proposals.
    pub max_turns: u32,
    /// The inputs of the graph, an object whose strings are templates.
    pub inputs: Value,
    /// What the graph may spend, within what this run has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// What the graph may use.
    #[serde(default, skip_serializing_if = "Grants::is_empty")]
    pub grants: Grants,
}

/// What a graph that a model proposes may use. Nothing else, and nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Tools, agents and graphs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolRef>,
    /// Whose memory: a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_subject: Option<String>,
}

/// A tool call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// The tool's name, as `text.split`.
    pub name: String,
    /// The arguments, an object whose strings are templates.
    pub with: Value,
}

/// A choice between ways. The first case whose condition holds is taken, else `otherwise`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// The cases in order.
    pub cases: Vec<Case>,
    /// Nodes that run when no condition holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub otherwise: Vec<NodeId>,
}

/// One way of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// A condition in CEL over `inputs` and `nodes`.
    pub when: String,
    /// Nodes that run when it holds.
    pub to: Vec<NodeId>,
}

/// The same work for each item of a list. The output is the list of the items' outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Map {
    /// The list: a template that yields one.
    pub over: String,
    /// Most items in flight at once.
    pub max_parallel: u32,
    /// What is done with `item` (its number is `index`): an agent or a tool.
    #[serde(flatten)]
    pub work: MapWork,
}

/// What a map does with each item.
#[expect(clippy::large_enum_variant, reason = "a graph has few maps")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapWork {
    /// Asks a model.
    Agent(Agent),
    /// Calls a tool.
    Tool(Tool),
}

/// A question to a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Who may answer.
    pub role: String,
    /// What is shown and approved: a template.
    pub show: String,
    /// How long the question stands; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
}

/// A wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sleep {
    /// How long.
    #[serde(rename = "for")]
    pub span: Span,
}

/// A wait for an outside event, whose payload is the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The name of the event.
    pub name: SignalName,
    /// How long; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

impl Graph {
    /// The signals that its nodes wait for, in order, each once.
    pub fn signal_names(&self) -> Vec<SignalName> {
        let names = self.nodes.iter().filter_map(|node| match &node.work {
            Work::Signal(signal) => Some(signal.name.clone()),
            _ => None,
        });
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The node of a name.
    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == *id)
    }
}
