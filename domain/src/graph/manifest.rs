//! The types of the graph manifest: what `POST /v1/graphs` accepts, with every default filled in.
//!
//! Serialised, they are the canonical manifest whose hash is the graph's version: a field's name or
//! default can never change for manifests that exist.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chat::Privacy;
use crate::id::{GraphVersion, NodeId, SignalName};
use crate::run::Budget;
use crate::time::Span;

/// A valid graph. Built by [`crate::graph::parse_manifest`], which checks what the types cannot
/// say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// Name; with the tenant it decides the graph's id.
    pub name: String,
    /// Purpose, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of the inputs, an object.
    pub inputs: Value,
    /// Limits of one run.
    pub budget: Budget,
    /// Nodes in the order of the manifest; their index is their number in the kernel.
    pub nodes: Vec<GraphNode>,
    /// Output of a run: a value whose strings are templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// A node: its work, when it may run, and what happens when it fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphNode {
    /// Name, unique in the graph.
    pub id: NodeId,
    /// Nodes that it waits for: the declared ones, then those that its templates refer to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<NodeId>,
    /// Number of inputs that must have succeeded before it runs.
    #[serde(default)]
    pub join: Join,
    /// Policy for repeating failed tries.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// Longest time of one try, or of one wait; the kind's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Policy once all tries have failed.
    #[serde(default)]
    pub on_error: OnError,
    /// Policy for a try whose outcome is unknown; absent means [`OnUnknown::Retry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unknown: Option<OnUnknown>,
    /// The node's kind and that kind's own fields.
    #[serde(flatten)]
    pub work: NodeWork,
}

/// Policy for a try whose outcome is unknown because its executor died after the intent was logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// Retries; what the lost try may have used is recorded as unconfirmed.
    #[default]
    Retry,
    /// Retries if the effect is pure or the provider recognises a repeated call, else as
    /// [`OnUnknown::Ask`].
    RetryIfIdempotent,
    /// Waits until the outcome is reported, as found in the provider's own records.
    Reconcile,
    /// Waits until a person decides.
    Ask,
}

/// Number of a node's inputs that must have succeeded before it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// All of them; if one is skipped, so is the node.
    #[default]
    All,
    /// The first that succeeds.
    Any,
    /// At least this many.
    AtLeast(u32),
}

/// Policy for repeating failed tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryPolicy {
    /// Most tries, the first included.
    pub max: u32,
    /// Wait before the second try; doubles with each further one, up to [`BACKOFF_LIMIT`].
    pub backoff: Span,
    /// Failure codes that are repeated; empty means every retryable failure.
    pub on: Vec<String>,
}

/// Longest wait between two tries.
pub const BACKOFF_LIMIT: Span = Span::from_seconds(60);

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max: 3, backoff: Span::from_seconds(1), on: Vec::new() }
    }
}

/// Policy once all tries of a node have failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Fails the run.
    #[default]
    Fail,
    /// Counts the node as skipped; the run goes on without it.
    Skip,
    /// Runs another node in its place, whose output stands for this one's.
    Fallback(NodeId),
    /// Waits until a person decides: retry, skip or fail.
    Ask,
}

/// Work of a node, by kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeWork {
    /// Calls a model, in turns if it has tools.
    Agent(Agent),
    /// Calls one tool.
    Tool(ToolInvocation),
    /// Chooses which nodes run.
    Branch(BranchNode),
    /// Repeats an agent or a tool for each item of a list.
    Map(MapNode),
    /// Asks a person for approval.
    Approval(ApprovalNode),
    /// Waits for a span of time.
    Sleep(SleepNode),
    /// Runs another graph as a child run.
    Graph(SubGraph),
    /// Lets a model propose a graph, and runs it.
    Plan(PlanNode),
    /// Waits for an outside event.
    Signal(SignalNode),
}

impl NodeWork {
    /// Returns the tool whose call is a whole step: the node's, or that of each item of a map.
    pub fn step_tool(&self) -> Option<&ToolInvocation> {
        match self {
            Self::Tool(tool) => Some(tool),
            Self::Map(MapNode { work: MapWork::Tool(tool), .. }) => Some(tool),
            _ => None,
        }
    }
}

/// A model call with its prompts and limits.
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
    /// Places where the prompt may be sent.
    #[serde(default, skip_serializing_if = "Privacy::is_any")]
    pub privacy: Privacy,
    /// Most tokens of one answer.
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
    /// Memory recalled before the first turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<AgentMemory>,
}

impl GraphNode {
    /// Returns the longest time that a waiting node may wait: the shortest of its limits. For a
    /// sleep that ends well it is the sleep's length.
    pub fn wait_limit(&self) -> Option<Span> {
        let own = match &self.work {
            NodeWork::Approval(approval) => approval.ttl,
            NodeWork::Signal(signal) => signal.timeout,
            NodeWork::Sleep(sleep) => Some(sleep.span),
            _ => return None,
        };
        own.into_iter().chain(self.timeout).min()
    }

    /// True if this is a sleep that its own `timeout` cuts short.
    pub fn sleeps_too_long(&self) -> bool {
        match &self.work {
            NodeWork::Sleep(sleep) => self.timeout.is_some_and(|timeout| timeout < sleep.span),
            _ => false,
        }
    }
}

