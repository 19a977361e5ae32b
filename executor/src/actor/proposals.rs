//! Graphs that a model proposes: read from its answer, checked against its grants, and run as child
//! runs.

use convergio_domain::chat::ChatReply;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::{Callee, Grants, Graph, Plan as PlanNode, ToolRef};
use convergio_domain::graph::{self, Mistake, ToolSpec, find_beyond_grants};
use convergio_domain::id::StepId;
use convergio_domain::json::read_json;
use convergio_domain::platform_text;
use convergio_domain::run::{Budget, Intent, Next};
use serde_json::{Value, json};

use super::children::{Callee as ChildGraph, Wanted};
use super::effect::{Done, failure};
use super::places::PlaceKind;
use super::plan::Plan;
use super::turns::At;
use super::{Actor, ActorError};
use crate::outputs::{Extra, OutputError};
use crate::tool;

/// Maximum nodes of a proposed graph.
const NODES_LIMIT: usize = 64;
/// Maximum mistakes that a model is told of at once.
const MISTAKES_LIMIT: usize = 20;
/// Name of the tool call that stands for checking and running a proposal.
const RUN: &str = "graph.run";

/// Instructions for a model that proposes graphs, before the list of its grants.
const INSTRUCTIONS: &str = include_str!("proposals.txt");

/// Builds the instructions for a model that proposes graphs. The memory subject of the grants must
/// have been rendered.
pub(super) fn instructions(grants: &Grants) -> String {
    let mut text = INSTRUCTIONS.to_owned();
    let lines: Vec<String> = grants.tools.iter().filter_map(grant_line).collect();
    match lines.is_empty() {
        true => text.push_str("There are no tools.\n"),
        false => text.extend(["Tools:\n".to_owned()].into_iter().chain(lines)),
    }
    if let Some(subject) = &grants.memory_subject {
        text.push_str(&format!("The subject of memory is {subject}, and no other one.\n"));
    }
    text
}

/// Describes how a granted tool, agent or graph is used in a proposal.
fn grant_line(tool: &ToolRef) -> Option<String> {
    let callee_line = |kind: &str, form: &str, callee: &Callee| {
        let does = callee.description.as_deref().unwrap_or_default();
        format!("- {kind} {}: {does} {form}\n", callee.name)
    };
    Some(match tool {
        ToolRef::Builtin(name) => {
            let catalog = tool::catalog();
            let ToolSpec { name, description, arguments } = catalog.get(name)?;
            format!("- {name}: {description} Arguments: {arguments}\n")
        }
        ToolRef::Graph(callee) => {
            let form = r#"As a node: {"id": NAME, "graph": {"name": GRAPH, "inputs": {}}}"#;
            callee_line("the graph", form, callee)
        }
        ToolRef::Agent(callee) => {
            let form = r#"As a tool of an agent: "tools": [{"agent": AGENT}]"#;
            callee_line("the agent", form, callee)
        }
    })
}

impl Actor {
    /// Handles a model's proposal: a valid graph is run, mistakes go back to the model.
    pub(super) async fn proposed(
        &mut self,
        plan: &mut Plan,
        done: &Done,
        reply: Box<ChatReply>,
        node: &PlanNode,
    ) -> Result<(), ActorError> {
        let at = self.take_answer(plan, done, reply);
        let text = plan.reply(&at.step).map(|reply| reply.text.clone()).unwrap_or_default();
        let name = self.proposal_name(&at);
        let proposal = self.read_granted_proposal(plan, &at, node, (&text, &name)).await?;
        let checked = match proposal {
            Ok(_) if !plan.places.has_place(PlaceKind::ChildRun) => {
                plan.queue_tool(&at, RUN.to_owned());
                return Ok(());
            }
            Ok(graph) => self.run_proposal(plan, &at, node, &graph, false).await?,
            Err(mistakes) => Err((invalid(mistakes.len()), shown(&mistakes))),
        };
        if let Err((error, told)) = checked {
            plan.tool_failed(&at, error, told);
        }
        self.after_calls(plan, &at).await
    }

    /// Runs a proposal that waited for capacity.
    pub(super) async fn run_queued_proposal(
        &mut self,
        plan: &mut Plan,
        at: &At,
        node: &PlanNode,
        text: &str,
    ) -> Result<(), ActorError> {
        let name = self.proposal_name(at);
        // Checked again: what the graph names may have changed since.
        let proposal = self.read_granted_proposal(plan, at, node, (text, &name)).await?;
        let checked = match proposal {
            Ok(graph) => self.run_proposal(plan, at, node, &graph, true).await?,
            Err(mistakes) => Err((invalid(mistakes.len()), shown(&mistakes))),
        };
        if let Err((error, told)) = checked {
            plan.tool_failed(at, error, told);
        }
        Ok(())
    }

