//! Graphs that a model proposes: read from its answer, checked against its grants, and run as child
//! runs.

use convergio_domain::chat::ChatReply;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::{CalleeRef, Grants, Graph, PlanNode, ToolRef};
use convergio_domain::graph::{self, Diagnostic, ToolSpec, find_ungranted_uses};
use convergio_domain::id::StepId;
use convergio_domain::json::read_json;
use convergio_domain::platform_text;
use convergio_domain::run::{Budget, StepIntent, TurnIntent};
use serde_json::{Value, json};

use super::planner::Planner;
use super::sub_run::{ChildGraph, ChildSpec};
use crate::error::ActorError;
use crate::outputs::{OutputError, UncommittedOutcomes};
use crate::plan::{CapacityKind, CommitPlan, EffectResult, ToolCallAt, new_failure};
use crate::tool;

/// Maximum nodes of a proposed graph.
const NODES_LIMIT: usize = 64;
/// Maximum mistakes that a model is told of at once.
const MISTAKES_LIMIT: usize = 20;
/// Name of the tool call that stands for checking and running a proposal.
const RUN_CALL_NAME: &str = "graph.run";

/// Instructions for a model that proposes graphs, before the list of its grants.
const INSTRUCTIONS: &str = include_str!("proposals.txt");

/// Builds the instructions for a model that proposes graphs. The memory subject of the grants must
/// have been rendered.
pub(super) fn plan_instructions(grants: &Grants) -> String {
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
    let callee_line = |kind: &str, form: &str, callee: &CalleeRef| {
        let does = callee.description.as_deref().unwrap_or_default();
        format!("- {kind} {}: {does} {form}\n", callee.name)
    };
    Some(match tool {
        ToolRef::Builtin(name) => {
            let catalog = tool::builtin_catalog();
            let ToolSpec { name, description, arguments, .. } = catalog.get(name)?;
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

impl Planner<'_> {
    /// Handles a model's proposal: a valid graph is run, mistakes go back to the model.
    pub(super) async fn handle_proposal(
        &mut self,
        plan: &mut CommitPlan,
        effect_result: &EffectResult,
        reply: Box<ChatReply>,
        node: &PlanNode,
    ) -> Result<(), ActorError> {
        let call_at = self.record_answer(plan, effect_result, reply);
        let text =
            plan.pending_reply(&call_at.step).map(|reply| reply.text.clone()).unwrap_or_default();
        let name = self.proposal_name(&call_at);
        let proposal = self.read_granted_proposal(plan, &call_at, node, (&text, &name)).await?;
        let checked = match proposal {
            Ok(_) if !plan.capacity.has_capacity(CapacityKind::ChildRun) => {
                plan.add_queued_tool(&call_at, RUN_CALL_NAME.to_owned());
                return Ok(());
            }
            Ok(graph) => self.run_proposal(plan, &call_at, node, &graph, false).await?,
            Err(mistakes) => Err((invalid_proposal(mistakes.len()), mistakes_text(&mistakes))),
        };
        if let Err((error, text)) = checked {
            plan.add_tool_failure(&call_at, error, text);
        }
        self.continue_turn(plan, &call_at).await
    }

    /// Runs a proposal that waited for capacity.
    pub(super) async fn run_queued_proposal(
        &mut self,
        plan: &mut CommitPlan,
        call_at: &ToolCallAt,
        node: &PlanNode,
        text: &str,
    ) -> Result<(), ActorError> {
        let name = self.proposal_name(call_at);
        // Checked again: what the graph names may have changed since.
        let proposal = self.read_granted_proposal(plan, call_at, node, (text, &name)).await?;
        let checked = match proposal {
            Ok(graph) => self.run_proposal(plan, call_at, node, &graph, true).await?,
            Err(mistakes) => Err((invalid_proposal(mistakes.len()), mistakes_text(&mistakes))),
        };
        if let Err((error, text)) = checked {
            plan.add_tool_failure(call_at, error, text);
        }
        Ok(())
    }

    async fn run_proposal(
        &mut self,
        plan: &mut CommitPlan,
        call_at: &ToolCallAt,
        node: &PlanNode,
        graph: &Graph,
        is_queued: bool,
    ) -> Result<Result<(), (UnsealedFailure, String)>, ActorError> {
        let uncommitted = std::mem::take(&mut plan.uncommitted);
        let inputs = self.render_for_step(&call_at.step, &node.inputs, &uncommitted).await;
        plan.uncommitted = uncommitted;
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
        let child_graph = ChildGraph {
            graph: graph::graph_id(tenant, &graph.name),
            version: graph.compute_version(),
            manifest: graph,
            agent: None,
            is_new: true,
        };
        let time_left = Some(self.time_left(&call_at.step));
        let limit = Budget { wall: time_left, deadline: time_left, ..Budget::UNBOUND };
        let child_spec = ChildSpec {
            step: call_at.step.clone(),
            attempt: call_at.attempt,
            tool_call: Some(call_at.call),
            inputs,
            budget: node.budget.unwrap_or(Budget::UNBOUND).narrowed_by(limit),
            // One share stays for a better proposal, should this one fail.
            budget_shares: self.run.state.budget_claimants(&self.graph.graph) + 1,
            privacy: node.agent.privacy,
        };
        Ok(match self.prepare_child(plan, &child_graph, child_spec).await {
            Ok((intent, launch)) => {
                if !is_queued {
                    plan.add_tool_intent(call_at, RUN_CALL_NAME.to_owned());
                }
                plan.add_intent(
                    call_at,
                    TurnIntent::Begin(StepIntent::CreateChild(intent)),
                    Some(launch),
                );
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
    fn proposal_name(&self, call_at: &ToolCallAt) -> String {
        let qualified_name = format!("{}/{}", self.graph.graph.name, call_at.step.node);
        format!("plan-{}", &sha256_hex(&qualified_name)[..16])
    }
}

fn sha256_hex(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Planner<'_> {
    /// Returns the grants of a plan node, with the memory subject rendered.
    pub(super) async fn render_grants(
        &mut self,
        step: &StepId,
        node: &PlanNode,
        uncommitted: &UncommittedOutcomes,
    ) -> Result<Grants, OutputError> {
        let Some(subject) = &node.grants.memory_subject else { return Ok(node.grants.clone()) };
        let subject =
            self.render_for_step(step, &Value::String(subject.clone()), uncommitted).await?;
        let memory_subject = subject.as_str().map(str::to_owned);
        Ok(Grants { memory_subject, ..node.grants.clone() })
    }

    /// Reads the graph in an answer, and rejects one that uses more than it was granted.
    async fn read_granted_proposal(
        &mut self,
        plan: &mut CommitPlan,
        call_at: &ToolCallAt,
        node: &PlanNode,
        (text, name): (&str, &str),
    ) -> Result<Result<Graph, Vec<Diagnostic>>, ActorError> {
        let graph = match self.read_proposal(text, name).await? {
            Ok(graph) => graph,
            Err(mistakes) => return Ok(Err(mistakes)),
        };
        let uncommitted = std::mem::take(&mut plan.uncommitted);
        let grants = self.render_grants(&call_at.step, node, &uncommitted).await;
        plan.uncommitted = uncommitted;
        let beyond_grants = match grants {
            Ok(grants) => find_ungranted_uses(&graph, &grants),
            Err(OutputError::Failure(error)) => whole_answer_mistake(error.full_text().to_owned()),
            Err(error) => return Err(error.into()),
        };
        Ok(if beyond_grants.is_empty() { Ok(graph) } else { Err(beyond_grants) })
    }

    /// Reads the graph in an answer, and names it.
    async fn read_proposal(
        &self,
        text: &str,
        name: &str,
    ) -> Result<Result<Graph, Vec<Diagnostic>>, ActorError> {
        let manifest = match extract_manifest(text, name) {
            Ok(manifest) => manifest,
            Err(mistakes) => return Ok(Err(mistakes)),
        };
        let graph = match self.parse_manifest(manifest).await {
            Ok(Ok(graph)) => graph,
            Ok(Err(mistakes)) => return Ok(Err(mistakes)),
            Err(OutputError::Failure(error)) => {
                return Ok(Err(whole_answer_mistake(error.full_text().to_owned())));
            }
            Err(error) => return Err(error.into()),
        };
        let nodes = graph.nodes.len();
        if nodes > NODES_LIMIT {
            let message = format!("{nodes} nodes are too many: at most {NODES_LIMIT}");
            return Ok(Err(whole_answer_mistake(message)));
        }
        Ok(Ok(graph))
    }
}

/// Wraps a mistake of the whole answer.
fn whole_answer_mistake(message: String) -> Vec<Diagnostic> {
    vec![Diagnostic { line: 1, column: 1, path: String::new(), message }]
}

/// Extracts the manifest from an answer, and names it.
fn extract_manifest(text: &str, name: &str) -> Result<String, Vec<Diagnostic>> {
    // Models wrap JSON in prose or code fences: take all between the outermost braces.
    let object = text.find('{').zip(text.rfind('}')).filter(|(from, to)| from < to);
    let Some((from, to)) = object else {
        return Err(whole_answer_mistake("the answer must be one JSON object".to_owned()));
    };
    let value: Result<Value, _> = read_json(&text.as_bytes()[from..=to]);
    let mut value = value.map_err(|error| {
        whole_answer_mistake(format!("the answer cannot be read as JSON: {error}"))
    })?;
    value["name"] = json!(name);
    // Inputs and budget are the plan node's to set, not the model's.
    for reserved_field in ["inputs", "budget"] {
        value.as_object_mut().and_then(|fields| fields.remove(reserved_field));
    }
    Ok(value.to_string())
}

fn invalid_proposal(mistakes: usize) -> UnsealedFailure {
    new_failure("graph.invalid", platform_text!("the proposed graph has {} mistakes", mistakes))
}

fn mistakes_text(mistakes: &[Diagnostic]) -> String {
    let lines = mistakes.iter().take(MISTAKES_LIMIT).map(|mistake| {
        let at = if mistake.path.is_empty() { "the graph" } else { &mistake.path };
        format!("- {at}: {}", mistake.message)
    });
    let lines: Vec<String> = lines.collect();
    format!("The graph has mistakes. Answer with the whole graph again.\n{}", lines.join("\n"))
}
