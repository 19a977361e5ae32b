//! Graphs that a model proposes: read from its answer, checked, and run within the run.

use convergio_domain::chat::ChatReply;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::{Graph, Plan as PlanNode};
use convergio_domain::graph::{self, Mistake};
use convergio_domain::json::read_json;
use convergio_domain::platform_text;
use convergio_domain::run::{Budget, Intent, Next};
use serde_json::{Value, json};

use super::children::{Callee, Wanted};
use super::effect::{Done, failure};
use super::places::PlaceKind;
use super::plan::Plan;
use super::turns::At;
use super::{Actor, ActorError};
use crate::outputs::{Extra, OutputError};
use crate::tool;

/// Nodes of a proposed graph at most.
const NODES_LIMIT: usize = 64;
/// Mistakes that a model is told at once.
const MISTAKES_LIMIT: usize = 20;
/// What the call is named that checks and runs a proposal.
const RUN: &str = "graph.run";

/// What a model that proposes graphs is told, before the list of tools.
const INSTRUCTIONS: &str = include_str!("proposals.txt");

/// What a model that proposes graphs is told.
pub(super) fn instructions() -> String {
    let mut text = INSTRUCTIONS.to_owned();
    for spec in tool::catalog().iter() {
        let (name, does, takes) = (&spec.name, &spec.description, &spec.arguments);
        text.push_str(&format!("- {name}: {does} Arguments: {takes}\n"));
    }
    text
}

impl Actor {
    /// A model has proposed a graph. Good ones are run; what is wrong with others is told to it.
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
        let proposal = read(&text, &name);
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

    /// Runs a proposal that had to wait for a place.
    pub(super) async fn run_queued_proposal(
        &mut self,
        plan: &mut Plan,
        at: &At,
        node: &PlanNode,
        text: &str,
    ) -> Result<(), ActorError> {
        let name = self.proposal_name(at);
        let checked = match read(text, &name) {
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
            Err(OutputError::Log(error)) => return Err(error.into()),
            Err(OutputError::Failure(error)) => {
                let text = error.full_text().to_owned();
                return Ok(Err((error, text)));
            }
        };
        let tenant = &self.run.stream.tenant;
        let callee = Callee {
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
            // One part stays for a better proposal, should this one fail.
            shares: self.spenders() + 1,
            privacy: node.agent.privacy,
        };
        Ok(match self.child(plan, &callee, wanted) {
            Ok((intent, launch)) => {
                if !is_queued {
                    plan.begin_tool(at, RUN.to_owned());
                }
                plan.next(at, Next::Begin(Intent::Child(intent)), Some(launch));
                Ok(())
            }
            Err(error) => {
                let text = error.full_text().to_owned();
                Err((error, text))
            }
        })
    }

    /// The name of graphs that are proposed here: nobody else's.
    fn proposal_name(&self, at: &At) -> String {
        let of = format!("{}/{}", self.graph.graph.name, at.step.node);
        format!("plan-{}", &blake3_hex(&of)[..16])
    }

    /// Templates of a value, rendered for a step.
    pub(super) async fn rendered(
        &mut self,
        step: &convergio_domain::id::StepId,
        value: &Value,
        extra: &Extra,
    ) -> Result<Value, OutputError> {
        let scope = self.scope_of(step, extra).await?;
        let rendered = convergio_domain::expr::render_value(value, &scope);
        rendered.map_err(|error| super::prepare::failed(&error))
    }
}

/// No limit by the word of who asks.
pub(super) const UNBOUND: Budget = Budget::UNBOUND;

fn blake3_hex(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The graph in an answer, under a name of ours.
fn read(text: &str, name: &str) -> Result<Graph, Vec<Mistake>> {
    let whole =
        |message: String| vec![Mistake { line: 1, column: 1, path: String::new(), message }];
    let object = text.find('{').zip(text.rfind('}')).filter(|(from, to)| from < to);
    let Some((from, to)) = object else {
        return Err(whole("the answer must be one JSON object".to_owned()));
    };
    let value: Result<Value, _> = read_json(&text.as_bytes()[from..=to]);
    let mut value =
        value.map_err(|error| whole(format!("the answer cannot be read as JSON: {error}")))?;
    value["name"] = json!(name);
    for ours in ["inputs", "budget"] {
        value.as_object_mut().and_then(|fields| fields.remove(ours));
    }
    let parsed = graph::parse(&value.to_string(), &tool::catalog())?;
    let nodes = parsed.graph.nodes.len();
    if nodes > NODES_LIMIT {
        return Err(whole(format!("{nodes} nodes are too many: at most {NODES_LIMIT}")));
    }
    Ok(parsed.graph)
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
