//! Preparation of a step that starts: templates rendered, a model chosen, the intent written down.

use std::sync::Arc;
use std::time::Duration;

use convergio_domain::chat::ChatRequest;
use convergio_domain::expr::{ExprError, Scope};
use convergio_domain::failure::{PlatformText, UnsealedFailure};
use convergio_domain::graph::manifest::{
    Agent, Approval, Branch, Map, MapWork, Sleep, SubGraph, Tool, Work,
};
use convergio_domain::id::{ApprovalId, NodeId, StepId};
use convergio_domain::payload::Purpose;
use convergio_domain::platform_text;
use convergio_domain::run::{Budget, Intent};
use convergio_domain::time::Span;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Actor;
use super::asking::Asker;
use super::calling::Calling;
use super::children::{Callee, Wanted};
use super::effect::{Answers, DoneResult, Launch, Work as EffectWork};
use super::plan::Plan;
use super::proposals::UNBOUND;
use crate::model::ask;
use crate::outputs::{Extra, OutputError};
use crate::tool;

/// Maximum items of the list that a map iterates over.
const MAP_WIDTH_LIMIT: usize = 100_000;
/// Time limit of an attempt when the manifest names none.
pub(super) const TIMEOUT: Span = Span::seconds(120);

/// A step that is about to start, or is over at once.
pub(super) enum Prepared {
    /// The step starts; its effects are launched after the commit.
    Start { intent: Intent, launches: Vec<Launch> },
    /// The step is a map and expands to items.
    Expand { width: u32, max_parallel: u32, intent: Intent },
    /// The step needs no effect and is concluded in the same commit.
    Instant(DoneResult),
}

impl Actor {
    /// Prepares one step. A returned failure is the step's, and does not end the run by itself.
    pub(super) async fn prepare(
        &mut self,
        plan: &mut Plan,
        step: &StepId,
        attempt: u32,
        extra: &Extra,
    ) -> Result<Prepared, OutputError> {
        let graph = Arc::clone(&self.graph);
        let Some(node) = graph.find_node(&step.node) else {
            return Err(OutputError::Failure(invalid(no_node(step))));
        };
        // Agents with tools or memory go in turns; all others are a single effect or none.
        if let Some(asker) = Asker::of(&node.work, step.item) {
            return self.begin_turns(plan, (step, attempt), asker, extra).await;
        }
        let scope = self.scope_of(step, extra).await?;
        let timeout = Duration::from_millis(node.timeout.unwrap_or(TIMEOUT).0);
        let is_repeatable = node.retry.max > 1;
        let start = Start { step, attempt, timeout, is_repeatable };
        match (&node.work, step.item) {
            (Work::Map(map), Some(_)) => match &map.work {
                MapWork::Agent(agent) => self.agent_call(plan, start, agent, &scope).await,
                MapWork::Tool(tool) => self.tool_call(start, tool, &scope).await,
            },
            (Work::Map(map), None) => self.expand(map, &step.node, &scope).await,
            (Work::Agent(agent), _) => self.agent_call(plan, start, agent, &scope).await,
            (Work::Tool(tool), _) => self.tool_call(start, tool, &scope).await,
            (Work::Branch(branch), _) => self.choose(branch, &scope).await,
            (Work::Approval(approval), _) => {
                self.ask(plan, approval, node.wait_limit(), &scope).await
            }
            (Work::Sleep(Sleep { span }), _) => {
                let span = node.wait_limit().unwrap_or(*span);
                let due = self.shared.now().after(span);
                Ok(Prepared::Start { intent: Intent::Sleep { due }, launches: Vec::new() })
            }
            (Work::Graph(graph), _) => self.sub_graph(plan, start, graph, &scope).await,
            // Plans always go in turns, see `TurnAgent::from_work`.
            (Work::Plan(_), _) => {
                Err(OutputError::Failure(invalid(platform_text!("a plan goes in turns"))))
            }
            (Work::Signal(signal), _) => {
                let expires = node.wait_limit().map(|limit| self.shared.now().after(limit));
                let intent = Intent::Await { signal: signal.name.clone(), expires };
                Ok(Prepared::Start { intent, launches: Vec::new() })
            }
        }
    }

