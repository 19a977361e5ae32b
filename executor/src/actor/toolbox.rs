//! The tools of one agent: their description for the model, and the check of requested calls.

use std::sync::Arc;

use convergio_domain::agent::{AgentNoun, agent_id};
use convergio_domain::chat::{ToolCall, ToolSpec};
use convergio_domain::expr::Allowance;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::{Callee as CalleeRef, SPAWN_TOOL, ToolRef, Toolbox};
use convergio_domain::graph::{ToolSpec as Described, check_inputs, check_inputs_within};
use convergio_domain::id::{AgentId, GraphId, GraphVersion};
use convergio_domain::json::{JsonError, read_json};
use convergio_domain::platform_text;
use convergio_domain::stream::StreamKey;
use serde_json::{Map, Value, json};

use super::children::registered;
use super::effect::failure;
use super::{Actor, ActorError};
use crate::graphs::{CompiledGraph, GraphError};
use crate::outputs::OutputError;
use crate::tool;

/// Maximum bytes of a call's arguments.
const ARGUMENTS_LIMIT: usize = 1 << 20;

/// The tools of one agent.
pub(super) struct Tools {
    tools: Vec<Tool>,
}

struct Tool {
    name: String,
    spec: ToolSpec,
    does: Does,
}

#[derive(Clone)]
enum Does {
    Builtin,
    Spawn,
    Run(Target),
}

/// Graph that a call runs, or the graph of an agent.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) graph: GraphId,
    pub(super) version: GraphVersion,
    pub(super) agent: Option<AgentId>,
    pub(super) compiled: Arc<CompiledGraph>,
}

/// A requested call that may be made.
pub(super) enum Good {
    /// A call of a built-in tool.
    Builtin { name: String, args: Value },
    /// A call that runs a graph.
    Run { name: String, target: Box<Target>, inputs: Value },
    /// A call that runs the agent or graph named by its arguments.
    Spawn { name: String, args: Value },
}

/// A requested call that is not made.
pub(super) enum Bad {
    /// The agent may not call this tool.
    Denied { name: String },
    /// The tool does not exist, or the arguments do not fit; the text explains it to the model.
    Wrong { error: Box<UnsealedFailure>, text: String },
}

impl Tools {
    /// An agent without tools.
    pub(super) fn none() -> Self {
        Self { tools: Vec::new() }
    }

    /// The tools as the manifest alone describes them: graphs and agents behind them are not
    /// resolved.
    pub(super) fn of_manifest(toolbox: &Toolbox) -> Self {
        let catalog = tool::catalog();
        let tools = toolbox.tools.iter().filter_map(|tool| match tool {
            ToolRef::Builtin(name) if name == SPAWN_TOOL => Some(spawn_tool(&toolbox.spawn)),
            ToolRef::Builtin(name) => Some(builtin_tool(catalog.get(name)?)),
            ToolRef::Agent(callee) => Some(unknown_tool(&run_name("agent", callee))),
            ToolRef::Graph(callee) => Some(unknown_tool(&run_name("graph", callee))),
        });
        Self { tools: tools.collect() }
    }

    /// Returns the specs that the request carries.
    pub(super) fn specs(&self) -> Vec<ToolSpec> {
        self.tools.iter().map(|tool| tool.spec.clone()).collect()
    }

    /// Checks a requested call: name, permission and arguments.
    pub(super) fn check(&self, call: &ToolCall) -> Result<Good, Bad> {
        // Models use the name on the wire, and sometimes the manifest's.
        let is_it = |tool: &&Tool| tool.name == call.name || tool.spec.name == call.name;
        let Some(tool) = self.tools.iter().find(is_it) else { return Err(self.refuse(call)) };
        if !self.permits(&tool.name) {
            return Err(Bad::Denied { name: tool.name.clone() });
        }
        let args = arguments(call)?;
        let name = tool.name.clone();
        match &tool.does {
            Does::Builtin => match tool::check(&name, &args) {
                Ok(()) => Ok(Good::Builtin { name, args }),
                Err(error) => {
                    let text = error.full_text().to_owned();
                    Err(Bad::Wrong { error: Box::new(error), text })
                }
            },
            // A graph chosen by the arguments has no schema of its own here.
            Does::Spawn => match check_inputs(&tool.spec.parameters, &args) {
                mistakes if mistakes.is_empty() => Ok(Good::Spawn { name, args }),
                mistakes => Err(wrong(mistakes.join("; "))),
            },
            Does::Run(target) => {
                // A check that may be expensive is left to the preparation of the child run.
                let allowance = &mut Allowance::IN_PLACE.clone();
                let mistakes = check_inputs_within(&tool.spec.parameters, &args, allowance);
                let mistakes = mistakes.unwrap_or_default();
                if !mistakes.is_empty() {
                    return Err(wrong(mistakes.join("; ")));
                }
                Ok(Good::Run { name, target: Box::new(target.clone()), inputs: args })
            }
        }
    }

    /// Returns whether the kernel permits the tool: all tools that the agent does not list are
    /// denied.
    fn permits(&self, name: &str) -> bool {
        let allowed: Vec<String> = self.tools.iter().map(|tool| tool.name.clone()).collect();
        tool::permit(&allowed, name).is_ok()
    }

    /// Rejects a call of a tool that the agent does not have. One that exists elsewhere is denied,
    /// any other is unknown.
    fn refuse(&self, call: &ToolCall) -> Bad {
        let known = tool::catalog();
        let known =
            known.iter().find(|spec| spec.name == call.name || wire(&spec.name) == call.name);
        let Some(spec) = known.filter(|spec| !self.permits(&spec.name)) else {
            let names: Vec<&str> = self.tools.iter().map(|tool| tool.spec.name.as_str()).collect();
            let error = failure("tool.unknown", platform_text!("there is no such tool"));
            let text = format!("there is no such tool; the tools are {}", names.join(", "));
            return Bad::Wrong { error: Box::new(error), text };
        };
        Bad::Denied { name: spec.name.clone() }
    }
}

