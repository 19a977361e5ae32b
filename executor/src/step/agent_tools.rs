//! The tools of one agent: their description for the model, and the check of requested calls.

use std::sync::Arc;

use convergio_domain::agent::{AgentNoun, agent_id};
use convergio_domain::chat::{ChatToolSpec, ToolCall};
use convergio_domain::expr::Allowance;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::{CalleeRef, SPAWN_TOOL, ToolRef, Toolbox};
use convergio_domain::graph::{ToolSpec as Described, check_inputs, check_inputs_within, graph_id};
use convergio_domain::id::{AgentId, GraphId, GraphVersion};
use convergio_domain::json::{JsonError, read_json};
use convergio_domain::platform_text;
use convergio_domain::stream::StreamKey;
use serde_json::{Map, Value, json};

use super::planner::Planner;
use crate::graphs::{CompiledGraph, GraphError};
use crate::outputs::OutputError;
use crate::plan::new_failure;
use crate::tool;

/// Maximum bytes of a call's arguments.
const ARGUMENTS_LIMIT: usize = 1 << 20;

/// The tools of one agent.
pub(super) struct AgentTools {
    tools: Vec<AgentTool>,
}

struct AgentTool {
    name: String,
    spec: ChatToolSpec,
    kind: ToolKind,
}

#[derive(Clone)]
enum ToolKind {
    Builtin,
    Spawn,
    Run(ChildTarget),
}

/// Graph that a call runs, or the graph of an agent.
#[derive(Clone)]
pub(super) struct ChildTarget {
    pub(super) graph: GraphId,
    pub(super) version: GraphVersion,
    pub(super) agent: Option<AgentId>,
    pub(super) compiled: Arc<CompiledGraph>,
}

/// A requested call that may be made.
pub(super) enum AllowedCall {
    /// A call of a built-in tool.
    Builtin { name: String, args: Value },
    /// A call that runs a graph.
    Run { name: String, target: Box<ChildTarget>, inputs: Value },
    /// A call that runs the agent or graph named by its arguments.
    Spawn { name: String, args: Value },
}

/// A requested call that is not made.
pub(super) enum RejectedCall {
    /// The agent may not call this tool.
    Denied { name: String },
    /// The tool does not exist, or the arguments do not fit; the text explains it to the model.
    Wrong { error: Box<UnsealedFailure>, text: String },
}

impl AgentTools {
    /// An agent without tools.
    pub(super) fn with_no_tools() -> Self {
        Self { tools: Vec::new() }
    }

    /// The tools as the manifest alone describes them: graphs and agents behind them are not
    /// resolved.
    pub(super) fn from_manifest(toolbox: &Toolbox) -> Self {
        let catalog = tool::builtin_catalog();
        let tools = toolbox.tools.iter().filter_map(|tool| match tool {
            ToolRef::Builtin(name) if name == SPAWN_TOOL => Some(spawn_tool(&toolbox.spawn)),
            ToolRef::Builtin(name) => Some(builtin_tool(catalog.get(name)?)),
            ToolRef::Agent(callee) => Some(unresolved_tool(&run_name("agent", callee))),
            ToolRef::Graph(callee) => Some(unresolved_tool(&run_name("graph", callee))),
        });
        Self { tools: tools.collect() }
    }

    /// Returns the specs that the request carries.
    pub(super) fn tool_specs(&self) -> Vec<ChatToolSpec> {
        self.tools.iter().map(|tool| tool.spec.clone()).collect()
    }