    /// Builds the scope that the templates of a step may read.
    pub(super) async fn scope_of(
        &mut self,
        step: &StepId,
        extra: &Extra,
    ) -> Result<Scope, OutputError> {
        let graph = Arc::clone(&self.graph);
        let Some(node) = graph.find_node(&step.node) else {
            return Err(OutputError::Failure(invalid(no_node(step))));
        };
        let mut scope = self.outputs.scope(&self.run.state, &graph, &node.needs, extra).await?;
        if let (Work::Map(map), Some(item)) = (&node.work, step.item) {
            scope.item = Some((self.item(map, &step.node, &scope, item).await?, item));
        }
        Ok(scope)
    }

    /// Prepares a child run of another graph.
    async fn sub_graph(
        &mut self,
        plan: &mut Plan,
        start: Start<'_>,
        graph: &SubGraph,
        scope: &Scope,
    ) -> Result<Prepared, OutputError> {
        let target = self.graph_target(&graph.name, graph.version.as_ref()).await?;
        let inputs = self.render(&graph.inputs, scope).await?;
        let callee = Callee {
            graph: target.graph,
            version: target.version,
            manifest: &target.compiled.graph,
            agent: None,
            is_new: false,
        };
        let node = self.graph.find_node(&start.step.node);
        let timeout = node.and_then(|node| node.timeout);
        // A child run that waits for people uses no working time, yet must end before the deadline
        // as well.
        // The time limit counts both as working time and as calendar time.
        let limit = Budget { wall: timeout, deadline: timeout, ..UNBOUND };
        let wanted = Wanted {
            step: start.step.clone(),
            attempt: start.attempt,
            at: None,
            inputs,
            budget: graph.budget.unwrap_or(UNBOUND).within(limit),
            shares: self.spenders(),
            privacy: self.privacy(),
        };
        if let Some(prepared) = self.go_on_with_child(plan, &callee, &wanted).await? {
            return Ok(prepared);
        }
        let (child, launch) = self.child(plan, &callee, wanted).await?;
        Ok(Prepared::Start { intent: Intent::Child(child), launches: vec![launch] })
    }

    /// Returns the list of a map; it is rendered once while the run is in memory.
    async fn list(
        &mut self,
        map: &Map,
        node: &NodeId,
        scope: &Scope,
    ) -> Result<Arc<Vec<Value>>, OutputError> {
        if let Some(list) = self.lists.get(node) {
            return Ok(Arc::clone(list));
        }
        // A string, so that a template of one expression keeps its type.
        let over = Value::String(map.over.clone());
        let list = match self.render(&over, scope).await? {
            Value::Array(list) if list.len() <= MAP_WIDTH_LIMIT => Arc::new(list),
            Value::Array(list) => {
                let message = platform_text!(
                    "map.over has {} items: at most {}",
                    list.len(),
                    MAP_WIDTH_LIMIT
                );
                return Err(OutputError::Failure(invalid(message)));
            }
            _ => {
                let message =
                    platform_text!("map.over must yield a list: use an output that is one");
                return Err(OutputError::Failure(invalid(message)));
            }
        };
        self.lists.insert(node.clone(), Arc::clone(&list));
        Ok(list)
    }

    async fn item(
        &mut self,
        map: &Map,
        node: &NodeId,
        scope: &Scope,
        item: u32,
    ) -> Result<Value, OutputError> {
        let list = self.list(map, node, scope).await?;
        let missing =
            || OutputError::Failure(invalid(platform_text!("the list has no item {}", item)));
        list.get(item as usize).cloned().ok_or_else(missing)
    }

    /// Expands a map. An empty list completes it at once.
    async fn expand(
        &mut self,
        map: &Map,
        node: &NodeId,
        scope: &Scope,
    ) -> Result<Prepared, OutputError> {
        let list = self.list(map, node, scope).await?;
        if list.is_empty() {
            let empty = Arc::new(Value::Array(Vec::new()));
            return Ok(Prepared::Instant(DoneResult::Completed(Some(empty))));
        }
        let width = u32::try_from(list.len()).unwrap_or(u32::MAX);
        let max_parallel = map.max_parallel;
        let intent = Intent::Expand { width, max_parallel };
        Ok(Prepared::Expand { width, max_parallel, intent })
    }

    async fn agent_call(
        &mut self,
        plan: &mut Plan,
        start: Start<'_>,
        agent: &Agent,
        scope: &Scope,
    ) -> Result<Prepared, OutputError> {
        let answers = match &agent.request {
            Some(_) => Answers::Whole,
            None if agent.schema.is_some() => Answers::Json,
            None => Answers::Text,
        };
        // Turn 0 marks a call of an agent without tools.
        let Start { step, attempt, timeout, is_repeatable } = start;
        let calling = Calling { step, attempt, turn: 0, timeout, answers, is_repeatable };
        let request = self.asked(agent, scope).await?;
        let (intent, launch) = self.model_call(plan, request, calling).await?;
        Ok(Prepared::Start { intent, launches: vec![launch] })
    }

