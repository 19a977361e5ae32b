//! Preparation of a step that starts: templates rendered, a model chosen, the intent written down.

use std::sync::Arc;
use std::time::Duration;

use convergio_domain::chat::ChatRequest;
use convergio_domain::expr::{ExprError, ExprScope};
use convergio_domain::failure::{PlatformText, UnsealedFailure};
use convergio_domain::graph::manifest::{
    Agent, ApprovalNode, BranchNode, MapNode, MapWork, NodeWork, SleepNode, SubGraph,
    ToolInvocation,
};
use convergio_domain::id::{ApprovalId, NodeId, StepId};
use convergio_domain::payload::PayloadPurpose;
use convergio_domain::platform_text;
use convergio_domain::run::{Budget, StepIntent};
use convergio_domain::time::Span;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::children::{ChildGraph, ChildSpec};
use super::commit_plan::CommitPlan;
use super::effect::{EffectLaunch, EffectOutcome, EffectWork, OutputFormat};
use super::model_call::ModelCallSpec;
use super::proposals::UNBOUND;
use super::transcript::TurnAgent;
use super::{Actor, agent_request};
use crate::outputs::{OutputError, UncommittedOutcomes};
use crate::tool;

/// Maximum items of the list that a map iterates over.
const MAP_WIDTH_LIMIT: usize = 100_000;
/// Time limit of an attempt when the manifest names none.
pub(super) const DEFAULT_TIMEOUT: Span = Span::from_seconds(120);

/// A step that is about to start, or is over at once.
pub(super) enum PreparedStep {
    /// The step starts; its effects are launched after the commit.
    Start { intent: StepIntent, launches: Vec<EffectLaunch> },
    /// The step is a map and expands to items.
    Expand { width: u32, max_parallel: u32, intent: StepIntent },
    /// The step needs no effect and is concluded in the same commit.
    Instant(EffectOutcome),
}

impl Actor {
    /// Prepares one step. A returned failure is the step's, and does not end the run by itself.
    pub(super) async fn prepare_step(
        &mut self,
        plan: &mut CommitPlan,
        step: &StepId,
        attempt: u32,
        uncommitted: &UncommittedOutcomes,
    ) -> Result<PreparedStep, OutputError> {
        let graph = Arc::clone(&self.graph);
        let Some(node) = graph.find_node(&step.node) else {
            return Err(OutputError::Failure(invalid_graph(missing_node_message(step))));
        };
        // Agents with tools or memory go in turns; all others are a single effect or none.
        if let Some(turn_agent) = TurnAgent::from_work(&node.work, step.item) {
            return self.prepare_turns(plan, (step, attempt), turn_agent, uncommitted).await;
        }
        let scope = self.template_scope(step, uncommitted).await?;
        let timeout = Duration::from_millis(node.timeout.unwrap_or(DEFAULT_TIMEOUT).0);
        let is_repeatable = node.retry.max > 1;
        let step_attempt = StepAttempt { step, attempt, timeout, is_repeatable };
        match (&node.work, step.item) {
            (NodeWork::Map(map), Some(_)) => match &map.work {
                MapWork::Agent(agent) => {
                    self.prepare_agent_call(plan, step_attempt, agent, &scope).await
                }
                MapWork::Tool(tool) => self.prepare_tool_call(step_attempt, tool, &scope).await,
            },
            (NodeWork::Map(map), None) => self.prepare_expansion(map, &step.node, &scope).await,
            (NodeWork::Agent(agent), _) => {
                self.prepare_agent_call(plan, step_attempt, agent, &scope).await
            }
            (NodeWork::Tool(tool), _) => self.prepare_tool_call(step_attempt, tool, &scope).await,
            (NodeWork::Branch(branch), _) => self.choose_branch(branch, &scope).await,
            (NodeWork::Approval(approval), _) => {
                self.prepare_approval(plan, approval, node.wait_limit(), &scope).await
            }
            (NodeWork::Sleep(SleepNode { span }), _) => {
                let span = node.wait_limit().unwrap_or(*span);
                let due = self.shared.current_time().add_span(span);
                Ok(PreparedStep::Start { intent: StepIntent::Sleep { due }, launches: Vec::new() })
            }
            (NodeWork::Graph(graph), _) => {
                self.prepare_sub_graph(plan, step_attempt, graph, &scope).await
            }
            // Plans always go in turns, see `TurnAgent::from_work`.
            (NodeWork::Plan(_), _) => {
                Err(OutputError::Failure(invalid_graph(platform_text!("a plan goes in turns"))))
            }
            (NodeWork::Signal(signal), _) => {
                let expires =
                    node.wait_limit().map(|limit| self.shared.current_time().add_span(limit));
                let intent = StepIntent::AwaitSignal { signal: signal.name.clone(), expires };
                Ok(PreparedStep::Start { intent, launches: Vec::new() })
            }
        }
    }