    /// Checks a requested call: name, permission and arguments.
    pub(super) fn check_call(&self, call: &ToolCall) -> Result<AllowedCall, RejectedCall> {
        // Models use the name on the wire, and sometimes the manifest's.
        let has_name = |tool: &&AgentTool| tool.name == call.name || tool.spec.name == call.name;
        let Some(tool) = self.tools.iter().find(has_name) else {
            return Err(self.reject_unknown_call(call));
        };
        if !self.is_permitted(&tool.name) {
            return Err(RejectedCall::Denied { name: tool.name.clone() });
        }
        let args = parse_arguments(call)?;
        let name = tool.name.clone();
        match &tool.kind {
            ToolKind::Builtin => match tool::check_call(&name, &args) {
                Ok(()) => Ok(AllowedCall::Builtin { name, args }),
                Err(error) => {
                    let text = error.full_text().to_owned();
                    Err(RejectedCall::Wrong { error: Box::new(error), text })
                }
            },
            // A graph chosen by the arguments has no schema of its own here.
            ToolKind::Spawn => match check_inputs(&tool.spec.parameters, &args) {
                mistakes if mistakes.is_empty() => Ok(AllowedCall::Spawn { name, args }),
                mistakes => Err(wrong_arguments(mistakes.join("; "))),
            },
            ToolKind::Run(target) => {
                // A check that may be expensive is left to the preparation of the child run.
                let allowance = &mut Allowance::IN_PLACE.clone();
                let mistakes = check_inputs_within(&tool.spec.parameters, &args, allowance);
                let mistakes = mistakes.unwrap_or_default();
                if !mistakes.is_empty() {
                    return Err(wrong_arguments(mistakes.join("; ")));
                }
                Ok(AllowedCall::Run { name, target: Box::new(target.clone()), inputs: args })
            }
        }
    }

    /// Returns whether the kernel permits the tool: all tools that the agent does not list are
    /// denied.
    fn is_permitted(&self, name: &str) -> bool {
        let allowed: Vec<String> = self.tools.iter().map(|tool| tool.name.clone()).collect();
        tool::check_permission(&allowed, name).is_ok()
    }

    /// Rejects a call of a tool that the agent does not have. One that exists elsewhere is denied,
    /// any other is unknown.
    fn reject_unknown_call(&self, call: &ToolCall) -> RejectedCall {
        let catalog = tool::builtin_catalog();
        let builtin = catalog
            .iter()
            .find(|spec| spec.name == call.name || wire_name(&spec.name) == call.name);
        let Some(spec) = builtin.filter(|spec| !self.is_permitted(&spec.name)) else {
            let names: Vec<&str> = self.tools.iter().map(|tool| tool.spec.name.as_str()).collect();
            let error = new_failure("tool.unknown", platform_text!("there is no such tool"));
            let text = format!("there is no such tool; the tools are {}", names.join(", "));
            return RejectedCall::Wrong { error: Box::new(error), text };
        };
        RejectedCall::Denied { name: spec.name.clone() }
    }
}

fn wrong_arguments(text: String) -> RejectedCall {
    let message = platform_text!("the arguments are not what the tool takes");
    let error = new_failure("tool.invalid", message);
    RejectedCall::Wrong { error: Box::new(error), text }
}

/// Parses the arguments that a model wrote; they must be an object.
fn parse_arguments(call: &ToolCall) -> Result<Value, RejectedCall> {
    if call.arguments.len() > ARGUMENTS_LIMIT {
        return Err(wrong_arguments(format!(
            "the arguments have more than {ARGUMENTS_LIMIT} bytes"
        )));
    }
    // Some models send an empty string for a call without arguments.
    if call.arguments.trim().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    match read_json(call.arguments.as_bytes()) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(wrong_arguments("the arguments must be a JSON object".to_owned())),
        Err(JsonError::WholeNumber(error)) => Err(wrong_arguments(error.to_string())),
        Err(error) => Err(wrong_arguments(format!("the arguments are not JSON: {error}"))),
    }
}

/// Returns a tool's name as every provider accepts it: without dots.
fn wire_name(name: &str) -> String {
    name.replace('.', "-")
}