    /// Prepares a question to a person; its content is stored and named by a hash.
    async fn ask(
        &mut self,
        plan: &mut Plan,
        approval: &Approval,
        limit: Option<Span>,
        scope: &Scope,
    ) -> Result<Prepared, OutputError> {
        let shown = Value::String(approval.show.clone());
        let content = self.render(&shown, scope).await?;
        // Serialising a JSON value cannot fail: its keys are strings.
        let bytes = serde_json::to_vec(&content).unwrap_or_default();
        let content_hash = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        let intent = Intent::Ask {
            // A random id is fine here: it is an intent that the log keeps, and replay reads it.
            approval: ApprovalId(Uuid::now_v7()),
            role: approval.role.clone(),
            content: plan.store(bytes, "application/json", Purpose::Output),
            content_hash,
            expires: limit.map(|limit| self.shared.now().after(limit)),
        };
        Ok(Prepared::Start { intent, launches: Vec::new() })
    }

    /// Renders the run's output; `None` if the graph declares none.
    pub(super) async fn output(&mut self, plan: &Plan) -> Result<Option<Value>, OutputError> {
        let graph = Arc::clone(&self.graph);
        let Some(output) = &graph.graph.output else { return Ok(None) };
        let needs = &graph.yields;
        let scope = self.outputs.scope(&self.run.state, &graph, needs, plan.extra()).await?;
        self.render(output, &scope).await.map(Some)
    }
}

/// An attempt of a step that is about to start.
struct Start<'a> {
    step: &'a StepId,
    attempt: u32,
    timeout: Duration,
    is_repeatable: bool,
}

impl Start<'_> {
    fn launch(&self, work: EffectWork) -> Launch {
        let (step, attempt, timeout) = (self.step.clone(), self.attempt, self.timeout);
        Launch { step, attempt, at: None, timeout, work }
    }
}

impl Actor {
    async fn tool_call(
        &self,
        start: Start<'_>,
        tool: &Tool,
        scope: &Scope,
    ) -> Result<Prepared, OutputError> {
        let args = self.render(&tool.with, scope).await?;
        // Checked before the intent: arguments that no tool takes must not fill the log.
        tool::check_size(&tool.name, &args).map_err(OutputError::Failure)?;
        let work = EffectWork::Tool { name: tool.name.clone(), args };
        // Tool nodes name neither tool nor arguments in their intent: both follow from the manifest
        // and the outputs in the log.
        Ok(Prepared::Start { intent: Intent::Compute, launches: vec![start.launch(work)] })
    }

    /// Evaluates the conditions of a branch; the number of cases stands for the default.
    async fn choose(&self, branch: &Branch, scope: &Scope) -> Result<Prepared, OutputError> {
        let conditions: Vec<&str> = branch.cases.iter().map(|case| case.when.as_str()).collect();
        let taken = self.first_holding(&conditions, scope).await?;
        Ok(Prepared::Instant(DoneResult::Chosen(u32::try_from(taken).unwrap_or(u32::MAX))))
    }

    /// Renders an agent's templates to a chat request.
    pub(super) async fn asked(
        &self,
        agent: &Agent,
        scope: &Scope,
    ) -> Result<ChatRequest, OutputError> {
        if let Some(template) = &agent.request {
            let value = self.render(&Value::String(template.clone()), scope).await?;
            return ask::of_value(agent, value).map_err(OutputError::Failure);
        }
        let texts: Vec<&str> =
            agent.system.as_deref().into_iter().chain([agent.prompt.as_str()]).collect();
        let mut texts = self.render_texts(&texts, scope).await?;
        let prompt = texts.pop().unwrap_or_default();
        Ok(ask::of_prompt(agent, texts.pop(), prompt))
    }
}

pub(super) fn failed(error: &ExprError) -> OutputError {
    let message = platform_text!("a template or condition has no value that can be used");
    OutputError::Failure(UnsealedFailure::new("template.invalid", message).with_detail(error))
}

fn no_node(step: &StepId) -> PlatformText {
    platform_text!("no node {}", step.node)
}

fn invalid(message: PlatformText) -> UnsealedFailure {
    UnsealedFailure::new("graph.invalid", message)
}
