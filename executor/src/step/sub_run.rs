//! Preparation of child runs: their inputs checked, their share of the budget held, their intent
//! written down.

use std::time::Duration;

use convergio_domain::billing::allot_child_budget;
use convergio_domain::chat::Privacy;
use convergio_domain::expr::ExprScope;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::{Graph, SubGraph};
use convergio_domain::id::{AgentId, GraphId, GraphVersion, RunId, StepId};
use convergio_domain::payload::PayloadPurpose;
use convergio_domain::platform_text;
use convergio_domain::policy::child_runs::child_depth;
use convergio_domain::run::{Budget, ChildIntent, StepIntent, ToolCallNumber, child_run_id};
use serde_json::Value;

use super::planner::Planner;
use crate::outputs::OutputError;
use crate::plan::{CommitPlan, EffectLaunch, EffectWork, PreparedStep, new_failure};

/// Graph of a child run.
pub(super) struct ChildGraph<'a> {
    pub(super) graph: GraphId,
    pub(super) version: GraphVersion,
    pub(super) manifest: &'a Graph,
    pub(super) agent: Option<AgentId>,
    /// True if the graph must be registered first.
    pub(super) is_new: bool,
}

/// Inputs, budget and place of a child run.
pub(super) struct ChildSpec {
    pub(super) step: StepId,
    pub(super) attempt: u32,
    pub(super) tool_call: Option<ToolCallNumber>,
    pub(super) inputs: Value,
    /// Limit that the caller sets on the child's budget.
    pub(super) budget: Budget,
    /// Parts into which the remaining budget is divided.
    pub(super) budget_shares: u64,
    pub(super) privacy: Privacy,
}

impl Planner<'_> {
    /// Prepares a child run of another graph.
    pub(super) async fn prepare_sub_graph(
        &mut self,
        plan: &mut CommitPlan,
        (step, attempt): (&StepId, u32),
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
        let node = self.graph.find_node(&step.node);
        let timeout = node.and_then(|node| node.timeout);
        // A child run that waits for people uses no working time, yet must end before the deadline
        // as well.
        // The time limit counts both as working time and as calendar time.
        let limit = Budget { wall: timeout, deadline: timeout, ..Budget::UNBOUND };
        let child_spec = ChildSpec {
            step: step.clone(),
            attempt,
            tool_call: None,
            inputs,
            budget: graph.budget.unwrap_or(Budget::UNBOUND).narrowed_by(limit),
            budget_shares: self.run.state.budget_claimants(&self.graph.graph),
            privacy: self.effective_privacy(),
        };
        if let Some(prepared) = self.continue_last_child(plan, &callee, &child_spec).await? {
            return Ok(prepared);
        }
        let (child, launch) = self.prepare_child(plan, &callee, child_spec).await?;
        Ok(PreparedStep::Start { intent: StepIntent::CreateChild(child), launches: vec![launch] })
    }

    /// Prepares a child run: checks its inputs, stores its payloads and returns its intent and
    /// effect. A failure says why the run is not possible.
    pub(super) async fn prepare_child(
        &self,
        plan: &mut CommitPlan,
        child_graph: &ChildGraph<'_>,
        child_spec: ChildSpec,
    ) -> Result<(ChildIntent, EffectLaunch), OutputError> {
        let mistakes = self.check_schema(&child_graph.manifest.inputs, &child_spec.inputs).await?;
        if !mistakes.is_empty() {
            let message = platform_text!(
                "the inputs do not fit what the graph takes: {} mistakes",
                mistakes.len()
            );
            let error = new_failure("request.invalid", message).with_detail(mistakes.join("; "));
            return Err(OutputError::Failure(error));
        }
        self.child_intent(plan, child_graph, child_spec).map_err(OutputError::Failure)
    }

    fn child_intent(
        &self,
        plan: &mut CommitPlan,
        child_graph: &ChildGraph<'_>,
        child_spec: ChildSpec,
    ) -> Result<(ChildIntent, EffectLaunch), UnsealedFailure> {
        let state = &self.run.state;
        child_depth(state.nesting_depth())?;
        // What the child may spend is taken from the parent's rest, so the sum never exceeds its
        // budget.
        let budget_left = state.child_budget(
            plan.budget_usage,
            child_spec.budget_shares,
            self.shared.current_time(),
        );
        let budget =
            allot_child_budget(budget_left, child_graph.manifest.budget, child_spec.budget)?;
        let ChildSpec { step, attempt, tool_call, inputs, privacy, .. } = child_spec;
        // Serialising a JSON value into memory cannot fail: its keys are strings.
        let input = serde_json::to_vec(&inputs).unwrap_or_default();
        let input = plan.store_payload(input, "application/json", PayloadPurpose::Input);
        let manifest = child_graph.is_new.then(|| child_graph.manifest.canonical_manifest());
        let manifest =
            manifest.map(|m| plan.store_payload(m, "application/json", PayloadPurpose::Manifest));
        plan.hold_budget(budget.tokens.unwrap_or(0), budget.cost.unwrap_or_default());
        let child = child_run_id(RunId(self.run.stream.id), &step, attempt, tool_call);
        let intent = ChildIntent {
            tool_call,
            child,
            graph: child_graph.graph,
            version: child_graph.version.clone(),
            input,
            manifest,
            budget,
            // A child may be stricter about privacy than its parent, never less strict.
            privacy: privacy.max(self.effective_privacy()),
            agent: child_graph.agent,
        };
        // The effect reads the child from the state, once the intent is folded into it.
        let launch = EffectLaunch {
            step,
            attempt,
            tool_call,
            timeout: Duration::MAX,
            work: EffectWork::Child(child),
        };
        Ok((intent, launch))
    }
}