fn wrong(text: String) -> Bad {
    let message = platform_text!("the arguments are not what the tool takes");
    let error = failure("tool.invalid", message);
    Bad::Wrong { error: Box::new(error), text }
}

/// Parses the arguments that a model wrote; they must be an object.
fn arguments(call: &ToolCall) -> Result<Value, Bad> {
    if call.arguments.len() > ARGUMENTS_LIMIT {
        return Err(wrong(format!("the arguments have more than {ARGUMENTS_LIMIT} bytes")));
    }
    // Some models send an empty string for a call without arguments.
    if call.arguments.trim().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    match read_json(call.arguments.as_bytes()) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(wrong("the arguments must be a JSON object".to_owned())),
        Err(JsonError::WholeNumber(error)) => Err(wrong(error.to_string())),
        Err(error) => Err(wrong(format!("the arguments are not JSON: {error}"))),
    }
}

/// Returns a tool's name as every provider accepts it: without dots.
fn wire(name: &str) -> String {
    name.replace('.', "-")
}

impl Actor {
    /// Resolves the tools of an agent against the graphs and agents registered now.
    pub(super) async fn tools(&self, toolbox: Option<&Toolbox>) -> Result<Tools, OutputError> {
        let Some(toolbox) = toolbox else { return Ok(Tools::none()) };
        let catalog = tool::catalog();
        let mut tools = Vec::with_capacity(toolbox.tools.len());
        for tool in &toolbox.tools {
            tools.push(match tool {
                ToolRef::Builtin(name) if name == SPAWN_TOOL => spawn_tool(&toolbox.spawn),
                ToolRef::Builtin(name) => {
                    builtin_tool(catalog.get(name).ok_or_else(|| unknown(name))?)
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
        Ok(Tools { tools })
    }

    /// Resolves a call of [`SPAWN_TOOL`]: an agent or a graph by name, among those that the
    /// manifest names.
    pub(super) async fn spawned(
        &self,
        toolbox: Option<&Toolbox>,
        args: &Value,
    ) -> Result<(Target, Value), OutputError> {
        check_spawn(toolbox.map_or(&[], |toolbox| &toolbox.spawn), args)?;
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
                Err(OutputError::Failure(failure("tool.invalid", message)))
            }
        }
    }

    async fn agent_target(&self, name: &str) -> Result<Target, OutputError> {
        let tenant = &self.run.stream.tenant;
        let id = agent_id(tenant, name);
        let stream = StreamKey::agent(tenant.clone(), id);
        let loaded = self.shared.repository.load::<AgentNoun>(&stream).await?;
        let missing = || {
            let message = platform_text!("there is no such agent: see `convergio agents list`");
            OutputError::Failure(failure("graph.invalid", message))
        };
        let (graph, version) = loaded.state.runnable().cloned().ok_or_else(missing)?;
        let compiled = self.compiled(graph, &version).await?;
        Ok(Target { graph, version, agent: Some(id), compiled })
    }

    /// Resolves a registered graph and compiles it.
    pub(super) async fn graph_target(
        &self,
        name: &str,
        version: Option<&GraphVersion>,
    ) -> Result<Target, OutputError> {
        let found = registered(&self.shared, &self.run.stream, name, version).await?;
        let (graph, version) = found.map_err(OutputError::Failure)?;
        let compiled = self.compiled(graph, &version).await?;
        Ok(Target { graph, version, agent: None, compiled })
    }

    pub(super) async fn compiled(
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

impl From<OutputError> for ActorError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Log(error) => Self::Log(error),
            OutputError::Failure(failure) => Self::Failure(failure),
            OutputError::Evaluation(job) => Self::Evaluation(job),
        }
    }
}

/// Checks that the manifest grants the agent or graph to be spawned.
fn check_spawn(granted: &[ToolRef], args: &Value) -> Result<(), OutputError> {
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
    Err(OutputError::Failure(failure("tool.denied", message).with_detail(detail)))
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

fn unknown(name: &str) -> OutputError {
    let message = platform_text!("a tool of the agent does not exist");
    let detail = format!("there is no tool `{name}`");
    OutputError::Failure(failure("graph.invalid", message).with_detail(detail))
}

fn spawn_tool(granted: &[ToolRef]) -> Tool {
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
    let spec = ToolSpec::new(wire(SPAWN_TOOL), description, parameters);
    Tool { name: SPAWN_TOOL.to_owned(), spec, does: Does::Spawn }
}

fn builtin_tool(spec: &Described) -> Tool {
    let name = spec.name.clone();
    let (description, parameters) = (spec.description.clone(), spec.arguments.clone());
    let spec = ToolSpec::new(wire(&name), description, parameters);
    Tool { name, spec, does: Does::Builtin }
}

/// A tool whose graph or agent is not resolved: any object may be its inputs.
fn unknown_tool(name: &str) -> Tool {
    let spec = ToolSpec::new(wire(name), "", json!({}));
    Tool { name: name.to_owned(), spec, does: Does::Spawn }
}

fn run_name(kind: &str, callee: &CalleeRef) -> String {
    format!("{kind}.{}", callee.name)
}

fn run_tool(kind: &str, callee: &CalleeRef, target: Target) -> Tool {
    let graph = &target.compiled.graph;
    let description = callee.description.clone().or_else(|| graph.description.clone());
    let name = run_name(kind, callee);
    let spec = ToolSpec::new(wire(&name), description.unwrap_or_default(), graph.inputs.clone());
    Tool { name, spec, does: Does::Run(target) }
}