impl Agent {
    /// True if the agent runs in turns: it has tools, or recalls memory first.
    pub fn has_turns(&self) -> bool {
        self.toolbox.is_some() || self.memory.is_some()
    }
}

/// Tools of an agent, and the limits of using them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolbox {
    /// Tools, agents and graphs that the model may call.
    pub tools: Vec<ToolRef>,
    /// The agents and graphs that [`SPAWN_TOOL`] may run; none by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spawn: Vec<ToolRef>,
    /// Limits over all turns of the agent.
    #[serde(flatten)]
    pub limits: TurnLimits,
}

/// Limits of an agent with tools, besides its node's `timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnLimits {
    /// Most model calls of the agent.
    pub max_turns: u32,
    /// Most tool calls of the agent.
    pub max_tool_calls: u32,
    /// Most tokens, in and out, of all turns.
    pub max_total_tokens: u64,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self { max_turns: 20, max_tool_calls: 50, max_total_tokens: 100_000 }
    }
}

/// Reference to a tool of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolRef {
    /// A built-in tool by its name, or [`SPAWN_TOOL`].
    Builtin(String),
    /// A registered agent as a tool.
    Agent(CalleeRef),
    /// A registered graph as a tool.
    Graph(CalleeRef),
}

/// Tool by which an agent runs the agents and graphs of its `spawn` list.
pub const SPAWN_TOOL: &str = "agent.spawn";

/// Tool that recalls what an agent remembers.
pub const RECALL_TOOL: &str = "memory.recall";

/// Reference to an agent or a graph that a tool runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalleeRef {
    /// Registered name of the agent or graph.
    pub name: String,
    /// Pinned version of a graph; the latest one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<GraphVersion>,
    /// Purpose, told to the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Memory of an agent: recalled before its first turn, and added to the system prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentMemory {
    /// Subject whose memory it is: a template.
    pub subject: String,
    /// Text to be looked for: a template; the prompt when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Most tokens that are recalled.
    pub max_tokens: u32,
}

/// A child run of another graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubGraph {
    /// Name of the registered graph.
    pub name: String,
    /// Pinned version; the latest one when the step begins, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<GraphVersion>,
    /// Inputs: an object whose strings are templates.
    pub inputs: Value,
    /// Budget of the child, within what this run has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// An agent that proposes a graph, which is checked, registered and run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanNode {
    /// The agent that proposes.
    pub agent: Agent,
    /// Most proposals until one is valid.
    pub max_turns: u32,
    /// Inputs of the proposed graph: an object whose strings are templates.
    pub inputs: Value,
    /// Budget of the child run, within what this run has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Tools, agents, graphs and memory that the proposed graph may use.
    #[serde(default, skip_serializing_if = "Grants::is_empty")]
    pub grants: Grants,
}

/// What a proposed graph may use: nothing else, and nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Tools, agents and graphs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolRef>,
    /// Subject whose memory may be used: a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_subject: Option<String>,
}

/// A call of one tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolInvocation {
    /// Name of the tool, as `text.split`.
    pub name: String,
    /// Arguments: an object whose strings are templates.
    pub with: Value,
}

/// A choice between cases. The first case whose condition holds is taken, else `otherwise`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchNode {
    /// Cases in the order in which they are tried.
    pub cases: Vec<BranchCase>,
    /// Nodes that run when no condition holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub otherwise: Vec<NodeId>,
}

/// One case of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchCase {
    /// Condition in CEL over `inputs` and `nodes`.
    pub when: String,
    /// Nodes that run when it holds.
    pub to: Vec<NodeId>,
}

/// The same work for each item of a list. The output is the list of the items' outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapNode {
    /// Template that yields the list.
    pub over: String,
    /// Most items in flight at once.
    pub max_parallel: u32,
    /// Work on each `item` (its number is `index`): an agent or a tool.
    #[serde(flatten)]
    pub work: MapWork,
}

/// Work of a map on each item.
#[expect(clippy::large_enum_variant, reason = "a graph has few maps")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapWork {
    /// Calls a model for each item.
    Agent(Agent),
    /// Calls a tool for each item.
    Tool(ToolInvocation),
}

/// A question to a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalNode {
    /// Role that may answer.
    pub role: String,
    /// Content that is shown and approved: a template.
    pub show: String,
    /// Time after which the question lapses; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
}

/// A wait for a span of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SleepNode {
    /// Length of the wait.
    #[serde(rename = "for")]
    pub span: Span,
}

/// A wait for an outside event, whose payload is the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalNode {
    /// Name of the event.
    pub name: SignalName,
    /// Longest wait; unlimited when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

impl Graph {
    /// The signals that its nodes wait for, in order, each once.
    pub fn signal_names(&self) -> Vec<SignalName> {
        let names = self.nodes.iter().filter_map(|node| match &node.work {
            NodeWork::Signal(signal) => Some(signal.name.clone()),
            _ => None,
        });
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Returns the node with this id.
    pub fn find_node(&self, id: &NodeId) -> Option<&GraphNode> {
        self.nodes.iter().find(|node| node.id == *id)
    }
}