impl Planner<'_> {
    /// Resolves the tools of an agent against the graphs and agents registered now.
    pub(super) async fn resolve_tools(
        &self,
        toolbox: Option<&Toolbox>,
    ) -> Result<AgentTools, OutputError> {
        let Some(toolbox) = toolbox else { return Ok(AgentTools::with_no_tools()) };
        let catalog = tool::builtin_catalog();
        let mut tools = Vec::with_capacity(toolbox.tools.len());
        for tool in &toolbox.tools {
            tools.push(match tool {
                ToolRef::Builtin(name) if name == SPAWN_TOOL => spawn_tool(&toolbox.spawn),
                ToolRef::Builtin(name) => {
                    builtin_tool(catalog.get(name).ok_or_else(|| unknown_tool_failure(name))?)
                }
                ToolRef::Agent(callee) => {
                    let target = self.agent_target(&callee.name).await?;
                    run_tool("agent", callee, target)
                }
                ToolRef::Graph(callee) => {
                    let target = self.graph_target(&callee.name, callee.version.as_ref()).await?;
                    run_tool("graph", callee, target)
                }
            });
        }
        Ok(AgentTools { tools })
    }

    /// Resolves a call of [`SPAWN_TOOL`]: an agent or a graph by name, among those that the
    /// manifest names.
    pub(super) async fn resolve_spawn(
        &self,
        toolbox: Option<&Toolbox>,
        args: &Value,
    ) -> Result<(ChildTarget, Value), OutputError> {
        check_spawn_granted(toolbox.map_or(&[], |toolbox| &toolbox.spawn), args)?;
        match (args["agent"].as_str(), args["graph"].as_str()) {
            (Some(name), None) => {
                let target = self.agent_target(name).await?;
                Ok((target, json!({"message": args["message"].as_str().unwrap_or("")})))
            }
            (None, Some(name)) => {
                let version = toolbox.and_then(|toolbox| pinned_version(&toolbox.spawn, name));
                let target = self.graph_target(name, version).await?;
                let inputs = args.get("inputs").cloned().unwrap_or_else(|| json!({}));
                Ok((target, inputs))
            }
            _ => {
                let message =
                    platform_text!("name an agent with its message, or a graph with its inputs");
                Err(OutputError::Failure(new_failure("tool.invalid", message)))
            }
        }
    }

    async fn agent_target(&self, name: &str) -> Result<ChildTarget, OutputError> {
        let tenant = &self.run.stream.tenant;
        let id = agent_id(tenant, name);
        let stream = StreamKey::for_agent(tenant.clone(), id);
        let loaded = self.shared.repository.load::<AgentNoun>(&stream).await?;
        let missing = || {
            let message = platform_text!("there is no such agent: see `convergio agents list`");
            OutputError::Failure(new_failure("graph.invalid", message))
        };
        let (graph, version) = loaded.state.runnable_graph().cloned().ok_or_else(missing)?;
        let compiled = self.compiled_graph(graph, &version).await?;
        Ok(ChildTarget { graph, version, agent: Some(id), compiled })
    }

    /// Resolves a registered graph and compiles it.
    pub(super) async fn graph_target(
        &self,
        name: &str,
        version: Option<&GraphVersion>,
    ) -> Result<ChildTarget, OutputError> {
        let (graph, version) = self.find_registered_graph(name, version).await?;
        let compiled = self.compiled_graph(graph, &version).await?;
        Ok(ChildTarget { graph, version, agent: None, compiled })
    }

    /// Finds a registered graph by name, in the given version or the latest one.
    async fn find_registered_graph(
        &self,
        name: &str,
        version: Option<&GraphVersion>,
    ) -> Result<(GraphId, GraphVersion), OutputError> {
        let tenant = &self.run.stream.tenant;
        let id = graph_id(tenant, name);
        let version_text = version.map(GraphVersion::as_str);
        let found = self.shared.use_cases().find_version(tenant, id, version_text).await?;
        let missing = || OutputError::Failure(missing_graph_failure(name, version));
        found.map(|(version, _)| (id, version)).ok_or_else(missing)
    }

    pub(super) async fn compiled_graph(
        &self,
        graph: GraphId,
        version: &GraphVersion,
    ) -> Result<Arc<CompiledGraph>, OutputError> {
        let (shared, tenant) = (&self.shared, &self.run.stream.tenant);
        let compiled = shared.graphs.get(&shared.repository, tenant, graph, version).await;
        compiled.map_err(|error| match error {
            // A broken graph is the step's failure; an unreadable log is not.
            GraphError::Log(error) => OutputError::Log(error),
            GraphError::Broken(failure) => OutputError::Failure(failure),
        })
    }
}