    /// Builds the scope that the templates of a step may read.
    pub(super) async fn template_scope(
        &mut self,
        step: &StepId,
        uncommitted: &UncommittedOutcomes,
    ) -> Result<ExprScope, OutputError> {
        let graph = Arc::clone(&self.graph);
        let Some(node) = graph.find_node(&step.node) else {
            return Err(OutputError::Failure(invalid_graph(missing_node_message(step))));
        };
        let mut scope =
            self.outputs.build_scope(&self.run.state, &graph, &node.needs, uncommitted).await?;
        if let (NodeWork::Map(map), Some(item)) = (&node.work, step.item) {
            scope.item = Some((self.map_item(map, &step.node, &scope, item).await?, item));
        }
        Ok(scope)
    }

    /// Prepares a child run of another graph.
    async fn prepare_sub_graph(
        &mut self,
        plan: &mut CommitPlan,
        step_attempt: StepAttempt<'_>,
        graph: &SubGraph,
        scope: &ExprScope,
    ) -> Result<PreparedStep, OutputError> {
        let target = self.graph_target(&graph.name, graph.version.as_ref()).await?;
        let inputs = self.render_value(&graph.inputs, scope).await?;
        let callee = ChildGraph {
            graph: target.graph,
            version: target.version,
            manifest: &target.compiled.graph,
            agent: None,
            is_new: false,
        };
        let node = self.graph.find_node(&step_attempt.step.node);
        let timeout = node.and_then(|node| node.timeout);
        // A child run that waits for people uses no working time, yet must end before the deadline
        // as well.
        // The time limit counts both as working time and as calendar time.
        let limit = Budget { wall: timeout, deadline: timeout, ..UNBOUND };
        let child_spec = ChildSpec {
            step: step_attempt.step.clone(),
            attempt: step_attempt.attempt,
            tool_call: None,
            inputs,
            budget: graph.budget.unwrap_or(UNBOUND).narrowed_by(limit),
            budget_shares: self.budget_claimants(),
            privacy: self.effective_privacy(),
        };
        if let Some(prepared) = self.continue_last_child(plan, &callee, &child_spec).await? {
            return Ok(prepared);
        }
        let (child, launch) = self.prepare_child(plan, &callee, child_spec).await?;
        Ok(PreparedStep::Start { intent: StepIntent::CreateChild(child), launches: vec![launch] })
    }

    /// Returns the list of a map; it is rendered once while the run is in memory.
    async fn map_list(
        &mut self,
        map: &MapNode,
        node: &NodeId,
        scope: &ExprScope,
    ) -> Result<Arc<Vec<Value>>, OutputError> {
        if let Some(list) = self.map_lists.get(node) {
            return Ok(Arc::clone(list));
        }
        // A string, so that a template of one expression keeps its type.
        let over = Value::String(map.over.clone());
        let list = match self.render_value(&over, scope).await? {
            Value::Array(list) if list.len() <= MAP_WIDTH_LIMIT => Arc::new(list),
            Value::Array(list) => {
                let message = platform_text!(
                    "map.over has {} items: at most {}",
                    list.len(),
                    MAP_WIDTH_LIMIT
                );
                return Err(OutputError::Failure(invalid_graph(message)));
            }
            _ => {
                let message =
                    platform_text!("map.over must yield a list: use an output that is one");
                return Err(OutputError::Failure(invalid_graph(message)));
            }
        };
        self.map_lists.insert(node.clone(), Arc::clone(&list));
        Ok(list)
    }

    async fn map_item(
        &mut self,
        map: &MapNode,
        node: &NodeId,
        scope: &ExprScope,
        item: u32,
    ) -> Result<Value, OutputError> {
        let list = self.map_list(map, node, scope).await?;
        let missing =
            || OutputError::Failure(invalid_graph(platform_text!("the list has no item {}", item)));
        list.get(item as usize).cloned().ok_or_else(missing)
    }

    /// Expands a map. An empty list completes it at once.
    async fn prepare_expansion(
        &mut self,
        map: &MapNode,
        node: &NodeId,
        scope: &ExprScope,
    ) -> Result<PreparedStep, OutputError> {
        let list = self.map_list(map, node, scope).await?;
        if list.is_empty() {
            let empty = Arc::new(Value::Array(Vec::new()));
            return Ok(PreparedStep::Instant(EffectOutcome::Completed(Some(empty))));
        }
        let width = u32::try_from(list.len()).unwrap_or(u32::MAX);
        let max_parallel = map.max_parallel;
        let intent = StepIntent::ExpandMap { width, max_parallel };
        Ok(PreparedStep::Expand { width, max_parallel, intent })
    }

    async fn prepare_agent_call(
        &mut self,
        plan: &mut CommitPlan,
        step_attempt: StepAttempt<'_>,
        agent: &Agent,
        scope: &ExprScope,
    ) -> Result<PreparedStep, OutputError> {
        let output_format = match &agent.request {
            Some(_) => OutputFormat::FullReply,
            None if agent.schema.is_some() => OutputFormat::Json,
            None => OutputFormat::Text,
        };
        // Turn 0 marks a call of an agent without tools.
        let StepAttempt { step, attempt, timeout, is_repeatable } = step_attempt;
        let call_spec =
            ModelCallSpec { step, attempt, turn: 0, timeout, output_format, is_repeatable };
        let request = self.render_request(agent, scope).await?;
        let (intent, launch) = self.prepare_model_call(plan, request, call_spec).await?;
        Ok(PreparedStep::Start { intent, launches: vec![launch] })
    }

