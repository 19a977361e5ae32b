//! Preparation of a step that starts: templates rendered, a model chosen, the intent written down.

use std::sync::Arc;
use std::time::Duration;

use convergio_domain::expr::ExprScope;
use convergio_domain::graph::ToolEffect;
use convergio_domain::graph::manifest::{
    ApprovalNode, BranchNode, MapNode, MapWork, NodeWork, SleepNode, ToolInvocation,
};
use convergio_domain::id::{ApprovalId, NodeId, StepId};
use convergio_domain::payload::PayloadPurpose;
use convergio_domain::platform_text;
use convergio_domain::run::{StepIntent, ToolIntent};
use convergio_domain::time::Span;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::agent::TurnAgent;
use super::context::{invalid_graph, missing_node_message};
use super::model_call::StepAttempt;
use super::planner::Planner;
use crate::outputs::{OutputError, UncommittedOutcomes};
use crate::plan::{CommitPlan, EffectLaunch, EffectOutcome, EffectWork, PreparedStep};
use crate::tool;

/// Time limit of an attempt when the manifest names none.
pub(super) const DEFAULT_TIMEOUT: Span = Span::from_seconds(120);

impl Planner<'_> {
    /// Prepares one step. A returned failure is the step's, and does not end the run by itself.
    pub(crate) async fn prepare_step(
        &mut self,
        plan: &mut CommitPlan,
        step: &StepId,
        attempt: u32,
        uncommitted: &UncommittedOutcomes,
    ) -> Result<PreparedStep, OutputError> {
        let graph = self.graph;
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
                MapWork::Tool(tool) => {
                    self.prepare_tool_call(plan, step_attempt, tool, &scope).await
                }
            },
            (NodeWork::Map(map), None) => self.prepare_expansion(map, &step.node, &scope).await,
            (NodeWork::Agent(agent), _) => {
                self.prepare_agent_call(plan, step_attempt, agent, &scope).await
            }
            (NodeWork::Tool(tool), _) => {
                self.prepare_tool_call(plan, step_attempt, tool, &scope).await
            }
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
                self.prepare_sub_graph(plan, (step, attempt), graph, &scope).await
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

    async fn prepare_tool_call(
        &self,
        plan: &mut CommitPlan,
        step_attempt: StepAttempt<'_>,
        tool: &ToolInvocation,
        scope: &ExprScope,
    ) -> Result<PreparedStep, OutputError> {
        let args = self.render_value(&tool.with, scope).await?;
        // Checked before the intent: arguments that no tool takes must not fill the log.
        tool::check_arguments_size(&tool.name, &args).map_err(OutputError::Failure)?;
        let StepAttempt { step, attempt, timeout, .. } = step_attempt;
        let intent = match tool::find_tool_effect(&tool.name) {
            // Neither tool nor arguments are named: both follow from the manifest and the outputs
            // in the log.
            ToolEffect::Pure => StepIntent::Compute,
            effect => {
                let origin = tool::tool_call_origin(&self.run.stream, step, None);
                // Serialising a JSON value cannot fail: its keys are strings.
                let bytes = serde_json::to_vec(&args).unwrap_or_default();
                let purpose = PayloadPurpose::Output;
                StepIntent::RunTool(ToolIntent {
                    name: tool.name.clone(),
                    arguments: plan.store_payload(bytes, "application/json", purpose),
                    idempotency_key: (effect == ToolEffect::Idempotent).then_some(origin),
                })
            }
        };
        let work = EffectWork::Tool { name: tool.name.clone(), args };
        let step = step.clone();
        let launches = vec![EffectLaunch { step, attempt, tool_call: None, timeout, work }];
        Ok(PreparedStep::Start { intent, launches })
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
}