/// Checks that the manifest grants the agent or graph to be spawned.
fn check_spawn_granted(granted: &[ToolRef], args: &Value) -> Result<(), OutputError> {
    let is_granted = |tool: &ToolRef| match tool {
        ToolRef::Agent(callee) => args["agent"] == callee.name.as_str(),
        ToolRef::Graph(callee) => args["graph"] == callee.name.as_str(),
        ToolRef::Builtin(_) => false,
    };
    // Arguments that name neither fail later, with a message of their own.
    let is_named = args["agent"].is_string() || args["graph"].is_string();
    if !is_named || granted.iter().any(is_granted) {
        return Ok(());
    }
    let names: Vec<String> = granted.iter().map(spawn_name).collect();
    let message = platform_text!("the agent may run only what `spawn` names: {}", names.len());
    let detail = match names.is_empty() {
        true => "this agent may run nothing: the manifest names nothing in `spawn`".to_owned(),
        false => format!("this agent may run {} and nothing else", names.join(", ")),
    };
    Err(OutputError::Failure(new_failure("tool.denied", message).with_detail(detail)))
}

fn spawn_name(tool: &ToolRef) -> String {
    match tool {
        ToolRef::Builtin(name) => name.clone(),
        ToolRef::Agent(callee) => format!("the agent `{}`", callee.name),
        ToolRef::Graph(callee) => format!("the graph `{}`", callee.name),
    }
}

/// Returns the version that the manifest pins for a graph.
fn pinned_version<'a>(granted: &'a [ToolRef], name: &str) -> Option<&'a GraphVersion> {
    granted.iter().find_map(|tool| match tool {
        ToolRef::Graph(callee) if callee.name == name => callee.version.as_ref(),
        _ => None,
    })
}

fn missing_graph_failure(name: &str, version: Option<&GraphVersion>) -> UnsealedFailure {
    let (message, detail) = match version {
        Some(version) => (
            platform_text!("the graph has no version {}: register it first", version),
            format!("graph `{name}` has no version {version}: register it first"),
        ),
        None => (
            platform_text!("there is no such graph: register it first"),
            format!("there is no graph `{name}`: register it first"),
        ),
    };
    new_failure("graph.invalid", message).with_detail(detail)
}

fn unknown_tool_failure(name: &str) -> OutputError {
    let message = platform_text!("a tool of the agent does not exist");
    let detail = format!("there is no tool `{name}`");
    OutputError::Failure(new_failure("graph.invalid", message).with_detail(detail))
}

fn spawn_tool(granted: &[ToolRef]) -> AgentTool {
    let names: Vec<String> = granted.iter().map(spawn_name).collect();
    let description = format!(
        "Runs another agent with a message, or a graph with inputs, and answers with what it \
         yields. There are: {}.",
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    );
    let parameters = json!({
        "type": "object",
        "properties": {
            "agent": {"type": "string"},
            "message": {"type": "string"},
            "graph": {"type": "string"},
            "inputs": {"type": "object"},
        },
        "additionalProperties": false,
    });
    let spec = ChatToolSpec::new(wire_name(SPAWN_TOOL), description, parameters);
    AgentTool { name: SPAWN_TOOL.to_owned(), spec, kind: ToolKind::Spawn }
}

fn builtin_tool(spec: &Described) -> AgentTool {
    let name = spec.name.clone();
    let (description, parameters) = (spec.description.clone(), spec.arguments.clone());
    let spec = ChatToolSpec::new(wire_name(&name), description, parameters);
    AgentTool { name, spec, kind: ToolKind::Builtin }
}

/// A tool whose graph or agent is not resolved: any object may be its inputs.
fn unresolved_tool(name: &str) -> AgentTool {
    let spec = ChatToolSpec::new(wire_name(name), "", json!({}));
    AgentTool { name: name.to_owned(), spec, kind: ToolKind::Spawn }
}

fn run_name(kind: &str, callee: &CalleeRef) -> String {
    format!("{kind}.{}", callee.name)
}

fn run_tool(kind: &str, callee: &CalleeRef, target: ChildTarget) -> AgentTool {
    let graph = &target.compiled.graph;
    let description = callee.description.clone().or_else(|| graph.description.clone());
    let name = run_name(kind, callee);
    let spec =
        ChatToolSpec::new(wire_name(&name), description.unwrap_or_default(), graph.inputs.clone());
    AgentTool { name, spec, kind: ToolKind::Run(target) }
}