    async fn run_proposal(
        &mut self,
        plan: &mut Plan,
        at: &At,
        node: &PlanNode,
        graph: &Graph,
        is_queued: bool,
    ) -> Result<Result<(), (UnsealedFailure, String)>, ActorError> {
        let extra = std::mem::take(&mut plan.extra);
        let inputs = self.rendered(&at.step, &node.inputs, &extra).await;
        plan.extra = extra;
        let inputs = match inputs {
            Ok(inputs) => inputs,
            Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                return Err(error.into());
            }
            Err(OutputError::Failure(error)) => {
                let text = error.full_text().to_owned();
                return Ok(Err((error, text)));
            }
        };
        let tenant = &self.run.stream.tenant;
        let callee = ChildGraph {
            graph: graph::graph_id(tenant, &graph.name),
            version: graph.version(),
            manifest: graph,
            agent: None,
            is_new: true,
        };
        let left = Some(self.time_left(&at.step));
        let limit = Budget { wall: left, deadline: left, ..UNBOUND };
        let wanted = Wanted {
            step: at.step.clone(),
            attempt: at.attempt,
            at: Some(at.call),
            inputs,
            budget: node.budget.unwrap_or(UNBOUND).within(limit),
            // One share stays for a better proposal, should this one fail.
            shares: self.spenders() + 1,
            privacy: node.agent.privacy,
        };
        Ok(match self.child(plan, &callee, wanted).await {
            Ok((intent, launch)) => {
                if !is_queued {
                    plan.begin_tool(at, RUN.to_owned());
                }
                plan.next(at, Next::Begin(Intent::Child(intent)), Some(launch));
                Ok(())
            }
            Err(OutputError::Failure(error)) => {
                let text = error.full_text().to_owned();
                Err((error, text))
            }
            Err(error) => return Err(error.into()),
        })
    }

    /// Returns the name of graphs that this node proposes, unique to it.
    fn proposal_name(&self, at: &At) -> String {
        let of = format!("{}/{}", self.graph.graph.name, at.step.node);
        format!("plan-{}", &blake3_hex(&of)[..16])
    }

    /// Renders the templates of a value in the scope of a step.
    pub(super) async fn rendered(
        &mut self,
        step: &StepId,
        value: &Value,
        extra: &Extra,
    ) -> Result<Value, OutputError> {
        let scope = self.scope_of(step, extra).await?;
        self.render(value, &scope).await
    }
}

/// No limit set by the caller.
pub(super) const UNBOUND: Budget = Budget::UNBOUND;

fn blake3_hex(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Actor {
    /// Returns the grants of a plan node, with the memory subject rendered.
    pub(super) async fn plan_grants(
        &mut self,
        step: &StepId,
        node: &PlanNode,
        extra: &Extra,
    ) -> Result<Grants, OutputError> {
        let Some(subject) = &node.grants.memory_subject else { return Ok(node.grants.clone()) };
        let subject = self.rendered(step, &Value::String(subject.clone()), extra).await?;
        let memory_subject = subject.as_str().map(str::to_owned);
        Ok(Grants { memory_subject, ..node.grants.clone() })
    }

    /// Reads the graph in an answer, and rejects one that uses more than it was granted.
    async fn read_granted_proposal(
        &mut self,
        plan: &mut Plan,
        at: &At,
        node: &PlanNode,
        (text, name): (&str, &str),
    ) -> Result<Result<Graph, Vec<Mistake>>, ActorError> {
        let graph = match self.read_proposal(text, name).await? {
            Ok(graph) => graph,
            Err(mistakes) => return Ok(Err(mistakes)),
        };
        let extra = std::mem::take(&mut plan.extra);
        let grants = self.plan_grants(&at.step, node, &extra).await;
        plan.extra = extra;
        let beyond = match grants {
            Ok(grants) => find_beyond_grants(&graph, &grants),
            Err(OutputError::Failure(error)) => whole(error.full_text().to_owned()),
            Err(error) => return Err(error.into()),
        };
        Ok(if beyond.is_empty() { Ok(graph) } else { Err(beyond) })
    }

    /// Reads the graph in an answer, and names it.
    async fn read_proposal(
        &self,
        text: &str,
        name: &str,
    ) -> Result<Result<Graph, Vec<Mistake>>, ActorError> {
        let manifest = match manifest_in(text, name) {
            Ok(manifest) => manifest,
            Err(mistakes) => return Ok(Err(mistakes)),
        };
        let graph = match self.parse(manifest).await {
            Ok(Ok(graph)) => graph,
            Ok(Err(mistakes)) => return Ok(Err(mistakes)),
            Err(OutputError::Failure(error)) => {
                return Ok(Err(whole(error.full_text().to_owned())));
            }
            Err(error) => return Err(error.into()),
        };
        let nodes = graph.nodes.len();
        if nodes > NODES_LIMIT {
            let message = format!("{nodes} nodes are too many: at most {NODES_LIMIT}");
            return Ok(Err(whole(message)));
        }
        Ok(Ok(graph))
    }
}

/// Wraps a mistake of the whole answer.
fn whole(message: String) -> Vec<Mistake> {
    vec![Mistake { line: 1, column: 1, path: String::new(), message }]
}

/// Extracts the manifest from an answer, and names it.
fn manifest_in(text: &str, name: &str) -> Result<String, Vec<Mistake>> {
    // Models wrap JSON in prose or code fences: take all between the outermost braces.
    let object = text.find('{').zip(text.rfind('}')).filter(|(from, to)| from < to);
    let Some((from, to)) = object else {
        return Err(whole("the answer must be one JSON object".to_owned()));
    };
    let value: Result<Value, _> = read_json(&text.as_bytes()[from..=to]);
    let mut value =
        value.map_err(|error| whole(format!("the answer cannot be read as JSON: {error}")))?;
    value["name"] = json!(name);
    // Inputs and budget are the plan node's to set, not the model's.
    for ours in ["inputs", "budget"] {
        value.as_object_mut().and_then(|fields| fields.remove(ours));
    }
    Ok(value.to_string())
}

fn invalid(mistakes: usize) -> UnsealedFailure {
    failure("graph.invalid", platform_text!("the proposed graph has {} mistakes", mistakes))
}

fn shown(mistakes: &[Mistake]) -> String {
    let lines = mistakes.iter().take(MISTAKES_LIMIT).map(|mistake| {
        let at = if mistake.path.is_empty() { "the graph" } else { &mistake.path };
        format!("- {at}: {}", mistake.message)
    });
    let lines: Vec<String> = lines.collect();
    format!("The graph has mistakes. Answer with the whole graph again.\n{}", lines.join("\n"))
}