    /// Prepares a question to a person; its content is stored and named by a hash.
    async fn prepare_approval(
        &mut self,
        plan: &mut CommitPlan,
        approval: &ApprovalNode,
        limit: Option<Span>,
        scope: &ExprScope,
    ) -> Result<PreparedStep, OutputError> {
        let content_template = Value::String(approval.show.clone());
        let content = self.render_value(&content_template, scope).await?;
        // Serialising a JSON value cannot fail: its keys are strings.
        let bytes = serde_json::to_vec(&content).unwrap_or_default();
        let content_hash = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        let intent = StepIntent::RequestApproval {
            // A random id is fine here: it is an intent that the log keeps, and replay reads it.
            approval: ApprovalId(Uuid::now_v7()),
            role: approval.role.clone(),
            content: plan.store_payload(bytes, "application/json", PayloadPurpose::Output),
            content_hash,
            expires: limit.map(|limit| self.shared.current_time().add_span(limit)),
        };
        Ok(PreparedStep::Start { intent, launches: Vec::new() })
    }

    /// Renders the run's output; `None` if the graph declares none.
    pub(super) async fn run_output(
        &mut self,
        plan: &CommitPlan,
    ) -> Result<Option<Value>, OutputError> {
        let graph = Arc::clone(&self.graph);
        let Some(output) = &graph.graph.output else { return Ok(None) };
        let needs = &graph.output_nodes;
        let scope = self
            .outputs
            .build_scope(&self.run.state, &graph, needs, plan.uncommitted_outcomes())
            .await?;
        self.render_value(output, &scope).await.map(Some)
    }
}

/// An attempt of a step that is about to start.
struct StepAttempt<'a> {
    step: &'a StepId,
    attempt: u32,
    timeout: Duration,
    is_repeatable: bool,
}

impl StepAttempt<'_> {
    fn to_launch(&self, work: EffectWork) -> EffectLaunch {
        let (step, attempt, timeout) = (self.step.clone(), self.attempt, self.timeout);
        EffectLaunch { step, attempt, tool_call: None, timeout, work }
    }
}

impl Actor {
    async fn prepare_tool_call(
        &self,
        step_attempt: StepAttempt<'_>,
        tool: &ToolInvocation,
        scope: &ExprScope,
    ) -> Result<PreparedStep, OutputError> {
        let args = self.render_value(&tool.with, scope).await?;
        // Checked before the intent: arguments that no tool takes must not fill the log.
        tool::check_arguments_size(&tool.name, &args).map_err(OutputError::Failure)?;
        let work = EffectWork::Tool { name: tool.name.clone(), args };
        // Tool nodes name neither tool nor arguments in their intent: both follow from the manifest
        // and the outputs in the log.
        Ok(PreparedStep::Start {
            intent: StepIntent::Compute,
            launches: vec![step_attempt.to_launch(work)],
        })
    }

    /// Evaluates the conditions of a branch; the number of cases stands for the default.
    async fn choose_branch(
        &self,
        branch: &BranchNode,
        scope: &ExprScope,
    ) -> Result<PreparedStep, OutputError> {
        let conditions: Vec<&str> = branch.cases.iter().map(|case| case.when.as_str()).collect();
        let first_true = self.find_first_true(&conditions, scope).await?;
        Ok(PreparedStep::Instant(EffectOutcome::BranchTaken(
            u32::try_from(first_true).unwrap_or(u32::MAX),
        )))
    }

    /// Renders an agent's templates to a chat request.
    pub(super) async fn render_request(
        &self,
        agent: &Agent,
        scope: &ExprScope,
    ) -> Result<ChatRequest, OutputError> {
        if let Some(template) = &agent.request {
            let value = self.render_value(&Value::String(template.clone()), scope).await?;
            return agent_request::request_from_value(agent, value).map_err(OutputError::Failure);
        }
        let texts: Vec<&str> =
            agent.system.as_deref().into_iter().chain([agent.prompt.as_str()]).collect();
        let mut texts = self.render_texts(&texts, scope).await?;
        let prompt = texts.pop().unwrap_or_default();
        Ok(agent_request::request_from_prompt(agent, texts.pop(), prompt))
    }
}

pub(super) fn template_failure(error: &ExprError) -> OutputError {
    let message = platform_text!("a template or condition has no value that can be used");
    OutputError::Failure(UnsealedFailure::new("template.invalid", message).with_detail(error))
}

fn missing_node_message(step: &StepId) -> PlatformText {
    platform_text!("no node {}", step.node)
}

fn invalid_graph(message: PlatformText) -> UnsealedFailure {
    UnsealedFailure::new("graph.invalid", message)
}
